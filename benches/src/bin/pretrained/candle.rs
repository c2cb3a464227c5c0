//! The same encoder by candle-transformers.

use std::path::Path;

use anyhow::{Context as _, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use mnemic_models::TextBatch;

use super::embed::pool;

/// all-MiniLM-L6-v2 with mean pooling, as candle's example has it.
pub(super) struct CandleEncoder(BertModel);

impl CandleEncoder {
    pub(super) fn new(model: &str) -> Result<Self> {
        let folder = Path::new(model);
        let text = std::fs::read_to_string(folder.join("config.json")).context("config.json")?;
        let config: Config = serde_json::from_str(&text)?;
        let tensors =
            candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu)?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Ok(Self(BertModel::load(vb, &config)?))
    }

    pub(super) fn encode(&self, batch: &TextBatch) -> Result<Tensor> {
        let ids = batch.input_ids();
        let mask = Tensor::new(batch.attention_mask().to_vec(), &Device::Cpu)?;
        let states = self.0.forward(ids, &ids.zeros_like()?, Some(&mask))?;
        pool(&states, batch)
    }
}
