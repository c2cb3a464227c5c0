//! How good answers about points are (Vinyals et al. 2015, section 4).

use std::collections::BTreeSet;

use candle_core::Device;
use mnemic_data::planar::{Instance, PlanarTask, Point, is_simple, polygon_area, tour_length};
use mnemic_models::Context;
use mnemic_models::memory::pointer_network::{Decoding, PointerNetwork, Rule};

use super::problem::PlanarBatch;
use crate::Result;

/// How good one answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Judgement {
    /// Hull: the same polygon, wherever it starts. Delaunay: all triangles and no other, in any order. TSP: a tour no longer than the reference.
    pub right: bool,
    /// Hull: a simple polygon. Delaunay: triangles. TSP: a tour through each point once.
    pub valid: bool,
    /// Hull: its share of the true hull's area, 0 where it is not simple. Delaunay: the share of the true triangles that were found. TSP: 1 where valid.
    pub coverage: f64,
    /// TSP: the length of a valid tour.
    pub length: Option<f64>,
}

/// Judges an answer (indices from 0), that came to its end or not. A hull or tour may close, with its first point again, or not.
///
/// ```
/// use mnemic_data::planar::PlanarTask;
/// use mnemic_tasks::pointer::judge;
/// let instance = PlanarTask::ConvexHull.instance((6, 6), 1, 0)?;
/// assert!(judge(PlanarTask::ConvexHull, &instance, &instance.answer, true).right);
/// # Ok::<(), mnemic_data::Error>(())
/// ```
pub fn judge(task: PlanarTask, instance: &Instance, answer: &[usize], ended: bool) -> Judgement {
    if !ended {
        let coverage = match task {
            PlanarTask::Delaunay => triangles(instance, answer).coverage,
            _ => 0.,
        };
        return Judgement { coverage, ..Judgement::default() };
    }
    match task {
        PlanarTask::ConvexHull => hull(instance, answer),
        PlanarTask::Delaunay => triangles(instance, answer),
        PlanarTask::Tsp => tour(instance, answer),
    }
}

/// The cycle without its first point at the end.
fn opened(answer: &[usize]) -> &[usize] {
    match answer {
        [first, rest @ .., last] if first == last => &answer[..=rest.len()],
        _ => answer,
    }
}

fn hull(instance: &Instance, answer: &[usize]) -> Judgement {
    let points: &[Point] = &instance.points;
    let (truth, corners) = (opened(&instance.answer), opened(answer));
    let right = same_cycle(truth, corners);
    let valid = right || is_simple(points, corners);
    let coverage = match (right, valid) {
        (true, _) => 1.,
        (_, true) => polygon_area(points, corners).abs() / polygon_area(points, truth),
        _ => 0.,
    };
    Judgement { right, valid, coverage, length: None }
}

/// Whether two cycles are the same but for where they start.
fn same_cycle(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len()
        && (a.is_empty() || (0..a.len()).any(|k| a[k..].iter().chain(&a[..k]).eq(b.iter())))
}

fn triangles(instance: &Instance, answer: &[usize]) -> Judgement {
    let set = |indices: &[usize]| -> BTreeSet<[usize; 3]> {
        let sorted = |t: &[usize]| {
            let mut triangle = [t[0], t[1], t[2]];
            triangle.sort_unstable();
            triangle
        };
        indices.chunks_exact(3).map(sorted).collect()
    };
    let (truth, found) = (set(&instance.answer), set(answer));
    let whole = answer.len().is_multiple_of(3);
    let differ = |t: &[usize; 3]| t[0] != t[1] && t[1] != t[2];
    Judgement {
        right: whole && truth == found,
        valid: whole && found.iter().all(differ),
        coverage: truth.intersection(&found).count() as f64 / truth.len().max(1) as f64,
        length: None,
    }
}

fn tour(instance: &Instance, answer: &[usize]) -> Judgement {
    let tour = opened(answer);
    let all: BTreeSet<usize> = tour.iter().copied().collect();
    if all.len() != tour.len() || tour.len() != instance.points.len() {
        return Judgement::default();
    }
    let length = tour_length(&instance.points, tour);
    let right = length <= reference(instance) + 1e-9;
    Judgement { right, valid: true, coverage: 1., length: Some(length) }
}

/// The length of the given tour.
fn reference(instance: &Instance) -> f64 {
    tour_length(&instance.points, opened(&instance.answer))
}

/// How good a model is on some instances: sums over them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PlanarScore {
    /// Instances.
    pub instances: usize,
    /// Right answers.
    pub right: usize,
    /// Valid answers.
    pub valid: usize,
    /// Coverage of all answers.
    pub coverage: f64,
    /// Coverage of the valid ones.
    pub valid_coverage: f64,
    /// Length of the valid tours.
    pub length: f64,
    /// Length of the reference tours of the same instances.
    pub reference: f64,
}

impl PlanarScore {
    /// Adds an answer.
    pub fn count(&mut self, task: PlanarTask, instance: &Instance, judged: &Judgement) {
        self.instances += 1;
        self.right += usize::from(judged.right);
        self.valid += usize::from(judged.valid);
        self.coverage += judged.coverage;
        self.valid_coverage += if judged.valid { judged.coverage } else { 0. };
        if let (PlanarTask::Tsp, Some(length)) = (task, judged.length) {
            self.length += length;
            self.reference += reference(instance);
        }
    }
}

/// A search for answers, as it is written in results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// Width of the beam, 1 for greedy search.
    pub beam: usize,
    /// Where an answer may point.
    pub rule: Rule,
}

impl Search {
    /// The searches that a test of this task makes with a beam of this width.
    pub fn all(task: PlanarTask, beam: usize) -> Vec<Self> {
        let mut all = vec![Self { beam: 1, rule: Rule::Free }];
        if task == PlanarTask::Tsp {
            all.push(Self { beam, rule: Rule::Tour });
        } else if beam > 1 {
            all.push(Self { beam, rule: Rule::Free });
        }
        all
    }

    /// The name in tables.
    pub fn name(self) -> String {
        let search = if self.beam == 1 { "greedy".into() } else { format!("beam {}", self.beam) };
        match self.rule {
            Rule::Free => search,
            Rule::Tour => format!("{search}, valid tours"),
        }
    }
}

/// Has a model answer all instances, `size` at a time, and judges the answers.
///
/// # Errors
/// When the instances do not fit the model.
pub fn evaluate_instances(
    model: &PointerNetwork,
    task: PlanarTask,
    instances: &[Instance],
    (size, search): (usize, Search),
    device: &Device,
) -> Result<PlanarScore> {
    let mut score = PlanarScore::default();
    for chunk in instances.chunks(size.max(1)) {
        let batch = PlanarBatch::new(chunk, device)?;
        let most = batch.points.lengths.iter().max().copied().unwrap_or(0);
        let max_steps = task.longest_answer(most) + 1;
        let decoding = Decoding { width: search.beam, rule: search.rule, max_steps };
        let found = model.decode(&batch.points, &decoding, &Context::eval())?;
        for (instance, found) in chunk.iter().zip(found) {
            let Some(best) = found.first() else { continue };
            let answer: Vec<usize> = best.answer.iter().map(|&i| i as usize - 1).collect();
            score.count(task, instance, &judge(task, instance, &answer, best.ended));
        }
    }
    Ok(score)
}
