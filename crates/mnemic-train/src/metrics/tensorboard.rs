//! TensorBoard's event files: TFRecord frames around protobuf messages.
//!
//! A frame is the length of its message (u64), a masked CRC-32C of these eight bytes, the message, and a masked CRC-32C of
//! that, all little-endian. Messages and field numbers: `Event {1: wall_time double, 2: step int64, 3: file_version
//! string, 5: summary}`, `Summary {1: repeated Value}`, `Value {1: tag string, 2: simple_value float}`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::log_file::LogFile;
use crate::error::Result;

pub(super) struct EventFile(LogFile);

impl EventFile {
    /// The event file in this folder. It has one name, so that a resumed run goes on in the same file.
    pub(super) fn open(dir: &Path, length: u64, warnings: &mut Vec<String>) -> Result<Self> {
        let log = LogFile::open(&dir.join("events.out.tfevents.0.mnemic"), length, warnings)?;
        let mut file = Self(log);
        if file.0.length() == 0 {
            file.0.append(&frame(&version_event(now())))?;
        }
        Ok(file)
    }

    pub(super) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        self.0.append(&frame(&scalar_event(now(), step, values)))
    }

    pub(super) fn length(&self) -> u64 {
        self.0.length()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0., |d| d.as_secs_f64())
}

fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = vec![];
    double(&mut event, 1, wall_time);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

fn scalar_event(wall_time: f64, step: u64, values: &[(String, f64)]) -> Vec<u8> {
    let mut summary = vec![];
    for (tag, value) in values {
        let mut entry = vec![];
        bytes(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, 5);
        entry.extend((*value as f32).to_le_bytes());
        bytes(&mut summary, 1, &entry);
    }
    let mut event = vec![];
    double(&mut event, 1, wall_time);
    key(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut frame = length.to_vec();
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend(message);
    frame.extend(masked_crc(message).to_le_bytes());
    frame
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field's number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes).
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn double(out: &mut Vec<u8>, field: u64, x: f64) {
    key(out, field, 1);
    out.extend(x.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, x: &[u8]) {
    key(out, field, 2);
    varint(out, x.len() as u64);
    out.extend(x);
}

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn golden_bytes() {
        let version = frame(&version_event(1.5));
        assert_eq!(hex(&version), GOLDEN_VERSION);
        let values = [("train/loss".to_string(), 0.25), ("validation/error".to_string(), 1.)];
        assert_eq!(hex(&frame(&scalar_event(2.5, 300, &values))), GOLDEN_SCALARS);
    }

    // Written by the `tensorboard` package 2.21 (`RecordWriter` around `Event.SerializeToString()`).
    const GOLDEN_VERSION: &str =
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
    const GOLDEN_SCALARS: &str = "3a000000000000001295eae209000000000000044010ac022a2c0a110a0a747261696e2f6c6f7373\
        150000803e0a170a1076616c69646174696f6e2f6572726f72150000803fc4bf3eaf";
}
