//! A recipe carried out: train, test at several sizes, save.

use std::path::Path;

use candle_core::Device;
use mnemic_models::ParamStore;
use mnemic_train::{Observer, Reason, Report, Trainer, Validation};
use serde::{Deserialize, Serialize};

use super::learner::{AlgorithmConfig, AlgorithmNet, AlgorithmTask};
use super::problem::{AlgorithmProblem, evaluate_sequences};
use super::recipe::AlgorithmRecipe;
use super::score::SequenceScore;
use crate::babi::RunOptions;
use crate::provenance::Provenance;
use crate::run_folder::{RunRecipe, claim, finished, keep_result};
use crate::{Error, Result};

/// The test at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlgorithmTest {
    /// The sizes; empty for those of training.
    pub sizes: Vec<usize>,
    /// Sequences.
    pub sequences: usize,
    /// Cross-entropy in bits for each sequence.
    pub bits: f64,
    /// Wrong bits (or symbols) for each sequence.
    pub wrong_bits: f64,
    /// Sequences in which anything is wrong, in percent.
    pub error_percent: f64,
    /// The mean share of a sequence before its first error, in percent ("fine" accuracy, Grefenstette et al. 2015).
    pub fine_percent: f64,
    /// Of patterns, the sizes of which no sequence is wrong, in percent (Joulin and Mikolov 2015, table 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solved_percent: Option<f64>,
    /// Whether the likeliest actions were done in full, where a model has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<bool>,
}

/// What a run has come to; `result.json` in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlgorithmResult {
    /// The recipe's name.
    pub name: String,
    /// Whether a signal stopped the run before its end; then nothing was tested.
    pub interrupted: bool,
    /// Whether `train.stop_when` was reached.
    pub converged: bool,
    /// The seed.
    pub seed: u64,
    /// The validation of the weights that were kept, those of the lowest validation loss.
    pub validation: Validation,
    /// Training sequences seen; of patterns, streams of ten sequences or more.
    pub sequences: u64,
    /// The tests, made once with the weights that were kept.
    pub tests: Vec<AlgorithmTest>,
    /// Seconds.
    pub seconds: f64,
    /// Seconds on all cores.
    pub cpu_seconds: Option<f64>,
    /// The number of scalar parameters.
    pub parameters: usize,
    /// Machine, commit, command, date.
    pub provenance: Provenance,
}

/// Carries out a recipe. A run that was stopped goes on where it was, to the same bits; one that is done gives its result again.
///
/// The run's folder gets `recipe.toml`, checkpoints and metrics, `model/` and `result.json`.
///
/// # Errors
/// When the recipe makes no sense, the folder holds another run, or training diverges.
pub fn train_algorithm(
    recipe: &AlgorithmRecipe,
    options: &RunOptions,
    observer: &mut (dyn Observer + Send),
) -> Result<AlgorithmResult> {
    if let Some(done) = finished(recipe, &options.run_dir)? {
        return Ok(done);
    }
    let device = options.place.open()?;
    let config = recipe.config()?;
    claim(recipe, &options.run_dir)?;
    let store = ParamStore::new(recipe.train.seed);
    let model = config.build(&store, &device)?;
    let mut problem = AlgorithmProblem {
        model: &model,
        store: &store,
        task: recipe.task()?,
        batches: &recipe.batches,
        curriculum: recipe.data.curriculum,
        grown: 0,
        seed: recipe.train.seed,
        device: device.clone(),
        fingerprint: fingerprint(recipe, &config)?,
    };
    let trainer = Trainer::new(recipe.train.clone())?.with_interrupt(options.interrupt.clone());
    let report = trainer.fit(&mut problem, &options.run_dir, observer)?;
    let mut result = summary(recipe, options, &report, store.num_parameters());
    result.provenance.device = options.place.describe(&device);
    if !result.interrupted {
        // The trainer has put the weights of the best validation back.
        result.tests = tests(recipe, &model, &device)?;
        save(recipe, options, &config, &store, &result)?;
    }
    Ok(result)
}

/// The tests at all sizes, first with soft actions and then with whole ones where the model has such.
fn tests(
    recipe: &AlgorithmRecipe,
    model: &AlgorithmNet,
    device: &Device,
) -> Result<Vec<AlgorithmTest>> {
    let soft = model.with_rounding(false);
    let whole = model.with_rounding(true);
    let models = match (&soft, &whole) {
        (Some(soft), Some(whole)) => vec![(soft, Some(false)), (whole, Some(true))],
        _ => vec![(model, None)],
    };
    let sizes = match recipe.data.test.as_slice() {
        [] => vec![vec![]],
        sizes => sizes.to_vec(),
    };
    let mut out = vec![];
    for sizes in sizes {
        for &(model, rounding) in &models {
            let test = test(recipe, model, &sizes, device)?;
            out.push(AlgorithmTest { rounding, ..test });
        }
    }
    Ok(out)
}

fn test(
    recipe: &AlgorithmRecipe,
    model: &AlgorithmNet,
    sizes: &[usize],
    device: &Device,
) -> Result<AlgorithmTest> {
    let task = recipe.task()?;
    let task = if sizes.is_empty() { task } else { task.at(sizes)? };
    let counts = (recipe.batches.size, recipe.batches.evaluation);
    let evaluate =
        |task: &AlgorithmTask| evaluate_sequences(model, task, counts, recipe.train.seed, device);
    let (mut score, mut solved) = (SequenceScore::default(), None);
    match task.each_size() {
        Some(each) => {
            let (count, mut right) = (each.clone().count(), 0);
            for n in each {
                let one = task.at(&[n])?;
                let at = evaluate(&one)?;
                right += usize::from(at.wrong_sequences == 0);
                score.add(at);
            }
            solved = Some(100. * right as f64 / count.max(1) as f64);
        }
        None => score = evaluate(&task)?,
    }
    Ok(AlgorithmTest {
        sequences: score.sequences,
        bits: score.cost(),
        wrong_bits: score.wrong(),
        error_percent: 100. * score.wrong_sequences as f64 / score.sequences.max(1) as f64,
        fine_percent: 100. * score.fine(),
        sizes: sizes.to_vec(),
        solved_percent: solved,
        rounding: None,
    })
}

fn summary(
    recipe: &AlgorithmRecipe,
    options: &RunOptions,
    report: &Report,
    parameters: usize,
) -> AlgorithmResult {
    let per_epoch = recipe.batches.size * recipe.batches.per_epoch;
    AlgorithmResult {
        name: recipe.name.clone(),
        interrupted: report.stopped == Reason::Interrupted,
        converged: report.stopped == Reason::Solved,
        seed: recipe.train.seed,
        validation: report.best_validation.clone().unwrap_or_default(),
        sequences: (report.epochs * per_epoch) as u64,
        tests: vec![],
        seconds: report.seconds,
        cpu_seconds: report.cpu_seconds,
        parameters,
        provenance: Provenance::here(&options.command),
    }
}

/// Whatever must be the same for a run to go on.
fn fingerprint(recipe: &AlgorithmRecipe, config: &AlgorithmConfig) -> Result<String> {
    let parts = (config, &recipe.data.task, &recipe.batches);
    let json = |e| Error::json(Path::new("recipe"))(e);
    match recipe.data.curriculum {
        Some(curriculum) => serde_json::to_string(&(parts, curriculum)).map_err(json),
        None => serde_json::to_string(&parts).map_err(json),
    }
}

fn save(
    recipe: &AlgorithmRecipe,
    options: &RunOptions,
    config: &AlgorithmConfig,
    store: &ParamStore,
    result: &AlgorithmResult,
) -> Result<()> {
    let dir = &options.run_dir;
    let text = recipe.to_toml()?;
    let files = [("recipe.toml", text.as_str())];
    config.save(&dir.join("model"), store, &files)?;
    keep_result(dir, result)
}
