//! A story in the making, and the loop that most tasks share.

use super::draws::Draws;
use crate::babi::story::{Line, Story};
use crate::babi::task::Task;

/// Questions of a story that is written by [`Draft::tell`].
pub(super) const QUESTIONS: usize = 5;

/// Verbs of a move, before `the PLACE`.
pub(super) const MOVES: [&str; 5] =
    ["went to", "went back to", "journeyed to", "travelled to", "moved to"];
/// Verbs of picking something up.
pub(super) const GETS: [&str; 4] = ["picked up", "got", "grabbed", "took"];
/// Verbs of putting something down.
pub(super) const DROPS: [&str; 4] = ["dropped", "left", "discarded", "put down"];
/// Verbs of handing something over.
pub(super) const GIVES: [&str; 3] = ["gave", "handed", "passed"];

/// The last statements that a question may be about.
pub(super) const WINDOW: usize = 5;

/// How many events are told before each attempt to ask.
pub(super) fn block(task: Task, scale: f64) -> usize {
    let official = match task.number() {
        // One event is a pair of statements.
        11 | 13 => 1.0,
        18 => 5.0,
        _ => 2.0,
    };
    (official * scale).round().max(1.0) as usize
}

/// A world that tells of itself.
pub(super) trait Script {
    /// Lets something happen and tells of it; false if nothing more can happen.
    fn advance(&mut self, draws: &mut Draws, draft: &mut Draft) -> bool;

    /// Asks a question if one can be answered from the text.
    fn ask(&mut self, draws: &mut Draws, draft: &mut Draft);
}

/// The lines written so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    lines: Vec<Line>,
    questions: usize,
}

impl Draft {
    /// Writes a story: a block of events, an attempt to ask, until five questions are asked.
    pub(super) fn tell(&mut self, script: &mut impl Script, block: usize, draws: &mut Draws) {
        let mut goes_on = true;
        while goes_on && self.questions < QUESTIONS {
            for _ in 0..block {
                goes_on &= script.advance(draws, self);
            }
            script.ask(draws, self);
        }
    }

    /// Adds a statement and returns its line id.
    pub(super) fn say(&mut self, text: String) -> u32 {
        self.lines.push(Line::Statement { text });
        self.lines.len() as u32
    }

    /// Adds a question.
    pub(super) fn ask(&mut self, text: String, answer: impl Into<String>, supports: Vec<u32>) {
        self.lines.push(Line::Question { text, answer: answer.into(), supports });
        self.questions += 1;
    }

    /// Adds a question whose answer is yes or no.
    pub(super) fn ask_whether(&mut self, text: String, answer: bool, supports: Vec<u32>) {
        self.ask(text, if answer { "yes" } else { "no" }, supports);
    }

    /// The story.
    pub(super) fn into_story(self) -> Story {
        Story { lines: self.lines }
    }
}

/// The last items, about which a question may be.
pub(super) fn recent<T>(items: &[T]) -> &[T] {
    &items[items.len().saturating_sub(WINDOW)..]
}
