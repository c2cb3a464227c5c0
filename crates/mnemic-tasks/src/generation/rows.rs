//! Greedy search and sampling: each row has one future, or several that do not compete.

use std::ops::ControlFlow;

use mnemic_models::{Autoregressive, Context, Philox, TextBatch};

use super::pick::{argmax, draw, log_sum_exp};
use super::processors::Processors;
use super::prompts::{Prompt, Writing};
use super::{Finish, Generated, Generator, Hypothesis, NewToken};
use super::{check_scores, column, select, stuck};
use crate::error::Result;

type OnToken<'a> = dyn FnMut(&NewToken) -> ControlFlow<()> + 'a;

/// A sample of a row that is being written.
struct Sample {
    row: usize,
    number: usize,
    writing: Writing,
    step_scores: Vec<Vec<f32>>,
}

pub(super) fn generate<M: Autoregressive + ?Sized>(
    generator: &Generator<'_, M>,
    batch: &TextBatch,
    on_token: &mut OnToken<'_>,
) -> Result<Generated> {
    let eval = Context::eval();
    let ctx = generator.ctx.unwrap_or(&eval);
    let (prompts, mut state, mut ids) = generator.start(batch, ctx)?;
    let processors = Processors::new(&generator.config);
    let mut running = samples(&prompts, generator.config.num_return_sequences);
    let mut finished: Vec<Vec<Option<Hypothesis>>> =
        vec![vec![None; generator.config.num_return_sequences]; prompts.len()];
    let (mut rows, vocab_size) = (prompts.len(), generator.model.vocab_size());
    while !running.is_empty() {
        let logits = generator.logits(&ids, &mut state, ctx, rows)?;
        let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let mut unfinished = Vec::with_capacity(running.len());
        for mut sample in running {
            let at = sample.writing.source as usize * vocab_size;
            let logits = &logits[at..at + vocab_size];
            match sample.advance(generator, &processors, logits, on_token)? {
                None => unfinished.push(sample),
                Some(finish) => {
                    let place = (sample.row, sample.number);
                    let done = sample.into_hypothesis(finish, generator.config.length_penalty);
                    finished[place.0][place.1] = Some(done);
                }
            }
        }
        running = unfinished;
        if running.is_empty() {
            break;
        }
        let sources: Vec<u32> = running.iter().map(|s| s.writing.source).collect();
        select(generator.model, &mut state, &sources, rows)?;
        running.iter_mut().zip(0..).for_each(|(s, i)| s.writing.source = i);
        rows = running.len();
        ids = column(running.iter().flat_map(|s| s.writing.ids.last().copied()), batch)?;
    }
    let rows = finished.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
    Ok(Generated { rows })
}

/// `n` samples of each row; all samples of a row begin with the same scores.
fn samples(prompts: &[Prompt], n: usize) -> Vec<Sample> {
    let sample = |number, (i, prompt): (u32, &Prompt)| Sample {
        row: prompt.row,
        number,
        writing: Writing::new(prompt, i),
        step_scores: Vec::new(),
    };
    let row = |prompt| (0..n).map(move |number| sample(number, prompt));
    (0..).zip(prompts).flat_map(row).collect()
}

impl Sample {
    /// Chooses the next token, shows it, and says whether it is the last one.
    fn advance<M: Autoregressive + ?Sized>(
        &mut self,
        generator: &Generator<'_, M>,
        processors: &Processors<'_>,
        logits: &[f32],
        on_token: &mut OnToken<'_>,
    ) -> Result<Option<Finish>> {
        let config = &generator.config;
        let step = self.writing.new_ids().len();
        if !config.remove_invalid_values {
            check_scores(logits, step, self.row)?;
        }
        let mut scores = logits.to_vec();
        processors.apply(&self.writing, &mut scores);
        let chosen = match config.do_sample {
            true => {
                let stream = generator.first_row.wrapping_add(self.row as u64);
                let index = (self.number as u64) << 32 | step as u64;
                draw(&scores, Philox::new(config.seed, stream).uniform(index))
            }
            false => argmax(&scores).map(|(_, place)| place),
        };
        let Some(place) = chosen else {
            return Err(stuck(step, self.row, "every token is banned"));
        };
        let (id, score) = (place as u32, (f64::from(scores[place]) - log_sum_exp(&scores)) as f32);
        self.writing.push(id, score);
        if generator.keep_scores {
            self.step_scores.push(scores);
        }
        let finish = self.writing.finish(&config.eos_token_id, &generator.stop_sequences);
        let token = NewToken { row: self.row, sample: self.number, step, id, score, finish };
        let stopped = on_token(&token).is_break().then_some(Finish::Stopped);
        Ok(finish.or(stopped))
    }

    fn into_hypothesis(self, finish: Finish, length_penalty: f64) -> Hypothesis {
        let step_scores = self.step_scores;
        Hypothesis { step_scores, ..self.writing.into_hypothesis(finish, length_penalty) }
    }
}
