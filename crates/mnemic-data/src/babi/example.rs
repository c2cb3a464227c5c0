//! Stories as training examples: one question with the statements before it.

use std::sync::Arc;

use super::story::{Line, Story};
use super::task::Task;
use crate::{Error, Result};

/// A sentence in words. The examples of a story share its sentences.
pub type Sentence = Arc<[String]>;

/// One question and what it may be answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The task; `None` for an example that a user typed.
    pub task: Option<Task>,
    /// The statements of the story before the question, oldest first.
    pub statements: Vec<Sentence>,
    /// The question in words.
    pub question: Vec<String>,
    /// The answer in lower case, one class even if it is a list (`apple,milk`). Empty where it is
    /// not known.
    pub answer: String,
    /// The supporting statements as indices into `statements`, in reasoning order.
    pub supports: Vec<usize>,
    /// The index of the story among those that the example was made from.
    pub story: usize,
}

/// Splits a text into words: lower case, without punctuation (`.`, `?`, `!`) at the end, cut at
/// blanks.
///
/// ```
/// assert_eq!(mnemic_data::babi::tokenize("Where is Mary? "), ["where", "is", "mary"]);
/// ```
pub fn tokenize(text: &str) -> Vec<String> {
    text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '.' | '?' | '!'))
        .split_whitespace()
        .map(str::to_lowercase)
        .collect()
}

/// Makes one example of each question, in order. The context of a question is all statements before
/// it in its story, and no other question (Weston et al. 2015).
///
/// Supporting ids that name no earlier statement are left out; the reader lets none through.
pub fn examples(task: Task, stories: &[Story]) -> Vec<Example> {
    let mut examples = Vec::with_capacity(stories.iter().map(Story::num_questions).sum());
    for (index, story) in stories.iter().enumerate() {
        add_examples(task, index, story, &mut examples);
    }
    examples
}

fn add_examples(task: Task, index: usize, story: &Story, examples: &mut Vec<Example>) {
    let mut statements: Vec<Sentence> = Vec::new();
    // For each line its index among the statements, `None` for questions.
    let mut positions: Vec<Option<usize>> = Vec::with_capacity(story.lines.len());
    for line in &story.lines {
        match line {
            Line::Statement { text } => {
                positions.push(Some(statements.len()));
                statements.push(tokenize(text).into());
            }
            Line::Question { text, answer, supports } => {
                let position = |&id: &u32| *positions.get((id as usize).checked_sub(1)?)?;
                examples.push(Example {
                    task: Some(task),
                    statements: statements.clone(),
                    question: tokenize(text),
                    answer: answer.to_lowercase(),
                    supports: supports.iter().filter_map(position).collect(),
                    story: index,
                });
                positions.push(None);
            }
        }
    }
}

impl Example {
    /// Makes an example of a story and a question that a user typed. Statements end with a full
    /// stop or a line break; a number at the start of a line is a line id and dropped. The story
    /// may be empty; the answer stays empty.
    ///
    /// # Errors
    /// The question has no words, or the story holds a question.
    ///
    /// ```
    /// use mnemic_data::babi::Example;
    /// let example = Example::parse("1 Mary got the milk.\n2 Mary went home", "Where is Mary?")?;
    /// assert_eq!(example.statements.len(), 2);
    /// assert_eq!(example.statements[1].join(" "), "mary went home");
    /// # Ok::<(), mnemic_data::Error>(())
    /// ```
    pub fn parse(story: &str, question: &str) -> Result<Self> {
        let question_words = tokenize(question);
        if question_words.is_empty() {
            return Err(Error::argument("question", format!("`{question}` holds no words")));
        }
        let mut statements = Vec::new();
        for line in story.lines() {
            if line.contains(['?', '\t']) {
                let reason = format!("`{}` is a question, expected statements", line.trim());
                return Err(Error::argument("story", reason));
            }
            let sentences = without_id(line).split('.').map(tokenize).filter(|s| !s.is_empty());
            statements.extend(sentences.map(Sentence::from));
        }
        Ok(Self {
            task: None,
            statements,
            question: question_words,
            answer: String::new(),
            supports: Vec::new(),
            story: 0,
        })
    }

    /// Keeps the last `limit` statements. Supports that fall away are dropped, the others still
    /// point at the same statements.
    pub fn truncate_context(&mut self, limit: usize) {
        let dropped = self.statements.len().saturating_sub(limit);
        self.statements.drain(..dropped);
        self.supports = self.supports.iter().filter_map(|s| s.checked_sub(dropped)).collect();
    }
}

/// The line without a leading number.
fn without_id(line: &str) -> &str {
    let line = line.trim_start();
    match line.split_once(char::is_whitespace) {
        Some((id, text)) if id.bytes().all(|b| b.is_ascii_digit()) => text,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::babi::parse_stories;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    fn task() -> Task {
        Task::new(5).unwrap()
    }

    #[test]
    fn tokenizer_drops_case_and_final_punctuation_only() {
        assert_eq!(tokenize("Mary went  to the Bathroom."), words("mary went to the bathroom"));
        assert_eq!(tokenize("Where will antoine go ? "), words("where will antoine go"));
        assert_eq!(tokenize("It costs 2.50 dollars."), words("it costs 2.50 dollars"));
        assert!(tokenize(" .").is_empty());
    }

    #[test]
    fn context_grows_and_holds_no_question() {
        let text = "1 Fred took the milk.\n2 Fred gave the milk to Jeff.\n\
                    3 Who gave the milk?\tFred\t2\n4 Jeff left.\n5 Bill left.\n\
                    6 What did Fred give to Jeff?\tmilk\t5 2 1\n\
                    1 Bill left.\n2 Who left?\tBill\t1\n";
        let made = examples(task(), &parse_stories("t", text.as_bytes()).unwrap());
        assert_eq!(made.len(), 3);
        assert_eq!(made[0].statements.len(), 2);
        assert_eq!(made[0].answer, "fred");
        assert_eq!(made[0].supports, [1]);
        assert_eq!(made[1].statements.len(), 4);
        assert_eq!(made[1].statements[2].to_vec(), words("jeff left"));
        assert_eq!(made[1].question, words("what did fred give to jeff"));
        assert_eq!(made[1].supports, [3, 1, 0]);
        assert!(Arc::ptr_eq(&made[0].statements[0], &made[1].statements[0]));
        assert_eq!(made[2].statements.len(), 1);
        assert_eq!((made[0].story, made[1].story, made[2].story), (0, 0, 1));
        assert_eq!(made[2].task, Some(task()));
    }

    #[test]
    fn truncation_keeps_the_latest_and_moves_supports() {
        let mut example = Example::parse("A a. B b. C c. D d.", "Who?").unwrap();
        example.supports = vec![3, 0, 2];
        let mut same = example.clone();
        same.truncate_context(4);
        assert_eq!(same, example);
        example.truncate_context(2);
        assert_eq!(example.statements[0].to_vec(), words("c c"));
        assert_eq!(example.supports, [1, 0]);
        example.truncate_context(0);
        assert!(example.statements.is_empty() && example.supports.is_empty());
    }

    #[test]
    fn typed_stories_may_have_ids_full_stops_or_lines() {
        let question = "Where is Mary";
        let expected = Example::parse("Mary left. John came.", question).unwrap();
        assert_eq!(expected.statements.len(), 2);
        for story in
            ["1 Mary left.\n2 John came.\n", "mary left\r\n\n  john came", "Mary left.john came"]
        {
            assert_eq!(Example::parse(story, question).unwrap(), expected, "{story:?}");
        }
        assert!(Example::parse("", question).unwrap().statements.is_empty());
        let error = Example::parse("Mary left.", " ?").unwrap_err();
        assert_eq!(error.to_string(), "question: ` ?` holds no words");
        let error = Example::parse("Mary left.\nWhere is she?", question).unwrap_err();
        assert!(error.to_string().contains("`Where is she?` is a question"), "{error}");
    }
}
