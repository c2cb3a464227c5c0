//! What changes the scores of a row before a token is chosen, in the order of `transformers` 5.23.

use super::config::GenerationConfig;
use super::pick::{argmax, largest, log_sum_exp, maximum, sum_exp};
use super::prompts::Writing;

const BANNED: f32 = f32::NEG_INFINITY;

/// The rules of a configuration.
#[derive(Debug)]
pub(super) struct Processors<'c> {
    config: &'c GenerationConfig,
    /// `bad_words_ids` without the end tokens, which are never bad words.
    bad_words: Vec<&'c [u32]>,
}

impl<'c> Processors<'c> {
    pub(super) fn new(config: &'c GenerationConfig) -> Self {
        let is_end = |word: &&[u32]| matches!(word, [id] if config.eos_token_id.contains(id));
        let words = config.bad_words_ids.iter().map(Vec::as_slice);
        Self { config, bad_words: words.filter(|word| !is_end(word)).collect() }
    }

    /// Changes `scores` of the token that follows `row`: logits, or log-probabilities in beam search.
    pub(super) fn apply(&self, row: &Writing, scores: &mut [f32]) {
        self.repetition(row, scores);
        self.bans(row, scores);
        self.forced(row, scores);
        if self.config.remove_invalid_values {
            for score in scores.iter_mut() {
                // NaN stays itself under `clamp`.
                *score = if score.is_nan() { 0. } else { score.clamp(f32::MIN, f32::MAX) };
            }
        }
        self.suppressed(row, scores);
        if self.config.do_sample {
            self.warp(scores);
        }
        if self.config.renormalize_logits {
            let total = log_sum_exp(scores) as f32;
            scores.iter_mut().filter(|s| **s > BANNED).for_each(|s| *s -= total);
        }
    }

    /// Once for each token that the row has, however often it has it.
    fn repetition(&self, row: &Writing, scores: &mut [f32]) {
        let penalty = self.config.repetition_penalty as f32;
        if penalty == 1. {
            return;
        }
        let penalised = |&id: &u32| {
            let score = *scores.get(id as usize)?;
            Some((id as usize, if score < 0. { score * penalty } else { score / penalty }))
        };
        let new: Vec<(usize, f32)> = row.ids.iter().filter_map(penalised).collect();
        for (id, score) in new {
            scores[id] = score;
        }
    }

    /// Repeated n-grams, bad words, and ends that come too early.
    fn bans(&self, row: &Writing, scores: &mut [f32]) {
        let n = self.config.no_repeat_ngram_size;
        if n > 0 && row.ids.len() >= n {
            let begun = &row.ids[row.ids.len() + 1 - n..];
            let completing = row.ids.windows(n).filter(|gram| gram[..n - 1] == *begun);
            ban(completing.map(|gram| gram[n - 1]), scores);
        }
        let completing = self.bad_words.iter().filter_map(|word| {
            let (last, begun) = word.split_last()?;
            row.ids.ends_with(begun).then_some(*last)
        });
        ban(completing, scores);
        let new_length = self.config.min_new_tokens.is_some_and(|min| row.new_ids().len() < min);
        // As in `transformers`, `min_length` has no say beside `min_new_tokens`.
        let length = self.config.min_new_tokens.is_none() && row.ids.len() < self.config.min_length;
        if new_length || length {
            ban(self.config.eos_token_id.iter().copied(), scores);
        }
    }

    fn forced(&self, row: &Writing, scores: &mut [f32]) {
        let mut force = |ids: &[u32]| {
            scores.fill(BANNED);
            for &id in ids {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score = 0.;
                }
            }
        };
        if let Some(bos) = self.config.forced_bos_token_id.filter(|_| row.ids.len() == 1) {
            force(&[bos]);
        }
        let eos = &self.config.forced_eos_token_id;
        if !eos.is_empty() && row.ids.len() + 1 == row.max_length {
            force(eos);
        }
    }

    fn suppressed(&self, row: &Writing, scores: &mut [f32]) {
        ban(self.config.suppress_tokens.iter().copied(), scores);
        // A forced first token is not the one that is meant.
        let forced = row.prompt == 1 && self.config.forced_bos_token_id.is_some();
        if row.new_ids().len() == usize::from(forced) {
            ban(self.config.begin_suppress_tokens.iter().copied(), scores);
        }
    }

    /// Temperature, then top-k, top-p and min-p.
    fn warp(&self, scores: &mut [f32]) {
        let c = self.config;
        // Beams need a token to go on with beside the end tokens.
        let keep = if c.num_beams > 1 { c.eos_token_id.len().max(1) + 1 } else { 1 };
        if c.temperature != 1. {
            scores.iter_mut().for_each(|s| *s /= c.temperature as f32);
        }
        if c.top_k > 0 && c.top_k.max(keep) < scores.len() {
            let best = largest(scores, c.top_k.max(keep));
            let floor = best.last().map_or(BANNED, |&(score, _)| score);
            ban_below(floor, scores);
        }
        if c.top_p < 1. {
            top_p(c.top_p, keep, scores);
        }
        if let Some(min_p) = c.min_p {
            // p < min_p * p_max, in logarithms.
            let floor = f64::from(maximum(scores)) + min_p.ln();
            let kept = largest(scores, keep);
            ban_below(floor as f32, scores);
            restore(&kept, scores);
        }
    }
}

fn ban(ids: impl Iterator<Item = u32>, scores: &mut [f32]) {
    for id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = BANNED;
        }
    }
}

fn ban_below(floor: f32, scores: &mut [f32]) {
    scores.iter_mut().filter(|s| **s < floor).for_each(|s| *s = BANNED);
}

fn restore(kept: &[(f32, u32)], scores: &mut [f32]) {
    for &(score, place) in kept {
        scores[place as usize] = score;
    }
}

/// Keeps the most probable tokens until they have the probability `p` together, the one that reaches it included; at least `keep`.
fn top_p(p: f64, keep: usize, scores: &mut [f32]) {
    let Some((max, _)) = argmax(scores) else { return };
    let wanted = p * sum_exp(scores, max);
    let mut count = 256;
    loop {
        // Few tokens mostly suffice, so that there is no need to sort all.
        let mut best = largest(scores, count);
        let mut mass = 0.;
        let needed = best.iter().position(|(score, _)| {
            let enough = mass >= wanted;
            mass += f64::from((score - max).exp());
            enough
        });
        if needed.is_none() && best.len() == count {
            count *= 8;
            continue;
        }
        best.truncate(needed.unwrap_or(best.len()).max(keep));
        scores.fill(BANNED);
        return restore(&best, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::prompts::Prompt;

    /// A row whose first `prompt` ids are its prompt.
    fn row(ids: &[u32], prompt: usize, max_length: usize) -> Writing {
        let prompt = Prompt { row: 0, ids: ids[..prompt].to_vec(), max_length };
        let mut row = Writing::new(&prompt, 0);
        ids[prompt.ids.len()..].iter().for_each(|&id| row.push(id, 0.));
        row
    }

    fn applied(config: &GenerationConfig, row: &Writing, scores: &[f32]) -> Vec<f32> {
        let mut scores = scores.to_vec();
        Processors::new(config).apply(row, &mut scores);
        scores
    }

    /// The places that are not banned.
    fn left(config: &GenerationConfig, row: &Writing, scores: &[f32]) -> Vec<usize> {
        let scores = applied(config, row, scores);
        (0..scores.len()).filter(|&i| scores[i] > BANNED).collect()
    }

    fn logs(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn repetition_is_penalised_once() {
        let config = GenerationConfig { repetition_penalty: 1.25, ..Default::default() };
        let scores = applied(&config, &row(&[0, 1, 0, 0, 9], 2, 20), &[2., -2., 3.]);
        assert_eq!(scores, [1.6, -2.5, 3.]);
    }

    #[test]
    fn no_ngram_occurs_twice() {
        let ban = |n, ids: &[u32]| {
            let config = GenerationConfig { no_repeat_ngram_size: n, ..Default::default() };
            left(&config, &row(ids, 1, 20), &[0.; 5])
        };
        assert_eq!(ban(2, &[1, 2, 3, 1, 4, 1]), [0, 1, 3], "1 2 and 1 4 occurred");
        assert_eq!(ban(3, &[1, 2, 3, 1, 2]), [0, 1, 2, 4], "1 2 3 occurred");
        assert_eq!(ban(3, &[1, 2]), [0, 1, 2, 3, 4]);
        assert_eq!(ban(1, &[1, 2]), [0, 3, 4]);
        assert_eq!(ban(2, &[1, 1]), [0, 2, 3, 4], "windows may overlap what has begun");
    }

    #[test]
    fn bad_words_are_banned_where_they_end() {
        let config = GenerationConfig {
            bad_words_ids: vec![vec![4], vec![1, 2], vec![3, 1, 0], vec![2]],
            eos_token_id: vec![2],
            ..Default::default()
        };
        // A bad word that is the end token does not count.
        assert_eq!(left(&config, &row(&[0, 0], 1, 20), &[0.; 5]), [0, 1, 2, 3]);
        assert_eq!(left(&config, &row(&[0, 1], 1, 20), &[0.; 5]), [0, 1, 3]);
        assert_eq!(left(&config, &row(&[3, 1], 1, 20), &[0.; 5]), [1, 3]);
    }

    #[test]
    fn ends_wait_and_are_forced() {
        let config = GenerationConfig { eos_token_id: vec![0, 2], ..Default::default() };
        let min = GenerationConfig { min_length: 4, ..config.clone() };
        assert_eq!(left(&min, &row(&[1, 1, 1], 2, 20), &[0.; 4]), [1, 3]);
        assert_eq!(left(&min, &row(&[1, 1, 1, 1], 2, 20), &[0.; 4]), [0, 1, 2, 3]);
        let new = GenerationConfig { min_new_tokens: Some(2), min_length: 9, ..config.clone() };
        assert_eq!(left(&new, &row(&[1, 1, 1], 2, 20), &[0.; 4]), [1, 3]);
        assert_eq!(left(&new, &row(&[1, 1, 1, 1], 2, 20), &[0.; 4]), [0, 1, 2, 3]);

        let forced = GenerationConfig {
            forced_bos_token_id: Some(3),
            forced_eos_token_id: vec![2],
            min_length: 9,
            ..config
        };
        let scores = applied(&forced, &row(&[1], 1, 4), &[1., 2., 3., 4.]);
        assert_eq!(scores, [BANNED, BANNED, BANNED, 0.]);
        assert_eq!(left(&forced, &row(&[1, 3], 1, 4), &[0.; 4]), [1, 3]);
        // Forced although it comes too early.
        assert_eq!(left(&forced, &row(&[1, 3, 1], 1, 4), &[0.; 4]), [2]);
    }

    #[test]
    fn tokens_are_suppressed_everywhere_or_at_the_beginning() {
        let config = GenerationConfig {
            suppress_tokens: vec![1, 99],
            begin_suppress_tokens: vec![2],
            ..Default::default()
        };
        assert_eq!(left(&config, &row(&[0, 0], 2, 20), &[0.; 4]), [0, 3]);
        assert_eq!(left(&config, &row(&[0, 0, 0], 2, 20), &[0.; 4]), [0, 2, 3]);
        let forced = GenerationConfig { forced_bos_token_id: Some(2), ..config };
        assert_eq!(left(&forced, &row(&[0], 1, 20), &[0.; 4]), [2]);
        assert_eq!(left(&forced, &row(&[0, 2], 1, 20), &[0.; 4]), [0, 3]);
    }

    #[test]
    fn sampling_keeps_the_head() {
        let config = GenerationConfig { do_sample: true, top_k: 0, ..Default::default() };
        let prompt = row(&[0], 1, 20);
        let scores = logs(&[0.15, 0.5, 0.05, 0.3]);
        // 0.5 + 0.3 reach 0.79; 0.15 is needed for 0.81.
        for (p, expected) in [
            (0.79, vec![1, 3]),
            (0.81, vec![0, 1, 3]),
            (0.49, vec![1]),
            (0., vec![1]),
            (0.96, vec![0, 1, 2, 3]),
        ] {
            let config = GenerationConfig { top_p: p, ..config.clone() };
            assert_eq!(left(&config, &prompt, &scores), expected, "top_p {p}");
            assert!(applied(&config, &prompt, &scores).contains(&scores[1]));
        }
        let top_k = GenerationConfig { top_k: 2, ..config.clone() };
        assert_eq!(left(&top_k, &prompt, &scores), [1, 3]);
        assert_eq!(left(&top_k, &prompt, &[1., 0., 1., 1.]), [0, 2, 3], "ties stay");
        let min_p = GenerationConfig { min_p: Some(0.25), ..config.clone() };
        assert_eq!(left(&min_p, &prompt, &scores), [0, 1, 3], "0.125 is the least");
        // Temperature comes first: squared probabilities are 0.0225, 0.25, 0.0025, 0.09.
        let cold = GenerationConfig { temperature: 0.5, min_p: Some(0.25), ..config.clone() };
        assert_eq!(left(&cold, &prompt, &scores), [1, 3]);
        let beams = GenerationConfig { num_beams: 2, eos_token_id: vec![0], ..config };
        let beams = GenerationConfig { top_k: 1, top_p: 0.1, min_p: Some(1.), ..beams };
        assert_eq!(left(&beams, &prompt, &scores), [1, 3], "beams keep one more than end tokens");
    }

    #[test]
    fn flat_heads_are_as_long_as_they_must() {
        let config =
            GenerationConfig { do_sample: true, top_k: 0, top_p: 0.5, ..Default::default() };
        let kept = left(&config, &row(&[0], 1, 20), &[1.; 9999]);
        assert_eq!(kept, (0..5000).collect::<Vec<_>>());
    }

    #[test]
    fn scores_are_made_probabilities_or_finite() {
        let prompt = row(&[0], 1, 20);
        let config = GenerationConfig {
            renormalize_logits: true,
            suppress_tokens: vec![0],
            ..Default::default()
        };
        let scores = applied(&config, &prompt, &[9., 1., 1.]);
        assert_eq!(scores[0], BANNED);
        assert!((scores[1] + 2f32.ln()).abs() < 1e-6 && scores[1] == scores[2]);
        let config = GenerationConfig { remove_invalid_values: true, ..Default::default() };
        let scores = applied(&config, &prompt, &[f32::NAN, f32::INFINITY, BANNED, 1.]);
        assert_eq!(scores, [0., f32::MAX, f32::MIN, 1.]);
    }
}
