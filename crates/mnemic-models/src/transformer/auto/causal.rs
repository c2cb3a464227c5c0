//! Models that go on from a prompt.

use candle_core::{Result, Tensor};
use mnemic_layers::Context;

use super::auto;
use crate::text::TextBatch;
use crate::transformer::gpt2::Gpt2LmHead;
use crate::transformer::llama::LlamaForCausalLm;

auto! {
    /// A language model of the architecture that `config.json` names.
    ///
    /// ```no_run
    /// use candle_core::{DType, Device};
    /// use mnemic_models::transformer::auto::AutoCausalLm;
    /// use mnemic_models::{Pretrained, from_pretrained};
    /// let loaded: Pretrained<AutoCausalLm> = from_pretrained("stories260K", DType::F32, &Device::Cpu)?;
    /// assert_eq!(loaded.model.architecture(), "llama");
    /// # Ok::<(), mnemic_models::Error>(())
    /// ```
    AutoCausalLm, AutoCausalLmConfig, AutoCausalLmState, "a causal language model", encodes: false;
    /// GPT-2.
    Gpt2(Gpt2LmHead): ["GPT2LMHeadModel"], ["gpt2"], [];
    /// Llama, and Mistral and Qwen2, which differ in keys only.
    Llama(LlamaForCausalLm): ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"], ["llama", "mistral", "qwen2"], [];
}

impl AutoCausalLm {
    /// Scores (logits) of the token after each, `(b, t, v)`; rows at padding mean nothing.
    ///
    /// # Errors
    /// When a row is too long or an id is not in the vocabulary.
    pub fn forward(&self, batch: &TextBatch, ctx: &Context) -> Result<Tensor> {
        match self {
            Self::Gpt2(model) => model.forward(batch, ctx),
            Self::Llama(model) => model.forward(batch, ctx),
        }
    }
}
