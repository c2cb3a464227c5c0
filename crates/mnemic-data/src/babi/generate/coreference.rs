//! Pronouns and pairs of people: tasks 11, 12 and 13.
//!
//! In task 12 two people move together. In tasks 11 (one person) and 13 (two) a second sentence
//! with a pronoun follows each such move. Person and place are drawn until nobody concerned is there
//! already, which favours pairs that are together.

use super::draft::{Draft, MOVES, Script, recent};
use super::draws::Draws;
use super::entities::Cast;

const CONNECTIVES: [&str; 4] = ["After that", "Following that", "Then", "Afterwards"];

/// One move of the people of a group, or a move and its continuation with a pronoun.
struct Event {
    /// One line, or two.
    lines: Vec<u32>,
    people: Vec<usize>,
    place: usize,
}

/// A story of task 11, 12 or 13.
pub(super) struct Groups<'a> {
    cast: &'a Cast,
    /// People of a group.
    size: usize,
    /// Whether a sentence with a pronoun follows.
    pronouns: bool,
    place_of: Vec<usize>,
    events: Vec<Event>,
    /// Who is told of, once per statement and person.
    mentions: Vec<usize>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(task: u8, cast: &'a Cast, draws: &mut Draws) -> Self {
        Self {
            cast,
            size: if task == 11 { 1 } else { 2 },
            pronouns: task != 12,
            place_of: cast.people.iter().map(|_| draws.below(cast.places.len())).collect(),
            events: Vec::new(),
            mentions: Vec::new(),
        }
    }

    /// Draws people and a place where none of them is.
    fn draw(&self, draws: &mut Draws) -> (Vec<usize>, usize) {
        loop {
            let people = draws.sample(self.place_of.len(), self.size);
            let place = draws.below(self.cast.places.len());
            if people.iter().all(|&person| self.place_of[person] != place) {
                return (people, place);
            }
        }
    }

    fn names(&self, people: &[usize]) -> String {
        let names: Vec<&str> =
            people.iter().map(|&person| self.cast.people[person].name.as_str()).collect();
        names.join(" and ")
    }

    fn pronoun(&self, people: &[usize]) -> &'static str {
        match people {
            [person] => self.cast.people[*person].pronoun.word(),
            _ => "they",
        }
    }
}

impl Script for Groups<'_> {
    fn advance(&mut self, draws: &mut Draws, draft: &mut Draft) -> bool {
        let (people, mut place) = self.draw(draws);
        let places = &self.cast.places;
        let subject = self.names(&people);
        let text = format!("{subject} {} the {}.", draws.pick(&MOVES), places[place]);
        let mut lines = vec![draft.say(text)];
        if self.pronouns {
            place = draws.other(places.len(), place);
            let (connective, verb) = (draws.pick(&CONNECTIVES), draws.pick(&MOVES));
            let pronoun = self.pronoun(&people);
            let text = format!("{connective} {pronoun} {verb} the {}.", places[place]);
            lines.push(draft.say(text));
        }
        for &person in &people {
            self.place_of[person] = place;
        }
        self.mentions.extend(lines.iter().flat_map(|_| &people));
        self.events.push(Event { lines, people, place });
        true
    }

    /// "Where is X?" about one of the last mentions; a statement about two people holds two.
    fn ask(&mut self, draws: &mut Draws, draft: &mut Draft) {
        let Some(&person) = draws.choose(recent(&self.mentions)) else { return };
        let Some(last) = self.events.iter().rfind(|e| e.people.contains(&person)) else { return };
        let text = format!("Where is {}?", self.cast.people[person].name);
        draft.ask(text, &self.cast.places[last.place], last.lines.clone());
    }
}
