//! Questions about places: tasks 1, 2, 3 and 6.

use super::draft::Draft;
use super::draws::Draws;
use super::world::{Deed, WorldScript};

/// The index of the last move of somebody who moved recently.
fn moved_recently(script: &WorldScript<'_>, draws: &mut Draws) -> Option<usize> {
    let moves = script.recent().iter().filter(|e| matches!(e.deed, Deed::Go(_)));
    let actor = draws.choose(moves)?.actor;
    script.last_move(actor, script.events.len())
}

/// Task 1: "Where is X?", answered by X's last move.
pub(super) fn where_is_person(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let Some(index) = moved_recently(script, draws) else { return };
    let event = script.events[index];
    let Deed::Go(place) = event.deed else { return };
    let text = format!("Where is {}?", script.person(event.actor));
    draft.ask(text, &script.cast.places[place], vec![event.line]);
}

/// Task 6: "Is X in the L?", the truth half of the time, otherwise any other place.
pub(super) fn is_person_in(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let Some(index) = moved_recently(script, draws) else { return };
    let event = script.events[index];
    let Deed::Go(place) = event.deed else { return };
    let places = &script.cast.places;
    let truth = draws.coin();
    let asked = if truth { place } else { draws.other(places.len(), place) };
    let text = format!("Is {} in the {}?", script.person(event.actor), places[asked]);
    draft.ask_whether(text, truth, vec![event.line]);
}

/// Task 2: "Where is the O?" about an object picked up or put down recently.
///
/// If it lies somewhere, the text must say where the person was who put it down. If it is held, the
/// holder must have moved since: there is no question about an object just picked up.
pub(super) fn where_is_object(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let objects = script.recent().iter().filter_map(|e| e.deed.object());
    let known: Vec<_> = objects.filter_map(|object| locate(script, object)).collect();
    let Some((object, touch, step)) = draws.choose(known) else { return };
    let Deed::Go(place) = script.events[step].deed else { return };
    let text = format!("Where is the {}?", script.cast.objects[object]);
    let supports = vec![script.events[touch].line, script.events[step].line];
    draft.ask(text, &script.cast.places[place], supports);
}

/// The object, the event that says who has or had it, and that person's move that tells the place.
fn locate(script: &WorldScript<'_>, object: usize) -> Option<(usize, usize, usize)> {
    let touch = script.last_touch(object)?;
    let event = script.events[touch];
    let step = match event.deed {
        Deed::Get(_) => {
            script.last_move(event.actor, script.events.len()).filter(|&step| step > touch)
        }
        _ => script.last_move(event.actor, touch),
    };
    Some((object, touch, step?))
}

/// Task 3: "Where was the O before the L?" about an object picked up or put down recently.
///
/// The person who has it (or put it down) must have carried it to at least two places since picking
/// it up. L is the place of one of these moves, each equally likely, unless it was only ever the
/// first. The last visit to L counts.
pub(super) fn where_was_object(script: &WorldScript<'_>, draws: &mut Draws, draft: &mut Draft) {
    let objects = script.recent().iter().filter_map(|e| e.deed.object());
    let carried = objects.map(|object| (object, journey(script, object)));
    let Some((object, steps)) = draws.choose(carried.filter(|(_, steps)| steps.len() >= 2)) else {
        return;
    };
    let place = |k: usize| match script.events[steps[k]].deed {
        Deed::Go(place) => place,
        _ => 0,
    };
    let last_visits = (0..steps.len()).filter_map(|k| {
        let last = (0..steps.len()).rev().find(|&other| place(other) == place(k))?;
        (last > 0).then_some(last)
    });
    let Some(visit) = draws.choose(last_visits) else { return };
    let Some(touch) = script.last_touch(object) else { return };
    let names = &script.cast.places;
    let text = format!(
        "Where was the {} before the {}?",
        script.cast.objects[object],
        names[place(visit)]
    );
    let supports = [touch, steps[visit], steps[visit - 1]].map(|i| script.events[i].line);
    draft.ask(text, &names[place(visit - 1)], supports.to_vec());
}

/// The moves that the last holder of an object made with it.
fn journey(script: &WorldScript<'_>, object: usize) -> Vec<usize> {
    let Some(touch) = script.last_touch(object) else { return Vec::new() };
    let event = script.events[touch];
    let get = script.events.iter().rposition(|e| e.deed == Deed::Get(object)).unwrap_or(0);
    let end = if matches!(event.deed, Deed::Get(_)) { script.events.len() } else { touch };
    (get..end)
        .filter(|&i| {
            let e = script.events[i];
            e.actor == event.actor && matches!(e.deed, Deed::Go(_))
        })
        .collect()
}
