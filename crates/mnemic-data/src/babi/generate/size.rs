//! Task 18: what is bigger than what, and what fits.

use super::draft::{Draft, QUESTIONS, recent};
use super::draws::Draws;
use super::entities::Cast;

/// Smaller than every container, in this order.
const SMALL: [&str; 2] = ["box of chocolates", "chocolate"];
/// Draws before a question is given up. Stories of the release show that it happens: after ten
/// sentences of which few belong together, about one attempt in eighty fails.
const TRIES: usize = 200;

/// `bigger` is bigger than `smaller`, as line `line` says.
#[derive(Debug, Clone, Copy)]
struct Fact {
    bigger: usize,
    smaller: usize,
    line: u32,
}

impl Fact {
    fn same(&self, other: &Self) -> bool {
        (self.bigger, self.smaller) == (other.bigger, other.smaller)
    }
}

/// Task 18: five sentences, five questions that take two of them each. If no question is found, five
/// more sentences follow, and then five questions.
pub(super) fn sizes(cast: &Cast, block: usize, draws: &mut Draws, draft: &mut Draft) {
    // Things from the biggest to the smallest.
    let order = draws.sample(cast.containers.len(), cast.containers.len());
    let things: Vec<&str> =
        order.iter().map(|&i| cast.containers[i].as_str()).chain(SMALL).collect();
    let mut facts: Vec<Fact> = Vec::new();
    loop {
        for _ in 0..block {
            facts.push(compare(&things, draws, draft));
        }
        if (0..QUESTIONS).all(|_| ask(&things, recent(&facts), &facts, draws, draft)) {
            return;
        }
    }
}

/// Compares any two things.
fn compare(things: &[&str], draws: &mut Draws, draft: &mut Draft) -> Fact {
    let pair = draws.sample(things.len(), 2);
    let (bigger, smaller) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
    let (big, small) = (things[bigger], things[smaller]);
    let line = draft.say(if draws.coin() {
        format!("The {big} is bigger than the {small}.")
    } else {
        format!("The {small} fits inside the {big}.")
    });
    Fact { bigger, smaller, line }
}

/// Asks a question from one of the recent facts and another that continues it downwards (answer yes)
/// or upwards (answer no). False if none was found.
///
/// A fact that was told twice is not drawn more often, but one that several others continue is. Of
/// these the one told first is used.
fn ask(
    things: &[&str],
    recent: &[Fact],
    facts: &[Fact],
    draws: &mut Draws,
    draft: &mut Draft,
) -> bool {
    for _ in 0..TRIES {
        let first = draws.pick(recent);
        let copies = recent.iter().filter(|f| f.same(&first)).count();
        let yes = draws.coin();
        let continues = |f: &&Fact| {
            if yes { f.bigger == first.smaller } else { f.smaller == first.bigger }
        };
        if !continues(&&draws.pick(facts)) || !draws.one_in(copies) {
            continue;
        }
        let Some(second) = facts.iter().find(continues) else { continue };
        let supports = vec![first.line, second.line];
        // Subject and object as if the question were about "bigger".
        let (a, b) = if yes {
            (things[first.bigger], things[second.smaller])
        } else {
            (things[first.smaller], things[second.bigger])
        };
        let text = if draws.coin() {
            format!("Is the {a} bigger than the {b}?")
        } else {
            format!("Does the {b} fit in the {a}?")
        };
        draft.ask_whether(text, yes, supports);
        return true;
    }
    false
}
