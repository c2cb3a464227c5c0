//! Questions about what is carried and given: tasks 5, 7 and 8.

use super::draft::Draft;
use super::draws::Draws;
use super::world::{Deed, Event, WorldScript};

/// Number words; a person can hold ten objects at most.
const NUMBERS: [&str; 11] =
    ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// Task 5: one of five questions about a recent gift: the last one of an object given recently.
pub(super) fn who_gave_what(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let gifts = script.recent().iter().filter(|e| matches!(e.deed, Deed::Give { .. }));
    let Some(object) = draws.choose(gifts).and_then(|e| e.deed.object()) else { return };
    let gives = |e: &Event| matches!(e.deed, Deed::Give { object: o, .. } if o == object);
    let Some(index) = script.events.iter().rposition(gives) else { return };
    let event = script.events[index];
    let Deed::Give { to, .. } = event.deed else { return };
    // A later gift of another object from X to Y makes "What did X give to Y?" ambiguous. The
    // release has such questions (0.2 % of the task); we ask something else.
    let repeated = script.events[index + 1..]
        .iter()
        .any(|e| e.actor == event.actor && matches!(e.deed, Deed::Give { to: t, .. } if t == to));
    let (x, y) = (script.person(event.actor), script.person(to));
    let o = &script.cast.objects[object];
    let kind = if repeated { 2 + draws.below(4) } else { draws.below(6) };
    let (text, answer) = match kind {
        0 | 1 => (format!("What did {x} give to {y}?"), o.as_str()),
        2 => (format!("Who gave the {o}?"), x),
        3 => (format!("Who gave the {o} to {y}?"), x),
        4 => (format!("Who received the {o}?"), y),
        _ => (format!("Who did {x} give the {o} to?"), y),
    };
    draft.ask(text, answer, vec![event.line]);
}

/// Somebody who picked up, put down or gave something recently.
fn handled_recently(script: &WorldScript<'_>, draws: &mut Draws) -> Option<usize> {
    let events = script.recent().iter().filter(|e| e.deed.object().is_some());
    draws.choose(events).map(|e| e.actor)
}

/// Task 7: "How many objects is X carrying?", supported by all gains and losses of X.
pub(super) fn how_many(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let Some(actor) = handled_recently(script, draws) else { return };
    let takes_part = |e: &&Event| match e.deed {
        Deed::Go(_) => false,
        Deed::Give { to, .. } => e.actor == actor || to == actor,
        _ => e.actor == actor,
    };
    let supports = script.events.iter().filter(takes_part).map(|e| e.line).collect();
    let number = NUMBERS[script.held_by(actor).len()];
    draft.ask(format!("How many objects is {} carrying?", script.person(actor)), number, supports);
}

/// Task 8: "What is X carrying?". The list, and the supports, are in the order in which X first
/// picked up each object; the supports of one object stand together.
pub(super) fn what_is_carried(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let Some(actor) = handled_recently(script, draws) else { return };
    let own: Vec<&Event> = script.events.iter().filter(|e| e.actor == actor).collect();
    let mut order: Vec<usize> = Vec::new();
    for object in own.iter().filter_map(|e| e.deed.object()) {
        if !order.contains(&object) {
            order.push(object);
        }
    }
    let of = |object: &usize| {
        let object = Some(*object);
        own.iter().filter(move |e| e.deed.object() == object).map(|e| e.line)
    };
    let supports = order.iter().flat_map(of).collect();
    let held = script.held_by(actor);
    let names: Vec<&str> = order
        .iter()
        .filter(|object| held.contains(object))
        .map(|&object| script.cast.objects[object].as_str())
        .collect();
    let answer = if names.is_empty() { "nothing".into() } else { names.join(",") };
    draft.ask(format!("What is {} carrying?", script.person(actor)), answer, supports);
}
