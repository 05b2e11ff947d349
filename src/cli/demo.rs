//! `qeval demo`: the first minute, without a model of one's own, without a network.
//!
//! Files are made as anyone's would lie there, and then `qeval compare` runs on them, by the arguments that are printed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, Parser};

use super::{Cli, Command, CompareArgs, Outcome, compare, terminal};
use crate::{
    demo::{self, COUSINS},
    error::{Error, Result},
    progress::Progress,
    report,
};

const EXAMPLES: &str = "Examples:
  qeval demo
  qeval demo /tmp/first-look && qeval inspect /tmp/first-look/q4_k_m.gguf --tensors
  qeval compare qeval-demo/base.safetensors qeval-demo/base.safetensors@q3_k --suite demo";

/// The layer that is broken in the broken cousin: one in the middle, where no first or last layer's oddities excuse it.
const BROKEN_LAYER: usize = 2;

/// Options of the printed command that are followed by a value.
const TAKES_VALUE: [&str; 4] = ["--suite", "--chat", "--out", "--limit"];

/// Columns of what is printed.
const WIDTH: usize = 80;

/// Arguments of `qeval demo`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// The folder for the model, its cousins and the report.
    #[arg(default_value = "qeval-demo", value_name = "DIR")]
    pub folder: PathBuf,
    /// Write into a folder that holds other things.
    #[arg(long)]
    pub force: bool,
    /// Break this layer of the broken cousin.
    #[arg(long, hide = true, value_name = "N", default_value_t = BROKEN_LAYER)]
    pub broken_layer: usize,
    /// Only the first N samples of every task that asks questions.
    #[arg(long, hide = true, value_name = "N")]
    pub limit: Option<usize>,
}

pub(super) fn command(args: &DemoArgs, quiet: bool) -> Result<Outcome> {
    let started = Instant::now();
    demo::prepare(&args.folder, args.force)?;
    let bar = terminal::Bar::new(quiet);
    bar.start("making", COUSINS.len() as u64);
    let mut made = 0;
    let written = demo::write(&args.folder, args.broken_layer, &mut |_| {
        bar.advance(made);
        made = 1;
    });
    bar.finish();
    let written = written?;
    let arguments = arguments(args, &written);
    if !quiet {
        terminal::text(&beginning(args, &arguments));
    }
    let (comparison, report) = compare::run(&parsed(&arguments)?, &bar)?;
    terminal::text(&report::summary::story(&comparison, WIDTH));
    terminal::text(&ending(&report.folder, started.elapsed().as_secs_f64()));
    Ok(if comparison.unmeasured() == 0 { Outcome::Done } else { Outcome::NotMeasured })
}

/// The command line of `qeval compare` that measures the demo.
fn arguments(args: &DemoArgs, written: &demo::Written) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["qeval", "compare"].map(OsString::from).to_vec();
    all.push(written.base.clone().into());
    all.extend(written.cousins.iter().map(|path| path.clone().into()));
    // The sums that the model has learnt are plain text, no conversations.
    all.extend(["--suite", "demo", "--chat", "off", "--offline", "--out"].map(OsString::from));
    all.push(args.folder.join(demo::REPORT).into());
    if let Some(limit) = args.limit {
        all.extend(["--limit".to_owned(), limit.to_string()].map(OsString::from));
    }
    if args.force {
        all.push("--force".into());
    }
    all
}

/// The same as `qeval compare` would understand it.
fn parsed(arguments: &[OsString]) -> Result<CompareArgs> {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Compare(args), .. }) => Ok(args),
        // A folder called like an option, say.
        Ok(_) => Err(Error::argument("the demo's folder cannot be compared", "name another folder")),
        Err(reason) => Err(Error::argument(
            format!("the demo's folder cannot be compared: {}", reason.to_string().trim_end()),
            "name another folder",
        )),
    }
}

/// What was made, and the command that will measure it.
fn beginning(args: &DemoArgs, arguments: &[OsString]) -> String {
    let width = COUSINS.iter().map(|cousin| cousin.name.len()).max().unwrap_or(0);
    let mut text = format!(
        "A small model that was really trained, and quantized cousins, in {}:\n  {:width$}  the model\n",
        args.folder.display(),
        "base.safetensors"
    );
    for cousin in COUSINS {
        text += &format!("  {:width$}  {}\n", cousin.name, cousin.about);
    }
    // An option and its value stay on one line.
    let mut words: Vec<String> = Vec::new();
    for argument in arguments {
        let word = quoted(&argument.to_string_lossy());
        match words.last_mut().filter(|last| TAKES_VALUE.contains(&last.as_str())) {
            Some(option) => *option += &format!(" {word}"),
            None => words.push(word),
        }
    }
    text.push_str("\n$ ");
    let mut column = 2;
    for (index, word) in words.iter().enumerate() {
        let length = word.chars().count() + 1;
        if index > 0 && column + length + 2 > WIDTH {
            text += " \\\n    ";
            column = 4;
        } else if index > 0 {
            text.push(' ');
        }
        text += word;
        column += length;
    }
    text + "\n\n"
}

/// A word as a shell takes it whole.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_./:=@%+,-".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Where the report lies, and what to do next.
fn ending(report: &Path, seconds: f64) -> String {
    format!(
        "\nMade and measured in {seconds:.0} s. Open {}\nNext, with a model of your own:\n  qeval quantize MODEL \
         --to q4_k_m\n  qeval compare MODEL MODEL-Q4_K_M.gguf --suite multilingual\n",
        report.join("report.html").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_command_is_the_one_that_runs() {
        let args = DemoArgs { folder: "my demo".into(), force: false, broken_layer: 1, limit: Some(2) };
        let written = demo::Written {
            base: "my demo/base.safetensors".into(),
            cousins: COUSINS.iter().map(|cousin| args.folder.join(cousin.name)).collect(),
        };
        let arguments = arguments(&args, &written);
        let compare = parsed(&arguments).unwrap();
        assert_eq!((&compare.base, &compare.quants), (&written.base, &written.cousins));
        assert!(compare.selection.offline && compare.selection.suite == ["demo"]);
        assert_eq!(compare.measuring.out, Path::new("my demo/report"));
        let text = beginning(&args, &arguments);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        let command = text.split("$ ").nth(1).unwrap().replace(" \\\n    ", " ");
        assert!(
            command.starts_with("qeval compare 'my demo/base.safetensors' 'my demo/q8_0.gguf'"),
            "{text}"
        );
        assert!(command.ends_with("--out 'my demo/report' --limit 2\n\n"), "{text}");
        let dashed = DemoArgs { folder: "--x".into(), ..args };
        let written = demo::Written { base: "--x/base.safetensors".into(), cousins: vec!["--x/a".into()] };
        assert!(parsed(&super::arguments(&dashed, &written)).is_err());
    }
}
