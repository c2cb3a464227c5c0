//! Plain numbers of a tensor: f32 or f64, in a flat vector on the host.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Shape, Tensor, Var, bail};

/// The two number types that are trained.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + 'static
{
    /// Rounds.
    fn of(x: f64) -> Self;
    /// Widens.
    fn wide(self) -> f64;
    fn sqrt(self) -> Self;
    /// The larger; a NaN on either side gives NaN, as in PyTorch.
    fn greater(self, other: Self) -> Self {
        if self > other || self.wide().is_nan() { self } else { other }
    }
    /// The numbers of `values` if they are of this type.
    fn slice(values: &Values) -> Option<&[Self]>;
    /// The numbers of `values` if they are of this type.
    fn slice_mut(values: &mut Values) -> Option<&mut [Self]>;
}

macro_rules! real {
    ($type:ty, $variant:ident) => {
        impl Real for $type {
            fn of(x: f64) -> Self {
                x as $type
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn sqrt(self) -> Self {
                <$type>::sqrt(self)
            }
            fn slice(values: &Values) -> Option<&[Self]> {
                if let Values::$variant(v) = values { Some(v) } else { None }
            }
            fn slice_mut(values: &mut Values) -> Option<&mut [Self]> {
                if let Values::$variant(v) = values { Some(v) } else { None }
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// The numbers of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A view of the numbers of a parameter, to change them in place.
pub(crate) enum ValuesMut<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
}

macro_rules! each {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            Values::F32($v) => $body,
            Values::F64($v) => $body,
        }
    };
}

impl Values {
    /// Copies a tensor's numbers.
    pub(crate) fn read(tensor: &Tensor) -> candle_core::Result<Self> {
        let flat = tensor.flatten_all()?;
        match flat.dtype() {
            DType::F32 => Ok(Self::F32(flat.to_vec1()?)),
            DType::F64 => Ok(Self::F64(flat.to_vec1()?)),
            other => bail!("only f32 and f64 parameters can be trained, got {other:?}"),
        }
    }

    /// `n` times `x`.
    pub(crate) fn full(n: usize, x: f64, dtype: DType) -> candle_core::Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32(vec![x as f32; n])),
            DType::F64 => Ok(Self::F64(vec![x; n])),
            other => bail!("only f32 and f64 parameters can be trained, got {other:?}"),
        }
    }

    pub(crate) fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// A tensor on the CPU.
    pub(crate) fn to_tensor(&self, shape: &Shape) -> candle_core::Result<Tensor> {
        each!(self, v => Tensor::from_slice(v, shape, &Device::Cpu))
    }

    /// The sum of squares, in f64. Eight running sums in a fixed order: fast, and the same every time.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        each!(self, v => sum_of_squares(v))
    }

    /// Multiplies by `factor`.
    pub(crate) fn scale(&mut self, factor: f64) {
        fn scale<T: Real>(v: &mut [T], factor: f64) {
            let factor = T::of(factor);
            v.iter_mut().for_each(|x| *x = *x * factor);
        }
        each!(self, v => scale(v, factor));
    }

    /// Cuts every number to `-limit..=limit`; a NaN stays. Says whether anything was cut.
    pub(crate) fn clamp(&mut self, limit: f64) -> bool {
        fn clamp<T: Real>(v: &mut [T], limit: f64) -> bool {
            let (low, high) = (T::of(-limit), T::of(limit));
            let mut cut = false;
            for x in v.iter_mut() {
                if *x > high {
                    (*x, cut) = (high, true);
                } else if *x < low {
                    (*x, cut) = (low, true);
                }
            }
            cut
        }
        each!(self, v => clamp(v, limit))
    }

    /// Adds `weight` times `other`; the lengths and types must agree.
    pub(crate) fn add_scaled(&mut self, other: &Self, weight: f64) -> candle_core::Result<()> {
        fn add<T: Real>(sum: &mut [T], v: &[T], weight: f64) {
            let weight = T::of(weight);
            sum.iter_mut().zip(v).for_each(|(s, x)| *s = *s + weight * *x);
        }
        match (self, other) {
            (Self::F32(a), Self::F32(b)) if a.len() == b.len() => add(a, b, weight),
            (Self::F64(a), Self::F64(b)) if a.len() == b.len() => add(a, b, weight),
            (a, b) => bail!("gradients of {} and {} numbers cannot be added", a.len(), b.len()),
        }
        Ok(())
    }

    /// The first NaN or infinity: flat index and value.
    pub(crate) fn first_non_finite(&self) -> Option<(usize, f64)> {
        fn find<T: Real>(v: &[T]) -> Option<(usize, f64)> {
            let i = v.iter().position(|x| !x.wide().is_finite())?;
            Some((i, v[i].wide()))
        }
        each!(self, v => find(v))
    }
}

fn sum_of_squares<T: Real>(v: &[T]) -> f64 {
    let mut sums = [0f64; 8];
    let chunks = v.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (s, x) in sums.iter_mut().zip(chunk) {
            *s += x.wide() * x.wide();
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| x.wide() * x.wide()).sum::<f64>()
}

type Change<'f> = &'f mut dyn FnMut(ValuesMut<'_>) -> candle_core::Result<()>;

/// Changes the numbers of a parameter in place (on a device other than the CPU: through a copy on the host).
pub(crate) fn change(var: &Var, f: Change<'_>) -> candle_core::Result<()> {
    if var.device().is_cpu() {
        return var.inplace_op1(&InPlace(RefCell::new(f)));
    }
    let mut values = Values::read(var)?;
    match &mut values {
        Values::F32(v) => f(ValuesMut::F32(v))?,
        Values::F64(v) => f(ValuesMut::F64(v))?,
    }
    var.set(&values.to_tensor(var.shape())?.to_device(var.device())?)
}

struct InPlace<'f>(RefCell<Change<'f>>);

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("a parameter must be contiguous, got {layout:?}");
        };
        let f = &mut **self.0.borrow_mut();
        match storage {
            CpuStorage::F32(v) => f(ValuesMut::F32(&mut v[start..end])),
            CpuStorage::F64(v) => f(ValuesMut::F64(&mut v[start..end])),
            other => bail!("only f32 and f64 parameters can be trained, got {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_and_go() {
        let t = Tensor::new(&[[1f32, 2., 3.], [4., 5., 6.]], &Device::Cpu).unwrap().t().unwrap();
        let values = Values::read(&t).unwrap();
        assert_eq!(values, Values::F32(vec![1., 4., 2., 5., 3., 6.]));
        let shape = Shape::from((3, 2));
        let back = values.to_tensor(&shape).unwrap();
        assert_eq!(back.to_vec2::<f32>().unwrap(), t.to_vec2::<f32>().unwrap());
        let var = Var::from_tensor(&back).unwrap();
        change(&var, &mut |p| match p {
            ValuesMut::F32(p) => {
                p[5] = 9.;
                Ok(())
            }
            ValuesMut::F64(_) => bail!("expected f32"),
        })
        .unwrap();
        assert_eq!(var.to_vec2::<f32>().unwrap(), [[1., 4.], [2., 5.], [3., 9.]]);
        let ints = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        assert!(Values::read(&ints).unwrap_err().to_string().contains("only f32 and f64"));
    }

    #[test]
    fn arithmetic() {
        let v: Vec<f64> = (0..21).map(|i| f64::from(i) - 10.).collect();
        let mut values = Values::F64(v);
        assert_eq!(values.sum_of_squares(), 770.);
        assert!(!values.clamp(10.));
        assert!(values.clamp(3.));
        assert_eq!(values.sum_of_squares(), 2. * (1. + 4. + 8. * 9.));
        let mut bad = Values::F32(vec![0., f32::INFINITY, f32::NAN]);
        assert_eq!(bad.first_non_finite(), Some((1, f64::INFINITY)));
        bad.clamp(1.);
        assert_eq!(bad.first_non_finite().unwrap().0, 2);
        assert!(bad.add_scaled(&values, 1.).is_err());
    }
}
