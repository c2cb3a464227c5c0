//! Distributions of a set of stories, to compare ours with the official ones.

use std::collections::{BTreeMap, BTreeSet};

use mnemic_data::babi::{Line, Story, tokenize};

/// How often each class comes.
pub(crate) type Histogram = BTreeMap<String, usize>;

/// What is compared.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    pub(crate) questions: usize,
    /// Statements before a question, the mean and its standard error (stories are the sample).
    pub(crate) context: (f64, f64),
    pub(crate) words: BTreeSet<String>,
    pub(crate) answers: Histogram,
    /// Statements before each question.
    pub(crate) contexts: Histogram,
    /// Questions per story, without the last story, which may be cut.
    pub(crate) story_questions: Histogram,
    /// Statements and questions without their names, places and things.
    pub(crate) statement_forms: Histogram,
    pub(crate) question_forms: Histogram,
    /// How many statements back the latest and the first named support lie.
    pub(crate) latest_support: Histogram,
    pub(crate) first_support: Histogram,
    pub(crate) supports: Histogram,
    /// How often an answer is the place that was mentioned last.
    pub(crate) last_word: Histogram,
}

/// Words that do not vary within a form.
const GRAMMAR: &str = "the to of is in a there not no longer either or and was before where what who \
    how many objects carrying did give gave received will go why get do you from afraid are color \
    bigger than fits inside does fit after that following then afterwards he she they yesterday \
    this morning afternoon evening went back journeyed travelled moved picked up got grabbed took \
    dropped left discarded put down handed passed";

fn form(text: &str) -> String {
    let grammar: BTreeSet<&str> = GRAMMAR.split_whitespace().collect();
    let words = tokenize(text);
    let words: Vec<&str> =
        words.iter().map(|w| if grammar.contains(w.as_str()) { w.as_str() } else { "_" }).collect();
    words.join(" ")
}

fn count(histogram: &mut Histogram, class: impl ToString) {
    *histogram.entry(class.to_string()).or_default() += 1;
}

impl Profile {
    pub(crate) fn new(stories: &[Story]) -> Self {
        let mut profile = Self::default();
        let mut means = Vec::new();
        for (i, story) in stories.iter().enumerate() {
            let contexts = profile.add(story);
            if i + 1 < stories.len() {
                count(&mut profile.story_questions, contexts.len());
            }
            means.push((contexts.iter().sum::<usize>() as f64, contexts.len() as f64));
        }
        profile.questions = means.iter().map(|m| m.1).sum::<f64>() as usize;
        let total = profile.questions as f64;
        let mean = means.iter().map(|m| m.0).sum::<f64>() / total;
        let squares: f64 = means.iter().map(|m| (m.0 - mean * m.1).powi(2)).sum();
        profile.context = (mean, squares.sqrt() / total);
        profile
    }

    /// Adds a story and returns the number of statements before each question.
    fn add(&mut self, story: &Story) -> Vec<usize> {
        let mut contexts = Vec::new();
        // For each line the number of statements up to it.
        let mut position = Vec::new();
        let mut statements = 0;
        let mut last = String::new();
        for line in &story.lines {
            match line {
                Line::Statement { text } => {
                    statements += 1;
                    self.words.extend(tokenize(text));
                    last = tokenize(text).pop().unwrap();
                    count(&mut self.statement_forms, form(text));
                }
                Line::Question { text, answer, supports } => {
                    contexts.push(statements);
                    self.words.extend(tokenize(text));
                    count(&mut self.answers, answer.to_lowercase());
                    count(&mut self.contexts, statements);
                    count(&mut self.question_forms, form(text));
                    count(&mut self.supports, supports.len());
                    count(&mut self.last_word, *answer == last);
                    let back = |id: u32| statements - position[id as usize - 1];
                    let latest = supports.iter().map(|&id| back(id)).min().unwrap();
                    count(&mut self.latest_support, latest);
                    count(&mut self.first_support, back(supports[0]));
                }
            }
            position.push(statements);
        }
        contexts
    }

    /// The share of the most frequent answer.
    pub(crate) fn majority(&self) -> f64 {
        *self.answers.values().max().unwrap() as f64 / self.questions as f64
    }
}

/// The share of a class.
pub(crate) fn share(histogram: &Histogram, class: &str) -> f64 {
    let total: usize = histogram.values().sum();
    histogram.get(class).copied().unwrap_or_default() as f64 / total as f64
}

/// Classes whose shares differ by more than sampling error. Questions of one story are not
/// independent, so the error is taken twice as large as that of a binomial share.
pub(crate) fn differences(ours: &Histogram, official: &Histogram) -> Vec<String> {
    let [n, m] = [ours, official].map(|h| h.values().sum::<usize>() as f64);
    let classes: BTreeSet<&String> = ours.keys().chain(official.keys()).collect();
    classes
        .into_iter()
        .filter_map(|class| {
            let (p, q) = (share(ours, class), share(official, class));
            let pooled = (p * n + q * m) / (n + m);
            let error = 2.0 * (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
            let bound = 5.0 * error + 5e-4;
            ((p - q).abs() > bound)
                .then(|| format!("`{class}`: ours {p:.4}, official {q:.4}, bound {bound:.4}"))
        })
        .collect()
}
