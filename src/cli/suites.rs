//! `qeval suites`: what there is to measure, with languages, sizes, licences and what it takes.

use serde::Serialize;

use super::{Outcome, SuitesArgs, terminal};
use crate::{
    error::Result,
    suite::{
        self, Content, EMBEDDED, Suite, Task,
        benchmarks::{BENCHMARKS, Benchmark, Output},
        question::{Answer, QuestionKind},
        reasoning,
    },
};

/// One line of the list; also its `--json`.
#[derive(Serialize)]
struct Line {
    name: String,
    about: String,
    languages: Vec<String>,
    /// Texts and questions; absent where the data is the user's own.
    samples: Option<usize>,
    /// UTF-8 bytes that a model reads, prompts and options included; absent where the data is the user's own.
    bytes: Option<usize>,
    license: String,
    /// Where the data comes from.
    data: String,
}

pub(super) fn command(args: &SuitesArgs) -> Result<Outcome> {
    let mut embedded = Vec::new();
    for suite in EMBEDDED {
        if let Some(suite) = suite::embedded(suite.name) {
            embedded.push(of_suite(&suite?));
        }
    }
    embedded.push(of_suite(&super::selection::reasoning_suite(0, reasoning::DEFAULT_PER_LEVEL)));
    let benchmarks: Vec<Line> = BENCHMARKS.iter().map(of_benchmark).collect();
    if args.json {
        terminal::print_json(&embedded.into_iter().chain(benchmarks).collect::<Vec<_>>());
        return Ok(Outcome::Done);
    }
    let mut text = String::from("Part of qeval:\n");
    for line in &embedded {
        let bytes = line.bytes.unwrap_or(0);
        text += &format!(
            "  {:14} {} samples, {} languages, {:.0} kB to read, {}\n",
            line.name,
            line.samples.unwrap_or(0),
            line.languages.len(),
            bytes as f64 / 1e3,
            line.license
        );
        text += &format!("  {:14} about {} at 1000 tokens/s and model\n", "", minutes(bytes));
        text += &wrapped(&line.about);
    }
    text += "\nBenchmarks, from files of yours or from the Hub (--data NAME=PATH|HUB-ID):\n";
    for line in &benchmarks {
        text += &format!(
            "  {:14} {}; {}; {}\n",
            line.name,
            match line.languages.len() {
                1 => line.languages.join(""),
                n => format!("{n} languages"),
            },
            line.license,
            line.data
        );
        text += &wrapped(&line.about);
    }
    text +=
        "\nBesides: a suite of your own (YAML), a task file of lm-evaluation-harness, any text (--text).\n";
    terminal::text(&text);
    Ok(Outcome::Done)
}

/// A suite's sizes.
fn of_suite(suite: &Suite) -> Line {
    let mut languages: Vec<String> = suite.tasks.iter().map(|task| task.language.clone()).collect();
    languages.sort();
    languages.dedup();
    let samples = |task: &Task| match &task.content {
        Content::Text(documents) => documents.len(),
        Content::Questions(questions) => questions.samples.len(),
    };
    Line {
        name: suite.name.clone(),
        about: suite.description.clone(),
        languages,
        samples: Some(suite.tasks.iter().map(samples).sum()),
        bytes: Some(suite.tasks.iter().map(bytes_of).sum()),
        license: suite.license.clone(),
        data: "embedded".to_owned(),
    }
}

/// What a model reads of a task: each question once, with its examples, and each option; what it writes, at most.
fn bytes_of(task: &Task) -> usize {
    let questions = match &task.content {
        Content::Text(documents) => return documents.iter().map(|document| document.text.len()).sum(),
        Content::Questions(questions) => questions,
    };
    // About four bytes of English are a token.
    let written = match &questions.kind {
        QuestionKind::Generation(settings) => 4 * settings.max_new_tokens,
        _ => 0,
    };
    let one = |sample: &suite::question::Sample| {
        let shots: usize = sample.shots.iter().map(|shot| shot.question.len() + shot.answer.len()).sum();
        let options: usize = match &sample.answer {
            Answer::Choice { options, .. } => options.iter().map(|option| option.continuation.len()).sum(),
            Answer::Continuation(text) => text.len(),
            Answer::Text | Answer::Generation(_) => 0,
        };
        shots + sample.question.len() + options + written
    };
    questions.samples.iter().map(one).sum()
}

fn of_benchmark(benchmark: &Benchmark) -> Line {
    let about = match benchmark.output {
        Output::Choice => "choices",
        Output::Continuation => "likelihood of a continuation",
        Output::Rolling => "likelihood of whole texts",
        Output::Generation => "written answers",
    };
    Line {
        name: benchmark.name.to_owned(),
        about: format!("{} ({about}, {} examples)", benchmark.about, benchmark.num_fewshot),
        languages: benchmark.languages().iter().map(|language| (*language).to_owned()).collect(),
        samples: None,
        bytes: None,
        license: benchmark.license.to_owned(),
        data: benchmark.dataset.to_owned(),
    }
}

/// Time for so many bytes at four bytes a token and a thousand tokens a second.
fn minutes(bytes: usize) -> String {
    let seconds = bytes as f64 / 4.0 / 1000.0;
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

/// A paragraph, indented, at most 80 columns wide.
fn wrapped(text: &str) -> String {
    const INDENT: &str = "      ";
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && INDENT.len() + line.chars().count() + 1 + word.chars().count() > 80 {
            lines += &format!("{INDENT}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &format!("{INDENT}{line}\n")
}
