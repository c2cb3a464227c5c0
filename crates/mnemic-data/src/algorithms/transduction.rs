//! The five tasks of neural stacks: E. Grefenstette, K. M. Hermann, M. Suleyman, P. Blunsom, arXiv 1506.02516 (2015), section 4.
//!
//! A source of symbols is read, then a target is written: `SOS source ||| target EOS`. The target is given as input, a step late, as it is
//! in training; what is written greedily is the same up to the first error.

use super::grammar::{Grammar, Item, Pair, Rule};
use super::{SequenceBatch, within};
use crate::sampling::Draws;

/// What becomes of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transduction {
    /// The same symbols.
    Copy,
    /// The symbols in reverse order.
    Reversal,
    /// Every two symbols in reverse order; sources are of even length.
    BigramFlipping,
    /// Sentences of subject, verb, object with relative clauses; verbs move to the end.
    SvoToSov,
    /// Articles without gender become articles with the gender of the noun after them.
    GenderConjugation,
}

/// Symbols of the tasks without a grammar, on each side.
const SYMBOLS: usize = 128;
/// Words of a class of subject, object and verb.
const SENTENCE_WORDS: usize = 33;
/// Words of a class of nouns of a gender and of verbs.
const GENDER_WORDS: usize = 25;

impl Transduction {
    /// All of them, with their names in recipes.
    pub const ALL: [(&'static str, Self); 5] = [
        ("symbol-copy", Self::Copy),
        ("reversal", Self::Reversal),
        ("bigram-flipping", Self::BigramFlipping),
        ("svo-to-sov", Self::SvoToSov),
        ("gender-conjugation", Self::GenderConjugation),
    ];

    /// Symbols of the source and of the target.
    pub fn vocabulary(self) -> (usize, usize) {
        match self {
            Self::Copy | Self::Reversal | Self::BigramFlipping => (SYMBOLS, SYMBOLS),
            Self::SvoToSov => (3 * SENTENCE_WORDS + 1, 3 * SENTENCE_WORDS + 1),
            // Articles and conjunctions, nouns of three genders, verbs.
            Self::GenderConjugation => (4 + 4 * GENDER_WORDS, 7 + 4 * GENDER_WORDS),
        }
    }

    /// Widths of inputs (source, target, `SOS`, `|||`) and outputs (target, `EOS`).
    pub(super) fn sizes(self) -> (usize, usize) {
        let (source, target) = self.vocabulary();
        (source + target + 2, target + 1)
    }

    /// Whether sources of a length in this range exist.
    pub(super) fn fits(self, (least, most): (usize, usize)) -> bool {
        least > 0
            && least <= most
            && most <= MAX_LENGTH
            && match self.grammar(most) {
                Some(grammar) => grammar.reaches((least, most)),
                None => self != Self::BigramFlipping || least < most || least.is_multiple_of(2),
            }
    }

    /// Sequences of one length in the range.
    pub(super) fn batch(
        self,
        b: usize,
        (least, most): (usize, usize),
        draws: &mut Draws,
    ) -> SequenceBatch {
        let grammar = self.grammar(most);
        let length = match (&grammar, self) {
            (Some(grammar), _) => grammar.length((least, most), draws),
            (None, Self::BigramFlipping) => 2 * within(draws, (least.div_ceil(2), most / 2)),
            _ => within(draws, (least, most)),
        };
        let pairs: Vec<Pair> = (0..b)
            .map(|_| match &grammar {
                Some(grammar) => grammar.derive(length, draws),
                None => self.symbols(length, draws),
            })
            .collect();
        self.lay_out(&pairs)
    }

    fn symbols(self, length: usize, draws: &mut Draws) -> Pair {
        let source: Vec<usize> = (0..length).map(|_| draws.below(SYMBOLS)).collect();
        let mut target = source.clone();
        match self {
            Self::Reversal => target.reverse(),
            Self::BigramFlipping => target.chunks_exact_mut(2).for_each(<[usize]>::reverse),
            _ => {}
        }
        (source, target)
    }

    /// Inputs and targets of pairs of one length.
    fn lay_out(self, pairs: &[Pair]) -> SequenceBatch {
        let (sources, targets) = self.vocabulary();
        let (start, separator) = (sources + targets, sources + targets + 1);
        let (source, target) = pairs.first().map_or((0, 0), |(s, t)| (s.len(), t.len()));
        let mut batch = SequenceBatch::new(pairs.len(), source + target + 2, self.sizes());
        batch.symbols = true;
        for (row, (from, to)) in pairs.iter().enumerate() {
            let read = std::iter::once(start).chain(from.iter().copied());
            let written =
                std::iter::once(separator).chain(to.iter().map(|symbol| sources + symbol));
            for (step, symbol) in read.chain(written).enumerate() {
                batch.input(row, step)[symbol] = 1.;
            }
            let end = targets;
            for (i, symbol) in to.iter().copied().chain([end]).enumerate() {
                batch.target(row, source + 1 + i)[symbol] = 1.;
            }
        }
        batch.score(source + 1..source + target + 2);
        batch
    }

    fn grammar(self, longest: usize) -> Option<Grammar> {
        match self {
            Self::SvoToSov => Some(Grammar::new(svo_to_sov(), longest)),
            Self::GenderConjugation => Some(Grammar::new(genders(), longest)),
            _ => None,
        }
    }
}

/// The longest source.
const MAX_LENGTH: usize = 4096;

/// Nonterminals: sentence, subject, object, verb.
fn svo_to_sov() -> Vec<Vec<Rule>> {
    let nonterminal = Item::Nonterminal;
    let words = |class: usize| {
        let start = class * SENTENCE_WORDS;
        Item::Words((start..start + SENTENCE_WORDS).map(|word| (word, word)).collect())
    };
    let (subject, object, verb) = (1, 2, 3);
    let pronoun = || Item::Words(vec![(3 * SENTENCE_WORDS, 3 * SENTENCE_WORDS)]);
    let clause = || vec![nonterminal(subject), pronoun(), nonterminal(subject), nonterminal(verb)];
    let phrase = |own: usize, class: usize| {
        vec![
            Rule::new(0.2, vec![nonterminal(own), nonterminal(own)]),
            Rule::new(0.2, clause()),
            Rule::new(0.6, vec![words(class)]),
        ]
    };
    let sentence = vec![nonterminal(subject), nonterminal(verb), nonterminal(object)];
    vec![
        vec![Rule::new(1., sentence).reordered(&[0, 2, 1])],
        phrase(subject, 0),
        phrase(object, 1),
        vec![Rule::new(1., vec![words(2)])],
    ]
}

/// Nonterminals: clause, continuation, noun phrase, verb.
fn genders() -> Vec<Vec<Rule>> {
    // Source: the, a, or, and. Target: der, die, das, ein, eine, oder, und. Then nouns by gender, then verbs.
    let (or, and) = ((2, 5), (3, 6));
    let (nouns, verbs) = ((4, 7), (4 + 3 * GENDER_WORDS, 7 + 3 * GENDER_WORDS));
    let articles = [[(0, 0), (1, 3)], [(0, 1), (1, 4)], [(0, 2), (1, 3)]];
    let mut phrases = vec![];
    for (gender, articles) in articles.iter().enumerate() {
        for &article in articles {
            for i in 0..GENDER_WORDS {
                let noun = gender * GENDER_WORDS + i;
                phrases.push([article, (nouns.0 + noun, nouns.1 + noun)]);
            }
        }
    }
    let verbs = (0..GENDER_WORDS).map(|i| (verbs.0 + i, verbs.1 + i)).collect();
    let (clause, continuation, noun_phrase, verb) =
        (Item::Nonterminal(0), Item::Nonterminal(1), Item::Nonterminal(2), Item::Nonterminal(3));
    let word = |pair| Item::Words(vec![pair]);
    vec![
        vec![
            Rule::new(0.25, vec![clause.clone(), word(or), clause.clone()]),
            Rule::new(0.25, vec![noun_phrase.clone(), word(and), noun_phrase]),
            Rule::new(0.5, vec![clause.clone(), continuation]),
        ],
        vec![Rule::new(0.75, vec![verb.clone(), clause]), Rule::new(0.25, vec![verb])],
        vec![Rule::new(1., vec![Item::Phrase(phrases)])],
        vec![Rule::new(1., vec![Item::Words(verbs)])],
    ]
}
