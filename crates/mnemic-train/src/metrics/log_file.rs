//! A file that only grows, and can be cut back to where a checkpoint saw it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LogFile {
    /// Opens or makes the file and cuts it to `length` bytes.
    pub(super) fn open(path: &Path, length: u64, warnings: &mut Vec<String>) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(Error::io(dir))?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io(path))?;
        let found = file.metadata().map_err(Error::io(path))?.len();
        if found < length {
            let path = path.display();
            warnings.push(format!("{path} has {found} bytes where {length} were written"));
        }
        let length = found.min(length);
        file.set_len(length).map_err(Error::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        Ok(Self { path: path.to_path_buf(), file, length })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_cut_back_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/log");
        let mut warnings = vec![];
        let mut log = LogFile::open(&path, 0, &mut warnings).unwrap();
        log.append(b"one\n").unwrap();
        let length = log.length();
        log.append(b"lost\n").unwrap();
        let mut log = LogFile::open(&path, length, &mut warnings).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), log.length()), ("one\ntwo\n", 8));
        assert!(warnings.is_empty());
        LogFile::open(&path, 100, &mut warnings).unwrap();
        assert!(warnings[0].contains("has 8 bytes where 100"), "{warnings:?}");
    }
}
