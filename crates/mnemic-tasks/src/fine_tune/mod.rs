//! Fine-tuning: a published encoder gets a new head and is trained on labelled texts.
//!
//! ```toml
//! name = "minilm-trec"
//!
//! [model]
//! from = "sentence-transformers/all-MiniLM-L6-v2"   # a folder or, with the feature `hub`, an id
//! head = "sequence-classification"                  # or token-classification
//!
//! [data]
//! dataset = "trec"                                  # or sst2, wnut17
//! max_length = 32
//!
//! [batches]
//! size = 32                                         # grouped by length
//!
//! [train]
//! seed = 1
//! epochs = 3
//! optimizer = { name = "adamw", lr = 0.0001, weight_decay = 0.01, decay = "matrices" }
//! schedule = { name = "linear", warmup = 46, total = 462 }
//! clip = { global_norm = 1.0 }
//!
//! [reference]
//! accuracy = 97.0                                   # printed beside the test
//! ```
//!
//! Checkpoints may be of BERT, RoBERTa or DistilBERT. The new head is drawn from the seed; the labels go into `config.json`. Of a word with
//! several pieces the first one bears the label, the others teach nothing (J. Devlin et al., NAACL 2019, arXiv 1810.04805, section 5.3). The weights
//! of the best validation are tested once on the official test part: accuracy, or precision, recall and F1 of exact entities. The best is that of the
//! highest accuracy or F1, unless `train.best_by` names another metric.

mod align;
mod card;
mod data;
mod entities;
mod model;
mod problem;
mod recipe;
mod results;
mod run;

pub use align::{first_pieces, join_words};
pub use data::{Labelled, TextData, TextDataset};
pub use entities::{Entity, EntityCounts, entities};
pub use model::Classifier;
pub use problem::{ClassifierProblem, Scores, TextTargets, evaluate};
pub use recipe::{FineTuneRecipe, Head, Start, TextBatches, TextDataConfig, is_fine_tune};
pub use results::FineTuneRow;
pub use run::{FineTuneResult, TextTest, fine_tune};
