//! BERT with a head: masked words, a class of the whole text, a class of each token.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{Activation, Context, LayerNorm, Linear, init, linear};

use super::{BertModel, Config, HEADS};
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::text::TextBatch;
use crate::transformer::names::Prefixed;

/// The encoder with the head for masked words, as `BertForMaskedLM`: `LN(gelu(W x + b)) · word_embeddingsᵀ + bias`.
#[derive(Debug, Clone)]
pub struct BertForMaskedLm {
    bert: BertModel,
    transform: Linear,
    activation: Activation,
    norm: LayerNorm,
    decoder: Linear,
}

impl BertForMaskedLm {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let bert = BertModel::with_parts(config, false, vb.pp("bert"))?;
        let vb = vb.pp("cls.predictions");
        let (d, std) = (config.hidden_size, config.initializer_range);
        let bias = vb.get_with_hints(config.vocab_size, "bias", Init::Const(0.))?;
        Ok(Self {
            transform: linear(d, d, true, init::normal(std), vb.pp("transform.dense"))?,
            activation: config.hidden_act.activation(),
            norm: LayerNorm::new(d, config.norm(), vb.pp("transform.LayerNorm"))?,
            decoder: Linear::new(bert.embeddings.words.weight().clone(), Some(bias)),
            bert,
        })
    }

    /// Scores of all words at all places, `(b, t, v)`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.bert.forward(batch, ctx)?.last_hidden_state;
        let xs = self.activation.forward(&self.transform.forward(&xs)?)?;
        self.decoder.forward(&self.norm.forward(&xs)?)
    }
}

/// The encoder with a linear classifier on its pooler, as `BertForSequenceClassification`.
#[derive(Debug, Clone)]
pub struct BertForSequenceClassification {
    bert: BertModel,
    classifier: Linear,
    dropout: f64,
}

impl BertForSequenceClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let bert = BertModel::with_parts(config, true, vb.pp("bert"))?;
        Ok(Self { bert, classifier: classifier(config, vb)?, dropout: config.head_dropout() })
    }

    /// Scores of the labels, `(b, labels)`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let Some(pooled) = self.bert.forward(batch, ctx)?.pooler_output else {
            bail!("bert: a classifier of whole texts needs a pooler")
        };
        self.classifier.forward(&ctx.dropout(&pooled, self.dropout)?)
    }
}

/// The encoder with a linear classifier on every token, as `BertForTokenClassification`.
#[derive(Debug, Clone)]
pub struct BertForTokenClassification {
    bert: BertModel,
    classifier: Linear,
    dropout: f64,
}

impl BertForTokenClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let bert = BertModel::with_parts(config, false, vb.pp("bert"))?;
        Ok(Self { bert, classifier: classifier(config, vb)?, dropout: config.head_dropout() })
    }

    /// Scores of the labels of each token, `(b, t, labels)`.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        let xs = self.bert.forward(batch, ctx)?.last_hidden_state;
        self.classifier.forward(&ctx.dropout(&xs, self.dropout)?)
    }
}

fn classifier(config: &Config, vb: VarBuilder<'_>) -> Result<Linear> {
    let init = init::normal(config.initializer_range);
    linear(config.hidden_size, config.num_labels(), true, init, vb.pp("classifier"))
}

/// A model with a head: the beginnings of its head's names, and names of the encoder that it has no use for.
macro_rules! pretrained {
    ($($model:ident $class:literal $own:expr, $unused:expr;)+) => {$(
        impl PretrainedModel for $model {
            type Config = Config;

            fn read_config(
                keys: serde_json::Map<String, serde_json::Value>,
            ) -> error::Result<Config> {
                Config::read(keys)
            }

            fn config_keys(
                config: &Config,
            ) -> error::Result<serde_json::Map<String, serde_json::Value>> {
                config.keys($class)
            }

            fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
                Self::new(config, vb)
            }

            fn place(_: &Config, name: &str) -> Place {
                let unused: &[&str] = $unused;
                if unused.iter().any(|part| name.contains(part)) {
                    return Place::Nowhere;
                }
                Prefixed { base: "bert.", heads: HEADS, own: $own, bare: false }.place(name)
            }

            fn is_head(name: &str) -> bool {
                !name.starts_with("bert.") || name.starts_with("bert.pooler.")
            }
        }
    )+};
}

pretrained! {
    BertForMaskedLm "BertForMaskedLM" &["cls.predictions."],
        &["pooler.dense.", "cls.predictions.decoder.", "cls.seq_relationship."];
    BertForSequenceClassification "BertForSequenceClassification" &["classifier."], &[];
    BertForTokenClassification "BertForTokenClassification" &["classifier."], &["pooler.dense."];
}
