//! Models that read a text from both sides: the encoder alone, and with a head.

use candle_core::{Result, Tensor};
use mnemic_layers::{Context, Trace};

use super::kind;
use crate::text::TextBatch;
use crate::transformer::bert::{
    BertForMaskedLm, BertForSequenceClassification, BertForTokenClassification, BertModel,
};
use crate::transformer::distilbert::{
    DistilBertForMaskedLm, DistilBertForSequenceClassification, DistilBertForTokenClassification,
    DistilBertModel,
};
use crate::transformer::roberta::{
    RobertaForMaskedLm, RobertaForSequenceClassification, RobertaForTokenClassification,
    RobertaModel,
};

kind! {
    /// An encoder without a head, of the architecture that `config.json` names; a checkpoint with a head does as well.
    ///
    /// ```no_run
    /// use candle_core::{DType, Device};
    /// use mnemic_models::transformer::auto::AutoEncoder;
    /// use mnemic_models::{Pretrained, from_pretrained};
    /// let loaded: Pretrained<AutoEncoder> = from_pretrained("bert-base-uncased", DType::F32, &Device::Cpu)?;
    /// assert_eq!(loaded.model.architecture(), "bert");
    /// # Ok::<(), mnemic_models::Error>(())
    /// ```
    AutoEncoder, AutoEncoderConfig, "an encoder", super::choose_base;
    /// BERT.
    Bert(BertModel): ["BertModel"], ["bert"], [];
    /// RoBERTa, XLM-RoBERTa and CamemBERT.
    Roberta(RobertaModel): ["RobertaModel", "XLMRobertaModel", "CamembertModel"], ["roberta", "xlm-roberta", "camembert"], [];
    /// DistilBERT.
    DistilBert(DistilBertModel): ["DistilBertModel"], ["distilbert"], [];
}

kind! {
    /// An encoder that says which tokens a hidden one may be.
    AutoMaskedLm, AutoMaskedLmConfig, "a masked language model", super::choose;
    /// BERT; a checkpoint that was trained with the head for the next sentence has this one, too.
    Bert(BertForMaskedLm): ["BertForMaskedLM", "BertForPreTraining"], ["bert"], [];
    /// RoBERTa, XLM-RoBERTa and CamemBERT.
    Roberta(RobertaForMaskedLm): ["RobertaForMaskedLM", "XLMRobertaForMaskedLM", "CamembertForMaskedLM"], ["roberta", "xlm-roberta", "camembert"], [];
    /// DistilBERT.
    DistilBert(DistilBertForMaskedLm): ["DistilBertForMaskedLM"], ["distilbert"], [];
}

kind! {
    /// An encoder that gives a text a class.
    AutoSequenceClassifier, AutoSequenceClassifierConfig, "a classifier of texts", super::choose;
    /// BERT.
    Bert(BertForSequenceClassification): ["BertForSequenceClassification"], ["bert"], [];
    /// RoBERTa, XLM-RoBERTa and CamemBERT.
    Roberta(RobertaForSequenceClassification): ["RobertaForSequenceClassification", "XLMRobertaForSequenceClassification", "CamembertForSequenceClassification"], ["roberta", "xlm-roberta", "camembert"], [];
    /// DistilBERT.
    DistilBert(DistilBertForSequenceClassification): ["DistilBertForSequenceClassification"], ["distilbert"], [];
}

kind! {
    /// An encoder that gives each token a class.
    AutoTokenClassifier, AutoTokenClassifierConfig, "a classifier of tokens", super::choose;
    /// BERT.
    Bert(BertForTokenClassification): ["BertForTokenClassification"], ["bert"], [];
    /// RoBERTa, XLM-RoBERTa and CamemBERT.
    Roberta(RobertaForTokenClassification): ["RobertaForTokenClassification", "XLMRobertaForTokenClassification", "CamembertForTokenClassification"], ["roberta", "xlm-roberta", "camembert"], [];
    /// DistilBERT.
    DistilBert(DistilBertForTokenClassification): ["DistilBertForTokenClassification"], ["distilbert"], [];
}

/// What an encoder computes on the way.
#[derive(Debug, Clone)]
pub struct EncoderStates {
    /// The embeddings, then the states after each layer, each `(b, t, d)`.
    pub hidden_states: Vec<Tensor>,
    /// The attention weights of each layer after the softmax, `(b, heads, t, t)`: queries, then keys. Rows of queries at padding mean nothing.
    pub attentions: Vec<Tensor>,
}

impl EncoderStates {
    fn new(trace: Trace) -> Self {
        let (mut hidden_states, mut attentions) = (vec![], vec![]);
        for watched in trace {
            match watched.name.as_str() {
                "hidden_states" => hidden_states.push(watched.value),
                "attention" => attentions.push(watched.value),
                _ => {}
            }
        }
        Self { hidden_states, attentions }
    }
}

impl AutoEncoder {
    /// The states of the last layer, `(b, t, d)`.
    ///
    /// # Errors
    /// When a row is too long or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        match self {
            Self::Bert(model) => model.states(batch, ctx),
            Self::Roberta(model) => model.states(batch, ctx),
            Self::DistilBert(model) => model.forward(batch, ctx),
        }
    }

    /// The states and attention weights of all layers.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn states(&self, batch: &TextBatch) -> Result<EncoderStates> {
        let ctx = Context::eval().watching();
        self.forward(batch, &ctx)?;
        Ok(EncoderStates::new(ctx.take_trace()))
    }
}

/// `forward` of the models with a head.
macro_rules! heads {
    ($($model:ident: $what:literal, $shape:literal;)+) => {$(
        impl $model {
            #[doc = concat!($what, ", ", $shape, ".")]
            ///
            /// # Errors
            /// When a row is too long or an id is not in the vocabulary.
            pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
                match self {
                    Self::Bert(model) => model.forward(batch, ctx),
                    Self::Roberta(model) => model.forward(batch, ctx),
                    Self::DistilBert(model) => model.forward(batch, ctx),
                }
            }
        }
    )+};
}

heads! {
    AutoMaskedLm: "Scores (logits) of every token of the vocabulary at every place", "`(b, t, v)`";
    AutoSequenceClassifier: "Scores (logits) of the labels", "`(b, labels)`";
    AutoTokenClassifier: "Scores (logits) of the labels of every token", "`(b, t, labels)`";
}

/// What the configs of all have in common.
macro_rules! configs {
    ($($config:ident),+) => {$(
        impl $config {
            /// The most tokens of a row.
            pub fn max_tokens(&self) -> usize {
                match self {
                    Self::Bert(config) => config.max_position_embeddings,
                    Self::Roberta(config) => config.max_tokens(),
                    Self::DistilBert(config) => config.max_position_embeddings,
                }
            }

            /// The names of a classifier's labels.
            pub fn labels(&self) -> Vec<String> {
                match self {
                    Self::Bert(config) => config.labels(),
                    Self::Roberta(config) => config.bert.labels(),
                    Self::DistilBert(config) => config.labels(),
                }
            }

            /// Whether a text may have several of the labels, each with a probability of its own: `problem_type` says so.
            pub fn is_multi_label(&self) -> bool {
                let other = match self {
                    Self::Bert(config) => &config.other,
                    Self::Roberta(config) => &config.bert.other,
                    Self::DistilBert(config) => &config.other,
                };
                other.get("problem_type").and_then(serde_json::Value::as_str)
                    == Some("multi_label_classification")
            }
        }
    )+};
}

configs!(
    AutoEncoderConfig,
    AutoMaskedLmConfig,
    AutoSequenceClassifierConfig,
    AutoTokenClassifierConfig
);
