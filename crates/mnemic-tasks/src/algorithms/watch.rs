//! A trained model at work on one sequence, as pictures over time.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use mnemic_data::algorithms::{CellBatch, SequenceBatch};
use mnemic_models::{
    AnyRolloutModel, AnySequenceModel, Context, RolloutModel, SequenceModel, softmax,
};
use mnemic_pictures::{Facts, HeatMap, Scale, Section};

use super::Stream;
use super::drawing::{channels, over_time, sigmoid, watched};
use super::learner::{AlgorithmNet, AlgorithmTask};
use super::recipe::AlgorithmRecipe;
use super::run::AlgorithmResult;
use super::walks::Walks;
use crate::run_folder::RunRecipe;
use crate::{Place, Result};

/// A trained model with the recipe that it came from.
#[derive(Debug)]
pub struct AlgorithmModel {
    /// The folder of the weights.
    pub path: PathBuf,
    /// How it was trained.
    pub recipe: AlgorithmRecipe,
    /// What its tests gave, where the run's folder says so.
    pub result: Option<AlgorithmResult>,
    model: AlgorithmNet,
    device: Device,
}

impl AlgorithmModel {
    /// Opens a model's folder, or a run's, whose model is in `model/`.
    ///
    /// # Errors
    /// When a file is missing or damaged or does not fit the others, naming it, or there is no such device.
    pub fn open(path: &Path, place: Place) -> Result<Self> {
        let device = place.open()?;
        let inner = path.join("model");
        let folder = if inner.join("config.json").exists() { inner } else { path.to_path_buf() };
        let text = crate::recipe::file::text(&folder.join("recipe.toml"))?;
        let recipe =
            AlgorithmRecipe::parse(&text, &folder.join("recipe.toml").display().to_string())?;
        let model = AlgorithmNet::open(&folder, &recipe.task()?, &device)?;
        let result = std::fs::read(path.join("result.json")).ok();
        let result = result.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { path: folder, recipe, result, model, device })
    }

    /// What the run came to.
    pub fn facts(&self) -> Facts {
        let recipe = &self.recipe;
        let architecture = recipe.model.get("architecture").and_then(toml::Value::as_str);
        let mut rows = vec![
            ("model".to_string(), architecture.unwrap_or("?").to_string()),
            ("task".to_string(), recipe.data.task.clone()),
        ];
        for test in self.result.iter().flat_map(|result| &result.tests) {
            let name = format!("test at {}", super::shown(&test.sizes));
            let (error, bits) = (test.error_percent, test.bits);
            rows.push((
                name,
                format!("{error:.1} % of sequences wrong, {bits:.3} bits a sequence"),
            ));
        }
        rows.push(("seed".to_string(), recipe.train.seed.to_string()));
        Facts { title: "The run".to_string(), rows }
    }

    /// Test sequence `number` of these sizes (those of training where empty) from the inputs to what the model says, with all that it
    /// attends to on the way: one heat map each, time from left to right.
    ///
    /// # Errors
    /// When the sizes are not those of the task.
    pub fn watch(&self, sizes: &[usize], number: usize) -> Result<Vec<Section>> {
        let task = self.recipe.task()?;
        let task = if sizes.is_empty() { task } else { task.at(sizes)? };
        let stream = (self.recipe.train.seed, Stream::Test.number(number));
        let maps = match (task, &self.model) {
            (AlgorithmTask::Steps(task), AlgorithmNet::Steps(model)) => {
                self.steps(&task.batch(1, stream.0, stream.1)?, model)?
            }
            (AlgorithmTask::Walks { task, length }, AlgorithmNet::Walks(model)) => {
                self.walk(task.batch(length, 1, stream.0, stream.1)?, model)?
            }
            _ => vec![],
        };
        Ok(maps.into_iter().map(Section::from).collect())
    }

    fn steps(&self, batch: &SequenceBatch, model: &AnySequenceModel) -> Result<Vec<HeatMap>> {
        let (t, i, o) = (batch.steps, batch.input_size, batch.output_size);
        let inputs = Tensor::from_slice(&batch.inputs, (1, t, i), &self.device)?;
        let ctx = Context::eval().watching();
        let scores = model.forward(&inputs, None, &ctx)?;
        let mut maps = vec![];
        let all = channels(&batch.inputs, t, i, |_| true);
        maps.push(over_time("Inputs", "channel", all, Scale::Auto));
        let scored = |step: usize| batch.scored[step];
        maps.extend(said(&batch.targets, (t, o), batch.symbols, scored, &scores.squeeze(0)?)?);
        maps.extend(watched(&ctx.take_trace())?);
        Ok(maps)
    }

    /// Cells and outputs have no steps in common with those of the walk.
    fn walk(&self, batch: CellBatch, model: &AnyRolloutModel) -> Result<Vec<HeatMap>> {
        let (n, i, m, o) = (batch.cells, batch.input_size, batch.outputs, batch.output_size);
        let all = channels(&batch.inputs, n, i, |_| true);
        let mut cells = over_time("Cells", "channel", all, Scale::Unit);
        cells.col_label = "cell".to_string();
        let (targets, symbols) = (batch.targets.clone(), batch.symbols);
        let ctx = Context::eval().watching();
        let walks = Walks::new(batch, &self.device)?;
        let scores = model.rollout(&walks.cells, &ctx)?.scores.squeeze(0)?;
        let mut outputs = said(&targets, (m, o), symbols, |_| true, &scores)?;
        outputs.iter_mut().for_each(|map| map.col_label = "output".to_string());
        let mut maps = vec![cells];
        maps.extend(outputs);
        maps.extend(watched(&ctx.take_trace())?);
        Ok(maps)
    }
}

/// The target and what is said, at the steps that are scored; of symbols, how likely the right one is.
fn said(
    targets: &[f32],
    (t, o): (usize, usize),
    symbols: bool,
    scored: impl Fn(usize) -> bool,
    scores: &Tensor,
) -> Result<[HeatMap; 2]> {
    let target = channels(targets, t, o, &scored);
    let probabilities = match symbols {
        true => softmax(scores)?,
        false => sigmoid(scores)?,
    };
    let probabilities = probabilities.flatten_all()?.to_vec1::<f32>()?;
    let said = channels(&probabilities, t, o, &scored);
    let name = if symbols { "symbol" } else { "channel" };
    Ok([
        over_time("Target", name, target, Scale::Unit),
        over_time("Output (probability)", name, said, Scale::Unit),
    ])
}
