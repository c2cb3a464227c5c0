//! Models small enough to know everything about.

use candle_core::{Device, Result, Tensor, bail};
use mnemic_tasks::generation::{Generated, GenerationConfig, generate};
use mnemic_tasks::models::{Autoregressive, Context, Padding, TextBatch};

/// The logits after the input of the encoder (empty in decoders) and what is written, prompt or start token included.
type Rule = Box<dyn Fn(&[u32], &[u32]) -> Vec<f32>>;

/// A model by rule. Its state is what it has read.
pub(crate) struct Toy {
    pub(crate) vocab_size: usize,
    pub(crate) encoder_decoder: bool,
    pub(crate) max_positions: Option<usize>,
    pub(crate) rule: Rule,
}

/// The input and what is written, for each row; the padding that is still to come before a row's prompt.
#[derive(Clone)]
pub(crate) struct Read(Vec<(Vec<u32>, Vec<u32>)>, Option<Vec<usize>>);

impl Toy {
    pub(crate) fn new(
        vocab_size: usize,
        rule: impl Fn(&[u32], &[u32]) -> Vec<f32> + 'static,
    ) -> Self {
        Self { vocab_size, encoder_decoder: false, max_positions: None, rule: Box::new(rule) }
    }

    /// The probabilities of the next token depend on the last one.
    pub(crate) fn markov<const V: usize>(table: [[f32; V]; V]) -> Self {
        Self::new(V, move |_, ids| {
            table[*ids.last().unwrap() as usize].iter().map(|p| p.ln()).collect()
        })
    }

    /// Irregular scores that depend on everything that was read.
    pub(crate) fn irregular(vocab_size: usize, seed: u64) -> Self {
        Self::new(vocab_size, move |input, ids| {
            let mix = |h: u64, &id: &u32| mixed(h ^ u64::from(id));
            let state = ids.iter().fold(input.iter().fold(seed, mix) ^ 77, mix);
            scores(state, vocab_size)
        })
    }

    pub(crate) fn encoder_decoder(self) -> Self {
        Self { encoder_decoder: true, ..self }
    }

    pub(crate) fn log_probabilities(&self, input: &[u32], ids: &[u32]) -> Vec<f64> {
        let logits: Vec<f64> = (self.rule)(input, ids).into_iter().map(f64::from).collect();
        let total = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        logits.into_iter().map(|z| z - total).collect()
    }
}

fn mixed(h: u64) -> u64 {
    let h = (h ^ (h >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 29)
}

/// `vocab_size` scores between -2 and 2.
fn scores(state: u64, vocab_size: usize) -> Vec<f32> {
    let score = |i: u64| (mixed(state.wrapping_add(mixed(i + 1))) >> 40) as f32 / (1 << 22) as f32;
    (0..vocab_size as u64).map(|i| score(i) - 2.).collect()
}

impl Autoregressive for Toy {
    type State = Read;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn is_encoder_decoder(&self) -> bool {
        self.encoder_decoder
    }

    fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    fn start(&self, batch: &TextBatch, _: &Context) -> Result<Read> {
        let ids: Vec<Vec<u32>> = batch.input_ids().to_vec2()?;
        let masks = batch.attention_mask();
        if !self.encoder_decoder {
            let padding = masks.iter().map(|m| m.iter().filter(|&&m| m == 0).count()).collect();
            return Ok(Read(vec![Default::default(); ids.len()], Some(padding)));
        }
        let tokens = |(ids, mask): (Vec<u32>, &Vec<u8>)| {
            let kept = ids.into_iter().zip(mask).filter(|(_, m)| **m != 0);
            (kept.map(|(id, _)| id).collect(), Vec::new())
        };
        Ok(Read(ids.into_iter().zip(masks).map(tokens).collect(), None))
    }

    fn step(&self, ids: &Tensor, state: &mut Read, _: &Context) -> Result<Tensor> {
        let ids: Vec<Vec<u32>> = ids.to_vec2()?;
        if ids.len() != state.0.len() {
            bail!("the state has {} rows, got {}", state.0.len(), ids.len());
        }
        let padding = state.1.take().unwrap_or(vec![0; ids.len()]);
        let mut logits = Vec::new();
        for (((input, written), ids), padding) in state.0.iter_mut().zip(ids).zip(padding) {
            written.extend(&ids[padding..]);
            logits.extend((self.rule)(input, written));
        }
        Tensor::from_vec(logits, (state.0.len(), self.vocab_size), &Device::Cpu)
    }

    fn select(&self, state: &mut Read, rows: &[u32]) -> Result<()> {
        state.0 = rows.iter().map(|&row| state.0[row as usize].clone()).collect();
        Ok(())
    }
}

/// [`Toy::irregular`] as a recurrent network: its state is a number a row, so that nothing is read twice.
pub(crate) struct Cached {
    pub(crate) vocab_size: usize,
    pub(crate) seed: u64,
}

impl Autoregressive for Cached {
    type State = Vec<u64>;

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn is_encoder_decoder(&self) -> bool {
        false
    }

    fn max_positions(&self) -> Option<usize> {
        None
    }

    fn start(&self, batch: &TextBatch, _: &Context) -> Result<Vec<u64>> {
        Ok(vec![self.seed ^ 77; batch.dims()?.0])
    }

    fn step(&self, ids: &Tensor, state: &mut Vec<u64>, _: &Context) -> Result<Tensor> {
        let ids: Vec<Vec<u32>> = ids.to_vec2()?;
        let mut logits = Vec::new();
        for (h, ids) in state.iter_mut().zip(ids) {
            *h = ids.iter().fold(*h, |h, &id| mixed(h ^ u64::from(id)));
            logits.extend(scores(*h, self.vocab_size));
        }
        Tensor::from_vec(logits, (state.len(), self.vocab_size), &Device::Cpu)
    }

    fn select(&self, state: &mut Vec<u64>, rows: &[u32]) -> Result<()> {
        *state = rows.iter().map(|&row| state[row as usize]).collect();
        Ok(())
    }
}

/// Prompts, padded on the left with an id that is in no toy's vocabulary.
pub(crate) fn prompts(rows: &[Vec<u32>]) -> TextBatch {
    TextBatch::from_rows(rows, 999, Padding::Left, &Device::Cpu).unwrap()
}

pub(crate) fn run(model: &Toy, rows: &[Vec<u32>], config: &GenerationConfig) -> Generated {
    let side = if model.encoder_decoder { Padding::Right } else { Padding::Left };
    let batch = TextBatch::from_rows(rows, 999, side, &Device::Cpu).unwrap();
    generate(model, &batch, config).unwrap()
}
