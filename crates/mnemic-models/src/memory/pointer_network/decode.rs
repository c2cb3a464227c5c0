//! Answers of a pointer network: greedy and beam search.

use candle_core::{DType, Result, Tensor, bail};
use mnemic_layers::Context;

use super::{Encoded, PointBatch, PointerNetwork, config, repeat};

/// Where an answer may point next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// Anywhere.
    #[default]
    Free,
    /// Only on along a valid tour: each point once, then the first again, then the end.
    Tour,
}

impl Rule {
    /// Whether an answer about `n` points that went `so_far` may point at `next`; 0 is the end.
    pub fn allows(self, n: usize, so_far: &[u32], next: u32) -> bool {
        match (self, so_far.len()) {
            (Self::Free, _) => true,
            (Self::Tour, len) if len < n => next != 0 && !so_far.contains(&next),
            (Self::Tour, len) if len == n => so_far.first() == Some(&next),
            (Self::Tour, _) => next == 0,
        }
    }
}

/// How answers are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoding {
    /// Hypotheses that are kept at each step; 1 takes the likeliest position each time (greedy).
    pub width: usize,
    /// Where an answer may point.
    pub rule: Rule,
    /// The most steps, the end included.
    pub max_steps: usize,
}

/// An answer that was searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The points, counted from 1; the end is left out.
    pub answer: Vec<u32>,
    /// Its log-probability, of the end as well where it has come to it.
    pub log_probability: f64,
    /// Whether it has come to the end, rather than to `max_steps`.
    pub ended: bool,
}

/// A hypothesis with the row of the decoder's state that it stands on.
#[derive(Debug, Clone)]
struct Open {
    hypothesis: Hypothesis,
    row: usize,
}

/// The decoder while it searches: `w` rows of state for each row of the batch.
struct Search<'a> {
    model: &'a PointerNetwork,
    encoded: Encoded,
    /// All numbers of the points, padding included.
    points: Vec<Vec<Vec<f64>>>,
    lengths: &'a [usize],
    decoding: Decoding,
    /// Hidden and cell state, `(b w, h)` each.
    state: (Tensor, Tensor),
    beams: Vec<Vec<Open>>,
}

impl PointerNetwork {
    /// The hypotheses of each row, the likeliest first; at most `width`. The search of a row is over when its best one has ended, since none can overtake it;
    /// those behind it may be unfinished then.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use mnemic_models::memory::pointer_network::{Config, Decoding, PointBatch, PointerNetwork, Rule};
    /// use mnemic_models::{Context, ParamStore};
    /// let config = Config { hidden_size: 16, ..Config::ptr_net() };
    /// let store = ParamStore::new(0);
    /// let model = PointerNetwork::new(&config, store.builder(DType::F32, &Device::Cpu))?;
    /// let rows = [vec![[0.1, 0.2], [0.8, 0.4], [0.3, 0.9]]];
    /// let batch = PointBatch::from_rows(&rows, DType::F32, &Device::Cpu)?;
    /// let decoding = Decoding { width: 2, rule: Rule::Tour, max_steps: 5 };
    /// let found = model.decode(&batch, &decoding, &Context::eval())?;
    /// assert!(found[0][0].ended && found[0][0].answer.len() == 4);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the width is 0 or the batch does not fit.
    pub fn decode(
        &self,
        batch: &PointBatch,
        decoding: &Decoding,
        ctx: &Context,
    ) -> Result<Vec<Vec<Hypothesis>>> {
        if decoding.width == 0 {
            bail!("{}: width of the beam is 0, expected at least 1", config::NAME);
        }
        let mut search = Search::new(self, batch, *decoding, ctx)?;
        for step in 0..decoding.max_steps {
            if search.is_over() {
                break;
            }
            search.step(step == 0, ctx)?;
        }
        let answers = |beam: Vec<Open>| beam.into_iter().map(|open| open.hypothesis).collect();
        Ok(search.beams.into_iter().map(answers).collect())
    }
}

impl<'a> Search<'a> {
    fn new(
        model: &'a PointerNetwork,
        batch: &'a PointBatch,
        decoding: Decoding,
        ctx: &Context,
    ) -> Result<Self> {
        let encoded = model.encode(batch, ctx)?;
        let (b, w) = (batch.lengths.len(), decoding.width);
        let spread = |state: &Tensor| -> Result<Tensor> {
            let (_, _, h) = state.dims3()?;
            state.reshape((b, 1, h))?.broadcast_as((b, w, h))?.contiguous()?.reshape((b * w, h))
        };
        let nothing = Hypothesis { answer: vec![], log_probability: 0., ended: false };
        let first = |row: usize| vec![Open { hypothesis: nothing.clone(), row: row * w }];
        Ok(Self {
            model,
            state: (spread(&encoded.state.0)?, spread(&encoded.state.1)?),
            points: batch.points.to_dtype(DType::F64)?.to_vec3()?,
            lengths: &batch.lengths,
            decoding,
            beams: (0..b).map(first).collect(),
            encoded,
        })
    }

    fn is_over(&self) -> bool {
        self.beams.iter().all(|beam| beam.first().is_none_or(|best| best.hypothesis.ended))
    }

    fn step(&mut self, first: bool, ctx: &Context) -> Result<()> {
        let (b, w) = (self.beams.len(), self.decoding.width);
        let inputs = match first {
            true => repeat(&self.model.start, b * w)?,
            false => self.inputs()?,
        };
        let (hidden, cell) = (self.state.0.unsqueeze(0)?, self.state.1.unsqueeze(0)?);
        let out = self.model.decoder.step(&inputs, Some((&hidden, &cell)), ctx)?;
        let h = self.model.config.hidden_size;
        // The hypotheses of a row are states that point at the same positions.
        let states = out.output.reshape((b, w, h))?;
        let (keys, mask) = (&self.encoded.keys, &self.encoded.mask);
        let log_p = self.model.pointer.log_probabilities(&states, keys, Some(mask))?;
        let log_p = log_p.to_dtype(DType::F64)?.to_vec3::<f64>()?;
        for (row, (beam, log_p)) in self.beams.iter_mut().zip(&log_p).enumerate() {
            *beam = extend(beam, log_p, row * w, self.lengths[row], self.decoding);
        }
        self.follow(&out.hidden.squeeze(0)?, &out.cell.squeeze(0)?)
    }

    /// The points that were chosen last, `(b w, d)`; zeros where a hypothesis is missing or has ended.
    fn inputs(&self) -> Result<Tensor> {
        let (w, d) = (self.decoding.width, self.model.config.input_size);
        let mut values = vec![0.; self.beams.len() * w * d];
        for (row, beam) in self.beams.iter().enumerate() {
            for (k, open) in beam.iter().enumerate().filter(|(_, open)| !open.hypothesis.ended) {
                if let Some(&last) = open.hypothesis.answer.last() {
                    let at = (row * w + k) * d;
                    values[at..at + d].copy_from_slice(&self.points[row][last as usize - 1]);
                }
            }
        }
        let device = self.state.0.device();
        let values = Tensor::from_vec(values, (self.beams.len() * w, d), device)?;
        values.to_dtype(self.state.0.dtype())
    }

    /// Puts each hypothesis's state where its place in the beam is.
    fn follow(&mut self, hidden: &Tensor, cell: &Tensor) -> Result<()> {
        let w = self.decoding.width;
        let mut rows: Vec<u32> = (0..(self.beams.len() * w) as u32).collect();
        for (row, beam) in self.beams.iter_mut().enumerate() {
            for (k, open) in beam.iter_mut().enumerate() {
                rows[row * w + k] = open.row as u32;
                open.row = row * w + k;
            }
        }
        let rows = Tensor::new(rows, hidden.device())?;
        self.state = (hidden.index_select(&rows, 0)?, cell.index_select(&rows, 0)?);
        Ok(())
    }
}

/// The best hypotheses that go on from a beam; `base` is the row of its first state.
fn extend(
    beam: &[Open],
    log_p: &[Vec<f64>],
    base: usize,
    n: usize,
    decoding: Decoding,
) -> Vec<Open> {
    // (log-probability, hypothesis, next position or none where it has ended)
    let mut candidates: Vec<(f64, usize, Option<u32>)> = vec![];
    for (k, open) in beam.iter().enumerate() {
        let so_far = &open.hypothesis;
        if so_far.ended {
            candidates.push((so_far.log_probability, k, None));
            continue;
        }
        let steps = log_p[open.row - base].iter().take(n + 1).enumerate();
        candidates.extend(
            steps
                .map(|(next, log_p)| (so_far.log_probability + log_p, k, Some(next as u32)))
                .filter(|c| decoding.rule.allows(n, &so_far.answer, c.2.unwrap_or(0))),
        );
    }
    // Stable: of equals the earlier.
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    candidates.truncate(decoding.width);
    let open = |(log_probability, k, next): (f64, usize, Option<u32>)| {
        let Open { mut hypothesis, row } = beam[k].clone();
        match next {
            None => {}
            Some(0) => hypothesis.ended = true,
            Some(next) => hypothesis.answer.push(next),
        }
        hypothesis.log_probability = log_probability;
        Open { hypothesis, row }
    };
    candidates.into_iter().map(open).collect()
}
