//! Every architecture that answers questions about stories behind one type, chosen by name.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_nn::VarBuilder;
use mnemic_layers::Context;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::Sizes;
use crate::error::{Error, Result, shown, unknown};
use crate::memory::{dmn, dmn_plus, dnc_reader, entnet, memn2n, memnn};
use crate::recurrent::lstm_reader;
use crate::story::{Phase, StoryBatch, StoryModel, StoryOutput};

/// What a config can say of its architecture, so that [`ModelConfig`] need not ask which it is.
trait Architecture {
    fn name(&self) -> &'static str;
    fn type_name(&self) -> &'static str;
    fn check(&self) -> candle_core::Result<()>;
    fn parameters(&self) -> u128;
    fn words(&self) -> usize;
    fn memory(&self) -> usize;
    /// The longest sentence and the width of the table of position weights that is made and not loaded, 0 where there is none.
    fn positions(&self) -> Option<(usize, usize)>;
    fn make(&self, vb: VarBuilder<'_>) -> candle_core::Result<AnyStoryModel>;
    fn keys(&self) -> serde_json::Result<Value>;
}

/// One architecture in the list of those known.
struct Entry {
    name: &'static str,
    presets: &'static [&'static str],
    preset: fn(&str, Sizes) -> Option<ModelConfig>,
    parse: fn(Value) -> serde_json::Result<ModelConfig>,
}

/// An architecture is one line here: the name of its config's `model_type`, model, module, and position weights.
macro_rules! architectures {
    ($($name:literal $model:ident in $module:ident, $positions:expr, $doc:literal;)+) => {
        /// The config of any architecture of this crate. As JSON it is the architecture's own keys and `model_type`.
        ///
        /// ```
        /// use mnemic_models::{ModelConfig, Sizes};
        /// let sizes = Sizes { vocab_size: 30, sentence_len: 7, memory_size: 50 };
        /// let config = ModelConfig::preset("dmn-plus", "dmn_plus", sizes)?;
        /// let changes = serde_json::json!({ "hidden_size": 40 });
        /// let config = config.with_overrides(changes.as_object().cloned().unwrap_or_default())?;
        /// assert_eq!((config.architecture(), config.sentence_len()), ("dmn-plus", Some(7)));
        ///
        /// let error = ModelConfig::preset("dmn-pls", "dmn_plus", sizes).unwrap_err();
        /// assert!(error.to_string().contains("did you mean `dmn-plus`?"));
        /// # Ok::<(), mnemic_models::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum ModelConfig {
            $(#[doc = $doc] $model($module::Config),)+
        }

        /// A model of any architecture of this crate, as [`ModelConfig::build`] makes it.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum AnyStoryModel {
            $(#[doc = $doc] $model(Box<$module::$model>),)+
        }

        $(impl Architecture for $module::Config {
            fn name(&self) -> &'static str {
                $name
            }
            fn type_name(&self) -> &'static str {
                stringify!($model)
            }
            fn check(&self) -> candle_core::Result<()> {
                self.validate()
            }
            fn parameters(&self) -> u128 {
                self.num_parameters()
            }
            fn words(&self) -> usize {
                self.vocab_size
            }
            fn memory(&self) -> usize {
                self.memory_size
            }
            fn positions(&self) -> Option<(usize, usize)> {
                let positions: fn(&Self) -> Option<(usize, usize)> = $positions;
                positions(self)
            }
            fn make(&self, vb: VarBuilder<'_>) -> candle_core::Result<AnyStoryModel> {
                Ok(AnyStoryModel::$model(Box::new($module::$model::new(self, vb)?)))
            }
            fn keys(&self) -> serde_json::Result<Value> {
                serde_json::to_value(self)
            }
        })+

        impl ModelConfig {
            fn inner(&self) -> &dyn Architecture {
                match self {
                    $(Self::$model(config) => config,)+
                }
            }
        }

        impl AnyStoryModel {
            fn inner(&self) -> &dyn StoryModel {
                match self {
                    $(Self::$model(model) => model.as_ref(),)+
                }
            }
        }

        $(impl From<$module::Config> for ModelConfig {
            fn from(config: $module::Config) -> Self {
                Self::$model(config)
            }
        })+

        const ENTRIES: &[Entry] = &[$(Entry {
            name: $name,
            presets: $module::Config::PRESETS,
            preset: |name, sizes| $module::Config::preset(name, sizes).map(ModelConfig::$model),
            parse: |value| serde_json::from_value(value).map(ModelConfig::$model),
        },)+];
    };
}

architectures! {
    "memn2n" MemN2N in memn2n, |c| Some((c.sentence_len, c.embedding_dim)), "End-to-end memory network.";
    "memnn" MemNN in memnn, |_| None, "Strongly supervised memory network.";
    "dmn" Dmn in dmn, |_| None, "Dynamic memory network.";
    "dmn-plus" DmnPlus in dmn_plus, |c| Some((c.sentence_len, c.hidden_size)), "Improved dynamic memory network.";
    "entnet" EntNet in entnet, |c| Some((c.sentence_len, 0)), "Recurrent entity network.";
    "dnc-reader" DncReader in dnc_reader, |_| None, "Differentiable neural computer that reads word by word.";
    "lstm" LstmReader in lstm_reader, |_| None, "LSTM baseline.";
}

/// Keys that count something which no shape bounds: a file could ask for any number of rounds.
const MOST: &[(&str, u64)] =
    &[("hops", 1 << 10), ("passes", 1 << 10), ("num_layers", 1 << 10), ("sentence_len", 1 << 16)];

/// The key that names the architecture.
pub(crate) const MODEL_TYPE: &str = "model_type";

impl ModelConfig {
    /// The names of all architectures, as `model_type` has them.
    pub fn architectures() -> Vec<&'static str> {
        ENTRIES.iter().map(|entry| entry.name).collect()
    }

    /// The presets of an architecture, named after the rows of its paper.
    ///
    /// # Errors
    /// When there is no such architecture; the message lists those known.
    pub fn presets(architecture: &str) -> Result<&'static [&'static str]> {
        Ok(entry("architecture", architecture)?.presets)
    }

    /// A preset of an architecture with the sizes of the data.
    ///
    /// # Errors
    /// When there is no such architecture or preset; the message lists those known and the nearest.
    pub fn preset(architecture: &str, preset: &str, sizes: Sizes) -> Result<Self> {
        let entry = entry("architecture", architecture)?;
        (entry.preset)(preset, sizes).ok_or_else(|| {
            Error::config(
                format!("{} preset", entry.name),
                unknown("preset", preset, entry.presets),
            )
        })
    }

    /// The config with other values for some of its keys, validated.
    ///
    /// # Errors
    /// When a key is unknown (the message lists those known), or a value has the wrong type or is out of range.
    pub fn with_overrides(self, overrides: Map<String, Value>) -> Result<Self> {
        let mut keys = self.keys()?;
        for (key, value) in overrides {
            if !keys.contains_key(&key) {
                let known: Vec<&str> = keys.keys().map(String::as_str).collect();
                return Err(Error::config(self.place(), unknown("key", &key, &known)));
            }
            keys.insert(key, value);
        }
        Self::parse(entry(MODEL_TYPE, self.architecture())?, keys)
    }

    /// The config with these keys, `model_type` among them; none may be missing and none may be unknown.
    pub(crate) fn from_keys(mut keys: Map<String, Value>) -> Result<Self> {
        let known = || format!("expected one of {}", Self::architectures().join(", "));
        let entry = match keys.remove(MODEL_TYPE) {
            Some(Value::String(name)) => entry(MODEL_TYPE, &name)?,
            Some(other) => {
                return Err(Error::config(
                    MODEL_TYPE,
                    format!("{}, got {}", known(), kind(&other)),
                ));
            }
            None => return Err(Error::config(MODEL_TYPE, format!("missing; {}", known()))),
        };
        Self::parse(entry, keys)
    }

    fn parse(entry: &Entry, keys: Map<String, Value>) -> Result<Self> {
        let place = format!("{} config", entry.name);
        let template = template(entry)?.keys()?;
        let known: Vec<&str> = template.keys().map(String::as_str).collect();
        if let Some(key) = keys.keys().find(|key| !template.contains_key(*key)) {
            return Err(Error::config(place, unknown("key", key, &known)));
        }
        let missing: Vec<&str> = known.into_iter().filter(|key| !keys.contains_key(*key)).collect();
        if !missing.is_empty() {
            return Err(Error::config(place, format!("missing: {}", missing.join(", "))));
        }
        let config = (entry.parse)(Value::Object(keys.clone())).map_err(|whole| {
            // serde does not say which key a wrong value belongs to, so each is tried alone.
            for (key, value) in keys {
                let mut one = template.clone();
                one.insert(key.clone(), value);
                if let Err(e) = (entry.parse)(Value::Object(one)) {
                    return Error::config(&place, format!("{key}: {e}"));
                }
            }
            Error::config(&place, whole.to_string())
        })?;
        config.validate()?;
        Ok(config)
    }

    /// The architecture's own keys.
    fn keys(&self) -> Result<Map<String, Value>> {
        match self.inner().keys() {
            Ok(Value::Object(keys)) => Ok(keys),
            Ok(other) => Err(Error::config(self.place(), format!("is {}", kind(&other)))),
            Err(e) => Err(Error::config(self.place(), e.to_string())),
        }
    }

    /// The architecture's own keys and `model_type`.
    pub(crate) fn all_keys(&self) -> Result<Map<String, Value>> {
        let mut keys = self.keys()?;
        keys.insert(MODEL_TYPE.into(), self.architecture().into());
        Ok(keys)
    }

    fn place(&self) -> String {
        format!("{} config", self.architecture())
    }

    /// The name of the architecture.
    pub fn architecture(&self) -> &'static str {
        self.inner().name()
    }

    /// The name of the model's type, as `architectures` of a `config.json` has it.
    pub fn type_name(&self) -> &'static str {
        self.inner().type_name()
    }

    /// The number of words, the null word and the answers included.
    pub fn vocab_size(&self) -> usize {
        self.inner().words()
    }

    /// The most sentences that are kept of a story.
    pub fn memory_size(&self) -> usize {
        self.inner().memory()
    }

    /// The most words of a sentence or question, where there is such a limit.
    pub fn sentence_len(&self) -> Option<usize> {
        self.inner().positions().map(|(words, _)| words)
    }

    /// The numbers that the model makes beside its parameters.
    pub(crate) fn num_constants(&self) -> u128 {
        let (words, width) = self.inner().positions().unwrap_or_default();
        crate::config::count(&[words, width])
    }

    /// Checks that the values make sense, one by one and together.
    ///
    /// # Errors
    /// When one does not, naming it.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in self.keys()? {
            let most = MOST.iter().find(|(name, _)| *name == key);
            // No size comes near the default, and products of three of them stay countable.
            let most = most.map_or(u64::from(u32::MAX), |(_, most)| *most);
            if value.as_u64().is_some_and(|v| v > most) {
                let reason = format!("{key} must be at most {most}, got {value}");
                return Err(Error::config(self.place(), reason));
            }
        }
        self.inner().check().map_err(|e| {
            let text = plain(&e);
            let reason = text.strip_prefix(&format!("{}: ", self.place())).unwrap_or(&text);
            Error::config(self.place(), reason)
        })
    }

    /// The number of scalar parameters, tied ones counted once. Nothing is allocated.
    ///
    /// # Errors
    /// When the config is not valid.
    pub fn num_parameters(&self) -> Result<u128> {
        self.validate()?;
        Ok(self.inner().parameters())
    }

    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn build(&self, vb: VarBuilder<'_>) -> Result<AnyStoryModel> {
        self.validate()?;
        Ok(self.inner().make(vb)?)
    }
}

/// The message of a tensor error without a backtrace.
fn plain(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain(inner),
        other => other.to_string(),
    }
}

fn entry(place: &str, name: &str) -> Result<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| {
        Error::config(place, unknown("architecture", name, &ModelConfig::architectures()))
    })
}

/// Some valid config of an architecture, to learn its keys from.
fn template(entry: &Entry) -> Result<ModelConfig> {
    let sizes = Sizes { vocab_size: 2, sentence_len: 1, memory_size: 1 };
    let first = entry.presets.first().copied().unwrap_or_default();
    (entry.preset)(first, sizes)
        .ok_or_else(|| Error::config(entry.name, "an architecture without presets has no keys"))
}

/// A JSON value in a message.
fn kind(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{}`", shown(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.all_keys().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_keys(UniqueKeys::deserialize(deserializer)?.0).map_err(D::Error::custom)
    }
}

/// A JSON object in which no key stands twice.
pub(crate) struct UniqueKeys(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self(unique_map::<D, Value>(deserializer)?.into_iter().collect()))
    }
}

/// Reads a map, refusing a key that stands twice (which serde's own maps accept, keeping the last).
pub(crate) fn unique_map<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, T>, D::Error> {
    struct Visitor<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                if out.contains_key(&key) {
                    return Err(A::Error::custom(format!("`{}` stands twice", shown(&key))));
                }
                out.insert(key, map.next_value()?);
            }
            Ok(out)
        }
    }
    deserializer.deserialize_map(Visitor(std::marker::PhantomData))
}

impl StoryModel for AnyStoryModel {
    fn forward(&self, batch: &StoryBatch, ctx: &Context) -> candle_core::Result<StoryOutput> {
        self.inner().forward(batch, ctx)
    }

    fn vocab_size(&self) -> usize {
        self.inner().vocab_size()
    }

    fn loss(
        &self,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> candle_core::Result<Tensor> {
        self.inner().loss(batch, answers, ctx)
    }

    fn loss_in(
        &self,
        phase: Phase,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> candle_core::Result<Tensor> {
        self.inner().loss_in(phase, batch, answers, ctx)
    }

    fn has_start_phase(&self) -> bool {
        self.inner().has_start_phase()
    }

    fn needs_supports(&self) -> bool {
        self.inner().needs_supports()
    }

    fn null_rows(&self) -> Vec<String> {
        self.inner().null_rows()
    }
}
