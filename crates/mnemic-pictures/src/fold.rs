//! Which sentences of a long story a picture leaves out.

use crate::QaTrace;
use crate::trace::Pass;

/// One line of a folded story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// A sentence.
    Sentence(usize),
    /// This many sentences in a row that nothing attended to.
    Hidden(usize),
}

/// What is left out.
pub(crate) struct Fold {
    /// Stories of up to this many sentences are complete.
    pub(crate) above: usize,
    /// Sentences that no pass draws as full as this are left out.
    pub(crate) threshold: f64,
    /// Neighbours shown on both sides of a sentence that is shown.
    pub(crate) context: usize,
}

/// Sentences at or above the threshold, NaN, the highest of every pass and the gold supports are
/// shown with their neighbours; a run of two or more others becomes one [`Row::Hidden`].
pub(crate) fn rows(trace: &QaTrace, passes: &[Pass<'_>], fold: &Fold) -> Vec<Row> {
    let count = trace.sentences.len();
    if count <= fold.above || passes.is_empty() {
        return (0..count).map(Row::Sentence).collect();
    }
    let mut shown = vec![false; count];
    for i in 0..count {
        let attended = passes.iter().any(|pass| {
            pass.top == Some(i) || pass.fraction(i).is_none_or(|f| f >= fold.threshold)
        });
        if attended || trace.supports.contains(&i) {
            let last = i.saturating_add(fold.context).min(count - 1);
            shown[i.saturating_sub(fold.context)..=last].fill(true);
        }
    }
    let mut rows = Vec::new();
    let mut next = 0;
    while next < count {
        let hidden = shown[next..].iter().take_while(|&&s| !s).count();
        match hidden {
            // One line stands for one sentence just as well.
            0 | 1 => {
                rows.push(Row::Sentence(next));
                next += 1;
            }
            _ => {
                rows.push(Row::Hidden(hidden));
                next += hidden;
            }
        }
    }
    rows
}
