#![doc = include_str!("../README.md")]

/// `write!` into a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($out, $($arg)*);
    }};
}

mod chart;
mod colour;
mod error;
mod file;
mod fold;
mod head_maps;
mod heat_map;
mod html;
mod number;
mod section;
mod svg;
mod terminal;
mod terminal_map;
mod text;
mod trace;

pub use chart::curve_svg;
pub use error::{Error, Result};
pub use file::TraceFile;
pub(crate) use file::{FORMAT, VERSION};
pub use head_maps::{HeadLayer, HeadMaps};
pub use heat_map::{HeatMap, Scale};
pub use html::page;
pub use section::{Curve, Facts, Section, Series};
pub use svg::svg;
pub use terminal::{TerminalOptions, terminal};
pub use terminal_map::terminal_heat_map;
pub use trace::{Gate, PassTrace, QaTrace};
