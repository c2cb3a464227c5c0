//! Examples as numbers, and padded batches of them.
//!
//! Letters in shapes: b examples, n sentences per story, j words per sentence, q words per
//! question.

use std::collections::{BTreeMap, HashMap};

use crate::babi::Example;
use crate::vocab::NULL_ID;
use crate::{Error, Result, Vocabulary};

/// A data set in ids of a [`Vocabulary`], from which batches are made.
///
/// Each distinct sentence is stored once, so that ten thousand growing contexts stay small.
///
/// ```
/// use mnemic_data::{Encoded, Vocabulary, babi::Example};
/// let mut example = Example::parse("Mary went home. John left.", "Where is Mary?")?;
/// example.answer = "home".into();
/// let vocab = Vocabulary::from_examples([&example])?;
/// let batch = Encoded::new(&[example], &vocab, None)?.batch(&[0])?;
/// assert_eq!((batch.batch_size, batch.num_sentences, batch.sentence_len), (1, 2, 3));
/// assert_eq!(batch.sentence_lengths, [3, 2]);
/// assert_eq!(vocab.word(batch.answers[0]), Some("home"));
/// # Ok::<(), mnemic_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Encoded {
    sentences: Vec<Vec<u32>>,
    items: Vec<Item>,
    longest: PadTo,
}

#[derive(Debug, Clone)]
struct Item {
    /// Indices into the sentences, oldest first.
    story: Vec<u32>,
    question: Vec<u32>,
    answer: u32,
    supports: Vec<usize>,
    task: u8,
}

/// Widths to which sentences and questions are padded. The default, 0, means as wide as a batch
/// needs.
///
/// A model whose encoding of a sentence depends on its padded length (a position encoding over the
/// longest sentence J of the data set, as in common MemN2N code) needs the same widths in each
/// batch: those of the whole data set, [`Encoded::pad_to`], kept with the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadTo {
    /// Words per sentence.
    pub sentence_len: usize,
    /// Words per question.
    pub question_len: usize,
}

impl PadTo {
    /// Widths that suit both.
    pub fn max(self, other: Self) -> Self {
        Self {
            sentence_len: self.sentence_len.max(other.sentence_len),
            question_len: self.question_len.max(other.question_len),
        }
    }
}

/// A padded batch. Tables are row-major; padding is 0, the id of `<null>`, and stands at the end of
/// a sentence, a question or a story. No dimension is ever 0: an empty story is one sentence of
/// padding, with length 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Word ids of the stories, oldest sentence first: (b, n, j).
    pub story: Vec<u32>,
    /// b.
    pub batch_size: usize,
    /// n: the sentences of the longest story, at least 1.
    pub num_sentences: usize,
    /// j: the words of the longest sentence or [`PadTo::sentence_len`], at least 1.
    pub sentence_len: usize,
    /// Sentences of each story without padding: (b).
    pub story_lengths: Vec<usize>,
    /// Words of each sentence without padding, 0 for a sentence of padding: (b, n).
    pub sentence_lengths: Vec<usize>,
    /// Word ids of the questions: (b, q).
    pub question: Vec<u32>,
    /// q: the words of the longest question or [`PadTo::question_len`], at least 1.
    pub question_len: usize,
    /// Words of each question without padding: (b).
    pub question_lengths: Vec<usize>,
    /// The ids of the answers, 0 where none is known: (b).
    pub answers: Vec<u32>,
    /// For each story its supporting sentences as indices along n, in reasoning order. Those that a
    /// limited context no longer holds are missing.
    pub supports: Vec<Vec<usize>>,
    /// The numbers of the tasks, 0 for examples without one: (b).
    pub tasks: Vec<u8>,
    /// The indices of the examples in the data set: (b).
    pub indices: Vec<usize>,
}

impl Encoded {
    /// Turns examples into ids. With `max_context` only the last so many statements of each are
    /// kept. An example without answer gets the answer id 0.
    ///
    /// # Errors
    /// [`Error::UnknownWords`] with all words that the vocabulary lacks, [`Error::UnknownAnswer`]
    /// for the first answer that is none of its classes.
    pub fn new(
        examples: &[Example],
        vocabulary: &Vocabulary,
        max_context: Option<usize>,
    ) -> Result<Self> {
        let mut encoder = Encoder::new(vocabulary);
        let items: Vec<Item> = examples
            .iter()
            .map(|example| encoder.item(example, max_context))
            .collect::<Result<_>>()?;
        if !encoder.unknown.is_empty() {
            let mut unknown: Vec<_> = encoder.unknown.into_iter().collect();
            unknown.sort_unstable_by_key(|&(_, first)| first);
            return Err(vocabulary.unknown_words(unknown.into_iter().map(|(word, _)| word)));
        }
        let longest = PadTo {
            sentence_len: encoder.sentences.iter().map(Vec::len).max().unwrap_or(0),
            question_len: items.iter().map(|item| item.question.len()).max().unwrap_or(0),
        };
        Ok(Self { sentences: encoder.sentences, items, longest })
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of statements of each example, for [`batches`](crate::batches).
    pub fn story_lengths(&self) -> Vec<usize> {
        self.items.iter().map(|item| item.story.len()).collect()
    }

    /// The id of each example's answer.
    pub fn answers(&self) -> impl ExactSizeIterator<Item = u32> {
        self.items.iter().map(|item| item.answer)
    }

    /// The number of each example's task, 0 where it has none.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = u8> {
        self.items.iter().map(|item| item.task)
    }

    /// The longest sentence and question of the data set.
    pub fn pad_to(&self) -> PadTo {
        self.longest
    }

    /// A batch of the examples of these indices, padded to its own longest story, sentence and
    /// question.
    ///
    /// # Errors
    /// There are no indices, or one is out of range.
    pub fn batch(&self, indices: &[usize]) -> Result<Batch> {
        self.batch_padded(indices, PadTo::default())
    }

    /// As [`batch`](Self::batch), with sentences and questions padded to fixed widths.
    ///
    /// # Errors
    /// As [`batch`](Self::batch); also if a sentence or question is wider than that.
    pub fn batch_padded(&self, indices: &[usize], pad_to: PadTo) -> Result<Batch> {
        let items = self.select(indices)?;
        let sentences = items.iter().flat_map(|item| self.story(item));
        let sentence_len =
            width("pad_to.sentence_len", pad_to.sentence_len, sentences.map(<[_]>::len).max())?;
        let questions = items.iter().map(|item| item.question.len());
        let question_len = width("pad_to.question_len", pad_to.question_len, questions.max())?;
        let num_sentences = items.iter().map(|item| item.story.len()).max().unwrap_or(0).max(1);

        let b = items.len();
        let mut batch = Batch {
            story: vec![NULL_ID; b * num_sentences * sentence_len],
            batch_size: b,
            num_sentences,
            sentence_len,
            story_lengths: items.iter().map(|item| item.story.len()).collect(),
            sentence_lengths: vec![0; b * num_sentences],
            question: vec![NULL_ID; b * question_len],
            question_len,
            question_lengths: items.iter().map(|item| item.question.len()).collect(),
            answers: items.iter().map(|item| item.answer).collect(),
            supports: items.iter().map(|item| item.supports.clone()).collect(),
            tasks: items.iter().map(|item| item.task).collect(),
            indices: indices.to_vec(),
        };
        for (row, item) in items.iter().enumerate() {
            for (i, sentence) in self.story(item).enumerate() {
                let slot = row * num_sentences + i;
                batch.sentence_lengths[slot] = sentence.len();
                let start = slot * sentence_len;
                batch.story[start..start + sentence.len()].copy_from_slice(sentence);
            }
            let start = row * question_len;
            batch.question[start..start + item.question.len()].copy_from_slice(&item.question);
        }
        Ok(batch)
    }

    fn select(&self, indices: &[usize]) -> Result<Vec<&Item>> {
        if indices.is_empty() {
            return Err(Error::argument("indices", "none, expected at least one"));
        }
        let item = |&i: &usize| {
            self.items.get(i).ok_or_else(|| {
                Error::argument("indices", format!("{i} of a data set of {}", self.items.len()))
            })
        };
        indices.iter().map(item).collect()
    }

    fn story<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'a [u32]> {
        item.story.iter().map(|&i| self.sentences[i as usize].as_slice())
    }
}

/// The width of a padded table.
fn width(name: &'static str, fixed: usize, longest: Option<usize>) -> Result<usize> {
    let longest = longest.unwrap_or(0).max(1);
    match fixed {
        0 => Ok(longest),
        fixed if fixed >= longest => Ok(fixed),
        fixed => {
            Err(Error::argument(name, format!("{fixed}, but the batch needs at least {longest}")))
        }
    }
}

/// Collects distinct sentences and unknown words.
struct Encoder<'a> {
    vocabulary: &'a Vocabulary,
    sentences: Vec<Vec<u32>>,
    indices: HashMap<&'a [String], u32>,
    /// Each unknown word with the place of its first use.
    unknown: BTreeMap<&'a str, usize>,
}

impl<'a> Encoder<'a> {
    fn new(vocabulary: &'a Vocabulary) -> Self {
        Self {
            vocabulary,
            sentences: Vec::new(),
            indices: HashMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    fn item(&mut self, example: &'a Example, max_context: Option<usize>) -> Result<Item> {
        let count = example.statements.len();
        let dropped = count.saturating_sub(max_context.unwrap_or(count));
        let answer = match example.answer.as_str() {
            "" => NULL_ID,
            answer => self.vocabulary.encode_answer(answer)?,
        };
        Ok(Item {
            story: example.statements[dropped..].iter().map(|s| self.sentence(s)).collect(),
            question: self.encode(&example.question),
            answer,
            supports: example.supports.iter().filter_map(|s| s.checked_sub(dropped)).collect(),
            task: example.task.map_or(0, |task| task.number()),
        })
    }

    /// The index of a sentence.
    fn sentence(&mut self, words: &'a [String]) -> u32 {
        if let Some(&index) = self.indices.get(words) {
            return index;
        }
        let ids = self.encode(words);
        // No machine holds 2^32 different sentences.
        let index = self.sentences.len() as u32;
        self.sentences.push(ids);
        self.indices.insert(words, index);
        index
    }

    fn encode(&mut self, words: &'a [String]) -> Vec<u32> {
        let id = |word: &'a String| {
            self.vocabulary.id(word).unwrap_or_else(|| {
                let place = self.unknown.len();
                self.unknown.entry(word).or_insert(place);
                NULL_ID
            })
        };
        words.iter().map(id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::babi::{Task, examples, parse_stories};

    const FILE: &str = "1 Mary went to the office.\n2 Bill left.\n3 Where is Mary?\toffice\t1\n\
                        4 Mary left.\n5 Bill went home.\n6 Who went home?\tBill\t5 2\n\
                        1 What is this?\tnothing\t\n2 Bill left.\n";

    fn data() -> (Vec<Example>, Vocabulary) {
        let stories = parse_stories("t", FILE.as_bytes()).unwrap();
        let made = examples(Task::new(5).unwrap(), &stories);
        let vocab = Vocabulary::from_examples(&made).unwrap();
        (made, vocab)
    }

    fn words(vocab: &Vocabulary, ids: &[u32]) -> String {
        let words: Vec<_> = ids.iter().map(|&id| vocab.word(id).unwrap()).collect();
        words.join(" ").replace(" <null>", " -").replace("<null>", "-")
    }

    #[test]
    fn batches_are_padded_at_the_end() {
        let (made, vocab) = data();
        let encoded = Encoded::new(&made, &vocab, None).unwrap();
        assert_eq!(encoded.story_lengths(), [2, 4, 0]);
        assert_eq!(encoded.pad_to(), PadTo { sentence_len: 5, question_len: 3 });
        let batch = encoded.batch(&[1, 0, 2]).unwrap();
        assert_eq!((batch.num_sentences, batch.sentence_len, batch.question_len), (4, 5, 3));
        let rows: Vec<_> = batch.story.chunks(5).map(|s| words(&vocab, s)).collect();
        let (first, bill) = ("mary went to the office", "bill left - - -");
        let none = "- - - - -";
        let last = ["mary left - - -", "bill went home - -"];
        let expected =
            [first, bill, last[0], last[1], first, bill, none, none, none, none, none, none];
        assert_eq!(rows, expected);
        assert_eq!(batch.sentence_lengths, [5, 2, 2, 3, 5, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(batch.story_lengths, [4, 2, 0]);
        assert_eq!(words(&vocab, &batch.question), "who went home where is mary what is this");
        assert_eq!(batch.question_lengths, [3, 3, 3]);
        assert_eq!(words(&vocab, &batch.answers), "bill office nothing");
        assert_eq!(batch.supports, [vec![3, 1], vec![0], vec![]]);
        assert_eq!((batch.tasks, batch.indices), (vec![5; 3], vec![1, 0, 2]));
    }

    #[test]
    fn an_empty_story_has_one_sentence_of_padding() {
        let (made, vocab) = data();
        let batch = Encoded::new(&made, &vocab, None).unwrap().batch(&[2]).unwrap();
        assert_eq!((batch.num_sentences, batch.sentence_len), (1, 1));
        assert_eq!((batch.story, batch.sentence_lengths), (vec![0], vec![0]));
        assert_eq!(batch.story_lengths, [0]);
    }

    #[test]
    fn limited_context_is_that_of_truncated_examples() {
        let (made, vocab) = data();
        for limit in 0..5 {
            let limited = Encoded::new(&made, &vocab, Some(limit)).unwrap();
            let mut short = made.clone();
            short.iter_mut().for_each(|e| e.truncate_context(limit));
            let short = Encoded::new(&short, &vocab, None).unwrap();
            let all = [0, 1, 2];
            assert_eq!(limited.batch(&all).unwrap(), short.batch(&all).unwrap());
        }
    }

    #[test]
    fn fixed_widths_change_nothing_but_padding() {
        let (made, vocab) = data();
        let encoded = Encoded::new(&made, &vocab, None).unwrap();
        let plain = encoded.batch(&[0]).unwrap();
        let wide = PadTo { sentence_len: 7, question_len: 9 };
        let padded = encoded.batch_padded(&[0], wide).unwrap();
        assert_eq!((padded.sentence_len, padded.question_len), (7, 9));
        for (a, b) in plain.story.chunks(5).zip(padded.story.chunks(7)) {
            assert_eq!((a, [0, 0].as_slice()), (&b[..5], &b[5..]));
        }
        assert_eq!(plain.sentence_lengths, padded.sentence_lengths);
        let narrow = PadTo { sentence_len: 4, question_len: 0 };
        assert_eq!(
            encoded.batch_padded(&[0], narrow).unwrap_err().to_string(),
            "pad_to.sentence_len: 4, but the batch needs at least 5"
        );
        assert_eq!(wide.max(PadTo { sentence_len: 1, question_len: 11 }).question_len, 11);
    }

    #[test]
    fn what_cannot_be_encoded_is_named() {
        let (made, vocab) = data();
        let mut typed =
            Example::parse("Mary wend to the zoo.", "Where is the zoo, Marie?").unwrap();
        let error = Encoded::new(&[typed.clone()], &vocab, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not in the vocabulary: `wend` (did you mean `went`?), `zoo`, `zoo,`, `marie` (did you \
             mean `mary`?)"
        );
        typed.answer = "went".into();
        assert!(matches!(
            Encoded::new(&[typed], &vocab, None),
            Err(Error::UnknownAnswer { classes: 3, .. })
        ));
        let encoded = Encoded::new(&made, &vocab, None).unwrap();
        assert_eq!(
            encoded.batch(&[0, 3]).unwrap_err().to_string(),
            "indices: 3 of a data set of 3"
        );
        assert!(encoded.batch(&[]).is_err());
    }

    #[test]
    fn a_typed_question_has_no_answer_and_no_task() {
        let (_, vocab) = data();
        let typed = Example::parse("Mary left.", "Where is Mary?").unwrap();
        let batch = Encoded::new(&[typed], &vocab, None).unwrap().batch(&[0]).unwrap();
        assert_eq!((batch.answers, batch.tasks), (vec![0], vec![0]));
    }
}
