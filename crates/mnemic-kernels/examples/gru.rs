//! The fused GRU beside its plain twin: the same numbers, and the time of each for a forward and backward pass.
//!
//! `cargo run --release -p mnemic-kernels --example gru`

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_kernels::recurrent::{Reset, Steps, Weights, gru, plain};
use mnemic_kernels::rng::Philox;

fn uniform(shape: &[usize], stream: u64) -> Result<Tensor> {
    let values = Philox::new(1, stream).uniforms(shape.iter().product(), -0.1, 0.1);
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F32)
}

fn main() -> Result<()> {
    let (b, t, h) = (100, 64, 80);
    let w_hh = Var::from_tensor(&uniform(&[3 * h, h], 2)?)?;
    let weights = Weights {
        w_ih: uniform(&[3 * h, h], 1)?,
        w_hh: w_hh.as_tensor().clone(),
        b_ih: Some(uniform(&[3 * h], 3)?),
        b_hh: Some(uniform(&[3 * h], 4)?),
    };
    let xs = uniform(&[b, t, h], 5)?;
    let run = |fused: bool| -> Result<(f64, f32)> {
        let mut best = f64::INFINITY;
        let mut norm = 0.;
        for _ in 0..5 {
            let start = Instant::now();
            let scan = match fused {
                true => gru(&xs, None, &weights, Reset::After, Steps::default())?,
                false => plain::gru(&xs, None, None, &weights, Reset::After, Steps::default())?,
            };
            let grads = scan.output.sum_all()?.backward()?;
            if let Some(g) = grads.get(&w_hh) {
                norm = g.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((1e3 * best, norm))
    };
    println!("GRU, batch {b}, {t} steps, hidden size {h}; forward and backward");
    for (name, fused) in [("fused", true), ("plain", false)] {
        let (ms, norm) = run(fused)?;
        println!("{name}: {ms:8.2} ms, norm of the gradient of w_hh {norm:.6}");
    }
    Ok(())
}
