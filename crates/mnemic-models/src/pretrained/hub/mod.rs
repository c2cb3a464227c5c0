//! Checkpoints by their id on the Hugging Face hub, fetched into the cache that Python's `huggingface_hub` uses as well.
//!
//! The cache is laid out as the `hf-hub` crate and
//! [huggingface_hub](https://huggingface.co/docs/huggingface_hub/guides/manage-cache) have it: `models--OWNER--NAME` with `blobs` (files by
//! their hash), `snapshots/COMMIT` (links to blobs under the names of the repository) and `refs/REVISION` (the commit that a branch
//! or tag last stood for). Downloading is our own, since that of `hf-hub` 0.5 compares no sizes, sends the token to whatever host
//! the hub redirects to, and panics on some answers.

mod cache;
mod client;
mod files;
mod id;
mod options;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use self::cache::Cache;
use self::client::{Client, Failure};
use self::files::Listing;
pub use self::id::HubId;
pub use self::options::HubOptions;
use super::sharded;
use super::weights::CANDIDATES;
use crate::error::{Error, Result, shown};

/// Fetches what loading a model takes and gives the folder that holds it: configs, vocabularies and tokenizers, the folders of
/// sentence-transformers' modules, and the weights, as safetensors if there are any, all shards of an index.
///
/// Files that the cache holds with the size that the hub declares are not fetched again. Without a network, or while the hub
/// does not answer, the cache alone is used, if it holds config and weights of the revision. A file enters the cache when all of it
/// is there: what breaks off leaves nothing.
///
/// ```no_run
/// use mnemic_models::{HubId, HubOptions, fetch};
/// let id = HubId::parse("google-bert/bert-base-uncased@main")?;
/// let folder = fetch(&id, &HubOptions::from_env()?)?;
/// # Ok::<(), mnemic_models::Error>(())
/// ```
///
/// # Errors
/// When there is no such repository or revision, it may not be read with this token, it holds no weights that are read, a file
/// comes cut off or with another size than declared, the cache cannot be written, or the hub is not asked or does not answer and the
/// cache does not hold the revision.
pub fn fetch(id: &HubId, options: &HubOptions) -> Result<PathBuf> {
    let cache = Cache::new(&options.cache, id);
    let cached = |why: &str| match cache.newest(id) {
        Some(dir) => Ok(dir),
        None => {
            let cache = options.cache.display();
            let reason = format!("{why}, and the cache {cache} does not hold it whole");
            Err(Error::config(id.to_string(), reason))
        }
    };
    if options.offline {
        return cached("HF_HUB_OFFLINE is set");
    }
    let client = Client::new(options, id)?;
    let listing = match client.listing() {
        Ok(listing) => listing,
        Err(Failure::Unreachable(reason)) => return cached(&reason),
        Err(Failure::Refused(reason)) => return Err(Error::config(id.to_string(), reason)),
    };
    let fetcher = Fetcher { id, cache: &cache, client: &client, listing: &listing };
    // The weights come last: a snapshot that has them was fetched whole.
    for name in listing.texts() {
        fetcher.file(&name)?;
    }
    fetcher.weights()?;
    cache.point(id, &listing.commit)?;
    Ok(cache.snapshot(&listing.commit))
}

struct Fetcher<'a> {
    id: &'a HubId,
    cache: &'a Cache,
    client: &'a Client<'a>,
    listing: &'a Listing,
}

impl Fetcher<'_> {
    /// Fetches a file, unless the cache has it, and gives its place in the snapshot.
    fn file(&self, name: &str) -> Result<PathBuf> {
        let Some(remote) = self.listing.files.get(name) else {
            return Err(self.problem(format!("{} is not in the repository", shown(name))));
        };
        let commit = &self.listing.commit;
        let place = self.cache.snapshot(commit).join(name);
        let size = place.metadata().ok().filter(|data| data.is_file()).map(|data| data.len());
        if size.is_some_and(|size| remote.size.is_none_or(|declared| declared == size)) {
            return Ok(place);
        }
        let blob = match remote.hash.as_deref().and_then(|hash| self.cache.blob(hash, remote.size))
        {
            Some(blob) => blob,
            None => {
                let fetched = self.client.download(commit, name, remote, self.cache.blobs()?);
                let (file, hash) = fetched.map_err(|e| match e {
                    Failure::Unreachable(reason) | Failure::Refused(reason) => self.problem(reason),
                })?;
                self.cache.keep(file, &hash)?
            }
        };
        self.cache.link(&blob, commit, name)?;
        Ok(place)
    }

    /// Fetches the weights of the repository and of its modules.
    fn weights(&self) -> Result<()> {
        let mut any = false;
        for folder in self.listing.folders() {
            let names = CANDIDATES.iter().map(|name| format!("{folder}{name}"));
            let Some(name) = names.into_iter().find(|n| self.listing.files.contains_key(n)) else {
                continue;
            };
            any = true;
            let path = self.file(&name)?;
            if name.ends_with(".index.json") {
                for shard in sharded::files_of(&path)? {
                    self.file(&format!("{folder}{shard}"))?;
                }
            }
        }
        match any {
            true => Ok(()),
            false => {
                let reason = format!(
                    "no weights: expected one of {}{}",
                    CANDIDATES.join(", "),
                    self.listing.other_weights()
                );
                Err(self.problem(reason))
            }
        }
    }

    fn problem(&self, reason: String) -> Error {
        Error::config(self.id.to_string(), reason)
    }
}

/// Whether a snapshot has what loading begins with: a config, and weights with all their shards, in the folder itself or in that of
/// a module.
fn complete(dir: &Path) -> bool {
    let whole = |folder: &Path| match super::weights::find(folder) {
        Some(path) if path.to_string_lossy().ends_with(".index.json") => sharded::files_of(&path)
            .is_ok_and(|files| files.iter().all(|file| folder.join(file).is_file())),
        Some(path) => path.is_file(),
        None => false,
    };
    let modules = || {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let numbered = |name: &str| name.starts_with(|c: char| c.is_ascii_digit());
        entries.filter(move |e| numbered(&e.file_name().to_string_lossy())).map(|e| e.path())
    };
    let described = ["config.json", "modules.json"].iter().any(|name| dir.join(name).is_file());
    described && (whole(dir) || modules().any(|module| whole(&module)))
}
