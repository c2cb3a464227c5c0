use std::fs;

use candle_core::Tensor;
use mnemic_layers::Context;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::any::ModelConfig;
use crate::config::Sizes;
use crate::story::StoryModel;
use crate::testing::{VOCAB, stories};

const SIZES: Sizes = Sizes { vocab_size: VOCAB, sentence_len: 4, memory_size: 6 };

/// A preset with narrow layers.
fn small(architecture: &str, preset: &str) -> ModelConfig {
    let config = ModelConfig::preset(architecture, preset, SIZES).unwrap();
    let narrow = json!({ "hidden_size": 3, "embedding_dim": 3, "ngram_buckets": 5 });
    let keys = config.all_keys().unwrap();
    let fits = |(key, _): &(&String, &Value)| keys.get(*key).is_some_and(|v| *v != json!(0));
    let changes = narrow.as_object().unwrap().iter().filter(fits);
    config.with_overrides(changes.map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap()
}

fn all() -> Vec<ModelConfig> {
    let presets = |a| ModelConfig::presets(a).unwrap().iter().map(move |p| small(a, p));
    ModelConfig::architectures().into_iter().flat_map(presets).collect()
}

fn build(config: &ModelConfig, dtype: DType) -> (AnyStoryModel, ParamStore) {
    let store = ParamStore::new(5);
    (config.build(store.builder(dtype, &Device::Cpu)).unwrap(), store)
}

/// A saved LSTM reader, the smallest of all.
fn saved() -> (TempDir, ModelConfig, ParamStore) {
    let dir = TempDir::new().unwrap();
    let config = small("lstm", "lstm");
    let store = build(&config, DType::F32).1;
    save_pretrained::<AnyStoryModel>(dir.path(), &config, &store, &[("vocab.json", "[\"a\"]")])
        .unwrap();
    (dir, config, store)
}

fn load(dir: &Path) -> Result<Pretrained> {
    from_pretrained(dir, DType::F32, &Device::Cpu)
}

fn message(dir: &Path) -> String {
    load(dir).unwrap_err().to_string()
}

/// Every file of a folder with its content.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn bits(store: &ParamStore) -> Vec<(String, Vec<usize>, Vec<u64>)> {
    let bits = |t: &Tensor| {
        let values = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>();
        values.unwrap().into_iter().map(f64::to_bits).collect()
    };
    store.vars().iter().map(|(n, v)| (n.clone(), v.dims().to_vec(), bits(v))).collect()
}

/// A small deterministic generator.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    }
}

#[test]
fn round_trips_are_bit_identical_for_every_preset() {
    let (batch, _) = stories(4, 9);
    for config in all() {
        for dtype in [DType::F32, DType::F64] {
            let dir = TempDir::new().unwrap();
            let (model, store) = build(&config, dtype);
            save_pretrained::<AnyStoryModel>(dir.path(), &config, &store, &[]).unwrap();
            let loaded = from_pretrained(dir.path(), dtype, &Device::Cpu).unwrap();
            assert_eq!(loaded.config, config);
            assert_eq!(bits(&loaded.store), bits(&store));
            assert_eq!(config.num_parameters().unwrap(), store.num_parameters() as u128);
            let logits = |m: &AnyStoryModel| {
                let out = m.forward(&batch, &Context::eval()).unwrap().logits;
                out.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()
            };
            assert_eq!(logits(&loaded.model), logits(&model), "{config:?}");

            let again = TempDir::new().unwrap();
            save_pretrained::<AnyStoryModel>(again.path(), &loaded.config, &loaded.store, &[])
                .unwrap();
            assert_eq!(contents(again.path()), contents(dir.path()));
        }
    }
}

#[test]
fn a_loaded_model_is_trained_through_its_store() {
    let (dir, ..) = saved();
    let loaded = load(dir.path()).unwrap();
    let batch = stories(2, 1).0;
    let logits = |m: &AnyStoryModel| {
        m.forward(&batch, &Context::eval()).unwrap().logits.to_vec2::<f32>().unwrap()
    };
    let before = logits(&loaded.model);
    let bias = loaded.store.get("answer.bias").unwrap();
    bias.set(&(bias.as_tensor() + 1.).unwrap()).unwrap();
    for (a, b) in before.iter().flatten().zip(logits(&loaded.model).iter().flatten()) {
        assert!((b - a - 1.).abs() < 1e-5);
    }
}

#[test]
fn the_folder_is_what_hugging_face_users_expect() {
    let (dir, ..) = saved();
    let files = contents(dir.path());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["README.md", "config.json", "model.safetensors", "vocab.json"]);
    let config: Value = serde_json::from_slice(&files[CONFIG]).unwrap();
    assert_eq!(config["model_type"], "lstm");
    assert_eq!(config["architectures"], json!(["LstmReader"]));
    assert_eq!(config["mnemic_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(config["hidden_size"], 3);
    let (_, header) = safetensors::SafeTensors::read_metadata(&files[WEIGHTS]).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let names = header.offset_keys();
    assert!(names.is_sorted() && names.len() == 7, "{names:?}");
    assert_eq!(load(dir.path()).unwrap().read_file("vocab.json").unwrap(), "[\"a\"]");
    assert!(load(dir.path()).unwrap().read_file("../x").is_err());
}

#[test]
fn pickles_and_shards_give_the_same_model() {
    let (dir, _, store) = saved();
    let whole = fs::read(dir.path().join(WEIGHTS)).unwrap();
    fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
    let tensors: Vec<_> = store.vars().into_iter().collect();
    let pickled = |tensors: &[(String, candle_core::Var)]| {
        let values = |v: &candle_core::Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let all: Vec<_> =
            tensors.iter().map(|(n, v)| (n.as_str(), v.dims().to_vec(), values(v))).collect();
        pickle::tests::many(&all)
    };
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("pytorch_model.bin", &pickled(&tensors));
    assert_eq!(bits(&load(dir.path()).unwrap().store), bits(&store));
    fs::remove_file(dir.path().join("pytorch_model.bin")).unwrap();

    let (one, two) = tensors.split_at(3);
    put("1.bin", &pickled(one));
    put("2.bin", &pickled(two));
    let of = |tensors: &[(String, candle_core::Var)], file: &str| {
        tensors.iter().map(|(n, _)| (n.clone(), json!(file))).collect::<Map<_, _>>()
    };
    let mut map = of(one, "1.bin");
    map.extend(of(two, "2.bin"));
    put("pytorch_model.bin.index.json", json!({ "weight_map": map }).to_string().as_bytes());
    assert_eq!(bits(&load(dir.path()).unwrap().store), bits(&store));
    map.remove("answer.bias");
    put("pytorch_model.bin.index.json", json!({ "weight_map": map }).to_string().as_bytes());
    let error = message(dir.path());
    assert!(error.contains("index.json: weights do not fit the config: 1 missing"), "{error}");
    // A number that is not finite is told with the file that holds it.
    let bad = store.get("answer.weight").unwrap();
    bad.set(&(bad.as_tensor() / 0.).unwrap()).unwrap();
    put("1.bin", &pickled(&store.vars().into_iter().take(3).collect::<Vec<_>>()));
    map.insert("answer.bias".into(), "1.bin".into());
    put("pytorch_model.bin.index.json", json!({ "weight_map": map }).to_string().as_bytes());
    let error = message(dir.path());
    assert!(error.contains("1.bin: tensor `answer.weight` holds"), "{error}");
    put(WEIGHTS, &whole);
    load(dir.path()).unwrap();
}

#[test]
fn tied_weights_are_stored_once() {
    let dir = TempDir::new().unwrap();
    let config = small("memn2n", "pe_ls_rn");
    save_pretrained::<AnyStoryModel>(dir.path(), &config, &build(&config, DType::F32).1, &[])
        .unwrap();
    let tensors = load_tensors(dir.path().join(WEIGHTS), &Device::Cpu).unwrap();
    // 3 hops: A^1, C^1 = A^2, C^2 = A^3, C^3, with their time vectors; B = A^1 and W = C^3.
    assert_eq!(tensors.len(), 8);
    assert_eq!(tensors["words.0.weight"].dims(), [VOCAB, 3]);
}

#[test]
fn types_are_converted() {
    let (dir, _, store) = saved();
    let wide: Pretrained = from_pretrained(dir.path(), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(bits(&wide.store), bits(&store));
    let half: Pretrained = from_pretrained(dir.path(), DType::BF16, &Device::Cpu).unwrap();
    assert_eq!(half.store.get("answer.weight").unwrap().dtype(), DType::BF16);
    let error = from_pretrained::<AnyStoryModel>(dir.path(), DType::U8, &Device::Cpu)
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected type F32, F64, F16 or BF16, got U8"), "{error}");
}

#[test]
fn saving_keeps_other_files_and_a_card_that_is_there() {
    let (dir, config, store) = saved();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join(CARD), "my card").unwrap();
    save_pretrained::<AnyStoryModel>(dir.path(), &config, &store, &[("vocab.json", "[]")]).unwrap();
    let files = contents(dir.path());
    assert_eq!(files.len(), 5);
    assert_eq!((&files["notes.txt"][..], &files[CARD][..]), (&b"mine"[..], &b"my card"[..]));
    assert_eq!(files["vocab.json"], b"[]");
    save_pretrained::<AnyStoryModel>(dir.path(), &config, &store, &[(CARD, "new card")]).unwrap();
    assert_eq!(contents(dir.path())[CARD], b"new card");
}

#[cfg(unix)]
#[test]
fn saved_files_are_as_readable_as_others() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, ..) = saved();
    fs::write(dir.path().join("plain"), "").unwrap();
    let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode(WEIGHTS), mode("plain"));
}

#[test]
fn a_save_that_fails_leaves_everything_as_it_was() {
    let (dir, config, store) = saved();
    fs::create_dir(dir.path().join("in_the_way")).unwrap();
    let before = contents(dir.path());
    let fail = |config: &ModelConfig, store: &ParamStore, extra: &[(&str, &str)]| {
        let error = save_pretrained::<AnyStoryModel>(dir.path(), config, store, extra)
            .unwrap_err()
            .to_string();
        assert_eq!(contents(dir.path()), before);
        error
    };
    let error = fail(&config, &store, &[("vocab.json", "new"), ("in_the_way", "x")]);
    assert!(error.contains("in_the_way") && error.contains("found a folder"), "{error}");
    for name in ["", "..", "a/b", "../a", ".hidden", "a\\b", "c:x", "model.safetensors"] {
        let error = fail(&config, &store, &[("vocab.json", "new"), (name, "x")]);
        assert!(error.contains("file name") && error.contains("expected"), "{error}");
    }
    assert!(fail(&config, &store, &[("a", "x"), ("a", "y")]).contains("written already"));

    let other = small("dmn-plus", "dmn2");
    assert!(fail(&other, &store, &[]).contains("missing: `attention.w1.bias`"));
    let bias = store.get("answer.bias").unwrap();
    bias.set(&(bias.as_tensor() / 0.).unwrap()).unwrap();
    let error = fail(&config, &store, &[]);
    assert!(error.contains("`answer.bias` holds NaN as F32 at flat index 0"), "{error}");
}

#[test]
fn a_file_in_place_of_the_folder_is_an_error() {
    let (dir, config, store) = saved();
    let file = dir.path().join("vocab.json");
    assert!(
        save_pretrained::<AnyStoryModel>(&file, &config, &store, &[])
            .unwrap_err()
            .to_string()
            .contains("vocab")
    );
    assert_eq!(fs::read(&file).unwrap(), b"[\"a\"]");
    assert!(message(&file).contains("expected a folder with config.json and model.safetensors"));
}

#[test]
fn missing_folders_and_files_are_named() {
    let (dir, ..) = saved();
    assert!(message(&dir.path().join("nowhere")).ends_with("nowhere: no such folder"));
    #[cfg(not(feature = "hub"))]
    {
        let hub = message(Path::new("some-owner/some-model"));
        assert!(hub.contains("no such folder") && hub.contains("feature `hub`"), "{hub}");
    }
    for name in [WEIGHTS, CONFIG] {
        fs::remove_file(dir.path().join(name)).unwrap();
        assert!(message(dir.path()).contains(name));
    }
}

/// Changes `config.json` and gives the error.
fn with_config(change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let (dir, ..) = saved();
    let path = dir.path().join(CONFIG);
    let mut keys: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut keys);
    fs::write(&path, serde_json::to_string(&keys).unwrap()).unwrap();
    let error = message(dir.path());
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    error
}

#[test]
fn wrong_configs_are_named() {
    let set = |key: &str, value: Value| with_config(|keys| _ = keys.insert(key.into(), value));
    let error = set("hiden_size", json!(3));
    assert!(error.contains("config.json") && error.contains("unknown key `hiden_size`"), "{error}");
    assert!(error.contains("did you mean `hidden_size`? known: dropout, embedding_dim"), "{error}");
    let error = with_config(|keys| _ = keys.remove("dropout"));
    assert!(error.contains("lstm config: missing: dropout"), "{error}");
    assert!(set("hidden_size", json!("3")).contains("hidden_size: invalid type: string"));
    assert!(set("hidden_size", json!(-3)).contains("hidden_size: invalid value: integer `-3`"));
    assert!(set("hidden_size", json!(0)).contains("hidden_size must be positive"));
    assert!(set("dropout", json!(2)).contains("lstm config: dropout must lie in [0, 1], got 2"));
    assert!(set("dropout", json!(null)).contains("dropout: invalid type: null"));
    assert!(set("model_type", json!("lstn")).contains("did you mean `lstm`?"));
    assert!(set("model_type", json!(["lstm"])).contains("expected one of memn2n"));
    assert!(with_config(|keys| _ = keys.remove("model_type")).contains("model_type: missing"));
    assert!(set("architectures", json!(["Dmn"])).contains("expected [\"LstmReader\"] for lstm"));
    assert!(set("mnemic_version", json!(1)).contains("mnemic_version: expected a string"));
    let (dir, ..) = saved();
    let twice = "{\"model_type\": \"lstm\", \"dropout\": 0, \"dropout\": 1}";
    fs::write(dir.path().join(CONFIG), twice).unwrap();
    assert!(message(dir.path()).contains("`dropout` stands twice at line 1"));
    fs::write(dir.path().join(CONFIG), "[".repeat(1 << 20)).unwrap();
    assert!(message(dir.path()).contains("config.json"));
    fs::write(dir.path().join(CONFIG), [0xff, 0xfe]).unwrap();
    assert!(message(dir.path()).contains("expected UTF-8"));
}

#[test]
fn both_extra_keys_may_be_absent() {
    let (dir, config, _) = saved();
    fs::write(dir.path().join(CONFIG), serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(load(dir.path()).unwrap().config, config);
}

#[test]
fn hostile_sizes_are_refused_before_memory_is_taken() {
    let set = |key: &str, value: u64| with_config(|keys| _ = keys.insert(key.into(), value.into()));
    for key in ["vocab_size", "hidden_size", "embedding_dim"] {
        let error = set(key, u64::from(u32::MAX));
        assert!(error.contains("asks for") && error.contains("numbers"), "{error}");
        assert!(set(key, u64::MAX).contains("must be at most 4294967295"));
    }
    assert!(set("num_layers", 1 << 40).contains("num_layers must be at most 1024"));
    for config in all() {
        let dir = TempDir::new().unwrap();
        save_pretrained::<AnyStoryModel>(dir.path(), &config, &build(&config, DType::F32).1, &[])
            .unwrap();
        for (key, value) in config.all_keys().unwrap() {
            if !value.is_u64() {
                continue;
            }
            for size in [u64::MAX, u64::from(u32::MAX), 1 << 16, 1 << 10] {
                let mut keys = config.all_keys().unwrap();
                keys.insert(key.clone(), size.into());
                fs::write(dir.path().join(CONFIG), serde_json::to_string(&keys).unwrap()).unwrap();
                // Some keys (rounds, limits) fit the same weights. A size never does.
                let loaded = load(dir.path());
                let bounded = ["vocab_size", "hidden_size", "embedding_dim", "ngram_buckets"];
                assert!(loaded.is_err() || !bounded.contains(&key.as_str()), "{key} {size}");
            }
        }
    }
}

#[test]
fn huge_position_weights_are_refused() {
    let config = small("dmn-plus", "dmn2");
    let wide = json!({ "sentence_len": 60_000, "hidden_size": 1000 });
    let wide = config.with_overrides(wide.as_object().unwrap().clone()).unwrap();
    let found = Shapes::from([("x".to_string(), vec![15_000_000])]);
    let error = shapes::expected::<AnyStoryModel>(&wide, &found).unwrap_err().to_string();
    assert!(
        error.contains("60000000 position weights") && error.contains("sentence_len"),
        "{error}"
    );
}

/// Named tensors of one type as a safetensors file.
fn file_of(tensors: &[(&str, Vec<usize>)], dtype: Dtype) -> Vec<u8> {
    let zeros = vec![0; 1 << 16];
    let view = |shape: &Vec<usize>| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        TensorView::new(dtype, shape.clone(), &zeros[..bytes]).unwrap()
    };
    safetensors::serialize(tensors.iter().map(|(n, s)| (*n, view(s))), None).unwrap()
}

#[test]
fn every_wrong_tensor_is_named() {
    let (dir, config, store) = saved();
    let mut tensors: Vec<(String, Vec<usize>)> =
        store.vars().iter().map(|(n, v)| (n.clone(), v.dims().to_vec())).collect();
    for (name, shape) in &mut tensors {
        match name.as_str() {
            "answer.weight" => *name = "answer.weigth".into(),
            "lstm.bias_hh_l0" => shape.push(1),
            "lstm.weight_ih_l0" => *name = "rnn".into(),
            _ => {}
        }
    }
    let named: Vec<_> = tensors.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
    fs::write(dir.path().join(WEIGHTS), file_of(&named, Dtype::F32)).unwrap();
    let error = load(dir.path()).unwrap_err();
    let text = error.to_string();
    let Error::Weights(mismatch) = error else { panic!("{text}") };
    assert_eq!(mismatch.file, dir.path().join(WEIGHTS));
    let missing: Vec<_> = mismatch.missing.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(missing, ["answer.weight", "lstm.weight_ih_l0"]);
    assert_eq!(mismatch.missing[0].expected, [config.vocab_size(), 3]);
    assert_eq!(mismatch.missing[0].near.as_deref(), Some("answer.weigth"));
    assert_eq!(mismatch.missing[1].near, None);
    let unused: Vec<_> = mismatch.unused.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(unused, ["answer.weigth", "rnn"]);
    assert_eq!(mismatch.misshapen[0].expected, [12]);
    assert_eq!(mismatch.misshapen[0].found, [12, 1]);
    assert!(text.contains("2 missing, 2 unused, 1 misshapen"), "{text}");
    assert!(text.contains("misshapen: `lstm.bias_hh_l0`, expected (12), found (12, 1)"), "{text}");
}

#[test]
fn numbers_that_no_model_can_use_are_named() {
    let (dir, _, store) = saved();
    let named: Vec<_> = store.vars().into_iter().map(|(n, v)| (n, v.dims().to_vec())).collect();
    let named: Vec<_> = named.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
    let path = dir.path().join(WEIGHTS);
    fs::write(&path, file_of(&named, Dtype::I32)).unwrap();
    let error = message(dir.path());
    assert!(
        error.contains("tensor `answer.bias`: expected type F32") && error.contains("got I32"),
        "{error}"
    );
    fs::write(&path, file_of(&named, Dtype::I8)).unwrap();
    assert!(message(dir.path()).contains("tensor `answer.bias` has type I8, which is not read"));
    fs::write(&path, file_of(&named, Dtype::BOOL)).unwrap();
    assert!(message(dir.path()).contains("got U8"));

    let with_last = |bytes: &[u8], dtype| {
        let mut file = file_of(&named, dtype);
        let at = file.len() - bytes.len();
        file[at..].copy_from_slice(bytes);
        fs::write(&path, file).unwrap();
        message(dir.path())
    };
    let last = named.last().unwrap().0;
    let error = with_last(&f32::NAN.to_le_bytes(), Dtype::F32);
    assert!(error.contains(&format!("tensor `{last}` holds NaN as F32")), "{error}");
    assert!(with_last(&f32::NEG_INFINITY.to_le_bytes(), Dtype::F32).contains("holds -inf"));
    assert!(
        with_last(&1e300f64.to_le_bytes(), Dtype::F64).contains("holds inf as F32 at flat index")
    );
}

/// A file with this header and so many bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; data]);
    file
}

#[test]
fn hostile_tensor_files_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let text = load_tensors(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("x.safetensors: "), "{text}");
        text
    };
    let tensor = |from: u64, to: u64, shape: &str| {
        format!("{{\"dtype\":\"U8\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let one = tensor(0, 4, "[4]");
    assert!(error(b"").contains("8 bytes or more, got 0"));
    assert!(error(&[0; 7]).contains("got 7"));
    assert!(error(&[0xff; 64]).contains("18446744073709551615 does not fit"));
    assert!(error(&100u64.to_le_bytes()).contains("100 does not fit into the file's 8 bytes"));
    assert!(error(&raw("{\"a\":1}", 4)).contains("tensor `a` is malformed"));
    assert!(error(&raw("{\"a\"", 4)).contains("EOF while parsing"));
    assert!(error(&raw(&format!("{{\"a\":{one},\"a\":{one}}}"), 4)).contains("`a` stands twice"));
    let overlap = format!("{{\"a\":{one},\"b\":{}}}", tensor(2, 6, "[4]"));
    assert!(error(&raw(&overlap, 6)).contains("invalid offset for tensor `b`"));
    assert!(
        error(&raw(&format!("{{\"a\":{one}}}"), 3)).contains("`a` ends at byte 4 of the data's 3")
    );
    assert!(error(&raw(&format!("{{\"a\":{one}}}"), 9)).contains("5 bytes follow the last tensor"));
    let shape = "[4294967296,4294967296,4294967296]";
    assert!(error(&raw(&format!("{{\"a\":{}}}", tensor(0, 4, shape)), 4)).contains("overflow"));
    assert!(
        error(&raw(&format!("{{\"a\":{}}}", tensor(4, 0, "[4]")), 4)).contains("x.safetensors")
    );
    // Nine tensors whose sizes add up to 2^64 and a little.
    let n = 1u64 << 61;
    let spans: Vec<String> = (0..7)
        .map(|i| {
            format!("\"t{i}\":{}", tensor(i * (n - 1), (i + 1) * (n - 1), "[2305843009213693951]"))
        })
        .collect();
    assert!(error(&raw(&format!("{{{}}}", spans.join(",")), 4)).contains("of the data's 4"));
    // The same, written as lists, which serde takes for structs as well.
    let listed = "{\"a\":[\"U8\",[4],[0,4]]}";
    assert!(error(&raw(listed, 4)).contains("tensor `a` is malformed"));
}

#[cfg(unix)]
#[test]
fn endless_files_are_not_read() {
    let (dir, ..) = saved();
    for name in [WEIGHTS, CONFIG] {
        fs::remove_file(dir.path().join(name)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(name)).unwrap();
        let error = message(dir.path());
        assert!(error.contains(name) && error.contains("expected a regular file"), "{error}");
    }
}

#[test]
fn no_length_of_a_cut_file_loads_or_panics() {
    let (dir, ..) = saved();
    for name in [WEIGHTS, CONFIG] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let before = contents(dir.path());
            // config.json ends with a newline that it does not need.
            let complete = name == CONFIG && length + 1 == whole.len();
            assert_eq!(load(dir.path()).is_ok(), complete, "{name} cut to {length}");
            assert_eq!(contents(dir.path()), before);
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn no_changed_byte_makes_it_panic() {
    let (dir, ..) = saved();
    let mut below = numbers(17);
    for (name, rounds) in [(WEIGHTS, 2500), (CONFIG, 2500)] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let header = match name {
            WEIGHTS => 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize,
            _ => whole.len(),
        };
        let (mut good, mut bad) = (0, 0);
        for _ in 0..rounds {
            let mut changed = whole.clone();
            for _ in 0..1 + below(3) {
                let at = below(header);
                changed[at] = match below(3) {
                    0 => below(256) as u8,
                    1 => changed[at] ^ (1 << below(8)),
                    _ => b"0123456789[]{}\",:-e."[below(20)],
                };
            }
            fs::write(&path, &changed).unwrap();
            match load(dir.path()) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
            assert_eq!(fs::read(&path).unwrap(), changed);
        }
        assert!(bad > rounds / 2 && good > 0, "{name}: {good} loaded, {bad} refused");
        fs::write(&path, &whole).unwrap();
    }
    load(dir.path()).unwrap();
    assert_eq!(contents(dir.path()).len(), 4);
}

#[test]
fn changed_weights_load_or_are_refused() {
    let (dir, ..) = saved();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(&path).unwrap();
    let mut below = numbers(3);
    for _ in 0..500 {
        let mut changed = whole.clone();
        let at = below(whole.len());
        changed[at] ^= 1 << below(8);
        fs::write(&path, &changed).unwrap();
        if let Ok(loaded) = load(dir.path()) {
            let batch = stories(1, 1).0;
            loaded.model.forward(&batch, &Context::eval()).unwrap();
        }
    }
}
