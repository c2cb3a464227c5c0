//! What can go wrong around a model: its config, its folder, its weights.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of what reads and writes configs and folders. Forward passes return candle's own result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong when a model is chosen, built, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A config, or what is asked of one, makes no sense.
    #[error("{place}: {reason}")]
    Config {
        /// The file, config or argument.
        place: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The tensors of a file or store are not those of the model.
    #[error(transparent)]
    Weights(#[from] Box<WeightsMismatch>),
    /// A file is malformed or cut off, or holds values that no model can use.
    #[error("{}: {reason}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn config(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { place: place.into(), reason: reason.into() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(file: &Path, reason: impl Into<String>) -> Self {
        Self::Format { file: file.to_path_buf(), reason: reason.into() }
    }

    /// The error with another place, if it is one of a config.
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::Config { place, reason } => {
                Self::Config { place: format!("{}: {place}", path.display()), reason }
            }
            other => other,
        }
    }
}

/// Every tensor that is missing, left over or of another shape. All are listed here; the message names the first ten of
/// each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightsMismatch {
    /// Where the weights are, or were to be written.
    pub file: PathBuf,
    /// Parameters of the model that are not there.
    pub missing: Vec<MissingTensor>,
    /// Tensors that the model has no place for.
    pub unused: Vec<UnusedTensor>,
    /// Tensors of another shape than the model's parameter.
    pub misshapen: Vec<MisshapenTensor>,
}

/// A parameter of the model that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTensor {
    /// Its name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// The unused tensor whose name is most like it.
    pub near: Option<String>,
}

/// A tensor that the model has no place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub found: Vec<usize>,
    /// The missing parameter whose name is most like it.
    pub near: Option<String>,
}

/// A tensor of another shape than the model's parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisshapenTensor {
    /// Its name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// Its own shape.
    pub found: Vec<usize>,
}

impl WeightsMismatch {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misshapen.is_empty()
    }

    /// Adds near names to what the message shows; a hostile file may hold too many for all.
    pub(crate) fn with_near_names(mut self) -> Self {
        let missing: Vec<_> = self.missing.iter().map(|t| t.name.clone()).collect();
        let unused: Vec<_> = self.unused.iter().map(|t| t.name.clone()).collect();
        let near_in = |name: &str, names: &[String]| {
            near(name, names.iter().take(1000).map(String::as_str)).map(String::from)
        };
        for tensor in self.missing.iter_mut().take(SHOWN) {
            tensor.near = near_in(&tensor.name, &unused);
        }
        for tensor in self.unused.iter_mut().take(SHOWN) {
            tensor.near = near_in(&tensor.name, &missing);
        }
        self
    }
}

/// Tensors of each kind that a message names.
const SHOWN: usize = 10;

impl fmt::Display for WeightsMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, u, s) = (self.missing.len(), self.unused.len(), self.misshapen.len());
        let file = self.file.display();
        write!(f, "{file}: weights do not fit the config: {m} missing, {u} unused, {s} misshapen")?;
        let near = |near: &Option<String>, is: &str| match near {
            Some(name) => format!(" ({is} `{}`?)", shown(name)),
            None => String::new(),
        };
        for t in self.missing.iter().take(SHOWN) {
            let near = near(&t.near, "called");
            write!(f, "\n  missing: `{}`, expected {}{near}", shown(&t.name), Dims(&t.expected))?;
        }
        more(f, m, "missing")?;
        for t in self.unused.iter().take(SHOWN) {
            let near = near(&t.near, "meant for");
            write!(f, "\n  unused: `{}`, found {}{near}", shown(&t.name), Dims(&t.found))?;
        }
        more(f, u, "unused")?;
        for t in self.misshapen.iter().take(SHOWN) {
            let (expected, found) = (Dims(&t.expected), Dims(&t.found));
            write!(f, "\n  misshapen: `{}`, expected {expected}, found {found}", shown(&t.name))?;
        }
        more(f, s, "misshapen")
    }
}

impl std::error::Error for WeightsMismatch {}

fn more(f: &mut fmt::Formatter<'_>, count: usize, kind: &str) -> fmt::Result {
    match count.checked_sub(SHOWN) {
        None | Some(0) => Ok(()),
        Some(left) => write!(f, "\n  and {left} more {kind}"),
    }
}

/// A shape as `(2, 3)`.
struct Dims<'a>(&'a [usize]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dims: Vec<String> = self.0.iter().take(9).map(usize::to_string).collect();
        if self.0.len() > 8 {
            dims[8] = "…".to_string();
        }
        write!(f, "({})", dims.join(", "))
    }
}

/// A name from a file as it may stand in a message: short and without control characters.
pub(crate) fn shown(name: &str) -> String {
    let mut out: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

/// The candidate that is most like `name`, if one is like it at all.
pub(crate) fn near<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The time to compare grows with the product of the lengths, and names come from files.
    let short = |s: &str| s.len() <= 200;
    candidates
        .into_iter()
        .filter(|c| short(c) && short(name))
        .map(|c| (strsim::normalized_damerau_levenshtein(name, c), c))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// ``unknown KIND `NAME`; did you mean `NEAR`? Known: …``
pub(crate) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let near = match near(name, known.iter().copied()) {
        Some(near) => format!(", did you mean `{near}`?"),
        None => ";".to_string(),
    };
    format!("unknown {kind} `{}`{near} known: {}", shown(name), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_lists_shapes_and_near_names_and_stops_at_ten() {
        let unused = |name: &str| UnusedTensor { name: name.into(), found: vec![7], near: None };
        let mut all: Vec<_> = (0..25).map(|i| unused(&format!("extra.{i}"))).collect();
        all[0] = unused("answr.weight");
        let mismatch = WeightsMismatch {
            file: "m.safetensors".into(),
            missing: vec![MissingTensor {
                name: "answer.weight".into(),
                expected: vec![6, 8],
                near: None,
            }],
            unused: all,
            misshapen: vec![MisshapenTensor { name: "b".into(), expected: vec![2], found: vec![] }],
        };
        let text = Error::from(Box::new(mismatch.with_near_names())).to_string();
        assert!(
            text.starts_with(
                "m.safetensors: weights do not fit the config: 1 missing, 25 unused, 1 "
            )
        );
        assert!(
            text.contains("missing: `answer.weight`, expected (6, 8) (called `answr.weight`?)")
        );
        assert!(text.contains("unused: `answr.weight`, found (7) (meant for `answer.weight`?)"));
        assert!(text.contains("misshapen: `b`, expected (2), found ()"));
        assert!(text.contains("and 15 more unused") && !text.contains("extra.10"), "{text}");
    }

    #[test]
    fn hostile_names_stay_short_and_printable() {
        let name = "\u{1b}[31m".to_string() + &"x".repeat(1 << 20);
        assert!(shown(&name).starts_with("\\u{1b}[31m") && shown(&name).len() < 100);
        assert_eq!(near(&name, [name.as_str()]), None);
        assert_eq!(Dims(&[1; 100]).to_string(), "(1, 1, 1, 1, 1, 1, 1, 1, …)");
    }

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let text = unknown("preset", "dmn_pluss", &["dmn2", "dmn_plus"]);
        assert_eq!(
            text,
            "unknown preset `dmn_pluss`, did you mean `dmn_plus`? known: dmn2, dmn_plus"
        );
        assert_eq!(unknown("key", "zzz", &["a"]), "unknown key `zzz`; known: a");
    }
}
