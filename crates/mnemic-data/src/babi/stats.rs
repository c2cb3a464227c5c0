//! What a set of stories looks like in numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::example::tokenize;
use super::story::{Line, Story};

/// Counts, lengths and answers of a set of stories.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Stats {
    /// Stories.
    pub stories: usize,
    /// Questions.
    pub questions: usize,
    /// The fewest questions of a story.
    pub story_questions_min: usize,
    /// The most questions of a story.
    pub story_questions_max: usize,
    /// Questions per story on average.
    pub story_questions_mean: f64,
    /// Statements before a question on average.
    pub context_mean: f64,
    /// The smallest number of statements that more than 95 % of the questions do not exceed.
    pub context_p95: usize,
    /// The most statements before a question.
    pub context_max: usize,
    /// The words of the longest statement (S).
    pub sentence_max: usize,
    /// The words of the longest question (Q).
    pub question_max: usize,
    /// Distinct words of statements and questions (V).
    pub words: usize,
    /// Answer classes that are no such word.
    pub answer_only: usize,
    /// How often each answer class (lower case) comes.
    pub answers: BTreeMap<String, usize>,
    /// The fewest supporting statements of a question.
    pub supports_min: usize,
    /// The most supporting statements of a question.
    pub supports_max: usize,
}

impl Stats {
    /// Measures stories. All numbers are 0 where there is nothing to measure.
    pub fn new<'a>(stories: impl IntoIterator<Item = &'a Story>) -> Self {
        let mut stats = Self::default();
        let mut seen = Seen::default();
        for story in stories {
            let questions = stats.add_story(story, &mut seen);
            stats.stories += 1;
            seen.story_questions.push(questions);
        }
        seen.contexts.sort_unstable();
        let (min, max) = range(&seen.story_questions);
        stats.questions = seen.contexts.len();
        (stats.story_questions_min, stats.story_questions_max) = (min, max);
        stats.story_questions_mean = mean(&seen.story_questions);
        stats.context_mean = mean(&seen.contexts);
        stats.context_p95 = seen.contexts.get(seen.contexts.len() * 95 / 100).copied().unwrap_or(0);
        stats.context_max = range(&seen.contexts).1;
        (stats.supports_min, stats.supports_max) = range(&seen.supports);
        stats.words = seen.words.len();
        stats.answer_only = stats.answers.keys().filter(|&a| !seen.words.contains(a)).count();
        stats
    }

    fn add_story(&mut self, story: &Story, seen: &mut Seen) -> usize {
        let (mut statements, mut questions) = (0, 0);
        for line in &story.lines {
            match line {
                Line::Statement { text } => {
                    statements += 1;
                    self.sentence_max = self.sentence_max.max(seen.add_words(text));
                }
                Line::Question { text, answer, supports } => {
                    questions += 1;
                    self.question_max = self.question_max.max(seen.add_words(text));
                    *self.answers.entry(answer.to_lowercase()).or_default() += 1;
                    seen.contexts.push(statements);
                    seen.supports.push(supports.len());
                }
            }
        }
        questions
    }

    /// The share of the questions that have this answer, 0–1.
    pub fn answer_share(&self, answer: &str) -> f64 {
        let count = self.answers.get(answer).copied().unwrap_or(0);
        if count == 0 { 0.0 } else { count as f64 / self.questions as f64 }
    }

    /// The answers from the most to the least frequent, equals in alphabetical order.
    pub fn answers_by_count(&self) -> Vec<(&str, usize)> {
        let mut answers: Vec<_> = self.answers.iter().map(|(a, &n)| (a.as_str(), n)).collect();
        answers.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        answers
    }

    /// The cells of the table, in the order of `COLUMNS`.
    fn cells(&self) -> Vec<String> {
        let extra = match self.answer_only {
            0 => String::new(),
            n => format!("+{n}"),
        };
        vec![
            self.questions.to_string(),
            self.stories.to_string(),
            span(self.story_questions_min, self.story_questions_max),
            format!("{:.1}/{}/{}", self.context_mean, self.context_p95, self.context_max),
            self.sentence_max.to_string(),
            self.question_max.to_string(),
            format!("{}{extra}", self.words),
            self.answers.len().to_string(),
            span(self.supports_min, self.supports_max),
            self.commonest(),
        ]
    }

    fn commonest(&self) -> String {
        const SHOWN: usize = 3;
        let answers = self.answers_by_count();
        let mut shown: Vec<_> = answers
            .iter()
            .take(SHOWN)
            .map(|(a, _)| format!("{a} {:.1} %", 100.0 * self.answer_share(a)))
            .collect();
        if answers.len() > SHOWN {
            shown.push("…".into());
        }
        shown.join(", ")
    }
}

/// What the numbers are taken from.
#[derive(Default)]
struct Seen {
    story_questions: Vec<usize>,
    contexts: Vec<usize>,
    supports: Vec<usize>,
    words: BTreeSet<String>,
}

impl Seen {
    /// Adds the words of a text and tells how many there are.
    fn add_words(&mut self, text: &str) -> usize {
        let words = tokenize(text);
        let count = words.len();
        self.words.extend(words);
        count
    }
}

/// A table of statistics, one named row for each set of stories. Displayed with aligned columns:
/// questions, stories, questions per story, statements before a question (mean/95 %/max), longest
/// statement S, longest question Q, vocabulary V (words + further answer classes), answer classes
/// A, supporting statements, and the commonest answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct StatsTable {
    /// The rows with their names.
    pub rows: Vec<(String, Stats)>,
}

const COLUMNS: [&str; 11] =
    ["", "questions", "stories", "Q/story", "context", "S", "Q", "V", "A", "supports", "answers"];

impl fmt::Display for StatsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![COLUMNS.map(String::from).to_vec()];
        for (name, stats) in &self.rows {
            let mut line = vec![name.clone()];
            line.extend(stats.cells());
            lines.push(line);
        }
        let width = |c: usize| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            // Names and answers are text and stand left, numbers right.
            write!(f, "{:w$}", line[0], w = widths[0])?;
            for (cell, w) in line.iter().zip(&widths).take(COLUMNS.len() - 1).skip(1) {
                write!(f, "  {cell:>w$}")?;
            }
            write!(f, "  {}", line[COLUMNS.len() - 1])?;
        }
        Ok(())
    }
}

/// A table of one row.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        StatsTable { rows: vec![(String::new(), self.clone())] }.fmt(f)
    }
}

fn mean(values: &[usize]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.iter().sum::<usize>() as f64 / values.len() as f64
}

fn range(values: &[usize]) -> (usize, usize) {
    let min = values.iter().min().copied().unwrap_or(0);
    (min, values.iter().max().copied().unwrap_or(0))
}

fn span(min: usize, max: usize) -> String {
    if min == max { min.to_string() } else { format!("{min}–{max}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::babi::parse_stories;

    const FILE: &str = "1 Mary went to the office.\n2 Bill left.\n3 Where is Mary?\toffice\t1\n\
                        4 Is Bill in the office?\tNo\t2 1\n1 Bill left.\n2 Bill came.\n3 He left.\n\
                        4 Who left?\tBill\t3 2 1\n";

    #[test]
    fn counts_by_hand() {
        let stats = Stats::new(&parse_stories("t", FILE.as_bytes()).unwrap());
        assert_eq!((stats.stories, stats.questions), (2, 3));
        assert_eq!((stats.story_questions_min, stats.story_questions_max), (1, 2));
        assert_eq!((stats.story_questions_mean, stats.context_max), (1.5, 3));
        assert!((stats.context_mean - 7.0 / 3.0).abs() < 1e-12);
        assert_eq!((stats.sentence_max, stats.question_max), (5, 5));
        // mary went to the office bill left where is in came he who; the answer `no` besides.
        assert_eq!((stats.words, stats.answer_only), (13, 1));
        assert_eq!(stats.answers_by_count(), [("bill", 1), ("no", 1), ("office", 1)]);
        assert_eq!((stats.supports_min, stats.supports_max), (1, 3));
        assert!((stats.answer_share("no") - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(stats.answer_share("maybe"), 0.0);
    }

    #[test]
    fn the_95th_percentile_exceeds_95_percent() {
        // 20 questions: contexts 1 to 20; 19 of them are exactly 95 %.
        let text: String = (0..20)
            .map(|i| format!("{} It rains.\n{} Is it?\tno\t1\n", 2 * i + 1, 2 * i + 2))
            .collect();
        let stats = Stats::new(&parse_stories("t", text.as_bytes()).unwrap());
        assert_eq!((stats.context_p95, stats.context_mean), (20, 10.5));
    }

    #[test]
    fn nothing_gives_zeros() {
        let stats = Stats::new(&[]);
        assert_eq!(stats, Stats::default());
        assert!(!stats.to_string().contains("NaN"));
    }

    #[test]
    fn columns_are_aligned() {
        let stats = Stats::new(&parse_stories("t", FILE.as_bytes()).unwrap());
        let rows = vec![("qa1".into(), stats), ("a longer name".into(), Stats::default())];
        let text = StatsTable { rows }.to_string();
        let lines: Vec<Vec<char>> = text.lines().map(|l| l.chars().collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(text.contains("13+1") && text.contains("1–3") && text.contains("2.3/3/3"));
        let answers = text.lines().next().unwrap().find("answers").unwrap();
        assert_eq!(lines[1][answers..answers + 4], ['b', 'i', 'l', 'l']);
        assert!(lines.iter().all(|l| l[answers - 1] == ' ' && l[answers - 3] != ' '));
        let json = serde_json::to_value(Stats::default()).unwrap();
        assert_eq!(json["questions"], 0);
    }
}
