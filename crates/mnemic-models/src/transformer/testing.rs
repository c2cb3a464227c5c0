//! What the parity tests of all Transformers share.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{D, DType, Device, Tensor};
use mnemic_layers::losses::{CrossEntropy, cross_entropy};
use mnemic_layers::{Context, Trace};
use mnemic_testing::assert_close;

use crate::pretrained::{
    Pretrained, PretrainedModel, from_pretrained, load_tensors, save_pretrained,
};
use crate::text::TextBatch;

/// A folder of fixtures: config, weights, and what `transformers` computes.
pub(super) struct Fixture {
    pub(super) dir: PathBuf,
    pub(super) tensors: HashMap<String, Tensor>,
}

/// The fixture `name` below `hf`, unless there is no `MNEMIC_DATA`; then the test says that it is skipped.
pub(super) fn fixture(test: &str, name: &str) -> Option<Fixture> {
    let dir = mnemic_testing::shared_data(test, &format!("fixtures/hf/{name}"))?;
    let tensors = load_tensors(dir.join("fixture.safetensors"), &Device::Cpu).unwrap();
    Some(Fixture { dir, tensors })
}

impl Fixture {
    pub(super) fn load<M: PretrainedModel>(&self) -> Pretrained<M> {
        from_pretrained(&self.dir, DType::F32, &Device::Cpu).unwrap()
    }

    pub(super) fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Ids or labels as u32.
    pub(super) fn ids(&self, name: &str) -> Tensor {
        self.get(name).to_dtype(DType::U32).unwrap()
    }

    /// `input_ids` with `attention_mask` and `token_type_ids`, where there are some.
    pub(super) fn batch(&self) -> TextBatch {
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

    /// Compares where the mask of the queries is 1: the rest means nothing. `axis` is that of the queries, the batch is the first.
    pub(super) fn close_at_tokens(&self, name: &str, got: &Tensor, axis: usize, mask: &[Vec<u8>]) {
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
    pub(super) fn check_trace(&self, trace: &Trace, names: &[(&str, &str)], mask: &[Vec<u8>]) {
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
    pub(super) fn check_gradients<M: PretrainedModel>(
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
    pub(super) fn loss(&self, logits: &Tensor) -> Tensor {
        let all = load_tensors(self.dir.join("gradients.safetensors"), &Device::Cpu).unwrap();
        let labels = all["labels"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
        let logits = logits.reshape(((), logits.dim(D::Minus1).unwrap())).unwrap();
        cross_entropy(&logits, &labels, &CrossEntropy::default()).unwrap()
    }
}

/// Saving what was loaded gives the same files of tensors: same names, shapes and numbers.
pub(super) fn check_round_trip<M: PretrainedModel>(fixture: &Fixture) {
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
pub(super) fn check_padding(
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
