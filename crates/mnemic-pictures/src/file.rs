//! Traces and heat maps as one versioned JSON document.

use serde::{Deserialize, Serialize};

use crate::{Error, HeatMap, QaTrace, Result};

/// The field `format` of every document.
pub(crate) const FORMAT: &str = "mnemic-pictures";
/// Highest version of the document that this crate reads, and the one that it writes.
pub(crate) const VERSION: u32 = 1;

/// What was recorded in one run, to be saved and drawn later.
///
/// The document is an object with the fields `format` (`"mnemic-pictures"`), `version` (1),
/// `traces` and `heat_maps`. NaN is written as `null`, infinities as `"inf"` and `"-inf"`.
/// `f32` weights come back bit for bit, `f64` probabilities to within one unit in the last place.
///
/// ```
/// use mnemic_pictures::{QaTrace, TraceFile};
///
/// let file = TraceFile { traces: vec![QaTrace::default()], ..TraceFile::default() };
/// assert_eq!(TraceFile::from_json(&file.to_json()?)?, file);
/// # Ok::<(), mnemic_pictures::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceFile {
    /// Answered questions.
    pub traces: Vec<QaTrace>,
    /// Heat maps.
    pub heat_maps: Vec<HeatMap>,
}

#[derive(Serialize)]
struct Out<'a> {
    format: &'a str,
    version: u32,
    traces: &'a [QaTrace],
    heat_maps: &'a [HeatMap],
}

/// Read before the content, which a later version may lay out differently.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    traces: Vec<QaTrace>,
    #[serde(default)]
    heat_maps: Vec<HeatMap>,
}

impl TraceFile {
    /// Writes the document.
    ///
    /// # Errors
    /// When a trace or heat map is inconsistent, see [`QaTrace::validate`] and
    /// [`HeatMap::validate`].
    pub fn to_json(&self) -> Result<String> {
        self.validate()?;
        let out = Out {
            format: FORMAT,
            version: VERSION,
            traces: &self.traces,
            heat_maps: &self.heat_maps,
        };
        Ok(serde_json::to_string_pretty(&out)?)
    }

    /// Reads a document and checks it.
    ///
    /// # Errors
    /// When the text is no such document, is of a later version, or holds an inconsistent trace.
    pub fn from_json(text: &str) -> Result<Self> {
        let head: Head = serde_json::from_str(text)?;
        if head.format != FORMAT {
            return Err(Error::Format { found: head.format });
        }
        if !(1..=VERSION).contains(&head.version) {
            return Err(Error::Version { found: head.version });
        }
        let body: Body = serde_json::from_str(text)?;
        let file = Self { traces: body.traces, heat_maps: body.heat_maps };
        file.validate()?;
        Ok(file)
    }

    fn validate(&self) -> Result<()> {
        self.traces.iter().try_for_each(QaTrace::validate)?;
        self.heat_maps.iter().try_for_each(HeatMap::validate)
    }
}
