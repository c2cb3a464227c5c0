//! What is measured: each workload with its shapes, its cost and its two programs of ours.
//!
//! The PyTorch side has the same names in `peers/kernels_workloads.py`. Costs are counted in the definition, not in the
//! program: floating-point operations of the matrix products forward and backward, and the bytes that must cross memory
//! at least, each input read and each output written once.

mod adam;
mod attention;
mod cross_entropy;
mod dmn_plus;
mod layer_norm;
mod machines;
mod memn2n;
mod pointer;
mod recurrent;
mod rows;
mod transformer;

use std::fmt::Write as _;

use anyhow::{Result, bail};
use candle_core::{DType, Tensor, Var};

use crate::data;
use crate::run::{COMPILE, GRAPHS};
use crate::step::Step;

/// What a step takes at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
}

/// How far the two sides may lie apart, relative to what they computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) value: f64,
    pub(crate) gradient: f64,
}

impl Tolerance {
    pub(crate) const SINGLE: Self = Self { value: 1e-3, gradient: 1e-3 };
    /// cuDNN's recurrent layers multiply in TF32 unless they are told not to.
    const TF32: Self = Self { value: 2e-2, gradient: 1e-2 };
    /// The value is a sum of many numbers that cancel.
    const HALF: Self = Self { value: 5e-2, gradient: 1e-2 };
}

type Make = Box<dyn Fn() -> Result<Box<dyn Step>>>;

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// PyTorch's time divided by ours that we want to reach.
    pub(crate) target: f64,
    pub(crate) cost: Cost,
    /// Whether its numbers are of 16 bits.
    pub(crate) half: bool,
    /// Too large for a CPU, or of a type that is slow there.
    pub(crate) cuda_only: bool,
    pub(crate) tolerance: Tolerance,
    /// The modes of the peer.
    pub(crate) modes: &'static [&'static str],
    pub(crate) ours: Make,
    /// The plain twins of the operations, with candle's optimiser; `None` where nobody would write it so.
    pub(crate) candle: Option<Make>,
}

const EAGER_AND_COMPILE: &[&str] = &["eager", COMPILE];
/// Of steps that are made of many small operations; the last one on a GPU alone.
const LAUNCH_BOUND: &[&str] = &["eager", COMPILE, GRAPHS];
/// Bytes of an f32.
const F32: f64 = 4.;

/// Which operations a workload is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Fused,
    Plain,
}

impl Workload {
    /// A workload with both paths, measured in PyTorch's eager mode and compiled.
    fn new<S: Step + 'static>(
        name: &'static str,
        target: f64,
        cost: Cost,
        make: impl Fn(Path) -> Result<S> + Clone + 'static,
    ) -> Self {
        let plain = make.clone();
        let candle: Make = Box::new(move || Ok(Box::new(plain(Path::Plain)?)));
        let ours: Make = Box::new(move || Ok(Box::new(make(Path::Fused)?)));
        Self {
            name,
            target,
            cost,
            half: false,
            cuda_only: false,
            tolerance: Tolerance::SINGLE,
            modes: EAGER_AND_COMPILE,
            ours,
            candle: Some(candle),
        }
    }

    fn without_candle(self) -> Self {
        Self { candle: None, ..self }
    }

    /// For GPUs alone, in numbers of this type.
    fn on_cuda(self, dtype: DType) -> Self {
        let half = dtype.size_in_bytes() == 2;
        let tolerance = if half { Tolerance::HALF } else { self.tolerance };
        Self { half, tolerance, cuda_only: true, ..self }
    }

    /// With a recurrent layer, which PyTorch leaves to cuDNN on a GPU.
    fn recurrent(self) -> Self {
        let tolerance = if data::device().is_cpu() { self.tolerance } else { Tolerance::TF32 };
        Self { tolerance, ..self }
    }
}

/// All of them, in the order of the report; `cuda`: with those for GPUs alone.
fn all(cuda: bool) -> Vec<Workload> {
    [
        recurrent::workloads(),
        attention::workloads(),
        pointer::workloads(),
        memn2n::workloads(),
        dmn_plus::workloads(),
        machines::workloads(),
        cross_entropy::workloads(),
        layer_norm::workloads(),
        rows::workloads(),
        adam::workloads(),
        transformer::workloads(),
    ]
    .into_iter()
    .flatten()
    .filter(|workload| cuda || !workload.cuda_only)
    .collect()
}

/// One line for each.
pub(crate) fn list(cuda: bool) -> String {
    let mut text = String::new();
    for workload in all(cuda) {
        let (name, target) = (workload.name, workload.target);
        let candle = if workload.candle.is_some() { ", plain candle" } else { "" };
        let modes = workload.modes.join(", ");
        let _ = writeln!(text, "  {name:<44}target {target:<5}PyTorch: {modes}{candle}");
    }
    text
}

/// Those whose name contains one of the texts (divided by commas).
pub(crate) fn select(filter: Option<&str>, cuda: bool) -> Result<Vec<Workload>> {
    let texts: Vec<&str> = filter.unwrap_or_default().split(',').map(str::trim).collect();
    let all = all(cuda);
    let names: Vec<&str> = all.iter().map(|workload| workload.name).collect();
    for text in &texts {
        if !names.iter().any(|name| name.contains(text)) {
            bail!("no workload contains `{text}`; there are {}", names.join(", "));
        }
    }
    let wanted = |workload: &Workload| texts.iter().any(|text| workload.name.contains(text));
    Ok(all.into_iter().filter(wanted).collect())
}

/// An input that gets a gradient.
fn input(name: &str, shape: &[usize], scale: f64) -> Result<Var> {
    Ok(Var::from_tensor(&data::tensor(name, shape, scale)?)?)
}

/// [`input`] rounded to a type.
fn typed_input(name: &str, shape: &[usize], scale: f64, dtype: DType) -> Result<Var> {
    Ok(Var::from_tensor(&data::typed(name, shape, scale, dtype)?)?)
}

/// Class ids as our losses take them.
fn targets(name: &str, n: usize, classes: usize) -> Vec<i64> {
    data::ids(name, n, 0, classes as u32).into_iter().map(i64::from).collect()
}

/// The mean of a loss summed over `rows`.
fn mean_of(sum: Tensor, rows: usize) -> Result<Tensor> {
    Ok(mnemic_kernels::arithmetic::scale(&sum, 1. / rows as f64)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_costs_are_positive() {
        let all = all(true);
        for workload in &all {
            assert_eq!(all.iter().filter(|other| other.name == workload.name).count(), 1);
            assert!(workload.cost.flops >= 0. && workload.cost.bytes > 0., "{}", workload.name);
            assert!(workload.target > 0.5 && !workload.modes.is_empty());
            assert!(list(true).contains(workload.name));
        }
    }

    #[test]
    fn the_peer_has_every_workload() {
        let peer = include_str!("../../peers/kernels_workloads.py");
        for workload in all(true) {
            assert!(peer.contains(&format!("    \"{}\": ", workload.name)), "{}", workload.name);
        }
    }

    #[test]
    fn a_filter_selects_by_parts_of_names() {
        let names = |filter| -> Vec<&str> {
            select(filter, false).unwrap().iter().map(|workload| workload.name).collect()
        };
        assert_eq!(names(None).len(), all(false).len());
        assert!(all(true).len() > all(false).len());
        assert_eq!(names(Some("bigru")), ["bigru-b100-t64-h80"]);
        assert_eq!(names(Some("adam, memn2n")), ["memn2n-b32", "adam-10m"]);
        let error = select(Some("gru,gur"), false).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains("`gur`") && error.contains("gru-b100-t64-h80"), "{error}");
    }

    /// The cheapest of each kind, both paths: they compute the same.
    #[test]
    fn fused_and_plain_paths_agree() {
        for name in ["gru-b100-t64-h80", "layer-norm-2048x512"] {
            let workload = select(Some(name), false).unwrap().remove(0);
            let [ours, plain] = [Some(&workload.ours), workload.candle.as_ref()]
                .map(|make| (make.unwrap())().unwrap().check().unwrap());
            assert!((ours.value - plain.value).abs() <= 1e-3 * plain.value.abs(), "{name}");
            assert!((ours.gradient - plain.gradient).abs() <= 1e-3 * plain.gradient, "{name}");
        }
    }
}
