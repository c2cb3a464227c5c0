//! Beam search and beam sampling.

use mnemic_models::{Autoregressive, Context, Philox, TextBatch, log_softmax};

use super::config::{EarlyStopping, GenerationConfig};
use super::pick::{draw_weighted, largest};
use super::processors::Processors;
use super::prompts::{Prompt, Writing};
use super::{Generated, Generator, Hypothesis, check_scores, column, select, stuck};
use crate::error::Result;

/// A row with its beams.
struct Sentence {
    row: usize,
    prompt: usize,
    max_length: usize,
    /// Best first. Only the first step has fewer than `num_beams`, or where tokens are banned.
    running: Vec<Writing>,
    /// Best first, at most `num_beams`.
    finished: Vec<Hypothesis>,
}

/// A beam and the token that would continue it.
struct Candidate {
    beam: usize,
    id: u32,
    log_p: f32,
    /// The sum of the log-probabilities, this one included.
    sum: f64,
}

pub(super) fn generate<M: Autoregressive + ?Sized>(
    generator: &Generator<'_, M>,
    batch: &TextBatch,
) -> Result<Generated> {
    let eval = Context::eval();
    let ctx = generator.ctx.unwrap_or(&eval);
    let (prompts, mut state, mut ids) = generator.start(batch, ctx)?;
    let processors = Processors::new(&generator.config);
    let mut sentences: Vec<Sentence> =
        (0..).zip(&prompts).map(|(i, prompt)| Sentence::new(prompt, i)).collect();
    let (mut rows, vocab_size) = (prompts.len(), generator.model.vocab_size());
    for step in 0.. {
        let logits = generator.logits(&ids, &mut state, ctx, rows)?;
        let mut scores: Vec<f32> = log_softmax(&logits)?.flatten_all()?.to_vec1()?;
        for sentence in sentences.iter_mut().filter(|s| !s.running.is_empty()) {
            for beam in &sentence.running {
                let at = beam.source as usize * vocab_size;
                let scores = &mut scores[at..at + vocab_size];
                if !generator.config.remove_invalid_values {
                    check_scores(scores, step, sentence.row)?;
                }
                processors.apply(beam, scores);
            }
            sentence.advance(generator, &scores, vocab_size, step)?;
        }
        let running = || sentences.iter().flat_map(|s| &s.running);
        let sources: Vec<u32> = running().map(|beam| beam.source).collect();
        if sources.is_empty() {
            break;
        }
        select(generator.model, &mut state, &sources, rows)?;
        ids = column(running().flat_map(|beam| beam.ids.last().copied()), batch)?;
        rows = sources.len();
        let beams = sentences.iter_mut().flat_map(|s| &mut s.running);
        beams.zip(0..).for_each(|(beam, i)| beam.source = i);
    }
    let asked = generator.config.num_return_sequences;
    let kept = |s: Sentence| s.finished.into_iter().take(asked).collect();
    Ok(Generated { rows: sentences.into_iter().map(kept).collect() })
}

impl Sentence {
    fn new(prompt: &Prompt, source: u32) -> Self {
        Self {
            row: prompt.row,
            prompt: prompt.ids.len(),
            max_length: prompt.max_length,
            running: vec![Writing::new(prompt, source)],
            finished: Vec::new(),
        }
    }

    /// Continues every beam; none runs on where the row is done.
    fn advance<M: Autoregressive + ?Sized>(
        &mut self,
        generator: &Generator<'_, M>,
        scores: &[f32],
        vocab_size: usize,
        step: usize,
    ) -> Result<()> {
        let config = &generator.config;
        let beams = config.num_beams;
        let rows: Vec<&[f32]> = self
            .running
            .iter()
            .map(|beam| &scores[beam.source as usize * vocab_size..][..vocab_size])
            .collect();
        let count = (1 + config.eos_token_id.len()).max(2) * beams;
        let candidates = match config.do_sample {
            true => {
                let stream = generator.first_row.wrapping_add(self.row as u64);
                self.drawn(&rows, count, &Philox::new(config.seed, stream), step)
            }
            false => self.best(&rows, count),
        };
        let mut running = Vec::with_capacity(beams);
        for (rank, candidate) in candidates.iter().enumerate() {
            let mut beam = self.running[candidate.beam].clone();
            beam.push(candidate.id, candidate.log_p);
            match beam.finish(&config.eos_token_id, &generator.stop_sequences) {
                None => running.push(beam),
                Some(finish) if rank < beams => {
                    self.finished.push(beam.into_hypothesis(finish, config.length_penalty));
                }
                Some(_) => {}
            }
        }
        // Both sorts are stable: what was there first stays first among equals.
        running.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        running.truncate(beams);
        self.running = running;
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beams);
        if self.running.is_empty() && self.finished.is_empty() {
            return Err(stuck(step, self.row, "every token is banned"));
        }
        if self.is_done(config) {
            self.running.clear();
        }
        Ok(())
    }

    /// The `count` best continuations, best first.
    fn best(&self, rows: &[&[f32]], count: usize) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::with_capacity(count * rows.len());
        for (beam, (row, writing)) in rows.iter().zip(&self.running).enumerate() {
            let candidate =
                |(log_p, id)| Candidate { beam, id, log_p, sum: writing.sum + f64::from(log_p) };
            candidates.extend(largest(row, count).into_iter().map(candidate));
        }
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(count);
        candidates
    }

    /// `count` continuations, drawn without replacement, in the order in which they were drawn.
    fn drawn(&self, rows: &[&[f32]], count: usize, rng: &Philox, step: usize) -> Vec<Candidate> {
        let mut possible = Vec::new();
        for (beam, (row, writing)) in rows.iter().zip(&self.running).enumerate() {
            let above = (0..).zip(*row).filter(|(_, log_p)| **log_p > f32::NEG_INFINITY);
            possible.extend(above.map(|(id, &log_p)| Candidate {
                beam,
                id,
                log_p,
                sum: writing.sum + f64::from(log_p),
            }));
        }
        let max = possible.iter().map(|c| c.sum).fold(f64::NEG_INFINITY, f64::max);
        let mut weights: Vec<f32> = possible.iter().map(|c| (c.sum - max).exp() as f32).collect();
        let mut candidates = Vec::with_capacity(count);
        for draw in 0..count as u64 {
            let u = rng.uniform(draw << 32 | step as u64);
            let Some(place) = draw_weighted(&weights, u) else { break };
            weights[place] = 0.;
            let Candidate { beam, id, log_p, sum } = possible[place];
            candidates.push(Candidate { beam, id, log_p, sum });
        }
        candidates
    }

    /// Whether nothing can change the finished hypotheses, or is worth the time.
    fn is_done(&self, config: &GenerationConfig) -> bool {
        let (Some(best), Some(worst)) = (self.running.first(), self.finished.last()) else {
            return self.running.is_empty();
        };
        if self.finished.len() < config.num_beams {
            return false;
        }
        let alpha = config.length_penalty;
        let length = match config.early_stopping {
            EarlyStopping::Always => return true,
            EarlyStopping::Never if alpha > 0. => self.max_length - self.prompt,
            _ => best.new_ids().len(),
        };
        best.sum / (length as f64).powf(alpha) <= worst.score
    }
}
