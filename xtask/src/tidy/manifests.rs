//! Rules on crates: the dependency table of ARCHITECTURE.md, and what each crate must have.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Finding;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// The helpers that every crate may use in its tests.
const TEST_HELPERS: &str = "mnemic-testing";

/// Reads a file of the workspace by its path.
type Read<'a> = &'a dyn Fn(&str) -> Result<String>;

/// All findings in the manifests and the folders of the crates.
pub(super) fn check(
    workspace: &str,
    architecture: &str,
    files: &BTreeSet<String>,
    read: Read<'_>,
) -> Result<Vec<Finding>> {
    let workspace = Workspace::read(workspace)?;
    let rules = rules(architecture);
    let mut found = workspace.check_versions();
    let mut folders = BTreeSet::new();
    for path in files.iter().filter(|path| is_member_manifest(path)) {
        let folder = path.trim_end_matches("/Cargo.toml");
        folders.insert(folder.to_owned());
        let manifest = Manifest::read(path, &read(path)?)?;
        match rules.get(folder) {
            Some(rule) => found.extend(manifest.check_layers(rule, &workspace)),
            None => {
                let message = format!("the table of crates has no row for `{folder}`");
                found.push(Finding::new(ARCHITECTURE, 0, message));
            }
        }
        found.extend(manifest.check_package(&workspace));
        if folder.starts_with("crates/") {
            found.extend(check_folder(folder, files, read)?);
        }
    }
    let code = |folder: &&String| folder.starts_with("crates/");
    for folder in rules.keys().filter(code).filter(|folder| !folders.contains(*folder)) {
        let message = format!("the table of crates names `{folder}`, which has no manifest");
        found.push(Finding::new(ARCHITECTURE, 0, message));
    }
    Ok(found)
}

fn is_member_manifest(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts.as_slice(),
        ["crates", _, "Cargo.toml"] | ["tests" | "xtask" | "benches", "Cargo.toml"]
    )
}

/// What a row of the table allows.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    All,
    Only(BTreeSet<String>),
}

impl Rule {
    fn allows(&self, dependency: &str) -> bool {
        match self {
            Rule::All => true,
            Rule::Only(names) => names.contains(dependency),
        }
    }
}

/// The rows `| `folder` | … | dependencies |`; short names are those of our own crates.
fn rules(architecture: &str) -> BTreeMap<String, Rule> {
    let mut rules = BTreeMap::new();
    for line in architecture.lines() {
        let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [folder, _, allowed] = cells.as_slice() else { continue };
        let folder = folder.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        let Some(folder) = folder else { continue };
        let rule = match *allowed {
            "all" => Rule::All,
            "–" | "-" | "" => Rule::Only(BTreeSet::new()),
            names => Rule::Only(names.split(',').map(|name| full_name(name.trim())).collect()),
        };
        rules.insert(folder.to_owned(), rule);
    }
    rules
}

fn full_name(name: &str) -> String {
    let name = name.trim_matches('`');
    if name.starts_with("mnemic-") || name.starts_with("candle-") {
        name.to_owned()
    } else {
        format!("mnemic-{name}")
    }
}

/// The crates that the table speaks of.
fn is_ruled(name: &str) -> bool {
    name.starts_with("mnemic-") || name.starts_with("candle-")
}

struct Workspace {
    version: String,
    dependencies: Table,
}

impl Workspace {
    fn read(text: &str) -> Result<Self> {
        let manifest: Table = text.parse().context("Cargo.toml")?;
        let part = |name: &str| manifest.get("workspace").and_then(|w| w.get(name));
        let version = part("package").and_then(|p| p.get("version")).and_then(Value::as_str);
        let dependencies = part("dependencies").and_then(Value::as_table);
        Ok(Self {
            version: version.unwrap_or_default().to_owned(),
            dependencies: dependencies.cloned().unwrap_or_default(),
        })
    }

    /// Our crates are released together: the versions written beside the paths follow the workspace's.
    fn check_versions(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, value) in
            self.dependencies.iter().filter(|(name, _)| name.starts_with("mnemic-"))
        {
            let version = value.get("version").and_then(Value::as_str);
            if version.is_some_and(|version| version != self.version) {
                let message =
                    format!("`{name}` must have the workspace's version {}", self.version);
                found.push(Finding::new("Cargo.toml", 0, message));
            }
        }
        found
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
}

struct Manifest {
    path: String,
    table: Table,
}

impl Manifest {
    fn read(path: &str, text: &str) -> Result<Self> {
        let table = text.parse().with_context(|| path.to_owned())?;
        Ok(Self { path: path.to_owned(), table })
    }

    fn finding(&self, message: impl Into<String>) -> Finding {
        Finding::new(&self.path, 0, message)
    }

    fn package(&self, key: &str) -> Option<&Value> {
        self.table.get("package").and_then(|package| package.get(key))
    }

    fn is_published(&self) -> bool {
        self.package("publish").and_then(Value::as_bool) != Some(false)
    }

    /// Every dependency with the name of its package; those for one platform are as good as any.
    fn dependencies(&self) -> Vec<(Kind, String, &Value)> {
        let mut tables = vec![&self.table];
        if let Some(targets) = self.table.get("target").and_then(Value::as_table) {
            tables.extend(targets.values().filter_map(Value::as_table));
        }
        let sections = [
            ("dependencies", Kind::Normal),
            ("build-dependencies", Kind::Normal),
            ("dev-dependencies", Kind::Dev),
        ];
        let mut all = Vec::new();
        for table in tables {
            for (section, kind) in sections {
                let Some(entries) = table.get(section).and_then(Value::as_table) else { continue };
                for (key, value) in entries {
                    let package = value.get("package").and_then(Value::as_str).unwrap_or(key);
                    all.push((kind, package.to_owned(), value));
                }
            }
        }
        all
    }

    fn check_layers(&self, rule: &Rule, workspace: &Workspace) -> Vec<Finding> {
        let mut found = Vec::new();
        for (kind, name, value) in self.dependencies() {
            let ours = name.starts_with("mnemic-");
            let ruled = match kind {
                Kind::Normal => is_ruled(&name),
                Kind::Dev => ours && name != TEST_HELPERS,
            };
            if ruled && !rule.allows(&name) {
                let message =
                    format!("must not depend on `{name}` (see the table in {ARCHITECTURE})");
                found.push(self.finding(message));
            }
            if !ours || !self.is_published() {
                continue;
            }
            let inherited = value.get("workspace").is_some();
            let source = if inherited { workspace.dependencies.get(&name) } else { Some(value) };
            let versioned = source.is_some_and(|source| source.get("version").is_some());
            match kind {
                Kind::Dev if versioned => found.push(self.finding(format!(
                    "the dev-dependency `{name}` must be a path without version, or publishing goes in circles"
                ))),
                Kind::Normal if !versioned => found.push(
                    self.finding(format!("the dependency `{name}` needs a version to be published")),
                ),
                _ => {}
            }
        }
        found
    }

    fn check_package(&self, workspace: &Workspace) -> Vec<Finding> {
        let mut found = Vec::new();
        let inherits = |value: Option<&Value>| {
            value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
        };
        if !inherits(self.table.get("lints")) {
            found.push(self.finding("lacks `[lints] workspace = true`"));
        }
        for key in ["version", "edition", "rust-version", "license"] {
            if !inherits(self.package(key)) {
                found.push(self.finding(format!("lacks `{key}.workspace = true`")));
            }
        }
        let described = self.package("description").and_then(Value::as_str);
        if described.is_none_or(|text| text.trim().is_empty()) {
            found.push(self.finding("lacks a description"));
        }
        if self.path.starts_with("crates/") {
            if self.package("readme").and_then(Value::as_str) != Some("README.md") {
                found.push(self.finding("lacks `readme = \"README.md\"`"));
            }
            let binary = self.table.contains_key("bin");
            if !binary
                && self.dependencies().iter().any(|(k, n, _)| *k == Kind::Normal && n == "anyhow")
            {
                found.push(self.finding("`anyhow` is for binaries; a library has its own errors"));
            }
        }
        for (_, name, value) in self.dependencies() {
            let inherited = value.get("workspace").is_some();
            if !inherited && workspace.dependencies.contains_key(&name) {
                let message =
                    format!("take `{name}` from the workspace: `{name}.workspace = true`");
                found.push(self.finding(message));
            }
        }
        found
    }
}

/// The files that every crate brings along.
fn check_folder(folder: &str, files: &BTreeSet<String>, read: Read<'_>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let path = format!("{folder}/{name}");
        if !files.contains(&path) {
            found.push(Finding::new(path, 0, "missing"));
            continue;
        }
        let text = read(&path)?;
        if name.starts_with("LICENSE") && text != read(name)? {
            found.push(Finding::new(path, 0, format!("differs from {name} of the workspace")));
        } else if text.lines().filter(|line| !line.trim().is_empty()).count() < 3 {
            found.push(Finding::new(path, 0, "says nothing beyond its title"));
        }
    }
    let library = files.contains(&format!("{folder}/src/lib.rs"));
    let examples = format!("{folder}/examples/");
    if library && !files.iter().any(|path| path.starts_with(&examples) && path.ends_with(".rs")) {
        found.push(Finding::new(examples, 0, "a library needs a runnable example"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| folder | what | may depend on |
| --- | --- | --- |
| `crates/mnemic-kernels` | operations | candle-core |
| `crates/mnemic-layers` | layers | kernels, candle-core, `candle-nn` |
| `crates/mnemic-data` | data | – |
| `tests` | tests | all |
";
    const WORKSPACE: &str = "\
[workspace.package]
version = \"0.1.0\"
[workspace.dependencies]
mnemic-kernels = { path = \"crates/mnemic-kernels\", version = \"0.1.0\" }
mnemic-data = { path = \"crates/mnemic-data\", version = \"0.1.0\" }
mnemic-testing = { path = \"crates/mnemic-testing\" }
candle-core = \"0.11\"
";
    const HEAD: &str = "\
[package]
name = \"x\"
description = \"words\"
readme = \"README.md\"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
[lints]
workspace = true
";

    fn messages(folder: &str, dependencies: &str) -> Vec<String> {
        let workspace = Workspace::read(WORKSPACE).unwrap();
        let manifest =
            Manifest::read(&format!("{folder}/Cargo.toml"), &format!("{HEAD}{dependencies}"));
        let manifest = manifest.unwrap();
        let mut found = manifest.check_layers(&rules(TABLE)[folder], &workspace);
        found.extend(manifest.check_package(&workspace));
        found.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn the_table_is_read_from_the_document() {
        let rules = rules(TABLE);
        assert_eq!(rules.len(), 4);
        assert_eq!(rules["tests"], Rule::All);
        assert!(rules["crates/mnemic-layers"].allows("mnemic-kernels"));
        assert!(rules["crates/mnemic-layers"].allows("candle-nn"));
        assert!(!rules["crates/mnemic-kernels"].allows("candle-nn"));
        assert!(!rules["crates/mnemic-data"].allows("mnemic-kernels"));
    }

    #[test]
    fn dependencies_inside_the_table_pass() {
        let good = "[dependencies]\nmnemic-kernels.workspace = true\ncandle-core.workspace = true\nserde = \"1\"\n\
                    [dev-dependencies]\nmnemic-testing.workspace = true\n";
        assert!(messages("crates/mnemic-layers", good).is_empty());
    }

    #[test]
    fn dependencies_outside_the_table_are_found_in_every_section() {
        for section in ["dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let found = messages(
                "crates/mnemic-kernels",
                &format!("[{section}]\nmnemic-data.workspace = true\n"),
            );
            assert_eq!(found.len(), 1, "{section}: {found:?}");
            assert!(found[0].contains("must not depend on `mnemic-data`"));
        }
        let candle = "[dependencies]\ncandle-core.workspace = true\n";
        assert_eq!(messages("crates/mnemic-data", candle).len(), 1);
        let renamed = "[dependencies]\nd = { package = \"mnemic-data\", version = \"0.1.0\", path = \"../d\" }\n";
        assert!(messages("crates/mnemic-kernels", renamed)[0].contains("must not depend"));
    }

    #[test]
    fn dev_dependencies_on_our_crates_have_no_version_and_follow_the_table() {
        let found = messages(
            "crates/mnemic-layers",
            "[dev-dependencies]\nmnemic-kernels.workspace = true\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("without version"));
        let other = "[dev-dependencies]\nmnemic-data = { path = \"../mnemic-data\" }\n";
        let found = messages("crates/mnemic-layers", other);
        assert!(found.iter().any(|message| message.contains("must not depend")), "{found:?}");
    }

    #[test]
    fn a_published_dependency_has_a_version() {
        let found = messages(
            "crates/mnemic-layers",
            "[dependencies]\nmnemic-kernels = { path = \"../k\" }\n",
        );
        assert!(found.iter().any(|message| message.contains("needs a version")), "{found:?}");
    }

    #[test]
    fn what_every_package_states_is_asked_for() {
        let bare = Manifest::read(
            "crates/a/Cargo.toml",
            "[package]\nname = \"a\"\n[dependencies]\nanyhow = \"1\"\n",
        );
        let found = bare.unwrap().check_package(&Workspace::read(WORKSPACE).unwrap());
        let found: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        for lack in ["[lints]", "version", "license", "description", "readme", "anyhow"] {
            assert!(found.iter().any(|message| message.contains(lack)), "{lack} in {found:?}");
        }
    }

    #[test]
    fn versions_of_our_crates_follow_the_workspace() {
        let later = WORKSPACE.replacen("0.1.0", "0.2.0", 1);
        assert_eq!(Workspace::read(&later).unwrap().check_versions().len(), 2);
        assert!(Workspace::read(WORKSPACE).unwrap().check_versions().is_empty());
    }

    #[test]
    fn folders_are_complete_and_rows_match_them() {
        let read = |path: &str| -> Result<String> {
            Ok(match path {
                "crates/mnemic-kernels/Cargo.toml" | "crates/mnemic-new/Cargo.toml" => HEAD.into(),
                "crates/mnemic-kernels/README.md" => "# kernels\n".into(),
                "crates/mnemic-kernels/LICENSE-MIT" => "other".into(),
                _ => "a\nb\nc\n".into(),
            })
        };
        let files = [
            "crates/mnemic-new/Cargo.toml",
            "crates/mnemic-kernels/Cargo.toml",
            "crates/mnemic-kernels/src/lib.rs",
            "crates/mnemic-kernels/README.md",
            "crates/mnemic-kernels/LICENSE-MIT",
            "crates/mnemic-kernels/LICENSE-APACHE",
        ];
        let files: BTreeSet<String> = files.into_iter().map(str::to_owned).collect();
        let found = check(WORKSPACE, TABLE, &files, &read).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        for part in [
            "no row for `crates/mnemic-new`",
            "names `crates/mnemic-data`",
            "crates/mnemic-kernels/README.md: says nothing",
            "crates/mnemic-kernels/CHANGELOG.md: missing",
            "crates/mnemic-kernels/LICENSE-MIT: differs",
            "crates/mnemic-kernels/examples/: a library needs",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:#?}");
        }
        assert!(
            !found.iter().any(|line| line.contains("LICENSE-APACHE") && line.contains("kernels"))
        );
    }
}
