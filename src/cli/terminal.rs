//! The only file that prints.

use std::{io::Write, sync::Mutex};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::{error::Error, progress::Progress, report::Written};

/// Writes to standard output; a reader that went away (`qeval … | head`) is not an error.
pub(super) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // The only failure here is a closed pipe, and then nobody is left to be told.
    let _closed = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

fn out(text: &str) {
    bytes(text.as_bytes());
}

fn err(text: &str) {
    let _closed = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Prints an error with its causes and what to do, as `main` does before it exits with 2.
pub fn report_error(error: &Error) {
    err(&format!("error: {error}\n"));
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(reason) = cause {
        err(&format!("  cause: {reason}\n"));
        cause = reason.source();
    }
    if let Some(help) = error.help() {
        err(&format!("  help: {help}\n"));
    }
}

pub(super) fn init_logging(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "qeval=info",
        (_, _) => "qeval=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second call (tests run several commands in one process) keeps the first subscriber.
    let _already = subscriber.without_time().try_init();
}

pub(super) fn line(text: &str) {
    out(&format!("{text}\n"));
}

pub(super) fn text(text: &str) {
    out(text);
}

/// A note beside the result, on standard error.
pub(super) fn note(text: &str, quiet: bool) {
    if !quiet {
        err(&format!("{text}\n"));
    }
}

pub(super) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(json) => line(&json),
        Err(reason) => err(&format!("error: the result cannot be written as JSON: {reason}\n")),
    }
}

pub(super) fn written(written: &Written, quiet: bool) {
    note(&format!("report: {}", written.folder.join("report.html").display()), quiet);
}

pub(super) fn completions(shell: clap_complete::Shell, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "qeval", &mut script);
    out(&String::from_utf8_lossy(&script));
}

/// A progress bar with time left on standard error; silent when that is not a terminal.
pub(super) struct Bar {
    quiet: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, bar: Mutex::new(None) }
    }

    fn with(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        // A poisoned lock means another thread panicked while drawing; progress is not worth a second panic.
        if let Ok(mut bar) = self.bar.lock() {
            act(&mut bar);
        }
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, total: u64) {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:12} {wide_bar} {percent:>3} %  {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        self.with(|slot| *slot = Some(bar));
    }

    fn advance(&self, units: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(units);
            }
        });
    }

    fn finish(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}
