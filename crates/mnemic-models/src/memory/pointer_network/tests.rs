use mnemic_layers::ParamStore;
use mnemic_testing::assert_close;

use super::*;
use crate::testing::{adam, check_differences, without_gradient};
use crate::{Pretrained, from_pretrained, save_pretrained};

type Rows = Vec<Vec<[f64; 2]>>;

fn model(hidden_size: usize, init_range: f64, dtype: DType) -> (PointerNetwork, ParamStore) {
    let store = ParamStore::new(3);
    let config = Config { hidden_size, init_range, ..Config::ptr_net() };
    (PointerNetwork::new(&config, store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// Rows of points from a formula.
fn rows(lengths: &[usize]) -> Rows {
    let point = |row: usize, i: usize| {
        let x = (row * 31 + i * 7) as f64;
        [(0.37 * x).sin().abs(), (1.3 + 0.53 * x).cos().abs()]
    };
    lengths.iter().enumerate().map(|(row, &n)| (0..n).map(|i| point(row, i)).collect()).collect()
}

fn batch(rows: &[Vec<[f64; 2]>], dtype: DType) -> PointBatch {
    PointBatch::from_rows(rows, dtype, &Device::Cpu).unwrap()
}

fn answers() -> Vec<Vec<u32>> {
    vec![vec![1, 3, 2, 1], vec![2, 1], vec![], vec![4, 4, 1, 2, 5]]
}

fn loss(model: &PointerNetwork, batch: &PointBatch, answers: &[Vec<u32>]) -> Result<Tensor> {
    pointer_loss(&model.forward(batch, answers, &Context::eval())?, answers)
}

#[test]
fn there_is_a_probability_for_every_point_and_the_end_and_none_for_padding() {
    let (model, _) = model(6, 0.8, DType::F64);
    for n in [1, 4, 9] {
        let batch = batch(&rows(&[n, 1]), DType::F64);
        let log_p = model.forward(&batch, &[vec![1], vec![1]], &Context::eval()).unwrap();
        assert_eq!(log_p.dims(), [2, 2, n + 1]);
        for (row, length) in log_p.to_vec3::<f64>().unwrap().iter().zip([n, 1]) {
            for step in row {
                assert!((step.iter().map(|p| p.exp()).sum::<f64>() - 1.).abs() < 1e-12);
                assert!(step[..=length].iter().all(|p| p.is_finite()));
                assert!(step[length + 1..].iter().all(|p| *p == f64::NEG_INFINITY));
            }
        }
    }
}

#[test]
fn gradients_reach_every_parameter_through_fused_operations_only() {
    let (model, store) = model(5, 0.8, DType::F64);
    let batch = batch(&rows(&[3, 4, 2, 6]), DType::F64);
    let total = loss(&model, &batch, &answers()).unwrap();
    assert!(mnemic_layers::only_fused(&total));
    assert_eq!(without_gradient(&store, &total), Vec::<String>::new());
    for (name, _) in store.vars() {
        check_differences(&store, &name, 9, || loss(&model, &batch, &answers()));
    }
}

#[test]
fn padding_and_other_rows_change_nothing() {
    let (model, _) = model(5, 0.8, DType::F64);
    let rows = rows(&[3, 4, 2, 6]);
    let whole = batch(&rows, DType::F64);
    let answers = answers();
    let log_p = model.forward(&whole, &answers, &Context::eval()).unwrap();
    let mut sum = 0.;
    for (i, (row, answer)) in rows.iter().zip(&answers).enumerate() {
        let one = batch(std::slice::from_ref(row), DType::F64);
        let answer = std::slice::from_ref(answer);
        let alone = model.forward(&one, answer, &Context::eval()).unwrap();
        let (m, s) = (answer[0].len() + 1, row.len() + 1);
        let part = log_p.narrow(0, i, 1).unwrap().narrow(1, 0, m).unwrap();
        assert_close("row", &part.narrow(2, 0, s).unwrap(), &alone, 1e-12, 1e-12);
        sum += pointer_loss(&alone, answer).unwrap().to_scalar::<f64>().unwrap();
    }
    let total = pointer_loss(&log_p, &answers).unwrap().to_scalar::<f64>().unwrap();
    assert!((total - sum).abs() < 1e-10, "{total} {sum}");
    // What stands in the padding does not matter either.
    let mut dirty = whole.clone();
    let padding = Tensor::full(7., (4, 2, 2), &Device::Cpu).unwrap();
    dirty.points = Tensor::cat(&[&dirty.points, &padding], 1).unwrap();
    let again = loss(&model, &dirty, &answers).unwrap().to_scalar::<f64>().unwrap();
    assert!((total - again).abs() < 1e-10);
}

/// The loss is that of the definition: -log p of the answers and of their ends.
#[test]
fn the_loss_sums_over_the_answers_and_their_ends() {
    let (model, _) = model(5, 0.8, DType::F64);
    let batch = batch(&rows(&[3, 4]), DType::F64);
    let answers = [vec![1, 3, 2, 1], vec![4, 2]];
    let log_p = model.forward(&batch, &answers, &Context::eval()).unwrap();
    let values = log_p.to_vec3::<f64>().unwrap();
    let mut expected = 0.;
    for (row, answer) in values.iter().zip(&answers) {
        for (step, at) in answer.iter().chain(&[0]).enumerate() {
            expected -= row[step][*at as usize];
        }
    }
    let total = pointer_loss(&log_p, &answers).unwrap().to_scalar::<f64>().unwrap();
    assert!((total - expected).abs() < 1e-10);
    assert!(pointer_loss(&log_p, &[vec![1; 5], vec![]]).is_err());
}

/// Log-probability of an answer and its end, by teacher forcing.
fn log_probability(model: &PointerNetwork, row: &[[f64; 2]], answer: &[u32]) -> f64 {
    let total = loss(model, &batch(&[row.to_vec()], DType::F64), &[answer.to_vec()]).unwrap();
    -total.to_scalar::<f64>().unwrap()
}

/// All orders of 1 to n, closed.
fn tours(n: u32) -> Vec<Vec<u32>> {
    let mut all = vec![vec![]];
    for i in 1..=n {
        let put = |tour: &Vec<u32>, at: usize| {
            let mut tour = tour.clone();
            tour.insert(at, i);
            tour
        };
        all = all.iter().flat_map(|t| (0..=t.len()).map(move |at| put(t, at))).collect();
    }
    all.iter().map(|t| t.iter().chain(&t[..1]).copied().collect()).collect()
}

#[test]
fn tours_are_valid_and_a_wide_beam_finds_the_likeliest_of_all() {
    let (model, _) = model(5, 1.5, DType::F64);
    let rows = rows(&[4, 2, 3]);
    let all = batch(&rows, DType::F64);
    let find = |width| {
        let decoding = Decoding { width, rule: Rule::Tour, max_steps: 6 };
        model.decode(&all, &decoding, &Context::eval()).unwrap()
    };
    let (greedy, wide) = (find(1), find(24));
    for (row, points) in rows.iter().enumerate() {
        let n = points.len() as u32;
        let best = tours(n).into_iter().max_by(|a, b| {
            log_probability(&model, points, a).total_cmp(&log_probability(&model, points, b))
        });
        let (first, narrow) = (&wide[row][0], &greedy[row][0]);
        assert_eq!(Some(&first.answer), best.as_ref());
        for found in [first, narrow] {
            assert!(found.ended && tours(n).contains(&found.answer), "{found:?}");
            let expected = log_probability(&model, points, &found.answer);
            assert!((found.log_probability - expected).abs() < 1e-10);
        }
        assert!(first.log_probability >= narrow.log_probability - 1e-12);
        assert!(wide[row].is_sorted_by(|a, b| a.log_probability >= b.log_probability));
    }
}

#[test]
fn greedy_answers_are_the_likeliest_steps_of_the_forward_pass() {
    let (model, _) = model(5, 1.5, DType::F64);
    let rows = rows(&[5, 3, 7]);
    let decoding = Decoding { width: 1, rule: Rule::Free, max_steps: 6 };
    let found = model.decode(&batch(&rows, DType::F64), &decoding, &Context::eval()).unwrap();
    for (row, found) in rows.iter().zip(&found) {
        let answer = &found[0].answer;
        let one = batch(std::slice::from_ref(row), DType::F64);
        let log_p = model.forward(&one, std::slice::from_ref(answer), &Context::eval()).unwrap();
        let best = log_p.argmax(2).unwrap().to_vec2::<u32>().unwrap();
        assert_eq!(answer[..], best[0][..answer.len()]);
        assert!(
            found[0].ended == (answer.len() < 6) && (!found[0].ended || best[0][answer.len()] == 0)
        );
    }
}

#[test]
fn pointer_weights_are_watched_step_by_step() {
    let (model, _) = model(5, 0.8, DType::F32);
    let ctx = Context::eval().watching();
    let answers = [vec![1, 2, 3], vec![2]];
    model.forward(&batch(&rows(&[3, 2]), DType::F32), &answers, &ctx).unwrap();
    let trace = ctx.take_trace();
    let names: Vec<(&str, usize)> = trace.iter().map(|w| (w.name.as_str(), w.step)).collect();
    assert_eq!(names, [0, 1, 2, 3].map(|step| ("pointer_weights", step)));
    assert_eq!(trace[2].value.dims(), [2, 4]);
}

/// Hulls of two and three points go through all of them; which way round depends on the third point's side.
#[test]
fn hulls_of_three_points_are_learnt_without_error() {
    let (model, store) = model(24, 0.3, DType::F32);
    let mut state = 1u64;
    let mut unit = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut rows: Rows = vec![];
    while rows.len() < 64 {
        let n = 2 + rows.len() % 2;
        rows.push((0..n).map(|_| [unit(), unit()]).collect());
    }
    let hull = |row: &Vec<[f64; 2]>| match row[..] {
        [a, b, c] => {
            let turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            if turn > 0. { vec![1, 2, 3, 1] } else { vec![1, 3, 2, 1] }
        }
        _ => vec![1, 2, 1],
    };
    let answers: Vec<Vec<u32>> = rows.iter().map(hull).collect();
    let batch = batch(&rows, DType::F32);
    adam(&store, 0.01, 700, |_| loss(&model, &batch, &answers)? / 64.);
    let decoding = Decoding { width: 1, rule: Rule::Free, max_steps: 8 };
    let found = model.decode(&batch, &decoding, &Context::eval()).unwrap();
    let right = found.iter().zip(&answers).filter(|(f, a)| f[0].answer == **a).count();
    assert_eq!(right, 64);
}

#[test]
fn a_model_is_saved_and_read_again() {
    let (model, store) = model(5, 0.8, DType::F32);
    let dir = tempfile::TempDir::new().unwrap();
    save_pretrained::<PointerNetwork>(dir.path(), model.config(), &store, &[]).unwrap();
    let again: Pretrained<PointerNetwork> =
        from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(&again.config, model.config());
    let points = batch(&rows(&[3]), DType::F32);
    let answers = [vec![1, 2]];
    let run = |m: &PointerNetwork| m.forward(&points, &answers, &Context::eval()).unwrap();
    assert_close("again", &run(&again.model), &run(&model), 0., 0.);
}

#[test]
fn what_does_not_fit_is_named() {
    let (model, _) = model(5, 0.8, DType::F32);
    let good = batch(&rows(&[3, 2]), DType::F32);
    let error = |batch: &PointBatch, answers: &[Vec<u32>]| {
        model.forward(batch, answers, &Context::eval()).unwrap_err().to_string()
    };
    assert!(error(&good, &[vec![1]]).contains("1 answers for a batch of 2"));
    assert!(error(&good, &[vec![1], vec![3]]).contains("points at 3, expected 1 to 2"));
    assert!(error(&good, &[vec![0], vec![1]]).contains("points at 0"));
    let bad = PointBatch { lengths: vec![3, 4], ..good.clone() };
    assert!(error(&bad, &[vec![], vec![]]).contains("lengths from 1 to 3, got [3, 4]"));
    let bad = PointBatch { points: good.points.narrow(2, 0, 1).unwrap(), ..good.clone() };
    assert!(error(&bad, &[vec![], vec![]]).contains("(b, n, 2)"));
    let none = Decoding { width: 0, rule: Rule::Free, max_steps: 1 };
    assert!(model.decode(&good, &none, &Context::eval()).is_err());
    for (key, value) in [("hidden_size", "0"), ("init_range", "-1"), ("hidden", "3")] {
        let changes = serde_json::from_str(&format!("{{\"{key}\": {value}}}")).unwrap();
        let error = Config::with(changes).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("pointer-network"), "{error}");
    }
}
