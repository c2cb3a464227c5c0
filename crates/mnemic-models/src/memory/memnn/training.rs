//! The margin ranking loss of MemNN along the gold chain of supports.

use candle_core::{Result, Tensor, bail};
use mnemic_layers::losses::{Reduction, margin_ranking};
use mnemic_layers::{Context, gather_steps};

use super::{MemNN, Read, pick};
use crate::story::StoryBatch;

/// What is right and what is wrong at one hop, row by row. A row without a hop has no negatives.
struct Hop {
    gold: Vec<Option<usize>>,
    negatives: Vec<Vec<usize>>,
}

impl MemNN {
    /// The loss of the module's page, summed over rows and hops.
    pub(super) fn ranking_loss(
        &self,
        batch: &StoryBatch,
        answers: &[u32],
        ctx: &Context,
    ) -> Result<Tensor> {
        let b = batch.batch_size();
        if batch.supports.len() != b {
            bail!("memnn: training needs the supports of all {b} rows");
        }
        if answers.len() != b {
            bail!("memnn: {b} rows but {} answers", answers.len());
        }
        let v = self.config.vocab_size;
        if let Some(bad) = answers.iter().find(|&&a| a as usize >= v) {
            bail!("memnn: answer {bad} is not below the vocabulary size {v}");
        }
        let read = self.read(batch)?;
        let chains = self.gold_chains(batch, &read)?;
        let rng = ctx.rng();
        let draw = |row: usize, k: usize, below: usize| {
            rng.map(|r| r.below(((row as u64) << 32) | k as u64, below as u64) as usize)
        };
        let (mut x, mut y) = (read.question.clone(), read.answer_question.clone());
        let mut total = Tensor::zeros((), x.dtype(), x.device())?;
        let n = read.supports.dim(1)?;
        let mut places = vec![None; b];
        for hop in 0..chains.iter().map(Vec::len).max().unwrap_or(0) {
            let terms = self.hop(&read, &chains, hop, |row, m| draw(row, hop, m));
            if terms.negatives.iter().any(|f| !f.is_empty()) {
                total = (total + self.hop_loss(&read, &x, &places, &terms)?)?;
            }
            places = terms.gold.iter().map(|g| g.filter(|&g| g < n)).collect();
            x = (x + pick(&read.supports, &places)?)?;
            y = (y + pick(&read.answer_supports, &places)?)?;
        }
        total + self.response_loss(&y, answers, |row| draw(row, self.config.hops, v - 1))?
    }

    /// The supports of each row, with `adaptive` followed by the stop memory (place `n`).
    fn gold_chains(&self, batch: &StoryBatch, read: &Read) -> Result<Vec<Vec<usize>>> {
        let n = read.supports.dim(1)?;
        let kept = read.prepared.batch.supports.iter().zip(&batch.supports);
        Ok(kept
            .map(|(kept, all)| {
                let mut chain = kept.clone();
                // A chain cut off by the memory's size does not end there.
                if self.config.adaptive && kept.len() == all.len() {
                    chain.push(n);
                }
                chain.truncate(self.config.hops);
                chain
            })
            .collect())
    }

    /// Gold and negatives of a hop; `draw(row, m)` picks one of `m` negatives, or `None` for all of
    /// them.
    fn hop(
        &self,
        read: &Read,
        chains: &[Vec<usize>],
        hop: usize,
        draw: impl Fn(usize, usize) -> Option<usize>,
    ) -> Hop {
        let stop = read.candidates.dims()[1] - 1; // used with `adaptive` only
        let lengths = &read.prepared.batch.story_lengths;
        let gold: Vec<_> = chains.iter().map(|c| c.get(hop).copied()).collect();
        let negatives = gold.iter().enumerate().map(|(row, gold)| {
            let Some(gold) = gold else { return Vec::new() };
            let stop = self.config.adaptive.then_some(stop);
            let mut all: Vec<usize> = (0..lengths[row]).chain(stop).filter(|i| i != gold).collect();
            if let Some(k) = draw(row, all.len().max(1))
                && !all.is_empty()
            {
                all = vec![all[k]];
            }
            all
        });
        Hop { negatives: negatives.collect(), gold }
    }

    fn hop_loss(
        &self,
        read: &Read,
        x: &Tensor,
        last: &[Option<usize>],
        hop: &Hop,
    ) -> Result<Tensor> {
        let (a, tau) = self.scores(read, x, last)?; // (b, n), (b)
        let (n, m) = (read.supports.dim(1)?, hop.negatives.iter().map(Vec::len).max().unwrap_or(0));
        let a = a.unsqueeze(2)?; // (b, n, 1)
        let gold: Vec<Vec<usize>> = hop.gold.iter().map(|g| g.iter().copied().collect()).collect();
        let gold_match = gather_steps(&a, &gold)?.squeeze(2)?; // (b, 1)
        let wrong_match = gather_steps(&a, &hop.negatives)?.squeeze(2)?; // (b, m)
        // Per pair: the share of the hop's mean, and who of the two was written later.
        let (mut share, mut gold_newer, mut wrong_newer) = (vec![], vec![], vec![]);
        for (gold, negatives) in hop.gold.iter().zip(&hop.negatives) {
            for k in 0..m {
                let pair = gold.zip(negatives.get(k).copied());
                let aged = pair.filter(|&(g, f)| g < n && f < n);
                share.push(pair.map_or(0., |_| 1. / negatives.len() as f64));
                gold_newer.push(f64::from(aged.is_some_and(|(g, f)| g > f)));
                wrong_newer.push(f64::from(aged.is_some_and(|(g, f)| f > g)));
            }
        }
        let grid = |values: Vec<f64>| {
            Tensor::from_vec(values, wrong_match.dims(), a.device())?.to_dtype(a.dtype())
        };
        let margin = self.config.margin;
        let loss = match tau {
            None => margin_ranking(&gold_match, &wrong_match, margin, Reduction::None)?,
            Some(tau) => {
                let tau = tau.unsqueeze(1)?; // (b, 1)
                let (gold_bonus, wrong_bonus) = (
                    grid(gold_newer)?.broadcast_mul(&tau)?,
                    grid(wrong_newer)?.broadcast_mul(&tau)?,
                );
                let gold_first = gold_bonus.broadcast_add(&gold_match)?;
                let wrong_first = (wrong_bonus + &wrong_match)?;
                (margin_ranking(&gold_first, &wrong_match, margin, Reduction::None)?
                    + margin_ranking(&gold_match, &wrong_first, margin, Reduction::None)?)?
            }
        };
        (loss * grid(share)?)?.sum_all()
    }

    /// The hinge of the answer against a wrong word; `draw(row)` picks it, or `None` for the mean
    /// over all of them.
    fn response_loss(
        &self,
        x: &Tensor,
        answers: &[u32],
        draw: impl Fn(usize) -> Option<usize>,
    ) -> Result<Tensor> {
        let scores = self.respond(x)?; // (b, v)
        let (b, v) = scores.dims2()?;
        let mut share = vec![0f64; b * v];
        for (row, &answer) in answers.iter().enumerate() {
            let answer = answer as usize;
            let shares = &mut share[row * v..][..v];
            match draw(row) {
                // The words without the answer, in order.
                Some(k) => shares[k + usize::from(k >= answer)] = 1.,
                None => {
                    shares.fill(1. / (v - 1) as f64);
                    shares[answer] = 0.;
                }
            }
        }
        let share = Tensor::from_vec(share, (b, v), x.device())?.to_dtype(x.dtype())?;
        let gold = Tensor::from_slice(answers, (b, 1), x.device())?;
        let gold = scores.gather(&gold, 1)?; // (b, 1)
        let loss = margin_ranking(&gold, &scores, self.config.margin, Reduction::None)?;
        (loss * share)?.sum_all()
    }
}
