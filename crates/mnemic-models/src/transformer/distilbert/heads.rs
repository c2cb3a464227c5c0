//! DistilBERT with a head: masked words, a class of the whole text, a class of each token.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{Activation, Context, LayerNorm, Linear, init, linear, relu};

use super::{Config, DistilBertModel, HEADS};
use crate::error;
use crate::text::TextBatch;
use crate::transformer::bert::first;
use crate::transformer::names::pretrained_heads;

/// The encoder with the head for masked words, as `DistilBertForMaskedLM`: `LN(f(W x + b)) · word_embeddingsᵀ + bias`.
#[derive(Debug, Clone)]
pub struct DistilBertForMaskedLm {
    distilbert: DistilBertModel,
    transform: Linear,
    activation: Activation,
    norm: LayerNorm,
    projector: Linear,
}

impl DistilBertForMaskedLm {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        let distilbert = DistilBertModel::new(config, vb.pp("distilbert"))?;
        let bias = vb.get_with_hints(config.vocab_size, "vocab_projector.bias", Init::Const(0.))?;
        Ok(Self {
            transform: map(config, config.dim, vb.pp("vocab_transform"))?,
            activation: config.activation.activation(),
            norm: LayerNorm::new(config.dim, config.norm(), vb.pp("vocab_layer_norm"))?,
            projector: Linear::new(distilbert.words.weight().clone(), Some(bias)),
            distilbert,
        })
    }

    /// Scores of all words at all places, `(b, t, v)`.
    ///
    /// # Errors
    /// As [`DistilBertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.distilbert.forward(batch, ctx)?;
        let xs = self.activation.forward(&self.transform.forward(&xs)?)?;
        self.projector.forward(&self.norm.forward(&xs)?)
    }
}

/// The encoder with a classifier on its first token, as `DistilBertForSequenceClassification`: `W_o relu(W x_0 + b) + b_o`.
#[derive(Debug, Clone)]
pub struct DistilBertForSequenceClassification {
    distilbert: DistilBertModel,
    pre_classifier: Linear,
    classifier: Linear,
    dropout: f64,
}

impl DistilBertForSequenceClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Ok(Self {
            distilbert: DistilBertModel::new(config, vb.pp("distilbert"))?,
            pre_classifier: map(config, config.dim, vb.pp("pre_classifier"))?,
            classifier: map(config, config.num_labels(), vb.pp("classifier"))?,
            dropout: config.seq_classif_dropout,
        })
    }

    /// Scores of the labels, `(b, labels)`.
    ///
    /// # Errors
    /// As [`DistilBertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = first(&self.distilbert.forward(batch, ctx)?)?;
        let xs = relu(&self.pre_classifier.forward(&xs)?)?;
        self.classifier.forward(&ctx.dropout(&xs, self.dropout)?)
    }
}

/// The encoder with a linear classifier on every token, as `DistilBertForTokenClassification`.
#[derive(Debug, Clone)]
pub struct DistilBertForTokenClassification {
    distilbert: DistilBertModel,
    classifier: Linear,
    dropout: f64,
}

impl DistilBertForTokenClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Ok(Self {
            distilbert: DistilBertModel::new(config, vb.pp("distilbert"))?,
            classifier: map(config, config.num_labels(), vb.pp("classifier"))?,
            dropout: config.dropout,
        })
    }

    /// Scores of the labels of each token, `(b, t, labels)`.
    ///
    /// # Errors
    /// As [`DistilBertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.distilbert.forward(batch, ctx)?;
        self.classifier.forward(&ctx.dropout(&xs, self.dropout)?)
    }
}

fn map(config: &Config, out: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    linear(config.dim, out, true, init::normal(config.initializer_range), vb)
}

pretrained_heads! {
    Config, "distilbert.", HEADS;
    DistilBertForMaskedLm "DistilBertForMaskedLM"
        &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."], &["vocab_projector.weight"];
    DistilBertForSequenceClassification "DistilBertForSequenceClassification"
        &["pre_classifier.", "classifier."], &[];
    DistilBertForTokenClassification "DistilBertForTokenClassification" &["classifier."], &[];
}
