//! Requests to the hub.

use std::io::{Read, Write};
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::NamedTempFile;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use super::files::{Listing, Remote, is_hash};
use super::id::HubId;
use super::options::HubOptions;
use crate::error::{Error, Result, shown};

/// The largest listing of a repository.
const MAX_LISTING: u64 = 64 << 20;
const MAX_REDIRECTS: usize = 10;
/// From this size on a file has a progress bar.
const SHOWN_FROM: u64 = 1 << 20;

/// Why a request gave nothing.
pub(super) enum Failure {
    /// The hub did not answer, or not in order; the cache may help.
    Unreachable(String),
    /// The hub's answer, or what it sent, is not what was asked for.
    Refused(String),
}

/// Who asks for a repository.
pub(super) struct Client<'a> {
    agent: Agent,
    endpoint: Uri,
    options: &'a HubOptions,
    id: &'a HubId,
}

/// An answer, and what the hub itself declared before it redirected.
struct Answer {
    response: Response<Body>,
    hash: Option<String>,
    size: Option<u64>,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a HubOptions, id: &'a HubId) -> Result<Self> {
        let endpoint = options.endpoint.parse::<Uri>().ok();
        let web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        let Some(endpoint) = endpoint.filter(web) else {
            let reason = "expected the address of the hub, such as https://huggingface.co";
            return Err(Error::config(
                format!("HF_ENDPOINT `{}`", shown(&options.endpoint)),
                reason,
            ));
        };
        let wait = Some(options.timeout);
        let mut config = Agent::config_builder()
            // Redirects are followed here, where it is known who may see the token.
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_resolve(wait)
            .timeout_connect(wait)
            .timeout_per_read(wait)
            .timeout_per_write(wait)
            .timeout_recv_response(wait)
            // Sizes are those of the files.
            .accept_encoding("identity")
            .user_agent(concat!("mnemic/", env!("CARGO_PKG_VERSION")));
        if matches!(endpoint.host(), Some("127.0.0.1" | "localhost")) {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into(), endpoint, options, id })
    }

    /// What the revision holds.
    pub(super) fn listing(&self) -> Result<Listing, Failure> {
        let (repository, revision) = (self.id.repository(), self.id.revision().replace('/', "%2F"));
        let url = format!("/api/models/{repository}/revision/{revision}?blobs=true");
        let Answer { mut response, .. } = self.get(&url)?;
        let limited = response.body_mut().with_config().limit(MAX_LISTING);
        let text = limited.read_to_vec().map_err(|e| self.unreachable(&e))?;
        Listing::parse(&text)
            .map_err(|e| Failure::Refused(format!("{}: {e}", self.options.endpoint)))
    }

    /// Fetches a file of a commit into a temporary file of `folder`, and gives its hash as well.
    pub(super) fn download(
        &self,
        commit: &str,
        name: &str,
        remote: &Remote,
        folder: PathBuf,
    ) -> Result<(NamedTempFile, String), Failure> {
        let refused = |reason: String| Failure::Refused(format!("{}: {reason}", shown(name)));
        let url = format!("/{}/resolve/{commit}/{}", self.id.repository(), encode(name));
        let Answer { response, hash, size } = self.get(&url).map_err(|failure| match failure {
            Failure::Unreachable(reason) | Failure::Refused(reason) => refused(reason),
        })?;
        let declared = remote.size.or(size).or(response.body().content_length());
        let Some(declared) = declared else {
            return Err(refused("the hub does not say how large it is".to_string()));
        };
        if let Some(sent) = response.body().content_length().filter(|sent| *sent != declared) {
            return Err(refused(format!("{sent} bytes are sent, but {declared} were declared")));
        }
        let Some(hash) = remote.hash.clone().or(hash) else {
            return Err(refused("the hub gives no hash for it".to_string()));
        };
        // Dropped, and so removed, on any error.
        let mut file = tempfile::Builder::new()
            .prefix(".fetch-")
            .suffix(".incomplete")
            .tempfile_in(&folder)
            .map_err(|e| refused(format!("{}: {e}", folder.display())))?;
        let bar = bar(name, declared);
        let body = response.into_body().into_reader();
        copy(body, &mut file, declared, &bar).map_err(refused)?;
        bar.finish_and_clear();
        Ok((file, hash))
    }

    /// Asks for a path of the hub and follows redirects. The token goes to the hub alone.
    fn get(&self, path: &str) -> Result<Answer, Failure> {
        let mut url: Uri = format!("{}{path}", self.options.endpoint)
            .parse()
            .map_err(|e| Failure::Refused(format!("{path}: {e}")))?;
        let (mut hash, mut size) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(url.clone());
            let own = self.is_hub(&url);
            if let Some(token) = self.options.token.as_ref().filter(|_| own) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| self.unreachable(&e))?;
            let headers = response.headers();
            if own && hash.is_none() {
                hash = etag(headers);
                size = text(headers, "x-linked-size").and_then(|size| size.parse().ok());
            }
            match response.status().as_u16() {
                200 => return Ok(Answer { response, hash, size }),
                301 | 302 | 303 | 307 | 308 => {
                    url = target(&url, text(headers, "location").unwrap_or_default())
                        .map_err(Failure::Refused)?;
                }
                status => return Err(self.refusal(status, headers)),
            }
        }
        Err(Failure::Refused(format!("{path}: more than {MAX_REDIRECTS} redirects")))
    }

    fn is_hub(&self, url: &Uri) -> bool {
        let hub = &self.endpoint;
        url.scheme() == hub.scheme() && url.host() == hub.host() && url.port_u16() == hub.port_u16()
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        Failure::Unreachable(format!("{} cannot be reached ({error})", self.options.endpoint))
    }

    /// What an error of the hub means.
    fn refusal(&self, status: u16, headers: &HeaderMap) -> Failure {
        let (endpoint, id) = (&self.options.endpoint, self.id);
        let said = text(headers, "x-error-message").map(|m| format!(": {}", shown(m)));
        let said = format!("{endpoint} answers {status}{}", said.unwrap_or_default());
        let code = text(headers, "x-error-code").unwrap_or_default();
        let spelling = "ids are written `owner/name`, such as `google-bert/bert-base-uncased`";
        let revision = id.revision();
        let with = match self.options.token {
            Some(_) => "the token of HF_TOKEN or `hf auth login` does not allow it",
            None => "set HF_TOKEN to a token that may read it",
        };
        Failure::Refused(match (status, code) {
            (404, "RevisionNotFound") => format!("no revision `{revision}` ({said})"),
            (404, "EntryNotFound") => format!("it is listed, but not there ({said})"),
            (404, _) => format!("no such repository or revision `{revision}`; {spelling} ({said})"),
            (401, "RepoNotFound") => {
                format!("no such repository, or a private one; {spelling}; else {with} ({said})")
            }
            (403, "GatedRepo") | (401, "GatedRepo") => {
                let page = format!("{endpoint}/{}", id.repository());
                format!("its owners ask to agree to terms at {page}; {with} ({said})")
            }
            (401 | 403, _) => {
                format!("it may not be read, if it exists: {with}; {spelling} ({said})")
            }
            (429 | 500.., _) => return Failure::Unreachable(said),
            _ => said,
        })
    }
}

/// Copies exactly as many bytes as were declared.
fn copy(
    mut body: impl Read,
    file: &mut NamedTempFile,
    declared: u64,
    bar: &ProgressBar,
) -> std::result::Result<(), String> {
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let read = body.read(&mut buffer).map_err(|e| {
            format!("broke off after {done} of {declared} bytes ({e}); nothing of it was kept")
        })?;
        done += read as u64;
        if done > declared || (read == 0 && done < declared) {
            let which = if done > declared { "more than" } else { "only" };
            let count = done.min(declared);
            return Err(format!(
                "{which} {count} bytes are sent, but {declared} were declared; nothing of it was kept"
            ));
        }
        if read == 0 {
            return file.flush().map_err(|e| e.to_string());
        }
        file.write_all(&buffer[..read]).map_err(|e| format!("cannot be written: {e}"))?;
        bar.inc(read as u64);
    }
}

/// Hidden where standard error is no terminal, and for small files.
fn bar(name: &str, size: u64) -> ProgressBar {
    if size < SHOWN_FROM {
        return ProgressBar::hidden();
    }
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = ProgressBar::new(size).with_message(shown(name));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The hash of the content: that of a file kept elsewhere, or that of the answer.
fn etag(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"))?;
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    is_hash(tag).then(|| tag.to_string())
}

/// Where a redirect leads.
fn target(from: &Uri, location: &str) -> std::result::Result<Uri, String> {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map(|a| a.as_str()).unwrap_or_default();
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        location.to_string()
    };
    let uri: Uri = absolute
        .parse()
        .map_err(|_| format!("a redirect to `{}`, which is no address", shown(location)))?;
    match (scheme, uri.scheme_str()) {
        (_, Some("https")) | ("http", Some("http")) => Ok(uri),
        _ => Err(format!("a redirect from {scheme} to `{}`", shown(location))),
    }
}

/// A path as part of an address.
fn encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    let part = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    path.bytes().map(part).collect()
}
