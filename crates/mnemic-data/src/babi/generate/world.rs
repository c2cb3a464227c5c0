//! The simulated world of tasks 1–3 and 5–8: people who walk about and carry things.
//!
//! An event is found by rejection: an action and its arguments are drawn until they are possible.
//! A move is impossible to where the person is already, picking up where nothing lies, dropping for
//! a person who holds nothing. So one walk in six fails but most attempts to pick up or drop,
//! which gives the shares of the release (in task 3 moves .64, pick-ups .19, drops .17).
//! Handing over works differently: if anybody holds something and has company, the first possible
//! gift happens, with objects and then recipients in the order of their lists. This is why apples
//! are given most often in the release.

use super::draft::{DROPS, Draft, GETS, GIVES, MOVES, Script, recent};
use super::draws::Draws;
use super::entities::Cast;
use super::{carrying, facts};

/// What can be drawn.
#[derive(Debug, Clone, Copy)]
enum Action {
    Go,
    Get,
    Drop,
    Give,
}

/// What somebody did. The numbers are indices into the lists of [`Cast`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Went to a place.
    Go(usize),
    /// Picked up an object.
    Get(usize),
    /// Put down an object.
    Drop(usize),
    /// Gave an object to a person.
    Give { object: usize, to: usize },
}

impl Deed {
    /// The object picked up, put down or given.
    pub(super) fn object(self) -> Option<usize> {
        match self {
            Self::Go(_) => None,
            Self::Get(object) | Self::Drop(object) | Self::Give { object, .. } => Some(object),
        }
    }
}

/// An event as the text tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// The id of the statement.
    pub(super) line: u32,
    pub(super) actor: usize,
    pub(super) deed: Deed,
}

/// The true state, which the text need not give away: at first nobody knows who and what is where.
struct World {
    place_of: Vec<usize>,
    /// The holder of each object.
    holder: Vec<Option<usize>>,
    /// Where each object lies that nobody holds.
    lies_at: Vec<usize>,
}

impl World {
    fn new(cast: &Cast, draws: &mut Draws) -> Self {
        let places = cast.places.len();
        Self {
            place_of: cast.people.iter().map(|_| draws.below(places)).collect(),
            holder: vec![None; cast.objects.len()],
            lies_at: cast.objects.iter().map(|_| draws.below(places)).collect(),
        }
    }

    /// Draws a possible event and lets it happen.
    fn act(&mut self, actions: &[Action], places: usize, draws: &mut Draws) -> (usize, Deed) {
        loop {
            let action = draws.pick(actions);
            let actor = draws.below(self.place_of.len());
            let found = match action {
                Action::Go => Some(draws.below(places))
                    .filter(|&place| place != self.place_of[actor])
                    .map(|place| (actor, Deed::Go(place))),
                Action::Get => {
                    draws.choose(self.in_reach(actor)).map(|object| (actor, Deed::Get(object)))
                }
                Action::Drop => {
                    draws.choose(self.held_by(actor)).map(|object| (actor, Deed::Drop(object)))
                }
                Action::Give => self.first_gift(),
            };
            if let Some((actor, deed)) = found {
                self.apply(actor, deed);
                return (actor, deed);
            }
        }
    }

    fn apply(&mut self, actor: usize, deed: Deed) {
        match deed {
            Deed::Go(place) => self.place_of[actor] = place,
            Deed::Get(object) => self.holder[object] = Some(actor),
            Deed::Drop(object) => {
                self.holder[object] = None;
                self.lies_at[object] = self.place_of[actor];
            }
            Deed::Give { object, to } => self.holder[object] = Some(to),
        }
    }

    fn in_reach(&self, actor: usize) -> Vec<usize> {
        let place = self.place_of[actor];
        (0..self.holder.len())
            .filter(|&object| self.holder[object].is_none() && self.lies_at[object] == place)
            .collect()
    }

    fn held_by(&self, actor: usize) -> Vec<usize> {
        (0..self.holder.len()).filter(|&object| self.holder[object] == Some(actor)).collect()
    }

    /// The first possible gift.
    fn first_gift(&self) -> Option<(usize, Deed)> {
        self.holder.iter().enumerate().find_map(|(object, holder)| {
            let giver = (*holder)?;
            let place = self.place_of[giver];
            let to = (0..self.place_of.len()).find(|&p| p != giver && self.place_of[p] == place)?;
            Some((giver, Deed::Give { object, to }))
        })
    }
}

/// A story of tasks 1–3 and 5–8.
pub(super) struct WorldScript<'a> {
    pub(super) cast: &'a Cast,
    /// Everything told so far.
    pub(super) events: Vec<Event>,
    task: u8,
    world: World,
}

impl<'a> WorldScript<'a> {
    pub(super) fn new(task: u8, cast: &'a Cast, draws: &mut Draws) -> Self {
        Self { cast, events: Vec::new(), task, world: World::new(cast, draws) }
    }

    /// The events of the last statements, which a question may be about.
    pub(super) fn recent(&self) -> &[Event] {
        recent(&self.events)
    }

    /// The index of a person's last move among the first `end` events.
    pub(super) fn last_move(&self, actor: usize, end: usize) -> Option<usize> {
        self.events[..end].iter().rposition(|e| e.actor == actor && matches!(e.deed, Deed::Go(_)))
    }

    /// The index of the last event in which an object changed hands.
    pub(super) fn last_touch(&self, object: usize) -> Option<usize> {
        self.events.iter().rposition(|e| e.deed.object() == Some(object))
    }

    /// The objects that a person holds.
    pub(super) fn held_by(&self, actor: usize) -> Vec<usize> {
        self.world.held_by(actor)
    }

    pub(super) fn person(&self, actor: usize) -> &str {
        &self.cast.people[actor].name
    }

    fn narrate(&self, actor: usize, deed: Deed, draws: &mut Draws) -> String {
        let name = self.person(actor);
        let object = deed.object().map_or("", |object| self.cast.objects[object].as_str());
        match deed {
            Deed::Go(place) => {
                format!("{name} {} the {}.", draws.pick(&MOVES), self.cast.places[place])
            }
            Deed::Get(_) => {
                let there = if self.task != 3 || draws.one_in(5) { " there" } else { "" };
                format!("{name} {} the {object}{there}.", draws.pick(&GETS))
            }
            Deed::Drop(_) => {
                let there = if draws.one_in(5) { " there" } else { "" };
                format!("{name} {} the {object}{there}.", draws.pick(&DROPS))
            }
            Deed::Give { to, .. } => {
                format!("{name} {} the {object} to {}.", draws.pick(&GIVES), self.person(to))
            }
        }
    }
}

impl Script for WorldScript<'_> {
    fn advance(&mut self, draws: &mut Draws, draft: &mut Draft) -> bool {
        use Action::{Drop, Get, Give, Go};
        let actions: &[Action] = match self.task {
            1 => &[Go],
            5 | 7 => &[Go, Get, Drop, Give],
            _ => &[Go, Get, Drop],
        };
        let (actor, deed) = self.world.act(actions, self.cast.places.len(), draws);
        let line = draft.say(self.narrate(actor, deed, draws));
        self.events.push(Event { line, actor, deed });
        true
    }

    fn ask(&mut self, draws: &mut Draws, draft: &mut Draft) {
        match self.task {
            1 => facts::where_is_person(self, draws, draft),
            2 => facts::where_is_object(self, draws, draft),
            3 => facts::where_was_object(self, draws, draft),
            5 => carrying::who_gave_what(self, draws, draft),
            6 => facts::is_person_in(self, draws, draft),
            7 => carrying::how_many(self, draws, draft),
            _ => carrying::what_is_carried(self, draws, draft),
        }
    }
}
