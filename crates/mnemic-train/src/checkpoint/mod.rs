//! Checkpoints on disk.
//!
//! ```text
//! RUN/checkpoint/last                      the name of the newest checkpoint's folder
//! RUN/checkpoint/best                      the same for the best validation loss
//! RUN/checkpoint/step-000001200/
//!     weights.safetensors                  the weights being trained
//!     average.safetensors                  their moving average, if there is one
//!     optimizer.safetensors
//!     state.json                           everything else
//!     crc32c.txt                           sizes and checksums of the above
//! ```
//!
//! A folder is written under another name, synced, and renamed; then the pointer files are replaced; then folders that are
//! not needed any more go. Whatever moment the machine stops at, a complete checkpoint is there. The one before the
//! last is kept too, for the case that the last one is damaged later.

mod files;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::error::{Error, Result};

const WEIGHTS: &str = "weights.safetensors";
const AVERAGE: &str = "average.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// The checkpoints of a run.
///
/// ```no_run
/// use mnemic_train::Checkpoints;
/// if let Some(best) = Checkpoints::of_run("runs/mine").best()? {
///     let weights = best.weights()?;
///     println!("{} tensors from {}", weights.len(), best.path().display());
/// }
/// # Ok::<(), mnemic_train::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    /// The newest checkpoint and the best one known to it.
    current: Option<Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    name: String,
    best: Option<String>,
}

/// A complete checkpoint. Its files are checked when they are read.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
}

/// A checkpoint that was read.
pub(crate) struct Found {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) contents: Contents,
}

/// What a checkpoint is made of.
pub(crate) struct Contents {
    pub(crate) weights: BTreeMap<String, Tensor>,
    pub(crate) average: Option<BTreeMap<String, Tensor>>,
    pub(crate) optimizer: BTreeMap<String, Tensor>,
    pub(crate) state: Value,
}

impl Checkpoints {
    /// The checkpoints below a run's folder.
    pub fn of_run(run_dir: impl AsRef<Path>) -> Self {
        Self { dir: run_dir.as_ref().join("checkpoint"), current: None }
    }

    /// The newest checkpoint, if there is any.
    ///
    /// # Errors
    /// The pointer file cannot be read or names no folder.
    pub fn last(&self) -> Result<Option<Checkpoint>> {
        self.pointed("last")
    }

    /// The checkpoint with the best validation loss, if a validation has been made.
    ///
    /// # Errors
    /// The pointer file cannot be read or names no folder.
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        self.pointed("best")
    }

    /// The checkpoint with this folder name.
    pub(crate) fn named(&self, name: &str) -> Checkpoint {
        Checkpoint { path: self.dir.join(name) }
    }

    fn pointed(&self, pointer: &str) -> Result<Option<Checkpoint>> {
        let path = self.dir.join(pointer);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        let name = text.trim_end();
        if parse_name(name).is_none() {
            let reason = format!("expected the name of a folder `step-...`, got {name:?}");
            return Err(Error::checkpoint(&path, reason));
        }
        let folder = self.dir.join(name);
        if !folder.is_dir() {
            return Err(Error::checkpoint(&path, format!("it names {name}, which is not there")));
        }
        Ok(Some(Checkpoint { path: folder }))
    }

    /// The newest checkpoint that can be read, and why newer ones cannot. `None` if there is none at all.
    ///
    /// # Errors
    /// There are checkpoints, but none that can be read: all reasons.
    pub(crate) fn newest_good(&self) -> Result<(Option<Found>, Vec<String>)> {
        let mut reasons = vec![];
        let mut candidates = vec![];
        match self.last() {
            Ok(last) => candidates.extend(last),
            Err(e) => reasons.push(e.to_string()),
        }
        let mut others = self.folders()?;
        others.reverse();
        for name in others {
            let path = self.dir.join(name);
            if candidates.first().is_none_or(|last| last.path != path) {
                candidates.push(Checkpoint { path });
            }
        }
        for checkpoint in candidates {
            match checkpoint.contents() {
                Ok(contents) => return Ok((Some(Found { checkpoint, contents }), reasons)),
                Err(e) => reasons.push(e.to_string()),
            }
        }
        if reasons.is_empty() {
            return Ok((None, reasons));
        }
        let reason = format!("no checkpoint can be read: {}", reasons.join("; "));
        Err(Error::checkpoint(&self.dir, reason))
    }

    /// Says which checkpoint training goes on from; clears what a crash left half-made, and points to it.
    pub(crate) fn resume_at(&mut self, name: &str, best: Option<&str>) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let path = entry.map_err(Error::io(&self.dir))?.path();
            if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".new-")) {
                files::remove_dir(&path)?;
            }
        }
        self.current = Some(Kept { name: name.into(), best: best.map(Into::into) });
        self.point(name, best)
    }

    /// An unused folder name for a checkpoint at `step`.
    pub(crate) fn next_name(&self, step: u64) -> Result<String> {
        let taken = self.folders()?;
        let plain = format!("step-{step:09}");
        let name = (1..).map(|k| format!("{plain}.{k}")).find(|n| !taken.contains(n));
        Ok(if taken.contains(&plain) { name.unwrap_or(plain) } else { plain })
    }

    /// Writes a checkpoint. `best` is the name of the best one (perhaps this one).
    pub(crate) fn save(
        &mut self,
        name: &str,
        best: Option<&str>,
        contents: &Contents,
    ) -> Result<()> {
        let files = contents.to_files()?;
        let temporary = self.dir.join(format!(".new-{name}"));
        files::remove_dir(&temporary)?;
        files::write_dir(&temporary, &files)?;
        let folder = self.dir.join(name);
        fs::rename(&temporary, &folder).map_err(Error::io(&folder))?;
        files::sync_dir(&self.dir)?;
        self.point(name, best)?;
        let kept = Kept { name: name.into(), best: best.map(Into::into) };
        let previous = self.current.replace(kept.clone());
        let keep: Vec<String> = [Some(kept), previous]
            .into_iter()
            .flatten()
            .flat_map(|k| std::iter::once(k.name).chain(k.best))
            .collect();
        for old in self.folders()?.into_iter().filter(|name| !keep.contains(name)) {
            files::remove_dir(&self.dir.join(old))?;
        }
        Ok(())
    }

    fn point(&self, last: &str, best: Option<&str>) -> Result<()> {
        if let Some(best) = best {
            self.point_one("best", best)?;
        }
        self.point_one("last", last)?;
        files::sync_dir(&self.dir)
    }

    fn point_one(&self, pointer: &str, name: &str) -> Result<()> {
        let (path, text) = (self.dir.join(pointer), format!("{name}\n"));
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        files::replace(&path, &text)
    }

    /// The folders of checkpoints, oldest first.
    fn folders(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            other => other.map_err(Error::io(&self.dir))?,
        };
        let mut found = vec![];
        for entry in entries {
            let name = entry.map_err(Error::io(&self.dir))?.file_name();
            let name = name.to_string_lossy().into_owned();
            if let Some(key) = parse_name(&name) {
                found.push((key, name));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }
}

/// Step and counter of a folder's name, `step-000001200` or `step-000001200.1`.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix("step-")?;
    let (step, k) = rest.split_once('.').unwrap_or((rest, "0"));
    Some((step.parse().ok()?, k.parse().ok()?))
}

impl Checkpoint {
    /// The checkpoint in this folder.
    ///
    /// # Errors
    /// Its list of files is missing or damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        files::names(&path)?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The weights to use: the moving average if the run keeps one, else the weights being trained.
    ///
    /// # Errors
    /// A file that is missing or damaged, with what was expected.
    pub fn weights(&self) -> Result<HashMap<String, Tensor>> {
        let averaged = files::names(&self.path)?.iter().any(|n| n == AVERAGE);
        let name = if averaged { AVERAGE } else { WEIGHTS };
        Ok(self.tensors(name)?.into_iter().collect())
    }

    /// Everything.
    pub(crate) fn contents(&self) -> Result<Contents> {
        let averaged = files::names(&self.path)?.iter().any(|n| n == AVERAGE);
        let state = files::read_file(&self.path, STATE)?;
        let state = serde_json::from_slice(&state)
            .map_err(|e| Error::checkpoint(self.path.join(STATE), e.to_string()))?;
        Ok(Contents {
            weights: self.tensors(WEIGHTS)?,
            average: if averaged { Some(self.tensors(AVERAGE)?) } else { None },
            optimizer: self.tensors(OPTIMIZER)?,
            state,
        })
    }

    fn tensors(&self, name: &str) -> Result<BTreeMap<String, Tensor>> {
        let bytes = files::read_file(&self.path, name)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| Error::checkpoint(self.path.join(name), e.to_string()))?;
        Ok(tensors.into_iter().collect())
    }
}

impl Contents {
    fn to_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let tensors = |tensors: &BTreeMap<String, Tensor>| -> Result<Vec<u8>> {
            let bytes = safetensors::serialize(tensors, None).map_err(candle_core::Error::from)?;
            Ok(bytes)
        };
        let mut files = vec![(WEIGHTS, tensors(&self.weights)?)];
        if let Some(average) = &self.average {
            files.push((AVERAGE, tensors(average)?));
        }
        files.push((OPTIMIZER, tensors(&self.optimizer)?));
        let state = format!("{:#}\n", self.state);
        files.push((STATE, state.into_bytes()));
        Ok(files)
    }
}

/// The weights of a checkpoint's folder or of a safetensors file.
pub(crate) fn weights_at(path: &Path) -> Result<HashMap<String, Tensor>> {
    if path.is_dir() {
        return Checkpoint::open(path)?.weights();
    }
    candle_core::safetensors::load(path, &Device::Cpu)
        .map_err(|e| Error::checkpoint(path, e.to_string()))
}

#[cfg(test)]
mod tests;
