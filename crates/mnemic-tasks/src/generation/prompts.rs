//! What a row starts from, and what it has become.

use super::{Finish, Hypothesis};

/// The start of a row.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    /// The place of the row in the batch.
    pub(super) row: usize,
    /// Its tokens without padding; the start token of an encoder-decoder.
    pub(super) ids: Vec<u32>,
    /// The most tokens, those of the prompt included.
    pub(super) max_length: usize,
}

/// A row being written.
#[derive(Debug, Clone)]
pub(super) struct Writing {
    /// The prompt's tokens and the new ones.
    pub(super) ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub(super) prompt: usize,
    /// The most tokens, those of the prompt included.
    pub(super) max_length: usize,
    /// The sum of the new tokens' log-probabilities.
    pub(super) sum: f64,
    /// The new tokens' log-probabilities.
    pub(super) token_scores: Vec<f32>,
    /// Its row in the model's state.
    pub(super) source: u32,
}

impl Writing {
    pub(super) fn new(prompt: &Prompt, source: u32) -> Self {
        Self {
            ids: prompt.ids.clone(),
            prompt: prompt.ids.len(),
            max_length: prompt.max_length,
            sum: 0.,
            token_scores: Vec::new(),
            source,
        }
    }

    /// The new tokens.
    pub(super) fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    pub(super) fn push(&mut self, id: u32, log_p: f32) {
        self.ids.push(id);
        self.sum += f64::from(log_p);
        self.token_scores.push(log_p);
    }

    /// Whether the last token is the last one: an end token, the end of a stop sequence, or the longest that was allowed.
    pub(super) fn finish(&self, eos: &[u32], stop_sequences: &[Vec<u32>]) -> Option<Finish> {
        let new = self.new_ids();
        if new.last().is_some_and(|id| eos.contains(id)) {
            return Some(Finish::EndToken);
        }
        if stop_sequences.iter().any(|stop| new.ends_with(stop)) {
            return Some(Finish::StopSequence);
        }
        (self.ids.len() >= self.max_length).then_some(Finish::Length)
    }

    pub(super) fn into_hypothesis(self, finish: Finish, length_penalty: f64) -> Hypothesis {
        let length = self.new_ids().len() as f64;
        Hypothesis {
            score: self.sum / length.powf(length_penalty),
            ids: self.new_ids().to_vec(),
            token_scores: self.token_scores,
            finish,
            step_scores: Vec::new(),
        }
    }
}
