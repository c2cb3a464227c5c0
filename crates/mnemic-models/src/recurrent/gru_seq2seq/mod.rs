//! The encoder-decoder of two recurrent networks without attention: K. Cho, B. van Merriënboer, C. Gulcehre, D. Bahdanau, F. Bougares, H. Schwenk,
//! Y. Bengio, EMNLP 2014, arXiv 1406.1078; I. Sutskever, O. Vinyals, Q. Le, NeurIPS 2014, arXiv 1409.3215.
//!
//! The encoder reads the source, `h_i = GRU(E[x_i], h_{i-1})` from `h_0 = 0`; its last state is the decoder's first, `s_0 = h_s`, and the decoder
//! `s_j = GRU'(E'[y_{j-1}], s_{j-1})` writes until it writes the end: scores of the next token are `W s_j + b`. Everything that it knows of the
//! source is in one vector.
//!
//! Letters: b batch, s source tokens, t target tokens, h `hidden_size`, v target tokens that there are.
//!
//! Parameters: `encoder_embedding.weight`, `decoder_embedding.weight`, `output.{weight,bias}`, and under `encoder` and `decoder` those of PyTorch's
//! `nn.GRU`, gates r z n.
//!
//! Differences from the papers: as in Sutskever et al. the source is seen through the first state only, while Cho et al. give it to every step
//! of the decoder and the output layer; as in Cho et al. the units are GRUs (in PyTorch's form, which resets after the product), not LSTMs. The
//! source is not reversed. Word vectors have the width of the state.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{IndexOp, Module, Result as TensorResult, Tensor, bail};
use candle_nn::VarBuilder;
use mnemic_layers::{Context, Embedding, Gru, Linear, Recurrent, RecurrentConfig, init, linear};
use serde_json::{Map, Value};

pub use config::Config;

use crate::autoregressive::Autoregressive;
use crate::error::Result;
use crate::pretrained::PretrainedModel;
use crate::text::TextBatch;

/// The model that writes.
///
/// ```
/// use candle_core::{DType, Device};
/// use mnemic_models::recurrent::gru_seq2seq::{Config, GruSeq2Seq};
/// use mnemic_models::{Context, Padding, ParamStore, TextBatch};
/// let tokens = |text: &str| text.split(' ').map(String::from).collect();
/// let config = Config::new(tokens("<pad> <unk> </s> a b"), tokens("<pad> <unk> <s> </s> AE0 B"), 8);
/// let store = ParamStore::new(0);
/// let model = GruSeq2Seq::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let source = TextBatch::from_rows(&[vec![3, 4, 2], vec![3, 2]], 0, Padding::Right, &Device::Cpu)?;
/// let target = TextBatch::from_rows(&[vec![2, 4, 5], vec![2, 4]], 0, Padding::Right, &Device::Cpu)?;
/// assert_eq!(model.forward(&source, &target, &Context::eval())?.dims(), [2, 3, 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GruSeq2Seq {
    source: Embedding,
    encoder: Gru,
    target: Embedding,
    decoder: Gru,
    output: Linear,
    dropout: f64,
}

impl GruSeq2Seq {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        config.validate()?;
        let (h, v) = (config.hidden_size, config.targets.len());
        let recurrent = RecurrentConfig {
            num_layers: config.num_layers,
            dropout: config.dropout,
            ..RecurrentConfig::new(h, h)
        };
        let table = |rows, name| Embedding::new(rows, h, init::normal(1.), None, vb.pp(name));
        let bound = (h as f64).powf(-0.5);
        Ok(Self {
            source: table(config.sources.len(), "encoder_embedding")?,
            encoder: Gru::new(recurrent, vb.pp("encoder"))?,
            target: table(v, "decoder_embedding")?,
            decoder: Gru::new(recurrent, vb.pp("decoder"))?,
            output: linear(h, v, true, init::uniform(bound), vb.pp("output"))?,
            dropout: config.dropout,
        })
    }

    /// The encoder's states: `output (b, s, h)`, zeros at padding, and `state (layers, b, h)` after each row's last token.
    ///
    /// # Errors
    /// When padding stands elsewhere than on the right, or an id is not in the vocabulary.
    pub fn encode(&self, source: &TextBatch, ctx: &Context) -> TensorResult<Recurrent> {
        let options = source.options();
        if options.key_mask.is_some() {
            bail!("gru seq2seq: expected padding on the right");
        }
        let xs = ctx.dropout(&self.source.forward(source.input_ids())?, self.dropout)?;
        self.encoder.forward(&xs, None, options.mask.key_lengths, ctx)
    }

    /// Scores of the token that follows each of the target's, `(b, t, v)`. The target begins with the start token; for training it is what
    /// is to be written, moved by one place.
    ///
    /// # Errors
    /// When the batches do not fit together or an id is not in the vocabulary.
    pub fn forward(
        &self,
        source: &TextBatch,
        target: &TextBatch,
        ctx: &Context,
    ) -> TensorResult<Tensor> {
        let state = self.encode(source, ctx)?.state;
        self.output.forward(&self.decode(target.input_ids(), &state, ctx)?.output)
    }

    fn decode(&self, ids: &Tensor, state: &Tensor, ctx: &Context) -> TensorResult<Recurrent> {
        let ((b, _), rows) = (ids.dims2()?, state.dim(1)?);
        if b != rows {
            bail!("gru seq2seq: expected ids ({rows}, t), got {:?}", ids.dims());
        }
        let xs = ctx.dropout(&self.target.forward(ids)?, self.dropout)?;
        let read = self.decoder.forward(&xs, Some(state), None, ctx)?;
        Ok(Recurrent { output: ctx.dropout(&read.output, self.dropout)?, ..read })
    }
}

impl Autoregressive for GruSeq2Seq {
    /// The decoder's, `(layers, b, h)`.
    type State = Tensor;

    fn vocab_size(&self) -> usize {
        self.output.weight().dims().first().copied().unwrap_or(0)
    }

    fn is_encoder_decoder(&self) -> bool {
        true
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn start(&self, batch: &TextBatch, ctx: &Context) -> TensorResult<Tensor> {
        Ok(self.encode(batch, ctx)?.state)
    }

    fn step(&self, ids: &Tensor, state: &mut Tensor, ctx: &Context) -> TensorResult<Tensor> {
        let t = ids.dim(1)?;
        if t == 0 {
            bail!("gru seq2seq: expected ids (b, t) with t above 0, got none");
        }
        let read = self.decode(ids, state, ctx)?;
        *state = read.state;
        self.output.forward(&read.output.i((.., t - 1))?.contiguous()?)
    }

    fn select(&self, state: &mut Tensor, rows: &[u32]) -> TensorResult<()> {
        let b = state.dim(1)?;
        if let Some(row) = rows.iter().find(|&&row| row as usize >= b) {
            bail!("gru seq2seq: there is no row {row} of {b}");
        }
        *state = state.index_select(&Tensor::new(rows, state.device())?, 1)?;
        Ok(())
    }
}

impl PretrainedModel for GruSeq2Seq {
    type Config = Config;

    fn read_config(keys: Map<String, Value>) -> Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> Result<Map<String, Value>> {
        config.keys()
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        Self::new(config, vb)
    }
}
