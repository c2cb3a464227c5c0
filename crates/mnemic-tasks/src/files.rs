//! Writing files so that a crash never leaves half of one.

use std::io::Write;
use std::path::Path;

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
