//! Task 14: moves at four times of day, told out of order.
//!
//! People make their first, second, … move yesterday, this morning, this afternoon and this
//! evening. Moves happen in this order for each person, but those since the last question are told
//! rearranged by a cyclic permutation: two moves always change places.

use super::draft::{Draft, MOVES, Script, recent};
use super::draws::Draws;
use super::entities::Cast;

const TIMES: [&str; 4] = ["yesterday", "this morning", "this afternoon", "this evening"];

struct Visit {
    person: usize,
    place: usize,
    time: usize,
    /// The line id, once told.
    line: u32,
}

/// A story of task 14.
pub(super) struct Diary<'a> {
    cast: &'a Cast,
    /// In the order in which they happened.
    visits: Vec<Visit>,
    /// The first of these are told.
    told: usize,
}

impl<'a> Diary<'a> {
    pub(super) fn new(cast: &'a Cast) -> Self {
        Self { cast, visits: Vec::new(), told: 0 }
    }

    /// The visits of a person in order of time.
    fn of(&self, person: usize) -> impl DoubleEndedIterator<Item = &Visit> {
        self.visits.iter().filter(move |v| v.person == person)
    }

    /// Tells all moves that have not been told.
    fn catch_up(&mut self, draws: &mut Draws, draft: &mut Draft) {
        let mut order: Vec<usize> = (self.told..self.visits.len()).collect();
        draws.rotate(&mut order);
        for i in order {
            let visit = &mut self.visits[i];
            let name = &self.cast.people[visit.person].name;
            let (time, verb) = (TIMES[visit.time], draws.pick(&MOVES));
            let place = &self.cast.places[visit.place];
            let text = if draws.coin() {
                format!("{} {name} {verb} the {place}.", capitalised(time))
            } else {
                format!("{name} {verb} the {place} {time}.")
            };
            visit.line = draft.say(text);
        }
        self.told = self.visits.len();
    }
}

impl Script for Diary<'_> {
    /// A move of somebody who has not been out this evening, to another place than the last.
    fn advance(&mut self, draws: &mut Draws, _: &mut Draft) -> bool {
        let people = self.cast.people.len();
        let free = (0..people).filter(|&person| self.of(person).count() < TIMES.len());
        let Some(person) = draws.choose(free) else { return false };
        let places = self.cast.places.len();
        let (time, place) = match self.of(person).next_back() {
            Some(last) => (last.time + 1, draws.other(places, last.place)),
            None => (0, draws.below(places)),
        };
        self.visits.push(Visit { person, place, time, line: 0 });
        true
    }

    /// "Where was X before the L?" about one of the last moves. The last visit to L counts.
    fn ask(&mut self, draws: &mut Draws, draft: &mut Draft) {
        let later = recent(&self.visits).iter().filter(|v| v.time > 0);
        let Some((person, place)) = draws.choose(later).map(|v| (v.person, v.place)) else {
            return;
        };
        self.catch_up(draws, draft);
        let visits: Vec<&Visit> = self.of(person).collect();
        let Some(last) = visits.iter().rposition(|v| v.place == place).filter(|&i| i > 0) else {
            return;
        };
        let (visit, before) = (visits[last], visits[last - 1]);
        let (name, places) = (&self.cast.people[person].name, &self.cast.places);
        let text = format!("Where was {name} before the {}?", places[place]);
        draft.ask(text, &places[before.place], vec![visit.line, before.line]);
    }
}

/// The text with its first letter large.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |c| c.to_uppercase().chain(letters).collect())
}
