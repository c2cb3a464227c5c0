//! RoBERTa with a head: masked words, a class of the whole text, a class of each token.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{Context, LayerNorm, Linear, init, linear};

use super::{Config, HEADS, RobertaModel};
use crate::error;
use crate::text::TextBatch;
use crate::transformer::HiddenAct;
use crate::transformer::bert::first;
use crate::transformer::names::pretrained_heads;

/// The encoder with the head for masked words, as `RobertaForMaskedLM`: `LN(gelu(W x + b)) · word_embeddingsᵀ + bias`.
#[derive(Debug, Clone)]
pub struct RobertaForMaskedLm {
    roberta: RobertaModel,
    dense: Linear,
    norm: LayerNorm,
    decoder: Linear,
}

impl RobertaForMaskedLm {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let roberta = RobertaModel::with_parts(config, false, vb.pp("roberta"))?;
        let vb = vb.pp("lm_head");
        let (d, std) = (config.bert.hidden_size, config.bert.initializer_range);
        let bias = vb.get_with_hints(config.bert.vocab_size, "bias", Init::Const(0.))?;
        Ok(Self {
            dense: linear(d, d, true, init::normal(std), vb.pp("dense"))?,
            norm: LayerNorm::new(d, config.bert.norm(), vb.pp("layer_norm"))?,
            decoder: Linear::new(roberta.embeddings.words().clone(), Some(bias)),
            roberta,
        })
    }

    /// Scores of all words at all places, `(b, t, v)`.
    ///
    /// # Errors
    /// As [`RobertaModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.roberta.states(batch, ctx)?;
        // Whatever `hidden_act` says.
        let xs = HiddenAct::Gelu.activation().forward(&self.dense.forward(&xs)?)?;
        self.decoder.forward(&self.norm.forward(&xs)?)
    }
}

/// The encoder with a classifier on its first token, as `RobertaForSequenceClassification`: `W_o tanh(W x_0 + b) + b_o`.
#[derive(Debug, Clone)]
pub struct RobertaForSequenceClassification {
    roberta: RobertaModel,
    dense: Linear,
    out_proj: Linear,
    dropout: f64,
}

impl RobertaForSequenceClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let bert = &config.bert;
        let map = |out, name| {
            let init = init::normal(bert.initializer_range);
            linear(bert.hidden_size, out, true, init, vb.pp("classifier").pp(name))
        };
        Ok(Self {
            roberta: RobertaModel::with_parts(config, false, vb.pp("roberta"))?,
            dense: map(bert.hidden_size, "dense")?,
            out_proj: map(bert.num_labels(), "out_proj")?,
            dropout: bert.head_dropout(),
        })
    }

    /// Scores of the labels, `(b, labels)`.
    ///
    /// # Errors
    /// As [`RobertaModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = first(&self.roberta.states(batch, ctx)?)?;
        let xs = self.dense.forward(&ctx.dropout(&xs, self.dropout)?)?.tanh()?;
        self.out_proj.forward(&ctx.dropout(&xs, self.dropout)?)
    }
}

/// The encoder with a linear classifier on every token, as `RobertaForTokenClassification`.
#[derive(Debug, Clone)]
pub struct RobertaForTokenClassification {
    roberta: RobertaModel,
    classifier: Linear,
    dropout: f64,
}

impl RobertaForTokenClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let (bert, init) = (&config.bert, init::normal(config.bert.initializer_range));
        let vb_head = vb.pp("classifier");
        Ok(Self {
            roberta: RobertaModel::with_parts(config, false, vb.pp("roberta"))?,
            classifier: linear(bert.hidden_size, bert.num_labels(), true, init, vb_head)?,
            dropout: bert.head_dropout(),
        })
    }

    /// Scores of the labels of each token, `(b, t, labels)`.
    ///
    /// # Errors
    /// As [`RobertaModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.roberta.states(batch, ctx)?;
        self.classifier.forward(&ctx.dropout(&xs, self.dropout)?)
    }
}

pretrained_heads! {
    Config, "roberta.", HEADS;
    RobertaForMaskedLm "ForMaskedLM" &["lm_head."], &["pooler.dense.", "lm_head.decoder."];
    RobertaForSequenceClassification "ForSequenceClassification" &["classifier."], &["pooler.dense."];
    RobertaForTokenClassification "ForTokenClassification" &["classifier."], &["pooler.dense."];
}
