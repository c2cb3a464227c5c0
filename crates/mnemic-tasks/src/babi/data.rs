//! The examples that a recipe asks for, as numbers.

use std::path::Path;

use mnemic_data::babi::{self, BabiSource, Example, Split, generate};
use mnemic_data::{Encoded, PadTo, Vocabulary};

use crate::recipe::{DataConfig, Source, data_path};
use crate::{Error, Result};

/// Training, validation and test examples with their vocabulary.
#[derive(Debug, Clone)]
pub struct BabiData {
    /// Words and answers of all three splits.
    pub vocabulary: Vocabulary,
    /// Training examples.
    pub train: Encoded,
    /// Validation examples: the last tenth of the training questions.
    pub valid: Encoded,
    /// Test examples. Nothing is chosen by them.
    pub test: Encoded,
    /// The test examples as words, in the order of `test`.
    pub test_examples: Vec<Example>,
    /// The widest sentence and question, to which every batch is padded.
    pub pad_to: PadTo,
}

/// Examples as words, by split.
struct Splits {
    train: Vec<Example>,
    valid: Vec<Example>,
    test: Vec<Example>,
}

impl BabiData {
    /// Reads or generates what `config` asks for. `path` is where official files lie (a folder or archive).
    ///
    /// # Errors
    /// When files are missing or malformed, naming them.
    pub fn load(config: &DataConfig, path: Option<&Path>) -> Result<Self> {
        Self::load_with(config, path, None)
    }

    /// [`BabiData::load`] in the ids of a vocabulary, that of a trained model.
    ///
    /// # Errors
    /// Also when a word is not in the vocabulary, naming it.
    pub fn load_with(
        config: &DataConfig,
        path: Option<&Path>,
        vocabulary: Option<&Vocabulary>,
    ) -> Result<Self> {
        let mut splits = match config.source {
            Source::Official => official(config, path)?,
            Source::Generated => generated(config)?,
        };
        if config.source == Source::Generated && config.official_test {
            let source = BabiSource::open(data_path(path, "babi")?)?;
            splits.test =
                babi::load_examples(&source, edition(config)?, &config.tasks, Split::Test)?;
        }
        Self::encode(splits, config.max_sentences, vocabulary)
    }

    fn encode(
        splits: Splits,
        max_sentences: Option<usize>,
        vocabulary: Option<&Vocabulary>,
    ) -> Result<Self> {
        let Splits { train, valid, test } = splits;
        let vocabulary = match vocabulary {
            Some(vocabulary) => vocabulary.clone(),
            None => Vocabulary::from_examples(train.iter().chain(&valid).chain(&test))?,
        };
        let encode = |examples: &[Example]| Encoded::new(examples, &vocabulary, max_sentences);
        let (train, valid) = (encode(&train)?, encode(&valid)?);
        let encoded_test = encode(&test)?;
        let pad_to = train.pad_to().max(valid.pad_to()).max(encoded_test.pad_to());
        Ok(Self { vocabulary, train, valid, test: encoded_test, test_examples: test, pad_to })
    }
}

fn edition(config: &DataConfig) -> Result<babi::Edition> {
    config.edition.ok_or_else(|| Error::request("data.edition is missing"))
}

fn official(config: &DataConfig, path: Option<&Path>) -> Result<Splits> {
    let source = BabiSource::open(data_path(path, "babi")?)?;
    let edition = edition(config)?;
    let load = |split| babi::load_examples(&source, edition, &config.tasks, split);
    Ok(Splits { train: load(Split::Train)?, valid: load(Split::Valid)?, test: load(Split::Test)? })
}

fn generated(config: &DataConfig) -> Result<Splits> {
    let mut splits = Splits { train: Vec::new(), valid: Vec::new(), test: Vec::new() };
    for &task in &config.tasks {
        let (train, test) = generate::generate_split(
            task,
            config.train_questions,
            config.test_questions,
            config.seed,
        )?;
        let mut train = babi::examples(task, &train);
        let valid = train.split_off(train.len() - train.len() / 10);
        splits.train.extend(train);
        splits.valid.extend(valid);
        splits.test.extend(babi::examples(task, &test));
    }
    Ok(splits)
}
