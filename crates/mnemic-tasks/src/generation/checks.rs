//! What makes no sense in a configuration, alone or beside a model and its prompts.

use mnemic_models::{Autoregressive, TextBatch};

use super::config::GenerationConfig;
use super::prompts::Prompt;
use crate::error::{Error, Result};

/// New tokens where nothing is said, as in `transformers`.
const DEFAULT_NEW_TOKENS: usize = 20;

fn expect(good: bool, key: &str, expected: &str, got: impl std::fmt::Display) -> Result<()> {
    match good {
        true => Ok(()),
        false => Err(Error::generation(key, format!("expected {expected}, got {got}"))),
    }
}

/// See [`GenerationConfig::validate`].
pub(super) fn values(config: &GenerationConfig) -> Result<()> {
    let c = config;
    let at_least_1 = |n: Option<usize>, key: &str| expect(n != Some(0), key, "at least 1", 0);
    at_least_1(Some(c.num_beams), "num_beams")?;
    at_least_1(Some(c.num_return_sequences), "num_return_sequences")?;
    at_least_1(c.max_length, "max_length")?;
    at_least_1(c.max_new_tokens, "max_new_tokens")?;
    let positive = |x: f64| x > 0. && x.is_finite();
    expect(positive(c.temperature), "temperature", "a number above 0", c.temperature)?;
    let penalty = c.repetition_penalty;
    expect(positive(penalty), "repetition_penalty", "a number above 0", penalty)?;
    let finite = c.length_penalty.is_finite();
    expect(finite, "length_penalty", "a finite number", c.length_penalty)?;
    let fraction = |x: f64| (0. ..=1.).contains(&x);
    expect(fraction(c.top_p), "top_p", "a number from 0 to 1", c.top_p)?;
    let min_p = c.min_p.unwrap_or(0.);
    expect(fraction(min_p), "min_p", "a number from 0 to 1", min_p)?;
    let filled = c.bad_words_ids.iter().all(|word| !word.is_empty());
    expect(filled, "bad_words_ids", "sequences of at least one id", "an empty one")?;
    let asked = c.num_return_sequences;
    if c.num_beams > 1 {
        let expected = format!("at most num_beams = {}", c.num_beams);
        expect(asked <= c.num_beams, "num_return_sequences", &expected, asked)?;
    } else if !c.do_sample {
        expect(asked == 1, "num_return_sequences", "1 for greedy search", asked)?;
    }
    if let (Some(least), Some(most)) = (c.min_new_tokens, c.max_new_tokens) {
        let expected = format!("at most max_new_tokens = {most}");
        expect(least <= most, "min_new_tokens", &expected, least)?;
    }
    Ok(())
}

/// Whether the ids that the configuration names are ids of the vocabulary. Ids that are only kept from occurring may lie beyond it.
pub(super) fn ids(config: &GenerationConfig, vocab_size: usize) -> Result<()> {
    let bad_words = config.bad_words_ids.concat();
    let forced_bos: Vec<u32> = config.forced_bos_token_id.into_iter().collect();
    for (key, ids) in [
        ("eos_token_id", &config.eos_token_id),
        ("forced_bos_token_id", &forced_bos),
        ("forced_eos_token_id", &config.forced_eos_token_id),
        ("bad_words_ids", &bad_words),
    ] {
        let beyond = ids.iter().find(|&&id| id as usize >= vocab_size);
        let expected = format!("ids below {vocab_size}, the size of the vocabulary");
        expect(beyond.is_none(), key, &expected, beyond.copied().unwrap_or(0))?;
    }
    Ok(())
}

/// The prompt of each row with the length that it may grow to.
pub(super) fn prompts<M: Autoregressive + ?Sized>(
    config: &GenerationConfig,
    model: &M,
    batch: &TextBatch,
) -> Result<Vec<Prompt>> {
    let ids = match model.is_encoder_decoder() {
        true => {
            let start = config.decoder_start_token_id.or(config.bos_token_id).ok_or_else(|| {
                let reason = "an encoder-decoder needs this id, or else bos_token_id";
                Error::generation("decoder_start_token_id", reason)
            })?;
            vec![vec![start]; batch.dims()?.0]
        }
        false => unpadded(batch)?,
    };
    let bounded = |(row, ids): (usize, Vec<u32>)| {
        let (n, positions) = (ids.len(), model.max_positions());
        let max_length = match (config.max_new_tokens, config.max_length) {
            (Some(new), _) => n.saturating_add(new),
            (None, Some(max)) => max,
            (None, None) => (n + DEFAULT_NEW_TOKENS).min(positions.unwrap_or(usize::MAX)),
        };
        if let Some(positions) = positions.filter(|&p| max_length > p) {
            let reason = format!("the model has {positions} positions, max_length is {max_length}");
            return Err(Error::generation(format!("row {row}"), reason));
        }
        if n >= max_length {
            let reason = format!("the prompt has {n} tokens, max_length is {max_length}");
            return Err(Error::generation(format!("row {row}"), reason));
        }
        Ok(Prompt { row, ids, max_length })
    };
    ids.into_iter().enumerate().map(bounded).collect()
}

/// The tokens of each row of a batch that is padded on the left.
fn unpadded(batch: &TextBatch) -> Result<Vec<Vec<u32>>> {
    let ids: Vec<Vec<u32>> = batch.input_ids().to_vec2()?;
    let row = |(row, (ids, mask)): (usize, (Vec<u32>, &Vec<u8>))| {
        let padding = mask.iter().take_while(|&&m| m == 0).count();
        let reason = match mask[padding..].iter().all(|&m| m != 0) {
            _ if padding == ids.len() => "the prompt is empty",
            false => "the prompt of a decoder is padded on the left, without gaps",
            true => return Ok(ids[padding..].to_vec()),
        };
        Err(Error::generation(format!("row {row}"), reason))
    };
    ids.into_iter().zip(batch.attention_mask()).enumerate().map(row).collect()
}
