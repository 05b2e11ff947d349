//! Asking the Hub: requests, redirects, the token's way, and what refusals mean.
//!
//! Redirects are followed here and not by the HTTP library, because the token must reach the endpoint's own origin
//! (scheme, host and port) and nothing else: files come from other hosts, by signed addresses.

use std::{fmt, io::Read, sync::Arc, thread, time::Duration};

use ureq::{
    Agent, Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    id::{HubId, RepoKind},
    listing::{Entry, Listing},
    settings::Settings,
};
use crate::error::{Error, Result};

/// Longest answer to a question about a repository, and of all pages of a listing together.
const MAX_ANSWER: u64 = 64 << 20;
const MAX_LISTING: u64 = 512 << 20;
const MAX_PAGES: usize = 20_000;
const MAX_REDIRECTS: usize = 8;
/// How often a question is asked before one gives up; a download has more patience.
const MAX_QUESTIONS: u32 = 3;
/// Silence after which a connection counts as dead.
const SILENCE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

type Answer<T> = std::result::Result<T, Failure>;

/// A connection to one endpoint.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    authorization: Option<HeaderValue>,
    attempts: u32,
    pause: Duration,
}

/// Whom one talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { secure, host, port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }) })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered, but not with what was asked for.
    Refused {
        status: StatusCode,
        /// `X-Error-Code`: RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo …
        code: String,
        /// `X-Error-Message`.
        message: String,
        /// `Retry-After`, if it is a number of seconds.
        wait: Option<Duration>,
    },
    /// No answer, or one that broke off: worth another try.
    Broken(String),
    /// An answer that cannot be believed: another try would not help.
    Wrong(String),
}

impl Failure {
    /// Whether the same request may succeed a little later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Failure::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Failure::Broken(_) => true,
            Failure::Wrong(_) => false,
        }
    }

    /// Whether the server says that there is no such repository, or none for this token.
    pub(super) fn knows_no_repository(&self) -> bool {
        match self {
            Failure::Refused { code, .. } if code == "RepoNotFound" => true,
            Failure::Refused { status, code, .. } => {
                code.is_empty() && matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused { status, message, .. } if message.is_empty() => {
                write!(f, "the server answered {status}")
            }
            Failure::Refused { status, message, .. } => write!(f, "the server answered {status}: {message}"),
            Failure::Broken(reason) | Failure::Wrong(reason) => f.write_str(reason),
        }
    }
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let refused = || {
            Error::argument(
                format!("HF_ENDPOINT is `{}`, which is no address of a Hub", settings.endpoint),
                "write it as https://host, or leave HF_ENDPOINT out for huggingface.co",
            )
        };
        let uri: Uri = settings.endpoint.parse().map_err(|_| refused())?;
        let origin = Origin::of(&uri).ok_or_else(refused)?;
        if uri.query().is_some() || uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(refused());
        }
        let authorization = match &settings.token {
            None => None,
            Some(token) => {
                let text = format!("Bearer {}", token.secret());
                let mut value = HeaderValue::from_str(&text).map_err(|_| refused())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let tls = TlsConfig::builder().root_certs(roots(settings)?).build();
        let mut config = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("qeval/", env!("CARGO_PKG_VERSION")))
            // What is stored must be counted in the bytes of the file.
            .accept_encoding("identity")
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        if !settings.proxied {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint.clone(),
            origin,
            authorization,
            attempts: settings.attempts.max(1),
            pause: settings.pause,
        })
    }

    /// How often in a row a download may fail without getting further.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Sleeps after failure number `failed` (from 1).
    pub(super) fn rest(&self, failed: u32, failure: &Failure) {
        let doubled = self.pause.saturating_mul(1 << failed.saturating_sub(1).min(5));
        let asked = match failure {
            Failure::Refused { wait: Some(wait), .. } => *wait,
            _ => Duration::ZERO,
        };
        thread::sleep(doubled.max(asked).min(LONGEST_PAUSE));
    }

    /// The commit that the revision of `id` stands for.
    ///
    /// # Errors
    /// Whatever keeps the Hub from telling.
    pub(super) fn commit(&self, id: &HubId) -> Answer<String> {
        #[derive(serde::Deserialize)]
        struct Info {
            sha: String,
        }
        let url = format!("{}/revision/{}", self.api(id), quote(id.revision(), false));
        let (answer, _) = self.ask(&url, MAX_ANSWER)?;
        let info: Info = serde_json::from_slice(&answer).map_err(|error| no_hub(&error.to_string()))?;
        match is_commit(&info.sha) {
            true => Ok(info.sha),
            false => Err(no_hub("it names a commit that is none")),
        }
    }

    /// All files of `id` at a commit.
    ///
    /// # Errors
    /// Whatever keeps the Hub from telling.
    pub(super) fn list(&self, id: &HubId, commit: &str) -> Answer<Listing> {
        #[derive(serde::Deserialize)]
        struct Item {
            #[serde(rename = "type")]
            kind: String,
            path: String,
            #[serde(default)]
            size: u64,
            #[serde(default)]
            oid: String,
            lfs: Option<Lfs>,
            #[serde(rename = "xetHash")]
            xet: Option<String>,
        }
        #[derive(serde::Deserialize)]
        struct Lfs {
            oid: String,
            size: u64,
        }
        let mut listing = Listing::default();
        let mut left = MAX_LISTING;
        let mut next = Some(format!("{}/tree/{commit}?recursive=true", self.api(id)));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(listing) };
            let (answer, headers) = self.ask(&url, MAX_ANSWER.min(left))?;
            left = left.saturating_sub(answer.len() as u64);
            let items: Vec<Item> =
                serde_json::from_slice(&answer).map_err(|error| no_hub(&error.to_string()))?;
            for item in items.into_iter().filter(|item| item.kind == "file") {
                let (sha256, size) = match item.lfs {
                    Some(lfs) => (Some(lfs.oid), lfs.size),
                    None => (None, item.size),
                };
                listing
                    .files
                    .insert(item.path, Entry { size, blob_id: item.oid, sha256, xet_hash: item.xet });
            }
            next = match next_page(&headers) {
                Some(link) => {
                    Some(resolve(&url, link).ok_or_else(|| no_hub("its next page has no address"))?)
                }
                None => None,
            };
        }
        Err(no_hub("its listing does not end"))
    }

    /// Begins to read a file at a commit, from byte `from` on: the body, and the byte at which it really begins.
    ///
    /// # Errors
    /// Without another try: how a file is taken up again is the caller's matter.
    pub(super) fn open(&self, id: &HubId, commit: &str, file: &str, from: u64) -> Answer<(Body, u64)> {
        let folder = match id.kind {
            RepoKind::Model => String::new(),
            RepoKind::Dataset => "datasets/".to_owned(),
        };
        let url = format!("{}/{folder}{}/resolve/{commit}/{}", self.endpoint, id.repo, quote(file, true));
        let response = match self.get(&url, from) {
            // What is here is longer than what is there: begin again.
            Err(Failure::Refused { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) if from > 0 => {
                self.get(&url, 0)?
            }
            other => other?,
        };
        let begins = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                range_start(response.headers()).filter(|start| *start == from).ok_or_else(|| {
                    Failure::Wrong("the server sent another part of the file than asked for".to_owned())
                })?
            }
            _ => 0,
        };
        Ok((response.into_body(), begins))
    }

    /// What a failure means for whoever asked for `id`.
    pub(super) fn explain(&self, id: &HubId, failure: &Failure) -> Error {
        let page = match id.kind {
            RepoKind::Model => format!("{}/{}", self.endpoint, id.repo),
            RepoKind::Dataset => format!("{}/datasets/{}", self.endpoint, id.repo),
        };
        let error = |problem: String, help: String| Error::file(id.to_string().as_ref(), problem, help);
        let known = self.authorization.is_some();
        let unread =
            |help: &str| error(format!("cannot be read from {}: {failure}", self.endpoint), help.to_owned());
        let Failure::Refused { status, code, message, .. } = failure else {
            let certificate = failure.to_string().contains("certificate");
            return unread(match failure.passes() {
                true if certificate => {
                    "if a firewall signs for the Hub, name its certificates (PEM) with SSL_CERT_FILE"
                }
                true => {
                    "check the network, or use what is in the cache with --offline; if a path is meant, it must exist"
                }
                false => "check HF_ENDPOINT, proxy and firewall",
            });
        };
        let ask_for_access = match known {
            true => format!("ask for access at {page} with the account whose token HF_TOKEN is"),
            false => format!("accept its terms at {page}, then set HF_TOKEN or log in with `hf auth login`"),
        };
        match (code.as_str(), status.as_u16()) {
            ("GatedRepo", _) => {
                error("is gated: the Hub gives it to those with access".to_owned(), ask_for_access)
            }
            ("RevisionNotFound", _) => error(
                format!("has no revision `{}`", id.revision()),
                format!(
                    "look for its branches, tags and commits at {page}/tree/main; what follows @ is a revision \
                     unless it is one of the steps that --help lists"
                ),
            ),
            ("EntryNotFound", _) => error(
                "has no such file".to_owned(),
                format!("look for its files at {page}/tree/{}", quote(id.revision(), true)),
            ),
            (_, 401) if known && !message.is_empty() && code.is_empty() => error(
                format!("the Hub refuses the access token: {message}"),
                "make a new token in the Hub's settings, or log in again with `hf auth login`".to_owned(),
            ),
            ("RepoNotFound", _) | (_, 401 | 404) => error(
                match known {
                    true => format!(
                        "is neither here nor on the Hub, or hidden from the token's account ({status})"
                    ),
                    false => format!("is neither here nor on the Hub, or private ({status})"),
                },
                match known {
                    true => format!("check the spelling of path or name; {page}"),
                    false => format!(
                        "check the spelling of path or name ({page}); for a private one set HF_TOKEN or log in with \
                         `hf auth login`"
                    ),
                },
            ),
            (_, 403) => error(format!("the Hub forbids it: {failure}"), ask_for_access),
            (_, 429) => error(
                "the Hub has had too many requests from here".to_owned(),
                match known {
                    true => "try again in some minutes".to_owned(),
                    false => "try again in some minutes, or set HF_TOKEN for a higher limit".to_owned(),
                },
            ),
            (_, 500..) => unread(
                "the server has a problem; try again later, or use what is in the cache with --offline",
            ),
            _ => unread("check HF_ENDPOINT, proxy and firewall"),
        }
    }

    fn api(&self, id: &HubId) -> String {
        format!("{}/api/{}/{}", self.endpoint, id.kind.plural(), id.repo)
    }

    /// A small answer as a whole, tried several times.
    fn ask(&self, url: &str, limit: u64) -> Answer<(Vec<u8>, HeaderMap)> {
        let once = || {
            let response = self.get(url, 0)?;
            let headers = response.headers().clone();
            let mut answer = Vec::new();
            let mut body = response.into_body().into_reader().take(limit.saturating_add(1));
            body.read_to_end(&mut answer).map_err(|error| Failure::Broken(error.to_string()))?;
            match answer.len() as u64 > limit {
                true => Err(Failure::Wrong(format!("the answer has more than {limit} bytes"))),
                false => Ok((answer, headers)),
            }
        };
        let mut failed = 0;
        loop {
            match once() {
                Err(failure) if failure.passes() && failed + 1 < self.attempts.min(MAX_QUESTIONS) => {
                    failed += 1;
                    tracing::debug!(url, %failure, failed, "asking again");
                    self.rest(failed, &failure);
                }
                result => return result,
            }
        }
    }

    /// One GET; the token goes to the endpoint's origin only, whoever else the way leads to.
    fn get(&self, url: &str, from: u64) -> Answer<Response<Body>> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let place = url.parse::<Uri>().ok().and_then(|uri| Origin::of(&uri));
            let Some(place) = place else {
                return Err(Failure::Wrong("the server leads to an address that is none".to_owned()));
            };
            if self.origin.secure && !place.secure {
                return Err(Failure::Wrong(format!("the server leads to {} without encryption", place.host)));
            }
            let mut request = self.agent.get(&url);
            if let Some(token) = self.authorization.as_ref().filter(|_| place == self.origin) {
                request = request.header(header::AUTHORIZATION, token.clone());
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::Http(_) | ureq::Error::BadUri(_) => Failure::Wrong(error.to_string()),
                other => Failure::Broken(other.to_string()),
            })?;
            let status = response.status();
            tracing::debug!(host = place.host, %status, from, "asked");
            match response.headers().get(header::LOCATION) {
                Some(location) if status.is_redirection() => {
                    let next = location.to_str().ok().and_then(|location| resolve(&url, location));
                    url = next.ok_or_else(|| {
                        Failure::Wrong("the server leads to an address that is none".to_owned())
                    })?;
                }
                _ if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT => {
                    return Ok(response);
                }
                _ => return Err(refusal(status, response.headers())),
            }
        }
        Err(Failure::Wrong("the server leads in circles".to_owned()))
    }
}

fn no_hub(why: &str) -> Failure {
    Failure::Wrong(format!("the answer is not one that a Hub gives: {why}"))
}

fn refusal(status: StatusCode, headers: &HeaderMap) -> Failure {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        value.chars().take(300).collect::<String>()
    };
    let wait = text("retry-after").trim().parse().ok().map(Duration::from_secs);
    Failure::Refused { status, code: text("x-error-code"), message: text("x-error-message"), wait }
}

fn roots(settings: &Settings) -> Result<RootCerts> {
    let Some(path) = &settings.certificates else { return Ok(RootCerts::WebPki) };
    let text = std::fs::read(path).map_err(Error::io(path, "read the certificates of SSL_CERT_FILE"))?;
    let items = parse_pem(&text).collect::<std::result::Result<Vec<_>, _>>();
    let certificates: Vec<_> = items
        .map_err(|error| {
            Error::file(path, format!("SSL_CERT_FILE is no PEM file: {error}"), "name a file of certificates")
        })?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => {
            Err(Error::file(path, "SSL_CERT_FILE holds no certificate", "name a file of certificates (PEM)"))
        }
        false => Ok(RootCerts::Specific(Arc::new(certificates))),
    }
}

/// 40 hexadecimal digits in lower case.
pub(super) fn is_commit(text: &str) -> bool {
    super::listing::is_hex(text, 40)
}

/// Percent-encoding of everything but RFC 3986's unreserved characters; `/` too unless it parts folders.
fn quote(text: &str, folders: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                quoted.push(char::from(byte))
            }
            b'/' if folders => quoted.push('/'),
            _ => quoted += &format!("%{byte:02X}"),
        }
    }
    quoted
}

/// The address that `location` means when it is read at `base`.
fn resolve(base: &str, location: &str) -> Option<String> {
    let scheme_end = base.find("://")?;
    let (scheme, after) = base.split_at_checked(scheme_end)?;
    let after = after.strip_prefix("://")?;
    let authority = after.split(['/', '?', '#']).next()?;
    let location = location.split('#').next().unwrap_or(location);
    let has_scheme = location.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    if location.is_empty() {
        None
    } else if has_scheme {
        Some(location.to_owned())
    } else if location.starts_with("//") {
        Some(format!("{scheme}:{location}"))
    } else if location.starts_with('/') {
        Some(format!("{scheme}://{authority}{location}"))
    } else {
        let path = after.get(authority.len()..)?.split('?').next().unwrap_or("");
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(format!("{scheme}://{authority}{folder}/{location}"))
    }
}

/// The address of `rel="next"` in the `Link` header.
fn next_page(headers: &HeaderMap) -> Option<&str> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| matches!(parameter.trim(), "rel=\"next\"" | "rel=next");
        parameters.split(';').any(is_next).then_some(address)
    })
}

/// Where a `Content-Range: bytes START-END/SIZE` begins.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_resolved_like_rfc_3986_does() {
        let base = "https://hub.example:8443/api/models/a/b?x=1";
        for (location, expected) in [
            ("https://cdn.example/f?sig=1", "https://cdn.example/f?sig=1"),
            ("//cdn.example/f", "https://cdn.example/f"),
            ("/api/models/c/d", "https://hub.example:8443/api/models/c/d"),
            ("e?u=https://x/", "https://hub.example:8443/api/models/a/e?u=https://x/"),
            ("/f#part", "https://hub.example:8443/f"),
        ] {
            assert_eq!(resolve(base, location).as_deref(), Some(expected), "{location}");
        }
        assert_eq!(resolve("https://h", "f").as_deref(), Some("https://h/f"));
        assert_eq!(resolve(base, ""), None);
    }

    #[test]
    fn addresses_are_quoted() {
        assert_eq!(quote("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(quote("a b/ü?#%.gguf", true), "a%20b/%C3%BC%3F%23%25.gguf");
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        let headers = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, HeaderValue::from_str(text).unwrap());
            headers
        };
        let two = headers("<https://h/a>; rel=\"first\", <https://h/b?cursor=x>; rel=\"next\"");
        assert_eq!(next_page(&two), Some("https://h/b?cursor=x"));
        assert_eq!(next_page(&headers("<https://h/a>; rel=\"prev\"")), None);
        assert_eq!(next_page(&HeaderMap::new()), None);
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://HUB.example/x"), origin("https://hub.example:443"));
        for other in [
            "http://hub.example",
            "https://hub.example:444",
            "https://hub.example.evil",
            "https://cdn.example",
        ] {
            assert_ne!(origin("https://hub.example"), origin(other), "{other}");
        }
        assert_eq!(origin("ftp://hub.example"), None);
    }
}
