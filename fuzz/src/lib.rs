//! The loaders as functions of bytes, and the files that mutation starts from.
//!
//! Every function gives whether the input was accepted. What it must never do is panic, hang, or take memory that the input does
//! not account for.

mod checkpoints;

use std::fs;
use std::io::{Cursor, Write};
use std::sync::OnceLock;

use mnemic_models::{PickleFile, SafeFile, Sharded};
use mnemic_tasks::generation::GenerationConfig;
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use checkpoints::Checkpoint;

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) -> bool {
    let Ok(file) = SafeFile::from_bytes("fuzz.safetensors", bytes.to_vec()) else {
        return false;
    };
    for (name, shape) in file.shapes() {
        // Some types are not read.
        if let Ok(tensor) = file.load(&name) {
            assert_eq!(tensor.dims(), shape);
        }
    }
    true
}

/// A file of `torch.save`. What does not begin as an archive is put into one as its pickle.
pub fn pickle(bytes: &[u8]) -> bool {
    let file = match bytes.starts_with(b"PK") {
        true => bytes.to_vec(),
        false => archive(bytes),
    };
    let Ok(file) = PickleFile::from_bytes("fuzz.bin", file) else {
        return false;
    };
    for (name, shape) in file.shapes() {
        assert_eq!(file.load(&name).unwrap().dims(), shape);
    }
    true
}

/// An archive with this pickle and storages of [`STORAGES`].
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("m/data.pkl", pickle);
    for (key, size) in STORAGES.iter().enumerate() {
        add(&format!("m/data/{key}"), &vec![1; *size]);
    }
    zip.finish().unwrap().into_inner()
}

/// The files of PyTorch that the tests of mnemic-models read, too.
const TORCH: [&[u8]; 2] = [
    include_bytes!("../../crates/mnemic-models/src/pretrained/pickle/fixtures/flat.bin"),
    include_bytes!("../../crates/mnemic-models/src/pretrained/pickle/fixtures/nested.bin"),
];

/// Sizes of the storages of those files, in order of their keys.
const STORAGES: [usize; 13] = [48, 96, 48, 48, 16, 8, 4, 2, 3, 4, 0, 16, 32];

/// The pickles of [`TORCH`].
fn pickles() -> Vec<Vec<u8>> {
    let pickle = |file: &&[u8]| {
        let mut zip = zip::ZipArchive::new(Cursor::new(*file)).unwrap();
        let name = zip.file_names().map(|n| n.unwrap().into_owned());
        let name = name.into_iter().find(|n| n.ends_with("data.pkl")).unwrap();
        let mut entry = zip.by_name(&name).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        bytes
    };
    TORCH.iter().map(pickle).collect()
}

/// An index of shards, in a folder with two files.
pub fn index(bytes: &[u8]) -> bool {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let dir = FOLDER.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        for (name, tensor) in [("1.safetensors", "a"), ("2.safetensors", "b")] {
            fs::write(dir.path().join(name), vector(tensor)).unwrap();
        }
        dir
    });
    let path = dir.path().join("model.safetensors.index.json");
    fs::write(&path, bytes).unwrap();
    let Ok(weights) = Sharded::open(&path) else {
        return false;
    };
    for (name, shape) in weights.shapes() {
        assert_eq!(weights.load(&name).unwrap().dims(), shape);
    }
    true
}

/// A safetensors file of one tensor.
fn vector(name: &str) -> Vec<u8> {
    let header =
        format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
}

/// A `config.json` beside the weights of a model; the first byte says of which.
pub fn config(bytes: &[u8]) -> bool {
    accepts(configs(), bytes)
}

/// The `model.safetensors` of a model beside its config; the first byte says of which.
pub fn weights(bytes: &[u8]) -> bool {
    accepts(all_weights(), bytes)
}

/// A file that only sentence encoders have; the first byte says which.
pub fn sentence(bytes: &[u8]) -> bool {
    accepts(sentence_files(), bytes)
}

fn accepts(checkpoints: &[Checkpoint], bytes: &[u8]) -> bool {
    let Some((first, file)) = bytes.split_first() else {
        return false;
    };
    checkpoints[usize::from(*first) % checkpoints.len()].accepts(file)
}

fn configs() -> &'static [Checkpoint] {
    static ALL: OnceLock<Vec<Checkpoint>> = OnceLock::new();
    ALL.get_or_init(|| checkpoints::families(checkpoints::CONFIG))
}

fn all_weights() -> &'static [Checkpoint] {
    static ALL: OnceLock<Vec<Checkpoint>> = OnceLock::new();
    ALL.get_or_init(|| checkpoints::families(checkpoints::WEIGHTS))
}

fn sentence_files() -> &'static [Checkpoint] {
    static ALL: OnceLock<Vec<Checkpoint>> = OnceLock::new();
    ALL.get_or_init(checkpoints::sentence_files)
}

/// How to decode: the bytes are `generation_config.json`, or `config.json` where they begin with a zero.
pub fn generation(bytes: &[u8]) -> bool {
    let config = r#"{"eos_token_id":2,"pad_token_id":1,"decoder_start_token_id":2}"#;
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match text.strip_prefix('\0') {
        Some(text) => GenerationConfig::from_json(Some(text), None).is_ok(),
        None => GenerationConfig::from_json(Some(config), Some(text)).is_ok(),
    }
}

/// A target with what mutation starts from and the words it knows.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> bool,
    pub seeds: Vec<Vec<u8>>,
    pub words: &'static [&'static [u8]],
    /// Mends what any change breaks, so that the loader looks further.
    pub repair: fn(&mut Vec<u8>),
}

/// All targets.
pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "safetensors",
            run: safetensors,
            seeds: safetensors_seeds(),
            words: JSON,
            repair: header_length,
        },
        Target {
            name: "pickle",
            run: pickle,
            seeds: [pickles(), TORCH.map(<[u8]>::to_vec).to_vec()].concat(),
            words: OPCODES,
            repair: |_| {},
        },
        Target { name: "index", run: index, seeds: index_seeds(), words: JSON, repair: |_| {} },
        Target {
            name: "config",
            run: config,
            seeds: seeds(configs()),
            words: JSON,
            repair: |_| {},
        },
        Target {
            name: "weights",
            run: weights,
            seeds: seeds(all_weights()),
            words: JSON,
            repair: |file| {
                // Behind the byte that says of which model it is.
                let mut rest = file.split_off(1.min(file.len()));
                header_length(&mut rest);
                file.append(&mut rest);
            },
        },
        Target {
            name: "sentence",
            run: sentence,
            seeds: seeds(sentence_files()),
            words: JSON,
            repair: |_| {},
        },
        Target {
            name: "generation",
            run: generation,
            seeds: generation_seeds(),
            words: JSON,
            repair: |_| {},
        },
    ]
}

/// Makes the length before a safetensors header what it is: the header ends with the last brace, since data are zeros.
fn header_length(file: &mut Vec<u8>) {
    if let (Some(end), true) = (file.iter().rposition(|b| *b == b'}'), file.len() >= 8) {
        let length = (end + 1).saturating_sub(8) as u64;
        file[..8].copy_from_slice(&length.to_le_bytes());
    }
}

fn safetensors_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vector("w")];
    let kinds =
        [("F64", 8), ("F16", 2), ("BF16", 2), ("I64", 8), ("U8", 1), ("BOOL", 1), ("I8", 1)];
    let (mut entries, mut at) = (vec!["\"__metadata__\":{\"format\":\"pt\"}".to_string()], 0);
    for (kind, width) in kinds {
        let to = at + 6 * width;
        entries.push(format!(
            "\"t.{kind}\":{{\"dtype\":\"{kind}\",\"shape\":[2,3],\"data_offsets\":[{at},{to}]}}"
        ));
        at = to;
    }
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    seeds.push([&length[..], header.as_bytes(), &vec![0; at]].concat());
    seeds
}

fn index_seeds() -> Vec<Vec<u8>> {
    let map = r#""weight_map":{"a":"1.safetensors","b":"2.safetensors"}"#;
    [
        format!("{{\"metadata\":{{\"total_size\":16}},{map}}}"),
        format!("{{{map}}}"),
        r#"{"weight_map":{"a":"1.safetensors"}}"#.to_string(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn seeds(checkpoints: &[Checkpoint]) -> Vec<Vec<u8>> {
    let seed = |(i, one): (usize, &Checkpoint)| [&[i as u8][..], one.seed()].concat();
    checkpoints.iter().enumerate().map(seed).collect()
}

fn generation_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"max_length":64,"min_length":1,"num_beams":4,"length_penalty":0.6,"early_stopping":true,"no_repeat_ngram_size":3,
"forced_eos_token_id":2,"forced_bos_token_id":0,"bad_words_ids":[[3],[4,5]],"eos_token_id":[2,3],"pad_token_id":1}"#,
        r#"{"do_sample":true,"temperature":0.7,"top_k":50,"top_p":0.9,"min_p":0.05,"repetition_penalty":1.2,
"max_new_tokens":20,"early_stopping":"never","num_return_sequences":2,"suppress_tokens":[7],"begin_suppress_tokens":[8]}"#,
        "\0{\"model_type\":\"t5\",\"num_beams\":2,\"eos_token_id\":1,\"decoder_start_token_id\":0,\"max_length\":20}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

const JSON: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"1e999",
    b"-0",
    b"0.5",
    b"1e-400",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967296",
    b"65536",
    b"1152921504606846976",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"a\":",
    b"\\u0000",
    b"\\ud800",
    b"../",
    b"/",
    b"\\\\",
    b"[[[[",
    b"{\"a\":",
    b",",
    b":",
    b"\"__metadata__\":",
    b"\"dtype\":\"F32\",",
    b"\"F64\"",
    b"\"F4\"",
    b"\"shape\":[0],",
    b"\"data_offsets\":[0,0],",
    b"[0,0,0,0]",
    b"1.safetensors",
    b"config.json",
    b"\xff\xfe",
    b"\"model_type\":\"lstm\",",
    b"NaN",
    b"Infinity",
];

const OPCODES: &[&[u8]] = &[
    b"cos\nsystem\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch.storage\nUntypedStorage\n",
    b"ctorch\nbool\n",
    b"ctorch._utils\n_rebuild_tensor_v3\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"h\x00",
    b"h\x01",
    b"q\x00",
    b"j\x00\x00\x00\x00",
    b"r\xff\xff\xff\xff",
    b"(",
    b")",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"]",
    b"}",
    b"a",
    b"e",
    b"s",
    b"u",
    b"R",
    b"b",
    b"Q",
    b"0",
    b"1",
    b"2",
    b".",
    b"N",
    b"\x88",
    b"\x93",
    b"\x94",
    b"K\x00",
    b"K\xff",
    b"M\xff\xff",
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8a\x00",
    b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00",
    b"X\xff\xff\xff\xff",
    b"X\x00\x00\x00\x00",
    b"\x8c\x010",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\x02",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"X\x0a\x00\x00\x00state_dict",
];
