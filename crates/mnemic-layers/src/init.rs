//! Initial values: candle's [`Init`] with the bounds of the papers, and draws that need a whole
//! matrix.
//!
//! Fans are those of a weight `(out, in)`: `fan_in` is the number of inputs of a unit, `fan_out`
//! the number of outputs.

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_kernels::rng::Philox;

use crate::ParamStore;

/// Uniform in `[-a, a)` with `a = sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010, eq. 16).
///
/// ```
/// use candle_nn::Init;
/// use mnemic_layers::init;
/// assert!(matches!(init::xavier_uniform(2, 4), Init::Uniform { lo: -1.0, up: 1.0 }));
/// ```
pub fn xavier_uniform(fan_in: usize, fan_out: usize) -> Init {
    uniform((6. / (fan_in + fan_out).max(1) as f64).sqrt())
}

/// Normal with variance `2 / (fan_in + fan_out)` (Glorot and Bengio 2010, eq. 12).
pub fn xavier_normal(fan_in: usize, fan_out: usize) -> Init {
    normal((2. / (fan_in + fan_out).max(1) as f64).sqrt())
}

/// Uniform in `[-bound, bound)`.
pub fn uniform(bound: f64) -> Init {
    Init::Uniform { lo: -bound, up: bound }
}

/// Normal with mean 0 and standard deviation `std`.
pub fn normal(std: f64) -> Init {
    Init::Randn { mean: 0., stdev: std }
}

/// The same value everywhere.
pub fn constant(c: f64) -> Init {
    Init::Const(c)
}

/// Redraws the matrix `name` of `store` as `blocks` matrices stacked on the first axis, each with
/// orthonormal columns (or rows, where there are fewer of them), uniformly distributed (Saxe et al.
/// 2014). A recurrent weight `(g h, h)` takes one block a gate. The values depend on the store's
/// seed and on `name` only.
///
/// # Errors
/// When the store has no such parameter, or it is not a matrix of `blocks` blocks.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{ParamStore, init};
/// let store = ParamStore::new(1);
/// let w = store.builder(DType::F64, &Device::Cpu).get((6, 3), "w")?;
/// init::orthogonal(&store, "w", 2)?;
/// let block = w.narrow(0, 3, 3)?;
/// let square = block.matmul(&block.t()?)?.to_vec2::<f64>()?;
/// assert!((square[0][0] - 1.).abs() < 1e-12 && square[0][1].abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn orthogonal(store: &ParamStore, name: &str, blocks: usize) -> Result<()> {
    let var = parameter(store, name)?;
    let drawn = Philox::named(store.seed(), name).normals(var.elem_count(), 0., 1.);
    let values = orthonormal_blocks(name, drawn, var.dims(), blocks)?;
    set(&var, values)
}

/// Redraws the parameter `name` of `store` from a normal distribution cut off at two standard
/// deviations from the mean. The values depend on the store's seed and on `name` only.
///
/// # Errors
/// When the store has no such parameter.
pub fn truncated_normal(store: &ParamStore, name: &str, mean: f64, std: f64) -> Result<()> {
    let var = parameter(store, name)?;
    let rng = Philox::named(store.seed(), name);
    let n = var.elem_count() as u64;
    // Element i tries the numbers i, i + n, i + 2n, ...; one in 22 is refused.
    let draw = |i| (0..).map(|k| rng.normal(i + k * n)).find(|z: &f64| z.abs() <= 2.);
    let values = (0..n).map(|i| mean + std * draw(i).unwrap_or(0.)).collect();
    set(&var, values)
}

/// The parameter `name` of `vb`; where this call makes it, each number is the sum of three that are uniform in `[-bound, bound)`, as in Mikolov's
/// recurrent networks (Joulin and Mikolov 2015).
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_layers::{ParamStore, init};
/// let store = ParamStore::new(1);
/// let w = init::three_uniforms(&store.builder(DType::F32, &Device::Cpu), (20, 30), "w", 0.1)?;
/// let numbers = w.flatten_all()?.to_vec1::<f32>()?;
/// assert!(numbers.iter().all(|x| x.abs() <= 0.3) && numbers.iter().any(|x| x.abs() > 0.15));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the parameter exists with another shape or type.
pub fn three_uniforms(
    vb: &VarBuilder<'_>,
    shape: impl Into<Shape>,
    name: &str,
    bound: f64,
) -> Result<Tensor> {
    // One uniform number through the inverse distribution function: as many draws as parameters.
    let unit = Init::Uniform { lo: 0., up: 1. };
    get_edited(vb, shape, name, unit, |draws| {
        Ok(draws.into_iter().map(|u| bound * (2. * irwin_hall(u) - 3.)).collect())
    })
}

/// The number below which the sum of three numbers uniform in [0, 1) lies with probability `p`: the inverse of `x³ / 6` up to 1 and, by symmetry, from 2 on, and
/// of `(-2x³ + 9x² - 9x + 3) / 6` between them.
fn irwin_hall(p: f64) -> f64 {
    if p > 0.5 {
        return 3. - irwin_hall(1. - p);
    }
    if p <= 1. / 6. {
        return (6. * p.max(0.)).cbrt();
    }
    let (mut low, mut high) = (1., 1.5);
    for _ in 0..52 {
        let x = f64::midpoint(low, high);
        let below = (((-2. * x + 9.) * x - 9.) * x + 3.) / 6.;
        (low, high) = if below < p { (x, high) } else { (low, x) };
    }
    f64::midpoint(low, high)
}

fn parameter(store: &ParamStore, name: &str) -> Result<Var> {
    match store.get(name) {
        Some(var) => Ok(var),
        None => bail!("init: the store has no parameter {name}"),
    }
}

fn set(var: &Var, values: Vec<f64>) -> Result<()> {
    let value = Tensor::from_vec(values, var.shape(), &Device::Cpu)?;
    var.set(&value.to_dtype(var.dtype())?.to_device(var.device())?)
}

/// Fetches a parameter and, if this call created it as a trainable one, lets `edit` change its
/// values. What was there before, or comes from a file, stays.
pub(crate) fn get_edited(
    vb: &VarBuilder<'_>,
    shape: impl Into<Shape>,
    name: &str,
    init: Init,
    edit: impl FnOnce(Vec<f64>) -> Result<Vec<f64>>,
) -> Result<Tensor> {
    let fresh = !vb.contains_tensor(name);
    let tensor = vb.get_with_hints(shape.into(), name, init)?;
    if fresh && tensor.is_variable() {
        let var = Var::from_tensor(&tensor)?; // the same variable, not a copy
        set(&var, edit(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)?)?;
    }
    Ok(tensor)
}

/// Orthonormalises each of `blocks` blocks of rows of a row-major matrix of normal numbers.
pub(crate) fn orthonormal_blocks(
    name: &str,
    values: Vec<f64>,
    dims: &[usize],
    blocks: usize,
) -> Result<Vec<f64>> {
    let &[rows, cols] = dims else { bail!("orthogonal: {name} is {dims:?}, not a matrix") };
    if blocks == 0 || rows % blocks != 0 {
        bail!("orthogonal: {name} has {rows} rows, which are not {blocks} blocks");
    }
    let size = rows / blocks;
    Ok(values.chunks(size * cols).flat_map(|block| orthonormal(block, size, cols)).collect())
}

/// Gram-Schmidt on the shorter side, each vector reduced twice: normal numbers give a uniformly
/// distributed result.
fn orthonormal(block: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let tall = rows > cols;
    let (n, len) = if tall { (cols, rows) } else { (rows, cols) };
    let at = |i: usize, k: usize| if tall { k * cols + i } else { i * cols + k };
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(n);
    for i in 0..n {
        let mut v: Vec<f64> = (0..len).map(|k| block[at(i, k)]).collect();
        for u in basis.iter().chain(basis.iter()) {
            let dot: f64 = u.iter().zip(&v).map(|(a, b)| a * b).sum();
            v.iter_mut().zip(u).for_each(|(x, a)| *x -= dot * a);
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm);
        basis.push(v);
    }
    let mut out = vec![0.; rows * cols];
    for (i, v) in basis.iter().enumerate() {
        for (k, x) in v.iter().enumerate() {
            out[at(i, k)] = *x;
        }
    }
    out
}
