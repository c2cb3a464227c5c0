//! What can be wrong with data handed over for drawing.

/// Why a trace, heat map or curve cannot be drawn, or a file of traces cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pass has more or fewer weights than the story has sentences.
    #[error(
        "trace {trace:?}, {pass:?}: expected one weight per sentence, got {weights} weights for \
         {sentences} sentences"
    )]
    WeightCount {
        /// Title of the trace.
        trace: String,
        /// Name of the pass.
        pass: String,
        /// Number of weights in the pass.
        weights: usize,
        /// Number of sentences in the story.
        sentences: usize,
    },
    /// A supporting fact points past the end of the story.
    #[error(
        "trace {trace:?}: supporting fact {support} is not a sentence index, expected 0 to \
         {sentences} (exclusive)"
    )]
    SupportIndex {
        /// Title of the trace.
        trace: String,
        /// The index that is out of range, counted from 0.
        support: usize,
        /// Number of sentences in the story.
        sentences: usize,
    },
    /// A heat map has more or fewer values than cells.
    #[error(
        "heat map {title:?}: expected {rows} rows x {cols} columns = {} values, got {values}",
        .rows * .cols
    )]
    CellCount {
        /// Title of the heat map.
        title: String,
        /// Number of row names.
        rows: usize,
        /// Number of column names.
        cols: usize,
        /// Number of values.
        values: usize,
    },
    /// Maps of heads have no layer, or a layer has no head.
    #[error("attention maps {title:?}{}: expected at least one {}", layer.as_ref().map(|l| format!(", {l:?}")).unwrap_or_default(), if layer.is_some() { "head" } else { "layer" })]
    NoHeads {
        /// Title of the maps.
        title: String,
        /// The layer without heads; `None` where there is no layer.
        layer: Option<String>,
    },
    /// A head has more or fewer weights than cells.
    #[error(
        "attention maps {title:?}, {layer:?}, head {head}: expected {rows} rows x {cols} columns = {} weights, got {weights}",
        .rows * .cols
    )]
    HeadCellCount {
        /// Title of the maps.
        title: String,
        /// Name of the layer.
        layer: String,
        /// The head, counted from 1.
        head: usize,
        /// Number of row names.
        rows: usize,
        /// Number of column names.
        cols: usize,
        /// Number of weights.
        weights: usize,
    },
    /// A weight of a head is none.
    #[error(
        "attention maps {title:?}, {layer:?}, head {head}: expected weights from 0 to 1, got {weight}"
    )]
    HeadWeight {
        /// Title of the maps.
        title: String,
        /// Name of the layer.
        layer: String,
        /// The head, counted from 1.
        head: usize,
        /// The weight.
        weight: f32,
    },
    /// A JSON document is not a file of traces.
    #[error("expected the JSON of a {} file: {message}", crate::FORMAT)]
    Json {
        /// What is wrong, with line and column.
        message: String,
    },
    /// A JSON document says that it is something else.
    #[error("expected a document with format {:?}, got {found:?}", crate::FORMAT)]
    Format {
        /// What the field `format` of the document says.
        found: String,
    },
    /// A JSON document was written by a later version of this crate.
    #[error(
        "expected a {} file of version 1 to {}, got version {found}",
        crate::FORMAT,
        crate::VERSION
    )]
    Version {
        /// What the field `version` of the document says.
        found: u32,
    },
}

// By hand, so that the JSON library is no part of this crate's API.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json { message: error.to_string() }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
