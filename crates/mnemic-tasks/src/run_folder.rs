//! A run's folder: whose it is, and whether it is done.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// A recipe as the folder of its run knows it.
pub(crate) trait RunRecipe: Sized {
    fn name(&self) -> &str;
    fn to_toml(&self) -> Result<String>;
    fn parse(text: &str, place: &str) -> Result<Self>;
    /// Whether a run of `other` can go on as one of this recipe.
    fn continues(&self, other: &Self) -> bool;
}

/// What a run of the very same recipe that came to its end left in the folder: with its commit and its times.
pub(crate) fn finished<T: DeserializeOwned>(
    recipe: &impl RunRecipe,
    dir: &Path,
) -> Result<Option<T>> {
    let (path, written) = (dir.join("result.json"), dir.join("recipe.toml"));
    if !path.exists() || !written.exists() {
        return Ok(None);
    }
    if std::fs::read_to_string(&written).map_err(Error::io(&written))? != recipe.to_toml()? {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map(Some).map_err(Error::json(&path))
}

/// Writes what a run has come to, `result.json`: the last file of a run, which says that it is done.
pub(crate) fn keep_result(dir: &Path, result: &impl Serialize) -> Result<()> {
    let path = dir.join("result.json");
    let text = serde_json::to_string_pretty(result).map_err(Error::json(&path))?;
    crate::files::write(&path, text.as_bytes())
}

/// Writes the recipe into a new folder, or checks that the folder belongs to it.
pub(crate) fn claim<R: RunRecipe>(recipe: &R, dir: &Path) -> Result<()> {
    let path = dir.join("recipe.toml");
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let other = R::parse(&text, &path.display().to_string());
        if !other.as_ref().is_ok_and(|other| recipe.continues(other)) {
            let name = other.map_or_else(|_| "of another kind".into(), |o| o.name().to_string());
            return Err(Error::request(format!(
                "{} holds a run of another recipe ({name}); choose another folder with --run",
                dir.display(),
            )));
        }
    }
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    crate::files::write(&path, recipe.to_toml()?.as_bytes())
}
