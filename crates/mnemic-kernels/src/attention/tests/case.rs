//! One call with all its options, and how fused and plain are held together.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, waves};

use crate::attention::*;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum BiasCase {
    None,
    Full { b: bool, h: bool, hidden: bool },
    Alibi,
    Distance,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RelativeCase {
    None,
    Music { l: usize, shared: bool },
    Shaw { k: usize, values: bool },
}

/// One call with all its options.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) b: usize,
    pub(super) h: usize,
    pub(super) h_kv: usize,
    pub(super) n: (usize, usize),
    pub(super) d: (usize, usize),
    pub(super) causal: bool,
    pub(super) window: Option<(Option<usize>, Option<usize>)>,
    pub(super) lengths: Option<Vec<usize>>,
    pub(super) bias: BiasCase,
    pub(super) relative: RelativeCase,
    pub(super) dropout: f64,
    pub(super) scale: Option<f64>,
}

pub(super) const BASE: Case = Case {
    b: 2,
    h: 2,
    h_kv: 2,
    n: (5, 7),
    d: (4, 3),
    causal: false,
    window: None,
    lengths: None,
    bias: BiasCase::None,
    relative: RelativeCase::None,
    dropout: 0.,
    scale: None,
};

pub(super) type Attend = fn(&Tensor, &Tensor, &Tensor, &Attention<'_>) -> Result<Attended>;

impl Case {
    pub(super) fn inputs(&self, dtype: DType) -> Vec<(&'static str, Tensor)> {
        let &Case { b, h, h_kv, n: (n_q, n_k), d: (d, d_v), .. } = self;
        let make = |shape: &[usize], seed| waves(shape, seed, 1.2, dtype);
        let mut all = vec![
            ("q", make(&[b, h, n_q, d], 1.)),
            ("k", make(&[b, h_kv, n_k, d], 2.)),
            ("v", make(&[b, h_kv, n_k, d_v], 3.)),
        ];
        match self.bias {
            BiasCase::None | BiasCase::Alibi => {}
            BiasCase::Full { b: per_b, h: per_h, hidden } => {
                let shape = [if per_b { b } else { 1 }, if per_h { h } else { 1 }, n_q, n_k];
                let mut bias = make(&shape, 4.);
                if hidden {
                    let mut v = bias.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
                    let values = v.to_vec1::<f64>().unwrap();
                    let hide =
                        |(i, x): (usize, f64)| if i % 3 == 1 { f64::NEG_INFINITY } else { x };
                    let values: Vec<f64> = values.into_iter().enumerate().map(hide).collect();
                    v = Tensor::from_vec(values, &shape, &Device::Cpu).unwrap();
                    bias = v.to_dtype(dtype).unwrap();
                }
                all.push(("bias", bias));
            }
            BiasCase::Distance => {
                all.push(("distances", make(&[h, (n_q + n_k).saturating_sub(1)], 5.)));
            }
        }
        match self.relative {
            RelativeCase::None => {}
            RelativeCase::Music { l, shared } => {
                all.push(("E_r", make(&[if shared { 1 } else { h }, l, d], 6.)));
            }
            RelativeCase::Shaw { k, values } => {
                all.push(("relative keys", make(&[2 * k + 1, d], 7.)));
                if values {
                    all.push(("relative values", make(&[2 * k + 1, d_v], 8.)));
                }
            }
        }
        all
    }

    pub(super) fn call(&self, x: &[Tensor], f: Attend) -> Result<Attended> {
        let slopes = alibi_slopes(self.h);
        let mut more = x[3..].iter();
        let bias = match self.bias {
            BiasCase::None => Bias::None,
            BiasCase::Full { .. } => Bias::Full(more.next().unwrap()),
            BiasCase::Alibi => Bias::Alibi(&slopes),
            BiasCase::Distance => Bias::Distance(more.next().unwrap()),
        };
        let relative = match self.relative {
            RelativeCase::None => Relative::None,
            RelativeCase::Music { .. } => Relative::Music(more.next().unwrap()),
            RelativeCase::Shaw { .. } => {
                Relative::Shaw { keys: more.next().unwrap(), values: more.next() }
            }
        };
        let options = Attention {
            scale: self.scale,
            mask: Mask {
                causal: self.causal,
                key_lengths: self.lengths.as_deref(),
                window: self.window,
            },
            bias,
            relative,
            dropout: (self.dropout > 0.).then(|| (self.dropout, Philox::new(7, 3))),
        };
        f(&x[0], &x[1], &x[2], &options)
    }

    /// Both results and all gradients of a loss that depends on both, `log_sum_exp` of empty rows included.
    pub(super) fn run(&self, dtype: DType, f: Attend) -> Vec<(String, Tensor)> {
        let inputs = self.inputs(dtype);
        let vars: Vec<Var> = inputs.iter().map(|(_, t)| Var::from_tensor(t).unwrap()).collect();
        let x: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = self.call(&x, f).unwrap();
        let probe = |t: &Tensor, seed| (t * waves(t.dims(), seed, 1., dtype)).unwrap();
        let loss = probe(&y.output, 11.).sum_all().unwrap();
        let loss = (loss + probe(&y.log_sum_exp, 12.).sum_all().unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        let mut all = vec![("output".into(), y.output), ("log_sum_exp".into(), y.log_sum_exp)];
        for ((name, _), var) in inputs.iter().zip(&vars) {
            let zeros = || var.zeros_like().unwrap();
            all.push((
                format!("gradient of {name}"),
                grads.get(var).cloned().unwrap_or_else(zeros),
            ));
        }
        all
    }

    /// Fused and plain agree.
    #[track_caller]
    pub(super) fn check(&self) {
        for (dtype, rtol, atol) in [(DType::F64, 1e-10, 1e-10), (DType::F32, 2e-5, 2e-5)] {
            let (fused, plain) = (self.run(dtype, attention), self.run(dtype, plain::attention));
            for ((name, a), (_, b)) in fused.iter().zip(&plain) {
                // Sums over many queries grow with their number.
                let many = ((self.n.0 * self.b * self.h) as f64 / 16.).max(1.);
                assert_close(&format!("{self:?} {dtype:?} {name}"), a, b, rtol, atol * many);
            }
        }
    }
}

pub(super) const BIASES: [BiasCase; 7] = [
    BiasCase::None,
    BiasCase::Full { b: true, h: true, hidden: false },
    BiasCase::Full { b: false, h: true, hidden: true },
    BiasCase::Full { b: true, h: false, hidden: true },
    BiasCase::Full { b: false, h: false, hidden: false },
    BiasCase::Alibi,
    BiasCase::Distance,
];

pub(super) const RELATIVES: [RelativeCase; 7] = [
    RelativeCase::None,
    RelativeCase::Music { l: 3, shared: false },
    RelativeCase::Music { l: 40, shared: true },
    RelativeCase::Shaw { k: 0, values: true },
    RelativeCase::Shaw { k: 2, values: true },
    RelativeCase::Shaw { k: 2, values: false },
    RelativeCase::Shaw { k: 20, values: true },
];

pub(super) fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub(super) fn close(a: &Tensor, b: &[f64], tolerance: f64) {
    let a = flat(a);
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= tolerance, "{a:?} {b:?}");
    }
}

pub(super) fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}
