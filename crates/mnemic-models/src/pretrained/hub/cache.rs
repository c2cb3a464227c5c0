//! The folders in which fetched files are kept.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};
use tempfile::NamedTempFile;

use super::id::{HubId, is_commit};
use crate::error::{Error, Result};

/// The folder of one repository.
pub(super) struct Cache {
    repo: hf_hub::CacheRepo,
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(root: &Path, id: &HubId) -> Self {
        let (name, revision) = (id.repository().to_string(), id.revision().to_string());
        let repo = Repo::with_revision(name, RepoType::Model, revision);
        let folder = root.join(repo.folder_name());
        Self { repo: hf_hub::Cache::new(root.to_path_buf()).repo(repo), folder }
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// The snapshot of a revision as far as the cache knows, if it is whole.
    pub(super) fn newest(&self, id: &HubId) -> Option<PathBuf> {
        let commit = match is_commit(id.revision()) {
            true => id.revision().to_string(),
            false => fs::read_to_string(self.reference(id)).ok()?.trim().to_string(),
        };
        // What a file says must not lead out of the cache.
        Some(self.snapshot(&commit)).filter(|dir| is_commit(&commit) && super::complete(dir))
    }

    fn reference(&self, id: &HubId) -> PathBuf {
        self.folder.join("refs").join(id.revision())
    }

    /// Notes which commit a branch or tag stands for.
    pub(super) fn point(&self, id: &HubId, commit: &str) -> Result<()> {
        let path = self.reference(id);
        if is_commit(id.revision()) || fs::read_to_string(&path).is_ok_and(|now| now == commit) {
            return Ok(());
        }
        let dir = path.parent().unwrap_or(&self.folder);
        let write = || {
            fs::create_dir_all(dir)?;
            let file = NamedTempFile::new_in(dir)?;
            fs::write(file.path(), commit)?;
            readable(&file)?;
            file.persist(&path).map_err(|e| e.error)
        };
        write().map(|_| ()).map_err(Error::io(&path))
    }

    /// The folder of files by their hash, made if need be.
    pub(super) fn blobs(&self) -> Result<PathBuf> {
        let dir = self.folder.join("blobs");
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(dir)
    }

    /// The file of a hash, if it is there with this size.
    pub(super) fn blob(&self, hash: &str, size: Option<u64>) -> Option<PathBuf> {
        let path = self.repo.blob_path(hash);
        let data = path.metadata().ok()?;
        (size? == data.len() && data.is_file()).then_some(path)
    }

    /// Takes in a whole file.
    pub(super) fn keep(&self, file: NamedTempFile, hash: &str) -> Result<PathBuf> {
        let path = self.repo.blob_path(hash);
        let keep = || {
            file.as_file().sync_all()?;
            readable(&file)?;
            file.persist(&path).map_err(|e| e.error)
        };
        keep().map_err(Error::io(&path))?;
        Ok(path)
    }

    /// Puts a file into a snapshot under its name, in place of what is there.
    pub(super) fn link(&self, blob: &Path, commit: &str, name: &str) -> Result<()> {
        let place = self.snapshot(commit).join(name);
        let dir = place.parent().unwrap_or(&self.folder);
        // From `snapshots/COMMIT/…/NAME` to `blobs/HASH`.
        let up = 2 + name.split('/').count() - 1;
        let hash = blob.file_name().unwrap_or_default();
        let target: PathBuf = std::iter::repeat_n("..", up).collect();
        let target = target.join("blobs").join(hash);
        let link = || {
            fs::create_dir_all(dir)?;
            // Made under another name and then renamed, so that the place is never empty or half written.
            let temporary = tempfile::TempDir::with_prefix_in(".link", dir)?;
            let made = temporary.path().join("link");
            make_link(&target, blob, &made)?;
            fs::rename(&made, &place)
        };
        link().map_err(Error::io(&place))
    }
}

#[cfg(unix)]
fn make_link(target: &Path, _blob: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

/// Links take a privilege there; a second name of the file does as well.
#[cfg(not(unix))]
fn make_link(_target: &Path, blob: &Path, place: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, place).or_else(|_| fs::copy(blob, place).map(|_| ()))
}

/// Temporary files are private; those of the cache are as readable as other files.
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
    }
    let _ = file;
    Ok(())
}
