//! Synchronous grammars: a rule writes to a source and to a target at once, perhaps in another order (Wu 1997, inversion
//! transduction grammars).

use crate::sampling::Draws;

/// What stands on the right of a rule.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A nonterminal by its number. One that a rule gives alone must come after the rule's own.
    Nonterminal(usize),
    /// One of these pairs of a source and a target symbol, all equally likely.
    Words(Vec<(usize, usize)>),
    /// Two symbols beside each other that are chosen together: pairs of a source and a target symbol.
    Phrase(Vec<[(usize, usize); 2]>),
}

/// A rule of a nonterminal.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) probability: f64,
    /// As they stand in the source.
    pub(super) items: Vec<Item>,
    /// The order in the target.
    pub(super) target: Vec<usize>,
}

impl Rule {
    /// A rule whose target is in the order of its source.
    pub(super) fn new(probability: f64, items: Vec<Item>) -> Self {
        Self { probability, target: (0..items.len()).collect(), items }
    }

    /// The same with the target in this order.
    pub(super) fn reordered(self, target: &[usize]) -> Self {
        Self { target: target.to_vec(), ..self }
    }
}

/// A source and a target.
pub(super) type Pair = (Vec<usize>, Vec<usize>);

/// A grammar, and with what probability each nonterminal gives each length up to some. Source and target are equally long.
pub(super) struct Grammar {
    /// Of each nonterminal; the first is where a derivation starts.
    rules: Vec<Vec<Rule>>,
    /// Of each nonterminal and length.
    inside: Vec<Vec<f64>>,
    /// Of each nonterminal, rule, item and length: the items from this one on.
    suffix: Vec<Vec<Vec<Vec<f64>>>>,
}

impl Grammar {
    /// The grammar of these rules, for sources of at most `longest` symbols.
    pub(super) fn new(rules: Vec<Vec<Rule>>, longest: usize) -> Self {
        let table = |rule: &Rule| vec![vec![0.; longest + 1]; rule.items.len() + 1];
        let suffix = rules.iter().map(|of| of.iter().map(table).collect()).collect();
        let inside = vec![vec![0.; longest + 1]; rules.len()];
        let mut grammar = Self { rules, inside, suffix };
        for length in 0..=longest {
            // A rule that gives one nonterminal alone needs that one first. What the last items of a rule give by themselves is known only
            // when all nonterminals of this length are: hence twice.
            for of in (0..grammar.rules.len()).rev().chain(0..grammar.rules.len()) {
                grammar.fill(of, length);
            }
        }
        grammar
    }

    fn fill(&mut self, of: usize, length: usize) {
        let mut sum = 0.;
        for (r, rule) in self.rules[of].iter().enumerate() {
            for k in (0..=rule.items.len()).rev() {
                let value = match rule.items.get(k) {
                    None => f64::from(u8::from(length == 0)),
                    Some(item) => {
                        let rest = &self.suffix[of][r][k + 1];
                        (1..=length).map(|m| self.gives(item, m) * rest[length - m]).sum()
                    }
                };
                self.suffix[of][r][k][length] = value;
            }
            sum += rule.probability * self.suffix[of][r][0][length];
        }
        self.inside[of][length] = sum;
    }

    /// The probability that an item gives this many symbols.
    fn gives(&self, item: &Item, length: usize) -> f64 {
        match item {
            Item::Nonterminal(number) => self.inside[*number][length],
            Item::Words(_) => f64::from(u8::from(length == 1)),
            Item::Phrase(_) => f64::from(u8::from(length == 2)),
        }
    }

    /// A length from `least` to `most` with the grammar's probabilities.
    pub(super) fn length(&self, (least, most): (usize, usize), draws: &mut Draws) -> usize {
        let weights: Vec<f64> = self.inside[0][least..=most].to_vec();
        least + pick(&weights, draws)
    }

    /// Whether any derivation has a length from `least` to `most`.
    pub(super) fn reaches(&self, (least, most): (usize, usize)) -> bool {
        self.inside[0].get(least..=most).is_some_and(|part| part.iter().any(|&p| p > 0.))
    }

    /// A derivation of exactly this length, with the grammar's probabilities.
    pub(super) fn derive(&self, length: usize, draws: &mut Draws) -> Pair {
        self.expand(0, length, draws)
    }

    fn expand(&self, of: usize, mut length: usize, draws: &mut Draws) -> Pair {
        let rules = &self.rules[of];
        let weights: Vec<f64> = (rules.iter().zip(&self.suffix[of]))
            .map(|(rule, suffix)| rule.probability * suffix[0][length])
            .collect();
        let r = pick(&weights, draws);
        let mut parts = Vec::with_capacity(rules[r].items.len());
        for (k, item) in rules[r].items.iter().enumerate() {
            let rest = &self.suffix[of][r][k + 1];
            let weights: Vec<f64> =
                (1..=length).map(|m| self.gives(item, m) * rest[length - m]).collect();
            let own = 1 + pick(&weights, draws);
            parts.push(match item {
                Item::Nonterminal(number) => self.expand(*number, own, draws),
                Item::Words(words) => {
                    let (source, target) = words[draws.below(words.len())];
                    (vec![source], vec![target])
                }
                Item::Phrase(phrases) => {
                    phrases[draws.below(phrases.len())].iter().copied().unzip()
                }
            });
            length -= own;
        }
        let source = parts.iter().flat_map(|(source, _)| source).copied().collect();
        let target = rules[r].target.iter().flat_map(|&k| &parts[k].1).copied().collect();
        (source, target)
    }
}

/// A place, with probabilities in the proportion of the weights.
fn pick(weights: &[f64], draws: &mut Draws) -> usize {
    let mut left = draws.unit() * weights.iter().sum::<f64>();
    for (i, &weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0. {
            return i;
        }
    }
    // Rounding may leave a little over: it goes to the last that is possible.
    weights.iter().rposition(|&weight| weight > 0.).unwrap_or(0)
}
