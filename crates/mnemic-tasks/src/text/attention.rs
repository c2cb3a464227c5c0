//! What a model attends to in a text.

use std::path::Path;

use candle_core::{DType, IndexOp, Tensor};
use mnemic_models::transformer::auto::{
    AutoCausalLm, AutoEncoder, AutoEncoderConfig, AutoSeq2SeqLm,
};
use mnemic_models::{Encoded, PretrainedModel};
use mnemic_pictures::{HeadLayer, HeadMaps};

use super::open::{self, Opened};
use super::write::Writer;
use crate::{Error, Place, Result};

/// The attention of a model over a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// The architecture, as `model_type` has it.
    pub architecture: String,
    /// The tokens of the text.
    pub tokens: Vec<String>,
    /// The weights, one set of maps for each kind of attention.
    pub maps: Vec<HeadMaps>,
}

/// The attention weights of all layers and heads over a text, by a model's folder or id of the hub.
///
/// ```no_run
/// use mnemic_tasks::Place;
/// use mnemic_tasks::text::attention;
/// let found = attention("all-MiniLM-L6-v2".as_ref(), "The cat sat on the mat.", Place::Cpu)?;
/// println!("{} layers of {} heads", found.maps[0].layers.len(), found.maps[0].layers[0].heads.len());
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
///
/// # Errors
/// When there is no such model, its kind is not one whose attention can be watched, or the text cannot be encoded.
pub fn attention(model: &Path, text: &str, place: Place) -> Result<Attention> {
    let dir = open::folder(model)?;
    let keys = open::read_keys(&dir)?;
    // Each kind is tried by what the config says; where none knows it, all say what they know.
    let Err(no_encoder) = AutoEncoder::read_config(keys.clone()) else {
        return of_encoder(&dir, text, place);
    };
    let Err(no_decoder) = AutoCausalLm::read_config(keys.clone()) else {
        return Writer::causal(&dir, place)?.attention(text);
    };
    let Err(neither) = AutoSeq2SeqLm::read_config(keys) else {
        return Writer::seq2seq(&dir, place)?.attention(text);
    };
    Err(Error::request(format!("{no_encoder}; or {no_decoder}; or {neither}")))
}

fn of_encoder(dir: &Path, text: &str, place: Place) -> Result<Attention> {
    let opened = Opened::<AutoEncoder>::new(dir, place, AutoEncoderConfig::max_tokens)?;
    let encoded = opened.tokenizer.encode(text)?;
    let batch = opened.tokenizer.batch(std::slice::from_ref(&encoded), &opened.device)?;
    let states = opened.model.states(&batch)?;
    let tokens = token_names(&encoded);
    let maps = head_maps("Self-attention", &tokens, &tokens, &states.attentions)?;
    let architecture = opened.model.architecture().to_string();
    Ok(Attention { architecture, tokens, maps: vec![maps] })
}

/// Maps of the weights of each layer, `(1, heads, rows, cols)`: from each token of `rows` to each of `cols`.
///
/// # Errors
/// When the weights do not fit the tokens, or are none.
pub fn head_maps(
    title: &str,
    rows: &[String],
    cols: &[String],
    layers: &[Tensor],
) -> Result<HeadMaps> {
    let layer = |(i, weights): (usize, &Tensor)| {
        let weights = weights.i(0)?.to_dtype(DType::F32)?.flatten_from(1)?; // (heads, rows cols)
        Ok(HeadLayer { name: format!("layer {}", i + 1), heads: weights.to_vec2()? })
    };
    let maps = HeadMaps {
        title: title.to_string(),
        row_label: "from".to_string(),
        col_label: "to".to_string(),
        rows: rows.to_vec(),
        cols: cols.to_vec(),
        layers: layers.iter().enumerate().map(layer).collect::<Result<_>>()?,
    };
    maps.validate()?;
    Ok(maps)
}

fn token_names(encoded: &Encoded) -> Vec<String> {
    encoded.tokens.iter().map(|token| token_name(token)).collect()
}

/// A token as a reader knows it: with blanks and line breaks instead of what stands for them.
pub(super) fn token_name(token: &str) -> String {
    token.replace(['\u{120}', '\u{2581}'], "\u{2423}").replace('\u{10a}', "\u{21b5}")
}
