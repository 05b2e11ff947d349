//! What the environment says about the Hub: the variables that `huggingface_hub` reads, with its precedence.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::error::{Error, Result};

/// Where the Hub is, where files are kept, and who asks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http(s)://host[:port][/path]` without a slash at its end.
    pub endpoint: String,
    /// The folder of `models--org--name`; shared with every other program that uses the Hub's cache.
    pub cache: PathBuf,
    /// Sent to the endpoint and to nobody else.
    pub token: Option<Token>,
    /// Only the cache is read.
    pub offline: bool,
    /// Certificates (PEM) to trust in place of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// Whether HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment are followed.
    pub proxied: bool,
    /// How often in a row a request may fail without getting further.
    pub attempts: u32,
    /// How long to wait after the first failure; doubled after each.
    pub pause: Duration,
}

/// An access token; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without the white space around it; `None` if nothing is left.
    ///
    /// # Errors
    /// Characters that cannot be sent.
    pub fn new(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::argument(
                "the Hub's access token holds characters that no token has",
                "copy it again from the Hub's settings into HF_TOKEN, or log in again with `hf auth login`",
            ));
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

const ENDPOINT: &str = "https://huggingface.co";

impl Settings {
    /// Reads HF_ENDPOINT, HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HF_TOKEN,
    /// HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH and its file, HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_OFFLINE,
    /// TRANSFORMERS_OFFLINE and SSL_CERT_FILE through `variable`; `home` is the user's folder.
    ///
    /// # Errors
    /// No folder for the cache, a token that cannot be read or sent.
    pub fn from_variables(
        offline: bool,
        home: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let is_true = |name: &str| {
            text(name)
                .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        let path = |name: &str| set(name).map(|value| from_home(PathBuf::from(value), home));
        let hub_home = || {
            path("HF_HOME").or_else(|| {
                let caches = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")))?;
                Some(caches.join("huggingface"))
            })
        };
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hub_home().map(|home| home.join("hub")))
            .ok_or_else(|| {
                Error::argument("there is no folder for files from the Hub", "name one: HF_HOME=/some/folder")
            })?;
        let offline = offline
            || match set("HF_HUB_OFFLINE") {
                Some(_) => is_true("HF_HUB_OFFLINE"),
                None => is_true("TRANSFORMERS_OFFLINE"),
            };
        let token = match offline || is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
                Some(token) => Token::new(&token)?,
                None => match path("HF_TOKEN_PATH").or_else(|| hub_home().map(|home| home.join("token"))) {
                    Some(file) => token_file(&file)?,
                    None => None,
                },
            },
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token,
            offline,
            certificates: path("SSL_CERT_FILE"),
            proxied: true,
            attempts: 5,
            pause: Duration::from_secs(1),
        })
    }
}

/// The first line that matters of the file that `hf auth login` writes; no file is no token.
fn token_file(path: &Path) -> Result<Option<Token>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Token::new(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read the Hub's access token")(error)),
    }
}

/// `~/…` is below the user's folder.
fn from_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
