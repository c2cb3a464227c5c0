//! Models with a head that gives classes.

use candle_core::{Result, Tensor};
use mnemic_models::transformer::{bert, distilbert, roberta};
use mnemic_models::{Context, PretrainedModel, TextBatch};

/// A model that gives each text, or each token, a score for every label.
pub trait Classifier: PretrainedModel + Send + Sync {
    /// The scores: `(b, labels)`, or `(b, t, labels)` of a model with a class for each token.
    ///
    /// # Errors
    /// When a text is longer than the model's positions or an id is not in its vocabulary.
    fn logits(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor>;
}

macro_rules! classifiers {
    ($($model:ty),+ $(,)?) => {$(
        impl Classifier for $model {
            fn logits(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
                self.forward(batch, ctx)
            }
        }
    )+};
}

classifiers!(
    bert::BertForSequenceClassification,
    bert::BertForTokenClassification,
    distilbert::DistilBertForSequenceClassification,
    distilbert::DistilBertForTokenClassification,
    roberta::RobertaForSequenceClassification,
    roberta::RobertaForTokenClassification,
);
