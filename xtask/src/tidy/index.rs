//! Rules on `models/index.toml`, the table of architectures.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Finding;

/// Where the table lies.
pub(super) const PATH: &str = "models/index.toml";

const STATUSES: &[&str] = &["planned", "implemented", "reproduced"];
const KEYS: &[&str] = &["year", "name", "family", "paper", "status", "code", "recipes", "card"];

/// All findings in the table.
pub(super) fn check(text: &str, files: &BTreeSet<String>) -> Vec<Finding> {
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return vec![finding(error.to_string().trim_end())],
    };
    let rows = table.get("architecture").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    if rows.is_empty() {
        found.push(finding("holds no [[architecture]]"));
    }
    let mut names = BTreeSet::new();
    let mut recipes = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
        let place =
            if name.is_empty() { format!("row {}", index + 1) } else { format!("`{name}`") };
        if !names.insert(name) {
            found.push(finding(&format!("{place} appears twice")));
        }
        recipes.extend(strings(row, "recipes"));
        found.extend(check_row(row, files).into_iter().map(|m| finding(&format!("{place}: {m}"))));
    }
    let is_recipe =
        |path: &&String| path.starts_with("models/") && path.ends_with(".toml") && *path != PATH;
    let named =
        |path: &str| recipes.iter().any(|r| path == r || path.starts_with(&format!("{r}/")));
    for path in files.iter().filter(is_recipe).filter(|path| !named(path)) {
        found.push(Finding::new(path, 0, format!("no row of {PATH} names this recipe")));
    }
    found
}

fn finding(message: &str) -> Finding {
    Finding::new(PATH, 0, message)
}

fn check_row(row: &Value, files: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let keys = row.as_table().into_iter().flat_map(Table::keys);
    for key in keys.filter(|key| !KEYS.contains(&key.as_str())) {
        found.push(format!("unknown key `{key}`"));
    }
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
    for key in ["name", "family"] {
        if text(key).trim().is_empty() {
            found.push(format!("lacks `{key}`"));
        }
    }
    let year = row.get("year").and_then(Value::as_integer).unwrap_or_default();
    if !(1980..2100).contains(&year) {
        found.push("`year` must be a year of four digits".into());
    }
    // Some papers are not on arXiv: their row has no `paper`.
    if row.get("paper").is_some() && !is_arxiv_id(text("paper")) {
        found.push("`paper` must be an arXiv id such as 1503.08895".into());
    }
    let status = text("status");
    if !STATUSES.contains(&status) {
        found.push(format!("unknown status `{status}`; known are {}", STATUSES.join(", ")));
    }
    let paths = ["code", "recipes", "card"].map(|key| (key, strings(row, key)));
    for (key, paths) in &paths {
        for path in paths.iter().filter(|path| !exists(path, files)) {
            found.push(format!("`{key}` names {path}, which does not exist"));
        }
    }
    found.extend(missing(status, &paths));
    found
}

/// What a row of this status has to name and does not, or names too early.
fn missing(status: &str, paths: &[(&str, Vec<String>)]) -> Vec<String> {
    let needed: &[&str] = match status {
        "implemented" => &["code"],
        "reproduced" => &["code", "recipes", "card"],
        _ => &[],
    };
    let mut found = Vec::new();
    for (key, paths) in paths {
        if paths.is_empty() && needed.contains(key) {
            found.push(format!("is {status} and lacks `{key}`"));
        }
        if !paths.is_empty() && status == "planned" {
            found.push(format!("is planned and already names `{key}`"));
        }
    }
    found
}

/// A string, or each string of a list.
fn strings(row: &Value, key: &str) -> Vec<String> {
    match row.get(key) {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// A file, or a folder with something in it.
fn exists(path: &str, files: &BTreeSet<String>) -> bool {
    files.contains(path) || files.iter().any(|file| file.starts_with(&format!("{path}/")))
}

fn is_arxiv_id(text: &str) -> bool {
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    text.split_once('.').is_some_and(|(month, number)| {
        month.len() == 4 && digits(month) && [4, 5].contains(&number.len()) && digits(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "\
[[architecture]]
year = 2015
name = \"MemN2N\"
family = \"memory\"
paper = \"1503.08895\"
status = \"reproduced\"
code = \"crates/m/src/memn2n.rs\"
recipes = [\"models/memn2n\"]
card = \"models/memn2n/README.md\"
";

    fn files() -> BTreeSet<String> {
        let files =
            ["crates/m/src/memn2n.rs", "models/memn2n/qa1.toml", "models/memn2n/README.md", PATH];
        files.into_iter().map(str::to_owned).collect()
    }

    fn messages(text: &str) -> Vec<String> {
        check(text, &files()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_complete_row_passes() {
        assert!(messages(ROW).is_empty(), "{:?}", messages(ROW));
    }

    #[test]
    fn each_breach_of_a_row_is_named() {
        for (from, to, part) in [
            ("\"reproduced\"", "\"done\"", "unknown status `done`"),
            ("1503.08895", "nips-15", "arXiv id"),
            ("year = 2015", "year = 15", "`year`"),
            ("memn2n.rs", "memn3n.rs", "memn3n.rs, which does not exist"),
            ("README.md", "CARD.md", "CARD.md, which does not exist"),
            ("card = ", "cart = ", "unknown key `cart`"),
            ("card = ", "cart = ", "lacks `card`"),
            ("family = \"memory\"", "family = \"\"", "lacks `family`"),
            ("\"reproduced\"", "\"planned\"", "is planned and already names `code`"),
            ("year = 2015", "year = ", "TOML"),
        ] {
            let found = messages(&ROW.replacen(from, to, 1));
            assert!(found.iter().any(|message| message.contains(part)), "{part} in {found:?}");
        }
    }

    #[test]
    fn names_are_unique_and_every_recipe_belongs_to_a_row() {
        assert!(messages(&format!("{ROW}{ROW}"))[0].contains("`MemN2N` appears twice"));
        let planned = "[[architecture]]\nyear = 2014\nname = \"NTM\"\nfamily = \"memory\"\nstatus = \"planned\"\n";
        let found = messages(planned);
        assert_eq!(
            found,
            ["models/memn2n/qa1.toml: no row of models/index.toml names this recipe"]
        );
        assert!(messages("")[0].contains("holds no [[architecture]]"));
    }
}
