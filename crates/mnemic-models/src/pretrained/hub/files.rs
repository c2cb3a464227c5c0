//! What a repository holds, and which of it loading a model takes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::write;
use super::id::is_commit;
use crate::error::shown;

/// The largest configs and vocabularies; tokenizers of 250,000 words have 17 MB.
const MAX_TEXT: u64 = 256 << 20;

/// A commit of a repository.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    /// By their path, with `/`. Only paths that are safe to write to.
    pub(super) files: BTreeMap<String, Remote>,
}

/// A file as the hub declares it.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) size: Option<u64>,
    /// The name of its content in the cache.
    pub(super) hash: Option<String>,
}

impl Listing {
    /// Reads the answer of `/api/models/ID/revision/REVISION?blobs=true`.
    pub(super) fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let info: Info = serde_json::from_slice(text).map_err(|e| format!("listing: {e}"))?;
        if !is_commit(&info.sha) {
            return Err(format!(
                "listing: expected the hash of a commit, got `{}`",
                shown(&info.sha)
            ));
        }
        let remote = |file: Sibling| {
            let (size, hash) = match file.lfs {
                Some(lfs) => (lfs.size.or(file.size), lfs.sha256.or(lfs.oid)),
                None => (file.size, file.blob_id),
            };
            (file.rfilename, Remote { size, hash: hash.filter(|hash| is_hash(hash)) })
        };
        let safe =
            |name: &str| name.len() < 1000 && name.split('/').all(|p| write::check_name(p).is_ok());
        let files = info.siblings.into_iter().filter(|file| safe(&file.rfilename)).map(remote);
        Ok(Self { commit: info.sha, files: files.collect() })
    }

    /// The folders that hold parts of the model, as prefixes: the repository itself and, of sentence-transformers, `1_Pooling/`
    /// and its like.
    pub(super) fn folders(&self) -> Vec<String> {
        let mut folders = vec![String::new()];
        if self.files.contains_key("modules.json") {
            let tops = self.files.keys().filter_map(|name| name.split_once('/'));
            folders
                .extend(tops.filter(|(top, _)| is_module(top)).map(|(top, _)| format!("{top}/")));
            folders.dedup();
        }
        folders
    }

    /// Configs, vocabularies and tokenizers.
    pub(super) fn texts(&self) -> Vec<String> {
        let folders = self.folders();
        let in_folder = |name: &str| {
            let (folder, name) = name.rsplit_once('/').map_or(("", name), |(f, n)| (f, n));
            let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            folders.contains(&folder) && is_text(name)
        };
        let wanted = |(name, file): &(&String, &Remote)| {
            in_folder(name) && file.size.is_none_or(|size| size <= MAX_TEXT)
        };
        self.files.iter().filter(wanted).map(|(name, _)| name.clone()).collect()
    }

    /// Files of the repository that look like weights of another kind, for a message.
    pub(super) fn other_weights(&self) -> String {
        let kinds =
            ["h5", "msgpack", "ot", "gguf", "onnx", "safetensors", "bin", "pt", "pth", "ckpt"];
        let of_kind =
            |name: &&String| name.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind));
        let found: Vec<_> = self.files.keys().filter(of_kind).take(5).map(|n| shown(n)).collect();
        match found.is_empty() {
            true => String::new(),
            false => format!("; found only {}", found.join(", ")),
        }
    }
}

/// `1_Pooling`
fn is_module(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(number, name)| {
        !number.is_empty() && !name.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    })
}

fn is_text(name: &str) -> bool {
    let kinds = [".json", ".txt", ".model", ".spm", ".jinja"];
    // Indexes are fetched with their weights; the last is a log of training.
    kinds.iter().any(|kind| name.ends_with(kind))
        && !name.ends_with(".index.json")
        && name != "trainer_state.json"
}

/// Becomes the name of a file.
pub(super) fn is_hash(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "blobId")]
    blob_id: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

/// Of a file that is kept outside the repository's history, which then holds a pointer.
#[derive(Deserialize)]
struct Lfs {
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    oid: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let siblings: Vec<_> = names.iter().map(|name| json!({ "rfilename": name })).collect();
        let info = json!({ "sha": "0f".repeat(20), "siblings": siblings });
        Listing::parse(info.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_loading_takes_is_chosen() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "vocab.txt",
            "merges.txt",
            "spiece.model",
            "source.spm",
            "model.safetensors",
            "model.safetensors.index.json",
            "onnx/config.json",
            "1_Pooling/config.json",
            "trainer_state.json",
            "tf_model.h5",
        ];
        let plain = listing(&names);
        assert_eq!(plain.folders(), [""]);
        let texts = plain.texts();
        assert_eq!(
            texts,
            [
                "config.json",
                "generation_config.json",
                "merges.txt",
                "source.spm",
                "spiece.model",
                "tokenizer.json",
                "vocab.txt"
            ]
        );
        let modules =
            listing(&[&names[..], &["modules.json", "2_Dense/model.safetensors"]].concat());
        assert_eq!(modules.folders(), ["", "1_Pooling/", "2_Dense/"]);
        assert!(modules.texts().contains(&"1_Pooling/config.json".to_string()));
        assert!(!modules.texts().contains(&"onnx/config.json".to_string()));
        assert_eq!(
            listing(&["a.h5", "b.onnx", "c.txt"]).other_weights(),
            "; found only a.h5, b.onnx"
        );
    }

    #[test]
    fn unsafe_paths_and_hashes_are_left_out() {
        let unsafe_names = [
            "../config.json",
            "/config.json",
            "a/../config.json",
            "a//b.json",
            "a\\b.json",
            "C:x.json",
            "",
            ".",
        ];
        let found = listing(&[&unsafe_names[..], &["a/b.json"]].concat());
        assert_eq!(found.files.keys().collect::<Vec<_>>(), ["a/b.json"]);
        for (hash, good) in [("../../../etc/x", false), ("", false), ("0123abcd", true)] {
            let info = json!({ "sha": "0f".repeat(20), "siblings": [
                { "rfilename": "a", "size": 3, "blobId": hash },
                { "rfilename": "b", "size": 3, "lfs": { "size": 9, "sha256": hash } },
            ] });
            let found = Listing::parse(info.to_string().as_bytes()).unwrap();
            assert_eq!(found.files["a"].hash.is_some(), good);
            assert_eq!(found.files["b"].size, Some(9));
        }
        for text in
            ["", "[]", "{\"sha\":\"main\",\"siblings\":[]}", "{\"sha\":\"../x\",\"siblings\":[]}"]
        {
            assert!(Listing::parse(text.as_bytes()).unwrap_err().starts_with("listing: "));
        }
    }
}
