//! Folders in the manner of Hugging Face: `config.json`, the weights, and whatever belongs to them.

mod bytes;
#[cfg(feature = "hub")]
mod hub;
mod model;
mod pickle;
mod safe_file;
mod shapes;
mod sharded;
mod tensors;
#[cfg(test)]
mod tests;
#[cfg(feature = "tokenizers")]
mod tokenizer;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_layers::ParamStore;
use serde_json::{Map, Value};

use crate::any::{AnyStoryModel, MODEL_TYPE, UniqueKeys};
use crate::error::{Error, MisshapenTensor, MissingTensor, Result, UnusedTensor, WeightsMismatch};

#[cfg(feature = "hub")]
pub use hub::{HubId, HubOptions, fetch};
pub(crate) use model::ARCHITECTURES;
pub use model::{Place, PretrainedModel};
pub use pickle::PickleFile;
pub use safe_file::SafeFile;
pub use sharded::Sharded;
pub use tensors::load_tensors;
#[cfg(feature = "tokenizers")]
pub use tokenizer::{DecodeStream, Encoded, SpecialTokens, Tokenizer};
pub use weights::Weights;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const CARD: &str = "README.md";

/// The largest text file that is read; a vocabulary of a million words fits.
const MAX_TEXT: u64 = 64 << 20;

/// A model with its parameters, as [`from_pretrained`] reads it from a folder.
#[derive(Debug, Clone)]
pub struct Pretrained<M: PretrainedModel = AnyStoryModel> {
    /// What `config.json` says.
    pub config: M::Config,
    /// The model. Its parameters are those of `store`, so training `store` trains it.
    pub model: M,
    /// The parameters.
    pub store: ParamStore,
    /// The folder.
    pub path: PathBuf,
    /// Tensors of the checkpoint that this model has no use for: buffers, copies of tied weights, another model's head.
    pub left: Vec<String>,
    /// Parameters of a new head, which the checkpoint does not have ([`LoadOptions::new_head`]).
    pub new: Vec<String>,
}

impl<M: PretrainedModel> Pretrained<M> {
    /// Another text file of the folder, such as `vocab.json`.
    ///
    /// # Errors
    /// When `name` is not that of a file in the folder, or the file cannot be read or is not UTF-8.
    pub fn read_file(&self, name: &str) -> Result<String> {
        write::check_name(name)?;
        read_text(&self.path.join(name))
    }

    /// The model over the same numbers, but cut from the graph: it keeps no intermediate results for a backward pass. For
    /// answering and generating.
    ///
    /// # Errors
    /// When the config is not valid any more.
    pub fn inference_model(&self, dtype: DType, device: &Device) -> Result<M> {
        M::build(&self.config, self.store.frozen(dtype, device))
    }

    /// [`save_pretrained`] of this model.
    ///
    /// # Errors
    /// As [`save_pretrained`].
    pub fn save(&self, path: impl AsRef<Path>, extra: &[(&str, &str)]) -> Result<()> {
        save_pretrained::<M>(path, &self.config, &self.store, extra)
    }
}

/// How a checkpoint is read.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The type of the parameters.
    pub dtype: DType,
    /// Where they lie.
    pub device: Device,
    /// Whether a head that the checkpoint does not have is drawn anew, from this seed: to train a classifier from an encoder.
    pub new_head: Option<u64>,
    /// The names of a classifier's labels, in place of those that `config.json` has: `id2label`, `label2id` and `num_labels`.
    pub labels: Option<Vec<String>>,
}

impl Default for LoadOptions {
    /// f32 on the CPU, no new head, the labels of the file.
    fn default() -> Self {
        Self { dtype: DType::F32, device: Device::Cpu, new_head: None, labels: None }
    }
}

/// Reads a folder that [`save_pretrained`] or Hugging Face's `transformers` wrote, with parameters of type `dtype` on `device`.
///
/// The weights are `model.safetensors`, `pytorch_model.bin` or either in shards, see [`Weights`]. With the feature `hub` a path that
/// does not exist is taken for an id of the hub, such as `google-bert/bert-base-uncased` or `gpt2@main`, and fetched into the cache
/// that the environment names (`HF_HOME` and its like, see `HubOptions::from_env`).
///
/// Strict: config and file must name the same tensors with the same shapes, and every number must be finite. What
/// `config.json` asks for is compared with what the weights hold before memory is taken. Nothing is written.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use mnemic_models::{Pretrained, from_pretrained};
/// let loaded: Pretrained = from_pretrained("runs/task1/model", DType::F32, &Device::Cpu)?;
/// println!("{} with {} parameters", loaded.config.architecture(), loaded.store.num_parameters());
/// # Ok::<(), mnemic_models::Error>(())
/// ```
///
/// # Errors
/// When there is no such folder, a file is missing, malformed or cut off, a key is missing or makes no sense, or tensors are
/// missing, left over, of another shape or not finite: each is named.
pub fn from_pretrained<M: PretrainedModel>(
    path: impl AsRef<Path>,
    dtype: DType,
    device: &Device,
) -> Result<Pretrained<M>> {
    let options = LoadOptions { dtype, device: device.clone(), ..LoadOptions::default() };
    from_pretrained_with(path, &options)
}

/// [`from_pretrained`] with options.
///
/// # Errors
/// As [`from_pretrained`].
pub fn from_pretrained_with<M: PretrainedModel>(
    path: impl AsRef<Path>,
    options: &LoadOptions,
) -> Result<Pretrained<M>> {
    shapes::check_float("from_pretrained", options.dtype)?;
    let dir = &locate(path)?;
    let file = dir.join(CONFIG);
    let mut keys = read_keys(&file)?;
    if let Some(labels) = &options.labels {
        set_labels(&mut keys, labels)?;
    }
    let mut config = M::read_config(keys).map_err(|e| e.at(&file))?;
    let weights = Weights::open(dir)?;
    let found = Placed::new::<M>(&config, weights.path(), &weights.shapes())?;
    M::adapt(&mut config, &found.shapes);
    let mut expected = shapes::expected::<M>(&config, &found.shapes).map_err(|e| e.at(dir))?;
    let is_new = |name: &String| {
        options.new_head.is_some() && M::is_head(name) && !found.shapes.contains_key(name)
    };
    let new: Vec<String> = expected.keys().filter(|name| is_new(name)).cloned().collect();
    expected.retain(|name, _| !new.contains(name));
    compare(weights.path(), &expected, &found.shapes)?;

    let store = ParamStore::new(options.new_head.unwrap_or(0));
    for name in expected.into_keys() {
        let Some((source, transposed)) = found.sources.get(&name) else { continue };
        let value = tensors::finite(&weights, source, options.dtype)?;
        let value = if *transposed { value.t()?.contiguous()? } else { value };
        store.insert(&name, &value.to_device(&options.device)?)?;
    }
    let model = M::build(&config, store.builder(options.dtype, &options.device))?;
    Ok(Pretrained { config, model, store, path: dir.clone(), left: found.left, new })
}

/// Names the labels in the keys of a config, as `transformers` does.
fn set_labels(keys: &mut Map<String, Value>, labels: &[String]) -> Result<()> {
    let twice = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label));
    if let Some((_, label)) = twice {
        return Err(Error::config("labels", format!("`{label}` stands twice")));
    }
    if labels.is_empty() {
        return Err(Error::config("labels", "expected at least one, got none"));
    }
    let named = |(i, label): (usize, &String)| (i.to_string(), Value::from(label.as_str()));
    let numbered = |(i, label): (usize, &String)| (label.clone(), Value::from(i));
    keys.insert(
        "id2label".into(),
        labels.iter().enumerate().map(named).collect::<Map<_, _>>().into(),
    );
    keys.insert(
        "label2id".into(),
        labels.iter().enumerate().map(numbered).collect::<Map<_, _>>().into(),
    );
    keys.insert("num_labels".into(), labels.len().into());
    Ok(())
}

/// The tensors of a checkpoint under the names of the model's parameters.
#[derive(Default)]
struct Placed {
    shapes: Shapes,
    /// The name in the checkpoint, and whether rows and columns are exchanged.
    sources: BTreeMap<String, (String, bool)>,
    left: Vec<String>,
}

impl Placed {
    fn new<M: PretrainedModel>(config: &M::Config, file: &Path, found: &Shapes) -> Result<Self> {
        let mut placed = Self::default();
        for (source, shape) in found {
            let Some((name, transposed)) = M::place(config, source).target() else {
                placed.left.push(source.clone());
                continue;
            };
            let mut shape = shape.clone();
            if transposed {
                shape.reverse();
            }
            if let Some((other, _)) = placed.sources.get(&name) {
                let reason = format!("tensors `{other}` and `{source}` are both {name}");
                return Err(Error::format(file, reason));
            }
            placed.shapes.insert(name.clone(), shape);
            placed.sources.insert(name, (source.clone(), transposed));
        }
        Ok(placed)
    }
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
pub fn save_pretrained<M: PretrainedModel>(
    path: impl AsRef<Path>,
    config: &M::Config,
    store: &ParamStore,
    extra: &[(&str, &str)],
) -> Result<()> {
    let dir = path.as_ref();
    let keys = M::config_keys(config)?;
    write::check_names(extra)?;
    let vars = store.vars();
    let found = vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
    let expected = shapes::expected::<M>(config, &found)?;
    let file = dir.join(WEIGHTS);
    compare(&file, &expected, &found)?;
    let weights = tensors::serialize::<M>(&file, config, &vars)?;
    let text = serde_json::to_string_pretty(&keys)
        .map_err(|e| Error::config(CONFIG, e.to_string()))?
        + "\n";
    let card = card(&keys, store);

    let mut files: Vec<(&str, &[u8])> = extra.iter().map(|(n, c)| (*n, c.as_bytes())).collect();
    if !files.iter().any(|(name, _)| *name == CARD) && !dir.join(CARD).exists() {
        files.push((CARD, card.as_bytes()));
    }
    files.push((CONFIG, text.as_bytes()));
    files.push((WEIGHTS, &weights));
    write::write_all(dir, &files)
}

/// The folder that [`from_pretrained`] reads for this path: itself, or (feature `hub`) that of the hub's repository of this id, fetched
/// if need be.
///
/// # Errors
/// When there is no such folder, or it cannot be fetched.
pub fn locate(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    #[cfg(feature = "hub")]
    if let Some(fetched) = on_hub(path, HubOptions::from_env) {
        return fetched;
    }
    check_folder(path)?;
    Ok(path.to_path_buf())
}

/// What the hub gives for a path that does not exist and is an id.
#[cfg(feature = "hub")]
fn on_hub(path: &Path, options: impl Fn() -> Result<HubOptions>) -> Option<Result<PathBuf>> {
    let id = path.to_str().filter(|_| !path.exists()).and_then(|text| HubId::parse(text).ok())?;
    Some(options().and_then(|options| fetch(&id, &options)).map_err(no_folder))
}

/// Who mistypes the path of a folder should not be told of the hub alone.
#[cfg(feature = "hub")]
fn no_folder(error: Error) -> Error {
    match error {
        Error::Config { place, reason } => {
            let reason = format!("no such folder, and of the hub's model of this id: {reason}");
            Error::Config { place, reason }
        }
        other => other,
    }
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
    let hint = match hub && cfg!(not(feature = "hub")) {
        true => "; to load a Hugging Face hub id takes the feature `hub`, which this build lacks",
        false => "",
    };
    Err(Error::config(place, format!("no such folder{hint}")))
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = tensors::read_at_most(path, MAX_TEXT)?;
    String::from_utf8(bytes).map_err(|e| Error::format(path, format!("expected UTF-8: {e}")))
}

pub(crate) fn read_keys(path: &Path) -> Result<Map<String, Value>> {
    let text = read_text(path)?;
    let UniqueKeys(keys) =
        serde_json::from_str(&text).map_err(|e| Error::format(path, e.to_string()))?;
    Ok(keys)
}

/// A model card that says no more than the folder does.
fn card(keys: &Map<String, Value>, store: &ParamStore) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("model").to_string();
    let name = text(keys.get(MODEL_TYPE));
    let model = text(keys.get(ARCHITECTURES).and_then(|names| names.get(0)));
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
