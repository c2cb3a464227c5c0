//! Entities: spans of words with a kind, and how many of them a tagger finds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A span of words and its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity<'a> {
    /// The first word.
    pub start: usize,
    /// The word after the last one.
    pub end: usize,
    /// What follows on `B-` or `I-`.
    pub kind: &'a str,
}

/// The entities of a sentence by its tags: `O`, `B-kind` (the first word of an entity), `I-kind` (a further one).
///
/// As in the evaluation of CoNLL-2000 and later: an `I-` that goes on with nothing of its kind begins an entity, so both IOB1 and IOB2 are read.
///
/// ```
/// use mnemic_tasks::fine_tune::entities;
/// let found = entities(&["B-person", "I-person", "O", "I-location"]);
/// assert_eq!((found[0].start, found[0].end, found[0].kind), (0, 2, "person"));
/// assert_eq!((found[1].start, found[1].end, found[1].kind), (3, 4, "location"));
/// ```
pub fn entities<'a>(tags: &[&'a str]) -> Vec<Entity<'a>> {
    let mut found: Vec<Entity<'a>> = vec![];
    // Whether the last entity ends right before this word.
    let mut open = false;
    for (i, tag) in tags.iter().enumerate() {
        let (place, kind) = match tag.split_once('-') {
            Some((place @ ("B" | "I"), kind)) => (place, kind),
            _ => {
                open = false;
                continue;
            }
        };
        match found.last_mut() {
            Some(last) if open && place == "I" && last.kind == kind => last.end = i + 1,
            _ => found.push(Entity { start: i, end: i + 1, kind }),
        }
        open = true;
    }
    found
}

/// Entities that were there, that were found, and that were both: the same span and the same kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityCounts {
    /// Entities of the data.
    pub gold: usize,
    /// Entities of the tagger.
    pub found: usize,
    /// Entities of both.
    pub right: usize,
}

impl EntityCounts {
    /// Counts a sentence by its right tags and those of the tagger.
    pub fn add(&mut self, gold: &[&str], said: &[&str]) {
        let (gold, said) = (entities(gold), entities(said));
        self.gold += gold.len();
        self.found += said.len();
        // Entities of one sentence do not overlap, so none is there twice.
        self.right += said.iter().filter(|e| gold.binary_search(e).is_ok()).count();
    }

    /// How many of the entities found are right; 0 where none was found.
    pub fn precision(&self) -> f64 {
        ratio(self.right, self.found)
    }

    /// How many of the entities of the data were found; 0 where there is none.
    pub fn recall(&self) -> f64 {
        ratio(self.right, self.gold)
    }

    /// The harmonic mean of the two, `2 right / (gold + found)`; 0 where there is no entity at all.
    pub fn f1(&self) -> f64 {
        ratio(2 * self.right, self.gold + self.found)
    }

    /// The three by name.
    pub(super) fn metrics(&self) -> BTreeMap<&'static str, f64> {
        [("precision", self.precision()), ("recall", self.recall()), ("f1", self.f1())].into()
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0. } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(tags: &str) -> Vec<&str> {
        tags.split(' ').collect()
    }

    #[test]
    fn entities_begin_and_end_as_in_conlleval() {
        let cases = [
            ("O O", ""),
            ("B-a I-a O", "0-2 a"),
            ("B-a B-a I-a", "0-1 a, 1-3 a"),
            ("B-a I-b I-b", "0-1 a, 1-3 b"),
            ("I-a I-a O I-a", "0-2 a, 3-4 a"),
            ("O I-a B-a", "1-2 a, 2-3 a"),
            ("B-a O I-a", "0-1 a, 2-3 a"),
            ("B-creative-work I-creative-work", "0-2 creative-work"),
            ("X-a B", ""),
        ];
        for (tags, expected) in cases {
            let found = entities(&split(tags));
            let found: Vec<_> =
                found.iter().map(|e| format!("{}-{} {}", e.start, e.end, e.kind)).collect();
            let found = found.join(", ");
            assert_eq!(found, expected, "{tags}");
        }
    }

    #[test]
    fn only_the_same_span_of_the_same_kind_is_right() {
        let mut counts = EntityCounts::default();
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (0., 0., 0.));
        let mut add = |gold, said| counts.add(&split(gold), &split(said));
        add("B-a I-a O B-b", "B-a I-a O B-b"); // 2 of 2
        add("B-a I-a I-a", "B-a I-a O"); // cut short
        add("B-a O O", "B-b O O"); // another kind
        add("O O O", "O B-a I-a"); // nothing there
        add("B-a B-a", "B-a I-a"); // two taken for one
        add("B-a O", "I-a O"); // another way to write the same
        assert_eq!(counts, EntityCounts { gold: 7, found: 7, right: 3 });
        let mut counts = EntityCounts { gold: 6, found: 4, right: 3 };
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (0.75, 0.5, 0.6));
        counts.add(&["O"], &["O"]);
        assert_eq!(counts.gold, 6);
    }
}
