use candle_core::{DType, Device, Tensor};
use mnemic_layers::{ParamStore, only_fused};

use super::*;
use crate::testing::without_gradient;

fn small() -> Config {
    Config { hidden_size: 3, radius: 1, slowdown: 0.5, ..Config::direct(3, 3) }
}

fn build(config: &Config, dtype: DType) -> (RlNtm, ParamStore) {
    let store = ParamStore::new(3);
    (RlNtm::new(config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// One-hot rows of symbols.
fn symbols(rows: &[&[usize]], width: usize, dtype: DType) -> Tensor {
    let n = rows[0].len();
    let mut out = vec![0f32; rows.len() * n * width];
    for (cell, &symbol) in out.chunks_exact_mut(width).zip(rows.iter().copied().flatten()) {
        cell[symbol] = 1.;
    }
    let out = Tensor::from_vec(out, (rows.len(), n, width), &Device::Cpu).unwrap();
    out.to_dtype(dtype).unwrap()
}

fn cells(inputs: &[&[usize]], targets: &[&[usize]], width: usize, dtype: DType) -> Cells {
    Cells {
        inputs: symbols(inputs, width, dtype),
        query: None,
        targets: symbols(targets, width, dtype),
        symbols: true,
    }
}

#[test]
fn gradients_reach_every_parameter() {
    let cells = cells(&[&[0, 1, 2, 1], &[2, 2, 0, 1]], &[&[1, 2], &[0, 2]], 3, DType::F32);
    for direct_access in [true, false] {
        let (ntm, store) = build(&Config { direct_access, ..small() }, DType::F32);
        let loss = ntm.rollout(&cells, &Context::train(1, 0)).unwrap().loss.unwrap();
        assert!(only_fused(&loss));
        assert_eq!(without_gradient(&store, &loss), Vec::<String>::new());
    }
}

/// Every sequence of moves, weighted by its probability: the gradient of the loss is that of the expected log-likelihood.
#[test]
fn the_mean_gradient_is_that_of_the_expected_likelihood() {
    let (ntm, store) = build(&Config { forward_only: true, ..small() }, DType::F64);
    let cells = cells(&[&[1, 2]], &[&[2]], 3, DType::F64);
    // Only whether the output head moves is left open; the other heads go on.
    let run = |choice: usize| {
        let mut decide = |t: usize, _: usize, head: usize, logits: &[f64]| match head {
            2 if logits[0] < -1e9 => 1,
            2 if logits[1] < -1e9 => 0,
            2 => choice >> t & 1,
            _ => 2,
        };
        ntm.run(&cells, &mut decide, &Context::eval()).unwrap()
    };
    // Each time of the one output once: 1, 01, 001, 0001, forced at last.
    let choices = [0b1, 0b10, 0b100, 0b1000, 0];
    let probability = |run: &Run| {
        let step = |(t, logits): (usize, &Vec<Tensor>)| {
            let z = logits[2].get(0).unwrap().to_vec1::<f64>().unwrap();
            let most = z[0].max(z[1]);
            let weights = [(z[0] - most).exp(), (z[1] - most).exp()];
            weights[run.heads.moves[t][0][2]] / (weights[0] + weights[1])
        };
        run.logits.iter().enumerate().map(step).product::<f64>()
    };
    let expected = || {
        let total = |&choice: &usize| {
            let run = run(choice);
            let (negative, _) = likelihood(&cells, &run.scores).unwrap();
            (probability(&run), negative.to_scalar::<f64>().unwrap())
        };
        let all: Vec<(f64, f64)> = choices.iter().map(total).collect();
        assert!((all.iter().map(|(p, _)| p).sum::<f64>() - 1.).abs() < 1e-12);
        all.iter().map(|(p, loss)| p * loss).sum::<f64>()
    };
    let vars = store.vars();
    let mut mean: Vec<Vec<f64>> = vars.iter().map(|(_, var)| vec![0.; var.elem_count()]).collect();
    for choice in choices {
        let mut run = run(choice);
        let p = probability(&run);
        let (negative, rewards) = likelihood(&cells, &run.scores).unwrap();
        // The moves of the other heads are no part of what is drawn here.
        for step in &mut run.logits {
            (0..2).for_each(|head| step[head] = step[head].detach());
        }
        let grads = ntm.loss(&run, &negative, &rewards).unwrap().backward().unwrap();
        for ((_, var), mean) in vars.iter().zip(&mut mean) {
            let Some(grad) = grads.get(var) else { continue };
            let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            mean.iter_mut().zip(grad).for_each(|(m, g)| *m += p * g);
        }
    }
    for ((name, var), mean) in vars.iter().zip(mean) {
        let at = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let probe = at.len() - 1;
        let with = |change: f64| {
            let mut values = at.clone();
            values[probe] += change;
            var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
            expected()
        };
        let numeric = (with(1e-5) - with(-1e-5)) / 2e-5;
        with(0.);
        let exact = mean[probe];
        assert!((numeric - exact).abs() < 1e-6 * (1. + exact.abs()), "{name}: {numeric} {exact}");
    }
}

/// What the input head sees is said and no symbol else.
fn reader() -> RlNtm {
    let config = Config { hidden_size: 2, radius: 1, ..Config::direct(4, 4) };
    let (ntm, store) = build(&config, DType::F64);
    for (name, var) in store.vars() {
        let zeros = var.zeros_like().unwrap();
        let value = match name.as_str() {
            // The gates of three cells of the input, then of the memory.
            "read_gates.bias" => {
                Tensor::new(&[-1e3, 1e3, -1e3, -1e3, -1e3, -1e3], &Device::Cpu).unwrap()
            }
            "copy" => Tensor::new(&[[1e3]], &Device::Cpu).unwrap(),
            _ => zeros,
        };
        var.set(&value).unwrap();
    }
    ntm
}

#[test]
fn scripted_moves_copy_and_reverse() {
    let ntm = reader();
    let likelihood = |targets: &[usize], decide: &mut Decide<'_>| {
        let cells = cells(&[&[1, 3, 2, 0]], &[targets], 4, DType::F64);
        let run = ntm.run(&cells, decide, &Context::eval()).unwrap();
        super::likelihood(&cells, &run.scores).unwrap().0.to_scalar::<f64>().unwrap()
    };
    // On with every symbol; then whatever is possible.
    let mut copy = |t: usize, _: usize, head: usize, _: &[f64]| match head {
        0 => 2,
        1 => 1,
        _ => usize::from(t < 3),
    };
    assert!(likelihood(&[1, 3, 2], &mut copy) < 1e-9);
    assert!(likelihood(&[1, 2, 3], &mut copy) > 100.);
    // Two cells on, then back while saying what is there.
    let mut reverse = |t: usize, _: usize, head: usize, _: &[f64]| match head {
        0 => {
            if t < 2 {
                2
            } else {
                0
            }
        }
        1 => 1,
        _ => usize::from((2..5).contains(&t)),
    };
    assert!(likelihood(&[2, 3, 1], &mut reverse) < 1e-9);
}

#[test]
fn as_many_symbols_are_made_as_are_wanted() {
    let (ntm, _) = build(&small(), DType::F32);
    let inputs: Vec<&[usize]> = vec![&[0, 1, 2, 1]; 16];
    let targets: Vec<&[usize]> = vec![&[1, 2, 0]; 16];
    let cells = cells(&inputs, &targets, 3, DType::F32);
    for step in 0..5 {
        let rng = Context::train(1, step).rng().unwrap();
        let mut decide = |t: usize, row: usize, head: usize, logits: &[f64]| {
            drawn(logits, Some(rng.uniform(((t * 16 + row) * 3 + head) as u64)))
        };
        let run = ntm.run(&cells, &mut decide, &Context::eval()).unwrap();
        assert!(run.heads.made.iter().all(|made| made.len() == 3));
        assert_eq!(run.logits.len(), RlNtm::steps(4, 3));
    }
}

/// Small logits leave the first moves all but uniform.
#[test]
fn moves_are_near_uniform_at_first() {
    let (ntm, _) = build(&Config::direct(8, 8), DType::F64);
    let cells = cells(&[&[0, 1, 2, 1, 7, 5]], &[&[1, 2, 0]], 8, DType::F64);
    let run = ntm.run(&cells, &mut |_, _, _, z| drawn(z, Some(0.5)), &Context::eval()).unwrap();
    for (head, actions) in [(0, 3.), (1, 3.), (2, 2.)] {
        let p = mnemic_layers::softmax(&run.logits[0][head]).unwrap().to_vec2::<f64>().unwrap();
        let entropy: f64 = p[0].iter().map(|p| -p * p.ln()).sum();
        assert!(entropy > 0.99 * f64::ln(actions), "{head}: {entropy}");
    }
}

#[test]
fn moves_are_drawn_by_their_probabilities() {
    let logits = [0., f64::ln(3.), -1e10];
    let counts = (0..1000).fold([0; 3], |mut counts, i| {
        counts[drawn(&logits, Some((f64::from(i) + 0.5) / 1000.))] += 1;
        counts
    });
    assert_eq!(counts, [250, 750, 0]);
    assert_eq!((drawn(&logits, None), drawn(&[1., 1.], None)), (1, 0));
    assert_eq!(drawn(&[0., -1e10], Some(1. - 1e-17)), 0);
}

#[test]
fn what_does_not_fit_is_named() {
    let (ntm, _) = build(&small(), DType::F32);
    let error = ntm.rollout(&cells(&[&[0, 1]], &[&[1]], 4, DType::F32), &Context::eval());
    assert!(error.unwrap_err().to_string().contains("(b, n, 3)"));
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { memory_width: 5, ..small() }).contains("memory_width 5"));
    assert!(error(Config { slowdown: -1., ..small() }).contains("slowdown"));
    assert!(error(Config { hidden_size: 0, ..small() }).contains("hidden_size"));
}
