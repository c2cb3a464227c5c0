//! bAbI question answering (Weston et al. 2015): training, testing, asking.

mod ask;
mod card;
mod data;
mod generalise;
mod history;
mod problem;
mod results;
mod run;
pub mod table;

pub use ask::{BabiModel, example_sentences};
pub use data::BabiData;
pub use generalise::{GeneralisationRow, Stories, generalisation_table, generalise};
pub use history::{Confusion, confusions, learning_curve};
pub use problem::{BabiProblem, Score, evaluate, to_tensors};
pub use results::{ResultRow, Row, read_csv, update_csv};
pub use run::{RunOptions, RunResult, TestResult, train};
pub use table::RecipeFile;
