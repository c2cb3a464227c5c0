//! Recipe files: reading, overrides, one recipe for each task.

use std::path::Path;

use mnemic_data::babi::Task;
use toml::{Table, Value};

use super::Recipe;
use crate::{Error, Result};

impl Recipe {
    /// Reads a recipe and applies overrides of the form `a.b=value` (a TOML value, or a bare string).
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value has the wrong type; the message names the file, the line
    /// and the key. When the file holds a recipe for each of several tasks, naming them.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::read_task(path, None, overrides)
    }

    /// [`Recipe::read`], or the recipe of this task in a file of recipes.
    ///
    /// # Errors
    /// Also when the file has no recipe for the task, or one for several at once.
    pub fn read_task(path: &Path, task: Option<Task>, overrides: &[String]) -> Result<Self> {
        let place = path.display().to_string();
        let mut all = Self::parse_all(&text(path)?, &place, overrides)?;
        let numbers: Vec<String> =
            all.iter().flat_map(|r| &r.data.tasks).map(|t| t.number().to_string()).collect();
        if let Some(task) = task {
            all.retain(|r| r.data.tasks == [task]);
        }
        match (all.pop(), all.len(), task) {
            (Some(recipe), 0, _) => Ok(recipe),
            (_, _, None) => Err(Error::recipe(
                place,
                format!("holds a recipe for each of the tasks {}: choose one", numbers.join(", ")),
            )),
            (_, _, Some(task)) => Err(Error::recipe(
                place,
                format!(
                    "holds no recipe for task {} alone; its tasks are {}",
                    task.number(),
                    numbers.join(", ")
                ),
            )),
        }
    }

    /// All recipes of a file: one, or one for each task.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_all(path: &Path, overrides: &[String]) -> Result<Vec<Self>> {
        Self::parse_all(&text(path)?, &path.display().to_string(), overrides)
    }

    /// [`Recipe::read`] on text; `place` names it in errors.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str, place: &str, overrides: &[String]) -> Result<Self> {
        let mut all = Self::parse_all(text, place, overrides)?;
        match (all.pop(), all.is_empty()) {
            (Some(recipe), true) => Ok(recipe),
            _ => Err(Error::recipe(place, "holds several recipes, expected one")),
        }
    }

    fn parse_all(text: &str, place: &str, overrides: &[String]) -> Result<Vec<Self>> {
        let bad = |e: toml::de::Error| Error::recipe(place, e.to_string());
        let table: Table = toml::from_str(text).map_err(bad)?;
        let recipes = if table.contains_key("each_task") || table.contains_key("task") {
            each_task(table, place, overrides)?
        } else if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            vec![toml::from_str(text).map_err(bad)?]
        } else {
            vec![finish(table, place, overrides)?]
        };
        for recipe in &recipes {
            recipe.validate().map_err(|reason| Error::recipe(place, reason))?;
        }
        Ok(recipes)
    }
}

/// The `data.dataset` of a recipe file, which says what kind of recipe it is. Whatever is missing is named when the recipe is read.
///
/// # Errors
/// When the file cannot be read or is no TOML.
pub(crate) fn dataset(path: &Path) -> Result<Option<String>> {
    let table: Table = toml::from_str(&text(path)?)
        .map_err(|e| Error::recipe(path.display().to_string(), e.to_string()))?;
    let name = table.get("data").and_then(|data| data.get("dataset")).and_then(Value::as_str);
    Ok(name.map(str::to_string))
}

pub(crate) fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(path))
}

/// A recipe for each task of the table.
fn each_task(table: Table, place: &str, overrides: &[String]) -> Result<Vec<Recipe>> {
    let choose = |one: &mut Table, task: &Value| {
        let number = task.to_string();
        let name = one.get("name").and_then(Value::as_str).unwrap_or_default();
        one.insert("name".into(), format!("{name}-task{number}").into());
        one["data"]["tasks"] = Value::Array(vec![task.clone()]);
        keep_figure(one, &number);
    };
    let finish = |(task, table)| finish(table, &format!("{place}, task {task}"), overrides);
    tables_of_tasks(table, place, choose)?.into_iter().map(finish).collect()
}

/// A table for each of `data.tasks`, with its name: `choose` puts the task in place, and `[task.NAME]` the changes for it.
pub(crate) fn tables_of_tasks(
    mut table: Table,
    place: &str,
    choose: impl Fn(&mut Table, &Value),
) -> Result<Vec<(String, Table)>> {
    let bad = |reason: &str| Error::recipe(place, reason);
    if table.remove("each_task") != Some(Value::Boolean(true)) {
        return Err(bad("each_task: expected true, beside [task.NAME]"));
    }
    let mut changes = match table.remove("task") {
        None => Table::new(),
        Some(Value::Table(changes)) => changes,
        Some(other) => return Err(bad(&format!("task: expected [task.NAME], got {other}"))),
    };
    let tasks = table.get("data").and_then(|d| d.get("tasks")).and_then(Value::as_array);
    let tasks = tasks.ok_or_else(|| bad("data.tasks: expected a list of tasks"))?.clone();
    let mut tables = Vec::new();
    for task in tasks {
        let mut one = table.clone();
        let name = task.as_str().map_or_else(|| task.to_string(), str::to_string);
        choose(&mut one, &task);
        match changes.remove(&name) {
            None => {}
            Some(Value::Table(changes)) => merge(&mut one, changes),
            Some(other) => {
                return Err(bad(&format!("task.{name}: expected a table, got {other}")));
            }
        }
        tables.push((name, one));
    }
    match changes.keys().next() {
        Some(key) => Err(bad(&format!("task.{key}: {key} is not one of data.tasks"))),
        None => Ok(tables),
    }
}

/// Drops the paper's figures of the other tasks.
fn keep_figure(table: &mut Table, number: &str) {
    if let Some(paper) = table.get_mut("paper").and_then(Value::as_table_mut) {
        paper.retain(|key, _| key == number);
    }
}

/// Puts the values of `changes` in place, table by table.
fn merge(table: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn finish(mut table: Table, place: &str, overrides: &[String]) -> Result<Recipe> {
    for o in overrides {
        apply_override(&mut table, o)?;
    }
    Value::Table(table).try_into().map_err(|e: toml::de::Error| Error::recipe(place, e.to_string()))
}

/// Sets `a.b=value` in a table, creating tables on the way.
pub(crate) fn apply_override(table: &mut toml::Table, text: &str) -> Result<()> {
    let bad = |reason: &str| Error::recipe(format!("--set {text}"), reason);
    let (path, value) = text.split_once('=').ok_or_else(|| bad("expected KEY.KEY=VALUE"))?;
    // A value that is no TOML is taken as a string: `--set data.edition=en` needs no quotes.
    let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(|| bad("the key is empty"))?;
    let mut place = table;
    for key in keys {
        let entry =
            place.entry(key.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = entry.as_table_mut().ok_or_else(|| bad(&format!("{key} is not a table")))?;
    }
    place.insert(last.to_string(), value);
    Ok(())
}
