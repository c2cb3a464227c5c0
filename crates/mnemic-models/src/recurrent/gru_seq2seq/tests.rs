use candle_core::{DType, Device};
use mnemic_testing::assert_close;

use super::*;
use crate::transformer::testing::{Fixture, check_padding, check_target_steps, real_fixture};
use crate::{Padding, ParamStore, Pretrained, save_pretrained};

fn rows(rows: &[Vec<u32>]) -> TextBatch {
    TextBatch::from_rows(rows, 0, Padding::Right, &Device::Cpu).unwrap()
}

/// The words of the fixture with the ids of their letters and what is written for them.
fn words(fixture: &Fixture) -> Vec<(&str, Vec<u32>, Vec<u32>)> {
    let ids = |name: &str| fixture.ids(name).flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let names = fixture.tensors.keys().filter_map(|name| name.strip_suffix(".input_ids"));
    let word = |name| (name, ids(&format!("{name}.input_ids")), ids(&format!("{name}.output_ids")));
    let mut words: Vec<_> = names.map(word).collect();
    words.sort();
    words
}

#[test]
fn pronunciations_as_the_trained_model_has_them() {
    let Some(fixture) = real_fixture("gru_seq2seq::pronunciations", "g2p-en", "g2p-en") else {
        return;
    };
    let loaded: Pretrained<GruSeq2Seq> = fixture.load();
    let (words, ctx) = (words(&fixture), Context::eval());
    assert_eq!(words.len(), 8);
    for (word, letters, phonemes) in &words {
        let spelt: Vec<String> = word.chars().map(String::from).collect();
        let ids = loaded.config.source_ids(spelt.iter().map(String::as_str)).unwrap();
        assert_eq!(ids, *letters, "{word}");
        let source = rows(std::slice::from_ref(letters));
        let encoded = loaded.model.encode(&source, &ctx).unwrap().output;
        assert_close(word, &encoded, fixture.get(&format!("{word}.encoder_output")), 0., 1e-4);
        let written: Vec<u32> =
            std::iter::once(loaded.config.start).chain(phonemes.clone()).collect();
        let logits = loaded.model.forward(&source, &rows(&[written]), &ctx).unwrap();
        let logits = logits.squeeze(0).unwrap();
        assert_close(word, &logits, fixture.get(&format!("{word}.logits")), 0., 1e-4);
    }

    let letters: Vec<_> = words.iter().take(3).map(|word| word.1.clone()).collect();
    let start = |ids: &[u32]| [2].iter().chain(ids).take(7).copied().collect::<Vec<u32>>();
    let phonemes: Vec<_> = words.iter().take(3).map(|word| start(&word.2)).collect();
    let (source, target) = (rows(&letters), rows(&phonemes));
    let encode =
        |source: &TextBatch, ctx: &Context| loaded.model.encode(source, ctx).unwrap().output;
    check_padding(&source, true, encode);
    let forward = |source: &TextBatch, ctx: &Context| {
        let first = rows(&vec![vec![2]; source.dims().unwrap().0]);
        loaded.model.forward(source, &first, ctx).unwrap()
    };
    check_padding(&source, false, forward);
    let logits = loaded.model.forward(&source, &target, &ctx).unwrap();
    check_target_steps(&loaded.model, &source, &target, &logits);

    let dir = tempfile::TempDir::new().unwrap();
    save_pretrained::<GruSeq2Seq>(dir.path(), &loaded.config, &loaded.store, &[]).unwrap();
    let again: Pretrained<GruSeq2Seq> =
        crate::from_pretrained(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(again.config.targets, loaded.config.targets);
    let again = again.model.forward(&source, &target, &Context::eval()).unwrap();
    assert_close("saved and read again", &again, &logits, 0., 0.);
}

fn small() -> Config {
    let tokens = |text: &str| text.split(' ').map(String::from).collect();
    Config::new(tokens("<pad> <unk> </s> a b"), tokens("<pad> <unk> <s> </s> A B"), 3)
}

#[test]
fn gradients_agree_with_finite_differences() {
    let config = Config { num_layers: 2, ..small() };
    let store = ParamStore::new(5);
    GruSeq2Seq::new(&config, store.builder(DType::F64, &Device::Cpu)).unwrap();
    let vars = store.vars();
    let inputs: Vec<(&str, Tensor)> =
        vars.iter().map(|(name, var)| (name.as_str(), var.as_detached_tensor())).collect();
    mnemic_testing::check_gradients(&inputs, 1e-6, |tensors| {
        let named = vars.iter().zip(tensors).map(|((name, _), t)| (name.clone(), t.clone()));
        let vb = VarBuilder::from_tensors(named.collect(), DType::F64, &Device::Cpu);
        let model = GruSeq2Seq::new(&config, vb).map_err(candle_core::Error::wrap)?;
        let (source, target) =
            (rows(&[vec![3, 4, 2], vec![4, 2]]), rows(&[vec![2, 4], vec![2, 5]]));
        model.forward(&source, &target, &Context::eval())?.tanh()?.sum_all()
    });
}

#[test]
fn what_makes_no_sense_is_named() {
    assert_eq!((small().start, small().end), (2, 3));
    assert_eq!(small().source_ids(["b", "?"]).unwrap(), [4, 1, 2]);
    assert_eq!(small().target_tokens(&[5, 4, 3, 4]), ["B", "A"]);
    let error = |config: Config| config.validate().unwrap_err().to_string();
    assert!(error(Config { end: 6, ..small() }).contains("end must be one of 6 target_tokens"));
    assert!(error(Config { num_layers: 0, ..small() }).contains("num_layers"));
    assert!(error(Config { sources: vec![], ..small() }).contains("source_tokens"));
    let store = ParamStore::new(0);
    let model = GruSeq2Seq::new(&small(), store.builder(DType::F32, &Device::Cpu)).unwrap();
    let left =
        TextBatch::from_rows(&[vec![3, 2], vec![2]], 0, Padding::Left, &Device::Cpu).unwrap();
    let error = model.encode(&left, &Context::eval()).unwrap_err().to_string();
    assert!(error.contains("padding on the right"), "{error}");
}
