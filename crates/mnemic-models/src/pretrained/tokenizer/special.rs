//! Which tokens are special, and what else `tokenizer_config.json` says.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::pretrained::read_keys;
use crate::text::Padding;

/// The ids of special tokens: those that the folder's files name, else those with a usual name that are in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Padding.
    pub pad: Option<u32>,
    /// What stands for the unknown.
    pub unk: Option<u32>,
    /// The beginning of a text.
    pub bos: Option<u32>,
    /// Its end.
    pub eos: Option<u32>,
    /// The place from which a text is classified.
    pub cls: Option<u32>,
    /// Between and after texts.
    pub sep: Option<u32>,
    /// A hidden word.
    pub mask: Option<u32>,
}

type Keys = Map<String, Value>;

impl SpecialTokens {
    pub(super) fn new(config: &Keys, map: &Keys, id: impl Fn(&str) -> Option<u32>) -> Self {
        let find = |key: &str, usual: &[&str]| {
            let named = named(config, key).or_else(|| named(map, key));
            named.and_then(&id).or_else(|| usual.iter().find_map(|token| id(token)))
        };
        Self {
            pad: find("pad_token", &["[PAD]", "<pad>"]),
            unk: find("unk_token", &["[UNK]", "<unk>"]),
            bos: find("bos_token", &["<s>", "<|endoftext|>"]),
            eos: find("eos_token", &["</s>", "<|endoftext|>"]),
            cls: find("cls_token", &["[CLS]", "<s>"]),
            sep: find("sep_token", &["[SEP]", "</s>"]),
            mask: find("mask_token", &["[MASK]", "<mask>"]),
        }
    }
}

/// The token under `key`: a text, or an object with its `content`.
pub(super) fn named<'a>(keys: &'a Keys, key: &str) -> Option<&'a str> {
    let value = keys.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The keys of `tokenizer_config.json` and `special_tokens_map.json`; none where there is no such file.
pub(super) fn read_files(dir: &Path) -> Result<(Keys, Keys)> {
    let read = |name: &str| {
        let path = dir.join(name);
        if path.is_file() { read_keys(&path) } else { Ok(Keys::new()) }
    };
    Ok((read("tokenizer_config.json")?, read("special_tokens_map.json")?))
}

/// Some configs have 10^30, which means no limit.
pub(super) fn model_max_length(config: &Keys) -> Option<usize> {
    let limit = config.get("model_max_length")?.as_u64()?;
    usize::try_from(limit).ok().filter(|&limit| limit > 0 && limit < 1 << 30)
}

pub(super) fn padding_side(config: &Keys) -> Padding {
    match config.get("padding_side").and_then(Value::as_str) {
        Some("left") => Padding::Left,
        _ => Padding::Right,
    }
}
