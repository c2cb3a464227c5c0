//! Finding and reading the official release, unpacked or in `.tar.gz` archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::edition::{Edition, FileKind, Split};
use super::example::{Example, examples};
use super::parse::parse_stories;
use super::split::split_by_question;
use super::story::Story;
use super::task::Task;
use crate::{Error, Result};

/// A place that holds official bAbI files (or files of the same form), with an index of them.
///
/// ```no_run
/// use mnemic_data::babi::{BabiSource, Edition, Split, Task};
/// let source = BabiSource::open("tasks_1-20_v1-2.tar.gz")?;
/// let stories = source.stories(Edition::En, Task::new(1)?, Split::Train)?;
/// println!("{} stories, the first is:\n{}", stories.len(), stories[0]);
/// # Ok::<(), mnemic_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BabiSource {
    path: PathBuf,
    files: BTreeMap<FileId, Location>,
}

/// An edition and the name of a file in it.
type FileId = (Edition, String);

#[derive(Debug, Clone)]
enum Location {
    File(PathBuf),
    Member { archive: PathBuf, member: PathBuf },
}

impl BabiSource {
    /// Opens a folder or a `.tar.gz` archive. A folder may be
    ///
    /// * `tasks_1-20_v1-2`, which holds the edition folders, or a folder that holds it;
    /// * an edition folder itself. A folder of another name with files named like those of `en` is
    ///   taken for the edition `en`, with files named like those of `en-valid` for `en-valid`;
    /// * a folder with `.tar.gz` (or `.tgz`) archives. All of them are used; an unpacked file goes
    ///   before one in an archive.
    ///
    /// Archives are read as streams and never unpacked to disk. In an archive a file counts
    /// wherever it lies, if the folder right above it is an edition.
    ///
    /// # Errors
    /// Nothing can be read there, or there is no bAbI file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut source = Self { path: path.into(), files: BTreeMap::new() };
        let metadata = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if metadata.is_dir() {
            source.add_folder(path)?;
        } else {
            source.add_archive(path)?;
        }
        if source.files.is_empty() {
            return Err(Error::NoData { path: path.into() });
        }
        Ok(source)
    }

    /// The editions of which at least one file is there.
    pub fn editions(&self) -> Vec<Edition> {
        let mut editions: Vec<_> = self.files.keys().map(|(edition, _)| *edition).collect();
        editions.dedup();
        editions
    }

    /// Whether all files for a split of a task are there.
    pub fn has(&self, edition: Edition, task: Task, split: Split) -> bool {
        file_ids(edition, task, split).all(|id| self.files.contains_key(&id))
    }

    /// The stories of a split, in file order; [`Split`] says how the editions without validation
    /// files are split.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the edition or the task's file is not there, and the errors of
    /// [`parse_stories`].
    pub fn stories(&self, edition: Edition, task: Task, split: Split) -> Result<Vec<Story>> {
        let mut stories = self.stories_of(edition, &[task], split)?;
        Ok(stories.pop().unwrap_or_default())
    }

    /// As [`stories`](Self::stories) for several tasks; each archive is read only once.
    ///
    /// # Errors
    /// As [`stories`](Self::stories).
    pub fn stories_of(
        &self,
        edition: Edition,
        tasks: &[Task],
        split: Split,
    ) -> Result<Vec<Vec<Story>>> {
        let ids: Vec<FileId> =
            tasks.iter().flat_map(|&task| file_ids(edition, task, split)).collect();
        let mut files = self.read(&ids)?;
        let mut stories = Vec::with_capacity(tasks.len());
        for (i, &task) in tasks.iter().enumerate() {
            let repeated = tasks[i + 1..].contains(&task);
            let mut all = Vec::new();
            for id in file_ids(edition, task, split) {
                let file = if repeated { files.get(&id).cloned() } else { files.remove(&id) };
                all.extend(file.unwrap_or_default());
            }
            stories.push(match split {
                Split::Train if !edition.has_valid_files() => split_by_question(all).0,
                Split::Valid if !edition.has_valid_files() => split_by_question(all).1,
                _ => all,
            });
        }
        Ok(stories)
    }

    /// Reads and parses files, going through each archive once.
    fn read(&self, ids: &[FileId]) -> Result<BTreeMap<FileId, Vec<Story>>> {
        let mut files = BTreeMap::new();
        let mut members: BTreeMap<&Path, BTreeMap<&Path, FileId>> = BTreeMap::new();
        for id in ids {
            match self.files.get(id) {
                None => return Err(self.missing(id)),
                Some(Location::File(path)) => {
                    let file = File::open(path).map_err(|e| Error::io(path, e))?;
                    let stories = parse_stories(&path.display().to_string(), BufReader::new(file))?;
                    files.insert(id.clone(), stories);
                }
                Some(Location::Member { archive, member }) => {
                    members.entry(archive).or_default().insert(member, id.clone());
                }
            }
        }
        for (archive, mut wanted) in members {
            visit_members(archive, |member, reader| {
                let Some(id) = wanted.remove(member) else { return Ok(true) };
                let name = format!("{}:{}", archive.display(), member.display());
                files.insert(id, parse_stories(&name, BufReader::new(reader))?);
                Ok(!wanted.is_empty())
            })?;
            if let Some(id) = wanted.into_values().next() {
                return Err(self.missing(&id));
            }
        }
        Ok(files)
    }

    fn missing(&self, (edition, name): &FileId) -> Error {
        Error::MissingFile {
            file: format!("{edition}/{name}"),
            path: self.path.clone(),
            editions: self.editions(),
        }
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let names = known_names();
        // An edition folder itself. The name of `.` is only known once it is resolved.
        let resolved = fs::canonicalize(folder).map_err(|e| Error::io(folder, e))?;
        let edition = edition_named(&resolved);
        self.add_edition(folder, edition, &names)?;
        let mut archives = Vec::new();
        for child in children(folder)? {
            if child.is_dir() {
                match edition_named(&child) {
                    Some(edition) => self.add_edition(&child, Some(edition), &names)?,
                    None => self.add_release(&child, &names)?,
                }
            } else if is_archive(&child) {
                archives.push(child);
            }
        }
        archives.iter().try_for_each(|archive| self.add_archive(archive))
    }

    /// Adds the edition folders that lie in a folder.
    fn add_release(&mut self, folder: &Path, names: &BTreeMap<String, Edition>) -> Result<()> {
        for edition in Edition::ALL {
            let child = folder.join(edition.name());
            if child.is_dir() {
                self.add_edition(&child, Some(edition), names)?;
            }
        }
        Ok(())
    }

    /// Adds the files of a folder; without an edition they go by the form of their names.
    fn add_edition(
        &mut self,
        folder: &Path,
        edition: Option<Edition>,
        names: &BTreeMap<String, Edition>,
    ) -> Result<()> {
        for path in children(folder)? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let Some(&form) = names.get(name) else { continue };
            let edition = edition.unwrap_or(form);
            if edition.has_valid_files() == form.has_valid_files() && path.is_file() {
                let id = (edition, name.to_string());
                self.files.entry(id).or_insert(Location::File(path));
            }
        }
        Ok(())
    }

    fn add_archive(&mut self, archive: &Path) -> Result<()> {
        let names = known_names();
        visit_members(archive, |member, _| {
            let name = member.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let edition = member.parent().and_then(edition_named);
            if let (Some(edition), Some(form)) = (edition, names.get(name))
                && edition.has_valid_files() == form.has_valid_files()
            {
                self.files.entry((edition, name.into())).or_insert_with(|| Location::Member {
                    archive: archive.into(),
                    member: member.into(),
                });
            }
            Ok(true)
        })
    }
}

/// Reads several tasks as one list of examples, task after task.
///
/// # Errors
/// As [`BabiSource::stories`].
pub fn load_examples(
    source: &BabiSource,
    edition: Edition,
    tasks: &[Task],
    split: Split,
) -> Result<Vec<Example>> {
    let stories = source.stories_of(edition, tasks, split)?;
    Ok(tasks.iter().zip(&stories).flat_map(|(&task, stories)| examples(task, stories)).collect())
}

fn file_ids(edition: Edition, task: Task, split: Split) -> impl Iterator<Item = FileId> {
    let kinds = split.files(edition).iter();
    kinds.filter_map(move |&kind| Some((edition, task.file_name(edition, kind)?)))
}

/// Every official file name with the first edition that uses names of its form.
fn known_names() -> BTreeMap<String, Edition> {
    let mut names = BTreeMap::new();
    for edition in [Edition::En, Edition::EnValid] {
        for task in Task::all() {
            let of_task = FileKind::ALL.iter().filter_map(|&kind| task.file_name(edition, kind));
            names.extend(of_task.map(|name| (name, edition)));
        }
    }
    names
}

fn edition_named(folder: &Path) -> Option<Edition> {
    let name = folder.file_name()?.to_str()?;
    Edition::ALL.into_iter().find(|edition| edition.name() == name)
}

/// The entries of a folder in the order of their names.
fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(folder, e);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<_> =
        entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn is_archive(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// Calls `visit` with path and contents of each regular file of an archive, until it returns
/// `Ok(false)`.
fn visit_members(
    archive: &Path,
    mut visit: impl FnMut(&Path, &mut dyn Read) -> Result<bool>,
) -> Result<()> {
    let failed = |e| Error::io(archive, e);
    let file = File::open(archive).map_err(failed)?;
    let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    for entry in tar.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.header().entry_type().is_file() {
            let member = entry.path().map_err(failed)?.into_owned();
            if !visit(&member, &mut entry)? {
                break;
            }
        }
    }
    Ok(())
}
