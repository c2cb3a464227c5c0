//! A recipe carried out: load, give a head, train, test once, save.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_models::transformer::{bert, distilbert, roberta};
use mnemic_models::{LoadOptions, Padding, Pretrained, Tokenizer, from_pretrained_with, locate};
use mnemic_train::{Observer, Reason, Report, Trainer, Validation};
use serde::{Deserialize, Serialize};

use super::card;
use super::data::TextData;
use super::model::Classifier;
use super::problem::{ClassifierProblem, evaluate};
use super::recipe::{FineTuneRecipe, Head};
use super::results::FineTuneRow;
use crate::babi::{RunOptions, update_csv};
use crate::provenance::Provenance;
use crate::run_folder::{claim, finished, keep_result};
use crate::{Error, Result};

/// Files of a tokenizer, which go into the model's folder as they are.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// The test of a fine-tuned model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextTest {
    /// Texts.
    pub texts: usize,
    /// Metrics in percent.
    pub percent: BTreeMap<String, f64>,
    /// Published figures in percent, as the recipe names them.
    #[serde(default)]
    pub reference: BTreeMap<String, f64>,
}

/// What fine-tuning has come to; `result.json` in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FineTuneResult {
    /// The recipe's name.
    pub name: String,
    /// Whether a signal stopped the run before its end; then nothing was tested or saved but a checkpoint.
    pub interrupted: bool,
    /// The seed.
    pub seed: u64,
    /// The validation of the weights that were kept, those of the best validation.
    pub validation: Validation,
    /// The epoch after which it was made, counting from 1.
    pub best_epoch: Option<usize>,
    /// Epochs done.
    pub epochs: usize,
    /// The test, made once with the weights that were kept.
    pub test: Option<TextTest>,
    /// Seconds.
    pub seconds: f64,
    /// Seconds on all cores.
    pub cpu_seconds: Option<f64>,
    /// Training texts a second.
    pub examples_per_second: f64,
    /// The number of scalar parameters.
    pub parameters: usize,
    /// Machine, commit, command, date.
    pub provenance: Provenance,
}

/// Carries out a recipe. A run that was stopped goes on where it was, to the same bits; one that is done gives its result again.
///
/// The run's folder gets `recipe.toml`, checkpoints and metrics, `result.json`, `results.csv` (the row for tables of results) and `model/`: what
/// [`save_pretrained`](mnemic_models::save_pretrained) writes, with the tokenizer's files and a model card.
///
/// # Errors
/// When the checkpoint or the data cannot be read, the checkpoint's `model_type` has no such head, the folder holds another run, or training
/// diverges.
pub fn fine_tune(
    recipe: &FineTuneRecipe,
    options: &RunOptions,
    observer: &mut (dyn Observer + Send),
) -> Result<FineTuneResult> {
    if let Some(done) = finished(recipe, &options.run_dir)? {
        return Ok(done);
    }
    let folder =
        locate(&recipe.model.from).map_err(|e| Error::recipe("model.from", e.to_string()))?;
    let kind = model_type(&folder)?;
    let run = Run { recipe, options, folder, device: options.place.open()? };
    match (kind.as_str(), recipe.model.head) {
        ("bert", Head::SequenceClassification) => {
            run.train::<bert::BertForSequenceClassification>(observer)
        }
        ("bert", Head::TokenClassification) => {
            run.train::<bert::BertForTokenClassification>(observer)
        }
        ("roberta", Head::SequenceClassification) => {
            run.train::<roberta::RobertaForSequenceClassification>(observer)
        }
        ("roberta", Head::TokenClassification) => {
            run.train::<roberta::RobertaForTokenClassification>(observer)
        }
        ("distilbert", Head::SequenceClassification) => {
            run.train::<distilbert::DistilBertForSequenceClassification>(observer)
        }
        ("distilbert", Head::TokenClassification) => {
            run.train::<distilbert::DistilBertForTokenClassification>(observer)
        }
        (other, _) => Err(Error::recipe(
            "model.from",
            format!("a checkpoint of model_type {other:?}: expected bert, roberta or distilbert"),
        )),
    }
}

/// What `config.json` calls the model.
fn model_type(folder: &Path) -> Result<String> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let keys: serde_json::Value = serde_json::from_str(&text).map_err(Error::json(&path))?;
    match keys.get("model_type").and_then(serde_json::Value::as_str) {
        Some(name) => Ok(name.to_string()),
        None => Err(Error::request(format!("{}: model_type is missing", path.display()))),
    }
}

/// A recipe under way.
struct Run<'a> {
    recipe: &'a FineTuneRecipe,
    options: &'a RunOptions,
    folder: PathBuf,
    device: Device,
}

impl Run<'_> {
    fn train<M: Classifier>(&self, observer: &mut (dyn Observer + Send)) -> Result<FineTuneResult> {
        let Self { recipe, options, .. } = *self;
        let (head, set) = (recipe.model.head, recipe.data.dataset);
        let tokenizer = Tokenizer::from_folder(&self.folder)?
            .with_max_length(recipe.data.max_length)?
            .with_padding(Padding::Right);
        let data = TextData::load(&recipe.data, options.data.as_deref(), &tokenizer)?;
        let load = LoadOptions {
            dtype: DType::F32,
            device: self.device.clone(),
            new_head: Some(recipe.train.seed),
            labels: Some(set.labels().iter().map(ToString::to_string).collect()),
        };
        let loaded: Pretrained<M> = from_pretrained_with(&self.folder, &load)?;
        claim(recipe, &options.run_dir)?;
        let mut problem = ClassifierProblem {
            model: &loaded.model,
            store: &loaded.store,
            data: &data,
            head,
            tokenizer: &tokenizer,
            batches: &recipe.batches,
            seed: recipe.train.seed,
            device: self.device.clone(),
            fingerprint: fingerprint(recipe)?,
        };
        let trainer = Trainer::new(recipe.train.clone())?.with_interrupt(options.interrupt.clone());
        let report = trainer.fit(&mut problem, &options.run_dir, observer)?;
        let mut result = self.summary(&report, loaded.store.num_parameters());
        if result.interrupted {
            return Ok(result);
        }
        // The trainer has put the weights of the best validation back.
        let scores =
            evaluate(&loaded.model, &data.test, data.labels, head, &tokenizer, &self.device)?;
        let percent = |(name, value): (&str, f64)| (name.to_string(), 100. * value);
        result.test = Some(TextTest {
            texts: scores.texts,
            percent: scores.metrics().into_iter().map(percent).collect(),
            reference: recipe.reference.clone(),
        });
        self.save(&loaded, &result)?;
        Ok(result)
    }

    fn summary(&self, report: &Report, parameters: usize) -> FineTuneResult {
        let mut provenance = Provenance::here(&self.options.command);
        provenance.device = self.options.place.describe(&self.device);
        FineTuneResult {
            name: self.recipe.name.clone(),
            interrupted: report.stopped == Reason::Interrupted,
            seed: self.recipe.train.seed,
            validation: report.best_validation.clone().unwrap_or_default(),
            best_epoch: report.best_epoch.map(|epoch| epoch + 1),
            epochs: report.epochs,
            test: None,
            seconds: report.seconds,
            cpu_seconds: report.cpu_seconds,
            examples_per_second: report.examples_per_second,
            parameters,
            provenance,
        }
    }

    /// Writes the model with what belongs to it, then the result.
    fn save<M: Classifier>(&self, loaded: &Pretrained<M>, result: &FineTuneResult) -> Result<()> {
        let Self { recipe, options, .. } = *self;
        let dir = &options.run_dir;
        let there = |name: &&&str| loaded.path.join(name).is_file();
        let copied = TOKENIZER_FILES.iter().filter(there);
        let mut files: Vec<(&str, String)> =
            copied.map(|&name| Ok((name, loaded.read_file(name)?))).collect::<Result<_>>()?;
        files.push(("recipe.toml", recipe.to_toml()?));
        files.push(("README.md", card::card(recipe, result)));
        let files: Vec<(&str, &str)> = files.iter().map(|(n, text)| (*n, text.as_str())).collect();
        loaded.save(dir.join("model"), &files)?;
        update_csv(&dir.join("results.csv"), &[FineTuneRow::of(recipe, result)])?;
        keep_result(dir, result)
    }
}

/// Whatever must be the same for a run to go on.
fn fingerprint(recipe: &FineTuneRecipe) -> Result<String> {
    let parts = (&recipe.model, &recipe.data, &recipe.batches);
    serde_json::to_string(&parts).map_err(Error::json(Path::new("recipe")))
}
