//! The ways in which checkpoints name the same tensor.

use crate::pretrained::Place;

/// Where a tensor of an encoder's checkpoint belongs, whether or not the names begin with the `base` model's prefix (`bert.`).
/// `heads` are beginnings of names outside the base that are known; those in `own` are this model's. The base model itself has no
/// prefix and no heads of its own.
pub(super) struct Prefixed {
    pub(super) base: &'static str,
    pub(super) heads: &'static [&'static str],
    pub(super) own: &'static [&'static str],
    /// Whether the model is the base model.
    pub(super) bare: bool,
}

impl Prefixed {
    pub(super) fn place(&self, name: &str) -> Place {
        let begins = |list: &[&str]| list.iter().any(|head| name.starts_with(head));
        if begins(self.own) {
            return Place::As(modern(name));
        }
        if begins(self.heads) {
            return Place::Nowhere;
        }
        let inner = name.strip_prefix(self.base).unwrap_or(name);
        if inner.ends_with(".position_ids") {
            return Place::Nowhere;
        }
        match self.bare {
            true => Place::As(modern(inner)),
            false => Place::As(modern(&format!("{}{inner}", self.base))),
        }
    }
}

/// Early checkpoints call the norms' parameters `gamma` and `beta`.
fn modern(name: &str) -> String {
    match name.rsplit_once("LayerNorm.") {
        Some((layer, "gamma")) => format!("{layer}LayerNorm.weight"),
        Some((layer, "beta")) => format!("{layer}LayerNorm.bias"),
        _ => name.to_string(),
    }
}
