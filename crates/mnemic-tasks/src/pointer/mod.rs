//! Pointer networks on planar problems: a model learns to point at the corners of convex hulls, at the triangles of Delaunay triangulations and along short
//! tours (O. Vinyals et al. 2015, arXiv 1506.03134).
//!
//! ```toml
//! name = "pointer-network-hull"
//!
//! [model]
//! architecture = "pointer-network"   # any key of the model's config overrides the paper's
//!
//! [data]
//! dataset = "planar"
//! task = "convex-hull"               # or delaunay, tsp
//! points = [5, 50]                   # the least and the most points of an instance
//! examples = 1000000                 # training instances; without end where nothing is said
//! test = [5, 10, 50]                 # numbers of points that are tested
//! files = ["convex_hull_5_test.txt"] # published files that are tested, where they are at hand
//! beam = 4                           # width of the beam in tests
//!
//! [batches]
//! size = 128
//! per_epoch = 100
//!
//! [train]
//! seed = 1
//! epochs = 100
//! optimizer = { name = "adam", lr = 0.001 }
//! clip = { global_norm = 2.0 }
//! ```
//!
//! The loss is the cross-entropy summed over an answer and its end, in nats for each instance. `error` is the share of instances in which greedy search does not
//! give the canonical answer. An "epoch" is a number of batches; validation instances come from a stream of their own, and tests from a third.
//!
//! Tests search greedily, and with a beam where its width is above 1; tours also with a beam of valid tours only.

mod paper;
mod problem;
mod recipe;
mod run;
mod score;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use paper::{Figure, figure};
pub use problem::{PlanarBatch, PointerProblem};
pub use recipe::{PlanarData, PointerRecipe, is_pointer};
pub use run::{PointerResult, PointerTest, train_pointer};
pub use score::{Judgement, PlanarScore, Search, evaluate_instances, judge};
pub use table::{PointerFile, PointerRow, pointer_section};
pub use watch::PointerModel;
