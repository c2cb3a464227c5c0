//! Names of repositories.

use std::fmt;

use crate::error::{Error, Result, shown};

/// A repository of models on the hub and a revision of it.
///
/// Written `NAME`, `OWNER/NAME`, or either with `@REVISION`; the revision is a branch, a tag, `refs/pr/N` or the hash of a commit.
///
/// ```
/// use mnemic_models::HubId;
/// let id = HubId::parse("Helsinki-NLP/opus-mt-en-de@main")?;
/// assert_eq!(id.repository(), "Helsinki-NLP/opus-mt-en-de");
/// assert!(HubId::parse("./my-model").is_err());
/// # Ok::<(), mnemic_models::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubId {
    repository: String,
    revision: String,
}

impl HubId {
    /// Reads an id; without `@REVISION` it is that of the branch `main`.
    ///
    /// # Errors
    /// When the text cannot be an id of the hub.
    pub fn parse(text: &str) -> Result<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let mut parts = repository.split('/');
        let owner_and_name = repository.split('/').count() <= 2 && parts.all(is_part);
        let reason = if !owner_and_name || repository.len() > 96 {
            "expected an id of the hub: `name` or `owner/name`, of letters, digits, `-`, `_` and `.`"
        } else if !is_revision(revision) {
            "expected a branch, tag or commit after `@`"
        } else {
            return Ok(Self { repository: repository.into(), revision: revision.into() });
        };
        Err(Error::config(format!("`{}`", shown(text)), reason))
    }

    /// The same repository at another revision.
    ///
    /// # Errors
    /// When the text cannot be a branch, a tag or a commit.
    pub fn with_revision(self, revision: &str) -> Result<Self> {
        Self::parse(&format!("{}@{revision}", self.repository))
    }

    /// `NAME` or `OWNER/NAME`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// The hub's rules for one part of an id.
fn is_part(part: &str) -> bool {
    let edge = |c: char| c == '-' || c == '.';
    !part.is_empty()
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !["--", ".."].iter().any(|twice| part.contains(twice))
        && !part.ends_with(".git")
}

/// Becomes a path below `refs` and a part of an address.
fn is_revision(revision: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    revision.len() <= 200 && revision.split('/').all(part)
}

/// Whether a text is the hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_hub() {
        for text in ["gpt2", "a/b", "sentence-transformers/all-MiniLM-L6-v2", "x_1.0/Y-2@refs/pr/3"]
        {
            assert_eq!(HubId::parse(text).unwrap().to_string(), text);
        }
        let id = HubId::parse("a/b@main").unwrap();
        assert_eq!((id.to_string().as_str(), id.revision()), ("a/b", "main"));
        assert_eq!(id.with_revision("v1.0").unwrap().to_string(), "a/b@v1.0");
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            ".",
            "..",
            "../a",
            "./a",
            "a b",
            "a--b",
            "a..b",
            "-a",
            "a.",
            "a/b.git",
            "ä",
            "a\\b",
            "https://huggingface.co/gpt2",
            "@main",
            "a\n",
        ] {
            let error = HubId::parse(text).unwrap_err().to_string();
            assert!(error.contains("`owner/name`"), "{text}: {error}");
        }
        for text in
            ["a@", "a@..", "a@../b", "a@/b", "a@b//c", "a@b c", "a@b@c", "a@.b", "a@b?c", "a@b%"]
        {
            assert!(HubId::parse(text).unwrap_err().to_string().contains("after `@`"), "{text}");
        }
        assert!(HubId::parse(&"a".repeat(97)).is_err());
        assert!(is_commit(&"0f".repeat(20)) && !is_commit("main") && !is_commit(&"0F".repeat(20)));
    }
}
