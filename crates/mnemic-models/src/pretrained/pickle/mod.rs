//! Weights as `torch.save` writes them (`pytorch_model.bin`), read without running anything.
//!
//! Such a file is a zip archive: `NAME/data.pkl` is a pickle that says which tensors there are, `NAME/data/0`, `NAME/data/1`, … are
//! their numbers, stored as they are ([format](https://docs.pytorch.org/docs/stable/notes/serialization.html)). A pickle is a
//! program that may call any function by name; [`machine`] knows the few names that a state dict needs and refuses all others.

mod machine;
#[cfg(test)]
pub(crate) mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use candle_core::{DType, Tensor};
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use self::values::{Id, Value, Values, View};
use super::Shapes;
use super::bytes::{self, Bytes, elements};
use crate::error::{Error, Result, shown};

/// The largest pickle that is read. It names the tensors; their numbers are elsewhere.
const MAX_PICKLE: u64 = 16 << 20;

/// A file of `torch.save`, of which only the list of tensors is in memory.
///
/// Read are the archives that PyTorch has written since version 1.6, holding a dict of tensors, or a dict with such a dict under
/// `state_dict`. Nothing in the file is executed: names of functions and classes other than those of tensors are errors. What
/// the file claims is compared with its own sizes before memory is taken, so a small file makes no large tensor.
///
/// ```no_run
/// let file = mnemic_models::PickleFile::open("pytorch_model.bin")?;
/// for (name, shape) in file.shapes() {
///     println!("{name} {shape:?} {:?}", file.load(&name)?.dtype());
/// }
/// # Ok::<(), mnemic_models::Error>(())
/// ```
pub struct PickleFile {
    bytes: Bytes,
    tensors: BTreeMap<String, Stored>,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Stored {
    dtype: DType,
    /// The position of its storage in the file.
    start: u64,
    /// In elements of its storage; the last one is within it.
    offset: usize,
    last: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl PickleFile {
    /// Opens a file and reads its list of tensors.
    ///
    /// # Errors
    /// When the file cannot be read, is no archive of `torch.save`, is cut off, compressed or older than PyTorch 1.6, names anything
    /// but tensors of the types f64, f32, f16, bf16, i64, i32, i16, u8 and bool, or when a tensor does not fit into its storage.
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
        let tensors = list(&bytes).map_err(|reason| Error::format(bytes.path(), reason))?;
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

    /// Reads one tensor, in its own type (bool as u8) and contiguous, into the host's memory.
    ///
    /// # Errors
    /// When there is no such tensor or its bytes cannot be read.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let Some(stored) = self.tensors.get(name) else {
            return Err(Error::format(self.path(), format!("no tensor `{}`", shown(name))));
        };
        let width = stored.dtype.size_in_bytes();
        if elements(&stored.shape) == Some(0) {
            return bytes::tensor(&[], stored.dtype, &stored.shape);
        }
        let from = stored.start + (stored.offset * width) as u64;
        let span = self.bytes.read(from, ((stored.last - stored.offset + 1) * width) as u64)?;
        match contiguous(&stored.shape, &stored.stride) {
            true => bytes::tensor(&span, stored.dtype, &stored.shape),
            false => bytes::tensor(&gather(&span, stored), stored.dtype, &stored.shape),
        }
    }
}

impl fmt::Debug for PickleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickleFile")
            .field("path", &self.path())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Whether elements follow each other in order, the last dimension fastest. The stride of a dimension of size 1 says nothing.
fn contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(stride).rev().filter(|(size, _)| **size != 1).all(|(size, stride)| {
        let same = *stride == expected;
        expected *= size;
        same
    })
}

/// The elements of a strided tensor in order; `span` are the bytes from its first element to its last.
fn gather(span: &[u8], stored: &Stored) -> Vec<u8> {
    let width = stored.dtype.size_in_bytes();
    let mut out = Vec::with_capacity(stored.shape.iter().product::<usize>() * width);
    let mut index = vec![0; stored.shape.len()];
    let mut at = 0;
    loop {
        out.extend_from_slice(&span[at * width..(at + 1) * width]);
        // The next index, as an odometer counts.
        let mut dim = stored.shape.len();
        loop {
            if dim == 0 {
                return out;
            }
            dim -= 1;
            index[dim] += 1;
            at += stored.stride[dim];
            if index[dim] < stored.shape[dim] {
                break;
            }
            at -= stored.stride[dim] * stored.shape[dim];
            index[dim] = 0;
        }
    }
}

type Listed<T> = std::result::Result<T, String>;

/// All tensors of a file with their places.
fn list(bytes: &Bytes) -> Listed<BTreeMap<String, Stored>> {
    check_magic(bytes)?;
    let mut source = bytes.source();
    let mut archive = Archive::open(BufReader::new(&mut **source), bytes.length())?;
    let pickle = archive.pickle()?;
    let (values, root) = machine::run(&pickle)?;
    let mut tensors = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (key, value) in state_dict(&values, root)? {
        let Value::Text(name) = values.get(*key) else {
            return Err(format!("expected names of tensors, got {}", values.get(*key).kind()));
        };
        let Value::Tensor(view) = values.get(*value) else {
            let kind = values.get(*value).kind();
            return Err(format!("`{}` is {kind}, expected a tensor", shown(name)));
        };
        let place = match places.get(view.key) {
            Some(place) => *place,
            None => *places.entry(view.key).or_insert(archive.storage(view.key)?),
        };
        let stored = stored(view, place).map_err(|e| format!("`{}`: {e}", shown(name)))?;
        if tensors.insert(name.to_string(), stored).is_some() {
            return Err(format!("tensor `{}` stands twice", shown(name)));
        }
    }
    Ok(tensors)
}

fn stored(view: &View<'_>, (start, size): (u64, u64)) -> Listed<Stored> {
    if size != view.bytes as u64 {
        let (key, bytes) = (shown(view.key), view.bytes);
        return Err(format!("storage `{key}` should have {bytes} bytes, but has {size}"));
    }
    let (dtype, offset) = (view.dtype, view.offset);
    let (shape, stride) = (view.shape.clone(), view.stride.clone());
    // Only a tensor without elements has no last one.
    let last = view.last().unwrap_or(offset);
    Ok(Stored { dtype, start, offset, last, shape, stride })
}

/// The items of the dict of tensors: the outermost one, or that under `state_dict`.
fn state_dict<'v>(values: &'v Values<'_>, root: Id) -> Listed<&'v [(Id, Id)]> {
    let dict = |id| match values.get(id) {
        Value::Dict(items) => Ok(items),
        other => Err(format!("expected a dict of tensors, got {}", other.kind())),
    };
    let items = dict(root)?;
    let inner = items.iter().find(|(key, value)| {
        matches!(values.get(*key), Value::Text("state_dict"))
            && matches!(values.get(*value), Value::Dict(_))
    });
    match inner {
        Some((_, inner)) => Ok(dict(*inner)?),
        None => Ok(items),
    }
}

/// Refuses what is no zip archive, and says what it is instead.
fn check_magic(bytes: &Bytes) -> Listed<()> {
    let start = bytes.read(0, bytes.length().min(16)).map_err(|e| e.to_string())?;
    // The first value of the older format is the number 0x1950a86a20f9469cfc6c as a pickle of protocol 2.
    let legacy = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    if start.starts_with(b"PK\x03\x04") {
        Ok(())
    } else if start.starts_with(&legacy) {
        Err("this is the format of PyTorch before 1.6, which is not read: load and save it with a \
             newer PyTorch, best as safetensors"
            .to_string())
    } else {
        Err("expected an archive as torch.save writes it: this is no zip file".to_string())
    }
}

/// A zip archive with one folder.
struct Archive<R> {
    zip: ZipArchive<R>,
    /// Bytes of the whole file.
    length: u64,
    folder: String,
}

impl<R: Read + Seek> Archive<R> {
    fn open(source: R, length: u64) -> Listed<Self> {
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let zip = ZipArchive::with_config(config, source)
            .map_err(|e| format!("malformed archive, perhaps cut off: {e}"))?;
        if zip.has_duplicate_names() {
            return Err("an entry of the archive stands twice".to_string());
        }
        let mut found = zip.file_names_raw().filter_map(|name| {
            let folder = std::str::from_utf8(name).ok()?.strip_suffix("/data.pkl")?;
            (!folder.contains('/')).then(|| folder.to_string())
        });
        let (first, second) = (found.next(), found.next());
        drop(found);
        let mut archive = match (first, second) {
            (Some(folder), None) => Self { zip, length, folder },
            (None, _) => {
                return Err("no entry data.pkl: not written by torch.save".to_string());
            }
            (Some(_), Some(_)) => return Err("more than one data.pkl".to_string()),
        };
        archive.check_order()?;
        Ok(archive)
    }

    /// The numbers must be little-endian; files before PyTorch 2.1 do not say so, but are.
    fn check_order(&mut self) -> Listed<()> {
        let name = format!("{}/byteorder", self.folder);
        if self.zip.index_for_name(&name).is_none() {
            return Ok(());
        }
        match self.content(&name, 16)?.as_slice() {
            b"little" => Ok(()),
            other => {
                let order = shown(&String::from_utf8_lossy(other));
                Err(format!("byte order `{order}`, expected little"))
            }
        }
    }

    fn pickle(&mut self) -> Listed<Vec<u8>> {
        self.content(&format!("{}/data.pkl", self.folder), MAX_PICKLE)
    }

    /// Position and size of a storage.
    fn storage(&mut self, key: &str) -> Listed<(u64, u64)> {
        self.place(&format!("{}/data/{key}", self.folder))
    }

    fn content(&mut self, name: &str, most: u64) -> Listed<Vec<u8>> {
        let (_, size) = self.place(name)?;
        let problem = |reason: String| format!("entry `{}` {reason}", shown(name));
        if size > most {
            return Err(problem(format!("has {size} bytes, expected at most {most}")));
        }
        // Raw: torch.save can be told to leave check sums out, and torch.load never looks at them.
        let entry = self.zip.index_for_name(name).map(|index| self.zip.by_index_raw(index));
        let mut entry = match entry {
            Some(Ok(entry)) => entry,
            _ => return Err(problem("is missing".to_string())),
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| problem(format!("cannot be read: {e}")))?;
        Ok(bytes)
    }

    /// Position and size of an entry that is stored as it is and lies within the file.
    fn place(&mut self, name: &str) -> Listed<(u64, u64)> {
        let problem = |reason: String| format!("entry `{}` {reason}", shown(name));
        let Some(index) = self.zip.index_for_name(name) else {
            return Err(problem("is missing".to_string()));
        };
        let malformed = |e| problem(format!("is malformed: {e}"));
        let entry = self.zip.by_index_raw(index).map_err(malformed)?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let reason = "is compressed or encrypted; torch.save stores it as it is".to_string();
            return Err(problem(reason));
        }
        let (start, size) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
        let end = start.checked_add(size).filter(|end| *end <= self.length);
        match entry.compressed_size() == size && end.is_some() {
            true => Ok((start, size)),
            false => Err(problem(format!("of {size} bytes does not fit into the file"))),
        }
    }
}
