//! A trained pointer network at work on one instance, as pictures.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use mnemic_data::planar::{Instance, PlanarTask};
use mnemic_models::memory::pointer_network::{Decoding, Hypothesis, PointerNetwork};
use mnemic_models::{Context, Pretrained, Watched, from_pretrained};
use mnemic_pictures::{Curve, Facts, HeatMap, Scale, Section, Series};

use super::problem::PlanarBatch;
use super::recipe::PointerRecipe;
use super::run::PointerResult;
use super::score::{Search, judge};
use crate::algorithms::Stream;
use crate::run_folder::RunRecipe;
use crate::{Error, Place, Result};

/// A trained model with the recipe that it came from.
#[derive(Debug)]
pub struct PointerModel {
    /// The folder of the weights.
    pub path: PathBuf,
    /// How it was trained.
    pub recipe: PointerRecipe,
    /// What its tests gave, where the run's folder says so.
    pub result: Option<PointerResult>,
    model: PointerNetwork,
    device: Device,
}

impl PointerModel {
    /// Opens a model's folder, or a run's, whose model is in `model/`.
    ///
    /// # Errors
    /// When a file is missing or damaged, naming it, or there is no such device.
    pub fn open(path: &Path, place: Place) -> Result<Self> {
        let device = place.open()?;
        let inner = path.join("model");
        let folder = if inner.join("config.json").exists() { inner } else { path.to_path_buf() };
        let file = folder.join("recipe.toml");
        let text = crate::recipe::file::text(&file)?;
        let recipe = PointerRecipe::parse(&text, &file.display().to_string())?;
        let model: Pretrained<PointerNetwork> = from_pretrained(&folder, DType::F32, &device)?;
        let result = std::fs::read(path.join("result.json")).ok();
        let result = result.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { path: folder, recipe, result, model: model.model, device })
    }

    /// What the run came to.
    pub fn facts(&self) -> Facts {
        let recipe = &self.recipe;
        let mut rows = vec![
            ("model".to_string(), "pointer-network".to_string()),
            ("task".to_string(), recipe.data.task.name().to_string()),
        ];
        for test in self.result.iter().flat_map(|result| &result.tests) {
            let name = format!("{} points, {}, {}", test.points, test.source, test.search);
            rows.push((name, test.said()));
        }
        rows.push(("seed".to_string(), recipe.train.seed.to_string()));
        Facts { title: "The run".to_string(), rows }
    }

    /// Test instance `number` of `points` points (the most of training where `None`): what the model answers with the recipe's beam, beside the true answer, and
    /// where it pointed at each step.
    ///
    /// # Errors
    /// When there are too few points for the task.
    pub fn watch(&self, points: Option<usize>, number: usize) -> Result<Vec<Section>> {
        let data = &self.recipe.data;
        let n = points.unwrap_or(data.points.1);
        let number = Stream::Test.number(number);
        let instance = data.task.instance((n, n), self.recipe.train.seed, number)?;
        let mut batch = PlanarBatch::new(std::slice::from_ref(&instance), &self.device)?;
        let search = Search::all(data.task, data.beam).last().copied();
        let Search { beam: width, rule } =
            search.unwrap_or(Search { beam: 1, rule: Default::default() });
        let decoding = Decoding { width, rule, max_steps: data.task.longest_answer(n) + 1 };
        let found = self.model.decode(&batch.points, &decoding, &Context::eval())?;
        let Some(best) = found.first().and_then(|beam| beam.first()) else {
            return Err(Error::request("the search found no answer"));
        };
        batch.answers = vec![best.answer.clone()];
        let ctx = Context::eval().watching();
        self.model.forward(&batch.points, &batch.answers, &ctx)?;
        let answer: Vec<usize> = best.answer.iter().map(|&i| i as usize - 1).collect();
        let right = judge(data.task, &instance, &answer, best.ended).right;
        Ok(vec![
            drawing(data.task, &instance, &answer, right).into(),
            pointer_map(&ctx.take_trace(), best, n)?.into(),
        ])
    }
}

/// The points with the true answer and the model's.
fn drawing(task: PlanarTask, instance: &Instance, answer: &[usize], right: bool) -> Curve {
    let gap = (f64::NAN, f64::NAN);
    let at = |i: &usize| (instance.points[*i][0], instance.points[*i][1]);
    let path = |answer: &[usize]| match task {
        PlanarTask::Delaunay => {
            let triangle =
                |t: &[usize]| t.iter().chain(t.first()).map(at).chain([gap]).collect::<Vec<_>>();
            answer.chunks(3).flat_map(triangle).collect()
        }
        _ => answer.iter().map(at).collect(),
    };
    let all = (0..instance.points.len()).flat_map(|i| [at(&i), gap]).collect();
    let verdict = if right { "right" } else { "not right" };
    let series = [
        ("true answer", path(&instance.answer)),
        ("model's answer", path(answer)),
        ("points", all),
    ];
    Curve {
        title: format!("Points and answers: the model's is {verdict}"),
        x_label: "x".into(),
        y_label: "y".into(),
        log_y: false,
        series: series.map(|(name, points)| Series { name: name.into(), points }).into(),
    }
}

/// The pointer weights of every step, time from left to right.
fn pointer_map(trace: &[Watched], best: &Hypothesis, n: usize) -> Result<HeatMap> {
    let steps = trace
        .iter()
        .map(|entry| Ok(entry.value.get(0)?.to_vec1::<f32>()?))
        .collect::<Result<Vec<_>>>()?;
    // The step behind an answer that was cut off chose nothing.
    let last = if best.ended { name(0) } else { "–".into() };
    let said = best.answer.iter().map(|&at| name(at as usize)).chain([last]);
    Ok(HeatMap {
        title: "Pointer weights".into(),
        row_label: "position".into(),
        col_label: "step, by what was chosen".into(),
        rows: (0..=n).map(name).collect(),
        cols: said.collect(),
        values: (0..=n).flat_map(|at| steps.iter().map(move |step| step[at])).collect(),
        scale: Scale::Unit,
    })
}

/// A position's name: points count from 1.
fn name(position: usize) -> String {
    if position == 0 { "end".into() } else { position.to_string() }
}
