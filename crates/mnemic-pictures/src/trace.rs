//! One answered question: the story, the attention of every pass, the answer.

use serde::{Deserialize, Serialize};

use crate::number;
use crate::{Error, Result};

/// A story, a question about it, and what a memory network attended to while answering.
///
/// Indices of sentences count from 0; the pictures number sentences from 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QaTrace {
    /// Heading of the picture, such as `"Example 12"`.
    pub title: String,
    /// Name of the model that answered.
    pub model: String,
    /// Name of the task or data set.
    #[serde(default)]
    pub task: Option<String>,
    /// The story, one memory per sentence, in story order.
    pub sentences: Vec<String>,
    /// The question.
    pub question: String,
    /// Candidate answers with their probabilities, best first.
    #[serde(default, with = "number::pairs")]
    pub answers: Vec<(String, f64)>,
    /// The gold answer, where it is known.
    #[serde(default)]
    pub expected: Option<String>,
    /// Indices of the gold supporting sentences; may be empty.
    #[serde(default)]
    pub supports: Vec<usize>,
    /// Attention, one entry per pass (hop) over the memory; may be empty.
    #[serde(default)]
    pub passes: Vec<PassTrace>,
}

/// What one pass (hop) over the memory attended to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PassTrace {
    /// Name of the pass, such as `"hop 2"`.
    pub name: String,
    /// One weight per sentence. NaN is drawn as such.
    #[serde(with = "number::list")]
    pub weights: Vec<f32>,
    /// What the weights are.
    #[serde(default)]
    pub gate: Gate,
}

/// What the weights of a pass are, which decides their scale in a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Weights of one pass are in `[0, 1]` and sum to 1 (end-to-end memory networks).
    #[default]
    Softmax,
    /// Every sentence has its own gate in `[0, 1]` (dynamic memory networks).
    Sigmoid,
    /// Any real numbers, drawn from the smallest to the largest of the pass (a linear start).
    Score,
}

impl QaTrace {
    /// Checks that the picture of this trace can be drawn.
    ///
    /// # Errors
    /// [`Error::WeightCount`] when a pass does not have one weight per sentence,
    /// [`Error::SupportIndex`] when a supporting fact is not in the story.
    pub fn validate(&self) -> Result<()> {
        let sentences = self.sentences.len();
        for pass in &self.passes {
            if pass.weights.len() != sentences {
                return Err(Error::WeightCount {
                    trace: self.title.clone(),
                    pass: pass.name.clone(),
                    weights: pass.weights.len(),
                    sentences,
                });
            }
        }
        match self.supports.iter().find(|&&s| s >= sentences) {
            Some(&support) => {
                Err(Error::SupportIndex { trace: self.title.clone(), support, sentences })
            }
            None => Ok(()),
        }
    }

    /// The most probable answer, where there is one.
    pub fn answer(&self) -> Option<&str> {
        self.answers.first().map(|(word, _)| word.as_str())
    }

    /// Whether the most probable answer is the gold one; `None` where no gold answer is known.
    pub fn correct(&self) -> Option<bool> {
        self.expected.as_deref().map(|gold| self.answer() == Some(gold))
    }
}

/// One pass with what its pictures need: the range of its scale and its highest weight.
pub(crate) struct Pass<'a> {
    pub(crate) name: &'a str,
    pub(crate) weights: &'a [f32],
    pub(crate) gate: Gate,
    /// Values drawn as empty and as full.
    pub(crate) range: (f32, f32),
    /// Index of the highest weight (the first of equals).
    pub(crate) top: Option<usize>,
}

impl<'a> Pass<'a> {
    pub(crate) fn all(trace: &'a QaTrace) -> Vec<Self> {
        trace.passes.iter().map(Self::new).collect()
    }

    fn new(pass: &'a PassTrace) -> Self {
        let range = match pass.gate {
            Gate::Softmax | Gate::Sigmoid => (0.0, 1.0),
            Gate::Score => number::finite_range(&pass.weights).unwrap_or((0.0, 1.0)),
        };
        let mut top: Option<usize> = None;
        for (i, w) in pass.weights.iter().enumerate() {
            if !w.is_nan() && top.is_none_or(|t| *w > pass.weights[t]) {
                top = Some(i);
            }
        }
        Self { name: &pass.name, weights: &pass.weights, gate: pass.gate, range, top }
    }

    /// How full the bar of sentence `i` is, in `[0, 1]`; `None` for NaN.
    pub(crate) fn fraction(&self, i: usize) -> Option<f64> {
        number::fraction(self.weights[i], self.range)
    }

    /// Short printed value of sentence `i`.
    pub(crate) fn label(&self, i: usize) -> String {
        match self.gate {
            Gate::Score => number::short(f64::from(self.weights[i])),
            Gate::Softmax | Gate::Sigmoid => number::unit(f64::from(self.weights[i])),
        }
    }
}
