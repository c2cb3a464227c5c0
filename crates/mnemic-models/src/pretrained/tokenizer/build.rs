//! Tokenizers of the crate, from `tokenizer.json` or from the vocabularies that came before it.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::pieces::charsmap::Charsmap;
use super::special::named;
use crate::error::{Error, Result};
use crate::pretrained::read_text;

/// What `tokenizer.json` says, without its truncation and padding.
pub(super) fn from_file(path: &Path) -> Result<Tokenizer> {
    let text = read_text(path)?;
    if text.contains(CHARSMAP) {
        let value = serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
        check_charsmaps(&value).map_err(|reason| Error::format(path, reason))?;
    }
    parse(path, text.as_bytes())
}

/// SentencePiece's table of replacements, in base 64.
const CHARSMAP: &str = "precompiled_charsmap";

/// Checks all tables of replacements: the crate would fail on a malformed one only when it meets a certain text, and then by a panic.
fn check_charsmaps(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::Object(keys) => keys.iter().try_for_each(|(key, value)| match value.as_str() {
            Some(text) if key == CHARSMAP => Charsmap::parse(&from_base64(text)?)?.check(),
            _ => check_charsmaps(value),
        }),
        Value::Array(values) => values.iter().try_for_each(check_charsmaps),
        _ => Ok(()),
    }
}

fn from_base64(text: &str) -> std::result::Result<Vec<u8>, String> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(format!("{CHARSMAP}: expected base 64")),
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Ok(bytes)
}

fn parse(path: &Path, json: &[u8]) -> Result<Tokenizer> {
    let malformed = |e: &dyn std::fmt::Display| Error::format(path, format!("tokenizer: {e}"));
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| malformed(&e))?;
    tokenizer.with_truncation(None).map_err(|e| malformed(&e))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// BERT's WordPiece, from `vocab.txt`: one token a line, its number is the id.
pub(super) fn word_piece(dir: &Path, config: &Map<String, Value>) -> Result<Tokenizer> {
    let path = dir.join("vocab.txt");
    let text = read_text(&path)?;
    let tokens = text.lines().map(|line| line.trim_end_matches('\r'));
    let vocab: HashMap<&str, usize> = tokens.enumerate().map(|(i, token)| (token, i)).collect();
    let find = |key: &str, usual: &'static str| {
        let token = named(config, key).unwrap_or(usual);
        match vocab.get(token) {
            Some(&id) => Ok((token.to_string(), id)),
            None => Err(Error::format(&path, format!("no token `{token}` ({key})"))),
        }
    };
    let (unk, _) = find("unk_token", "[UNK]")?;
    let (cls, sep) = (find("cls_token", "[CLS]")?, find("sep_token", "[SEP]")?);
    let special = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];
    let usual = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let added = special.iter().zip(usual).filter_map(|(key, usual)| find(key, usual).ok());
    let added: Vec<Value> = added.map(|(token, id)| special_token(&token, id, false)).collect();
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let description = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": sep, "cls": cls},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    });
    parse(&path, description.to_string().as_bytes())
}

/// Byte-level BPE, from `vocab.json` and `merges.txt`. A vocabulary with `<s>` and `</s>` is RoBERTa's or BART's, which stand around a text;
/// else it is GPT-2's, which adds nothing.
pub(super) fn byte_level(dir: &Path, config: &Map<String, Value>) -> Result<Tokenizer> {
    let path = dir.join("vocab.json");
    let vocab = read_vocab(&path)?;
    let merges = read_text(&dir.join("merges.txt"))?;
    // The first line may be `#version: 0.2`; a later one may begin with the token `#`.
    let merges: Vec<&str> = merges
        .lines()
        .enumerate()
        .filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version")))
        .map(|(_, line)| line)
        .collect();
    let names = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token"];
    let mut special: Vec<&str> = names.iter().filter_map(|key| named(config, key)).collect();
    special.extend(["<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>"]);
    special.sort_by_key(|token| vocab.get(*token));
    special.dedup();
    let added = special.iter().filter_map(|token| Some((*token, *vocab.get(*token)?)));
    let mut added: Vec<Value> =
        added.map(|(token, id)| special_token(token, id as usize, false)).collect();
    let mask = named(config, "mask_token").unwrap_or("<mask>");
    if let Some(&id) = vocab.get(mask) {
        added.push(special_token(mask, id as usize, true));
    }
    let space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let ends = |key: &str, usual: &'static str| {
        let token = named(config, key).unwrap_or(usual);
        Some((token.to_string(), *vocab.get(token)?))
    };
    let around = match vocab.contains_key("<s>") {
        true => ends("sep_token", "</s>").zip(ends("cls_token", "<s>")),
        false => None,
    };
    let post_processor = match around {
        Some((sep, cls)) => json!({
            "type": "RobertaProcessing",
            "sep": sep,
            "cls": cls,
            "trim_offsets": true,
            "add_prefix_space": space,
        }),
        None => json!({
            "type": "ByteLevel",
            "add_prefix_space": space,
            "trim_offsets": true,
            "use_regex": true,
        }),
    };
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": space,
        "trim_offsets": true,
        "use_regex": true,
    });
    let description = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": post_processor,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    parse(&path, description.to_string().as_bytes())
}

fn special_token(content: &str, id: usize, lstrip: bool) -> Value {
    json!({
        "id": id,
        "content": content,
        "single_word": false,
        "lstrip": lstrip,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}

/// `vocab.json`: tokens with their ids.
pub(super) fn read_vocab(path: &Path) -> Result<HashMap<String, u32>> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::format(path, format!("vocabulary: {e}")))
}
