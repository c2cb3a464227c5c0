//! Vision Transformer: A. Dosovitskiy et al., ICLR 2021, arXiv 2010.11929.
//!
//! The picture is cut into n patches of `p × p` points; `z_0 = [cls; E patch_1; …; E patch_n] + position` (eq. 1). Layers are pre-norm:
//! `z = z + attention(LN(z))`, `z = z + W_o gelu(W_i LN(z) + b_i) + b_o` (eq. 2 and 3); the output is `LN(z_L)` (eq. 4).
//!
//! Letters: b batch, c channels, n patches, d hidden_size.
//!
//! Parameters have the names of the published checkpoints (`transformers` 4): `embeddings.*`, `encoder.layer.{i}.*`, `layernorm.*`,
//! `pooler.dense.*`, below `vit.` in the classifier. The names of `transformers` 5 (`layers.{i}.attention.q_proj`, `layers.{i}.mlp.fc1`) are read as
//! well.
//!
//! Differences from the paper: none in the forward pass. Positions are not interpolated: pictures must have the size of the config.

mod config;
#[cfg(test)]
mod tests;

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use mnemic_layers::{
    Activation, AttentionOptions, Context, LayerNorm, Linear, MultiHeadAttention, MultiHeadConfig,
    add, init, linear,
};

use super::bert::{Output, first};
use crate::error;
use crate::pretrained::{Place, PretrainedModel};
use crate::transformer::names::Prefixed;

pub use config::Config;

const HEADS: &[&str] = &["classifier.", "decoder."];

/// The encoder with or without a pooler, as `ViTModel`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use mnemic_models::transformer::vit::{Config, VitModel};
/// use mnemic_models::{Context, ParamStore};
/// let config = Config { num_hidden_layers: 1, image_size: 32, ..Config::base() };
/// let store = ParamStore::new(0);
/// let model = VitModel::new(&config, store.builder(DType::F32, &Device::Cpu))?;
/// let pixels = Tensor::zeros((2, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// let output = model.forward(&pixels, &Context::eval())?;
/// assert_eq!(output.last_hidden_state.dims(), [2, 5, 768]); // the class and four patches
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct VitModel {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    norm: LayerNorm,
    pooler: Option<Linear>,
}

impl VitModel {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        Ok(Self::with_parts(config, config.add_pooling_layer, vb)?)
    }

    fn with_parts(config: &Config, pooler: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, init) = (config.hidden_size, init::normal(config.initializer_range));
        let pooler = match pooler {
            true => Some(linear(d, d, true, init, vb.pp("pooler.dense"))?),
            false => None,
        };
        let layer = |i| Layer::new(config, i, vb.pp("encoder.layer").pp(i));
        Ok(Self {
            embeddings: Embeddings::new(config, vb.pp("embeddings"))?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: LayerNorm::new(d, config.norm(), vb.pp("layernorm"))?,
            pooler,
        })
    }

    /// Reads `pixels (b, c, image_size, image_size)`, normalised as the checkpoint asks for: a state of the class and of every patch,
    /// row by row, `(b, 1 + n, d)`.
    ///
    /// # Errors
    /// When the pixels have another shape.
    pub fn forward(&self, pixels: &Tensor, ctx: &Context) -> Result<Output> {
        let mut xs = self.embeddings.forward(pixels, ctx)?;
        ctx.watch("hidden_states", 0, || Ok(xs.clone()))?;
        for (i, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, ctx)?;
            ctx.watch("hidden_states", i + 1, || Ok(xs.clone()))?;
        }
        Output::new(self.norm.forward(&xs)?, self.pooler.as_ref())
    }
}

/// The encoder with a linear classifier on the state of the class, as `ViTForImageClassification`.
#[derive(Debug, Clone)]
pub struct VitForImageClassification {
    vit: VitModel,
    classifier: Linear,
}

impl VitForImageClassification {
    /// The model with its parameters from `vb`.
    ///
    /// # Errors
    /// When the config is not valid, or a parameter exists with another shape or type.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        config.validate()?;
        let (d, init) = (config.hidden_size, init::normal(config.initializer_range));
        Ok(Self {
            vit: VitModel::with_parts(config, false, vb.pp("vit"))?,
            classifier: linear(d, config.num_labels(), true, init, vb.pp("classifier"))?,
        })
    }

    /// Scores of the labels, `(b, labels)`.
    ///
    /// # Errors
    /// As [`VitModel::forward`].
    pub fn forward(&self, pixels: &Tensor, ctx: &Context) -> Result<Tensor> {
        let xs = self.vit.forward(pixels, ctx)?.last_hidden_state;
        self.classifier.forward(&first(&xs)?)
    }
}

/// The class and the patches, with their positions.
#[derive(Debug, Clone)]
struct Embeddings {
    class: Tensor,
    positions: Tensor,
    /// `(d, c, p, p)`.
    weight: Tensor,
    bias: Tensor,
    image: usize,
    dropout: f64,
}

impl Embeddings {
    fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let Config { hidden_size: d, num_channels: c, patch_size: p, .. } = *config;
        let init = init::normal(config.initializer_range);
        let projection = vb.pp("patch_embeddings.projection");
        Ok(Self {
            class: vb.get_with_hints((1, 1, d), "cls_token", init)?,
            positions: vb.get_with_hints(
                (1, 1 + config.patches(), d),
                "position_embeddings",
                init,
            )?,
            weight: projection.get_with_hints((d, c, p, p), "weight", init)?,
            bias: projection.get_with_hints(d, "bias", Init::Const(0.))?,
            image: config.image_size,
            dropout: config.hidden_dropout_prob,
        })
    }

    fn forward(&self, pixels: &Tensor, ctx: &Context) -> Result<Tensor> {
        let (d, c, p, _) = self.weight.dims4()?;
        let side = self.image;
        let b = match *pixels.dims() {
            [b, channels, h, w] if (channels, h, w) == (c, side, side) => b,
            _ => bail!("vit: expected pixels (b, {c}, {side}, {side}), got {:?}", pixels.dims()),
        };
        let n = side / p;
        let patches = pixels.reshape((b, c, n, p, n, p))?.permute((0, 2, 4, 1, 3, 5))?;
        let patches = patches.reshape((b, n * n, c * p * p))?;
        let map = Linear::new(self.weight.reshape((d, c * p * p))?, Some(self.bias.clone()));
        let class = self.class.broadcast_as((b, 1, d))?;
        let xs = Tensor::cat(&[&class, &map.forward(&patches)?], 1)?; // (b, 1 + n, d)
        ctx.dropout(&xs.broadcast_add(&self.positions)?, self.dropout)
    }
}

#[derive(Debug, Clone)]
struct Layer {
    attention_norm: LayerNorm,
    attention: MultiHeadAttention,
    norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    dropout: f64,
}

impl Layer {
    fn new(config: &Config, i: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let map = |n, m, bias, name: &str| {
            linear(n, m, bias, init::normal(config.initializer_range), vb.pp(name))
        };
        let norm = |name| LayerNorm::new(d, config.norm(), vb.pp(name));
        let heads = MultiHeadConfig {
            dropout: config.attention_probs_dropout_prob,
            ..MultiHeadConfig::new(d, config.num_attention_heads)
        };
        let part = |name| map(d, d, config.qkv_bias, &format!("attention.attention.{name}"));
        let attention = MultiHeadAttention::from_projections(
            heads,
            [part("query")?, part("key")?, part("value")?],
            map(d, d, true, "attention.output.dense")?,
        )?;
        Ok(Self {
            attention_norm: norm("layernorm_before")?,
            attention: attention.for_inference()?.watched_as("attention", i),
            norm: norm("layernorm_after")?,
            intermediate: map(d, f, true, "intermediate.dense")?.for_inference()?,
            activation: config.hidden_act.activation(),
            output: map(f, d, true, "output.dense")?.for_inference()?,
            dropout: config.hidden_dropout_prob,
        })
    }

    fn forward(&self, xs: &Tensor, ctx: &Context) -> Result<Tensor> {
        let inner = self.attention_norm.forward(xs)?;
        let ys =
            self.attention.forward(&inner, &inner, &inner, &AttentionOptions::default(), ctx)?;
        let xs = add(xs, &ctx.dropout(&ys, self.dropout)?)?;
        let inner = self.intermediate.forward(&self.norm.forward(&xs)?)?;
        let ys = self.output.forward(&self.activation.forward(&inner)?)?;
        add(&xs, &ctx.dropout(&ys, self.dropout)?)
    }
}

/// The published name of what `transformers` 5 calls `layers.{i}.…`.
fn published(name: &str) -> String {
    let parts = [
        (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."),
        (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ];
    let (prefix, inner) = match name.strip_prefix("vit.") {
        Some(inner) => ("vit.", inner),
        None => ("", name),
    };
    let Some(layer) = inner.strip_prefix("layers.") else { return name.to_string() };
    let renamed = parts.iter().find(|(new, _)| layer.contains(new));
    let layer = renamed.map_or_else(|| layer.to_string(), |(new, old)| layer.replace(new, old));
    format!("{prefix}encoder.layer.{layer}")
}

impl PretrainedModel for VitModel {
    type Config = Config;

    fn read_config(keys: serde_json::Map<String, serde_json::Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<serde_json::Map<String, serde_json::Value>> {
        config.keys("ViTModel")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        Prefixed { base: "vit.", heads: HEADS, own: &[], bare: true }.place(&published(name))
    }

    fn adapt(config: &mut Config, found: &std::collections::BTreeMap<String, Vec<usize>>) {
        config.add_pooling_layer = found.contains_key("pooler.dense.weight");
    }
}

impl PretrainedModel for VitForImageClassification {
    type Config = Config;

    fn read_config(keys: serde_json::Map<String, serde_json::Value>) -> error::Result<Config> {
        Config::read(keys)
    }

    fn config_keys(config: &Config) -> error::Result<serde_json::Map<String, serde_json::Value>> {
        config.keys("ViTForImageClassification")
    }

    fn build(config: &Config, vb: VarBuilder<'_>) -> error::Result<Self> {
        Self::new(config, vb)
    }

    fn place(_: &Config, name: &str) -> Place {
        if name.contains("pooler.dense.") {
            return Place::Nowhere;
        }
        let own = &["classifier."];
        Prefixed { base: "vit.", heads: HEADS, own, bare: false }.place(&published(name))
    }

    fn is_head(name: &str) -> bool {
        !name.starts_with("vit.")
    }
}
