//! The CUDA kernels against the plain twin.

use candle_core::{DType, Tensor};

use super::case::*;
use crate::attention::*;
use crate::cuda::tests::{agree, agree_in_half};

impl Case {
    fn on_cuda(&self, half: bool) {
        let inputs: Vec<Tensor> = self.inputs(DType::F32).into_iter().map(|(_, t)| t).collect();
        let results = |f: Attend| {
            move |x: &[Tensor]| {
                let y = self.call(x, f)?;
                Ok(vec![y.output, y.log_sum_exp])
            }
        };
        let (fused, plain) = (results(attention), results(plain::attention));
        let test = format!("attention::cuda {self:?}");
        if half {
            agree_in_half(&test, 2, &inputs, fused, plain);
        } else {
            agree(&test, &inputs, fused, plain);
        }
    }
}

const ONE: Case = Case { b: 1, h: 1, h_kv: 1, ..BASE };

#[test]
fn cuda_sizes() {
    for (n, d) in [((1, 1), (32, 32)), ((17, 17), (64, 64)), ((65, 130), (64, 64))] {
        for causal in [false, true] {
            let case = Case { n, d, causal, ..ONE };
            case.on_cuda(false);
            case.on_cuda(true);
        }
    }
    Case { n: (70, 66), d: (5, 7), ..ONE }.on_cuda(false);
    Case { n: (70, 66), d: (24, 33), ..ONE }.on_cuda(true);
    Case { n: (66, 34), d: (128, 128), causal: true, ..ONE }.on_cuda(false);
    Case { n: (66, 34), d: (128, 80), causal: true, ..ONE }.on_cuda(true);
    Case { n: (9, 7), d: (64, 64), scale: Some(-1.5), ..ONE }.on_cuda(false);
}

/// Blocks of 128 rows, in half precision, forward and backward; of width 128 forward alone.
#[test]
fn cuda_tall() {
    let lengths = Some(vec![150, 0]);
    let long = Case { n: (140, 200), d: (64, 64), lengths, causal: true, h: 2, h_kv: 1, ..BASE };
    long.on_cuda(true);
    Case { d: (32, 20), causal: false, n: (131, 170), ..long.clone() }.on_cuda(true);
    Case { d: (128, 100), lengths: None, n: (130, 70), h: 3, h_kv: 3, ..long.clone() }
        .on_cuda(true);
    let window = Some((Some(70), Some(3)));
    Case { n: (190, 190), window, causal: false, lengths: None, ..long }.on_cuda(true);
    Case { b: 2, h: 96, n: (3, 5), d: (32, 32), causal: true, ..BASE }.on_cuda(true);
}

#[test]
fn cuda_masks() {
    let lengths = Some(vec![150, 0]);
    let long = Case { n: (140, 200), d: (32, 32), lengths, causal: true, h: 2, h_kv: 1, ..BASE };
    long.on_cuda(false);
    for window in [(Some(70), None), (Some(3), Some(1)), (None, Some(66))] {
        let causal = window.1.is_none();
        Case { n: (130, 130), d: (16, 8), window: Some(window), causal, ..ONE }.on_cuda(false);
    }
    // Queries before all keys see nothing.
    Case { n: (150, 20), d: (32, 32), causal: true, ..ONE }.on_cuda(false);
    Case { n: (9, 6), d: (32, 32), lengths: Some(vec![6, 3]), h: 4, ..BASE }.on_cuda(true);
}

#[test]
fn cuda_biases_and_relative_positions() {
    for bias in BIASES {
        let case = Case { n: (9, 66), d: (8, 8), bias, lengths: Some(vec![66, 40]), ..BASE };
        case.on_cuda(false);
        case.on_cuda(true);
    }
    for relative in RELATIVES {
        for dropout in [0., 0.3] {
            let causal = matches!(relative, RelativeCase::Music { .. });
            let case = Case { n: (66, 70), d: (8, 16), relative, dropout, causal, ..ONE };
            case.on_cuda(false);
            Case { n: (9, 6), h: 4, b: 2, ..case }.on_cuda(true);
        }
    }
    for bias in BIASES {
        for relative in RELATIVES {
            let (lengths, window) = (Some(vec![6, 3]), Some((Some(3), Some(1))));
            let causal = matches!(relative, RelativeCase::Music { .. });
            let case = Case { n: (9, 6), h: 4, bias, relative, causal, dropout: 0.4, ..BASE };
            case.on_cuda(false);
            Case { lengths, window, dropout: 0., ..case }.on_cuda(false);
        }
    }
}
