//! A recipe carried out: train, test at several numbers of points and on published files, save.

use std::path::Path;

use candle_core::{DType, Device};
use mnemic_data::planar::{EXACT_TOUR, Instance, PlanarTask, read};
use mnemic_models::memory::pointer_network::{Config, PointerNetwork};
use mnemic_models::{ParamStore, save_pretrained};
use mnemic_train::{Observer, Reason, Report, Trainer, Validation};
use serde::{Deserialize, Serialize};

use super::problem::PointerProblem;
use super::recipe::PointerRecipe;
use super::score::{PlanarScore, Search, evaluate_instances};
use crate::algorithms::Stream;
use crate::babi::RunOptions;
use crate::provenance::Provenance;
use crate::recipe::data_path;
use crate::run_folder::{RunRecipe, claim, finished, keep_result};
use crate::{Error, Result};

/// The folder of published files below `MNEMIC_DATA/data`.
const FILES: &str = "ptr-net";

/// The test of one search on one set of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointerTest {
    /// Points of an instance; of a file the most.
    pub points: usize,
    /// `generated`, or the published file.
    pub source: String,
    /// How answers were searched for: `greedy`, `beam 4`, `beam 4, valid tours`.
    pub search: String,
    /// Instances.
    pub instances: usize,
    /// Right answers in percent: the same polygon, all triangles and no other, a tour as short as the reference.
    pub accuracy_percent: f64,
    /// Hull: the mean share of the area, over simple polygons. Delaunay: the mean share of the triangles, over all answers. TSP: none.
    pub coverage_percent: Option<f64>,
    /// Simple polygons, well-formed triangles, or tours through each point once, in percent.
    pub valid_percent: f64,
    /// TSP: the mean length of the valid tours.
    pub length: Option<f64>,
    /// TSP: the mean length of the reference tours of the same instances.
    pub reference_length: Option<f64>,
    /// TSP: whether the reference tours are known to be the shortest.
    pub exact: Option<bool>,
}

impl PointerTest {
    fn new(
        task: PlanarTask,
        (points, source): (usize, String),
        search: Search,
        score: &PlanarScore,
    ) -> Self {
        let percent = |part: f64, whole: usize| 100. * part / whole.max(1) as f64;
        let n = score.instances;
        let tsp = task == PlanarTask::Tsp;
        let mean = |sum: f64| (tsp && score.valid > 0).then(|| sum / score.valid as f64);
        let coverage_percent = match task {
            PlanarTask::ConvexHull => Some(percent(score.valid_coverage, score.valid)),
            PlanarTask::Delaunay => Some(percent(score.coverage, n)),
            PlanarTask::Tsp => None,
        };
        Self {
            points,
            source,
            search: search.name(),
            instances: n,
            accuracy_percent: percent(score.right as f64, n),
            coverage_percent,
            valid_percent: percent(score.valid as f64, n),
            length: mean(score.length),
            reference_length: mean(score.reference),
            exact: tsp.then_some(points <= EXACT_TOUR),
        }
    }

    /// What the test came to, in a few words; `FAIL` where more than 1 % of the polygons are not simple, as the paper counts.
    pub fn said(&self) -> String {
        let fail = if self.fails() { " FAIL" } else { "" };
        match (self.length, self.reference_length, self.coverage_percent) {
            (Some(length), Some(reference), _) => format!(
                "length {length:.3} (reference {reference:.3}), {:.1} % valid",
                self.valid_percent
            ),
            (_, _, Some(coverage)) => format!(
                "accuracy {:.1} %, coverage {coverage:.1} %{fail}, {:.1} % valid",
                self.accuracy_percent, self.valid_percent
            ),
            _ => format!("{:.1} % valid", self.valid_percent),
        }
    }

    /// Whether more than 1 % of the answers are not valid.
    pub fn fails(&self) -> bool {
        self.valid_percent < 99.
    }
}

/// What a run has come to; `result.json` in the run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointerResult {
    /// The recipe's name.
    pub name: String,
    /// Whether a signal stopped the run before its end; then nothing was tested.
    pub interrupted: bool,
    /// Whether `train.stop_when` was reached.
    pub converged: bool,
    /// The seed.
    pub seed: u64,
    /// The validation of the weights that were kept.
    pub validation: Validation,
    /// Training instances seen, repeated ones included.
    pub examples: u64,
    /// The tests, made once with the weights that were kept.
    pub tests: Vec<PointerTest>,
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
/// When the recipe makes no sense, a published file is missing or malformed, the folder holds another run, or training diverges.
pub fn train_pointer(
    recipe: &PointerRecipe,
    options: &RunOptions,
    observer: &mut (dyn Observer + Send),
) -> Result<PointerResult> {
    if let Some(done) = finished(recipe, &options.run_dir)? {
        return Ok(done);
    }
    let device = options.place.open()?;
    let config = recipe.config()?;
    // Before training: a mistake in them is not to show at its end.
    let files = published(recipe, options.data.as_deref())?;
    claim(recipe, &options.run_dir)?;
    let store = ParamStore::new(recipe.train.seed);
    let model = PointerNetwork::new(&config, store.builder(DType::F32, &device))?;
    let mut problem = PointerProblem {
        model: &model,
        store: &store,
        data: &recipe.data,
        batches: &recipe.batches,
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
        result.tests = tests(recipe, &model, files, &device)?;
        save(recipe, options, &config, &store, &result)?;
    }
    Ok(result)
}

/// A published file: its name and its instances.
type Published = (String, Vec<Instance>);

/// The published files of the recipe; none where nobody says where they are.
fn published(recipe: &PointerRecipe, data: Option<&Path>) -> Result<Vec<Published>> {
    let Ok(folder) = data_path(data, FILES) else { return Ok(vec![]) };
    let read = |name: &String| Ok((name.clone(), read(folder.join(name), recipe.data.task)?));
    recipe.data.files.iter().map(read).collect()
}

fn tests(
    recipe: &PointerRecipe,
    model: &PointerNetwork,
    files: Vec<Published>,
    device: &Device,
) -> Result<Vec<PointerTest>> {
    let (data, size) = (&recipe.data, recipe.batches.size);
    let mut sets = vec![];
    for n in data.tested() {
        let number = |i: usize| Stream::Test.number(i);
        let instances = (0..size * recipe.batches.evaluation)
            .map(|i| data.task.instance((n, n), recipe.train.seed, number(i)))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        sets.push((n, "generated".to_string(), instances));
    }
    for (name, instances) in files {
        let most = instances.iter().map(|i| i.points.len()).max().unwrap_or(0);
        sets.push((most, name, instances));
    }
    let mut tests = vec![];
    for (n, source, instances) in sets {
        for search in Search::all(data.task, data.beam) {
            let score = evaluate_instances(model, data.task, &instances, (size, search), device)?;
            tests.push(PointerTest::new(data.task, (n, source.clone()), search, &score));
        }
    }
    Ok(tests)
}

fn summary(
    recipe: &PointerRecipe,
    options: &RunOptions,
    report: &Report,
    parameters: usize,
) -> PointerResult {
    let per_epoch = recipe.batches.size * recipe.batches.per_epoch;
    PointerResult {
        name: recipe.name.clone(),
        interrupted: report.stopped == Reason::Interrupted,
        converged: report.stopped == Reason::Solved,
        seed: recipe.train.seed,
        validation: report.best_validation.clone().unwrap_or_default(),
        examples: (report.epochs * per_epoch) as u64,
        tests: vec![],
        seconds: report.seconds,
        cpu_seconds: report.cpu_seconds,
        parameters,
        provenance: Provenance::here(&options.command),
    }
}

/// Whatever must be the same for a run to go on.
fn fingerprint(recipe: &PointerRecipe, config: &Config) -> Result<String> {
    let data = &recipe.data;
    let parts = (config, data.task, data.points, data.examples, &recipe.batches);
    serde_json::to_string(&parts).map_err(Error::json(Path::new("recipe")))
}

fn save(
    recipe: &PointerRecipe,
    options: &RunOptions,
    config: &Config,
    store: &ParamStore,
    result: &PointerResult,
) -> Result<()> {
    let dir = &options.run_dir;
    let text = recipe.to_toml()?;
    let files = [("recipe.toml", text.as_str())];
    save_pretrained::<PointerNetwork>(dir.join("model"), config, store, &files)?;
    keep_result(dir, result)
}
