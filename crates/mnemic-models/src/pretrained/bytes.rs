//! A file whose bytes are read piece by piece, each piece checked against the file's length before memory is taken.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};

/// What bytes are read from.
pub(super) trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// The bytes of a file, or of memory that stands for one.
///
/// The file stays open, so that a file that is replaced meanwhile is not mixed with its successor.
pub(super) struct Bytes {
    path: PathBuf,
    length: u64,
    source: Mutex<Box<dyn Source>>,
}

impl Bytes {
    /// Opens a regular file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let open = || {
            // Devices and pipes have no end, and opening a pipe waits.
            if !std::fs::metadata(path)?.is_file() {
                return Err(std::io::Error::other("expected a regular file"));
            }
            let file = File::open(path)?;
            Ok((file.metadata()?.len(), file))
        };
        let (length, file) = open().map_err(Error::io(path))?;
        Ok(Self { path: path.to_path_buf(), length, source: Mutex::new(Box::new(file)) })
    }

    /// Bytes in memory; `path` names them in errors.
    pub(super) fn from_memory(path: &Path, bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u64;
        let source = Mutex::new(Box::new(Cursor::new(bytes)) as Box<dyn Source>);
        Self { path: path.to_path_buf(), length, source }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The source itself, at an unknown position.
    pub(super) fn source(&self) -> MutexGuard<'_, Box<dyn Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `count` bytes from position `from` on.
    pub(super) fn read(&self, from: u64, count: u64) -> Result<Vec<u8>> {
        let end = from.checked_add(count).filter(|end| *end <= self.length);
        let (Some(_), Ok(size)) = (end, usize::try_from(count)) else {
            let reason =
                format!("{count} bytes from byte {from} on, but the file has {}", self.length);
            return Err(Error::format(&self.path, reason));
        };
        let mut bytes = Vec::new();
        let read = || {
            bytes.try_reserve_exact(size).map_err(std::io::Error::other)?;
            let mut source = self.source();
            source.seek(SeekFrom::Start(from))?;
            let read = source.by_ref().take(count).read_to_end(&mut bytes)?;
            match read == size {
                true => Ok(bytes),
                false => Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        };
        read().map_err(Error::io(&self.path))
    }
}

/// A tensor in the host's memory from its bytes, little-endian and in order of the last dimension first.
pub(super) fn tensor(bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?)
}

/// The number of elements of `shape`, if neither it nor a part of it overflows: strides are products over parts.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let all = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    isize::try_from(all).ok()?;
    Some(if shape.contains(&0) { 0 } else { all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_within_the_file() {
        let bytes = Bytes::from_memory(Path::new("x"), vec![1, 2, 3, 4]);
        assert_eq!(bytes.read(1, 2).unwrap(), [2, 3]);
        assert!(bytes.read(4, 0).unwrap().is_empty());
        for (from, count) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 2), (1, u64::MAX)] {
            let error = bytes.read(from, count).unwrap_err().to_string();
            assert!(error.starts_with("x: ") && error.contains("the file has 4"), "{error}");
        }
    }

    #[test]
    fn elements_overflow_even_beside_a_zero() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[2, 3]), Some(6));
        assert_eq!(elements(&[2, 0]), Some(0));
        assert_eq!(elements(&[0, usize::MAX, 2]), None);
        assert_eq!(elements(&[usize::MAX]), None);
    }
}
