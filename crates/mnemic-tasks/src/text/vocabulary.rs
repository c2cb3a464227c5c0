//! Text to ids and back, with a tokenizer or with the vocabularies that a model's config holds.

use std::path::Path;

use mnemic_models::transformer::auto::AutoSeq2SeqLmConfig;
use mnemic_models::{DecodeStream, Tokenizer};

use super::attention::token_name;
use crate::{Error, Result};

/// What a writing model reads and writes with.
#[derive(Debug)]
pub(super) enum Vocabulary {
    /// A tokenizer for what is read, and one for what is written.
    Tokenizers(Box<(Tokenizer, Tokenizer)>),
    /// The vocabularies in the model's config.
    Own(OwnTokens),
}

/// Vocabularies of whole tokens: letters, or phonemes.
#[derive(Debug)]
pub(super) struct OwnTokens {
    config: Box<AutoSeq2SeqLmConfig>,
    /// What stands between the tokens of what is written.
    joint: &'static str,
}

impl Vocabulary {
    /// The tokenizers of a folder.
    pub(super) fn tokenizers(folder: &Path) -> Result<Self> {
        let both = (Tokenizer::from_folder(folder)?, Tokenizer::target_from_folder(folder)?);
        Ok(Self::Tokenizers(Box::new(both)))
    }

    /// The vocabularies of a config, where it has some.
    pub(super) fn own(config: &AutoSeq2SeqLmConfig) -> Option<Self> {
        let own = config.own_vocabulary()?;
        // Letters make words, longer tokens are words; what stands in angle brackets is neither.
        let words =
            own.targets.iter().any(|token| !in_brackets(token) && token.chars().count() > 1);
        let joint = if words { " " } else { "" };
        Some(Self::Own(OwnTokens { config: Box::new(config.clone()), joint }))
    }

    /// The ids of a text, with the special tokens that the model expects.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Tokenizers(both) => Ok(both.0.encode(text)?.ids),
            Self::Own(own) => own.encode(text),
        }
    }

    /// The tokens of ids as a reader knows them: of what is read, or of what is written.
    pub(super) fn names(&self, ids: &[u32], written: bool) -> Vec<String> {
        let name = |&id: &u32| {
            let token = match self {
                Self::Tokenizers(both) => both.1.token(id),
                Self::Own(own) => own.config.own_vocabulary().and_then(|own| {
                    let tokens = if written { own.targets } else { own.sources };
                    tokens.get(usize::try_from(id).ok()?).cloned()
                }),
            };
            token.map_or_else(|| format!("#{id}"), |token| token_name(&token))
        };
        ids.iter().map(name).collect()
    }

    /// What fills up short rows.
    pub(super) fn pad_id(&self) -> u32 {
        match self {
            Self::Tokenizers(both) => both.0.pad_id(),
            Self::Own(_) => 0,
        }
    }

    /// Text from ids that come one after the other, after those of a prompt.
    pub(super) fn stream(&self, prompt: &[u32]) -> Result<Stream<'_>> {
        match self {
            Self::Tokenizers(both) => {
                let mut stream = both.1.decode_stream(true);
                for &id in prompt {
                    stream.step(id)?;
                }
                Ok(Stream::Tokens(Box::new(stream)))
            }
            Self::Own(own) => Ok(Stream::Own { own, any: false }),
        }
    }
}

/// Text from ids that come one after the other.
pub(super) enum Stream<'a> {
    Tokens(Box<DecodeStream<'a>>),
    Own {
        own: &'a OwnTokens,
        any: bool,
    },
    /// Nothing more comes.
    Done,
}

impl Stream<'_> {
    /// The text that the id completes.
    pub(super) fn step(&mut self, id: u32) -> Result<String> {
        match self {
            Self::Tokens(stream) => Ok(stream.step(id)?),
            Self::Done => Ok(String::new()),
            Self::Own { own, any } => {
                let Some(token) = own.token(id) else { return Ok(String::new()) };
                let joint = if std::mem::replace(any, true) { own.joint } else { "" };
                Ok(format!("{joint}{token}"))
            }
        }
    }

    /// What is left at the end.
    pub(super) fn finish(self) -> Result<String> {
        match self {
            Self::Tokens(stream) => Ok(stream.finish()?),
            Self::Own { .. } | Self::Done => Ok(String::new()),
        }
    }
}

impl OwnTokens {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let Some(own) = self.config.own_vocabulary() else { return Ok(vec![]) };
        let known = |token: &str| own.sources.iter().any(|source| source == token);
        let letters: Vec<String> = text
            .trim()
            .chars()
            .map(|letter| {
                let (letter, small) = (letter.to_string(), letter.to_lowercase().to_string());
                if !known(&letter) && known(&small) { small } else { letter }
            })
            .collect();
        if letters.is_empty() {
            return Err(Error::request("expected a text with at least one letter"));
        }
        Ok(own.source_ids(letters.iter().map(String::as_str))?)
    }

    /// The token of an id, unless it is a special one.
    fn token(&self, id: u32) -> Option<&str> {
        let own = self.config.own_vocabulary()?;
        let token = own.targets.get(usize::try_from(id).ok()?)?;
        let special = [own.start, own.end].contains(&id) || in_brackets(token);
        (!special).then_some(token.as_str())
    }
}

/// Whether the token is a special one, such as `<s>`.
fn in_brackets(token: &str) -> bool {
    token.starts_with('<') && token.ends_with('>')
}
