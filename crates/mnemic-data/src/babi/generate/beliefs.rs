//! Statements that tell less than a place: tasks 9 (negation) and 10 (indefinite knowledge).
//!
//! Each event is a real move. Half of them are told as moves, a quarter as "X is in the L.". In
//! task 9 the rest name the place that X left ("X is not in the L.", "X is no longer in the L."). In
//! task 10 they name the true place and another ("X is either in the L or the M."), in any order;
//! the other place is drawn from all, so that once in six times it is the same.

use super::draft::{Draft, MOVES, Script, recent};
use super::draws::Draws;
use super::entities::Cast;

/// What the text says about a person.
#[derive(Debug, Clone, Copy)]
enum Claim {
    At(usize),
    NotAt(usize),
    Either(usize, usize),
}

struct Event {
    line: u32,
    actor: usize,
    claim: Claim,
}

/// A story of task 9 or 10.
pub(super) struct Beliefs<'a> {
    cast: &'a Cast,
    place_of: Vec<usize>,
    events: Vec<Event>,
    indefinite: bool,
}

impl<'a> Beliefs<'a> {
    /// Task 9.
    pub(super) fn negation(cast: &'a Cast, draws: &mut Draws) -> Self {
        let place_of = cast.people.iter().map(|_| draws.below(cast.places.len())).collect();
        Self { cast, place_of, events: Vec::new(), indefinite: false }
    }

    /// Task 10.
    pub(super) fn indefinite(cast: &'a Cast, draws: &mut Draws) -> Self {
        Self { indefinite: true, ..Self::negation(cast, draws) }
    }

    /// Draws how to tell of a move.
    fn word(&self, actor: usize, from: usize, to: usize, draws: &mut Draws) -> (String, Claim) {
        let name = &self.cast.people[actor].name;
        let places = &self.cast.places;
        if draws.coin() {
            return (format!("{name} {} the {}.", draws.pick(&MOVES), places[to]), Claim::At(to));
        }
        if draws.coin() {
            return (format!("{name} is in the {}.", places[to]), Claim::At(to));
        }
        if self.indefinite {
            let decoy = draws.below(places.len());
            let (a, b) = if draws.coin() { (to, decoy) } else { (decoy, to) };
            let text = format!("{name} is either in the {} or the {}.", places[a], places[b]);
            return (text, Claim::Either(a, b));
        }
        let not = if draws.coin() { "not" } else { "no longer" };
        (format!("{name} is {not} in the {}.", places[from]), Claim::NotAt(from))
    }
}

impl Script for Beliefs<'_> {
    fn advance(&mut self, draws: &mut Draws, draft: &mut Draft) -> bool {
        let actor = draws.below(self.place_of.len());
        let from = self.place_of[actor];
        let to = draws.other(self.cast.places.len(), from);
        self.place_of[actor] = to;
        let (text, claim) = self.word(actor, from, to, draws);
        self.events.push(Event { line: draft.say(text), actor, claim });
        true
    }

    /// "Is X in the L?" on X's last statement. L is the true place half of the time, otherwise any
    /// other; after a negative statement, which hides the true place, it is the place left.
    fn ask(&mut self, draws: &mut Draws, draft: &mut Draft) {
        let told = recent(&self.events).iter().map(|e| e.actor);
        let Some(actor) = draws.choose(told) else { return };
        let Some(event) = self.events.iter().rfind(|e| e.actor == actor) else { return };
        let truth = self.place_of[actor];
        let asked = match event.claim {
            Claim::NotAt(place) => place,
            _ if draws.coin() => truth,
            _ => draws.other(self.cast.places.len(), truth),
        };
        let answer = match event.claim {
            Claim::At(place) if asked == place => "yes",
            Claim::Either(a, b) if asked == a || asked == b => "maybe",
            _ => "no",
        };
        let (name, place) = (&self.cast.people[actor].name, &self.cast.places[asked]);
        draft.ask(format!("Is {name} in the {place}?"), answer, vec![event.line]);
    }
}
