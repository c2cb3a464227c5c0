//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The list of a checkpoint's files with their sizes and checksums.
pub(super) const LIST: &str = "crc32c.txt";
const HEADING: &str = "mnemic checkpoint 1";

/// Writes a new file. It is on the disk once [`File::sync_all`] has been called.
fn write(path: &Path, bytes: &[u8]) -> Result<File> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    write().map_err(Error::io(path))
}

/// Replaces a small file such that it holds either the old or the new text at any moment; its folder is not synced.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write(&temporary, text.as_bytes())?.sync_all().map_err(Error::io(&temporary))?;
    fs::rename(&temporary, path).map_err(Error::io(path))
}

/// Makes the entries of a folder durable. Only Unix can and needs to do so.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir))?;
    }
    Ok(())
}

/// Removes a folder if it is there.
pub(super) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(dir)(e)),
        _ => Ok(()),
    }
}

/// Writes files and their list into a new folder.
pub(super) fn write_dir(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let mut list = format!("{HEADING}, {} files\n", files.len());
    // Syncing after everything is written costs little more than syncing one file.
    let mut written = vec![];
    for (name, bytes) in files {
        written.push(write(&dir.join(name), bytes)?);
        list += &format!("{:08x} {} {name}\n", crc32c::crc32c(bytes), bytes.len());
    }
    written.push(write(&dir.join(LIST), list.as_bytes())?);
    for file in written {
        file.sync_all().map_err(Error::io(dir))?;
    }
    sync_dir(dir)
}

/// Reads one file of a folder, comparing it with the list.
pub(super) fn read_file(dir: &Path, name: &str) -> Result<Vec<u8>> {
    let Some((_, crc, length)) = read_list(dir)?.into_iter().find(|(n, _, _)| n == name) else {
        return Err(Error::checkpoint(dir, format!("expected a file {name}; {LIST} has none")));
    };
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::checkpoint(&path, format!("missing; expected {length} bytes")));
        }
        other => other.map_err(Error::io(&path))?,
    };
    if bytes.len() as u64 != length {
        let reason = format!("expected {length} bytes, got {}: cut off or changed", bytes.len());
        return Err(Error::checkpoint(&path, reason));
    }
    let found = crc32c::crc32c(&bytes);
    if found != crc {
        let reason = format!("damaged: expected CRC-32C {crc:08x}, got {found:08x}");
        return Err(Error::checkpoint(&path, reason));
    }
    Ok(bytes)
}

/// The names in a folder's list.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    Ok(read_list(dir)?.into_iter().map(|(name, _, _)| name).collect())
}

/// Name, checksum and length of every file.
fn read_list(dir: &Path) -> Result<Vec<(String, u32, u64)>> {
    let path = dir.join(LIST);
    let text = match fs::read_to_string(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::checkpoint(&path, "missing; the checkpoint is not complete"));
        }
        other => other.map_err(Error::io(&path))?,
    };
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let entries: Option<Vec<_>> = lines.map(parse_line).collect();
    match entries {
        Some(list) if heading == format!("{HEADING}, {} files", list.len()) => Ok(list),
        _ => {
            let expected = format!("expected `{HEADING}, N files` and N lines `CRC BYTES NAME`");
            Err(Error::checkpoint(
                &path,
                format!("{expected}, got `{heading}`: cut off or changed"),
            ))
        }
    }
}

fn parse_line(line: &str) -> Option<(String, u32, u64)> {
    let mut words = line.splitn(3, ' ');
    let crc = words.next().filter(|w| w.len() == 8)?;
    let (length, name) = (words.next()?.parse().ok()?, words.next()?);
    Some((name.to_string(), u32::from_str_radix(crc, 16).ok()?, length))
}
