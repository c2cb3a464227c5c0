//! What the parity tests of all Transformers share.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{D, DType, Device, Result, Tensor};
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_layers::{Context, Trace};
use mnemic_testing::assert_close;

use crate::autoregressive::Autoregressive;
use crate::pretrained::{
    Pretrained, PretrainedModel, from_pretrained, load_tensors, save_pretrained,
};
use crate::text::{Padding, TextBatch};

/// A folder of fixtures: config, weights, and what `transformers` computes.
pub(crate) struct Fixture {
    pub(crate) dir: PathBuf,
    pub(crate) tensors: HashMap<String, Tensor>,
}

/// The fixture `name` below `hf`, unless there is no `MNEMIC_DATA`; then the test says that it is skipped.
pub(crate) fn fixture(test: &str, name: &str) -> Option<Fixture> {
    let dir = mnemic_testing::shared_data(test, &format!("fixtures/hf/{name}"))?;
    let tensors = load_tensors(dir.join("fixture.safetensors"), &Device::Cpu).unwrap();
    Some(Fixture { dir, tensors })
}

/// What the trained model `weights` gives, of `fixtures/real/NAME`: as [`fixture`].
pub(crate) fn real_fixture(test: &str, name: &str, weights: &str) -> Option<Fixture> {
    let below = format!("fixtures/real/{name}/fixture.safetensors");
    let file = mnemic_testing::shared_data(test, &below)?;
    let dir = mnemic_testing::shared_data(test, &format!("weights/{weights}"))?;
    Some(Fixture { dir, tensors: load_tensors(file, &Device::Cpu).unwrap() })
}

impl Fixture {
    pub(crate) fn load<M: PretrainedModel>(&self) -> Pretrained<M> {
        from_pretrained(&self.dir, DType::F32, &Device::Cpu).unwrap()
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Ids or labels as u32.
    pub(crate) fn ids(&self, name: &str) -> Tensor {
        self.get(name).to_dtype(DType::U32).unwrap()
    }

    /// `input_ids` with `attention_mask` and `token_type_ids`, where there are some.
    pub(crate) fn batch(&self) -> TextBatch {
        let ids = self.ids("input_ids");
        let (b, t) = ids.dims2().unwrap();
        let mask = match self.tensors.get("attention_mask") {
            Some(mask) => mask.to_dtype(DType::U8).unwrap().to_vec2::<u8>().unwrap(),
            None => vec![vec![1; t]; b],
        };
        let batch = TextBatch::with_mask(ids, mask).unwrap();
        match self.tensors.get("token_type_ids") {
            Some(types) => batch.with_token_types(types.to_dtype(DType::U32).unwrap()).unwrap(),
            None => batch,
        }
    }

    /// `decoder_input_ids`, none of which is padding.
    pub(crate) fn target(&self) -> TextBatch {
        let ids = self.ids("decoder_input_ids");
        let (b, t) = ids.dims2().unwrap();
        TextBatch::with_mask(ids, vec![vec![1; t]; b]).unwrap()
    }

    /// Compares where the mask of the queries is 1: the rest means nothing. `axis` is that of the queries, the batch is the first.
    pub(crate) fn close_at_tokens(&self, name: &str, got: &Tensor, axis: usize, mask: &[Vec<u8>]) {
        let expected = self.get(name);
        assert_eq!(got.dims(), expected.dims(), "{name}");
        for (row, mask) in mask.iter().enumerate() {
            for (place, _) in mask.iter().enumerate().filter(|(_, m)| **m == 1) {
                let at = |t: &Tensor| t.narrow(0, row, 1).unwrap().narrow(axis, place, 1).unwrap();
                let place = format!("{name} of row {row} at {place}");
                assert_close(&place, &at(got), &at(expected), 0., 1e-5);
            }
        }
    }

    /// Compares all attention maps and hidden states of a trace: the fixture's names are `attentions.i` and so on.
    pub(crate) fn check_trace(&self, trace: &Trace, names: &[(&str, &str)], mask: &[Vec<u8>]) {
        for &(watched, expected) in names {
            let entries: Vec<_> = trace.iter().filter(|w| w.name == watched).collect();
            let count =
                self.tensors.keys().filter(|k| k.starts_with(&format!("{expected}."))).count();
            assert_eq!(entries.len(), count, "{watched}");
            for entry in entries {
                let axis = if watched.ends_with("hidden_states") { 1 } else { 2 };
                let name = format!("{expected}.{}", entry.step);
                self.close_at_tokens(&name, &entry.value, axis, mask);
            }
        }
    }

    /// Compares the gradient of `loss` for every parameter with `gradients.safetensors`. Every gradient there must be matched.
    pub(crate) fn check_gradients<M: PretrainedModel>(
        &self,
        loaded: &Pretrained<M>,
        loss: &Tensor,
    ) {
        let expected = load_tensors(self.dir.join("gradients.safetensors"), &Device::Cpu).unwrap();
        assert_close("loss", loss, &expected["loss"], 0., 1e-5);
        let grads = loss.backward().unwrap();
        let mut checked = 0;
        for (name, expected) in &expected {
            let Some(name) = name.strip_prefix("grad.") else { continue };
            let (own, transposed) =
                M::place(&loaded.config, name).target().unwrap_or_else(|| panic!("{name}"));
            let var = loaded.store.get(&own).unwrap_or_else(|| panic!("no parameter {own}"));
            let grad = grads.get(&var).unwrap_or_else(|| panic!("no gradient for {own}"));
            let grad = if transposed { grad.t().unwrap() } else { grad.clone() };
            assert_close(&format!("gradient of {own}"), &grad, expected, 1e-4, 1e-5);
            checked += 1;
        }
        assert!(checked > 10, "{checked} gradients");
    }

    /// The mean cross-entropy of `logits (…, classes)` with the labels of `gradients.safetensors`, -100 ignored.
    pub(crate) fn loss(&self, logits: &Tensor) -> Tensor {
        let all = load_tensors(self.dir.join("gradients.safetensors"), &Device::Cpu).unwrap();
        let labels = all["labels"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
        let logits = logits.reshape(((), logits.dim(D::Minus1).unwrap())).unwrap();
        cross_entropy(&logits, &labels, &CrossEntropy::default()).unwrap()
    }
}

impl Fixture {
    /// [`loss`](Self::loss) of decoders: the label of a place belongs to the scores of the place before.
    pub(super) fn next_loss(&self, logits: &Tensor) -> Tensor {
        let all = load_tensors(self.dir.join("gradients.safetensors"), &Device::Cpu).unwrap();
        let (t, v) = (logits.dim(1).unwrap() - 1, logits.dim(2).unwrap());
        let labels = all["labels"].narrow(1, 1, t).unwrap().flatten_all().unwrap();
        let logits = logits.narrow(1, 0, t).unwrap().reshape(((), v)).unwrap();
        cross_entropy(&logits, &labels.to_vec1::<i64>().unwrap(), &CrossEntropy::default()).unwrap()
    }
}

/// Saving what was loaded gives the same files of tensors: same names, shapes and numbers.
pub(crate) fn check_round_trip<M: PretrainedModel>(fixture: &Fixture) {
    let loaded: Pretrained<M> = fixture.load();
    let dir = tempfile::TempDir::new().unwrap();
    save_pretrained::<M>(dir.path(), &loaded.config, &loaded.store, &[]).unwrap();
    let read =
        |dir: &std::path::Path| load_tensors(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let (before, after) = (read(&fixture.dir), read(dir.path()));
    let names = |map: &HashMap<String, Tensor>| {
        let mut names: Vec<_> = map.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&after), names(&before));
    for (name, tensor) in &before {
        assert_close(name, &after[name], tensor, 0., 0.);
    }
    let again: Pretrained<M> = from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
}

/// Each row alone, without padding, gives what it gives in the batch. `forward` gives `(b, …)`; with `places`, `(b, t, …)`.
pub(crate) fn check_padding(
    batch: &TextBatch,
    places: bool,
    forward: impl Fn(&TextBatch, &Context) -> Tensor,
) {
    let ctx = Context::eval();
    let whole = forward(batch, &ctx);
    for (row, mask) in batch.attention_mask().iter().enumerate() {
        let there: Vec<u32> = (0..mask.len() as u32).filter(|&i| mask[i as usize] == 1).collect();
        let index = Tensor::new(there.as_slice(), &Device::Cpu).unwrap();
        let pick = |t: &Tensor| t.narrow(0, row, 1).unwrap().index_select(&index, 1).unwrap();
        let alone =
            TextBatch::with_mask(pick(batch.input_ids()), vec![vec![1; there.len()]]).unwrap();
        let alone = match batch.token_type_ids() {
            Some(types) => alone.with_token_types(pick(types)).unwrap(),
            None => alone,
        };
        let expected = if places { pick(&whole) } else { whole.narrow(0, row, 1).unwrap() };
        assert_close(&format!("row {row} alone"), &forward(&alone, &ctx), &expected, 1e-5, 1e-5);
    }
}

/// The folder of all-MiniLM-L6-v2: the one that `MNEMIC_MINILM` names, or that below `MNEMIC_DATA`; else the test says that it is skipped.
pub(crate) fn minilm(test: &str) -> Option<PathBuf> {
    let below = || mnemic_testing::shared_data(test, "weights/all-MiniLM-L6-v2");
    let dir = std::env::var_os("MNEMIC_MINILM").map(PathBuf::from).or_else(below)?;
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: {test}: there is no all-MiniLM-L6-v2 at {}", dir.display());
    None
}

/// The rows of a batch with their padding on the left.
pub(super) fn left_padded(batch: &TextBatch) -> TextBatch {
    let ids = batch.input_ids().to_vec2::<u32>().unwrap();
    let kept = |(ids, mask): (Vec<u32>, &Vec<u8>)| {
        ids.into_iter().zip(mask).filter(|(_, m)| **m == 1).map(|(id, _)| id).collect()
    };
    let rows: Vec<Vec<u32>> = ids.into_iter().zip(batch.attention_mask()).map(kept).collect();
    TextBatch::from_rows(&rows, 1, Padding::Left, &Device::Cpu).unwrap()
}

/// Reading part by part gives the scores of the whole at every place, with rows exchanged and copied on the way. `batch` is padded on
/// the left; `forward` gives `(b, t, v)`.
pub(super) fn check_steps<M: Autoregressive>(
    model: &M,
    batch: &TextBatch,
    forward: impl Fn(&TextBatch, &Context) -> Tensor,
) {
    let ctx = Context::eval();
    let (b, t) = batch.dims().unwrap();
    let whole = forward(batch, &ctx);
    let mut state = model.start(batch, &ctx).unwrap();
    let mut rows: Vec<u32> = (0..b as u32).collect();
    let first = t - 3;
    for (step, (start, n)) in
        [(0, first), (first, 1), (first + 1, 1), (first + 2, 1)].into_iter().enumerate()
    {
        let index = Tensor::new(rows.as_slice(), &Device::Cpu).unwrap();
        let part = |xs: &Tensor, start, n| {
            xs.index_select(&index, 0).unwrap().narrow(1, start, n).unwrap()
        };
        let mut fork = state.clone();
        let logits = model.step(&part(batch.input_ids(), start, n), &mut state, &ctx).unwrap();
        let expected = part(&whole, start + n - 1, 1).squeeze(1).unwrap();
        for (i, &row) in rows.iter().enumerate() {
            if batch.attention_mask()[row as usize][start + n - 1] == 1 {
                let at = |xs: &Tensor| xs.narrow(0, i, 1).unwrap();
                assert_close(
                    &format!("step {step}, row {row}"),
                    &at(&logits),
                    &at(&expected),
                    1e-5,
                    1e-5,
                );
            }
        }
        // What a clone reads does not reach the state it came from.
        let other = Tensor::ones((rows.len(), 1), DType::U32, &Device::Cpu).unwrap();
        model.step(&other, &mut fork, &ctx).unwrap();
        let sources: Vec<u32> = (0..rows.len() as u32).rev().chain([0]).collect();
        model.select(&mut state, &sources).unwrap();
        rows = sources.iter().map(|&i| rows[i as usize]).collect();
    }
}

/// An encoder-decoder against all that its fixture holds: scores, encoding, what is watched, gradients, padding, and step by step.
pub(crate) fn check_seq2seq<M: PretrainedModel + Autoregressive>(
    fixture: &Fixture,
    loaded: &Pretrained<M>,
    forward: impl Fn(&TextBatch, &TextBatch, &Context) -> Result<Tensor>,
    encode: impl Fn(&TextBatch, &Context) -> Result<Tensor>,
) {
    let (source, target) = (fixture.batch(), fixture.target());
    let ctx = Context::eval().watching();
    let logits = forward(&source, &target, &ctx).unwrap();
    assert_close("logits", &logits, fixture.get("logits"), 0., 1e-5);
    let (trace, eval) = (ctx.take_trace(), Context::eval());
    let names = [("attention", "encoder_attentions"), ("hidden_states", "encoder_hidden_states")];
    fixture.check_trace(&trace, &names, source.attention_mask());
    let names = [
        ("decoder_attention", "decoder_attentions"),
        ("cross_attention", "cross_attentions"),
        ("decoder_hidden_states", "decoder_hidden_states"),
    ];
    fixture.check_trace(&trace, &names, target.attention_mask());
    let encoded = encode(&source, &eval).unwrap();
    fixture.close_at_tokens("encoder_last_hidden_state", &encoded, 1, source.attention_mask());
    fixture.check_gradients(loaded, &fixture.loss(&logits));
    check_padding(&source, true, |source, ctx| encode(source, ctx).unwrap());
    check_targets(&source, &target, &logits, &forward);
    check_target_steps(&loaded.model, &source, &target, &logits);
    let frozen = loaded.inference_model(DType::F32, &Device::Cpu).unwrap();
    check_target_steps(&frozen, &source, &target, &logits);
}

/// Each row alone, its source without padding and its target with some, gives what it gives in the batch.
fn check_targets(
    source: &TextBatch,
    target: &TextBatch,
    logits: &Tensor,
    forward: &impl Fn(&TextBatch, &TextBatch, &Context) -> Result<Tensor>,
) {
    let rows = |batch: &TextBatch| batch.input_ids().to_vec2::<u32>().unwrap();
    for (i, ids) in rows(source).into_iter().enumerate() {
        let n = source.attention_mask()[i].iter().filter(|&&m| m == 1).count();
        let alone = TextBatch::from_rows(&[ids[..n].to_vec()], 0, Padding::Right, &Device::Cpu);
        let t = 1 + i % rows(target)[i].len();
        let mut mask = vec![0; rows(target)[i].len()];
        mask[..t].fill(1);
        let ids = target.select(&[i as u32]).unwrap().input_ids().clone();
        let cut = TextBatch::with_mask(ids, vec![mask]).unwrap();
        let found = forward(&alone.unwrap(), &cut, &Context::eval()).unwrap();
        let expected = logits.narrow(0, i, 1).unwrap().narrow(1, 0, t).unwrap();
        let found = found.narrow(1, 0, t).unwrap();
        assert_close(&format!("row {i} alone"), &found, &expected, 1e-5, 1e-5);
    }
}

/// Step by step, two tokens first, with rows exchanged and doubled in between, gives what the whole gives.
pub(crate) fn check_target_steps<M: Autoregressive>(
    model: &M,
    source: &TextBatch,
    target: &TextBatch,
    logits: &Tensor,
) {
    let ctx = Context::eval();
    let mut state = model.start(source, &ctx).unwrap();
    let (b, t) = target.dims().unwrap();
    let mut rows: Vec<u32> = (0..b as u32).collect();
    let mut from = 0;
    while from < t {
        let n = if from == 0 { 2 } else { 1 };
        let ids = target.select(&rows).unwrap().input_ids().narrow(1, from, n).unwrap();
        let found = model.step(&ids, &mut state, &ctx).unwrap();
        from += n;
        let index = Tensor::new(rows.as_slice(), &Device::Cpu).unwrap();
        let expected = logits.index_select(&index, 0).unwrap().narrow(1, from - 1, 1).unwrap();
        let expected = expected.squeeze(1).unwrap();
        assert_close(&format!("{from} steps"), &found, &expected, 1e-5, 2e-5);
        let order: Vec<u32> = match from {
            3 => vec![2, 0, 1, 1],
            4 => vec![0, 1, 3, 2],
            5 => vec![1, 2],
            _ => (0..rows.len() as u32).collect(),
        };
        model.select(&mut state, &order).unwrap();
        rows = order.iter().map(|&row| rows[row as usize]).collect();
    }
    assert!(model.select(&mut state, &[9]).is_err());
    let ids = Tensor::zeros((rows.len() + 1, 1), DType::U32, &Device::Cpu).unwrap();
    assert!(model.step(&ids, &mut state, &ctx).is_err());
}
