//! A tiny BERT with random weights is fine-tuned on generated files in the official formats.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_tasks::babi::{RunOptions, read_csv};
use mnemic_tasks::engine::{EpochRecord, Interrupt, Observer, StepInfo};
use mnemic_tasks::fine_tune::{
    FineTuneRecipe, FineTuneResult, FineTuneRow, Head, TextData, fine_tune, is_fine_tune,
};
use mnemic_tasks::models::transformer::{bert, distilbert};
use mnemic_tasks::models::{
    Context, IGNORE, Padding, ParamStore, Pretrained, PretrainedModel, Tokenizer, from_pretrained,
    save_pretrained,
};

const WORDS: &str = "[PAD] [UNK] [CLS] [SEP] [MASK] who where when what is the ? met in paris \
                     berlin london ali ##ce bo ##b carol a dog sun book on mon ##day";

/// A folder with a base model, a tokenizer and data.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let words = WORDS.split_whitespace().count();
        let config = bert::Config {
            vocab_size: words,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 16,
            ..bert::Config::base()
        };
        let store = ParamStore::new(3);
        bert::BertModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
        save_pretrained::<bert::BertModel>(place.path("bert"), &config, &store, &[]).unwrap();
        place.tokenizer("bert");
        fs::create_dir(place.path("data")).unwrap();
        place.write_trec();
        place.write_wnut();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tokenizer(&self, model: &str) {
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        fs::write(self.path(model).join("vocab.txt"), words.join("\n")).unwrap();
        let config = r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#;
        fs::write(self.path(model).join("tokenizer_config.json"), config).unwrap();
    }

    /// Questions whose first word says the class.
    fn write_trec(&self) {
        let nouns = ["paris", "alice", "a dog", "the sun", "the book", "bob", "monday"];
        let kinds = [("HUM", "Who"), ("LOC", "Where"), ("NUM", "When"), ("ENTY", "What")];
        let line = |i: usize| {
            let (class, word) = kinds[i % 4];
            format!("{class}:x {word} is {} ?\n", nouns[i * 5 % 7])
        };
        let lines = |n: usize| (0..n).map(line).collect::<String>();
        fs::write(self.path("data").join("TREC.train"), lines(160)).unwrap();
        fs::write(self.path("data").join("TREC.test"), lines(20)).unwrap();
    }

    /// Persons and places, with words of several pieces.
    fn write_wnut(&self) {
        let (names, places) = (["Alice", "Bob", "Carol"], ["Paris", "Berlin", "London"]);
        let sentence = |i: usize| {
            let (name, place) = (names[i % 3], places[i / 3 % 3]);
            format!(
                "{name}\tB-person\nBob\tI-person\nmet\tO\na\tO\ndog\tO\nin\tO\n{place}\tB-location\n\n"
            )
        };
        let lines = |n: usize| (0..n).map(sentence).collect::<String>();
        let files =
            [("wnut17train.conll", 96), ("emerging.dev.conll", 9), ("emerging.test.annotated", 12)];
        for (file, n) in files {
            fs::write(self.path("data").join(file), lines(n)).unwrap();
        }
    }

    fn recipe(&self, dataset: &str, head: &str, changes: &[&str]) -> FineTuneRecipe {
        let text = format!(
            "name = 'tiny'\n[model]\nfrom = '{}'\nhead = '{head}'\n[data]\ndataset = '{dataset}'\nmax_length = 12\n\
             [batches]\nsize = 8\n[train]\nseed = 1\nepochs = 4\ntensorboard = false\nclip = {{ global_norm = 1.0 }}\n\
             optimizer = {{ name = 'adamw', lr = 0.01, weight_decay = 0.01, decay = 'matrices' }}\n\
             schedule = {{ name = 'linear', warmup = 5, total = 100 }}\n",
            self.path("bert").display()
        );
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        FineTuneRecipe::parse(&text, "a test", &changes).unwrap()
    }

    fn options(&self, run: &str) -> RunOptions {
        RunOptions {
            run_dir: self.path(run),
            data: Some(self.path("data")),
            command: "mnemic train tiny.toml".into(),
            ..RunOptions::default()
        }
    }

    fn train(&self, recipe: &FineTuneRecipe, run: &str) -> FineTuneResult {
        fine_tune(recipe, &self.options(run), &mut ()).unwrap()
    }

    fn refused(&self, recipe: &FineTuneRecipe) -> String {
        fine_tune(recipe, &self.options("refused"), &mut ()).unwrap_err().to_string()
    }
}

/// Keeps the training losses of the epochs, and asks to stop after a step.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop: Option<(u64, Interrupt)>,
}

impl Observer for Watch {
    fn on_step(&mut self, info: &StepInfo<'_>) {
        if let Some((step, interrupt)) = &self.stop
            && info.step == *step
        {
            interrupt.request();
        }
    }

    fn on_epoch(&mut self, record: &EpochRecord) {
        self.losses.push(record.train_loss);
    }
}

const SEQUENCE: &str = "sequence-classification";
const TOKENS: &str = "token-classification";

#[test]
fn a_text_classifier_learns_and_is_loaded_again() {
    let place = Place::new();
    let recipe = place.recipe("trec", SEQUENCE, &["reference.accuracy=97.0"]);
    let mut watch = Watch::default();
    let result = fine_tune(&recipe, &place.options("run"), &mut watch).unwrap();
    let (first, last) = (watch.losses[0], *watch.losses.last().unwrap());
    assert!(last < first / 2., "{:?}", watch.losses);
    let test = result.test.as_ref().unwrap();
    assert_eq!((test.texts, test.reference["accuracy"]), (20, 97.));
    assert!(test.percent["accuracy"] > 80., "{test:?}");
    assert!(result.validation.get("accuracy").unwrap() > 0.8, "{result:?}");

    // What a classifier is loaded from is all there, and gives what was trained.
    let folder = place.path("run/model");
    let loaded: Pretrained<bert::BertForSequenceClassification> =
        from_pretrained(&folder, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(loaded.config.labels(), ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]);
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let batch =
        tokenizer.encode_batch(&["Where is Alice ?", "Who is a dog ?"], &Device::Cpu).unwrap();
    let logits = loaded.model.forward(&batch, &Context::eval()).unwrap();
    assert_eq!(logits.argmax(1).unwrap().to_vec1::<u32>().unwrap(), [4, 3]);
    let card = loaded.read_file("README.md").unwrap();
    assert!(card.contains("| accuracy |") && card.contains("| 97.0 |"), "{card}");
    let rows: Vec<FineTuneRow> = read_csv(&place.path("run/results.csv")).unwrap();
    assert_eq!((rows[0].dataset.as_str(), rows[0].seed, rows[0].reference), ("trec", 1, Some(97.)));
    assert_eq!((rows[0].f1, rows[0].command.as_str()), (None, "mnemic train tiny.toml"));

    // A run that is done is not repeated; another recipe is kept out of its folder.
    assert_eq!(place.train(&recipe, "run"), result);
    let other = place.recipe("trec", SEQUENCE, &["data.max_length=9"]);
    let error = fine_tune(&other, &place.options("run"), &mut ()).unwrap_err().to_string();
    assert!(error.contains("holds a run of another recipe (tiny)"), "{error}");
}

#[test]
fn a_tagger_learns_entities() {
    let place = Place::new();
    let result = place.train(&place.recipe("wnut17", TOKENS, &["train.epochs=6"]), "run");
    let test = result.test.unwrap();
    assert_eq!(test.percent.keys().collect::<Vec<_>>(), ["f1", "precision", "recall"]);
    assert!(test.percent["f1"] > 90., "{test:?}");
    let loaded: Pretrained<bert::BertForTokenClassification> =
        from_pretrained(place.path("run/model"), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(loaded.config.labels()[7], "B-location");
    assert!(loaded.store.get("bert.pooler.dense.weight").is_none());
}

#[test]
fn words_that_are_cut_off_are_missed_entities() {
    let place = Place::new();
    let changes = ["train.epochs=6", "data.max_length=9"];
    let result = place.train(&place.recipe("wnut17", TOKENS, &changes), "run");
    let test = result.test.unwrap();
    // The place at the end is beyond the ninth token, one entity of two.
    assert!(test.percent["recall"] <= 50. && test.percent["precision"] > 90., "{test:?}");
}

#[test]
fn the_first_piece_of_a_word_bears_its_label() {
    let place = Place::new();
    let recipe = place.recipe("wnut17", TOKENS, &[]);
    let tokenizer =
        Tokenizer::from_folder(place.path("bert")).unwrap().with_max_length(12).unwrap();
    let data = TextData::load(&recipe.data, Some(&place.path("data")), &tokenizer).unwrap();
    let text = &data.train[0];
    let tokens = "[CLS] ali ##ce bo ##b met a dog in paris [SEP]";
    assert_eq!(text.encoded.tokens.join(" "), tokens);
    const X: i64 = IGNORE;
    assert_eq!(X, -100);
    assert_eq!(text.targets(Head::TokenClassification), [X, 9, X, 10, X, 0, 0, 0, 0, 7, X]);
    assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (96, 9, 12));
}

#[test]
fn a_run_that_was_stopped_ends_with_the_same_bits() {
    let place = Place::new();
    for (dataset, head) in [("trec", SEQUENCE), ("wnut17", TOKENS)] {
        let recipe = place.recipe(dataset, head, &["train.epochs=2"]);
        let whole = place.train(&recipe, &format!("whole-{dataset}"));
        let stopped = format!("stopped-{dataset}");
        // Within the first epoch, and within the second.
        for step in [7, 20] {
            let options = place.options(&stopped);
            let stop = Some((step, options.interrupt.clone()));
            let mut watch = Watch { stop, ..Watch::default() };
            let result = fine_tune(&recipe, &options, &mut watch).unwrap();
            assert!(result.interrupted && result.test.is_none(), "{dataset}, step {step}");
            assert!(!place.path(&stopped).join("model").exists());
        }
        let resumed = place.train(&recipe, &stopped);
        assert_eq!((&resumed.test, &resumed.validation), (&whole.test, &whole.validation));
        let weights =
            |run: &str| fs::read(place.path(run).join("model/model.safetensors")).unwrap();
        assert!(weights(&stopped) == weights(&format!("whole-{dataset}")), "{dataset}");
    }
}

#[test]
fn distilbert_is_fine_tuned_as_well() {
    let place = Place::new();
    let keys = serde_json::json!({
        "model_type": "distilbert", "vocab_size": WORDS.split_whitespace().count(), "dim": 16, "n_layers": 1,
        "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 16, "activation": "gelu", "dropout": 0.1,
        "attention_dropout": 0.1, "seq_classif_dropout": 0.2, "initializer_range": 0.02,
        "sinusoidal_pos_embds": false
    });
    let serde_json::Value::Object(keys) = keys else { return };
    let config = distilbert::DistilBertModel::read_config(keys).unwrap();
    let store = ParamStore::new(1);
    distilbert::DistilBertModel::new(&config, store.builder(DType::F32, &Device::Cpu)).unwrap();
    let folder = place.path("distilbert");
    save_pretrained::<distilbert::DistilBertModel>(&folder, &config, &store, &[]).unwrap();
    place.tokenizer("distilbert");
    let from = format!("model.from={}", folder.display());
    for (dataset, head) in [("trec", SEQUENCE), ("wnut17", TOKENS)] {
        let result = place.train(&place.recipe(dataset, head, &[&from, "train.epochs=1"]), dataset);
        assert!(result.validation.loss.is_finite() && result.test.is_some());
    }
}

#[test]
fn what_is_wrong_with_a_recipe_is_named() {
    let place = Place::new();
    let text = place.recipe("trec", SEQUENCE, &[]).to_toml().unwrap();
    let parse = |changes: &[&str]| {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        FineTuneRecipe::parse(&text, "x.toml", &changes).unwrap_err().to_string()
    };
    let cases = [
        ("data.max_len=3", "max_len"),
        ("batches.bucket=3", "bucket"),
        ("model.head=regression", "sequence-classification"),
        ("data.dataset=imdb", "unknown variant `imdb`"),
        ("data.dataset=wnut17", "has labels for \"token-classification\""),
        ("batches.size=0", "batches.size = 0"),
        ("reference.f1=40", "reference.f1: expected one of accuracy"),
        ("name=a/b", "plain folder name"),
        ("model.from=''", "model.from is empty"),
        ("train.schedule.name=triangle", "triangle"),
    ];
    for (change, expected) in cases {
        let error = parse(&[change]);
        assert!(error.contains("x.toml") && error.contains(expected), "{change}: {error}");
    }
    let kind = |text: &str| {
        let path = place.path("kind.toml");
        fs::write(&path, text).unwrap();
        is_fine_tune(&path).map_err(|e| e.to_string())
    };
    assert_eq!(kind(&text), Ok(true));
    assert_eq!((kind("[data]\ndataset = 'babi'"), kind("x = 1")), (Ok(false), Ok(false)));
    let error = kind("[data]\ndataset = 'imdb'").unwrap_err();
    assert!(
        error.contains("kind.toml") && error.contains("or one of trec, sst2, wnut17"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    let set = |changes: &[&str]| place.recipe("trec", SEQUENCE, changes);
    let error = place.refused(&set(&["model.from=no-such-folder"]));
    assert!(error.contains("model.from") && error.contains("no-such-folder"), "{error}");
    let error = place.refused(&set(&["data.max_length=2"]));
    assert!(error.contains("max_length must be above the"), "{error}");
    // A text that is longer than the model's positions.
    let long = format!("LOC:x where is {}\n", "the ".repeat(30)).repeat(20);
    fs::write(place.path("data").join("TREC.train"), long).unwrap();
    let error = place.refused(&set(&["data.max_length=32"]));
    assert!(error.contains("16 positions"), "{error}");
    assert!(!place.path("refused/result.json").exists());

    fs::remove_file(place.path("data").join("TREC.test")).unwrap();
    assert!(place.refused(&set(&[])).contains("TREC.test"));
    let config = place.path("bert").join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"bert\"", "\"gpt2\"")).unwrap();
    let error = place.refused(&set(&[]));
    assert!(error.contains("\"gpt2\"") && error.contains("bert, roberta or distilbert"), "{error}");
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let error = place.refused(&set(&[&format!("model.from={}", empty.display())]));
    assert!(error.contains("config.json"), "{error}");
    fs::remove_file(place.path("bert").join("vocab.txt")).unwrap();
    fs::write(&config, text).unwrap();
    assert!(place.refused(&set(&[])).contains("expected a tokenizer"));
}

/// The padding side of the file would put the class token elsewhere.
#[test]
fn rows_are_padded_on_the_right() {
    let place = Place::new();
    let config = r#"{"tokenizer_class": "BertTokenizer", "padding_side": "left"}"#;
    fs::write(place.path("bert").join("tokenizer_config.json"), config).unwrap();
    let left = place.train(&place.recipe("wnut17", TOKENS, &["train.epochs=1"]), "left");
    place.tokenizer("bert");
    let right = place.train(&place.recipe("wnut17", TOKENS, &["train.epochs=1"]), "right");
    assert_eq!(left.test, right.test);
    assert_eq!(Padding::default(), Padding::Right);
    let path: &Path = &place.path("left/model/tokenizer_config.json");
    assert!(fs::read_to_string(path).unwrap().contains("left"), "files are copied as they are");
}
