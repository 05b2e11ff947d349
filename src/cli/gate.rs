//! `qeval gate`, and the gate at the end of `qeval compare`: a run held against a policy, told to whoever asked.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Outcome, terminal};
use crate::comparison::Comparison;
use crate::error::{Error, Result};
use crate::gate::{self, Verdict, policy};
use crate::report::{self, markdown, verdict};

/// Columns of the terminal's text.
const COLUMNS: usize = 80;

/// What becomes of a run that decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Inconclusive {
    /// Exit code 3.
    #[default]
    Keep,
    /// Exit code 0: what is not shown to be wrong passes.
    Pass,
    /// Exit code 1: what is not shown to be right fails.
    Fail,
}

/// What `compare` takes to end with a gate.
#[derive(Args, Clone, Debug)]
pub struct GateOptions {
    /// Hold the result against a policy: strict, release, smoke, or a YAML file (see `qeval gate --help`).
    #[arg(long, value_name = "POLICY")]
    pub gate: Option<String>,
    /// Folder of an earlier run, for the policy's regressions.
    #[arg(long, value_name = "RUN", requires = "gate")]
    pub against: Option<PathBuf>,
    /// What an inconclusive gate ends with.
    #[arg(long, value_enum, default_value_t = Inconclusive::Keep, value_name = "AS")]
    pub inconclusive: Inconclusive,
}

const EXAMPLES: &str = "Examples:
  qeval gate qeval-report --policy release
  qeval gate qeval-report --policy policy.yaml --against last-release/
  qeval gate --init policy.yaml        # a policy to start from, every key explained
  qeval compare base/ quant.gguf --suite reasoning --gate policy.yaml

Presets: strict (lossless claims), release (what goes to users), smoke (is it broken?).
The verdict is printed and written to RUN/gate.json and RUN/gate.junit.xml. Under GitHub Actions it also becomes
annotations and a job summary.

Exit codes: 0 every rule is shown to hold, 1 some rule is shown not to, 3 none fails but some are inconclusive,
2 something was not measured.";

/// Arguments of `qeval gate`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct GateArgs {
    /// A folder that `qeval compare` wrote.
    #[arg(required_unless_present_any = ["init", "schema"])]
    run: Option<PathBuf>,
    /// What must hold: strict, release, smoke, or a YAML file.
    #[arg(long, default_value = "release")]
    policy: String,
    /// Folder of an earlier run, for the policy's regressions.
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// What an inconclusive gate ends with.
    #[arg(long, value_enum, default_value_t = Inconclusive::Keep, value_name = "AS")]
    inconclusive: Inconclusive,
    /// Write JUnit XML there instead of RUN/gate.junit.xml.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
    /// Write a policy to start from; an existing file is left alone.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "policy.yaml")]
    init: Option<PathBuf>,
    /// Print the JSON Schema of policies.
    #[arg(long)]
    schema: bool,
}

/// Runs the command.
pub(super) fn command(args: &GateArgs, quiet: bool) -> Result<Outcome> {
    if args.schema {
        terminal::print_json(&schemars::schema_for!(policy::Policy));
        return Ok(Outcome::Done);
    }
    if let Some(path) = &args.init {
        return init(path, quiet);
    }
    let Some(run) = &args.run else {
        return Err(Error::argument("no run is named", "give the folder that `qeval compare` wrote"));
    };
    let prepared = prepare(&args.policy, args.against.as_deref())?;
    let comparison = report::read(run)?;
    let how = if args.json { Told::Json } else { Told::Text };
    let telling = Telling { how, junit: args.junit.as_deref(), quiet };
    prepared.hold(&comparison, run, args.inconclusive, &telling)
}

fn init(path: &Path, quiet: bool) -> Result<Outcome> {
    let mut file = std::fs::File::create_new(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::file(path, "is there already", "name another file, or remove it first")
        }
        _ => Error::io(path, "create")(source),
    })?;
    file.write_all(policy::STARTER.as_bytes()).map_err(Error::io(path, "write"))?;
    terminal::note(
        &format!("policy: {}; next: qeval gate RUN --policy {}", path.display(), path.display()),
        quiet,
    );
    Ok(Outcome::Done)
}

/// A policy and an earlier run, read before anything is measured.
pub(super) struct Prepared {
    policy: policy::Policy,
    previous: Option<Comparison>,
}

/// Reads a policy and an earlier run.
///
/// # Errors
/// If one of them cannot be read or is not what it should be.
pub(super) fn prepare(policy: &str, against: Option<&Path>) -> Result<Prepared> {
    Ok(Prepared { policy: policy::Policy::load(policy)?, previous: against.map(report::read).transpose()? })
}

/// What is printed of a verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Text,
    Json,
    Junit,
    Nothing,
}

/// How a verdict is told.
pub(super) struct Telling<'a> {
    pub how: Told,
    pub junit: Option<&'a Path>,
    pub quiet: bool,
}

impl Prepared {
    /// Holds a run against the policy, and tells.
    ///
    /// # Errors
    /// If the verdict cannot be written.
    pub(super) fn hold(
        &self,
        comparison: &Comparison,
        run: &Path,
        inconclusive: Inconclusive,
        telling: &Telling<'_>,
    ) -> Result<Outcome> {
        let verdict = gate::judge(&self.policy, comparison, self.previous.as_ref());
        let own = run.join("gate.junit.xml");
        let junit = verdict::junit::document(&verdict, inconclusive == Inconclusive::Pass);
        report::write_file(telling.junit.unwrap_or(&own), junit.as_bytes())?;
        let json = serde_json::to_vec_pretty(&verdict).map_err(|reason| {
            Error::argument(format!("the verdict cannot be written: {reason}"), "please report this")
        })?;
        report::write_file(&run.join("gate.json"), &json)?;
        match telling.how {
            Told::Json => terminal::print_json(&verdict),
            Told::Text => terminal::text(&verdict::terminal(&verdict, COLUMNS)),
            Told::Junit => terminal::text(&junit),
            // The document that was asked for is all there is on standard output.
            Told::Nothing => terminal::note(&verdict::headline(&verdict), telling.quiet),
        }
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            tell_github(&verdict, comparison, telling)?;
        }
        Ok(Outcome::of_gate(verdict.outcome, inconclusive))
    }
}

/// Annotations on standard output, and the job's summary.
fn tell_github(verdict: &Verdict, comparison: &Comparison, telling: &Telling<'_>) -> Result<()> {
    if telling.how == Told::Text {
        terminal::text(&verdict::github::annotations(verdict));
    }
    let summary = verdict::github::summary(verdict) + "\n" + &markdown::document(comparison);
    append("GITHUB_STEP_SUMMARY", &summary)
}

/// Appends to the file that a variable names, where there is one.
fn append(variable: &str, text: &str) -> Result<()> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    let mut file = file.map_err(Error::io(&path, "open"))?;
    file.write_all(text.as_bytes()).map_err(Error::io(&path, "write"))
}
