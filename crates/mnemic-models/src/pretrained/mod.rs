//! Folders in the manner of Hugging Face: `config.json`, `model.safetensors`, and whatever belongs to them.

mod bytes;
#[cfg(feature = "hub")]
mod hub;
mod pickle;
mod safe_file;
mod shapes;
mod sharded;
mod tensors;
#[cfg(test)]
mod tests;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use candle_nn::Init;
use mnemic_layers::ParamStore;
use serde_json::{Map, Value};

use crate::any::{AnyStoryModel, ModelConfig, UniqueKeys};
use crate::error::{Error, MisshapenTensor, MissingTensor, Result, UnusedTensor, WeightsMismatch};

#[cfg(feature = "hub")]
pub use hub::{HubId, HubOptions, fetch};
pub use pickle::PickleFile;
pub use safe_file::SafeFile;
pub use sharded::Sharded;
pub use tensors::load_tensors;
pub use weights::Weights;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const CARD: &str = "README.md";

/// Keys of `config.json` beside the config's own.
const ARCHITECTURES: &str = "architectures";
const VERSION: &str = "mnemic_version";

/// The largest text file that is read; a vocabulary of a million words fits.
const MAX_TEXT: u64 = 64 << 20;

/// A model with its parameters, as [`from_pretrained`] reads it from a folder.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// What `config.json` says.
    pub config: ModelConfig,
    /// The model. Its parameters are those of `store`, so training `store` trains it.
    pub model: AnyStoryModel,
    /// The parameters.
    pub store: ParamStore,
    /// The folder.
    pub path: PathBuf,
}

impl Pretrained {
    /// Another text file of the folder, such as `vocab.json`.
    ///
    /// # Errors
    /// When `name` is not that of a file in the folder, or the file cannot be read or is not UTF-8.
    pub fn read_file(&self, name: &str) -> Result<String> {
        write::check_name(name)?;
        read_text(&self.path.join(name))
    }
}

/// Reads a folder that [`save_pretrained`] wrote, with parameters of type `dtype` on `device`.
///
/// Strict: config and file must name the same tensors with the same shapes, and every number must be finite. What
/// `config.json` asks for is compared with what `model.safetensors` holds before memory is taken. Nothing is written.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// let loaded = mnemic_models::from_pretrained("runs/task1/model", DType::F32, &Device::Cpu)?;
/// println!("{} with {} parameters", loaded.config.architecture(), loaded.store.num_parameters());
/// # Ok::<(), mnemic_models::Error>(())
/// ```
///
/// # Errors
/// When there is no such folder, a file is missing, malformed or cut off, a key is unknown, or tensors are missing, left over,
/// of another shape or not finite: each is named.
pub fn from_pretrained(
    path: impl AsRef<Path>,
    dtype: DType,
    device: &Device,
) -> Result<Pretrained> {
    let dir = path.as_ref();
    check_folder(dir)?;
    shapes::check_float("from_pretrained", dtype)?;
    let config = read_config(&dir.join(CONFIG))?;
    let file = dir.join(WEIGHTS);
    let bytes = tensors::read(&file)?;
    let tensors = tensors::TensorFile::parse(&file, &bytes)?;
    let found = tensors.shapes();
    let expected = shapes::expected(&config, &found).map_err(|e| e.at(dir))?;
    compare(&file, &expected, &found)?;

    let store = ParamStore::new(0);
    let vb = store.builder(dtype, device);
    for (name, shape) in &expected {
        let value = tensors.finite(name, dtype)?.to_device(device)?;
        // The model finds its parameters made, so that none is drawn in vain.
        vb.get_with_hints(shape.as_slice(), name, Init::Const(0.))?;
        if let Some(var) = store.get(name) {
            var.set(&value)?;
        }
    }
    let model = config.build(vb)?;
    Ok(Pretrained { config, model, store, path: dir.to_path_buf() })
}

/// Writes `config.json`, `model.safetensors`, the `extra` files (name and content), and, where there is none, a `README.md` into the
/// folder `path`, which is made if need be. Other files there stay as they are.
///
/// Every file is written beside its place, brought to the disk and then renamed, the weights last: whenever the process dies,
/// each file is the old one or the new one, whole. Tied weights are one parameter and written once.
///
/// # Errors
/// When config and store do not belong together, a number is not finite, an extra file's name is not a plain file name, or a
/// file cannot be written. In the first three cases nothing was written.
pub fn save_pretrained(
    path: impl AsRef<Path>,
    config: &ModelConfig,
    store: &ParamStore,
    extra: &[(&str, &str)],
) -> Result<()> {
    let dir = path.as_ref();
    config.validate()?;
    write::check_names(extra)?;
    let vars = store.vars();
    let found = vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
    let expected = shapes::expected(config, &found)?;
    let file = dir.join(WEIGHTS);
    compare(&file, &expected, &found)?;
    let weights = tensors::serialize(&file, &vars)?;
    let text = config_text(config)?;
    let card = card(config, store);

    let mut files: Vec<(&str, &[u8])> = extra.iter().map(|(n, c)| (*n, c.as_bytes())).collect();
    if !files.iter().any(|(name, _)| *name == CARD) && !dir.join(CARD).exists() {
        files.push((CARD, card.as_bytes()));
    }
    files.push((CONFIG, text.as_bytes()));
    files.push((WEIGHTS, &weights));
    write::write_all(dir, &files)
}

/// A path that is not a folder, explained.
fn check_folder(dir: &Path) -> Result<()> {
    let place = dir.display().to_string();
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        let reason = format!("expected a folder with {CONFIG} and {WEIGHTS}, got a file");
        return Err(Error::config(place, reason));
    }
    let part = |s: &str| {
        !s.is_empty()
            && !s.starts_with('.')
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let hub = place.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name));
    let hint = match hub {
        true => "; to load a Hugging Face hub id takes the feature `hub`, which this build lacks",
        false => "",
    };
    Err(Error::config(place, format!("no such folder{hint}")))
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = tensors::read_at_most(path, MAX_TEXT)?;
    String::from_utf8(bytes).map_err(|e| Error::format(path, format!("expected UTF-8: {e}")))
}

fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = read_text(path)?;
    let UniqueKeys(mut keys) =
        serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
    let names = keys.remove(ARCHITECTURES);
    if let Some(version) = keys.remove(VERSION)
        && !version.is_string()
    {
        return Err(Error::config(VERSION, "expected a string").at(path));
    }
    let config = ModelConfig::from_keys(keys).map_err(|e| e.at(path))?;
    let expected = Value::from(vec![config.type_name()]);
    if names.is_some_and(|names| names != expected) {
        let reason = format!("expected {expected} for {}", config.architecture());
        return Err(Error::config(ARCHITECTURES, reason).at(path));
    }
    Ok(config)
}

fn config_text(config: &ModelConfig) -> Result<String> {
    let mut keys: Map<String, Value> = config.all_keys()?;
    keys.insert(ARCHITECTURES.into(), vec![config.type_name()].into());
    keys.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
    let text = serde_json::to_string_pretty(&keys)
        .map_err(|e| Error::config(config.architecture(), e.to_string()))?;
    Ok(text + "\n")
}

/// A model card that says no more than the folder does.
fn card(config: &ModelConfig, store: &ParamStore) -> String {
    let (name, model) = (config.architecture(), config.type_name());
    format!(
        "---\nlibrary_name: mnemic\ntags: [{name}]\n---\n\n# {name}\n\nA `{model}` of {} parameters, \
         written by mnemic {}. Load it with `mnemic_models::from_pretrained`.\n",
        store.num_parameters(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Names and shapes of tensors.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Compares what a model expects with what is found.
fn compare(file: &Path, expected: &Shapes, found: &Shapes) -> Result<()> {
    let mut mismatch = WeightsMismatch { file: file.to_path_buf(), ..Default::default() };
    for (name, shape) in expected {
        let (name, expected) = (name.clone(), shape.clone());
        match found.get(&name) {
            None => mismatch.missing.push(MissingTensor { name, expected, near: None }),
            Some(found) if *found != expected => {
                mismatch.misshapen.push(MisshapenTensor { name, expected, found: found.clone() });
            }
            Some(_) => {}
        }
    }
    for (name, shape) in found.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        let (name, found) = (name.clone(), shape.clone());
        mismatch.unused.push(UnusedTensor { name, found, near: None });
    }
    match mismatch.is_empty() {
        true => Ok(()),
        false => Err(Box::new(mismatch.with_near_names()).into()),
    }
}
