//! A trained model at work on one sequence, as pictures over time.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mnemic_data::algorithms::SequenceBatch;
use mnemic_models::{
    AnySequenceModel, Context, Pretrained, SequenceModel, Watched, from_pretrained, softmax,
};
use mnemic_pictures::{Facts, HeatMap, Scale, Section};

use super::problem::Stream;
use super::recipe::AlgorithmRecipe;
use super::run::AlgorithmResult;
use crate::run_folder::RunRecipe;
use crate::{Error, Place, Result};

/// A trained model with the recipe that it came from.
#[derive(Debug)]
pub struct AlgorithmModel {
    /// The folder of the weights.
    pub path: PathBuf,
    /// How it was trained.
    pub recipe: AlgorithmRecipe,
    /// What its tests gave, where the run's folder says so.
    pub result: Option<AlgorithmResult>,
    model: AnySequenceModel,
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
        let model: Pretrained<AnySequenceModel> = from_pretrained(&folder, DType::F32, &device)?;
        let sizes = recipe.task()?.sizes();
        if (model.model.input_size(), model.model.output_size()) != sizes {
            let reason = format!("expected widths {sizes:?} for {}", recipe.data.task);
            return Err(Error::recipe(folder.display().to_string(), reason));
        }
        let result = std::fs::read(path.join("result.json")).ok();
        let result = result.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { path: folder, recipe, result, model: model.model, device })
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
        let batch = task.batch(1, self.recipe.train.seed, Stream::Test.number(number))?;
        let (t, i) = (batch.steps, batch.input_size);
        let inputs = Tensor::from_slice(&batch.inputs, (1, t, i), &self.device)?;
        let ctx = Context::eval().watching();
        let scores = self.model.forward(&inputs, None, &ctx)?;
        let mut maps = vec![];
        let channels = channels(&batch.inputs, t, i, |_| true);
        maps.push(over_time("Inputs", "channel", channels, Scale::Auto));
        maps.extend(said(&batch, &scores.squeeze(0)?)?);
        maps.extend(watched(&ctx.take_trace())?);
        Ok(maps.into_iter().map(Section::from).collect())
    }
}

/// The target and what is said, at the steps that are scored; of symbols, how likely the right one is.
fn said(batch: &SequenceBatch, scores: &Tensor) -> Result<[HeatMap; 2]> {
    let (t, o) = (batch.steps, batch.output_size);
    let scored = |step: usize| batch.scored[step];
    let target = channels(&batch.targets, t, o, scored);
    let probabilities = match batch.symbols {
        true => softmax(scores)?,
        false => sigmoid(scores)?,
    };
    let probabilities = probabilities.flatten_all()?.to_vec1::<f32>()?;
    let said = channels(&probabilities, t, o, scored);
    let name = if batch.symbols { "symbol" } else { "channel" };
    Ok([
        over_time("Target", name, target, Scale::Unit),
        over_time("Output (probability)", name, said, Scale::Unit),
    ])
}

fn sigmoid(scores: &Tensor) -> Result<Tensor> {
    Ok((scores.neg()?.exp()? + 1.)?.recip()?)
}

/// `(t, width)` turned round to one row a channel; steps that are left out are no numbers.
fn channels(
    values: &[f32],
    t: usize,
    width: usize,
    shown: impl Fn(usize) -> bool,
) -> Vec<Vec<f32>> {
    let at = |channel: usize, step: usize| match shown(step) {
        true => values[step * width + channel],
        false => f32::NAN,
    };
    (0..width).map(|channel| (0..t).map(|step| at(channel, step)).collect()).collect()
}

fn over_time(title: &str, rows: &str, values: Vec<Vec<f32>>, scale: Scale) -> HeatMap {
    let steps = values.first().map_or(0, Vec::len);
    HeatMap {
        title: title.to_string(),
        row_label: rows.to_string(),
        col_label: "time step".to_string(),
        rows: (0..values.len()).map(|i| i.to_string()).collect(),
        cols: (0..steps).map(|i| i.to_string()).collect(),
        values: values.into_iter().flatten().collect(),
        scale,
    }
}

/// One map for each head of each weighting, and the memory after the last step.
fn watched(trace: &[Watched]) -> Result<Vec<HeatMap>> {
    let mut names: Vec<&str> = vec![];
    for entry in trace {
        if !names.contains(&entry.name.as_str()) {
            names.push(&entry.name);
        }
    }
    let mut maps = vec![];
    for name in names {
        let values: Vec<&Tensor> =
            trace.iter().filter(|entry| entry.name == name).map(|entry| &entry.value).collect();
        let title = name.replace('_', " ");
        match values.first().map_or(0, |first| first.rank()) {
            3 if name == "memory" => maps.extend(last(&title, &values)?),
            3 => maps.extend(heads(&title, &values)?),
            2 => {
                let rows = values.iter().map(|v| Ok(v.get(0)?.to_vec1::<f32>()?));
                let columns = rows.collect::<Result<Vec<_>>>()?;
                maps.push(over_time(&title, "place", aligned(&columns), Scale::Unit));
            }
            _ => {}
        }
    }
    Ok(maps)
}

/// Weightings `(1, heads, n)` of every step.
fn heads(title: &str, values: &[&Tensor]) -> Result<Vec<HeatMap>> {
    let count = values.first().map_or(Ok(0), |first| first.dim(1))?;
    let (rows, cols) = axes(title);
    let head = |head: usize| -> Result<HeatMap> {
        let columns = values.iter().map(|v| Ok(v.get(0)?.get(head)?.to_vec1::<f32>()?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let title = if count > 1 { format!("{title}, head {}", head + 1) } else { title.into() };
        let map = over_time(&title, rows, aligned(&columns), Scale::Unit);
        Ok(HeatMap { col_label: cols.to_string(), ..map })
    };
    (0..count).map(head).collect()
}

/// What a weighting of this title is over, and when it was.
fn axes(title: &str) -> (&'static str, &'static str) {
    match title {
        _ if title.starts_with("summary weights") => ("child", "window"),
        _ if title.starts_with("readout weights") => ("place in the window", "time step"),
        "leaf weights" | "attention" => ("step read", "time step"),
        _ => ("slot", "time step"),
    }
}

/// Columns as rows over time. Where they grow at both ends, by two a step, the middle stays where it is; places that are not there yet are no
/// numbers.
fn aligned(columns: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let most = columns.iter().map(Vec::len).max().unwrap_or(0);
    let both_ends = columns.len() > 1
        && columns.iter().enumerate().all(|(step, column)| column.len() == 2 * (step + 1));
    let place = |column: &Vec<f32>, row: usize| {
        let below = if both_ends { (most - column.len()) / 2 } else { 0 };
        row.checked_sub(below).and_then(|i| column.get(i)).copied().unwrap_or(f32::NAN)
    };
    (0..most).map(|row| columns.iter().map(|column| place(column, row)).collect()).collect()
}

/// The memory `(1, n, w)` after the last step.
fn last(title: &str, values: &[&Tensor]) -> Result<Option<HeatMap>> {
    let Some(memory) = values.last() else { return Ok(None) };
    let rows = memory.get(0)?.to_vec2::<f32>()?;
    let width = rows.first().map_or(0, Vec::len);
    Ok(Some(HeatMap {
        title: format!("{title} after the last step"),
        row_label: "slot".to_string(),
        col_label: "number".to_string(),
        rows: (0..rows.len()).map(|i| i.to_string()).collect(),
        cols: (0..width).map(|i| i.to_string()).collect(),
        values: rows.into_iter().flatten().collect(),
        scale: Scale::Diverging,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_grow_at_both_ends_keep_their_middle() {
        let columns = vec![vec![1., 2.], vec![3., 4., 5., 6.]];
        let rows = aligned(&columns);
        let shown: Vec<Vec<Option<f32>>> = rows
            .iter()
            .map(|row| row.iter().map(|x| (!x.is_nan()).then_some(*x)).collect())
            .collect();
        let expected =
            [[None, Some(3.)], [Some(1.), Some(4.)], [Some(2.), Some(5.)], [None, Some(6.)]];
        assert_eq!(shown, expected.map(|row| row.to_vec()));
        let rows = aligned(&[vec![1.], vec![2., 3.]]);
        assert!(rows[0] == [1., 2.] && rows[1][0].is_nan() && rows[1][1] == 3.);
    }
}
