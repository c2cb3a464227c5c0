use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_testing::{assert_close, waves};
use proptest::prelude::*;

use super::*;
use crate::simd;

type Step = Box<dyn Fn(u64, &Tensor, Gradient<'_>, &[Tensor]) -> Result<()> + Sync>;
type Plain = Box<dyn Fn(u64, &Tensor, &Tensor, &[Tensor]) -> Result<Vec<Tensor>> + Sync>;

/// A step and its twin; the states start as zeros.
struct Case {
    name: String,
    states: usize,
    step: Step,
    plain: Plain,
}

fn sgd(c: Sgd) -> Case {
    Case {
        name: format!("{c:?}"),
        states: usize::from(c.momentum != 0.),
        step: Box::new(move |t, p, g, s| c.step(t, p, g, s.first())),
        plain: Box::new(move |t, p, g, s| plain::sgd(&c, t, p, g, s.first())),
    }
}

fn adam(c: Adam, amsgrad: bool) -> Case {
    fn state(s: &[Tensor]) -> AdamState<'_> {
        AdamState { exp_avg: &s[0], exp_avg_sq: &s[1], max_exp_avg_sq: s.get(2) }
    }
    Case {
        name: format!("{c:?} {amsgrad}"),
        states: 2 + usize::from(amsgrad),
        step: Box::new(move |t, p, g, s| c.step(t, p, g, state(s))),
        plain: Box::new(move |t, p, g, s| plain::adam(&c, t, p, g, state(s))),
    }
}

fn adagrad(c: Adagrad) -> Case {
    Case {
        name: format!("{c:?}"),
        states: 1,
        step: Box::new(move |t, p, g, s| c.step(t, p, g, &s[0])),
        plain: Box::new(move |t, p, g, s| plain::adagrad(&c, t, p, g, &s[0])),
    }
}

fn rmsprop(c: RmsProp, centered: bool) -> Case {
    fn state(s: &[Tensor], centered: bool) -> RmsPropState<'_> {
        let (mean, buffer) = s[1..].split_at(usize::from(centered));
        let (grad_avg, momentum_buffer) = (mean.first(), buffer.first());
        RmsPropState { square_avg: &s[0], grad_avg, momentum_buffer }
    }
    Case {
        name: format!("{c:?} {centered}"),
        states: 1 + usize::from(centered) + usize::from(c.momentum != 0.),
        step: Box::new(move |_, p, g, s| c.step(p, g, state(s, centered))),
        plain: Box::new(move |_, p, g, s| plain::rmsprop(&c, p, g, state(s, centered))),
    }
}

fn graves(c: RmsPropGraves) -> Case {
    fn state(s: &[Tensor]) -> RmsPropGravesState<'_> {
        RmsPropGravesState { square_avg: &s[0], grad_avg: &s[1], momentum_buffer: &s[2] }
    }
    Case {
        name: format!("{c:?}"),
        states: 3,
        step: Box::new(move |_, p, g, s| c.step(p, g, state(s))),
        plain: Box::new(move |_, p, g, s| plain::rmsprop_graves(&c, p, g, state(s))),
    }
}

fn cases() -> Vec<Case> {
    let weight_decay = 0.1;
    let momentum = Sgd { momentum: 0.9, dampening: 0.2, weight_decay, ..Sgd::new(0.1) };
    let rms = RmsProp { alpha: 0.9, weight_decay, ..RmsProp::new(0.02) };
    vec![
        sgd(Sgd { weight_decay, ..Sgd::new(0.1) }),
        sgd(momentum),
        sgd(Sgd { nesterov: true, dampening: 0., ..momentum }),
        adam(Adam { weight_decay, ..Adam::new(0.05) }, false),
        adam(Adam { betas: [0.8, 0.9], ..Adam::new(0.05) }, true),
        adam(Adam { weight_decay, decoupled: true, ..Adam::new(0.05) }, false),
        adagrad(Adagrad { lr_decay: 0.1, weight_decay, ..Adagrad::new(0.1) }),
        rmsprop(rms, false),
        rmsprop(rms, true),
        rmsprop(RmsProp { momentum: 0.8, ..rms }, false),
        rmsprop(RmsProp { momentum: 0.8, ..rms }, true),
        graves(RmsPropGraves { weight_decay, ..RmsPropGraves::new(0.01) }),
    ]
}

fn zeros(like: &Tensor, n: usize) -> Vec<Tensor> {
    (0..n).map(|_| like.zeros_like().unwrap()).collect()
}

/// The numbers as f64, which holds every f32.
fn numbers(tensors: &[Tensor]) -> Vec<u64> {
    let flat = |t: &Tensor| {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    tensors.iter().flat_map(flat).map(f64::to_bits).collect()
}

/// Parameter and states after `steps` fused steps, gradients times `scale`.
fn run(case: &Case, dims: &[usize], dtype: DType, steps: u64, scale: f64) -> Vec<Tensor> {
    let p = Var::from_tensor(&waves(dims, 1., 2., dtype)).unwrap();
    let states = zeros(&p, case.states);
    for t in 1..=steps {
        let g = waves(dims, t as f64, 3., dtype);
        (case.step)(t, &p, Gradient { tensor: &g, scale }, &states).unwrap();
    }
    [p.as_detached_tensor()].into_iter().chain(states).collect()
}

fn run_plain(case: &Case, dims: &[usize], dtype: DType, steps: u64, scale: f64) -> Vec<Tensor> {
    let p = waves(dims, 1., 2., dtype);
    let mut all = vec![p.clone()];
    all.extend(zeros(&p, case.states));
    for t in 1..=steps {
        let g = (waves(dims, t as f64, 3., dtype) * scale).unwrap();
        all = (case.plain)(t, &all[0], &g, &all[1..]).unwrap();
        assert_eq!(all.len(), 1 + case.states, "{}", case.name);
    }
    all
}

fn agree(case: &Case, dims: &[usize], scale: f64) {
    for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 1e-5)] {
        let fused = run(case, dims, dtype, 4, scale);
        let plain = run_plain(case, dims, dtype, 4, scale);
        for (i, (a, b)) in fused.iter().zip(&plain).enumerate() {
            let what = format!("{} {dims:?} {dtype:?} tensor {i}", case.name);
            assert_close(&what, a, b, tolerance, tolerance);
        }
    }
}

#[test]
fn fused_equals_plain() {
    for case in cases() {
        for n in [0, 1, 63, 65, 1000] {
            agree(&case, &[n], 1.);
        }
        agree(&case, &[], 1.);
        agree(&case, &[3, 7, 5], 0.25);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn fused_equals_plain_at_random(
        dims in prop::collection::vec(0usize..9, 0..4),
        scale in 0.05f64..2.,
        rates in (0f64..0.95, 0f64..0.95),
        weight_decay in 0f64..0.3,
    ) {
        let betas = [rates.0, rates.1];
        let rms = RmsProp { alpha: rates.0, weight_decay, ..RmsProp::new(0.05) };
        for case in [
            adam(Adam { betas, weight_decay, ..Adam::new(0.1) }, true),
            sgd(Sgd { momentum: rates.0, dampening: rates.1, weight_decay, ..Sgd::new(0.1) }),
            rmsprop(rms, false),
        ] {
            agree(&case, &dims, scale);
        }
    }
}

#[test]
fn every_level_and_number_of_threads_gives_the_same_bits() {
    let dims = [100_003];
    for case in cases() {
        for dtype in [DType::F32, DType::F64] {
            let wanted = numbers(&run(&case, &dims, dtype, 2, 0.5));
            for level in simd::available() {
                let got = simd::with_level(level, || run(&case, &dims, dtype, 2, 0.5)).unwrap();
                assert!(numbers(&got) == wanted, "{} {level:?}", case.name);
            }
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let got = pool.install(|| run(&case, &dims, dtype, 2, 0.5));
                assert!(numbers(&got) == wanted, "{} {threads} threads", case.name);
            }
        }
    }
}

#[test]
fn a_factor_on_the_way_equals_scaling_first() {
    for case in cases() {
        for dtype in [DType::F32, DType::F64] {
            let once = |first: bool| {
                let p = waves(&[77], 1., 2., dtype);
                let states = zeros(&p, case.states);
                for t in 1..4 {
                    let (g, scale) = (waves(&[77], t as f64, 30., dtype), 0.123);
                    let scaled = (&g * scale).unwrap();
                    let g = if first { (&scaled).into() } else { Gradient { tensor: &g, scale } };
                    (case.step)(t, &p, g, &states).unwrap();
                }
                numbers(&[&[p][..], &states].concat())
            };
            assert_eq!(once(true), once(false), "{}", case.name);
        }
    }
}

#[test]
fn any_strides_and_the_parameter_itself_as_gradient() {
    for case in cases() {
        let p = waves(&[5, 4], 1., 1., DType::F64);
        let g = waves(&[4, 5], 2., 1., DType::F64).t().unwrap();
        let wide = waves(&[1, 4], 2., 1., DType::F64).broadcast_as((5, 4)).unwrap();
        for g in [g, wide, p.clone(), p.narrow(0, 2, 1).unwrap().broadcast_as((5, 4)).unwrap()] {
            let (strided, copied) = (p.force_contiguous().unwrap(), p.force_contiguous().unwrap());
            let states = [zeros(&p, case.states), zeros(&p, case.states)];
            (case.step)(1, &strided, (&g).into(), &states[0]).unwrap();
            let copy = g.force_contiguous().unwrap();
            (case.step)(1, &copied, (&copy).into(), &states[1]).unwrap();
            assert_eq!(numbers(&[strided]), numbers(&[copied]), "{}", case.name);
        }
        // A gradient in the memory that is written.
        let (own, other) = (p.force_contiguous().unwrap(), p.force_contiguous().unwrap());
        (case.step)(1, &own, (&own).into(), &zeros(&p, case.states)).unwrap();
        (case.step)(1, &other, (&p).into(), &zeros(&p, case.states)).unwrap();
        assert_eq!(numbers(&[own]), numbers(&[other]), "{}", case.name);
    }
}

#[test]
fn a_view_changes_its_part_alone() {
    let whole = Tensor::ones((3, 20), DType::F32, &Device::Cpu).unwrap();
    let g = Tensor::ones((1, 20), DType::F32, &Device::Cpu).unwrap();
    Sgd::new(0.5).step(1, &whole.narrow(0, 1, 1).unwrap(), &g, None).unwrap();
    let sums = whole.sum(1).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(sums, [20., 10., 20.]);
}

/// Parameters and states of all `dims` after some steps on `device`, each step of all of them [`together`].
#[cfg(cuda_path)]
fn run_on(device: &Device, case: &Case, dims: &[Vec<usize>]) -> Vec<Tensor> {
    let there = |t: Tensor| t.to_device(device).unwrap();
    let p = |d: &Vec<usize>| Var::from_tensor(&there(waves(d, 1., 2., DType::F32))).unwrap();
    let params: Vec<Var> = dims.iter().map(p).collect();
    let states: Vec<Vec<Tensor>> = params.iter().map(|p| zeros(p, case.states)).collect();
    for t in 1..=4 {
        let g = |d: &Vec<usize>| there(waves(d, t as f64, 3., DType::F32));
        let grads: Vec<Tensor> = dims.iter().map(g).collect();
        together(|| {
            for (i, (p, g)) in params.iter().zip(&grads).enumerate() {
                let scale = 1. / (i + 1) as f64;
                (case.step)(t, p, Gradient { tensor: g, scale }, &states[i])?;
            }
            Ok(())
        })
        .unwrap();
    }
    let each = params.iter().zip(states);
    let each = each.flat_map(|(p, s)| std::iter::once(p.as_detached_tensor()).chain(s));
    each.map(|t| t.to_device(&Device::Cpu).unwrap()).collect()
}

#[cfg(cuda_path)]
#[test]
fn cuda() {
    let mut dims: Vec<Vec<usize>> = vec![vec![], vec![0], vec![65], vec![3, 4], vec![5000]];
    dims.extend((1..32).map(|n| vec![n]));
    dims.push(vec![4096, 2]);
    for place in crate::cuda::tests::places("optimizer::cuda") {
        for case in cases() {
            let fast = place.run(|device| run_on(device, &case, &dims));
            let slow = run_on(&Device::Cpu, &case, &dims);
            for (i, (a, b)) in fast.iter().zip(&slow).enumerate() {
                let what = format!("{} {place:?} tensor {i}", case.name);
                assert_close(&what, a, b, 1e-5, 1e-5);
            }
        }
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_one_by_one_and_shared_memory() {
    let sgd = Sgd { momentum: 0.5, ..Sgd::new(0.25) };
    for place in crate::cuda::tests::places("optimizer::cuda_one_by_one_and_shared_memory") {
        place.run(|device| {
            let new = |x: &[f32]| Tensor::new(x, device).unwrap();
            // Two steps of one parameter, and its gradient in its own memory.
            let (p, b) = (new(&[1., 2.]), new(&[0., 0.]));
            together(|| (1..3).try_for_each(|t| sgd.step(t, &p, &p, Some(&b)))).unwrap();
            let (q, c) = (new(&[1., 2.]), new(&[0., 0.]));
            for t in 1..3 {
                sgd.step(t, &q, &q.force_contiguous().unwrap(), Some(&c)).unwrap();
            }
            let [p, q] = [p, q].map(|t| t.to_vec1::<f32>().unwrap());
            assert_eq!(p, q);
            assert_eq!(p, [0.4375, 0.875]);
            let (x, y) = (new(&[0., 4.]), new(&[4., 4.]));
            lerp(&x, &y, 0.25).unwrap();
            add_scaled(&y, 2., Gradient { tensor: &x, scale: 3. }).unwrap();
            assert_eq!(x.to_vec1::<f32>().unwrap(), [1., 4.]);
            assert_eq!(y.to_vec1::<f32>().unwrap(), [11., 20.]);
            let cut = clamp(&new(&[f32::NAN, 9., -0.25]), 1.).unwrap().to_vec1::<f32>().unwrap();
            assert!(cut[0].is_nan() && cut[1..] == [1., -0.25]);
        });
    }
}

#[cfg(cuda_path)]
#[test]
fn cuda_norms() {
    for place in crate::cuda::tests::places("optimizer::cuda_norms") {
        let sizes = (0..40).map(|n| n * n).chain([4096, 4097, 20_000]);
        let all: Vec<Tensor> = sizes.map(|n| waves(&[n], 1., 3., DType::F32)).collect();
        let sums = place.run(|device| {
            let all: Vec<Tensor> = all.iter().map(|t| t.to_device(device).unwrap()).collect();
            let views: Vec<&Tensor> = all.iter().collect();
            let grads: Vec<Gradient<'_>> = views.iter().map(|t| (*t).into()).collect();
            let (sums, norm) = (sums_of_squares(&views).unwrap(), global_norm(&grads).unwrap());
            assert!((norm * norm - sums.iter().sum::<f64>()).abs() < 1e-6 * norm * norm);
            assert_eq!(sum_of_squares(views[39]).unwrap().to_bits(), sums[39].to_bits());
            sums
        });
        for (t, sum) in all.iter().zip(sums) {
            let exact = sum_of_squares(t).unwrap();
            assert!((sum - exact).abs() <= 1e-12 * exact, "{place:?}: {sum}, expected {exact}");
        }
        let wide = Tensor::new(&[3e38f32, 1e-30], &Device::Cpu).unwrap();
        let norm = place.run(|device| {
            let wide = wide.to_device(device).unwrap();
            global_norm(&[(&wide).into()]).unwrap()
        });
        assert!(norm > 2.9e38);
    }
}

#[test]
fn other_devices_overwrite_by_the_plain_twin() {
    let c = RmsPropGraves::new(0.1);
    for dims in [&[][..], &[7], &[2, 3]] {
        let p = waves(dims, 1., 1., DType::F64);
        let g = waves(dims, 2., 1., DType::F64);
        let [fused, plain] = [0, 1].map(|_| p.force_contiguous().unwrap());
        let (a, b) = (zeros(&p, 3), zeros(&p, 3));
        let grad = Gradient { tensor: &g, scale: 0.5 };
        rule::apply(&c, &fused, grad, [&a[0], &a[1], &a[2]]).unwrap();
        rule::apply_plain(&c, &plain, grad, [&b[0], &b[1], &b[2]]).unwrap();
        for (x, y) in [(&fused, &plain), (&a[0], &b[0]), (&a[1], &b[1]), (&a[2], &b[2])] {
            assert_close("plain", x, y, 1e-12, 1e-12);
        }
        assert_ne!(numbers(&[plain]), numbers(&[p]));
    }
}

#[test]
fn hostile_values() {
    let bad = [f32::NAN, f32::INFINITY, 1e4, -1e4, 1e-40, 0., 1e19, -3e38];
    let values: Vec<f32> = bad.iter().chain([&1.; 12]).copied().collect();
    let g = Tensor::new(&*values, &Device::Cpu).unwrap();
    for case in cases() {
        let p = Tensor::ones(20, DType::F32, &Device::Cpu).unwrap();
        let states = zeros(&p, case.states);
        (case.step)(1, &p, (&g).into(), &states).unwrap();
        let got = p.to_vec1::<f32>().unwrap();
        assert!(got[0].is_nan(), "{}: {got:?}", case.name);
        // A bad number spoils no other.
        assert!(got[2..6].iter().chain(&got[8..]).all(|x| x.is_finite()), "{}: {got:?}", case.name);
        let rest: Vec<u32> = got[8..].iter().map(|x| x.to_bits()).collect();
        assert!(rest.iter().all(|x| *x == rest[0]), "{}: {got:?}", case.name);
    }
    // AMSGrad keeps a NaN, as PyTorch does.
    let [p, m, v] = [0, 1, 2].map(|_| Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
    let top = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
    let g = Tensor::new(&[1f32], &Device::Cpu).unwrap();
    let state = AdamState { exp_avg: &m, exp_avg_sq: &v, max_exp_avg_sq: Some(&top) };
    Adam::new(0.1).step(1, &p, &g, state).unwrap();
    assert!(p.to_vec1::<f32>().unwrap()[0].is_nan());
}

#[test]
fn an_unset_momentum_buffer_does_not_matter_in_the_first_step() {
    let p = Tensor::new(&[1f64], &Device::Cpu).unwrap();
    let (g, b) = (p.force_contiguous().unwrap(), Tensor::new(&[f64::NAN], &Device::Cpu).unwrap());
    let c = Sgd { momentum: 0.9, dampening: 0.5, ..Sgd::new(0.25) };
    c.step(1, &p, &g, Some(&b)).unwrap();
    assert_eq!((numbers(&[p]), numbers(&[b])), (vec![0.75f64.to_bits()], vec![1f64.to_bits()]));
}

#[test]
fn norms() {
    for n in [0, 1, 31, 33, 1000, 16_384, 16_385, 200_001] {
        for dtype in [DType::F32, DType::F64] {
            let xs = waves(&[n], 1., 3., dtype);
            let exact = plain::sum_of_squares(&xs).unwrap();
            let got = sum_of_squares(&xs).unwrap();
            assert!((got - exact).abs() <= 1e-12 * exact, "{n}: {got} {exact}");
            for level in simd::available() {
                let again = simd::with_level(level, || sum_of_squares(&xs)).unwrap().unwrap();
                assert_eq!(again.to_bits(), got.to_bits(), "{n} {level:?}");
            }
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let again = pool.install(|| sum_of_squares(&xs)).unwrap();
                assert_eq!(again.to_bits(), got.to_bits(), "{n} {threads} threads");
            }
        }
    }
    let xs = waves(&[30, 40], 1., 1., DType::F64);
    let (across, along) = (sum_of_squares(&xs.t().unwrap()), sum_of_squares(&xs));
    assert!((across.unwrap() - along.unwrap()).abs() < 1e-10);
    // f64 sums: squares of f32 neither overflow nor vanish.
    let wide = Tensor::new(&[3e38f32, 1e-30], &Device::Cpu).unwrap();
    assert!(global_norm(&[(&wide).into()]).unwrap() > 2.9e38);
    let (a, b) = (Tensor::new(&[3f32], &Device::Cpu).unwrap(), waves(&[0], 1., 1., DType::F32));
    let both = [Gradient { tensor: &a, scale: -2. }, (&b).into()];
    assert_eq!(global_norm(&both).unwrap(), 6.);
    assert_eq!(global_norm(&[]).unwrap(), 0.);
}

#[test]
fn bad_numbers_are_found() {
    for (at, bad) in [(0, f32::NAN), (16_383, f32::INFINITY), (40_000, f32::NEG_INFINITY)] {
        let mut values = vec![1f32; 40_001];
        (values[at], values[40_000]) = (bad, f32::NEG_INFINITY);
        let xs = Tensor::new(&*values, &Device::Cpu).unwrap();
        for level in simd::available() {
            let found = simd::with_level(level, || first_non_finite(&xs)).unwrap().unwrap();
            let (i, x) = found.unwrap();
            assert_eq!((i, (x as f32).is_nan(), x > 0.), (at, bad.is_nan(), bad > 0.));
        }
        assert!(!global_norm(&[(&xs).into()]).unwrap().is_finite());
    }
    let xs = Tensor::new(&[f32::MAX, -1e-45], &Device::Cpu).unwrap();
    assert_eq!(first_non_finite(&xs).unwrap(), None);
    // The factor counts.
    let scaled = Gradient { tensor: &xs, scale: 2. };
    assert_eq!(first_non_finite(scaled).unwrap(), Some((0, f64::INFINITY)));
    assert!(clip_factor(f64::NAN, 1.) == 1. && clip_factor(10., 5.) == 0.5);
}

#[test]
fn mixing_and_cutting() {
    for n in [0, 1, 63, 65, 1000] {
        for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
            let (a, b) = (waves(&[n], 1., 2., dtype), waves(&[n], 5., 2., dtype));
            let (x, y) = (a.force_contiguous().unwrap(), a.force_contiguous().unwrap());
            lerp(&x, &b, 0.3).unwrap();
            add_scaled(&y, 0.7, Gradient { tensor: &b, scale: -1.5 }).unwrap();
            let plain_y = plain::add_scaled(&a, 0.7, &b, -1.5).unwrap();
            assert_close("lerp", &x, &plain::lerp(&a, &b, 0.3).unwrap(), tolerance, tolerance);
            assert_close("add_scaled", &y, &plain_y, tolerance, tolerance);
            let cut = clamp(Gradient { tensor: &b, scale: 2. }, 0.5).unwrap();
            let wanted = (&b * 2.).unwrap().clamp(-0.5, 0.5).unwrap();
            assert_close("clamp", &cut, &wanted, 0., 0.);
        }
    }
    let odd = Tensor::new(&[f64::NAN, f64::INFINITY, -0.25], &Device::Cpu).unwrap();
    let cut = clamp(&odd, 1.).unwrap().to_vec1::<f64>().unwrap();
    assert!(cut[0].is_nan() && cut[1..] == [1., -0.25]);
}

#[test]
fn what_does_not_fit_is_named() {
    let cpu = &Device::Cpu;
    let zeros = |n: usize| Tensor::zeros(n, DType::F32, cpu).unwrap();
    let (p, g, m, v) = (zeros(3), zeros(3), zeros(3), zeros(3));
    let adam = |p: &Tensor, g: &Tensor, m: &Tensor, v: &Tensor, t: u64| {
        let state = AdamState { exp_avg: m, exp_avg_sq: v, max_exp_avg_sq: None };
        Adam::new(0.1).step(t, p, g, state).unwrap_err().to_string()
    };
    let error = adam(&p, &zeros(4), &m, &v, 1);
    assert!(error.contains("adam: expected grad of shape [3], F32") && error.contains("got [4]"));
    let error = adam(&p, &g, &m, &zeros(2), 1);
    assert!(error.contains("expected exp_avg_sq of shape [3]"), "{error}");
    let error = adam(&p, &g, &Tensor::zeros(3, DType::F64, cpu).unwrap(), &v, 1);
    assert!(error.contains("exp_avg of") && error.contains("got [3], F64"), "{error}");
    assert!(adam(&p, &g, &m, &m, 1).contains("exp_avg_sq and exp_avg must not share"));
    assert!(adam(&p, &g, &m, &p, 1).contains("exp_avg_sq and param must not share"));
    assert!(adam(&p, &g, &m, &v, 0).contains("the step counts from 1, got 0"));
    let half = Tensor::zeros(3, DType::BF16, cpu).unwrap();
    assert!(adam(&half, &half, &half, &half, 1).contains("expected a parameter of f32 or f64"));
    let wide = zeros(1).broadcast_as(3).unwrap();
    assert!(adam(&wide, &g, &m, &v, 1).contains("param must be contiguous"));
    let error = Sgd { momentum: 0.5, ..Sgd::new(0.1) }.step(1, &p, &g, None).unwrap_err();
    assert!(error.to_string().contains("momentum 0.5 needs a momentum_buffer"), "{error}");
    let state = RmsPropState { square_avg: &m, grad_avg: Some(&v), momentum_buffer: None };
    let error = RmsProp { momentum: 0.5, ..RmsProp::new(0.1) }.step(&p, &g, state).unwrap_err();
    assert!(error.to_string().contains("rmsprop: momentum 0.5"), "{error}");
    assert!(sum_of_squares(&half).is_err() && first_non_finite(&half).is_err());
}
