use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::*;

#[derive(Deserialize)]
struct Sentence {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    tokens: Vec<String>,
}

fn sentences(test: &str, below: &str) -> Option<Vec<Sentence>> {
    let path = mnemic_testing::shared_data(test, below)?;
    Some(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
}

/// The folder of all-MiniLM-L6-v2, where there is one.
fn minilm(test: &str) -> Option<PathBuf> {
    crate::transformer::testing::minilm(test)
}

fn check(tokenizer: &Tokenizer, sentences: &[Sentence]) {
    for sentence in sentences {
        let encoded = tokenizer.encode(&sentence.text).unwrap();
        assert_eq!(encoded.ids, sentence.ids, "{}", sentence.text);
        assert_eq!(encoded.tokens, sentence.tokens, "{}", sentence.text);
    }
}

#[test]
fn word_pieces_as_published() {
    let test = "word_pieces_as_published";
    let Some(dir) = minilm(test) else { return };
    let Some(all) = sentences(test, "fixtures/real/all-minilm-l6-v2/sentences.json") else {
        return;
    };
    // The file asks for rows of 128: ignored.
    let tokenizer = Tokenizer::from_folder(&dir).unwrap();
    check(&tokenizer, &all);
    assert_eq!(tokenizer.model_max_length(), Some(512));
    assert_eq!(tokenizer.special().mask, Some(103));
    assert_eq!(tokenizer.vocab_size(), 30_522);

    // The vocabulary alone gives the same.
    let bare = TempDir::new().unwrap();
    fs::copy(dir.join("vocab.txt"), bare.path().join("vocab.txt")).unwrap();
    let built = Tokenizer::from_folder(bare.path()).unwrap();
    check(&built, &all);
    for text in ["a [MASK] word", "日本語 ABC", "\u{0}x\tÀ\u{301}", "", "   "] {
        assert_eq!(built.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text}");
    }
    let pair = tokenizer.encode_pair("one two", "three").unwrap();
    assert_eq!(built.encode_pair("one two", "three").unwrap(), pair);
    assert_eq!(pair.type_ids, [0, 0, 0, 0, 1, 1]);
    assert_eq!(pair.offsets, [(0, 0), (0, 3), (4, 7), (0, 0), (0, 5), (0, 0)]);
    assert_eq!(pair.texts, [None, Some(0), Some(0), None, Some(1), None]);
    let text = tokenizer.decode(&all[0].ids, true).unwrap();
    assert_eq!(text, "a man is eating food.");

    let texts: Vec<&str> = all.iter().map(|s| s.text.as_str()).collect();
    let batch = tokenizer.encode_batch(&texts, &Device::Cpu).unwrap();
    assert_eq!(batch.dims().unwrap(), (8, all.iter().map(|s| s.ids.len()).max().unwrap()));
    assert!(batch.token_type_ids().is_none());
    let short = tokenizer.clone().with_max_length(4).unwrap();
    assert_eq!(short.encode(texts[0]).unwrap().ids, [101, 1037, 2158, 102]);
    assert_eq!(short.encode_pair("one two", "three").unwrap().ids.len(), 4);
    let error = tokenizer.with_max_length(3).unwrap_err().to_string();
    assert!(error.contains("above the 3 added tokens"), "{error}");
}

#[test]
fn stories_are_encoded_and_streamed() {
    let test = "stories_are_encoded_and_streamed";
    let Some(all) = sentences(test, "fixtures/real/stories260k/prompts.json") else { return };
    let dir = mnemic_testing::shared_data(test, "weights/stories260K").unwrap();
    let tokenizer = Tokenizer::from_folder(dir).unwrap();
    check(&tokenizer, &all);
    assert_eq!((tokenizer.special().bos, tokenizer.special().eos), (Some(1), Some(2)));
    for text in
        ["Once upon a time, there was a little girl.", "Zoë said: “日本” 🐸!", " two  spaces"]
    {
        let encoded = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&encoded.ids, true).unwrap(), text);
        let mut stream = tokenizer.decode_stream(true);
        let mut out = String::new();
        for &id in &encoded.ids {
            let part = stream.step(id).unwrap();
            assert!(!part.contains('\u{fffd}'), "{part:?}");
            out += &part;
        }
        assert_eq!(out, text);
        assert_eq!(stream.finish().unwrap(), "");
    }
    // A letter that is cut off is given at the end.
    let ids = tokenizer.encode("日").unwrap().ids;
    let mut stream = tokenizer.decode_stream(true);
    let parts: String = ids[..ids.len() - 1].iter().map(|&id| stream.step(id).unwrap()).collect();
    assert!(!parts.contains('\u{fffd}'));
    assert!(stream.finish().unwrap().contains('\u{fffd}'));
}

#[test]
fn static_embeddings_have_a_tokenizer() {
    let test = "static_embeddings_have_a_tokenizer";
    let Some(all) = sentences(test, "fixtures/real/model2vec/sentences.json") else { return };
    let dir = mnemic_testing::shared_data(test, "weights/model2vec").unwrap();
    let tokenizer = Tokenizer::from_folder(dir).unwrap();
    for sentence in &all {
        let ids = tokenizer.encode_plain(&sentence.text).unwrap().ids;
        let unknown = tokenizer.special().unk.unwrap();
        let known: Vec<u32> = ids.into_iter().filter(|&id| id != unknown).collect();
        assert_eq!(known, sentence.ids, "{}", sentence.text);
    }
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn byte_level(special: &[&str]) -> TempDir {
    // Ġ is a space; Ã and © are the two bytes of é.
    let words = ["a", "b", "Ġ", "Ã", "©", "ab", "Ġab", "!"];
    let vocab: serde_json::Map<_, _> = special
        .iter()
        .chain(&words)
        .enumerate()
        .map(|(i, token)| (token.to_string(), json!(i)))
        .collect();
    let vocab = serde_json::Value::Object(vocab).to_string();
    folder(&[("vocab.json", &vocab), ("merges.txt", "#version: 0.2\na b\nĠ ab\n")])
}

#[test]
fn byte_pairs_are_merged_in_order() {
    let gpt2 = byte_level(&["<|endoftext|>"]);
    let tokenizer = Tokenizer::from_folder(gpt2.path()).unwrap();
    let encoded = tokenizer.encode("ab ab a<|endoftext|>é").unwrap();
    assert_eq!(encoded.tokens, ["ab", "Ġab", "Ġ", "a", "<|endoftext|>", "Ã", "©"]);
    assert_eq!(encoded.ids, [6, 7, 3, 1, 0, 4, 5]);
    assert_eq!(tokenizer.special().eos, Some(0));
    assert_eq!(tokenizer.pad_id(), 0);
    assert_eq!(tokenizer.decode(&encoded.ids, true).unwrap(), "ab ab aé");
    let mut stream = tokenizer.decode_stream(true);
    let parts: Vec<String> = encoded.ids.iter().map(|&id| stream.step(id).unwrap()).collect();
    assert_eq!(parts, ["ab", " ab", " ", "a", "", "", "é"]);

    let roberta = byte_level(&["<s>", "<pad>", "</s>", "<unk>", "<mask>"]);
    let tokenizer = Tokenizer::from_folder(roberta.path()).unwrap();
    assert_eq!(tokenizer.encode("ab <mask>!").unwrap().ids, [0, 10, 4, 12, 2]);
    let pair = tokenizer.encode_pair("a", "b").unwrap();
    assert_eq!(pair.tokens, ["<s>", "a", "</s>", "</s>", "b", "</s>"]);
    assert_eq!(pair.type_ids, [0; 6]);
    let batch = tokenizer.encode_batch(&["a", "a!"], &Device::Cpu).unwrap();
    assert_eq!(batch.input_ids().to_vec2::<u32>().unwrap(), [[0, 5, 2, 1], [0, 5, 12, 2]]);
    let left = tokenizer.with_padding(Padding::Left).encode_batch(&["a", "a!"], &Device::Cpu);
    assert_eq!(left.unwrap().input_ids().to_vec2::<u32>().unwrap()[0], [1, 0, 5, 2]);
}

/// What the library `sentencepiece` makes of texts, by the model beside it.
#[derive(Deserialize)]
struct Cut {
    text: String,
    pieces: Vec<String>,
    ids: Vec<u32>,
    decoded: String,
}

#[test]
fn sentence_pieces_as_the_library_cuts_them() {
    let dir =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/pretrained/tokenizer/testdata"));
    let tokenizer = Tokenizer::from_folder(&dir).unwrap();
    let cuts = fs::read_to_string(dir.join("cuts.json")).unwrap();
    let cuts: Vec<Cut> = serde_json::from_str(&cuts).unwrap();
    assert!(cuts.len() > 10);
    for cut in &cuts {
        let encoded = tokenizer.encode(&cut.text).unwrap();
        let (end, pieces) = encoded.tokens.split_last().unwrap();
        assert_eq!(pieces, cut.pieces, "{}", cut.text);
        assert_eq!(end, "</s>");
        assert_eq!(encoded.ids, cut.ids, "{}", cut.text);
        assert_eq!(tokenizer.decode(&encoded.ids, true).unwrap(), cut.decoded);
        for (token, &(from, to)) in pieces.iter().zip(&encoded.offsets) {
            let word = token.trim_start_matches('▁');
            // Where nothing was replaced, the place in the text holds the token.
            if cut.text.contains(word) {
                let found = &cut.text[from..to];
                assert!(
                    found.contains(word) && found.len() <= word.len() + 4,
                    "{token}: {found:?}"
                );
            }
        }
    }
    let known = tokenizer.encode(">>de<< the cat").unwrap();
    assert_eq!(known.tokens[0], ">>de<<");
    assert_eq!(known.tokens[1..], tokenizer.encode(" the cat").unwrap().tokens);
    assert_eq!(tokenizer.decode(&known.ids, true).unwrap(), "the cat");
    let short = tokenizer.clone().with_max_length(3).unwrap();
    assert_eq!(short.encode("the cat sat on the mat").unwrap().ids.len(), 3);
    assert!(tokenizer.encode_pair("a", "b").is_err());
    let target = Tokenizer::target_from_folder(&dir).unwrap_err().to_string();
    assert!(target.contains("vocab.json with target.spm"), "{target}");
}

#[test]
fn broken_model_files_give_errors() {
    let dir =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/pretrained/tokenizer/testdata"));
    let bytes = fs::read(dir.join("source.spm")).unwrap();
    let broken = TempDir::new().unwrap();
    fs::copy(dir.join("vocab.json"), broken.path().join("vocab.json")).unwrap();
    let text = "the ﬁne “cat”…  sat\u{3000}①";
    let mut refused = 0;
    let mut attempt = |bytes: &[u8]| {
        fs::write(broken.path().join("source.spm"), bytes).unwrap();
        match Tokenizer::from_folder(broken.path()) {
            // What can be read may give other pieces, but gives some.
            Ok(tokenizer) => drop(tokenizer.encode(text)),
            Err(error) => {
                assert!(error.to_string().contains("source.spm"), "{error}");
                refused += 1;
            }
        }
    };
    for end in (0..bytes.len()).step_by(97) {
        attempt(&bytes[..end]);
    }
    for at in (0..bytes.len()).step_by(13) {
        let mut other = bytes.clone();
        other[at] ^= 0x55;
        attempt(&other);
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let error = |dir: &TempDir| Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(error(&folder(&[])).contains("expected a tokenizer"));
    assert!(error(&folder(&[("tokenizer.json", "{}")])).contains("tokenizer.json"));
    assert!(error(&folder(&[("vocab.txt", "[UNK]\n[SEP]\n")])).contains("no token `[CLS]`"));
    let text = error(&folder(&[("vocab.json", "[1]"), ("merges.txt", "")]));
    assert!(text.contains("vocab.json: vocabulary"), "{text}");
    let text = error(&folder(&[("vocab.json", r#"{"a": 0}"#), ("merges.txt", "a b")]));
    assert!(text.contains("tokenizer"), "{text}");
}

/// The table of replacements of the model in `testdata`, as its file has it.
fn charsmap() -> Vec<u8> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pretrained/tokenizer/testdata");
    let bytes = fs::read(PathBuf::from(dir).join("source.spm")).unwrap();
    // The last message, of the normaliser: its name, then field 2 with its length.
    let name = b"user_defined";
    let at = bytes.windows(name.len()).rposition(|w| w == name).unwrap() + name.len();
    assert_eq!(bytes[at], 2 << 3 | 2);
    let length = usize::from(bytes[at + 1] & 0x7f) | usize::from(bytes[at + 2]) << 7;
    bytes[at + 3..][..length].to_vec()
}

#[test]
fn tables_of_replacements_are_checked_before_the_crate_reads_them() {
    let base64 = |bytes: &[u8]| -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |chunk: &[u8]| {
            let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            let digit = |i: usize| match i > chunk.len() {
                true => '=',
                false => DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char,
            };
            (0..4).map(digit).collect::<String>()
        };
        bytes.chunks(3).map(group).collect()
    };
    let load = |map: &[u8]| {
        let text = json!({
            "version": "1.0",
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": base64(map)}]},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["f", -1.0], ["i", -1.0]]},
        });
        Tokenizer::from_folder(folder(&[("tokenizer.json", &text.to_string())]).path())
    };
    let map = charsmap();
    let tokenizer = load(&map).unwrap();
    assert_eq!(tokenizer.encode("ﬁ").unwrap().tokens, ["f", "i"]);
    let mut refused = 0;
    for at in (0..map.len()).step_by(5) {
        let mut other = map.clone();
        other[at] ^= 0xa5;
        match load(&other) {
            Ok(tokenizer) => drop(tokenizer.encode("the ﬁne “cat”…  sat\u{3000}① e\u{301}AB")),
            Err(error) => {
                assert!(error.to_string().contains("tokenizer.json"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "{refused}");
}
