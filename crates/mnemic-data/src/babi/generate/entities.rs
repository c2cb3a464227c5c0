//! Who and what stories are about.

use serde::{Deserialize, Serialize};

use crate::babi::task::Task;
use crate::{Error, Result};

/// How a person is referred to in task 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pronoun {
    /// `she`
    She,
    /// `he`
    He,
}

impl Pronoun {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::She => "she",
            Self::He => "he",
        }
    }
}

/// A person in a story.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Person {
    /// One word, with a capital letter as usual. Tasks 15 and 20 write it small in questions.
    pub name: String,
    /// Used in task 11.
    pub pronoun: Pronoun,
}

impl Person {
    /// A person.
    pub fn new(name: impl Into<String>, pronoun: Pronoun) -> Self {
        Self { name: name.into(), pronoun }
    }
}

/// Lists to take instead of the official ones, for tests of generalisation to new words. `None` is
/// the official list of the task. A task ignores the lists that it has no use for, so that one value
/// serves all tasks. Species, colours (tasks 15, 16) and needs (task 20) are always the official
/// ones.
///
/// ```
/// use mnemic_data::babi::generate::{Entities, GeneratorConfig, Person, Pronoun, generate};
/// use mnemic_data::babi::Task;
/// let people = vec![Person::new("Ada", Pronoun::She), Person::new("Alan", Pronoun::He)];
/// let entities = Entities { people: Some(people), ..Entities::default() };
/// let config = GeneratorConfig { entities, ..GeneratorConfig::new(Task::new(1)?, 5, 0) };
/// assert!(!generate(&config)?[0].to_string().contains("Mary"));
/// # Ok::<(), mnemic_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entities {
    /// All tasks but 4, 17, 18 and 19. At least two in tasks 5, 7, 12, 13 and 16.
    pub people: Option<Vec<Person>>,
    /// Tasks 1–14 and 19. At least two; three in tasks 4, 12 and 13; 3 to 11 in task 19.
    pub places: Option<Vec<String>>,
    /// Things to carry in tasks 2, 3 and 5–8; at most ten in task 7, which counts them.
    pub objects: Option<Vec<String>>,
    /// Figures of task 17, at least three.
    pub figures: Option<Vec<String>>,
    /// The large things of task 18, in which the box of chocolates fits.
    pub containers: Option<Vec<String>>,
}

/// The lists of one task, checked. Those that it does not use are empty.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) people: Vec<Person>,
    pub(super) places: Vec<String>,
    pub(super) objects: Vec<String>,
    pub(super) figures: Vec<String>,
    pub(super) containers: Vec<String>,
}

use Pronoun::{He, She};

const HOUSE: [&str; 6] = ["bedroom", "kitchen", "bathroom", "hallway", "garden", "office"];
const TOWN: [&str; 6] = ["school", "kitchen", "park", "cinema", "office", "bedroom"];
const OBJECTS: [&str; 3] = ["apple", "football", "milk"];
const FIGURES: [&str; 6] =
    ["triangle", "pink rectangle", "red sphere", "red square", "blue square", "yellow square"];
const CONTAINERS: [&str; 4] = ["box", "chest", "container", "suitcase"];

impl Entities {
    pub(super) fn cast(&self, task: Task) -> Result<Cast> {
        let number = task.number();
        let names = |list: &Option<Vec<String>>, official: &[&str]| match list {
            Some(list) => list.clone(),
            None => official.iter().map(|&word| word.into()).collect(),
        };
        let mut cast = Cast {
            people: self.people.clone().unwrap_or_else(|| official_people(number)),
            places: names(&self.places, if matches!(number, 10 | 14) { &TOWN } else { &HOUSE }),
            objects: names(&self.objects, &OBJECTS),
            figures: names(&self.figures, &FIGURES),
            containers: names(&self.containers, &CONTAINERS),
        };
        let people: Vec<String> = cast.people.iter().map(|p| p.name.clone()).collect();
        let sizes = sizes(number);
        check("people", &people, sizes[0], number, false)?;
        check("places", &cast.places, sizes[1], number, false)?;
        check("objects", &cast.objects, sizes[2], number, false)?;
        check("figures", &cast.figures, sizes[3], number, true)?;
        check("containers", &cast.containers, sizes[4], number, true)?;
        if sizes[0].is_none() {
            cast.people.clear();
        }
        let lists = [&mut cast.places, &mut cast.objects, &mut cast.figures, &mut cast.containers];
        for (list, size) in lists.into_iter().zip(&sizes[1..]) {
            if size.is_none() {
                list.clear();
            }
        }
        Ok(cast)
    }
}

/// The smallest and largest size of the lists of people, places, objects, figures and containers;
/// `None` for a list that the task does not use.
fn sizes(task: u8) -> [Option<(usize, usize)>; 5] {
    const MANY: usize = 10_000;
    let people = match task {
        4 | 17..=19 => None,
        5 | 7 | 12 | 13 | 16 => Some((2, MANY)),
        _ => Some((1, MANY)),
    };
    let places = match task {
        19 => Some((3, 11)),
        4 | 12 | 13 => Some((3, MANY)),
        1..=14 => Some((2, MANY)),
        _ => None,
    };
    let objects = match task {
        7 => Some((1, 10)),
        2 | 3 | 5 | 6 | 8 => Some((1, MANY)),
        _ => None,
    };
    let figures = (task == 17).then_some((3, MANY));
    let containers = (task == 18).then_some((1, MANY));
    [people, places, objects, figures, containers]
}

fn official_people(task: u8) -> Vec<Person> {
    let people: &[(&str, Pronoun)] = match task {
        // In tasks 5 and 7 the order matters: it decides who is given things first.
        5 => &[("Mary", She), ("Fred", He), ("Bill", He), ("Jeff", He)],
        7 => &[("John", He), ("Mary", She), ("Sandra", She), ("Daniel", He)],
        10 | 14 => &[("Bill", He), ("Fred", He), ("Julie", She), ("Mary", She)],
        15 => &[("Gertrude", She), ("Winona", She), ("Jessica", She), ("Emily", She)],
        16 => &[("Lily", She), ("Bernhard", He), ("Greg", He), ("Julius", He), ("Brian", He)],
        20 => &[("Sumit", He), ("Yann", He), ("Antoine", He), ("Jason", He)],
        _ => &[("Mary", She), ("Sandra", She), ("John", He), ("Daniel", He)],
    };
    people.iter().map(|&(name, pronoun)| Person::new(name, pronoun)).collect()
}

/// Checks the words of a list, of which a task can use `size`.
fn check(
    list: &'static str,
    words: &[String],
    size: Option<(usize, usize)>,
    task: u8,
    blanks: bool,
) -> Result<()> {
    let Some((min, max)) = size else { return Ok(()) };
    if !(min..=max).contains(&words.len()) {
        let reason = format!("{} of them, but task {task} takes {min} to {max}", words.len());
        return Err(Error::argument(list, reason));
    }
    for (i, word) in words.iter().enumerate() {
        let part_ok = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '\''))
        };
        let ok = if blanks { word.split(' ').all(part_ok) } else { part_ok(word) };
        if !ok {
            let form = if blanks { "words with single blanks between them" } else { "one word" };
            let reason = format!("bad entry `{word}`: expected {form} of letters, digits, - and '");
            return Err(Error::argument(list, reason));
        }
        if words[..i].iter().any(|other| other.to_lowercase() == word.to_lowercase()) {
            return Err(Error::argument(list, format!("`{word}` comes twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(words: &[&str]) -> Entities {
        let places = words.iter().map(|&word| word.into()).collect();
        Entities { places: Some(places), ..Entities::default() }
    }

    #[test]
    fn bad_lists_are_named() {
        let cast = |words: &[&str], task| places(words).cast(Task::new(task).unwrap());
        let cases: [(&[&str], u8, &str); 5] = [
            (&["attic"], 1, "places: 1 of them, but task 1 takes 2 to 10000"),
            (&["attic", "cellar"], 12, "places: 2 of them, but task 12 takes 3"),
            (&["attic", "Attic"], 1, "places: `Attic` comes twice"),
            (&["attic", "dark cellar"], 1, "places: bad entry `dark cellar`: expected one word"),
            (&["attic", ""], 1, "places: bad entry ``"),
        ];
        for (words, task, expected) in cases {
            let error = cast(words, task).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        // A task without places does not look at them.
        assert!(cast(&["attic"], 15).is_ok());
    }

    #[test]
    fn figures_may_have_several_words() {
        let figures = |third: &str| Entities {
            figures: Some(["green hexagon", "star", third].map(String::from).to_vec()),
            ..Entities::default()
        };
        let task = Task::new(17).unwrap();
        assert_eq!(figures("disc").cast(task).unwrap().figures[0], "green hexagon");
        assert!(figures("flat  disc").cast(task).is_err());
        assert!(figures("disc.").cast(task).is_err());
    }

    #[test]
    fn official_lists_satisfy_all_tasks() {
        for task in Task::all() {
            Entities::default().cast(task).unwrap();
        }
    }
}
