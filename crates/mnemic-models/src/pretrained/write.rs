//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{CONFIG, WEIGHTS};
use crate::error::{Error, Result, shown};

/// Refuses what is not the plain name of a file in the folder.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    match plain {
        true => Ok(()),
        false => {
            let reason = "expected the plain name of a file in the folder";
            Err(Error::config(format!("file name `{}`", shown(name)), reason))
        }
    }
}

/// Checks the names of the extra files of a folder.
pub(super) fn check_names(extra: &[(&str, &str)]) -> Result<()> {
    for (i, (name, _)) in extra.iter().enumerate() {
        check_name(name)?;
        if [CONFIG, WEIGHTS].contains(name) || extra[..i].iter().any(|(n, _)| n == name) {
            let reason = "is written already: expected another name";
            return Err(Error::config(format!("file name `{name}`"), reason));
        }
    }
    Ok(())
}

/// Writes all files beside their places, and only then puts them there, in this order.
pub(super) fn write_all(dir: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let mut written = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let path = dir.join(name);
        if path.is_dir() {
            let source = std::io::Error::other("expected a file, found a folder");
            return Err(Error::Io { path, source });
        }
        // On any error the temporary files go away when they are dropped.
        written.push((temporary(dir, name, bytes).map_err(Error::io(&path))?, path));
    }
    for (file, path) in written {
        file.persist(&path).map_err(|e| Error::io(&path)(e.error))?;
    }
    // Only Unix can and needs to make the names durable.
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir))?;
    }
    Ok(())
}

fn temporary(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // A temporary file is private by default; the model is as readable as other new files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}
