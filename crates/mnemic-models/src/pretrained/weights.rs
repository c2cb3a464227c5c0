//! The weights of a folder, whichever form they have.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::Shapes;
use super::pickle::PickleFile;
use super::safe_file::SafeFile;
use super::sharded::Sharded;
use crate::error::{Error, Result, shown};

/// The files that may hold a folder's weights, in the order in which they are looked for.
pub(super) const CANDIDATES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The two forms of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Safetensors,
    Pickle,
}

impl Form {
    /// How the names of such files end.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Safetensors => ".safetensors",
            Self::Pickle => ".bin",
        }
    }

    /// The form of the files that an index of this name is for.
    pub(super) fn of_index(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        match name.strip_suffix(".index.json") {
            Some(stem) if stem.ends_with(".safetensors") => Ok(Self::Safetensors),
            Some(stem) if stem.ends_with(".bin") => Ok(Self::Pickle),
            _ => {
                let reason =
                    "expected a name that ends in .safetensors.index.json or .bin.index.json";
                Err(Error::format(path, reason))
            }
        }
    }
}

/// One file of weights.
#[derive(Debug)]
pub(super) enum WeightsFile {
    Safetensors(SafeFile),
    Pickle(PickleFile),
}

impl WeightsFile {
    pub(super) fn open(path: &Path, form: Form) -> Result<Self> {
        Ok(match form {
            Form::Safetensors => Self::Safetensors(SafeFile::open(path)?),
            Form::Pickle => Self::Pickle(PickleFile::open(path)?),
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Pickle(file) => file.path(),
        }
    }

    pub(super) fn shapes(&self) -> Shapes {
        match self {
            Self::Safetensors(file) => file.shapes(),
            Self::Pickle(file) => file.shapes(),
        }
    }

    pub(super) fn load(&self, name: &str) -> Result<Tensor> {
        match self {
            Self::Safetensors(file) => file.load(name),
            Self::Pickle(file) => file.load(name),
        }
    }
}

/// The weights of a folder: one safetensors file, one file of `torch.save`, or several of either by an index. Tensors are read
/// one at a time.
///
/// ```no_run
/// let weights = mnemic_models::Weights::open("gpt2")?;
/// println!("{} tensors in {}", weights.shapes().len(), weights.path().display());
/// let embeddings = weights.load("wte.weight")?;
/// # Ok::<(), mnemic_models::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Weights {
    /// `model.safetensors`.
    Safetensors(SafeFile),
    /// `pytorch_model.bin`.
    Pickle(PickleFile),
    /// An index and the files that it names.
    Sharded(Sharded),
}

impl Weights {
    /// Opens the weights of a folder. Looked for are, in this order, `model.safetensors`, `model.safetensors.index.json`,
    /// `pytorch_model.bin` and `pytorch_model.bin.index.json`.
    ///
    /// # Errors
    /// When the folder has none of them (all are listed), or as for the file that is found.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        match find(dir) {
            Some(path) => Self::open_file(path),
            None => {
                let reason = format!("no weights: expected one of {}", CANDIDATES.join(", "));
                Err(Error::config(dir.display().to_string(), reason + &others(dir)))
            }
        }
    }

    /// Opens one file of weights, or an index, by the ending of its name: `.safetensors`, `.bin`, `.pt`, `.pth` or `.index.json`.
    ///
    /// # Errors
    /// When the name ends otherwise, or as for such a file.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".index.json"]) {
            Ok(Self::Sharded(Sharded::open(path)?))
        } else if ends(&[".safetensors"]) {
            Ok(Self::Safetensors(SafeFile::open(path)?))
        } else if ends(&[".bin", ".pt", ".pth"]) {
            Ok(Self::Pickle(PickleFile::open(path)?))
        } else {
            let reason =
                "expected a name that ends in .safetensors, .bin, .pt, .pth or .index.json";
            Err(Error::format(path, reason))
        }
    }

    /// The file of weights, or the index.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(file) => file.path(),
            Self::Pickle(file) => file.path(),
            Self::Sharded(files) => files.path(),
        }
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> Shapes {
        match self {
            Self::Safetensors(file) => file.shapes(),
            Self::Pickle(file) => file.shapes(),
            Self::Sharded(files) => files.shapes(),
        }
    }

    /// Reads one tensor, in its own type (bool as u8), into the host's memory.
    ///
    /// # Errors
    /// When there is no such tensor, its type is not read, or the file cannot be read.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        match self {
            Self::Safetensors(file) => file.load(name),
            Self::Pickle(file) => file.load(name),
            Self::Sharded(files) => files.load(name),
        }
    }

    /// The file that holds a tensor; for a name that is none, the file or index that lacks it.
    pub fn file_of(&self, name: &str) -> &Path {
        match self {
            Self::Sharded(files) => files.file_of(name).unwrap_or(files.path()),
            one => one.path(),
        }
    }
}

/// The file with which reading a folder's weights begins.
pub(super) fn find(dir: &Path) -> Option<PathBuf> {
    CANDIDATES.iter().map(|name| dir.join(name)).find(|path| path.exists())
}

/// The first files of a folder that look like weights of another kind, for a message.
fn others(dir: &Path) -> String {
    let kinds = ["h5", "msgpack", "ot", "gguf", "onnx", "safetensors", "bin", "pt", "pth", "ckpt"];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<_> = names
        .filter(|name| name.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind)))
        .map(|name| shown(&name))
        .collect();
    found.sort_unstable();
    found.truncate(5);
    match found.is_empty() {
        true => String::new(),
        false => format!("; found only {}", found.join(", ")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::pickle::tests::one;
    use super::*;

    /// A safetensors file of vectors.
    pub(crate) fn safetensors(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let (mut header, mut data) = (Vec::new(), Vec::new());
        for (name, values) in tensors {
            let from = data.len();
            data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            let (n, to) = (values.len(), data.len());
            header.push(format!(
                "\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{n}],\"data_offsets\":[{from},{to}]}}"
            ));
        }
        let header = format!("{{{}}}", header.join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    }

    #[test]
    fn safetensors_come_before_pickles_and_whole_files_before_shards() {
        let dir = TempDir::new().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        let value = || {
            let weights = Weights::open(dir.path()).unwrap();
            assert_eq!(weights.shapes().keys().collect::<Vec<_>>(), ["w"]);
            let file = weights.file_of("w").file_name().unwrap().to_str().unwrap().to_string();
            (weights.load("w").unwrap().to_vec1::<f32>().unwrap()[0], file)
        };
        put("q.bin", &one(&[1.], &[1], &[1]));
        put("pytorch_model.bin.index.json", b"{\"weight_map\":{\"w\":\"q.bin\"}}");
        assert_eq!(value(), (1., "q.bin".to_string()));
        put("pytorch_model.bin", &one(&[2.], &[1], &[1]));
        assert_eq!(value(), (2., "pytorch_model.bin".to_string()));
        put("q.safetensors", &safetensors(&[("w", &[3.])]));
        put("model.safetensors.index.json", b"{\"weight_map\":{\"w\":\"q.safetensors\"}}");
        assert_eq!(value(), (3., "q.safetensors".to_string()));
        put("model.safetensors", &safetensors(&[("w", &[4.])]));
        assert_eq!(value(), (4., "model.safetensors".to_string()));
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.file_of("none"), dir.path().join("model.safetensors"));
        assert!(weights.load("none").unwrap_err().to_string().contains("no tensor `none`"));
    }

    #[test]
    fn a_folder_without_weights_says_what_was_looked_for() {
        let dir = TempDir::new().unwrap();
        let error = || Weights::open(dir.path()).unwrap_err().to_string();
        let looked = "expected one of model.safetensors, model.safetensors.index.json, \
                      pytorch_model.bin, pytorch_model.bin.index.json";
        assert!(error().ends_with(looked), "{}", error());
        fs::write(dir.path().join("tf_model.h5"), "").unwrap();
        fs::write(dir.path().join("config.json"), "").unwrap();
        assert!(error().ends_with("; found only tf_model.h5"), "{}", error());
        let file = Weights::open_file(dir.path().join("config.json"));
        assert!(file.unwrap_err().to_string().contains(".safetensors, .bin"));
        let pickle = dir.path().join("x.pt");
        fs::write(&pickle, one(&[1.], &[1], &[1])).unwrap();
        assert!(matches!(Weights::open_file(&pickle).unwrap(), Weights::Pickle(_)));
    }
}
