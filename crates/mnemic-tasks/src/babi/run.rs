//! A recipe carried out: train from one or several seeds, choose by validation loss, test once, save.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_models::{AnyStoryModel, ModelConfig, ParamStore, Sizes, save_pretrained};
use mnemic_train::{
    Checkpoints, Interrupt, Observer, Report, RestartsConfig, StopWhen, TrainConfig, Trainer,
    Validation, best_of,
};
use serde::{Deserialize, Serialize};

use super::card;
use super::problem::{BabiProblem, evaluate};
use crate::babi::BabiData;
use crate::error::engine;
use crate::provenance::Provenance;
use crate::recipe::Recipe;
use crate::run_folder::{claim, finished, keep_result};
use crate::{Error, Place, Result};

/// Where a run goes and what it listens to.
#[derive(Debug, Default, Clone)]
pub struct RunOptions {
    /// The run's folder; made if it does not exist, resumed if it holds a run of the same recipe.
    pub run_dir: PathBuf,
    /// Where official files lie; `MNEMIC_DATA/data/babi` if nothing is said.
    pub data: Option<PathBuf>,
    /// Stops the run when requested, saving a checkpoint.
    pub interrupt: Interrupt,
    /// The command that started the run, for the model card.
    pub command: String,
    /// Where the model is trained and tested. Checkpoints and models are the same everywhere, and a run may go on elsewhere.
    pub place: Place,
}

/// The test of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The task's number.
    pub task: u8,
    /// Test questions.
    pub questions: usize,
    /// Wrong answers in percent.
    pub error_percent: f64,
    /// The figure of the paper's table, if the recipe names one.
    pub paper_percent: Option<f64>,
}

/// What a run has come to; `result.json` in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The recipe's name.
    pub name: String,
    /// Whether a signal stopped the run before its end; then nothing was tested.
    pub interrupted: bool,
    /// The seed that was chosen by its validation loss.
    pub seed: u64,
    /// The validation of the weights that were kept.
    pub validation: Validation,
    /// The tests, by task; made once, with the chosen weights.
    pub tests: Vec<TestResult>,
    /// Seconds, all restarts together.
    pub seconds: f64,
    /// Seconds on all cores, all restarts together.
    pub cpu_seconds: Option<f64>,
    /// Epochs of every restart by seed.
    pub epochs: BTreeMap<u64, usize>,
    /// The best validation error of every restart in percent, by seed.
    pub validation_errors: BTreeMap<u64, f64>,
    /// Training examples a second of the chosen run.
    pub examples_per_second: f64,
    /// The number of scalar parameters.
    pub parameters: usize,
    /// Machine, commit, command, date.
    pub provenance: Provenance,
}

impl RunResult {
    /// Mean error over the tasks in percent.
    pub fn mean_error(&self) -> f64 {
        self.tests.iter().map(|t| t.error_percent).sum::<f64>() / self.tests.len().max(1) as f64
    }
}

/// The model that a recipe asks for, fitted to its data.
///
/// # Errors
/// When architecture, preset or a key is unknown, naming it.
pub(super) fn model_config(recipe: &Recipe, data: &BabiData) -> Result<ModelConfig> {
    let text = |key: &str| match recipe.model.get(key) {
        Some(toml::Value::String(s)) => Ok(s.clone()),
        Some(other) => {
            Err(Error::recipe(format!("model.{key}"), format!("expected a string, got {other}")))
        }
        None => Err(Error::recipe("model", format!("{key} is missing"))),
    };
    let longest =
        [&data.train, &data.valid, &data.test].into_iter().flat_map(|e| e.story_lengths());
    let sizes = Sizes {
        vocab_size: data.vocabulary.len(),
        sentence_len: data.pad_to.sentence_len.max(data.pad_to.question_len),
        memory_size: recipe.data.max_sentences.unwrap_or_else(|| longest.max().unwrap_or(1)).max(1),
    };
    let config = ModelConfig::preset(&text("architecture")?, &text("preset")?, sizes)?;
    let mut overrides = serde_json::Map::new();
    for (key, value) in &recipe.model {
        if key != "architecture" && key != "preset" {
            let value = serde_json::to_value(value).map_err(Error::json(Path::new(key)))?;
            overrides.insert(key.clone(), value);
        }
    }
    Ok(config.with_overrides(overrides)?)
}

/// A new model on `device` with its parameters from `seed`.
fn build(config: &ModelConfig, seed: u64, device: &Device) -> Result<(AnyStoryModel, ParamStore)> {
    let store = ParamStore::new(seed);
    let model = config.build(store.builder(DType::F32, device))?;
    Ok((model, store))
}

/// Carries out a recipe. A run that was stopped goes on where it was, to the same bits; one that is done gives its result again.
///
/// The run's folder gets `recipe.toml`, a folder for each seed with checkpoints and metrics, `model/` with the chosen model and its
/// card, and `result.json`.
///
/// # Errors
/// When the data cannot be read, the recipe does not fit the data or the folder holds another run; when every restart diverged.
pub fn train(
    recipe: &Recipe,
    options: &RunOptions,
    observer: &mut (dyn Observer + Send),
) -> Result<RunResult> {
    if let Some(done) = finished(recipe, &options.run_dir)? {
        return Ok(done);
    }
    let device = options.place.open()?;
    let data = BabiData::load(&recipe.data, options.data.as_deref())?;
    let config = model_config(recipe, &data)?;
    claim(recipe, &options.run_dir)?;
    let fingerprint = format!(
        "{} {} {}",
        serde_json::to_string(&config).map_err(Error::json(Path::new("model")))?,
        serde_json::to_string(&recipe.data).map_err(Error::json(Path::new("data")))?,
        serde_json::to_string(&recipe.batches).map_err(Error::json(Path::new("batches")))?,
    );
    let restarts = RestartsConfig {
        count: recipe.restarts,
        seed: recipe.train.seed,
        stop_when: content(recipe),
    };
    let runs = best_of(&restarts, &options.run_dir, |seed, dir| {
        let (model, store) = build(&config, seed, &device).map_err(engine)?;
        let print = fingerprint.clone();
        let mut problem = BabiProblem::new(&model, &store, &data, &recipe.batches, seed, print)
            .map_err(engine)?;
        let settings = TrainConfig { seed, ..recipe.train.clone() };
        Trainer::new(settings)?.with_interrupt(options.interrupt.clone()).fit(
            &mut problem,
            dir,
            observer,
        )
    })?;
    let (Some(seed), Some(dir)) = (runs.best_seed, &runs.best_dir) else {
        return Ok(interrupted(recipe, options));
    };
    let (model, store) = build(&config, seed, &device)?;
    let best = Checkpoints::of_run(dir).best()?;
    let best =
        best.ok_or_else(|| Error::request(format!("{}: no best checkpoint", dir.display())))?;
    if let Err(mismatch) = store.load(&best.weights()?)? {
        return Err(Error::request(format!("{}: {mismatch:?}", best.path().display())));
    }
    let mut result = summary(recipe, options, seed, &runs.reports, store.num_parameters());
    result.provenance.device = options.place.describe(&device);
    result.interrupted = runs.interrupted;
    if !runs.interrupted {
        result.tests = tests(recipe, &model, &data, &device)?;
    }
    save(recipe, options, &config, &store, &data, &result)?;
    Ok(result)
}

/// When no further restart is needed.
fn content(recipe: &Recipe) -> Option<StopWhen> {
    match recipe.restart_above {
        Some(percent) => {
            Some(StopWhen { metric: "error".into(), below: percent / 100., epochs: 1 })
        }
        None => recipe.train.stop_when.clone(),
    }
}

fn interrupted(recipe: &Recipe, options: &RunOptions) -> RunResult {
    RunResult { interrupted: true, ..summary(recipe, options, recipe.train.seed, &[], 0) }
}

fn summary(
    recipe: &Recipe,
    options: &RunOptions,
    seed: u64,
    reports: &[(u64, Report)],
    parameters: usize,
) -> RunResult {
    let chosen = reports.iter().find(|(s, _)| *s == seed).map(|(_, r)| r);
    let error = |r: &Report| r.best_validation.as_ref().and_then(|v| v.get("error"));
    RunResult {
        name: recipe.name.clone(),
        interrupted: false,
        seed,
        validation: chosen.and_then(|r| r.best_validation.clone()).unwrap_or_default(),
        tests: vec![],
        seconds: reports.iter().map(|(_, r)| r.seconds).sum(),
        cpu_seconds: reports.iter().map(|(_, r)| r.cpu_seconds).sum(),
        epochs: reports.iter().map(|(s, r)| (*s, r.epochs)).collect(),
        validation_errors: reports
            .iter()
            .filter_map(|(s, r)| Some((*s, 100. * error(r)?)))
            .collect(),
        examples_per_second: chosen.map_or(0., |r| r.examples_per_second),
        parameters,
        provenance: Provenance::here(&options.command),
    }
}

/// Tests the model on every task of the recipe.
pub(super) fn tests(
    recipe: &Recipe,
    model: &AnyStoryModel,
    data: &BabiData,
    device: &Device,
) -> Result<Vec<TestResult>> {
    let scores = evaluate(model, &data.test, device)?;
    Ok(scores
        .into_iter()
        .map(|(task, score)| TestResult {
            task,
            questions: score.examples,
            error_percent: score.error_percent(),
            paper_percent: recipe.paper.get(&task.to_string()).copied(),
        })
        .collect())
}

fn save(
    recipe: &Recipe,
    options: &RunOptions,
    config: &ModelConfig,
    store: &ParamStore,
    data: &BabiData,
    result: &RunResult,
) -> Result<()> {
    let dir = &options.run_dir;
    let vocabulary = data.vocabulary.to_json()?;
    let recipe_text = recipe.to_toml()?;
    let card = card::card(recipe, config, result);
    let files = [
        ("vocab.json", vocabulary.as_str()),
        ("recipe.toml", recipe_text.as_str()),
        ("README.md", card.as_str()),
    ];
    save_pretrained::<AnyStoryModel>(dir.join("model"), config, store, &files)?;
    keep_result(dir, result)
}
