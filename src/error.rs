//! Every way in which measuring can fail, said once.
//!
//! A message says what and where, then why; [`Error::help`] says what to do.
//! Lower case, no final full stop. The library never prints and never exits:
//! `main.rs` prints the chain and turns any error into exit code 2.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the file, tensor, key or argument it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read, write, map or create a path.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase: "open", "create the output folder".
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// One tensor of a checkpoint is missing, misshapen, unknown or not finite.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor {
        /// The file that holds (or should hold) the tensor.
        path: PathBuf,
        /// The tensor's name as stored.
        tensor: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// One key of a configuration, suite or metadata block cannot be used.
    #[error("{}: `{key}`: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, dotted where nested.
        key: String,
        /// What is wrong with its value, or that it is missing.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// Two models cannot be compared in the way that was asked.
    #[error("{} cannot be compared with {}: {problem}", quant.display(), base.display())]
    Incomparable {
        /// The reference.
        base: PathBuf,
        /// The cousin.
        quant: PathBuf,
        /// Why not.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// An argument or a request that cannot be served.
    #[error("{problem}")]
    Argument {
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        help: String,
    },
    /// The tensor library failed (out of device memory, an unsupported operation).
    #[error("{doing}: {source}")]
    Compute {
        /// What was being computed.
        doing: String,
        /// The tensor library's reason.
        source: Box<candle_core::Error>,
    },
}

impl Error {
    /// What the reader should do next, where that is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Error::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound => Some("check the path"),
                ErrorKind::PermissionDenied => Some("check who may read and write there"),
                ErrorKind::StorageFull => Some("free some space, or name another folder with --out"),
                _ => None,
            },
            Error::Compute { .. } => None,
            Error::File { help, .. }
            | Error::Tensor { help, .. }
            | Error::Key { help, .. }
            | Error::Incomparable { help, .. }
            | Error::Argument { help, .. } => Some(help).filter(|h| !h.is_empty()).map(String::as_str),
        }
    }

    /// An [`Error::Io`] for `path`; `action` is a verb phrase.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Error::Io { path, action, source }
    }

    /// An [`Error::File`].
    pub fn file(path: &Path, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::File { path: path.to_owned(), problem: problem.into(), help: help.into() }
    }

    /// An [`Error::Tensor`].
    pub fn tensor(path: &Path, tensor: &str, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            problem: problem.into(),
            help: help.into(),
        }
    }

    /// An [`Error::Key`].
    pub fn key(path: &Path, key: &str, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Key { path: path.to_owned(), key: key.to_owned(), problem: problem.into(), help: help.into() }
    }

    /// An [`Error::Argument`].
    pub fn argument(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Argument { problem: problem.into(), help: help.into() }
    }

    /// An [`Error::Compute`]; `doing` is a gerund phrase: "running layer 3 of base".
    pub fn compute(doing: impl Into<String>) -> impl FnOnce(candle_core::Error) -> Self {
        let doing = doing.into();
        move |source| Error::Compute { doing, source: Box::new(source) }
    }
}
