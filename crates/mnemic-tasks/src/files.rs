//! Finding recipes, and writing files so that a crash never leaves half of one.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes `bytes` to a temporary file beside `path` and renames it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let failed = || Error::io(path);
    let mut builder = tempfile::Builder::new();
    // As any other new file (less the umask), not as a secret one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(failed())?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed())?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    Ok(())
}

/// Writes a text that a user asked for, such as a page: atomically, making its folder where there is none.
///
/// # Errors
/// When the file cannot be written, naming it.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent()
        && !folder.as_os_str().is_empty()
    {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    write(path, text.as_bytes())
}

/// All recipe files below a folder, by path. Copies of recipes beside trained weights (`recipe.toml`) are left out.
pub(crate) fn recipes_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![folder.to_path_buf()];
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let other = ["index.toml", "recipe.toml"].iter().any(|name| path.ends_with(name));
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "toml") && !other {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}
