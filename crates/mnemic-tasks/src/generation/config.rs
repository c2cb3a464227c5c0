//! How to decode: the keys of `generation_config.json`.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::checks;
use crate::error::{Error, Result};

/// When beam search ends for a row, once `num_beams` hypotheses are finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When the best running beam, if it ended now, would not beat the worst finished one (`false`).
    #[default]
    Heuristic,
    /// At once (`true`).
    Always,
    /// When no running beam can beat the worst finished one even at the length that suits it best (`"never"`).
    Never,
}

/// How token after token is chosen: the keys of Hugging Face's `generation_config.json` with the defaults of `transformers` 5.23.
///
/// ```
/// use mnemic_tasks::generation::{EarlyStopping, GenerationConfig};
/// let config = GenerationConfig::from_json(
///     Some(r#"{"model_type": "bart", "eos_token_id": 2, "pad_token_id": 1}"#),
///     Some(r#"{"num_beams": 4, "early_stopping": true, "forced_bos_token_id": 0}"#),
/// )?;
/// assert_eq!((config.num_beams, config.early_stopping), (4, EarlyStopping::Always));
/// assert_eq!((config.eos_token_id.as_slice(), config.top_k), ([2].as_slice(), 50));
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Draw tokens instead of taking the most probable one.
    pub do_sample: bool,
    /// Beams a row; 1 is greedy search, or plain sampling.
    pub num_beams: usize,
    /// Hypotheses to return for each row: at most `num_beams`, or any number of samples.
    pub num_return_sequences: usize,
    /// Scores are divided by it before sampling.
    pub temperature: f64,
    /// Samples are drawn from the `top_k` most probable tokens (and those as probable as the last of them); 0 for all.
    pub top_k: usize,
    /// Samples are drawn from the fewest most probable tokens that have this probability together.
    pub top_p: f64,
    /// Samples are drawn from tokens that are at least this fraction as probable as the most probable one.
    pub min_p: Option<f64>,
    /// Scores of tokens that the row has already are divided by it where positive, multiplied where negative (Keskar et al. 2019).
    pub repetition_penalty: f64,
    /// No sequence of so many tokens occurs twice in a row, prompt included; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// A hypothesis' score is the sum of its log-probabilities over its number of new tokens to this power: above 0, longer ones gain.
    pub length_penalty: f64,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// The most tokens of a row, prompt or start token included. `None`: 20 new ones, or as many as the model has positions for.
    pub max_length: Option<usize>,
    /// The most new tokens; goes before `max_length`.
    pub max_new_tokens: Option<usize>,
    /// No end token before a row has so many tokens, prompt or start token included.
    pub min_length: usize,
    /// No end token before a row has so many new tokens; goes before `min_length`.
    pub min_new_tokens: Option<usize>,
    /// The token that follows a single start token.
    #[serde(deserialize_with = "optional_id")]
    pub forced_bos_token_id: Option<u32>,
    /// The tokens, one of which is the last one where `max_length` is reached.
    #[serde(deserialize_with = "ids", serialize_with = "one_or_several")]
    pub forced_eos_token_id: Vec<u32>,
    /// Sequences of tokens that never occur.
    #[serde(deserialize_with = "or_default")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Tokens that never occur.
    #[serde(deserialize_with = "or_default")]
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are never the first one.
    #[serde(deserialize_with = "or_default")]
    pub begin_suppress_tokens: Vec<u32>,
    /// Makes the scores log-probabilities again after everything else has changed them.
    pub renormalize_logits: bool,
    /// Puts finite numbers in place of infinite ones and NaN instead of ending with an error.
    pub remove_invalid_values: bool,
    /// The tokens that end a row.
    #[serde(deserialize_with = "ids", serialize_with = "one_or_several")]
    pub eos_token_id: Vec<u32>,
    /// What short rows are filled with; the first end token where there is none.
    #[serde(deserialize_with = "optional_id")]
    pub pad_token_id: Option<u32>,
    /// The token that texts begin with.
    #[serde(deserialize_with = "optional_id")]
    pub bos_token_id: Option<u32>,
    /// The token that an encoder-decoder begins to write with; `bos_token_id` where there is none.
    #[serde(deserialize_with = "optional_id")]
    pub decoder_start_token_id: Option<u32>,
    /// What samples are drawn from. Not a key of Hugging Face's.
    pub seed: u64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            do_sample: false,
            num_beams: 1,
            num_return_sequences: 1,
            temperature: 1.,
            top_k: 50,
            top_p: 1.,
            min_p: None,
            repetition_penalty: 1.,
            no_repeat_ngram_size: 0,
            length_penalty: 1.,
            early_stopping: EarlyStopping::Heuristic,
            max_length: None,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            bad_words_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            renormalize_logits: false,
            remove_invalid_values: false,
            eos_token_id: Vec::new(),
            pad_token_id: None,
            bos_token_id: None,
            decoder_start_token_id: None,
            seed: 0,
        }
    }
}

/// Keys that `transformers` knows, that we do not, and that would change what is written, with the value that changes nothing
/// (beside `null` and `false`).
const UNSUPPORTED: &[(&str, f64)] = &[
    ("constraints", 0.),
    ("diversity_penalty", 0.),
    ("dola_layers", 0.),
    ("encoder_no_repeat_ngram_size", 0.),
    ("encoder_repetition_penalty", 1.),
    ("epsilon_cutoff", 0.),
    ("eta_cutoff", 0.),
    ("exponential_decay_length_penalty", 0.),
    ("force_words_ids", 0.),
    ("guidance_scale", 1.),
    ("max_time", 0.),
    ("num_beam_groups", 1.),
    ("penalty_alpha", 0.),
    ("sequence_bias", 0.),
    ("stop_strings", 0.),
    ("token_healing", 0.),
    ("top_h", 0.),
    ("typical_p", 1.),
    ("watermarking_config", 0.),
];

/// Keys that are read from `config.json` where `generation_config.json` lacks them.
const SPECIAL_TOKENS: &[&str] =
    &["eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"];

impl GenerationConfig {
    /// Reads the contents of a checkpoint's `config.json` and `generation_config.json`, either of which may be missing.
    ///
    /// As in `transformers`, `config.json` is only asked where there is no `generation_config.json`; here also for special tokens
    /// that the latter lacks. Unknown keys are left out, negative special tokens count as none.
    ///
    /// # Errors
    /// When a file is no JSON object, a value does not fit its key, or a key that we do not support asks for another result than
    /// ours would be; see also [`validate`](Self::validate).
    pub fn from_json(config: Option<&str>, generation_config: Option<&str>) -> Result<Self> {
        let config = config.map(|text| object(text, "config.json")).transpose()?;
        let generation = generation_config.map(|text| object(text, "generation_config.json"));
        let (place, keys) = match (config, generation.transpose()?) {
            (config, Some(mut keys)) => {
                for (key, value) in config.into_iter().flatten() {
                    if SPECIAL_TOKENS.contains(&key.as_str()) {
                        keys.entry(key).or_insert(value);
                    }
                }
                ("generation_config.json", keys)
            }
            (Some(keys), None) => ("config.json", keys),
            (None, None) => return Ok(Self::default()),
        };
        let config = Self::from_keys(keys, place)?;
        config.validate()?;
        Ok(config)
    }

    /// [`from_json`](Self::from_json) of the two files in a checkpoint's folder.
    ///
    /// # Errors
    /// Those of `from_json`, and when there is no such folder or a file is there but cannot be read.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        std::fs::metadata(folder).map_err(Error::io(folder))?;
        let read = |name: &str| {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                read => read.map(Some).map_err(Error::io(&path)),
            }
        };
        Self::from_json(read("config.json")?.as_deref(), read("generation_config.json")?.as_deref())
    }

    fn from_keys(keys: Map<String, Value>, place: &str) -> Result<Self> {
        let changes = |value: &Value, neutral: f64| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(n) => n.as_f64() != Some(neutral),
            _ => true,
        };
        for (key, neutral) in UNSUPPORTED {
            if let Some(value) = keys.get(*key).filter(|value| changes(value, *neutral)) {
                let reason = format!("not supported, and {value} would change the result");
                return Err(Error::generation(format!("{place}: {key}"), reason));
            }
        }
        // `null` stands for the default, everywhere.
        let keys: Map<_, _> = keys.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let parse = |keys: Map<String, Value>| serde_json::from_value::<Self>(Value::Object(keys));
        match parse(keys.clone()) {
            Ok(config) => Ok(config),
            Err(whole) => {
                // serde does not name the key of a wrong value.
                let alone = |(key, value): (String, Value)| {
                    let error = parse(Map::from_iter([(key.clone(), value)])).err()?;
                    Some(Error::generation(format!("{place}: {key}"), error.to_string()))
                };
                let named = keys.into_iter().find_map(alone);
                Err(named.unwrap_or_else(|| Error::generation(place, whole.to_string())))
            }
        }
    }

    /// Looks for values that make no sense, alone or together.
    ///
    /// # Errors
    /// Names the first bad key, its value and what was expected.
    pub fn validate(&self) -> Result<()> {
        checks::values(self)
    }

    /// The id that [`Generated::padded`](super::Generated::padded) rows are usually filled with: `pad_token_id`, else the first end token.
    pub fn padding(&self) -> Option<u32> {
        self.pad_token_id.or(self.eos_token_id.first().copied())
    }
}

fn object(text: &str, place: &str) -> Result<Map<String, Value>> {
    let json = |source| Error::Json { place: place.to_string(), source };
    serde_json::from_str(text).map_err(json)
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Heuristic => serializer.serialize_bool(false),
            Self::Always => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) => Ok(Self::Heuristic),
            Value::Bool(true) => Ok(Self::Always),
            Value::String(word) if word == "never" => Ok(Self::Never),
            other => {
                Err(de::Error::custom(format!("expected true, false or \"never\", got {other}")))
            }
        }
    }
}

/// One id, which does not count where it is negative, or `null`.
fn optional_id<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<u32>, D::Error> {
    match Option::<i64>::deserialize(d)? {
        None | Some(..0) => Ok(None),
        Some(id) => id_of(id).map(Some),
    }
}

/// One id, several, or `null`.
fn ids<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a token id or a list of them")]
    enum OneOrSeveral {
        One(i64),
        Several(Vec<i64>),
    }
    let ids = match Option::<OneOrSeveral>::deserialize(d)? {
        None => Vec::new(),
        Some(OneOrSeveral::One(id)) => vec![id],
        Some(OneOrSeveral::Several(ids)) => ids,
    };
    ids.into_iter().filter(|&id| id >= 0).map(id_of).collect()
}

fn id_of<E: de::Error>(id: i64) -> std::result::Result<u32, E> {
    u32::try_from(id).map_err(|_| E::custom(format!("expected a token id, got {id}")))
}

fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn one_or_several<S: Serializer>(ids: &[u32], s: S) -> std::result::Result<S::Ok, S::Error> {
    match ids {
        [] => s.serialize_none(),
        [id] => s.serialize_u32(*id),
        _ => ids.serialize(s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_config_goes_before_the_config() {
        let config = r#"{"num_beams": 8, "max_length": 100, "eos_token_id": 7, "pad_token_id": 3, "hidden_size": 32}"#;
        let generation = r#"{"_from_model_config": true, "max_length": 142, "eos_token_id": [2, 5], "length_penalty": 2,
            "early_stopping": "never", "bad_words_ids": [[58100]], "min_p": null, "use_cache": true, "typical_p": 1.0}"#;
        let both = GenerationConfig::from_json(Some(config), Some(generation)).unwrap();
        let expected = GenerationConfig {
            max_length: Some(142),
            eos_token_id: vec![2, 5],
            pad_token_id: Some(3),
            length_penalty: 2.,
            early_stopping: EarlyStopping::Never,
            bad_words_ids: vec![vec![58100]],
            ..GenerationConfig::default()
        };
        assert_eq!(both, expected);
        let alone = GenerationConfig::from_json(Some(config), None).unwrap();
        assert_eq!((alone.num_beams, alone.max_length), (8, Some(100)));
        assert_eq!((alone.eos_token_id, alone.pad_token_id), (vec![7], Some(3)));
    }

    #[test]
    fn a_config_survives_json() {
        for early_stopping in
            [EarlyStopping::Heuristic, EarlyStopping::Always, EarlyStopping::Never]
        {
            let config = GenerationConfig {
                early_stopping,
                eos_token_id: vec![4],
                forced_eos_token_id: vec![4, 5],
                seed: u64::MAX,
                ..GenerationConfig::default()
            };
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(GenerationConfig::from_json(None, Some(&text)).unwrap(), config);
        }
    }

    #[test]
    fn bad_keys_are_named() {
        let error =
            |text: &str| GenerationConfig::from_json(None, Some(text)).unwrap_err().to_string();
        for (text, expected) in [
            (r#"{"num_beams": "four"}"#, "generation_config.json: num_beams: invalid type"),
            (r#"{"early_stopping": "often"}"#, "early_stopping: expected true, false or \"never\""),
            (r#"{"eos_token_id": "</s>"}"#, "eos_token_id: expected a token id or a list"),
            (
                r#"{"eos_token_id": 5000000000}"#,
                "eos_token_id: expected a token id, got 5000000000",
            ),
            (r#"{"suppress_tokens": [-1]}"#, "suppress_tokens: invalid value"),
            (
                r#"{"penalty_alpha": 0.6, "top_k": 4}"#,
                "penalty_alpha: not supported, and 0.6 would",
            ),
            (r#"{"stop_strings": ["\n"]}"#, "stop_strings: not supported"),
            (r#"{"num_beam_groups": 2}"#, "num_beam_groups: not supported"),
            (r#"{"max_new_tokens": 0}"#, "max_new_tokens: expected at least 1, got 0"),
            ("[1]", "generation_config.json: invalid type"),
        ] {
            assert!(error(text).contains(expected), "{text}: {}", error(text));
        }
        for neutral in [
            r#"{"penalty_alpha": null, "num_beam_groups": 1, "diversity_penalty": 0.0, "token_healing": false}"#,
            r#"{"pad_token_id": -1, "eos_token_id": null, "forced_bos_token_id": null, "suppress_tokens": null}"#,
        ] {
            let config = GenerationConfig::from_json(None, Some(neutral)).unwrap();
            assert_eq!(config, GenerationConfig::default());
        }
    }
}
