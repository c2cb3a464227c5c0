//! Where the hub is, where its files are kept, and who asks.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// How the hub is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The address of the hub, `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// The folder of the cache, which holds a folder for every repository.
    pub cache: PathBuf,
    /// Who asks. Sent to the endpoint alone, not to where it redirects.
    pub token: Option<String>,
    /// Whether only the cache is used.
    pub offline: bool,
    /// How long to wait for a connection, for an answer, and for more bytes. The whole of a file may take any time.
    pub timeout: Duration,
}

impl HubOptions {
    /// The settings of Python's `huggingface_hub`: `HF_ENDPOINT`; the cache is `HF_HUB_CACHE`, or else `hub` in `HF_HOME`, or else
    /// in `huggingface` in `XDG_CACHE_HOME` or `~/.cache`; the token is `HF_TOKEN`, or else what the file `HF_TOKEN_PATH`, or else
    /// `token` in `HF_HOME`, holds; `HF_HUB_OFFLINE`, or else `TRANSFORMERS_OFFLINE`, is `1`,
    /// `ON`, `YES` or `TRUE`.
    ///
    /// # Errors
    /// When none of these variables says where the cache is and there is no home folder.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let user = || get("HOME").or_else(|| get("USERPROFILE")).map(PathBuf::from);
        let base = || match get("XDG_CACHE_HOME") {
            Some(base) => Some(PathBuf::from(base)),
            None => user().map(|home| home.join(".cache")),
        };
        let home = match get("HF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => base().map(|base| base.join("huggingface")),
        };
        let cache = get("HF_HUB_CACHE").or_else(|| get("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let Some(cache) = cache.or_else(|| home.as_ref().map(|home| home.join("hub"))) else {
            let reason = "no home folder: set HF_HOME to say where the cache is";
            return Err(Error::config("hub", reason));
        };
        let file = || {
            let path = get("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.or_else(|| home.as_ref().map(|home| home.join("token")))?;
            std::fs::read_to_string(path).ok()
        };
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(file);
        let offline = get("HF_HUB_OFFLINE").or_else(|| get("TRANSFORMERS_OFFLINE"));
        let offline = offline.unwrap_or_default().to_ascii_uppercase();
        let endpoint = get("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_string());
        Ok(Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            cache,
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            offline: ["1", "ON", "YES", "TRUE"].contains(&offline.trim()),
            timeout: Duration::from_secs(30),
        })
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("timeout", &self.timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> HubOptions {
        let get = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string())
        };
        HubOptions::from_variables(get).unwrap()
    }

    #[test]
    fn the_settings_are_those_of_python() {
        let plain = of(&[("HOME", "/h")]);
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.cache, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!((plain.token, plain.offline), (None, false));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(of(&[("HF_HOME", "/f"), ("HOME", "/h")]).cache, Path::new("/f/hub"));
        assert_eq!(of(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        assert_eq!(of(&[("HOME", "/h"), ("HF_ENDPOINT", "http://m/ ")]).endpoint, "http://m");
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(of(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).offline, offline);
        }
        let error = HubOptions::from_variables(|_| None).unwrap_err().to_string();
        assert!(error.contains("set HF_HOME"), "{error}");
    }

    #[test]
    fn the_token_is_a_variable_or_a_file_and_is_not_shown() {
        let dir = TempDir::new().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token.unwrap(), "hf_file");
        let options = of(&[("HF_HOME", home), ("HF_TOKEN", "hf_secret")]);
        assert_eq!(options.token.as_deref(), Some("hf_secret"));
        assert!(!format!("{options:?}").contains("secret"));
        let other = dir.path().join("other");
        std::fs::write(&other, "hf_other").unwrap();
        let path = other.to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", home), ("HF_TOKEN_PATH", path)]).token.unwrap(), "hf_other");
    }
}
