//! What the tests of all models share: made-up stories, padding, gradients, a small trainer.

use candle_core::{DType, Device, Result, Tensor, Var};
use mnemic_layers::{Context, ParamStore};
use mnemic_testing::assert_close;

use crate::story::{HostIds, Phase, StoryBatch, StoryModel};

/// Words of [`stories`]: people 1-4, verbs 5-6, places 7-10, "where" 11.
pub(crate) const VOCAB: usize = 12;

/// `count` stories of people who move about, asking where one of those seen is; with the answers.
pub(crate) fn stories(count: usize, seed: u64) -> (StoryBatch, Vec<u32>) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % n
    };
    let (mut rows, mut questions, mut supports, mut answers) = (vec![], vec![], vec![], vec![]);
    for _ in 0..count {
        let n = 2 + below(4) as usize;
        let story: Vec<Vec<u32>> = (0..n)
            .map(|_| {
                let (who, verb, place) = (1 + below(4), 5 + below(2), 7 + below(4));
                let mut sentence = vec![who as u32, verb as u32, place as u32];
                if verb == 6 {
                    sentence.insert(2, 5); // "went back to": sentences of two lengths
                }
                sentence
            })
            .collect();
        let who = story[below(n as u64) as usize][0];
        let last = story.iter().rposition(|s| s[0] == who).unwrap();
        answers.push(*story[last].last().unwrap());
        questions.push(if below(2) == 0 { vec![11, who] } else { vec![11, 5, who] });
        supports.push(vec![last]);
        rows.push(story);
    }
    (StoryBatch::from_rows(&rows, &questions, supports, &Device::Cpu).unwrap(), answers)
}

/// The batch with more padding: sentences, words of a sentence, words of a question.
pub(crate) fn pad(batch: &StoryBatch, sentences: usize, words: usize, asked: usize) -> StoryBatch {
    let (_, n, _) = batch.story.dims3().unwrap();
    let story = batch.story.pad_with_zeros(1, 0, sentences).unwrap();
    let mut sentence_lengths = vec![];
    for row in batch.sentence_lengths.chunks(n) {
        sentence_lengths.extend_from_slice(row);
        sentence_lengths.extend(vec![0; sentences]);
    }
    StoryBatch {
        story: story.pad_with_zeros(2, 0, words).unwrap(),
        sentence_lengths,
        question: batch.question.pad_with_zeros(1, 0, asked).unwrap(),
        ..batch.clone()
    }
}

/// Rows `range` of the batch.
pub(crate) fn rows(batch: &StoryBatch, range: std::ops::Range<usize>) -> StoryBatch {
    let n = batch.story.dim(1).unwrap();
    StoryBatch {
        story: batch.story.narrow(0, range.start, range.len()).unwrap(),
        story_lengths: batch.story_lengths[range.clone()].to_vec(),
        sentence_lengths: batch.sentence_lengths[range.start * n..range.end * n].to_vec(),
        question: batch.question.narrow(0, range.start, range.len()).unwrap(),
        question_lengths: batch.question_lengths[range.clone()].to_vec(),
        supports: batch.supports[range].to_vec(),
        host: HostIds::default(),
    }
}

/// More padding leaves the logits as they are, and so does the rest of the batch.
pub(crate) fn check_padding(model: &dyn StoryModel) {
    let (batch, answers) = stories(5, 3);
    let ctx = Context::eval();
    let logits = model.forward(&batch, &ctx).unwrap().logits;
    for (sentences, words, asked) in [(3, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 1)] {
        let padded = pad(&batch, sentences, words, asked);
        let again = model.forward(&padded, &ctx).unwrap().logits;
        assert_close("padded logits", &again, &logits, 1e-6, 1e-6);
        let loss = model.loss(&batch, &answers, &ctx).unwrap();
        let padded_loss = model.loss(&padded, &answers, &ctx).unwrap();
        assert_close("padded loss", &padded_loss, &loss, 1e-6, 1e-6);
    }
    for row in 0..5 {
        let one = rows(&batch, row..row + 1);
        let again = model.forward(&one, &ctx).unwrap().logits;
        let expected = logits.narrow(0, row, 1).unwrap();
        assert_close("logits of one row", &again, &expected, 1e-6, 1e-6);
    }
}

/// A story without a sentence gives finite logits that do not depend on the rest of the batch.
pub(crate) fn check_empty_story(model: &dyn StoryModel) {
    let one = vec![vec![1, 5, 7]];
    let make = |stories: &[Vec<Vec<u32>>]| {
        let questions = vec![vec![11, 1]; stories.len()];
        StoryBatch::from_rows(stories, &questions, vec![], &Device::Cpu).unwrap()
    };
    let ctx = Context::eval();
    let mixed = model.forward(&make(&[vec![], one]), &ctx).unwrap().logits;
    let alone = model.forward(&make(&[vec![]]), &ctx).unwrap().logits;
    let values = alone.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    assert!(values.to_vec1::<f64>().unwrap().iter().all(|v| v.is_finite()));
    assert_close("logits of an empty story", &mixed.narrow(0, 0, 1).unwrap(), &alone, 1e-6, 1e-6);
}

/// The names of parameters whose gradient is missing or zero everywhere.
pub(crate) fn without_gradient(store: &ParamStore, loss: &Tensor) -> Vec<String> {
    let grads = loss.backward().unwrap();
    let dead = |var: &Var| match grads.get(var) {
        None => true,
        Some(g) => {
            let largest = g.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            let largest = largest.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            largest.is_nan() || largest == 0.
        }
    };
    store.vars().into_iter().filter(|(_, var)| dead(var)).map(|(name, _)| name).collect()
}

/// Compares the gradient of `loss` with central differences at up to `places` places of the
/// parameter `name` (f64).
pub(crate) fn check_differences(
    store: &ParamStore,
    name: &str,
    places: usize,
    loss: impl Fn() -> Result<Tensor>,
) {
    let var = store.get(name).unwrap_or_else(|| panic!("no parameter {name}"));
    let grads = loss().unwrap().backward().unwrap();
    let grad = grads.get(&var).unwrap_or_else(|| panic!("no gradient reaches {name}"));
    let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let original = var.as_tensor().copy().unwrap();
    let flat = original.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let value = |at: usize, delta: f64| {
        let mut moved = flat.clone();
        moved[at] += delta;
        var.set(&Tensor::from_vec(moved, original.shape(), &Device::Cpu).unwrap()).unwrap();
        loss().unwrap().to_scalar::<f64>().unwrap()
    };
    let stride = flat.len().div_ceil(places).max(1) | 1;
    for at in (0..flat.len()).step_by(stride) {
        let numeric = (value(at, 1e-6) - value(at, -1e-6)) / 2e-6;
        let error = (numeric - grad[at]).abs();
        assert!(error < 1e-6 + 1e-5 * numeric.abs(), "{name}[{at}]: {} and {numeric}", grad[at]);
    }
    var.set(&original).unwrap();
}

/// [`adam`] on the mean loss over the whole batch.
pub(crate) fn train(
    model: &dyn StoryModel,
    store: &ParamStore,
    (batch, answers): (&StoryBatch, &[u32]),
    rate: f64,
    steps: u64,
) {
    adam(store, rate, steps, |step| {
        let ctx = Context::train(1, step);
        let loss = model.loss_in(Phase::Main, batch, answers, &ctx).unwrap();
        loss / answers.len() as f64
    });
}

/// Adam (Kingma and Ba 2015) on the loss of each step, from 1 on.
pub(crate) fn adam(
    store: &ParamStore,
    rate: f64,
    steps: u64,
    loss: impl Fn(u64) -> Result<Tensor>,
) {
    let vars = store.vars();
    let mut moments: Vec<(Tensor, Tensor)> =
        vars.iter().map(|(_, v)| (v.zeros_like().unwrap(), v.zeros_like().unwrap())).collect();
    for step in 1..=steps {
        let grads = loss(step).unwrap().backward().unwrap();
        for ((_, var), (m, v)) in vars.iter().zip(&mut moments) {
            let Some(g) = grads.get(var) else { continue };
            *m = ((&*m * 0.9).unwrap() + (g * 0.1).unwrap()).unwrap();
            *v = ((&*v * 0.999).unwrap() + (g.sqr().unwrap() * 0.001).unwrap()).unwrap();
            let m_hat = (&*m / (1. - 0.9f64.powi(step as i32))).unwrap();
            let v_hat = (&*v / (1. - 0.999f64.powi(step as i32))).unwrap();
            let change = (m_hat / (v_hat.sqrt().unwrap() + 1e-8).unwrap()).unwrap();
            var.set(&(var.as_tensor() - (change * rate).unwrap()).unwrap()).unwrap();
        }
    }
}

/// The share of right answers.
pub(crate) fn accuracy(model: &dyn StoryModel, batch: &StoryBatch, answers: &[u32]) -> f64 {
    let logits = model.forward(batch, &Context::eval()).unwrap().logits;
    let best = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    best.iter().zip(answers).filter(|(a, b)| a == b).count() as f64 / answers.len() as f64
}

/// Two stores of the same seed give the same bits, another seed does not. `run` gives the logits
/// after a training loss.
pub(crate) fn check_seeds(run: impl Fn(u64) -> Tensor) {
    let bits = |seed| run(seed).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bits = |seed| bits(seed).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(5), bits(5));
    assert_ne!(bits(5), bits(6));
}
