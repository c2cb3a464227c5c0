//! Tasks and models of two kinds behind one type each: those that go step by step, and those that walk through cells by themselves.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mnemic_data::algorithms::{Algorithm, Cells, cell_tasks};
use mnemic_models::{
    AnyRolloutModel, AnySequenceModel, Context, ParamStore, RolloutConfig, RolloutModel,
    SequenceConfig, SequenceModel, from_pretrained, save_pretrained, scale,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::score::SequenceScore;
use super::sequences::{Ends, Sequences};
use super::walks::Walks;
use crate::{Error, Result};

/// A task with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlgorithmTask {
    /// Read and answered step by step.
    Steps(Algorithm),
    /// Cells that a model walks through by itself.
    Walks {
        /// What is to be made of them.
        task: Cells,
        /// The least and the most of them.
        length: (usize, usize),
    },
}

impl AlgorithmTask {
    /// The task of this name in recipes, with the sizes of training.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        match Cells::named(name) {
            Some(task) => Ok(Self::Walks { task, length: task.paper() }),
            None => Algorithm::named(name).map(Self::Steps).map_err(|e| {
                Error::recipe("data.task", format!("{e}, {}", cell_tasks().join(", ")))
            }),
        }
    }

    /// The same task at given sizes only: see [`Algorithm::at`]; of cells their number, or the least and the most.
    ///
    /// # Errors
    /// When the sizes are not those of the task.
    pub fn at(&self, sizes: &[usize]) -> Result<Self> {
        match (self, sizes) {
            (Self::Steps(task), _) => Ok(Self::Steps(task.at(sizes)?)),
            (&Self::Walks { task, .. }, &[least] | &[least, _]) => {
                let most = sizes.last().copied().unwrap_or(least);
                task.check((least, most))?;
                Ok(Self::Walks { task, length: (least, most) })
            }
            (Self::Walks { .. }, _) => Err(Error::recipe(
                "data.test",
                format!("expected a number of cells, or the least and the most, got {sizes:?}"),
            )),
        }
    }

    /// The same task with sizes of at most `most`, for a curriculum.
    pub fn up_to(&self, most: usize) -> Self {
        match *self {
            Self::Steps(task) => Self::Steps(task.up_to(most)),
            Self::Walks { task, length: (least, largest) } => {
                let most = largest.min(most).max(least);
                Self::Walks { task, length: (least, most) }
            }
        }
    }

    /// All sizes, where they are tested one by one.
    pub fn each_size(&self) -> Option<std::ops::RangeInclusive<usize>> {
        match self {
            Self::Steps(task) => task.each_size(),
            Self::Walks { .. } => None,
        }
    }
}

/// The config of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AlgorithmConfig {
    /// Of one that goes step by step.
    Steps(SequenceConfig),
    /// Of one that walks through cells.
    Walks(RolloutConfig),
}

impl AlgorithmConfig {
    /// The paper's config of an architecture for a task, with `changes` of single keys.
    ///
    /// # Errors
    /// When the architecture or a key is unknown, naming it, or the task is of the other kind.
    pub fn new(
        architecture: &str,
        task: &AlgorithmTask,
        changes: Map<String, Value>,
    ) -> Result<Self> {
        let walks = RolloutConfig::ARCHITECTURES.contains(&architecture);
        match (task, walks) {
            (AlgorithmTask::Steps(task), false) => {
                Ok(Self::Steps(SequenceConfig::new(architecture, task.sizes(), changes)?))
            }
            (AlgorithmTask::Walks { task, .. }, true) => {
                Ok(Self::Walks(RolloutConfig::new(architecture, task.sizes(), changes)?))
            }
            (AlgorithmTask::Steps(_), true) => Err(Error::recipe(
                "data.task",
                format!(
                    "{architecture} walks through cells: expected one of {}",
                    cell_tasks().join(", ")
                ),
            )),
            (AlgorithmTask::Walks { .. }, false) => Err(Error::recipe(
                "model.architecture",
                format!(
                    "{architecture} does not walk through cells: expected one of {}",
                    RolloutConfig::ARCHITECTURES.join(", ")
                ),
            )),
        }
    }

    /// The model with its parameters in `store`, new ones where it has none.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn build(&self, store: &ParamStore, device: &Device) -> Result<AlgorithmNet> {
        let vb = store.builder(DType::F32, device);
        Ok(match self {
            Self::Steps(config) => AlgorithmNet::Steps(config.build(vb)?),
            Self::Walks(config) => AlgorithmNet::Walks(config.build(vb)?),
        })
    }

    /// Writes a model's folder.
    pub(super) fn save(
        &self,
        folder: &Path,
        store: &ParamStore,
        files: &[(&str, &str)],
    ) -> Result<()> {
        match self {
            Self::Steps(config) => {
                save_pretrained::<AnySequenceModel>(folder, config, store, files)?
            }
            Self::Walks(config) => {
                save_pretrained::<AnyRolloutModel>(folder, config, store, files)?
            }
        }
        Ok(())
    }
}

/// A model.
#[derive(Debug, Clone)]
pub enum AlgorithmNet {
    /// One that goes step by step.
    Steps(AnySequenceModel),
    /// One that walks through cells.
    Walks(AnyRolloutModel),
}

impl AlgorithmNet {
    /// Reads a model's folder, which is of the kind of the task.
    pub(super) fn open(folder: &Path, task: &AlgorithmTask, device: &Device) -> Result<Self> {
        let (net, sizes) = match task {
            AlgorithmTask::Steps(task) => {
                let model: AnySequenceModel = from_pretrained(folder, DType::F32, device)?.model;
                (Self::Steps(model), task.sizes())
            }
            AlgorithmTask::Walks { task, .. } => {
                let model: AnyRolloutModel = from_pretrained(folder, DType::F32, device)?.model;
                let (input, output, _) = task.sizes();
                (Self::Walks(model), (input, output))
            }
        };
        if net.sizes() != sizes {
            let reason = format!("expected widths {sizes:?}, got {:?}", net.sizes());
            return Err(Error::recipe(folder.display().to_string(), reason));
        }
        Ok(net)
    }

    /// Widths of inputs and outputs.
    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::Steps(model) => (model.input_size(), model.output_size()),
            Self::Walks(model) => (model.input_size(), model.output_size()),
        }
    }

    /// The same model with actions in full (or soft ones) outside of training; `None` where it has no actions to round.
    pub fn with_rounding(&self, rounding: bool) -> Option<Self> {
        match self {
            Self::Steps(model) => model.with_rounding(rounding).map(Self::Steps),
            Self::Walks(_) => None,
        }
    }
}

/// A batch of either kind.
#[derive(Debug)]
pub struct Batch(Kind);

#[derive(Debug)]
enum Kind {
    Steps(Sequences),
    Walks(Walks),
}

impl Batch {
    pub(super) fn load(
        task: &AlgorithmTask,
        size: usize,
        (seed, number): (u64, u64),
        ends: Ends,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self(match *task {
            AlgorithmTask::Steps(task) => {
                Kind::Steps(Sequences::new(task.batch(size, seed, number)?, ends, device)?)
            }
            AlgorithmTask::Walks { task, length } => {
                Kind::Walks(Walks::new(task.batch(length, size, seed, number)?, device)?)
            }
        }))
    }

    /// What is minimised, as a mean over the sequences, and how much is wrong.
    pub(super) fn score(
        &self,
        net: &AlgorithmNet,
        ctx: &Context,
    ) -> Result<(Tensor, SequenceScore)> {
        match (&self.0, net) {
            (Kind::Steps(batch), AlgorithmNet::Steps(model)) => {
                let (loss, score) = batch.score(model, ctx)?;
                Ok((scale(&loss, 1. / score.sequences.max(1) as f64)?, score))
            }
            (Kind::Walks(batch), AlgorithmNet::Walks(model)) => batch.score(model, ctx),
            _ => Err(Error::recipe("model", "internal error: the task is of the other kind")),
        }
    }
}
