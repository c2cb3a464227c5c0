//! How trained models fare on stories unlike those they learnt from: longer ones, and ones about people and places that they
//! never read of. The stories come from our generator.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Tensor};
use mnemic_data::babi::generate::{Entities, GeneratorConfig, Person, Pronoun, generate};
use mnemic_data::babi::{Example, Task, examples};
use mnemic_data::{Encoded, Vocabulary};
use mnemic_models::{ModelConfig, ParamStore, Pretrained, from_pretrained};
use serde::{Deserialize, Serialize};

use super::ask::BabiModel;
use super::problem::evaluate;
use super::results::Row;
use crate::{Error, Result};

const PEOPLE: [(&str, Pronoun); 6] = [
    ("Hannah", Pronoun::She),
    ("Oscar", Pronoun::He),
    ("Paula", Pronoun::She),
    ("Victor", Pronoun::He),
    ("Irene", Pronoun::She),
    ("Walter", Pronoun::He),
];
const PLACES: [&str; 6] = ["attic", "cellar", "library", "balcony", "garage", "laundry"];

/// A kind of stories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stories {
    /// As in training.
    Same,
    /// With twice as many statements before each question.
    TwiceAsLong,
    /// About people whose names were never read.
    NewPeople,
    /// About places whose names were never read.
    NewPlaces,
}

impl Stories {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Same, Self::TwiceAsLong, Self::NewPeople, Self::NewPlaces];

    /// Whether there are stories of this kind that differ from those of training.
    pub fn exist(self, task: Task) -> bool {
        match (self, task.number()) {
            (Self::Same, _) => true,
            (Self::TwiceAsLong, number) => !matches!(number, 4 | 15..=17 | 19 | 20),
            (Self::NewPeople, number) => !matches!(number, 4 | 17..=19),
            (Self::NewPlaces, number) => matches!(number, 1..=14 | 19),
        }
    }

    /// Questions about such stories.
    ///
    /// # Errors
    /// When there are none for the task.
    pub fn examples(self, task: Task, questions: usize, seed: u64) -> Result<Vec<Example>> {
        let mut config = GeneratorConfig::new(task, questions, seed);
        match self {
            Self::Same => {}
            Self::TwiceAsLong => config.story_scale = 2.,
            Self::NewPeople => {
                let people = PEOPLE.iter().map(|&(name, pronoun)| Person::new(name, pronoun));
                config.entities =
                    Entities { people: Some(people.collect()), ..Entities::default() };
            }
            Self::NewPlaces => {
                let places = Some(PLACES.map(String::from).to_vec());
                config.entities = Entities { places, ..Entities::default() };
            }
        }
        Ok(examples(task, &generate(&config)?))
    }
}

/// Wrong answers of a model on each kind of stories, in percent; nothing for a kind that does not exist for the task.
///
/// Words that the model does not know get the vectors that they would have had at the start of training from `seed`.
///
/// # Errors
/// When the model's files are damaged or it cannot take new words.
pub fn generalise(
    model: &BabiModel,
    task: Task,
    questions: usize,
    seed: u64,
) -> Result<BTreeMap<Stories, f64>> {
    let mut errors = BTreeMap::new();
    for stories in Stories::ALL.into_iter().filter(|s| s.exist(task)) {
        let examples = stories.examples(task, questions, seed)?;
        let model = with_words_of(model, &examples, seed)?;
        let limit = model.recipe.data.max_sentences;
        let encoded = Encoded::new(&examples, &model.vocabulary, limit)?;
        let score = evaluate(&model.model, &encoded, &model.device)?;
        let score = score.get(&task.number()).copied().unwrap_or_default();
        errors.insert(stories, score.error_percent());
    }
    Ok(errors)
}

/// The model with a larger vocabulary.
fn with_words_of(old: &BabiModel, examples: &[Example], seed: u64) -> Result<BabiModel> {
    let vocabulary = extended(&old.vocabulary, examples)?;
    let loaded: Pretrained = from_pretrained(&old.path, DType::F32, &old.device)?;
    let (known, all) = (old.vocabulary.len(), vocabulary.len());
    let larger = serde_json::json!({ "vocab_size": all });
    let config = loaded.config.with_overrides(larger.as_object().cloned().unwrap_or_default())?;
    let store = ParamStore::new(seed);
    let model = config.build(store.builder(DType::F32, &old.device))?;
    let fresh = store.snapshot()?;
    let mut values = HashMap::new();
    for (name, trained) in loaded.store.snapshot()? {
        let fresh = fresh.get(&name).ok_or_else(|| cannot(&config, &name))?;
        let value = widened(&trained, fresh, known, all)?.ok_or_else(|| cannot(&config, &name))?;
        values.insert(name, value);
    }
    if let Err(mismatch) = store.load(&values)? {
        return Err(Error::request(format!("{}: {mismatch:?}", old.path.display())));
    }
    let (path, recipe, device) = (old.path.clone(), old.recipe.clone(), old.device.clone());
    Ok(BabiModel { path, config, vocabulary, recipe, device, model })
}

fn cannot(config: &ModelConfig, name: &str) -> Error {
    let architecture = config.architecture();
    Error::request(format!("{architecture} cannot take new words: {name} does not grow with them"))
}

/// The vocabulary with the unknown words and answers of the examples behind it.
fn extended(old: &Vocabulary, examples: &[Example]) -> Result<Vocabulary> {
    let mut new = BTreeSet::new();
    for example in examples {
        let words = example.statements.iter().flat_map(|s| s.iter()).chain(&example.question);
        let answer = Some(&example.answer).filter(|a| !a.is_empty());
        new.extend(words.chain(answer).filter(|w| old.id(w).is_none()).cloned());
    }
    let answers: BTreeSet<&String> = examples.iter().map(|e| &e.answer).collect();
    Ok(old.extended(new, |word| answers.contains(&word.to_string()))?)
}

/// A trained tensor in the shape of `fresh`: along an axis that counts words, new words take the values of `fresh`, and what
/// stands behind the words stays behind them.
fn widened(trained: &Tensor, fresh: &Tensor, known: usize, all: usize) -> Result<Option<Tensor>> {
    let (old, new) = (trained.dims(), fresh.dims());
    if old == new {
        return Ok(Some(trained.clone()));
    }
    let differs: Vec<usize> = (0..old.len().min(new.len())).filter(|&i| old[i] != new[i]).collect();
    let [axis] = differs[..] else { return Ok(None) };
    if old.len() != new.len() || old[axis] < known || new[axis] - old[axis] != all - known {
        return Ok(None);
    }
    let words = trained.narrow(axis, 0, known)?;
    let added = fresh.narrow(axis, known, all - known)?;
    let rest = trained.narrow(axis, known, old[axis] - known)?;
    Ok(Some(Tensor::cat(&[words, added, rest], axis)?))
}

/// A row of `generalisation.csv`: one model, task and kind of stories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneralisationRow {
    /// The heading of the model's recipe.
    pub model: String,
    /// The recipe's name, with the task where there is one for each.
    pub recipe: String,
    /// The task.
    pub task: u8,
    /// The kind of stories.
    pub stories: Stories,
    /// Wrong answers in percent.
    pub error_percent: f64,
    /// Questions asked.
    pub questions: usize,
    /// The generator's seed.
    pub seed: u64,
    /// The seed of the run.
    pub trained_seed: u64,
    /// The commit that the model was trained with.
    pub trained_commit: String,
    /// The commit that it was tested with.
    pub commit: String,
}

impl Row for GeneralisationRow {
    fn key(&self) -> impl Ord {
        (self.model.clone(), self.task, self.stories)
    }
}

/// The rows as a table in Markdown: a row for each task, a column for each model, in a cell the errors on the four kinds of
/// stories; means over the tasks that have all four.
pub fn generalisation_table(rows: &[GeneralisationRow]) -> String {
    let models: BTreeSet<&str> = rows.iter().map(|r| r.model.as_str()).collect();
    let mut by = BTreeMap::new();
    for row in rows {
        by.insert((row.model.as_str(), row.task, row.stories), row.error_percent);
    }
    let cell = |values: [Option<f64>; 4]| {
        values.map(|v| v.map_or_else(|| "–".into(), |v| format!("{v:.1}"))).join(" / ")
    };
    let mut out = String::from("| task |");
    models.iter().for_each(|m| out.push_str(&format!(" {m} |")));
    out.push_str(&format!("\n| --- |{}\n", " ---: |".repeat(models.len())));
    for task in Task::all().filter(|t| rows.iter().any(|r| r.task == t.number())) {
        out.push_str(&format!("| {} {} |", task.number(), task.title().to_lowercase()));
        for model in &models {
            let values = Stories::ALL.map(|s| by.get(&(*model, task.number(), s)).copied());
            out.push_str(&format!(" {} |", cell(values)));
        }
        out.push('\n');
    }
    out.push_str("| **mean** of the tasks with all four |");
    for model in &models {
        let all = Task::all().filter_map(|task| {
            let values = Stories::ALL.map(|s| by.get(&(*model, task.number(), s)).copied());
            values.iter().all(Option::is_some).then(|| values.map(Option::unwrap_or_default))
        });
        let all: Vec<[f64; 4]> = all.collect();
        let mean = |i: usize| all.iter().map(|v| v[i]).sum::<f64>() / all.len() as f64;
        let means = std::array::from_fn(|i| (!all.is_empty()).then(|| mean(i)));
        out.push_str(&format!(" **{}** |", cell(means)));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn every_kind_of_stories_differs_as_it_says() {
        for task in Task::all() {
            let text = |stories: Stories| {
                let examples = stories.examples(task, 40, 1).unwrap();
                let words = examples
                    .iter()
                    .flat_map(|e| e.statements.iter().flat_map(|s| s.to_vec()).collect::<Vec<_>>());
                let statements: usize = examples.iter().map(|e| e.statements.len()).sum();
                (words.collect::<BTreeSet<String>>(), statements)
            };
            let (_, statements) = text(Stories::Same);
            for stories in Stories::ALL.into_iter().filter(|s| s.exist(task)) {
                let (words, count) = text(stories);
                let holds = |name: &str| words.contains(&name.to_lowercase());
                let (people, places) =
                    (PEOPLE.iter().any(|p| holds(p.0)), PLACES.iter().any(|p| holds(p)));
                let expected = (stories == Stories::NewPeople, stories == Stories::NewPlaces);
                assert_eq!((people, places), expected, "{task:?} {stories:?}");
                let longer = count > statements * 6 / 5;
                assert!(longer || stories != Stories::TwiceAsLong, "{task:?}");
            }
        }
    }

    #[test]
    fn a_table_has_four_numbers_in_a_cell() {
        let rows: Vec<GeneralisationRow> = [(1, 4), (4, 1)]
            .into_iter()
            .flat_map(|(task, kinds)| Stories::ALL.into_iter().take(kinds).map(move |s| (task, s)))
            .map(|(task, stories)| GeneralisationRow {
                model: "DMN+".into(),
                recipe: "x".into(),
                task,
                stories,
                error_percent: f64::from(task),
                questions: 10,
                seed: 1,
                trained_seed: 1,
                trained_commit: "abc".into(),
                commit: "abc".into(),
            })
            .collect();
        let table = generalisation_table(&rows);
        assert!(table.contains("| 4 two argument relations | 4.0 / – / – / – |"), "{table}");
        assert!(table.ends_with("| **1.0 / 1.0 / 1.0 / 1.0** |\n"), "{table}");
    }

    #[test]
    fn new_words_stand_between_the_words_and_what_follows() {
        let device = &Device::Cpu;
        let trained = Tensor::new(&[[1f32], [2.], [9.]], device).unwrap();
        let fresh = Tensor::new(&[[-1f32], [-2.], [-3.], [-4.], [-5.]], device).unwrap();
        let wide = widened(&trained, &fresh, 2, 4).unwrap().unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(&wide), [1., 2., -3., -4., 9.]);
        let turned = widened(&trained.t().unwrap(), &fresh.t().unwrap(), 2, 4).unwrap().unwrap();
        assert_eq!(flat(&turned), flat(&wide));
        assert!(widened(&trained, &fresh, 2, 3).unwrap().is_none());
        assert_eq!(flat(&widened(&trained, &trained, 2, 4).unwrap().unwrap()), flat(&trained));
    }
}
