use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_kernels::recurrent::*;
fn rnd(shape: &[usize], s: u64) -> Result<Tensor> {
    let n = shape.iter().product();
    Tensor::from_vec(
        mnemic_kernels::rng::Philox::new(s, 1).uniforms(n, -0.1, 0.1),
        shape,
        &Device::Cpu,
    )?
    .to_dtype(DType::F32)
}
fn time(name: &str, mut f: impl FnMut() -> Result<()>) -> Result<()> {
    let mut ts = vec![];
    for _ in 0..3 {
        f()?;
    }
    for _ in 0..25 {
        let t = std::time::Instant::now();
        f()?;
        ts.push(t.elapsed().as_secs_f64() * 1e3);
    }
    ts.sort_by(f64::total_cmp);
    println!("{name}: min {:.2} med {:.2} ms", ts[0], ts[ts.len() / 2]);
    Ok(())
}
fn weights(g: usize, d: usize, h: usize) -> Result<(Weights, Vec<Var>)> {
    let v: Vec<Var> = [vec![g * h, d], vec![g * h, h], vec![g * h], vec![g * h]]
        .iter()
        .enumerate()
        .map(|(i, s)| Var::from_tensor(&rnd(s, i as u64)?))
        .collect::<Result<_>>()?;
    Ok((
        Weights {
            w_ih: v[0].as_tensor().clone(),
            w_hh: v[1].as_tensor().clone(),
            b_ih: Some(v[2].as_tensor().clone()),
            b_hh: Some(v[3].as_tensor().clone()),
        },
        v,
    ))
}
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() -> Result<()> {
    let threads = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    for (b, t, h) in [(100, 64, 80), (32, 128, 256)] {
        let (w, _v) = weights(3, h, h)?;
        let xs = rnd(&[b, t, h], 9)?;
        time(&format!("gru {b} {t} {h} forward"), || {
            gru(&xs, None, &w, Reset::After, Steps::default())?;
            Ok(())
        })?;
        time(&format!("gru {b} {t} {h}"), || {
            gru(&xs, None, &w, Reset::After, Steps::default())?
                .output
                .sqr()?
                .mean_all()?
                .backward()?;
            Ok(())
        })?;
    }
    for (b, t, h) in [(64, 100, 128), (20, 35, 650)] {
        let (w, _v) = weights(4, h, h)?;
        let xs = rnd(&[b, t, h], 9)?;
        time(&format!("lstm {b} {t} {h} forward"), || {
            lstm(&xs, None, &w, Steps::default())?;
            Ok(())
        })?;
        time(&format!("lstm {b} {t} {h}"), || {
            lstm(&xs, None, &w, Steps::default())?.output.sqr()?.mean_all()?.backward()?;
            Ok(())
        })?;
    }
    Ok(())
}
