//! The loaders as functions of bytes, and the files that mutation starts from.
//!
//! Every function gives whether the input was accepted. What it must never do is panic, hang, or take memory that the input does
//! not account for.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::OnceLock;

use candle_core::{DType, Device};
use mnemic_models::transformer::bert;
use mnemic_models::{
    AnyStoryModel, ModelConfig, ParamStore, PickleFile, PretrainedModel, SafeFile, Sharded, Sizes,
    from_pretrained, save_pretrained,
};
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

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
    let models = models();
    let Some((first, text)) = bytes.split_first() else {
        return false;
    };
    let model = &models[usize::from(*first) % models.len()];
    fs::write(model.dir.path().join("config.json"), text).unwrap();
    (model.load)(model.dir.path())
}

/// A folder of a small model.
struct Model {
    dir: TempDir,
    /// Whether the folder is accepted.
    load: fn(&Path) -> bool,
}

impl Model {
    fn save<M: PretrainedModel>(config: &M::Config) -> Self {
        let store = ParamStore::new(5);
        M::build(config, store.builder(DType::F32, &Device::Cpu)).unwrap();
        let dir = TempDir::new().unwrap();
        save_pretrained::<M>(dir.path(), config, &store, &[]).unwrap();
        Self { dir, load: |dir| from_pretrained::<M>(dir, DType::F32, &Device::Cpu).is_ok() }
    }
}

/// One model of each architecture.
fn models() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let sizes = Sizes { vocab_size: 12, sentence_len: 4, memory_size: 6 };
        let story = |architecture: &str| {
            let preset = ModelConfig::presets(architecture).unwrap()[0];
            let config = ModelConfig::preset(architecture, preset, sizes).unwrap();
            Model::save::<AnyStoryModel>(&narrow(config))
        };
        let mut models: Vec<_> = ModelConfig::architectures().into_iter().map(story).collect();
        let config = bert::Config {
            vocab_size: 12,
            hidden_size: 4,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 6,
            max_position_embeddings: 8,
            ..bert::Config::base()
        };
        models.push(Model::save::<bert::BertModel>(&config));
        models.push(Model::save::<bert::BertForMaskedLm>(&config));
        models
    })
}

/// The same model with layers of three units.
fn narrow(config: ModelConfig) -> ModelConfig {
    let keys = serde_json::to_value(&config).unwrap();
    let wanted = ["hidden_size", "embedding_dim", "ngram_buckets"];
    let there = wanted.iter().filter(|key| keys.get(**key).is_some_and(|v| *v != 0));
    let overrides = there.map(|key| (key.to_string(), 3.into())).collect();
    config.with_overrides(overrides).unwrap()
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
        Target { name: "config", run: config, seeds: config_seeds(), words: JSON, repair: |_| {} },
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

fn config_seeds() -> Vec<Vec<u8>> {
    let text = |dir: &Path| fs::read(dir.join("config.json")).unwrap();
    let seed = |(i, model): (usize, &Model)| [&[i as u8][..], &text(model.dir.path())].concat();
    models().iter().enumerate().map(seed).collect()
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
