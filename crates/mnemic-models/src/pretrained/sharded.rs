//! Weights that are spread over several files (shards) by an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::Deserialize;
use serde::Deserializer;

use super::weights::{Form, WeightsFile};
use super::{Shapes, read_text, write};
use crate::any::unique_map;
use crate::error::{Error, Result, shown};

/// The most files that one index may name; all of them are open at once.
const MAX_SHARDS: usize = 512;
/// Missing files that a message names.
const SHOWN: usize = 10;

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json` with the files that it names.
///
/// The index is an object whose `weight_map` gives the file of every tensor. Files lie beside the index, each has the form that
/// the index is for, and each must hold the tensors that are mapped to it. Tensors of a file that the index does not name are
/// not part of the weights.
#[derive(Debug)]
pub struct Sharded {
    index: PathBuf,
    files: Vec<WeightsFile>,
    /// For every tensor which of `files` holds it, and its shape.
    tensors: BTreeMap<String, (usize, Vec<usize>)>,
}

impl Sharded {
    /// Opens an index and all files that it names.
    ///
    /// # Errors
    /// When the index cannot be read or is malformed, files are missing (they are named) or malformed, or a file lacks a tensor that
    /// is mapped to it.
    pub fn open(index: impl AsRef<Path>) -> Result<Self> {
        let path = index.as_ref();
        let form = Form::of_index(path)?;
        let map = read_index(path, form)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut numbers = BTreeMap::new();
        for file in map.values() {
            let next = numbers.len();
            numbers.entry(file.as_str()).or_insert(next);
        }
        check_there(path, dir, numbers.keys())?;
        let mut names: Vec<_> = numbers.iter().map(|(name, number)| (*number, *name)).collect();
        names.sort_unstable();
        let open = |(_, name): &(usize, &str)| WeightsFile::open(&dir.join(name), form);
        let files = names.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut shapes: Vec<Shapes> = files.iter().map(WeightsFile::shapes).collect();
        let mut tensors = BTreeMap::new();
        for (name, file) in &map {
            let number = numbers[file.as_str()];
            let Some(shape) = shapes[number].remove(name) else {
                let reason = format!("`{}` should be in {file}, but is not", shown(name));
                return Err(Error::format(path, reason));
            };
            tensors.insert(name.clone(), (number, shape));
        }
        Ok(Self { index: path.to_path_buf(), files, tensors })
    }

    /// The index.
    pub fn path(&self) -> &Path {
        &self.index
    }

    /// Names and shapes of the tensors that the index names.
    pub fn shapes(&self) -> Shapes {
        self.tensors.iter().map(|(name, (_, shape))| (name.clone(), shape.clone())).collect()
    }

    /// Reads one tensor, in its own type, into the host's memory.
    ///
    /// # Errors
    /// When the index names no such tensor, or as for the file that holds it.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some((number, _)) => self.files[*number].load(name),
            None => Err(Error::format(&self.index, format!("no tensor `{}`", shown(name)))),
        }
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        self.tensors.get(name).map(|(number, _)| self.files[*number].path())
    }
}

/// The names of the files of an index, each once, in order: what is to be fetched from the hub.
///
/// # Errors
/// When the index cannot be read or is malformed.
#[cfg(feature = "hub")]
pub(super) fn files_of(index: &Path) -> Result<Vec<String>> {
    let mut files: Vec<_> = read_index(index, Form::of_index(index)?)?.into_values().collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn read_index(path: &Path, form: Form) -> Result<BTreeMap<String, String>> {
    parse_index(&read_text(path)?, form).map_err(|reason| Error::format(path, reason))
}

/// The file of every tensor, as an index says.
fn parse_index(text: &str, form: Form) -> std::result::Result<BTreeMap<String, String>, String> {
    let Index { weight_map: Map(map) } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if map.is_empty() {
        return Err("weight_map is empty".to_string());
    }
    let mut files: Vec<_> = map.iter().map(|(tensor, file)| (file, tensor)).collect();
    files.sort_unstable();
    files.dedup_by_key(|(file, _)| *file);
    for (file, tensor) in &files {
        let plain = write::check_name(file).is_ok();
        if !plain || !file.ends_with(form.ending()) {
            let (file, tensor, ending) = (shown(file), shown(tensor), form.ending());
            return Err(format!(
                "`{tensor}` is mapped to `{file}`, expected the plain name of a {ending} file in the \
                 folder"
            ));
        }
    }
    match files.len() > MAX_SHARDS {
        true => Err(format!("{} files, expected at most {MAX_SHARDS}", files.len())),
        false => Ok(map),
    }
}

fn check_there<'a>(
    index: &Path,
    dir: &Path,
    names: impl Iterator<Item = &'a &'a str>,
) -> Result<()> {
    let missing: Vec<_> = names.copied().filter(|name| !dir.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let more = match missing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let named = missing.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    Err(Error::format(index, format!("{} files are missing: {named}{more}", missing.len())))
}

#[derive(Deserialize)]
struct Index {
    weight_map: Map,
}

struct Map(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        unique_map(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::super::pickle::tests::one;
    use super::super::weights::tests::safetensors;
    use super::*;

    const INDEX: &str = "model.safetensors.index.json";

    fn folder(map: &Value, files: &[(&str, Vec<u8>)]) -> TempDir {
        let dir = TempDir::new().unwrap();
        let index = json!({ "metadata": { "total_size": 20 }, "weight_map": map });
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn refused(map: &Value, files: &[(&str, Vec<u8>)]) -> String {
        let dir = folder(map, files);
        let text = Sharded::open(dir.path().join(INDEX)).unwrap_err().to_string();
        assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn tensors_come_from_the_files_that_they_are_mapped_to() {
        // `b` stands in both files; the index says which is meant.
        let first = safetensors(&[("a", &[1., 2.]), ("b", &[3.])]);
        let second = safetensors(&[("b", &[4.]), ("c", &[5.])]);
        let map = json!({ "a": "1.safetensors", "b": "2.safetensors" });
        let dir = folder(&map, &[("1.safetensors", first), ("2.safetensors", second)]);
        let weights = Sharded::open(dir.path().join(INDEX)).unwrap();
        assert_eq!(weights.shapes().keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(weights.load("a").unwrap().to_vec1::<f32>().unwrap(), [1., 2.]);
        assert_eq!(weights.load("b").unwrap().to_vec1::<f32>().unwrap(), [4.]);
        assert_eq!(weights.file_of("b").unwrap(), dir.path().join("2.safetensors"));
        assert!(weights.load("c").unwrap_err().to_string().contains("no tensor `c`"));
        assert_eq!(weights.file_of("c"), None);
    }

    #[test]
    fn shards_may_be_pickles() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("pytorch_model.bin.index.json");
        fs::write(&path, "{\"weight_map\":{\"w\":\"p.bin\"}}").unwrap();
        fs::write(dir.path().join("p.bin"), one(&[1., 2.], &[2], &[1])).unwrap();
        let weights = Sharded::open(&path).unwrap();
        assert_eq!(weights.load("w").unwrap().to_vec1::<f32>().unwrap(), [1., 2.]);
        fs::write(&path, "{\"weight_map\":{\"w\":\"p.safetensors\"}}").unwrap();
        let text = Sharded::open(&path).unwrap_err().to_string();
        assert!(text.contains("expected the plain name of a .bin file"), "{text}");
        assert!(Sharded::open(dir.path().join("p.bin")).is_err());
    }

    #[test]
    fn files_and_tensors_that_are_missing_are_named() {
        let file = safetensors(&[("a", &[1.])]);
        let map = json!({ "a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors" });
        let error = refused(&map, &[("2.safetensors", file.clone())]);
        assert!(error.contains("2 files are missing: 1.safetensors, 3.safetensors"), "{error}");
        let many: serde_json::Map<_, _> =
            (0..40).map(|i| (i.to_string(), format!("{i:02}.safetensors").into())).collect();
        let error = refused(&many.into(), &[]);
        assert!(error.contains("40 files are missing: 00.safetensors"), "{error}");
        assert!(error.ends_with("09.safetensors and 30 more"), "{error}");
        let error = refused(
            &json!({ "a": "1.safetensors", "b": "1.safetensors" }),
            &[("1.safetensors", file.clone())],
        );
        assert!(error.contains("`b` should be in 1.safetensors, but is not"), "{error}");
        let cut = file[..file.len() - 1].to_vec();
        let error = refused(&json!({ "a": "1.safetensors" }), &[("1.safetensors", cut)]);
        assert!(error.contains("1.safetensors: tensor `a` ends at byte 4"), "{error}");
    }

    #[test]
    fn hostile_indexes_are_refused() {
        for name in [
            "../x.safetensors",
            "/x.safetensors",
            "a/x.safetensors",
            "a\\x.safetensors",
            "",
            "..",
            ".x.safetensors",
            "x.bin",
            "config.json",
            "x.safetensors\n",
        ] {
            let error = refused(&json!({ "a": name }), &[]);
            assert!(error.contains("`a` is mapped to `"), "{name}: {error}");
        }
        let many: serde_json::Map<_, _> =
            (0..600).map(|i| (i.to_string(), format!("{i}.safetensors").into())).collect();
        assert!(refused(&many.into(), &[]).contains("600 files, expected at most 512"));
        assert!(refused(&json!({}), &[]).contains("weight_map is empty"));
        assert!(refused(&json!([1]), &[]).contains("expected an object"));
        assert!(refused(&json!({ "a": 1 }), &[]).contains("expected a string"));
        let dir = folder(&json!({}), &[]);
        let path = dir.path().join(INDEX);
        for (text, reason) in [
            ("", "EOF"),
            ("{}", "missing field `weight_map`"),
            ("{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}", "`a` stands twice"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Sharded::open(&path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(INDEX), "{error}");
        }
    }
}
