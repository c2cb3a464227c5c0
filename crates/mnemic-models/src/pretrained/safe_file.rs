//! Weights in a safetensors file: the header is read and checked as a whole, then one tensor at a time.
//!
//! The [format](https://github.com/huggingface/safetensors#format): a length of 8 bytes, a JSON object of that length that gives
//! type, shape and place of every tensor, and their bytes, which lie side by side without a gap.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Shapes;
use super::bytes::{self, Bytes, elements};
use crate::any::unique_map;
use crate::error::{Error, Result, shown};

/// What is wrong with a header.
type Checked<T> = std::result::Result<T, String>;

/// The largest header, that of the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file, of which only the header is in memory.
///
/// The header is not trusted: lengths, names that stand twice, types, and sizes against shapes are checked, and the tensors must
/// fill the file without gap or overlap, before anything else is read.
///
/// ```no_run
/// let file = mnemic_models::SafeFile::open("model.safetensors")?;
/// for (name, shape) in file.shapes() {
///     println!("{name} {shape:?} {:?}", file.load(&name)?.dtype());
/// }
/// # Ok::<(), mnemic_models::Error>(())
/// ```
pub struct SafeFile {
    bytes: Bytes,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Position in the file, and bytes.
    from: u64,
    size: u64,
}

impl SafeFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read or is not a whole safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(Bytes::open(path.as_ref())?)
    }

    /// The same from bytes in memory; `path` names them in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        Self::read(Bytes::from_memory(path.as_ref(), bytes))
    }

    fn read(bytes: Bytes) -> Result<Self> {
        let header = header(&bytes)?;
        let data = 8 + header.len() as u64;
        let tensors = list(&header, data, bytes.length() - data)
            .map_err(|reason| Error::format(bytes.path(), reason))?;
        Ok(Self { bytes, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.bytes.path()
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> Shapes {
        self.tensors.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect()
    }

    /// Reads one tensor, in its own type (bool as u8), into the host's memory.
    ///
    /// # Errors
    /// When there is no such tensor, its type is not f64, f32, f16, bf16, i64, i32, i16, u32, u8 or bool, or its bytes cannot be read.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let problem = |reason: String| Error::format(self.path(), reason);
        let Some(stored) = self.tensors.get(name) else {
            return Err(problem(format!("no tensor `{}`", shown(name))));
        };
        let Some(dtype) = readable(stored.dtype) else {
            let (name, dtype) = (shown(name), stored.dtype);
            return Err(problem(format!("tensor `{name}` has type {dtype:?}, which is not read")));
        };
        let bytes = self.bytes.read(stored.from, stored.size)?;
        bytes::tensor(&bytes, dtype, &stored.shape)
    }

    /// [`load`](Self::load), with i8, which candle lacks, as f32.
    pub(super) fn load_widened(&self, name: &str) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(stored) if stored.dtype == Dtype::I8 => {
                let bytes = self.bytes.read(stored.from, stored.size)?;
                let values = bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect();
                Ok(Tensor::from_vec::<_, f32>(values, stored.shape.as_slice(), &Device::Cpu)?)
            }
            _ => self.load(name),
        }
    }
}

impl fmt::Debug for SafeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafeFile")
            .field("path", &self.path())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

fn readable(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::U8 | Dtype::BOOL => DType::U8,
        _ => return None,
    })
}

/// The text of the header.
fn header(bytes: &Bytes) -> Result<Vec<u8>> {
    let problem = |reason: String| Error::format(bytes.path(), reason);
    let total = bytes.length();
    if total < 8 {
        let reason = format!("expected a safetensors file of 8 bytes or more, got {total}");
        return Err(problem(reason));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&bytes.read(0, 8)?);
    let length = u64::from_le_bytes(length);
    if length > total - 8 {
        return Err(problem(format!(
            "the header's length {length} does not fit into the file's {total} bytes: cut off, or \
             not a safetensors file"
        )));
    }
    if length > MAX_HEADER {
        let reason = format!("a header of {length} bytes, expected at most {MAX_HEADER}");
        return Err(problem(reason));
    }
    bytes.read(8, length)
}

/// The tensors of a header; `from` is the position of their data, `total` its length.
fn list(header: &[u8], from: u64, total: u64) -> Checked<BTreeMap<String, Stored>> {
    let text = std::str::from_utf8(header).map_err(|e| format!("header: {e}"))?;
    let Header(entries) = serde_json::from_str(text).map_err(|e| format!("header: {e}"))?;
    for (name, entry) in &entries {
        entry.check(total).map_err(|reason| format!("tensor `{}` {reason}", shown(name)))?;
    }
    side_by_side(&entries, total)?;
    let stored = |(name, Entry { dtype, shape, begin, end }): (String, Entry)| {
        (name, Stored { dtype, shape, from: from + begin, size: end - begin })
    };
    Ok(entries.into_iter().map(stored).collect())
}

/// Refuses tensors that overlap, gaps between them, and bytes after the last.
fn side_by_side(entries: &BTreeMap<String, Entry>, total: u64) -> Checked<()> {
    let mut spans: Vec<_> = entries.iter().map(|(name, e)| (e.begin, e.end, name)).collect();
    spans.sort_unstable();
    let mut at = 0;
    for (begin, end, name) in spans {
        if begin != at {
            let name = shown(name);
            return Err(format!(
                "invalid offset for tensor `{name}`: begins at byte {begin} of the data, expected {at}"
            ));
        }
        at = end;
    }
    match total - at {
        0 => Ok(()),
        over => Err(format!("{over} bytes follow the last tensor")),
    }
}

/// What a header says of a tensor; places count from the header's end.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    begin: u64,
    end: u64,
}

impl Entry {
    fn check(&self, total: u64) -> Checked<()> {
        let Self { dtype, shape, begin, end } = self;
        if *end > total {
            return Err(format!("ends at byte {end} of the data's {total}: cut off?"));
        }
        let bits = elements(shape).and_then(|n| n.checked_mul(dtype.bitsize()));
        let Some(bits) = bits else {
            return Err(format!("of type {dtype:?} has a shape whose size overflows"));
        };
        match end.checked_sub(*begin) {
            Some(size) if bits % 8 == 0 && bits as u64 / 8 == size => Ok(()),
            _ => Err(format!(
                "of {bits} bits ({dtype:?}) does not fit its place, bytes {begin} to {end}"
            )),
        }
    }
}

struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let (mut entries, mut metadata) = (BTreeMap::new(), false);
                while let Some(name) = map.next_key::<String>()? {
                    if entries.contains_key(&name) || (metadata && name == METADATA) {
                        let reason = format!("`{}` stands twice", shown(&name));
                        return Err(A::Error::custom(reason));
                    }
                    if name == METADATA {
                        let Texts = map.next_value()?;
                        metadata = true;
                        continue;
                    }
                    let entry = map.next_value().map_err(|e| {
                        A::Error::custom(format!("tensor `{}` is malformed: {e}", shown(&name)))
                    })?;
                    entries.insert(name, entry);
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The entry that is no tensor.
const METADATA: &str = "__metadata__";

/// The values of `__metadata__`, which nothing here needs.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        unique_map::<D, String>(deserializer).map(|_| Self)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        // Derived code would take a list of the fields' values for an entry as well.
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entry, A::Error> {
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(key) = map.next_key::<String>()? {
                    let first = match key.as_str() {
                        "dtype" => dtype.replace(map.next_value::<Dtype>()?).is_none(),
                        "shape" => shape.replace(map.next_value::<Vec<usize>>()?).is_none(),
                        "data_offsets" => {
                            offsets.replace(map.next_value::<(u64, u64)>()?).is_none()
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            true
                        }
                    };
                    if !first {
                        return Err(A::Error::custom(format!("`{key}` stands twice")));
                    }
                }
                match (dtype, shape, offsets) {
                    (Some(dtype), Some(shape), Some((begin, end))) => {
                        Ok(Entry { dtype, shape, begin, end })
                    }
                    _ => Err(A::Error::custom("expected dtype, shape and data_offsets")),
                }
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mnemic_testing::shared_data;
    use tempfile::TempDir;

    use super::*;

    /// A file with this header and so many bytes of data.
    fn raw(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend((0..data).map(|i| i as u8));
        file
    }

    fn tensor(dtype: &str, shape: &str, from: u64, to: u64) -> String {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    }

    fn open(bytes: &[u8]) -> Result<SafeFile> {
        SafeFile::from_bytes("x.safetensors", bytes.to_vec())
    }

    fn error(bytes: &[u8]) -> String {
        let text = open(bytes).unwrap_err().to_string();
        assert!(text.starts_with("x.safetensors: "), "{text}");
        text
    }

    /// The error of a file with tensors and 4 bytes of data.
    fn refused(tensors: &[(&str, String)]) -> String {
        let entries: Vec<_> = tensors.iter().map(|(n, e)| format!("\"{n}\":{e}")).collect();
        error(&raw(&format!("{{{}}}", entries.join(",")), 4))
    }

    #[test]
    fn files_are_read_as_candle_reads_them() {
        let Some(dir) = shared_data("safetensors are read one by one", "fixtures/hf") else {
            return;
        };
        for name in ["gpt2-lm/model.safetensors", "bert-mlm/fixture.safetensors"] {
            let path = dir.join(name);
            let file = SafeFile::open(&path).unwrap();
            let expected =
                candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
            assert_eq!(file.shapes().len(), expected.len());
            for (name, tensor) in expected {
                let found = file.load(&name).unwrap();
                assert_eq!((found.dtype(), found.dims()), (tensor.dtype(), tensor.dims()));
                let bits = |t: &Tensor| {
                    let values = t.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                    let values = values.to_vec1::<f64>().unwrap();
                    values.into_iter().map(f64::to_bits).collect::<Vec<_>>()
                };
                assert_eq!(bits(&found), bits(&tensor), "{name}");
            }
        }
    }
    #[test]
    fn types_are_kept() {
        let entries = [
            ("a", tensor("F64", "[1]", 0, 8)),
            ("b", tensor("BOOL", "[2,1]", 8, 10)),
            ("c", tensor("U32", "[0,3]", 10, 10)),
            ("d", tensor("I8", "[2]", 10, 12)),
            ("e", tensor("I16", "[]", 12, 14)),
            ("f", tensor("F4", "[4]", 14, 16)),
            ("__metadata__", "{\"format\":\"pt\"}".to_string()),
        ];
        let entries: Vec<_> = entries.iter().map(|(n, e)| format!("\"{n}\":{e}")).collect();
        let file = open(&raw(&format!("{{{}}}   ", entries.join(",")), 16)).unwrap();
        assert_eq!(file.shapes().len(), 6);
        assert_eq!(file.load("b").unwrap().to_vec2::<u8>().unwrap(), [[8], [9]]);
        let empty = file.load("c").unwrap();
        assert_eq!((empty.dtype(), empty.dims()), (DType::U32, &[0, 3][..]));
        assert_eq!(file.load("e").unwrap().to_scalar::<i16>().unwrap(), 0x0d0c);
        for (name, dtype) in [("d", "I8"), ("f", "F4")] {
            let error = file.load(name).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}` has type {dtype}, which is not read")));
        }
        assert!(file.load("g").unwrap_err().to_string().contains("no tensor `g`"));
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert!(error(b"").contains("8 bytes or more, got 0"));
        assert!(error(&[0; 7]).contains("got 7"));
        assert!(error(&[0xff; 64]).contains("18446744073709551615 does not fit"));
        assert!(error(&100u64.to_le_bytes()).contains("100 does not fit into the file's 8 bytes"));
        assert!(error(&raw("[]", 0)).contains("expected an object"));
        assert!(error(&raw("{\"a\"", 4)).contains("EOF while parsing"));
        assert!(error(&raw("{} x", 0)).contains("header: trailing"));
        assert!(error(&raw(&"[".repeat(1 << 20), 0)).contains("header: "));
        let deep = format!("{{\"a\":{}", "{\"b\":[".repeat(1 << 18));
        assert!(error(&raw(&deep, 0)).contains("EOF while parsing"));
        let one = tensor("U8", "[4]", 0, 4);
        let with = |entry: &str| refused(&[("a", entry.to_string())]);
        for entry in [
            "1",
            "null",
            "{}",
            "[\"U8\",[4],[0,4]]",
            "{\"dtype\":\"U8\",\"shape\":[4]}",
            "{\"dtype\":\"U7\",\"shape\":[4],\"data_offsets\":[0,4]}",
            "{\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]}",
            "{\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]}",
            "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}",
            "{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}",
        ] {
            assert!(with(entry).contains("tensor `a` is malformed"), "{entry}");
        }
        let twice = [("a", one.clone()), ("a", one.clone())];
        assert!(refused(&twice).contains("`a` stands twice"));
        let metadata = ("__metadata__", "{}".to_string());
        assert!(refused(&[metadata.clone(), metadata]).contains("`__metadata__` stands twice"));
        assert!(refused(&[("__metadata__", "{\"a\":1}".to_string())]).contains("header: "));
        assert!(refused(&[("__metadata__", one)]).contains("header: "));
    }

    #[test]
    fn tensors_fill_the_file() {
        let u8s = |from, to| tensor("U8", &format!("[{}]", to - from), from, to);
        assert!(
            refused(&[("a", u8s(0, 5))]).contains("`a` ends at byte 5 of the data's 4: cut off?")
        );
        assert!(refused(&[("a", u8s(0, 3))]).contains("1 bytes follow the last tensor"));
        assert!(refused(&[]).contains("4 bytes follow the last tensor"));
        assert!(refused(&[("a", u8s(1, 4))]).contains("invalid offset for tensor `a`"));
        let gap = [("a", u8s(0, 1)), ("b", u8s(2, 4))];
        assert!(refused(&gap).contains("invalid offset for tensor `b`: begins at byte 2"));
        let overlap = [("a", u8s(0, 4)), ("b", u8s(2, 4))];
        assert!(refused(&overlap).contains("`b`: begins at byte 2 of the data, expected 4"));
        for (dtype, shape, from, to) in [
            ("U8", "[4]", 4, 0),
            ("U8", "[3]", 0, 4),
            ("F32", "[4]", 0, 4),
            ("F4", "[7]", 0, 4),
            ("U8", "[0]", 0, 4),
        ] {
            let error = refused(&[("a", tensor(dtype, shape, from, to))]);
            assert!(error.contains("does not fit its place"), "{error}");
        }
        for shape in ["[4294967296,4294967296,4294967296]", "[0,9223372036854775808,2]"] {
            let error = refused(&[("a", tensor("U8", shape, 0, 4))]);
            assert!(error.contains("overflows"), "{error}");
        }
        // The bits overflow, the elements do not.
        let error = refused(&[("a", tensor("F64", "[1152921504606846976]", 0, 4))]);
        assert!(error.contains("overflows"), "{error}");
    }

    #[test]
    fn cut_files_are_refused_and_files_that_shrink_are_noticed() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("m.safetensors");
        let whole = raw(&format!("{{\"a\":{}}}", tensor("I32", "[2]", 0, 8)), 8);
        for length in 0..whole.len() {
            error(&whole[..length]);
        }
        assert!(matches!(SafeFile::open(&path), Err(Error::Io { .. })));
        fs::write(&path, &whole).unwrap();
        let file = SafeFile::open(&path).unwrap();
        assert_eq!(file.load("a").unwrap().to_vec1::<i32>().unwrap(), [0x03020100, 0x07060504]);
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(file.load("a"), Err(Error::Io { .. })));
    }
}
