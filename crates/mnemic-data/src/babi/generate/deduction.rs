//! Task 15 (deduction) and task 16 (induction): animals, whom they fear, their colours.
//!
//! Here too statements are found by rejection: a kind of statement and its subject are drawn until
//! they fit. A name gets a species only after the species has its rule (task 15), a colour only
//! after it has its species (task 16).

use super::draft::Draft;
use super::draws::Draws;
use super::entities::Cast;
use super::time::capitalised;

/// Singular and plural of the species of task 15.
const FEARFUL: [(&str, &str); 4] =
    [("mouse", "mice"), ("sheep", "sheep"), ("wolf", "wolves"), ("cat", "cats")];
/// Questions of a story of task 15.
const DEDUCTIONS: usize = 4;
const SPECIES: [&str; 4] = ["swan", "lion", "frog", "rhino"];
const COLOURS: [&str; 4] = ["gray", "white", "yellow", "green"];

/// Task 15: "What is X afraid of?" from X's species and the rule about it.
pub(super) fn deduction(cast: &Cast, draws: &mut Draws, draft: &mut Draft) {
    // For each species the feared one and the line of the rule, for each person likewise.
    let mut rules: [Option<(usize, u32)>; FEARFUL.len()] = [None; FEARFUL.len()];
    let mut species: Vec<Option<(usize, u32)>> = vec![None; cast.people.len()];
    while rules.iter().chain(&species).any(Option::is_none) {
        if draws.coin() {
            let afraid = draws.below(FEARFUL.len());
            if rules[afraid].is_none() {
                let feared = draws.other(FEARFUL.len(), afraid);
                let subject = capitalised(FEARFUL[afraid].1);
                let text = format!("{subject} are afraid of {}.", FEARFUL[feared].1);
                rules[afraid] = Some((feared, draft.say(text)));
            }
        } else {
            let person = draws.below(species.len());
            let animal = draws.below(FEARFUL.len());
            if species[person].is_none() && rules[animal].is_some() {
                let text = format!("{} is a {}.", cast.people[person].name, FEARFUL[animal].0);
                species[person] = Some((animal, draft.say(text)));
            }
        }
    }
    for _ in 0..DEDUCTIONS {
        let person = draws.below(species.len());
        let Some((animal, told)) = species[person] else { continue };
        let Some((feared, rule)) = rules[animal] else { continue };
        let name = cast.people[person].name.to_lowercase();
        let text = format!("What is {name} afraid of?");
        draft.ask(text, FEARFUL[feared].0, vec![told, rule]);
    }
}

/// What the text says about a person of task 16.
#[derive(Clone, Copy)]
struct Animal {
    species: usize,
    line: u32,
    colour: Option<(usize, u32)>,
}

/// Task 16: "What color is X?" from the colour of another animal of X's species.
///
/// A species takes a new colour whenever an animal of it is introduced, so that animals of one
/// species may differ in colour; then the one introduced last counts. Everybody but X has a colour.
/// As in the release, X never has exactly two fellows of its species.
pub(super) fn induction(cast: &Cast, draws: &mut Draws) -> Draft {
    loop {
        let mut draft = Draft::default();
        let animals = introduce(cast, draws, &mut draft);
        let Some(asked) = animals.iter().position(|a| a.colour.is_none()) else { continue };
        let same = |a: &&Animal| a.species == animals[asked].species && a.colour.is_some();
        let fellows: Vec<&Animal> = animals.iter().filter(same).collect();
        let Some(last) = fellows.iter().max_by_key(|a| a.line) else { continue };
        let Some((colour, told)) = last.colour else { continue };
        if fellows.len() != 2 {
            let text = format!("What color is {}?", cast.people[asked].name);
            draft.ask(text, COLOURS[colour], vec![animals[asked].line, last.line, told]);
            return draft;
        }
    }
}

/// Tells everybody's species, and the colours of all but one.
fn introduce(cast: &Cast, draws: &mut Draws, draft: &mut Draft) -> Vec<Animal> {
    let people = cast.people.len();
    let mut animals: Vec<Option<Animal>> = vec![None; people];
    let mut colour_of = [0; SPECIES.len()];
    let mut statements = 0;
    while statements < 2 * people - 1 {
        let person = draws.below(people);
        let name = &cast.people[person].name;
        match (&mut animals[person], draws.coin()) {
            (slot @ None, true) => {
                let species = draws.below(SPECIES.len());
                colour_of[species] = draws.below(COLOURS.len());
                let line = draft.say(format!("{name} is a {}.", SPECIES[species]));
                *slot = Some(Animal { species, line, colour: None });
            }
            (Some(animal @ Animal { colour: None, .. }), false) => {
                let colour = colour_of[animal.species];
                let line = draft.say(format!("{name} is {}.", COLOURS[colour]));
                animal.colour = Some((colour, line));
            }
            _ => continue,
        }
        statements += 1;
    }
    animals.into_iter().flatten().collect()
}
