//! Where models live: the CPU or a CUDA device.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use mnemic_train::cuda;

use crate::{Error, Result};

/// A device by name: `cpu`, `cuda` (the first one) or `cuda:N`.
///
/// ```
/// use mnemic_tasks::Place;
/// assert_eq!("cuda:1".parse::<Place>()?, Place::Cuda(1));
/// assert_eq!(Place::default().to_string(), "cpu");
/// assert!("gpu".parse::<Place>().is_err());
/// # Ok::<(), mnemic_tasks::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device by its number, counted from 0.
    Cuda(usize),
}

impl Place {
    /// Opens the device.
    ///
    /// # Errors
    /// When there is none of this number, its driver is missing, or the program was built without the feature `cuda`.
    pub fn open(self) -> Result<Device> {
        let Self::Cuda(ordinal) = self else { return Ok(Device::Cpu) };
        if !cfg!(feature = "cuda") {
            return Err(Error::request(format!(
                "device {self}: this program was built without CUDA; where nvcc is on the PATH, \
                 `cargo build --release -p mnemic-cli --features cuda` builds it with it"
            )));
        }
        cuda::device(ordinal).map_err(|e| Error::request(format!("device {self}: {e}")))
    }

    /// What is written beside results: nothing for the CPU, place and card for a CUDA device.
    pub fn describe(self, device: &Device) -> String {
        match self {
            Self::Cpu => String::new(),
            Self::Cuda(_) => match cuda::card(device) {
                Some(card) => format!("{self}, {card}"),
                None => self.to_string(),
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(ordinal)) => Ok(Self::Cuda(ordinal)),
            _ => {
                let reason = "expected cpu, cuda or cuda:N with the number of a device";
                Err(Error::request(format!("device `{text}`: {reason}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for text in ["cpu", "cuda:0", "cuda:12"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Place>().unwrap(), Place::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda1"] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_that_names_it() {
        assert!(Place::Cpu.open().unwrap().is_cpu());
        let error = Place::Cuda(4711).open().unwrap_err().to_string();
        assert!(error.contains("cuda:4711"), "{error}");
        assert!(cfg!(feature = "cuda") || error.contains("--features cuda"), "{error}");
    }
}
