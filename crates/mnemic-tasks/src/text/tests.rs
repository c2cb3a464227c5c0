#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, IndexOp, Tensor};
use mnemic_models::Encoded;
use mnemic_testing::shared_data;

use super::classify::entities_of;
use super::*;
use crate::Place;

/// A fixture's folder with a vocabulary in which the ids of one row of its inputs are a text.
struct Row {
    folder: tempfile::TempDir,
    tensors: HashMap<String, Tensor>,
    ids: Vec<u32>,
}

impl Row {
    /// The row's first and last ids become `[CLS]` and `[SEP]`, the one at `masked` `[MASK]`; ids of `special` are `[PAD]` and `[UNK]`.
    fn new(dir: &Path, row: usize, masked: Option<usize>, special: [usize; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(dir.join(name), folder.path().join(name)).unwrap();
        }
        let file = dir.join("fixture.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let of_row = |name: &str| {
            let row = tensors[name].i(row).unwrap().to_dtype(DType::U32).unwrap();
            row.to_vec1::<u32>().unwrap()
        };
        let n = of_row("attention_mask").iter().filter(|&&m| m != 0).count();
        let ids = of_row("input_ids")[..n].to_vec();
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let mut vocabulary: Vec<String> =
            (0..config["vocab_size"].as_u64().unwrap()).map(|i| format!("w{i}")).collect();
        let mut name = |id: usize, token: &str| vocabulary[id] = token.to_string();
        name(special[0], "[PAD]");
        name(special[1], "[UNK]");
        name(ids[0] as usize, "[CLS]");
        name(ids[n - 1] as usize, "[SEP]");
        if let Some(masked) = masked {
            name(ids[masked] as usize, "[MASK]");
        }
        std::fs::write(folder.path().join("vocab.txt"), vocabulary.join("\n")).unwrap();
        Self { folder, tensors, ids }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// The row as text: `<mask>` at `masked`.
    fn text(&self, masked: Option<usize>) -> String {
        let word = |(i, id): (usize, &u32)| match masked == Some(i) {
            true => "<mask>".to_string(),
            false => format!("w{id}"),
        };
        let inner = self.ids.iter().enumerate().skip(1).take(self.ids.len() - 2);
        inner.map(word).collect::<Vec<_>>().join(" ")
    }
}

/// `softmax` in f64.
fn probabilities(logits: &[f32]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

#[test]
fn hidden_tokens_are_those_of_the_fixtures_logits() {
    let Some(dir) = shared_data("text::hidden_tokens", "fixtures/hf") else { return };
    let at = 4;
    let row = Row::new(&dir.join("roberta-mlm"), 0, Some(at), [1, 3]);
    let model = FillMask::open(row.path(), Place::Cpu).unwrap().with_batch(2);
    assert_eq!(model.mask_token(), "[MASK]");
    let text = row.text(Some(at));
    let others = ["w5 [MASK]", "[MASK] w6 w7 [MASK]", &text];
    let filled = model.fill(&others, 5).unwrap();
    assert_eq!(filled.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1]);
    let logits = row.tensors["logits"].i((0, at)).unwrap().to_vec1::<f32>().unwrap();
    let want = probabilities(&logits);
    let mut order: Vec<usize> = (0..want.len()).collect();
    order.sort_by(|&a, &b| want[b].total_cmp(&want[a]));
    assert_eq!(filled[2][0].len(), 5);
    for (got, &id) in filled[2][0].iter().zip(&order) {
        assert_eq!(got.id as usize, id);
        assert!((f64::from(got.probability) - want[id]).abs() < 1e-5, "{got:?}");
        assert!(got.token == format!("w{id}") && got.text == got.token, "{got:?}");
    }
    let error = model.fill(&["w5 w6"], 1).unwrap_err().to_string();
    assert!(error.contains("`w5 w6`: expected [MASK]"), "{error}");
    // Far beyond the positions that there are.
    let error = model.fill(&[&format!("{} [MASK]", "w5 ".repeat(60))], 1).unwrap_err().to_string();
    assert!(error.contains("within 40 tokens"), "{error}");
}

#[test]
fn labels_have_the_probabilities_of_the_fixtures_logits() {
    let Some(dir) = shared_data("text::labels_have", "fixtures/hf") else { return };
    let name = dir.join("distilbert-classifier");
    let row = Row::new(&name, 2, None, [0, 3]);
    let model = TextClassifier::open(row.path(), Place::Cpu).unwrap().with_batch(1);
    let text = row.text(None);
    let found = model.classify(&["w5 w6 w7 w8 w9 w10 w11 w12", &text]).unwrap();
    let logits = row.tensors["logits"].i(2).unwrap().to_vec1::<f32>().unwrap();
    let want = probabilities(&logits);
    let Classified::Labels(labels) = &found[1] else { panic!("{found:?}") };
    assert_eq!(labels.len(), 3);
    assert!(labels.is_sorted_by(|a, b| a.score >= b.score));
    for LabelScore { label, score } in labels {
        let id: usize = label.strip_prefix("LABEL_").unwrap().parse().unwrap();
        assert!((f64::from(*score) - want[id]).abs() < 1e-5, "{label} {score} {want:?}");
    }
    // Where a text may have several labels, each has a probability of its own.
    let config = std::fs::read_to_string(row.path().join("config.json")).unwrap();
    let config = config.replacen('{', "{\"problem_type\": \"multi_label_classification\",", 1);
    std::fs::write(row.path().join("config.json"), config).unwrap();
    let model = TextClassifier::open(row.path(), Place::Cpu).unwrap();
    let Classified::Labels(labels) = &model.classify(&[&text]).unwrap()[0] else { panic!() };
    for LabelScore { label, score } in labels {
        let id: usize = label.strip_prefix("LABEL_").unwrap().parse().unwrap();
        let want = 1. / (1. + (-logits[id]).exp());
        assert!((score - want).abs() < 1e-5, "{label} {score} {want}");
    }
    let error = TextClassifier::open(dir.join("gpt2-lm"), Place::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("a classifier of texts") && error.contains("GPT2LMHeadModel"),
        "{error}"
    );
}

/// The tokens of a text by their bytes, with one added token on either side.
fn encoded(offsets: &[(usize, usize)]) -> Encoded {
    let all = [&[(0, 0)], offsets, &[(0, 0)]].concat();
    let added = |&(start, end): &(usize, usize)| (start < end).then_some(0);
    Encoded { texts: all.iter().map(added).collect(), offsets: all, ..Encoded::default() }
}

#[test]
fn entities_are_joined_and_counted_in_characters() {
    let text = "\u{c9}mile met (Ada Lovelace) in K\u{f6}ln.";
    let starts = |word: &str| {
        let start = text.find(word).unwrap();
        (start, start + word.len())
    };
    let (love, lace) = (starts("Love"), starts("lace"));
    let pieces = encoded(&[
        starts("\u{c9}mile"),
        starts("met"),
        starts("("),
        starts("Ada"),
        love,
        lace,
        starts(")"),
        starts("in"),
        starts("K\u{f6}ln"),
        starts("."),
    ]);
    let labels = ["O", "B-PER", "I-PER", "B-LOC"].map(String::from);
    let said = |tag: usize, p: f32| {
        let mut row = vec![(1. - p) / 3.; 4];
        row[tag] = p;
        row
    };
    let tags = [0, 1, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0];
    let scores: Vec<_> = tags
        .iter()
        .enumerate()
        .map(|(i, &tag)| said(tag, if i == 5 { 0.6 } else { 0.8 }))
        .collect();
    let found = entities_of(text, &pieces, &scores, &labels);
    let shown: Vec<_> =
        found.iter().map(|e| (e.label.as_str(), e.start, e.end, e.text.as_str())).collect();
    let expected = [
        ("PER", 0, 5, "\u{c9}mile"),
        ("PER", 11, 23, "Ada Lovelace"),
        ("LOC", 28, 32, "K\u{f6}ln"),
    ];
    assert_eq!(shown, expected);
    assert!((found[0].score - 0.8).abs() < 1e-6 && (found[1].score - 0.7).abs() < 1e-6);
    // Labels without B- and I- are those of single words.
    let plain = ["O", "NAME", "MORE", "PLACE"].map(String::from);
    let found = entities_of(text, &pieces, &scores, &plain);
    let shown: Vec<_> = found.iter().map(|e| (e.label.as_str(), e.text.as_str())).collect();
    let expected =
        [("NAME", "\u{c9}mile"), ("NAME", "Ada"), ("MORE", "Lovelace"), ("PLACE", "K\u{f6}ln")];
    assert_eq!(shown, expected);
    assert_eq!(entities_of("", &encoded(&[]), &[], &labels), []);
}

#[test]
fn attention_is_that_of_the_fixture() {
    let Some(dir) = shared_data("text::attention_is", "fixtures/hf") else { return };
    let row = Row::new(&dir.join("roberta-mlm"), 2, None, [1, 3]);
    let found = attention(&row.path(), &row.text(None), Place::Cpu).unwrap();
    assert_eq!((found.architecture.as_str(), found.maps.len()), ("roberta", 1));
    let n = row.ids.len();
    assert_eq!(found.tokens.len(), n);
    assert_eq!((found.tokens[0].as_str(), found.tokens[1].as_str()), ("[CLS]", "w92"));
    let maps = &found.maps[0];
    assert_eq!((maps.layers.len(), maps.layers[0].heads.len()), (2, 4));
    for (i, layer) in maps.layers.iter().enumerate() {
        let want = &row.tensors[&format!("attentions.{i}")];
        for (h, head) in layer.heads.iter().enumerate() {
            let want = want.i((2, h, ..n, ..n)).unwrap().flatten_all().unwrap();
            for (got, want) in head.iter().zip(want.to_vec1::<f32>().unwrap()) {
                assert!((got - want).abs() < 1e-5, "layer {i} head {h}: {got} {want}");
            }
        }
    }
    let error = attention(&dir.join("vit-classifier"), "a", Place::Cpu).unwrap_err().to_string();
    assert!(error.contains("an encoder") && error.contains("ViTFor"), "{error}");
}

/// Sentences and tensors of a real model's fixture.
fn real(name: &str) -> Option<(Vec<String>, HashMap<String, Tensor>)> {
    let dir = shared_data(&format!("text::{name}"), "fixtures/real")?.join(name);
    let text = std::fs::read_to_string(dir.join("sentences.json")).unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let texts = all.iter().map(|s| s["text"].as_str().unwrap().to_string()).collect();
    let file = dir.join("fixture.safetensors");
    Some((texts, candle_core::safetensors::load(file, &Device::Cpu).unwrap()))
}

fn close(got: &[Vec<f32>], want: &Tensor) {
    let want = want.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!((got.len(), got[0].len()), (want.len(), want[0].len()));
    for (g, w) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!((g - w).abs() < 1e-4, "{g} {w}");
    }
}

fn embeds_as_its_fixture(name: &str, model: &Path) {
    let Some((texts, tensors)) = real(name) else { return };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let model = Embedder::open(model, Place::Cpu).unwrap();
    let vectors = model.embed(&texts).unwrap();
    close(&vectors, &tensors["embeddings"]);
    close(&cosines(&vectors, &vectors).unwrap(), &tensors["cosine"]);
    let model = model.with_batch(3);
    close(&model.embed(&texts).unwrap(), &tensors["embeddings"]);
    let near = nearest(&vectors[0], &vectors, 2).unwrap();
    assert_eq!((near.len(), near[0].index), (2, 0));
    assert!((near[0].score - 1.).abs() < 1e-5 && near[1].score < 1.);
    assert!(model.embed(&[]).unwrap_err().to_string().contains("at least one text"));
}

#[test]
fn sentences_are_embedded_as_in_the_fixture() {
    let Some(dir) = std::env::var_os("MNEMIC_MINILM") else {
        println!("skipped: text::sentences_are_embedded: MNEMIC_MINILM is not set");
        return;
    };
    embeds_as_its_fixture("all-minilm-l6-v2", Path::new(&dir));
}

#[test]
fn static_vectors_are_those_of_the_fixture() {
    let Some(dir) = shared_data("text::static_vectors", "weights/model2vec") else { return };
    embeds_as_its_fixture("model2vec", &dir);
}

#[test]
fn vectors_of_two_widths_are_refused() {
    let error = cosines(&[vec![1.]], &[vec![1., 2.]]).unwrap_err().to_string();
    assert!(error.contains("width 1, got one of 2"), "{error}");
    assert_eq!(cosines(&[], &[]).unwrap(), Vec::<Vec<f32>>::new());
    // The first among equals comes first.
    let near = nearest(&[1., 0.], &[vec![0., 1.], vec![2., 0.], vec![1., 0.]], 9).unwrap();
    assert_eq!(near.iter().map(|n| n.index).collect::<Vec<_>>(), [1, 2, 0]);
}
