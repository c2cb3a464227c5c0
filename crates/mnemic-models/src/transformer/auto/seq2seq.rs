//! Models that read one text and write another.

use candle_core::{Result, Tensor};
use mnemic_layers::Context;

use super::auto;
use crate::error;
use crate::recurrent::gru_seq2seq::GruSeq2Seq;
use crate::text::TextBatch;
use crate::transformer::bart::BartForConditionalGeneration;
use crate::transformer::marian::MarianMtModel;
use crate::transformer::opennmt::OpenNmtTransformer;
use crate::transformer::t5::T5ForConditionalGeneration;

auto! {
    /// An encoder-decoder of the architecture that `config.json` names.
    ///
    /// ```no_run
    /// use candle_core::{DType, Device};
    /// use mnemic_models::transformer::auto::AutoSeq2SeqLm;
    /// use mnemic_models::{Pretrained, from_pretrained};
    /// let loaded: Pretrained<AutoSeq2SeqLm> = from_pretrained("opus-mt-en-de", DType::F32, &Device::Cpu)?;
    /// assert_eq!(loaded.model.architecture(), "marian");
    /// # Ok::<(), mnemic_models::Error>(())
    /// ```
    AutoSeq2SeqLm, AutoSeq2SeqLmConfig, AutoSeq2SeqLmState, "an encoder-decoder", encodes: true;
    /// BART.
    Bart(BartForConditionalGeneration): ["BartForConditionalGeneration"], ["bart"], [];
    /// Marian.
    Marian(MarianMtModel): ["MarianMTModel"], ["marian"], [];
    /// T5 and mT5.
    T5(T5ForConditionalGeneration): ["T5ForConditionalGeneration", "MT5ForConditionalGeneration"], ["t5", "mt5"], [];
    /// OpenNMT's Transformer.
    OpenNmt(OpenNmtTransformer): ["OpenNmtTransformer"], ["opennmt"], ["source_tokens", "target_tokens", "d_model"];
    /// Two recurrent networks.
    Gru(GruSeq2Seq): ["GruSeq2Seq"], ["gru-seq2seq"], ["graphemes", "phonemes", "hidden_size"];
}

impl AutoSeq2SeqLm {
    /// Scores of the token that follows each of the target's, `(b, t, v)`. The target begins with the start token.
    ///
    /// # Errors
    /// When the batches do not fit together, a row is too long, or an id is not in the vocabulary.
    pub fn forward(&self, source: &TextBatch, target: &TextBatch, ctx: &Context) -> Result<Tensor> {
        match self {
            Self::Bart(model) => model.forward(source, target, ctx),
            Self::Marian(model) => model.forward(source, target, ctx),
            Self::T5(model) => model.forward(source, target, ctx),
            Self::OpenNmt(model) => model.forward(source, target, ctx),
            Self::Gru(model) => model.forward(source, target, ctx),
        }
    }
}

/// The vocabularies of a model whose config holds them, so that it needs no tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct OwnVocabulary<'a> {
    /// The tokens that the encoder reads.
    pub sources: &'a [String],
    /// The tokens that the decoder writes.
    pub targets: &'a [String],
    /// The id that the decoder begins with.
    pub start: u32,
    /// The id that ends what is written.
    pub end: u32,
    config: &'a AutoSeq2SeqLmConfig,
}

impl OwnVocabulary<'_> {
    /// The ids that the encoder reads for these tokens, with what the model expects after them.
    ///
    /// # Errors
    /// When a token is not known and there is none for unknown ones.
    pub fn source_ids<'t>(
        &self,
        tokens: impl IntoIterator<Item = &'t str>,
    ) -> error::Result<Vec<u32>> {
        match self.config {
            AutoSeq2SeqLmConfig::OpenNmt(config) => Ok(config.source_ids(tokens)),
            AutoSeq2SeqLmConfig::Gru(config) => config.source_ids(tokens),
            _ => Ok(Vec::new()),
        }
    }
}

impl AutoSeq2SeqLmConfig {
    /// The vocabularies, where the config holds them.
    pub fn own_vocabulary(&self) -> Option<OwnVocabulary<'_>> {
        let (sources, targets, start, end) = match self {
            Self::OpenNmt(c) => (&c.sources, &c.targets, c.start, c.end),
            Self::Gru(c) => (&c.sources, &c.targets, c.start, c.end),
            _ => return None,
        };
        Some(OwnVocabulary { sources, targets, start, end, config: self })
    }
}
