#![doc = include_str!("../README.md")]

mod average;
mod checkpoint;
mod clip;
mod config;
mod error;
mod gradients;
mod interrupt;
mod metrics;
mod observer;
pub mod optim;
mod problem;
mod progress;
mod report;
mod restarts;
mod schedule;
mod stack;
mod trainer;

pub use average::{Ema, EmaConfig, average_checkpoints};
pub use checkpoint::{Checkpoint, Checkpoints};
pub use clip::Clip;
pub use config::{BestBy, StopWhen, TrainConfig};
pub use error::{Error, NotFinite, Result};
pub use gradients::{Accumulator, Gradients};
pub use interrupt::Interrupt;
pub use observer::{Observer, StartInfo, StepInfo};
pub use optim::{Optimizer, OptimizerConfig};
pub use problem::{LossOutput, Phase, Problem, Validation};
pub use progress::ProgressBar;
pub use report::{EpochRecord, Reason, Report};
pub use restarts::{Restarts, RestartsConfig, best_of};
pub use schedule::{Schedule, ScheduleConfig, ScheduleState, Unit};
pub use stack::on_big_stack;
pub use trainer::Trainer;

pub use mnemic_kernels::{backward, backward_from, cuda};
