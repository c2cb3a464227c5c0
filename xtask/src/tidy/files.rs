//! Rules on the size of files.

use super::Finding;

/// Past this a Rust file wants to be a folder.
const LONGEST_SOURCE: usize = 700;

const LARGEST_FILE: u64 = 3_000_000;
/// Small trained weights may be a little larger.
const LARGEST_WEIGHTS: u64 = 5_000_000;

pub(super) fn check_length(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > LONGEST_SOURCE).then(|| {
        let message = format!("{lines} lines, at most {LONGEST_SOURCE}; split it by subject");
        Finding::new(path, 0, message)
    })
}

pub(super) fn check_size(path: &str, bytes: u64) -> Option<Finding> {
    let weights = path.starts_with("models/") && path.ends_with(".safetensors");
    let limit = if weights { LARGEST_WEIGHTS } else { LARGEST_FILE };
    (bytes > limit).then(|| {
        let megabytes = bytes as f64 / 1e6;
        let message =
            format!("{megabytes:.1} MB, at most {} MB may be committed", limit / 1_000_000);
        Finding::new(path, 0, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sources_are_found() {
        assert!(check_length("a.rs", &"x\n".repeat(700)).is_none());
        let finding = check_length("a.rs", &"x\n".repeat(701)).unwrap();
        assert!(finding.message.starts_with("701 lines"), "{finding}");
    }

    #[test]
    fn weights_may_be_larger_but_only_in_their_place() {
        assert!(check_size("notes.md", 3_000_000).is_none());
        assert!(check_size("notes.md", 3_000_001).is_some());
        assert!(check_size("models/a/model.safetensors", 4_900_000).is_none());
        assert!(check_size("models/a/model.safetensors", 5_000_001).is_some());
        assert!(check_size("crates/a/model.safetensors", 4_900_000).is_some());
    }
}
