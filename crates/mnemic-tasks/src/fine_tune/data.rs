//! Texts with labels, in tokens.

use std::path::Path;

use mnemic_data::{LabelledText, Part, sst, trec, wnut17};
use mnemic_models::{Encoded, IGNORE, Tokenizer};
use serde::{Deserialize, Serialize};

use super::align::{first_pieces, join_words};
use super::recipe::{Head, TextDataConfig};
use crate::Result;
use crate::recipe::data_path;

/// A data set of labelled texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextDataset {
    /// Questions of six classes (Li and Roth 2002).
    Trec,
    /// Sentences of film reviews, positive or negative (Socher et al. 2013).
    Sst2,
    /// Emerging entities in user-written text (Derczynski et al. 2017).
    Wnut17,
}

impl TextDataset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trec, Self::Sst2, Self::Wnut17];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trec => "trec",
            Self::Sst2 => "sst2",
            Self::Wnut17 => "wnut17",
        }
    }

    /// The head that its labels are for.
    pub fn head(self) -> Head {
        match self {
            Self::Trec | Self::Sst2 => Head::SequenceClassification,
            Self::Wnut17 => Head::TokenClassification,
        }
    }

    /// The names of its labels, in order of their numbers.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Trec => &trec::LABELS,
            Self::Sst2 => &sst::BINARY,
            Self::Wnut17 => &wnut17::LABELS,
        }
    }

    /// Where its files lie below `MNEMIC_DATA/data`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Trec => "text-classification/trec",
            Self::Sst2 => "text-classification/sst",
            Self::Wnut17 => "ner/wnut17",
        }
    }

    /// A part of the set in `folder`, in tokens.
    ///
    /// # Errors
    /// When a file is missing or malformed, or a text cannot be encoded.
    pub fn read(self, folder: &Path, part: Part, tokenizer: &Tokenizer) -> Result<Vec<Labelled>> {
        match self {
            Self::Trec => texts(&trec::read(folder, part)?, tokenizer),
            Self::Sst2 => texts(&sst::read(folder, false, part)?, tokenizer),
            Self::Wnut17 => sentences(&wnut17::read(folder, part)?, tokenizer),
        }
    }
}

/// A text in tokens with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// The tokens.
    pub encoded: Encoded,
    /// The class of the text, or those of its words.
    pub labels: Vec<usize>,
    /// The place of each word's first piece, where words have labels; see [`first_pieces`].
    pub firsts: Vec<Option<usize>>,
}

impl Labelled {
    /// What is learnt: the class of the text, or for each token that of the word which it is the first piece of, and [`IGNORE`] for others.
    pub fn targets(&self, head: Head) -> Vec<i64> {
        let number = |&label: &usize| label as i64;
        if head == Head::SequenceClassification {
            return self.labels.iter().map(number).collect();
        }
        let mut targets = vec![IGNORE; self.encoded.ids.len()];
        for (first, label) in self.firsts.iter().zip(&self.labels) {
            if let Some(target) = first.and_then(|i| targets.get_mut(i)) {
                *target = number(label);
            }
        }
        targets
    }
}

/// Training, validation and test texts.
#[derive(Debug, Clone)]
pub struct TextData {
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// For training.
    pub train: Vec<Labelled>,
    /// For choosing the weights.
    pub valid: Vec<Labelled>,
    /// The official test.
    pub test: Vec<Labelled>,
}

impl TextData {
    /// Reads what a recipe names, from `path` or below `MNEMIC_DATA`.
    ///
    /// # Errors
    /// When a file is missing or malformed, or a text cannot be encoded.
    pub fn load(
        config: &TextDataConfig,
        path: Option<&Path>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let set = config.dataset;
        let folder = data_path(path, set.folder())?;
        let part = |part| set.read(&folder, part, tokenizer);
        let mut train = part(Part::Train)?;
        // A sentence with no word that the tokenizer knows teaches nothing, and has no loss.
        train.retain(|text| text.targets(set.head()).iter().any(|&target| target != IGNORE));
        Ok(Self { labels: set.labels(), train, valid: part(Part::Dev)?, test: part(Part::Test)? })
    }
}

fn texts(all: &[LabelledText], tokenizer: &Tokenizer) -> Result<Vec<Labelled>> {
    let rows = tokenizer.encode_rows(&all.iter().map(|t| t.text.as_str()).collect::<Vec<_>>())?;
    let labelled = |(encoded, text): (Encoded, &LabelledText)| Labelled {
        encoded,
        labels: vec![text.label],
        firsts: vec![],
    };
    Ok(rows.into_iter().zip(all).map(labelled).collect())
}

fn sentences(all: &[wnut17::TaggedSentence], tokenizer: &Tokenizer) -> Result<Vec<Labelled>> {
    let (joined, places): (Vec<_>, Vec<_>) = all.iter().map(|s| join_words(&s.words)).unzip();
    let rows = tokenizer.encode_rows(&joined.iter().map(String::as_str).collect::<Vec<_>>())?;
    let labelled = |((encoded, places), s): ((Encoded, Vec<_>), &wnut17::TaggedSentence)| {
        let firsts = first_pieces(&encoded, &places);
        Labelled { encoded, labels: s.tags.clone(), firsts }
    };
    Ok(rows.into_iter().zip(places).zip(all).map(labelled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_pieces_have_targets() {
        let text = Labelled {
            encoded: Encoded { ids: vec![0; 6], ..Encoded::default() },
            labels: vec![3, 0, 4, 7],
            firsts: vec![Some(1), Some(3), None, Some(4)],
        };
        let targets = text.targets(Head::TokenClassification);
        assert_eq!(targets, [IGNORE, 3, IGNORE, 0, 7, IGNORE]);
        let text = Labelled { labels: vec![5], ..text };
        assert_eq!(text.targets(Head::SequenceClassification), [5]);
    }

    #[test]
    fn names_are_those_of_recipes() {
        for set in TextDataset::ALL {
            let name = serde_json::to_string(&set).unwrap();
            assert_eq!(name, format!("{:?}", set.name()));
        }
    }
}
