//! Task 20: why people do what they do.

use super::draft::{Draft, GETS, MOVES};
use super::draws::Draws;
use super::entities::Cast;

/// A need, where people go for it and what they get there.
const NEEDS: [(&str, &str, &str); 4] = [
    ("hungry", "kitchen", "apple"),
    ("thirsty", "kitchen", "milk"),
    ("bored", "garden", "football"),
    ("tired", "bedroom", "pajamas"),
];

/// How far a person has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Needs(u32),
    Arrived(u32),
    Done,
}

/// Task 20: each person says a need, goes to a place and gets a thing, in this order but mixed with
/// the others; everybody who has a next step is equally likely to take it. Each step is asked about
/// at once. Of two people with the same need only one finds the thing, so that stories end after 9
/// to 12 questions.
pub(super) fn motivation(cast: &Cast, draws: &mut Draws, draft: &mut Draft) {
    let mut people: Vec<(usize, Stage)> =
        cast.people.iter().map(|_| (draws.below(NEEDS.len()), Stage::Silent)).collect();
    let mut taken = [false; NEEDS.len()];
    loop {
        let ready = (0..people.len()).filter(|&i| match people[i] {
            (need, Stage::Arrived(_)) => !taken[need],
            (_, stage) => stage != Stage::Done,
        });
        let Some(person) = draws.choose(ready) else { return };
        let (need, stage) = people[person];
        let name = &cast.people[person].name;
        people[person].1 = step(name, need, stage, draws, draft);
        taken[need] |= people[person].1 == Stage::Done;
    }
}

fn step(name: &str, need: usize, stage: Stage, draws: &mut Draws, draft: &mut Draft) -> Stage {
    let (feeling, place, thing) = NEEDS[need];
    let small = name.to_lowercase();
    match stage {
        Stage::Silent => {
            let line = draft.say(format!("{name} is {feeling}."));
            draft.ask(format!("Where will {small} go?"), place, vec![line]);
            Stage::Needs(line)
        }
        Stage::Needs(line) => {
            draft.say(format!("{name} {} the {place}.", draws.pick(&MOVES)));
            draft.ask(format!("Why did {small} go to the {place}?"), feeling, vec![line]);
            Stage::Arrived(line)
        }
        Stage::Arrived(line) => {
            draft.say(format!("{name} {} the {thing} there.", draws.pick(&GETS)));
            draft.ask(format!("Why did {small} get the {thing}?"), feeling, vec![line]);
            Stage::Done
        }
        Stage::Done => Stage::Done,
    }
}
