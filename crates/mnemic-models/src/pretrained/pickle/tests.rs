use std::fs;
use std::io::{Cursor, Write};

use candle_core::{Device, safetensors};
use mnemic_testing::shared_data;
use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

const FLAT: &[u8] = include_bytes!("fixtures/flat.bin");
const NESTED: &[u8] = include_bytes!("fixtures/nested.bin");

/// An archive with this pickle, and storages by their key.
pub(crate) fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let names = storages.iter().map(|(key, bytes)| (format!("m/data/{key}"), *bytes));
    let entries = [("m/data.pkl".to_string(), pickle), ("m/byteorder".to_string(), b"little")];
    for (name, bytes) in entries.into_iter().chain(names) {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn text(value: &str) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.as_bytes());
    out
}

fn int(value: i64) -> Vec<u8> {
    let mut out = vec![0x8a, 8];
    out.extend(value.to_le_bytes());
    out
}

fn tuple(values: &[i64]) -> Vec<u8> {
    let items = values.iter().flat_map(|v| int(*v));
    [b'('].into_iter().chain(items).chain([b't']).collect()
}

/// A tensor of the storage `key` of `class`, which has `length` elements.
fn tensor(
    class: &str,
    key: &str,
    length: i64,
    offset: i64,
    shape: &[i64],
    stride: &[i64],
) -> Vec<u8> {
    let global = |name: &str| format!("c{name}\n").replace(' ', "\n").into_bytes();
    [
        global("torch._utils _rebuild_tensor_v2"),
        b"((".to_vec(),
        text("storage"),
        global(class),
        text(key),
        text("cpu"),
        int(length),
        b"tQ".to_vec(),
        int(offset),
        tuple(shape),
        tuple(stride),
        b"\x89}tR".to_vec(),
    ]
    .concat()
}

/// A pickled dict of one entry.
fn dict(name: &str, value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", &*text(name), value, b"s."].concat()
}

/// A file of one tensor `w` of f32.
pub(crate) fn one(values: &[f32], shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = tensor("torch FloatStorage", "0", values.len() as i64, 0, shape, stride);
    archive(&dict("w", &tensor), &[("0", &bytes)])
}

/// A file of contiguous tensors of f32.
pub(crate) fn many(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let (mut pickle, mut storages) = (b"\x80\x02}(".to_vec(), Vec::new());
    for (number, (name, shape, values)) in tensors.iter().enumerate() {
        let key = number.to_string();
        let shape: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let stride: Vec<i64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        let length = values.len() as i64;
        pickle.extend(text(name));
        pickle.extend(tensor("torch FloatStorage", &key, length, 0, &shape, &stride));
        storages.push((key, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    }
    pickle.extend(b"u.");
    let storages: Vec<_> = storages.iter().map(|(k, bytes)| (k.as_str(), &**bytes)).collect();
    archive(&pickle, &storages)
}

fn open(bytes: &[u8]) -> Result<PickleFile> {
    PickleFile::from_bytes("x.bin", bytes.to_vec())
}

fn error(bytes: &[u8]) -> String {
    let text = open(bytes).unwrap_err().to_string();
    assert!(text.starts_with("x.bin: "), "{text}");
    text
}

/// The error of a pickle in an archive with a storage `0` of 16 bytes.
fn pickled(pickle: &[u8]) -> String {
    error(&archive(pickle, &[("0", &[0; 16])]))
}

#[test]
fn the_fixture_equals_its_safetensors() {
    let test = "pickled weights equal their safetensors";
    let Some(dir) = shared_data(test, "fixtures/hf/gpt2-lm") else {
        return;
    };
    let file = PickleFile::open(dir.join("pytorch_model.bin")).unwrap();
    let expected = safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    // `lm_head.weight` is tied to `transformer.wte.weight`: one storage, which safetensors holds once.
    let shapes = file.shapes();
    let extra: Vec<_> = shapes.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert_eq!(extra, ["lm_head.weight"]);
    assert_eq!(shapes.len(), expected.len() + 1);
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in &expected {
        assert_eq!(shapes[name], tensor.dims());
        let (a, b) = (bits(&file.load(name).unwrap()), bits(tensor));
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
    let tied = file.load("lm_head.weight").unwrap();
    assert_eq!(bits(&tied), bits(&expected["transformer.wte.weight"]));
}

#[test]
fn every_type_and_layout_of_torch_is_read() {
    for bytes in [FLAT, NESTED] {
        let file = open(bytes).unwrap();
        assert_eq!(file.shapes().len(), 16);
        let base: Vec<f64> = (0..24).map(f64::from).collect();
        let check = |name: &str, dtype: DType, shape: &[usize], values: Vec<f64>| {
            let tensor = file.load(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.dims()), (dtype, shape), "{name}");
            assert_eq!(file.shapes()[name], shape);
            let got = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
            assert_eq!(got.to_vec1::<f64>().unwrap(), values, "{name}");
        };
        check("f64", DType::F64, &[2, 3], (0..6).map(|i| f64::from(i) / 7.).collect());
        check("f32", DType::F32, &[4, 6], base.clone());
        let transposed = (0..24).map(|i| f64::from(i % 4 * 6 + i / 4)).collect();
        check("transposed", DType::F32, &[6, 4], transposed);
        check("window", DType::F32, &[2, 2], vec![7., 9., 13., 15.]);
        check("row", DType::F32, &[6], base[12..18].to_vec());
        let thirds = Tensor::arange(0f32, 24., &Device::Cpu).unwrap();
        let thirds = (thirds / 3.).unwrap().to_dtype(DType::F16).unwrap();
        let rounded = thirds.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        check("f16", DType::F16, &[4, 6], rounded);
        assert_eq!(file.load("bf16").unwrap().dtype(), DType::BF16);
        check("i64", DType::I64, &[2], vec![-1., 2f64.powi(40)]);
        check("i32", DType::I32, &[2], vec![-1., 2f64.powi(30)]);
        check("i16", DType::I16, &[2], vec![-3., 300.]);
        check("u8", DType::U8, &[2], vec![1., 255.]);
        check("bool", DType::U8, &[3], vec![1., 0., 1.]);
        check("scalar", DType::F32, &[], vec![2.5]);
        check("empty", DType::F32, &[0, 3], vec![]);
        check("parameter", DType::F32, &[2, 2], vec![3.; 4]);
        check("expanded", DType::I64, &[1, 4], vec![0., 1., 2., 3.]);
        let missing = file.load("f33").unwrap_err().to_string();
        assert_eq!(missing, "x.bin: no tensor `f33`");
    }
}

#[test]
fn types_may_be_said_beside_untyped_storages() {
    let v3 = |dtype: &str| {
        let mut bytes = tensor("torch.storage UntypedStorage", "0", 16, 2, &[2], &[2]);
        let at = bytes.windows(2).position(|w| w == b"v2").unwrap();
        bytes[at + 1] = b'3';
        bytes.truncate(bytes.len() - 2);
        bytes.extend(format!("ctorch\n{dtype}\ntR").bytes());
        dict("w", &bytes)
    };
    let storage: Vec<u8> =
        (0..8).collect::<Vec<i16>>().iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = open(&archive(&v3("int16"), &[("0", &storage)])).unwrap();
    assert_eq!(file.load("w").unwrap().to_vec1::<i16>().unwrap(), [2, 4]);
    assert!(error(&archive(&v3("float64"), &[("0", &storage)])).contains("2 elements"));
    assert!(error(&archive(&v3("uint16"), &[("0", &storage)])).contains("`torch.uint16`"));
    let untyped = dict("w", &tensor("torch.storage UntypedStorage", "0", 16, 0, &[2], &[1]));
    assert!(error(&archive(&untyped, &[("0", &storage)])).contains("a type that is said twice"));
}

#[test]
fn nothing_is_executed() {
    // cos / system / ( / S'…' is protocol 0; this is its form in protocol 2.
    let system = [b"\x80\x02cos\nsystem\n", &*text("touch /tmp/x"), b"\x85R."].concat();
    let refused = pickled(&system);
    assert!(refused.contains("byte 2: asks for `os.system`; only tensors"), "{refused}");
    assert!(refused.contains("nothing is executed"));
    let stacked = [b"\x80\x04", &*text("posix"), &text("system"), b"\x93."].concat();
    assert!(pickled(&stacked).contains("`posix.system`"));
    for name in
        ["builtins\neval", "torch\nload", "torch._utils\n_rebuild_tensor", "\n", "torch\nSize"]
    {
        let pickle = [b"\x80\x02c", name.as_bytes(), b"\n)R."].concat();
        assert!(pickled(&pickle).contains("asks for `"), "{name}");
    }
    // Instances are made by `i`, `o` and 0x81 (NEWOBJ); a known name is no instance either.
    for code in [b'i', b'o', 0x81, 0x92, 0x82, b'P', b'S', b'I', 0x97] {
        let pickle = [b"\x80\x02ccollections\nOrderedDict\n)".as_slice(), &[code], b"."].concat();
        assert!(pickled(&pickle).contains("which no state dict needs"), "{code}");
    }
    let state =
        [b"\x80\x02", &*tensor("torch FloatStorage", "0", 4, 0, &[4], &[1]), b"}b."].concat();
    assert!(pickled(&state).contains("a state for a tensor"));
}

#[test]
fn no_length_of_a_cut_file_loads_or_panics() {
    for whole in [one(&[1., 2.], &[2], &[1]), FLAT.to_vec()] {
        open(&whole).unwrap();
        for length in 0..whole.len() {
            error(&whole[..length]);
        }
    }
    let pickle = dict("w", &tensor("torch FloatStorage", "0", 4, 0, &[4], &[1]));
    for length in 0..pickle.len() {
        assert!(pickled(&pickle[..length]).contains("cut off"), "{length}");
    }
    assert!(pickled(&[&*pickle, b"."].concat()).contains("1 bytes follow the end"));
}

#[test]
fn tensors_lie_within_their_storages() {
    let with = |length: i64, offset: i64, shape: &[i64], stride: &[i64]| {
        let tensor = tensor("torch FloatStorage", "0", length, offset, shape, stride);
        archive(&dict("w", &tensor), &[("0", &[0; 16])])
    };
    open(&with(4, 0, &[4], &[1])).unwrap();
    open(&with(4, 3, &[1, 1], &[9, 9])).unwrap();
    open(&with(4, 4, &[0, 7], &[7, 1])).unwrap();
    let huge = i64::MAX;
    for (length, offset, shape, stride, reason) in [
        (3, 0, &[3][..], &[1][..], "storage `0` should have 12 bytes, but has 16"),
        (5, 0, &[4], &[1], "should have 20 bytes"),
        (-1, 0, &[4], &[1], "expected a size that exists, got -1"),
        (huge, 0, &[huge], &[1], "a storage of 9223372036854775807 elements"),
        (huge / 4, 0, &[4], &[1], "should have 9223372036854775804 bytes, but has 16"),
        (4, 0, &[5], &[1], "its storage has 4 elements"),
        (4, 1, &[4], &[1], "ends past its storage of 4 elements"),
        (4, 5, &[0], &[1], "from element 5 on"),
        (4, huge, &[1], &[1], "from element 9223372036854775807 on"),
        (4, 0, &[2], &[4], "ends past its storage"),
        (4, 0, &[2], &[huge], "ends past its storage"),
        (4, 0, &[2, 2], &[huge, huge], "ends past its storage"),
        (4, 0, &[4], &[-1], "expected a size that exists, got -1"),
        (4, 0, &[-4], &[1], "expected a size that exists"),
        (4, 0, &[4], &[1, 1], "with 2 strides"),
        // A stride of 0 repeats elements: 16 bytes would become 4 TiB.
        (4, 0, &[1 << 40], &[0], "its storage has 4 elements"),
        (4, 0, &[5], &[0], "its storage has 4 elements"),
        (4, 0, &[huge, huge, huge], &[0, 0, 0], "is too large"),
        (4, 0, &[0, huge, huge], &[0, 0, 0], "is too large"),
        (4, 0, &[1; 9], &[1; 9], "at most 8 dimensions, got 9"),
    ] {
        let error = error(&with(length, offset, shape, stride));
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
    let other = dict("w", &tensor("torch FloatStorage", "../0", 4, 0, &[4], &[1]));
    assert!(pickled(&other).contains("entry `m/data/../0` is missing"));
    let int8 = dict("w", &tensor("torch CharStorage", "0", 16, 0, &[16], &[1]));
    assert!(pickled(&int8).contains("asks for `torch.CharStorage`"));
}

#[test]
fn strange_structures_are_errors() {
    let tensor = tensor("torch FloatStorage", "0", 4, 0, &[4], &[1]);
    assert!(pickled(b"\x80\x02N.").contains("expected a dict of tensors, got None"));
    assert!(pickled(&[b"\x80\x02", &*tensor, b"."].concat()).contains("got a tensor"));
    assert!(pickled(&dict("w", b"K\x03")).contains("`w` is an integer, expected a tensor"));
    assert!(pickled(&dict("w", b"}")).contains("`w` is a dict, expected a tensor"));
    let number = [b"\x80\x02}K\x01", &*tensor, b"s."].concat();
    assert!(pickled(&number).contains("expected names of tensors, got an integer"));
    let twice = [b"\x80\x02}(", &*text("w"), &tensor, &text("w"), &tensor, b"u."].concat();
    assert!(pickled(&twice).contains("tensor `w` stands twice"));
    for (pickle, reason) in [
        (&b"\x80\x01}."[..], "expected protocol 2 to 5, got 1"),
        (b"\x80\x02.", "nothing is on the stack"),
        (b"\x80\x02}}.", "1 values are left over"),
        (b"\x80\x02(}.", "1 values are left over"),
        (b"\x80\x02}(.", "nothing is on the stack"),
        (b"\x80\x02t.", "no mark is set"),
        (b"\x80\x02}N(Nu.", "a key without a value"),
        (b"\x80\x02NNNs.", "expected a dict, got None"),
        (b"\x80\x02NNa.", "expected a list, got None"),
        (b"\x80\x02h\x05.", "memo 5 holds nothing"),
        (b"\x80\x02N)R.", "expected a function, got None"),
        (b"\x80\x02NNR.", "expected a tuple, got None"),
        (b"\x80\x02NQ.", "expected a tuple, got None"),
        (b"\x80\x02)Q.", "a storage of 5 parts, got 0"),
        (b"\x80\x02ccollections\nOrderedDict\n(NNtR.", "OrderedDict with 2 arguments"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "cut off: expected 4294967295 bytes"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc", "cut off"),
        (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "expected UTF-8"),
    ] {
        let error = pickled(pickle);
        assert!(error.contains(reason), "{error}, expected {reason}");
    }
}

#[test]
fn cycles_and_depth_are_harmless() {
    // A list that holds itself, and a dict that is its own state dict.
    let list = [b"\x80\x02]q\x00h\x00a".as_slice(), b"0", &dict("w", b"h\x00")[2..]].concat();
    assert!(pickled(&list).contains("`w` is a list, expected a tensor"));
    let dict = [b"\x80\x02}q\x00", &*text("state_dict"), b"h\x00s."].concat();
    assert!(pickled(&dict).contains("`state_dict` is a dict, expected a tensor"));
    // A tuple in a tuple in a tuple …
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    assert!(pickled(&deep).contains("got a tuple"));
    let many = [b"\x80\x02(".to_vec(), vec![b')'; 3 << 20], b"t.".to_vec()].concat();
    assert!(pickled(&many).contains("more than 2097152 values"));
    let marks = [b"\x80\x02".to_vec(), vec![b'('; 1 << 20], b".".to_vec()].concat();
    assert!(pickled(&marks).contains("nothing is on the stack"));
    let large = vec![b'N'; (16 << 20) + 1];
    assert!(pickled(&large).contains("`m/data.pkl` has 16777217 bytes, expected at most 16777216"));
}

#[test]
fn archives_are_those_of_torch() {
    assert!(error(b"").contains("no zip file"));
    assert!(error(&[0x93; 40]).contains("no zip file"));
    let legacy =
        [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    assert!(error(&legacy).contains("PyTorch before 1.6"));
    let raw = |entries: &[(&str, &[u8])]| {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    assert!(error(&raw(&[("a", b"x")])).contains("no entry data.pkl"));
    assert!(error(&raw(&[("a/b/data.pkl", b"x")])).contains("no entry data.pkl"));
    let two = raw(&[("a/data.pkl", b"x"), ("b/data.pkl", b"x")]);
    assert!(error(&two).contains("more than one data.pkl"));
    let big = raw(&[("a/data.pkl", b"x"), ("a/byteorder", b"big")]);
    assert!(error(&big).contains("byte order `big`, expected little"));

    // Method 8 (deflate), and the encryption flag, in the local and the central header of a storage.
    let whole = one(&[1., 2.], &[2], &[1]);
    let headers = |magic: &[u8], name_at: usize| {
        let at = whole.windows(4).enumerate().filter(|(_, w)| *w == magic).map(|(at, _)| at);
        at.filter(|at| whole[at + name_at..].starts_with(b"m/data/0")).collect::<Vec<_>>()
    };
    let (local, central) = (headers(b"PK\x03\x04", 30)[0], headers(b"PK\x01\x02", 46)[0]);
    for (method, flag) in [(8, 0), (0, 1)] {
        let mut changed = whole.clone();
        (changed[local + 8], changed[central + 10]) = (method, method);
        changed[local + 6] |= flag;
        changed[central + 8] |= flag;
        assert!(error(&changed).contains("entry `m/data/0` is compressed or encrypted"));
    }
    // A storage that begins, or ends, past the end of the file.
    for at in [central + 20, central + 24, central + 42] {
        let mut changed = whole.clone();
        changed[at + 2] = 0xff;
        error(&changed);
    }
}

#[test]
fn files_are_read_from_disk() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    assert!(matches!(PickleFile::open(&path), Err(Error::Io { .. })));
    assert!(PickleFile::open(dir.path()).unwrap_err().to_string().contains("regular file"));
    fs::write(&path, one(&[1., 2., 3., 4., 5., 6.], &[3, 2], &[1, 3])).unwrap();
    let file = PickleFile::open(&path).unwrap();
    let expected = [[1f32, 4.], [2., 5.], [3., 6.]];
    assert_eq!(file.load("w").unwrap().to_vec2::<f32>().unwrap(), expected);
    assert!(format!("{file:?}").contains("tensors: 1"));
    // A file that shrinks after it was opened.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert!(matches!(file.load("w"), Err(Error::Io { .. })));
}

#[test]
fn no_changed_byte_makes_it_panic() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % n
    };
    let whole = one(&[1., 2., 3.], &[3], &[1]);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut changed = whole.clone();
        for _ in 0..1 + below(3) {
            let at = below(whole.len());
            changed[at] =
                if below(2) == 0 { below(256) as u8 } else { changed[at] ^ (1 << below(8)) };
        }
        match open(&changed) {
            Ok(file) => {
                good += 1;
                for (name, shape) in file.shapes() {
                    assert_eq!(file.load(&name).unwrap().dims(), shape);
                }
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > 100 && bad > 5000, "{good} loaded, {bad} refused");
}
