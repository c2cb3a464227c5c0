//! Marian's tokenizer: a SentencePiece unigram model (T. Kudo, ACL 2018; T. Kudo and J. Richardson, EMNLP 2018) whose pieces get their ids
//! from `vocab.json`.
//!
//! A text is normalised as the model file says, cut into the pieces of the highest total score (crate `tokenizers`), and ended with
//! `</s>`; what is not in the vocabulary is `<unk>`. A leading `>>code<<` names the language to write and stays whole. The Moses rules
//! for punctuation, which `transformers` applies where `sacremoses` is installed, are not.

pub(super) mod charsmap;
mod model;

use std::collections::HashMap;
use std::path::Path;

use tokenizers::models::unigram::Unigram;

use super::Encoded;
use super::build::read_vocab;
use crate::error::{Error, Result, shown};
use crate::pretrained::tensors;
use model::Spm;

/// What stands for a space within pieces.
const SPACE: char = '▁';

/// The largest model file that is read; usual ones have less than 1 MB.
const MAX_MODEL: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub(super) struct Pieces {
    model: Unigram,
    normalizer: model::Normalizer,
    ids: HashMap<String, u32>,
    tokens: HashMap<u32, String>,
    unk: u32,
    eos: u32,
    special: Vec<u32>,
}

impl Pieces {
    pub(super) fn read(dir: &Path, model: &str) -> Result<Self> {
        let path = dir.join(model);
        let bytes = tensors::read_at_most(&path, MAX_MODEL)?;
        let spm = Spm::parse(&bytes).map_err(|reason| Error::format(&path, reason))?;
        // A piece with a space is never met: spaces have become `▁`.
        let unknown = (" unknown".to_string(), 0.);
        let known = spm.pieces.into_iter().map(|(piece, score)| (piece, f64::from(score)));
        let model = Unigram::from(std::iter::once(unknown).chain(known).collect(), Some(0), false)
            .map_err(|e| Error::format(&path, e.to_string()))?;

        let path = dir.join("vocab.json");
        let ids = read_vocab(&path)?;
        let find = |token: &str| match ids.get(token) {
            Some(&id) => Ok(id),
            None => Err(Error::format(&path, format!("no token `{}`", shown(token)))),
        };
        let (unk, eos) = (find("<unk>")?, find("</s>")?);
        let mut special = vec![unk, eos];
        special.extend(ids.get("<pad>"));
        let tokens = ids.iter().map(|(token, &id)| (id, token.clone())).collect();
        Ok(Self { model, normalizer: spm.normalizer, ids, tokens, unk, eos, special })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(&id).map(String::as_str)
    }

    pub(super) fn encode(&self, text: &str, special: bool, most: Option<usize>) -> Result<Encoded> {
        let mut out = Encoded::default();
        let (code, rest) = self.language(text);
        if let Some(id) = code {
            out.push(id, &text[..text.len() - rest.len()], (0, text.len() - rest.len()), Some(0));
        }
        let (normalized, origins) = self.normalizer.apply(rest);
        let pieces = self
            .model
            .encode(&normalized)
            .map_err(|e| Error::config("sentence pieces", e.to_string()))?;
        let (mut at, skipped) = (0, text.len() - rest.len());
        for piece in pieces {
            let (from, to) = (at, at + piece.len());
            let place = |byte: usize| skipped + origins.get(byte).copied().unwrap_or(rest.len());
            let id = self.id(&piece).unwrap_or(self.unk);
            out.push(id, &piece, (place(from), place(to)), Some(0));
            at = to;
        }
        if let Some(most) = most {
            out.cut(most.saturating_sub(usize::from(special)));
        }
        if special {
            out.push(self.eos, "</s>", (0, 0), None);
        }
        Ok(out)
    }

    /// The id of the language code with which a text may begin, and the text after it.
    fn language<'a>(&self, text: &'a str) -> (Option<u32>, &'a str) {
        let code = |text: &str| {
            let end = text.strip_prefix(">>")?.find("<<")? + 4;
            Some((self.id(text.get(..end)?)?, end))
        };
        match code(text) {
            Some((id, end)) => (Some(id), &text[end..]),
            None => (None, text),
        }
    }

    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let code = |token: &str| token.starts_with(">>") && token.ends_with("<<");
        let mut text = String::new();
        for &id in ids {
            let Some(token) = self.token(id) else { continue };
            if skip_special && (self.special.contains(&id) || code(token)) {
                continue;
            }
            text.extend(token.chars().map(|c| if c == SPACE { ' ' } else { c }));
        }
        match text.strip_prefix(' ') {
            Some(text) => text.to_string(),
            None => text,
        }
    }
}

impl Encoded {
    fn push(&mut self, id: u32, token: &str, offsets: (usize, usize), text: Option<usize>) {
        self.ids.push(id);
        self.type_ids.push(0);
        self.tokens.push(token.to_string());
        self.offsets.push(offsets);
        self.texts.push(text);
    }

    fn cut(&mut self, most: usize) {
        self.ids.truncate(most);
        self.type_ids.truncate(most);
        self.tokens.truncate(most);
        self.offsets.truncate(most);
        self.texts.truncate(most);
    }
}
