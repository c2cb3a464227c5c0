//! Words and answers as numbers.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::babi::Example;
use crate::{Error, Result, UnknownWord};

/// The id of padding, [`NULL_WORD`]. Its embedding is usually held at zero.
pub const NULL_ID: u32 = 0;

/// The entry of id 0.
pub const NULL_WORD: &str = "<null>";

/// A fixed numbering of words and answer classes.
///
/// Id 0 is `<null>`, for padding. Then come all words of texts in alphabetical order, then the
/// answer classes that are no such word (`apple,milk`), in alphabetical order too, so that the same
/// data always gives the same numbering.
///
/// ```
/// use mnemic_data::Vocabulary;
/// let vocab = Vocabulary::new(["where", "is", "mary", "office"], ["office", "no"])?;
/// assert_eq!(vocab.id("is"), Some(1));
/// assert_eq!(vocab.word(5), Some("no"));
/// assert_eq!(vocab.answer_ids(), [3, 5]);
/// let error = vocab.encode(&["where".into(), "is".into(), "marie".into()]).unwrap_err();
/// assert_eq!(error.to_string(), "not in the vocabulary: `marie` (did you mean `mary`?)");
/// # Ok::<(), mnemic_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Vocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
    answers: Vec<u32>,
}

/// What a vocabulary looks like in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// The entry of each id in order.
    words: Vec<String>,
    /// The ids of the answer classes.
    answers: Vec<u32>,
}

impl Vocabulary {
    /// Numbers words and answer classes, each of which may come any number of times.
    ///
    /// # Errors
    /// A word or answer is empty or `<null>`.
    pub fn new<W, A>(
        words: impl IntoIterator<Item = W>,
        answers: impl IntoIterator<Item = A>,
    ) -> Result<Self>
    where
        W: Into<String>,
        A: Into<String>,
    {
        let words: BTreeSet<String> = words.into_iter().map(Into::into).collect();
        let answers: BTreeSet<String> = answers.into_iter().map(Into::into).collect();
        let extra: Vec<String> = answers.difference(&words).cloned().collect();
        let words: Vec<String> =
            std::iter::once(NULL_WORD.to_string()).chain(words).chain(extra).collect();
        let ids = number(&words)?;
        let mut answers: Vec<u32> = answers.iter().filter_map(|a| ids.get(a).copied()).collect();
        answers.sort_unstable();
        Ok(Self { words, ids, answers })
    }

    /// The words of the statements and questions of all examples, and their answers.
    ///
    /// A model can only give answers that it has a class for, and in the 1k release the test files
    /// hold a class that the training files lack (task 8). The published systems number the words
    /// of both; so pass training and test examples together where results are to be compared.
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub fn from_examples<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Result<Self> {
        let mut words: HashSet<&str> = HashSet::new();
        let mut answers: HashSet<&str> = HashSet::new();
        for example in examples {
            let statements = example.statements.iter().flat_map(|s| s.iter());
            words.extend(statements.chain(&example.question).map(String::as_str));
            if !example.answer.is_empty() {
                answers.insert(&example.answer);
            }
        }
        Self::new(words, answers)
    }

    /// The same ids, and new ones behind them for `words`; those that `is_answer` names become answer classes.
    ///
    /// # Errors
    /// A word is empty or has an id already.
    pub fn extended(
        &self,
        words: impl IntoIterator<Item = String>,
        is_answer: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let known = self.words.len();
        let words: Vec<String> = self.words.iter().cloned().chain(words).collect();
        let ids = number(&words)?;
        let new = words.iter().enumerate().skip(known).filter(|(_, word)| is_answer(word));
        let answers = self.answers.iter().copied().chain(new.map(|(id, _)| id as u32)).collect();
        Ok(Self { words, ids, answers })
    }

    /// The number of ids, `<null>` included.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is nothing but `<null>`.
    pub fn is_empty(&self) -> bool {
        self.words.len() <= 1
    }

    /// The id of a word or answer class.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// The word or answer class of an id.
    pub fn word(&self, id: u32) -> Option<&str> {
        self.words.get(id as usize).map(String::as_str)
    }

    /// All entries in the order of their ids.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The ids of the answer classes, ascending.
    pub fn answer_ids(&self) -> &[u32] {
        &self.answers
    }

    /// The place of an id among [`answer_ids`](Self::answer_ids): the class of an output layer that
    /// has one unit per answer.
    pub fn answer_class(&self, id: u32) -> Option<usize> {
        self.answers.binary_search(&id).ok()
    }

    /// The ids of some words, which must be in lower case.
    ///
    /// # Errors
    /// [`Error::UnknownWords`] names every word that is not there, with those most like it.
    pub fn encode(&self, words: &[String]) -> Result<Vec<u32>> {
        let mut unknown: Vec<&str> = Vec::new();
        let ids = words
            .iter()
            .map(|word| {
                self.id(word).unwrap_or_else(|| {
                    unknown.push(word);
                    NULL_ID
                })
            })
            .collect();
        if unknown.is_empty() { Ok(ids) } else { Err(self.unknown_words(unknown)) }
    }

    /// The id of an answer class.
    ///
    /// # Errors
    /// [`Error::UnknownAnswer`] if the answer is no class, even if it is a word.
    pub fn encode_answer(&self, answer: &str) -> Result<u32> {
        match self.id(answer) {
            Some(id) if self.answer_class(id).is_some() => Ok(id),
            _ => {
                let classes = self.answers.iter().filter_map(|&id| self.word(id));
                let word = unknown_word(answer, classes);
                Err(Error::UnknownAnswer { word, classes: self.answers.len() })
            }
        }
    }

    /// The error for words that are not there, each named once.
    pub(crate) fn unknown_words<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Error {
        let mut seen = HashSet::new();
        let known = || self.words.iter().skip(1).map(String::as_str);
        let words = words.into_iter().filter(|word| seen.insert(*word));
        Error::UnknownWords { words: words.map(|word| unknown_word(word, known())).collect() }
    }

    /// The vocabulary as JSON, for a checkpoint folder.
    ///
    /// # Errors
    /// None is known; the result leaves room for what the JSON writer may report.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(|e| Error::BadVocabulary { reason: e.to_string() })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`Error::BadVocabulary`]: no such JSON, a repeated or empty word, another id 0 than
    /// `<null>`, or answers that are no ascending ids.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| Error::BadVocabulary { reason: e.to_string() })
    }
}

impl TryFrom<Form> for Vocabulary {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let Form { words, answers } = form;
        let ids = number(&words).map_err(|e| e.to_string())?;
        for (i, &id) in answers.iter().enumerate() {
            if id == NULL_ID || id as usize >= words.len() {
                return Err(format!("answer id {id}, expected 1 to {}", words.len() - 1));
            }
            if i > 0 && answers[i - 1] >= id {
                return Err(format!("answer id {id} after {}, expected ascending", answers[i - 1]));
            }
        }
        Ok(Self { words, ids, answers })
    }
}

impl From<Vocabulary> for Form {
    fn from(vocabulary: Vocabulary) -> Self {
        Self { words: vocabulary.words, answers: vocabulary.answers }
    }
}

/// Gives each word its place as id.
fn number(words: &[String]) -> Result<HashMap<String, u32>> {
    let bad = |reason: String| Err(Error::BadVocabulary { reason });
    if words.first().map(String::as_str) != Some(NULL_WORD) {
        return bad(format!("the entry of id 0 is {:?}, expected `<null>`", words.first()));
    }
    let mut ids = HashMap::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        let Ok(id) = u32::try_from(i) else { return bad(format!("{} words", words.len())) };
        if word.is_empty() {
            return bad(format!("the entry of id {id} is empty"));
        }
        if let Some(first) = ids.insert(word.clone(), id) {
            return bad(format!("`{word}` has the ids {first} and {id}"));
        }
    }
    Ok(ids)
}

/// The known words most like `word`: at most two slips of the pen away, fewer for short words.
fn unknown_word<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> UnknownWord {
    let limit = (word.chars().count() / 2).clamp(1, 2);
    let mut near: Vec<(usize, &str)> = known
        .map(|k| (strsim::osa_distance(word, k), k))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    let suggestions = near.into_iter().take(3).map(|(_, k)| k.to_string()).collect();
    UnknownWord { word: word.into(), suggestions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocab() -> Vocabulary {
        let words = "where is mary the kitchen is mary in garden".split(' ');
        Vocabulary::new(words, ["kitchen", "no", "garden", "apple,milk", "no"]).unwrap()
    }

    #[test]
    fn words_then_other_answers_in_alphabetical_order() {
        let words = ["<null>", "garden", "in", "is", "kitchen", "mary", "the", "where"];
        assert_eq!(vocab().words()[..8], words);
        assert_eq!(vocab().words()[8..], ["apple,milk", "no"]);
        assert_eq!(vocab().answer_ids(), [1, 4, 8, 9]);
        assert_eq!(vocab().len(), 10);
        assert_eq!((vocab().answer_class(8), vocab().answer_class(2)), (Some(2), None));
        assert_eq!((vocab().id("mary"), vocab().id("Mary")), (Some(5), None));
        assert_eq!((vocab().word(0), vocab().word(10)), (Some("<null>"), None));
    }

    #[test]
    fn new_words_get_the_next_ids() {
        let more = vocab().extended(["attic".into(), "he".into()], |w| w == "attic").unwrap();
        assert_eq!((more.id("attic"), more.id("he"), more.id("no")), (Some(10), Some(11), Some(9)));
        assert_eq!(more.answer_ids(), [1, 4, 8, 9, 10]);
        assert!(vocab().extended(["mary".into()], |_| false).is_err());
    }

    #[test]
    fn unknown_words_are_all_named_with_their_neighbours() {
        let words = ["the", "kitchn", "is", "gadren", "xylophone", "kitchn"].map(String::from);
        assert_eq!(
            vocab().encode(&words).unwrap_err().to_string(),
            "not in the vocabulary: `kitchn` (did you mean `kitchen`?), `gadren` (did you mean \
             `garden`?), `xylophone`"
        );
        let error = vocab().encode(&["it".into()]).unwrap_err().to_string();
        assert_eq!(error, "not in the vocabulary: `it` (did you mean `in` or `is`?)");
    }

    #[test]
    fn an_answer_must_be_a_class() {
        assert_eq!(vocab().encode_answer("apple,milk").unwrap(), 8);
        assert_eq!(
            vocab().encode_answer("mary").unwrap_err().to_string(),
            "not one of the 4 answer classes of the vocabulary: `mary`"
        );
        assert!(matches!(
            vocab().encode_answer("garten"),
            Err(Error::UnknownAnswer { word, .. }) if word.suggestions == ["garden"]
        ));
    }

    #[test]
    fn json_goes_round_and_contradictions_are_named() {
        let json = vocab().to_json().unwrap();
        assert_eq!(Vocabulary::from_json(&json).unwrap(), vocab());
        for (json, reason) in [
            ("{", "EOF"),
            (r#"{"words":["<null>"]}"#, "missing field `answers`"),
            (r#"{"words":[],"answers":[]}"#, "id 0 is None"),
            (r#"{"words":["a"],"answers":[]}"#, "expected `<null>`"),
            (r#"{"words":["<null>","a","a"],"answers":[]}"#, "`a` has the ids 1 and 2"),
            (r#"{"words":["<null>",""],"answers":[]}"#, "id 1 is empty"),
            (r#"{"words":["<null>","a"],"answers":[2]}"#, "answer id 2, expected 1 to 1"),
            (r#"{"words":["<null>","a"],"answers":[0]}"#, "answer id 0"),
            (r#"{"words":["<null>","a","b"],"answers":[2,1]}"#, "expected ascending"),
        ] {
            let error = Vocabulary::from_json(json).unwrap_err().to_string();
            assert!(error.starts_with("bad vocabulary: ") && error.contains(reason), "{error}");
        }
        assert!(Vocabulary::new(["<null>"], ["a"]).is_err());
        assert!(Vocabulary::new([""], ["a"]).is_err());
    }
}
