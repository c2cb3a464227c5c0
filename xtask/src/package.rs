//! `cargo xtask package`: whether every published crate packages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use toml::Table;

use crate::flags::Args;
use crate::process;

/// What every archive must hold beside its sources.
const CONTENTS: &[&str] =
    &["Cargo.toml", "README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let root = process::root()?;
    let crates = published(&root)?;
    let mut command = process::cargo_in(&root);
    command.args(["package", "--allow-dirty"]);
    for name in &crates {
        command.args(["--package", name]);
    }
    if !args.has("--verify") {
        command.arg("--no-verify");
    }
    if args.has("--offline") {
        command.arg("--offline");
    }
    process::succeed(&mut command)?;

    let mut complete = true;
    for name in &crates {
        let mut list = process::cargo_in(&root);
        list.args(["package", "--list", "--allow-dirty", "--package", name]);
        let mut files = BTreeSet::new();
        let status = process::each_line(&mut list, |line| {
            files.insert(line.to_owned());
        })?;
        if !status.success() {
            bail!("`{}` failed ({status})", process::shown(&list));
        }
        for missing in missing(&files) {
            println!("{name}: the archive lacks {missing}");
            complete = false;
        }
    }
    println!("package: {} crates: {}", crates.len(), crates.join(", "));
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn missing(files: &BTreeSet<String>) -> Vec<&'static str> {
    CONTENTS.iter().copied().filter(|name| !files.contains(*name)).collect()
}

/// The names of the crates that are not marked `publish = false`, sorted.
fn published(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("crates");
    let mut names = Vec::new();
    for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path().join("Cargo.toml");
        if path.is_file() {
            let text = std::fs::read_to_string(&path)?;
            names.extend(published_name(&text).with_context(|| path.display().to_string())?);
        }
    }
    names.sort();
    Ok(names)
}

fn published_name(manifest: &str) -> Result<Option<String>> {
    let manifest: Table = manifest.parse()?;
    let package = manifest.get("package").context("no [package]")?;
    let name = package.get("name").and_then(toml::Value::as_str).context("no name")?;
    let private = package.get("publish").and_then(toml::Value::as_bool) == Some(false);
    Ok((!private).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpublished_crates_are_left_out() {
        let name = |text| published_name(text).unwrap();
        assert_eq!(name("[package]\nname = \"a\"\n"), Some("a".into()));
        assert_eq!(name("[package]\nname = \"a\"\npublish = false\n"), None);
        assert!(published_name("[package]\n").is_err());
    }

    #[test]
    fn what_an_archive_lacks_is_named() {
        let files = ["Cargo.toml", "README.md", "CHANGELOG.md", "LICENSE-MIT", "src/lib.rs"];
        let files = files.into_iter().map(str::to_owned).collect();
        assert_eq!(missing(&files), ["LICENSE-APACHE"]);
    }
}
