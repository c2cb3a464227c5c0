//! The same model by plain candle: `candle_transformers::models::bert`, mean of the tokens, length 1.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use mnemic_models::{TextBatch, Tokenizer};

use crate::embed::{Embedder, in_batches};

pub(crate) struct Candle {
    model: BertModel,
    tokenizer: Tokenizer,
}

impl Candle {
    /// With the tokenizer of the same folder, which is a thin layer over the crate `tokenizers` in our programs, too.
    pub(crate) fn new(folder: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
        let weights = std::fs::read(folder.join("model.safetensors"))?;
        let vb = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        Ok(Self { model: BertModel::load(vb, &config)?, tokenizer: tokenizer.clone() })
    }

    fn encode(&self, batch: &TextBatch) -> Result<Tensor> {
        let ids = batch.input_ids();
        let (b, t) = batch.dims()?;
        let mask = batch.attention_mask().concat();
        let mask = Tensor::from_vec(mask, (b, t), &Device::Cpu)?.to_dtype(DType::F32)?;
        let states = self.model.forward(ids, &ids.zeros_like()?, Some(&mask))?;
        let sum = states.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        let mean = sum.broadcast_div(&mask.sum_keepdim(1)?)?;
        let length = mean.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(mean.broadcast_div(&length)?)
    }
}

impl Embedder for Candle {
    fn embed(&self, texts: &[&str], batch: usize) -> Result<Tensor> {
        in_batches(&self.tokenizer, texts, batch, |batch| self.encode(batch))
    }
}
