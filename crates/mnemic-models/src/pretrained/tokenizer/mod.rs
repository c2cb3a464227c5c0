//! From text to ids and back: the tokenizers that lie beside checkpoints.
//!
//! | files of the folder | tokenizer |
//! | --- | --- |
//! | `tokenizer.json` | what it says (crate `tokenizers`), but for its truncation and padding, which are ours |
//! | `vocab.txt` | WordPiece (BERT, DistilBERT) |
//! | `vocab.json`, `merges.txt` | byte-level BPE (GPT-2, RoBERTa, BART) |
//! | `source.spm`, `target.spm`, `vocab.json` | SentencePiece unigrams (Marian) |
//!
//! `tokenizer_config.json` and `special_tokens_map.json`, where there are some, name the special tokens.

mod build;
mod pieces;
mod special;
mod stream;
#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::{Device, Tensor};
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use crate::error::{Error, Result};
use crate::text::{Padding, TextBatch};

use pieces::Pieces;
pub use special::SpecialTokens;
pub use stream::DecodeStream;

/// A text in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// The segment of each token: 0, and for the second text of a pair what the tokenizer says.
    pub type_ids: Vec<u32>,
    /// The tokens as the vocabulary spells them.
    pub tokens: Vec<String>,
    /// From which byte to which byte of its text each token goes; `(0, 0)` for tokens that were added.
    pub offsets: Vec<(usize, usize)>,
    /// The text of each token, 0 or 1; `None` for tokens that were added.
    pub texts: Vec<Option<usize>>,
}

/// A tokenizer, read from a folder. It neither truncates nor pads unless told so.
///
/// ```no_run
/// use candle_core::Device;
/// use mnemic_models::Tokenizer;
/// let tokenizer = Tokenizer::from_folder("all-MiniLM-L6-v2")?.with_max_length(256)?;
/// let encoded = tokenizer.encode("A man is eating food.")?;
/// println!("{:?}", encoded.tokens);
/// let batch = tokenizer.encode_batch(&["One text.", "Another, longer one."], &Device::Cpu)?;
/// println!("{}", tokenizer.decode(&encoded.ids, true)?);
/// # let _ = batch;
/// # Ok::<(), mnemic_models::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    kind: Kind,
    special: SpecialTokens,
    max_length: Option<usize>,
    model_max_length: Option<usize>,
    side: Padding,
    place: String,
}

#[derive(Debug, Clone)]
enum Kind {
    Crate(Box<tokenizers::Tokenizer>),
    Pieces(Box<Pieces>),
}

impl Tokenizer {
    /// The tokenizer of a folder.
    ///
    /// # Errors
    /// When the folder has none of the files above, or one is malformed.
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        Self::read(dir.as_ref(), "source.spm")
    }

    /// As [`from_folder`](Self::from_folder), but that of the texts to write, where they have a model of their own (Marian's `target.spm`).
    /// Ids are the same for both; decoding needs only one of them.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub fn target_from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        Self::read(dir.as_ref(), "target.spm")
    }

    fn read(dir: &Path, model: &str) -> Result<Self> {
        let (config, map) = special::read_files(dir)?;
        let is = |name: &str| dir.join(name).is_file();
        let kind = if is("tokenizer.json") {
            Kind::Crate(Box::new(build::from_file(&dir.join("tokenizer.json"))?))
        } else if is("vocab.txt") {
            Kind::Crate(Box::new(build::word_piece(dir, &config)?))
        } else if is("vocab.json") && is("merges.txt") {
            Kind::Crate(Box::new(build::byte_level(dir, &config)?))
        } else if is("vocab.json") && is(model) {
            Kind::Pieces(Box::new(Pieces::read(dir, model)?))
        } else {
            let reason = format!(
                "expected a tokenizer: tokenizer.json, vocab.txt, vocab.json with merges.txt, or vocab.json with {model}"
            );
            return Err(Error::config(dir.display().to_string(), reason));
        };
        let special = SpecialTokens::new(&config, &map, |token| kind.id(token));
        Ok(Self {
            special,
            kind,
            max_length: None,
            model_max_length: special::model_max_length(&config),
            side: special::padding_side(&config),
            place: dir.display().to_string(),
        })
    }

    /// Cuts texts so that they have at most `max_length` tokens, special ones included; of a pair the longer text is cut first.
    ///
    /// # Errors
    /// When `max_length` leaves no room for a token of text.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        let added = match &self.kind {
            Kind::Crate(inner) => {
                use tokenizers::PostProcessor;
                let added = |pair| inner.get_post_processor().map_or(0, |p| p.added_tokens(pair));
                added(false).max(added(true))
            }
            Kind::Pieces(_) => 1,
        };
        if max_length <= added {
            let reason =
                format!("max_length must be above the {added} added tokens, got {max_length}");
            return Err(Error::config(self.place, reason));
        }
        if let Kind::Crate(inner) = &mut self.kind {
            let truncation = TruncationParams {
                direction: TruncationDirection::Right,
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            };
            inner.with_truncation(Some(truncation)).map_err(|e| failed(&self.place, &*e))?;
        }
        self.max_length = Some(max_length);
        Ok(self)
    }

    /// Pads batches on this side; otherwise on the one that `tokenizer_config.json` names, or on the right.
    pub fn with_padding(self, side: Padding) -> Self {
        Self { side, ..self }
    }

    /// The most tokens of a text, as `tokenizer_config.json` has it for the model. Not applied by itself.
    pub fn model_max_length(&self) -> Option<usize> {
        self.model_max_length
    }

    /// The limit in force.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The number of ids.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Crate(inner) => inner.get_vocab_size(true),
            Kind::Pieces(pieces) => pieces.vocab_size(),
        }
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.kind.id(token)
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Crate(inner) => inner.id_to_token(id),
            Kind::Pieces(pieces) => pieces.token(id).map(String::from),
        }
    }

    /// The tokens of a text, with the special tokens that the model expects.
    ///
    /// # Errors
    /// When the text cannot be encoded: it holds what the vocabulary lacks, which has no token for the unknown.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        self.encode_with(text, None, true)
    }

    /// The tokens of a text alone.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_plain(&self, text: &str) -> Result<Encoded> {
        self.encode_with(text, None, false)
    }

    /// The tokens of two texts in one row, such as a question and a passage.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and where the tokenizer knows no pairs.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoded> {
        self.encode_with(first, Some(second), true)
    }

    fn encode_with(&self, text: &str, second: Option<&str>, special: bool) -> Result<Encoded> {
        match (&self.kind, second) {
            (Kind::Crate(inner), Some(second)) => inner.encode((text, second), special),
            (Kind::Crate(inner), None) => inner.encode(text, special),
            (Kind::Pieces(_), Some(_)) => {
                let reason = "this tokenizer encodes single texts, not pairs";
                return Err(Error::config(self.place.clone(), reason));
            }
            (Kind::Pieces(pieces), None) => return pieces.encode(text, special, self.max_length),
        }
        .map(|encoding| Encoded::from_crate(&encoding))
        .map_err(|e| failed(&self.place, &*e))
    }

    /// The ids of many texts, each as [`encode`](Self::encode) gives them, unpadded.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_rows(&self, texts: &[&str]) -> Result<Vec<Encoded>> {
        match &self.kind {
            Kind::Crate(inner) => {
                let all = inner.encode_batch(texts.to_vec(), true);
                let all = all.map_err(|e| failed(&self.place, &*e))?;
                Ok(all.iter().map(Encoded::from_crate).collect())
            }
            Kind::Pieces(_) => texts.iter().map(|text| self.encode(text)).collect(),
        }
    }

    /// Texts as a batch on `device`, padded to the longest.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when there is no text.
    pub fn encode_batch(&self, texts: &[&str], device: &Device) -> Result<TextBatch> {
        self.batch(&self.encode_rows(texts)?, device)
    }

    /// Encoded rows as a batch on `device`, padded to the longest. Segments are part of it where one is not 0.
    ///
    /// # Errors
    /// When there is no row.
    pub fn batch(&self, rows: &[Encoded], device: &Device) -> Result<TextBatch> {
        let padded = |part: fn(&Encoded) -> &Vec<u32>, pad| {
            let rows: Vec<_> = rows.iter().map(|row| part(row).clone()).collect();
            TextBatch::from_rows(&rows, pad, self.side, device)
        };
        let batch = padded(|row| &row.ids, self.pad_id())?;
        if rows.iter().all(|row| row.type_ids.iter().all(|&t| t == 0)) {
            return Ok(batch);
        }
        let types: Tensor = padded(|row| &row.type_ids, 0)?.input_ids().clone();
        Ok(batch.with_token_types(types)?)
    }

    /// The id that padding has: that of the padding token, else of the end, else 0.
    pub fn pad_id(&self) -> u32 {
        self.special.pad.or(self.special.eos).unwrap_or(0)
    }

    /// The text of ids, without the special tokens if `skip_special`. Ids that are not in the vocabulary are left out.
    ///
    /// # Errors
    /// When the decoder of `tokenizer.json` fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match &self.kind {
            Kind::Crate(inner) => {
                inner.decode(ids, skip_special).map_err(|e| failed(&self.place, &*e))
            }
            Kind::Pieces(pieces) => Ok(pieces.decode(ids, skip_special)),
        }
    }

    /// A decoder of ids that come one after the other.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }
}

impl Kind {
    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Crate(inner) => inner.token_to_id(token),
            Self::Pieces(pieces) => pieces.id(token),
        }
    }
}

impl Encoded {
    fn from_crate(encoding: &tokenizers::Encoding) -> Self {
        Self {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            texts: encoding.get_sequence_ids(),
        }
    }
}

/// What the crate says, with its place.
fn failed(place: &str, error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::config(format!("{place}: tokenizer"), error.to_string())
}
