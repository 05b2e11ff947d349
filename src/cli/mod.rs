//! The command line: arguments in, one function call per command.
//!
//! `terminal.rs` is the only file that prints. Exit codes: 0 done, 2 could not
//! measure (bad input, a NaN, I/O); 1 and 3 are the gate's.

mod answering;
mod answers;
mod assemble;
pub mod compare;
pub mod conversation;
pub mod demo;
mod eval;
pub mod gate;
mod inspect;
mod judging;
mod lm_eval_output;
mod memory;
mod models;
pub mod quantize;
mod resolve;
mod sample_files;
pub mod selection;
mod suites;
mod terminal;
mod trace;
mod workload;
mod writing;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub use self::terminal::report_error;
use crate::{
    comparison::Comparison,
    error::Result,
    report::{self, export::Format},
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was measured, and nothing stands against it.
    Done,
    /// A rule of the gate is shown not to hold.
    Failed,
    /// Something came out as NaN or infinite, or a rule's figure was not measured; the report says where.
    NotMeasured,
    /// No rule of the gate fails, and some are not decided.
    Inconclusive,
}

impl Outcome {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::NotMeasured => 2,
            Outcome::Inconclusive => 3,
        }
    }

    /// What a gate's outcome ends with.
    fn of_gate(outcome: crate::gate::Outcome, inconclusive: gate::Inconclusive) -> Self {
        use crate::gate::Outcome as Gate;
        use gate::Inconclusive;
        match (outcome, inconclusive) {
            (Gate::Pass, _) | (Gate::Inconclusive, Inconclusive::Pass) => Outcome::Done,
            (Gate::Fail, _) | (Gate::Inconclusive, Inconclusive::Fail) => Outcome::Failed,
            (Gate::Inconclusive, Inconclusive::Keep) => Outcome::Inconclusive,
            (Gate::NotMeasured, _) => Outcome::NotMeasured,
        }
    }
}

/// Know exactly what quantization cost your model.
#[derive(Debug, Parser)]
#[command(name = "qeval", version, about, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Examples:
  qeval demo
  qeval compare base.safetensors quant.gguf
  qeval inspect quant.gguf
  qeval quantize base/ --to q4_k_m
  qeval gate qeval-report --policy release
  qeval report qeval-report --format md

Exit codes: 0 done, 2 could not measure (bad input, NaN, I/O); of the gate also 1 (fails) and 3
(inconclusive).")]
pub struct Cli {
    #[command(flatten)]
    output: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone, Copy, Debug)]
struct Verbosity {
    /// Say more (-v: steps, -vv: details); RUST_LOG overrides.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors and the result.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a small model, cousins of it, and their report, in a minute and without a network.
    Demo(demo::DemoArgs),
    /// Measure what was lost between a base model and its quantized cousins.
    Compare(CompareArgs),
    /// Measure one model alone.
    Eval(EvalArgs),
    /// List the suites and benchmarks, with languages, sizes and licences.
    Suites(SuitesArgs),
    /// Describe a model from its headers alone.
    Inspect(InspectArgs),
    /// Write a model in a quantized format, uncalibrated.
    Quantize(quantize::QuantizeArgs),
    /// Write logits and hidden states of one sequence, to check against another implementation.
    Trace(TraceArgs),
    /// Redraw tables, charts and report.html from a comparison.json, or print one document; needs no model.
    Report(ReportArgs),
    /// Hold a run against a policy: pass, fail, inconclusive or not measured.
    Gate(gate::GateArgs),
    /// Print the JSON Schema of comparison.json.
    Schema,
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

const COMPARE_EXAMPLES: &str = "Examples:
  qeval compare base.safetensors model-Q8_0.gguf model-Q4_K_M.gguf
  qeval compare base.safetensors base.safetensors@q4_k base.safetensors@kv=q8_0
  qeval compare ./Llama-3.2-1B model-Q4_K_M.gguf --text book.txt --protocol llama.cpp
  qeval compare logits.bin model-Q4_K_M.gguf     # llama.cpp's --kl-divergence-base file
  qeval compare base/ quant.gguf --suite my-suite/ --out run-1 --json
  qeval compare base/ quant.gguf --suite multilingual --suite reasoning
  qeval compare base/ quant.gguf --data hellaswag=hellaswag_val.jsonl --limit 500
  qeval compare org/base org/quant:file.gguf@revision
  qeval compare --samples base/samples_x.jsonl quant/samples_x.jsonl

`qeval compare --help` lists what may follow a path: quantizers, KV caches, adapters.";

/// Arguments of `qeval compare`.
#[derive(Args, Debug)]
#[command(after_help = COMPARE_EXAMPLES, after_long_help = format!("{COMPARE_EXAMPLES}\n\n{}", crate::cousin::help()))]
pub struct CompareArgs {
    /// The reference: a .safetensors or .gguf file, a Hugging Face folder, a repository of the Hub (ORG/NAME, with
    /// :FILE and @REVISION where needed), or llama.cpp's saved logits.
    pub base: PathBuf,
    /// The cousins: the same kinds, each also with @STEPs behind it (see below).
    #[arg(required = true)]
    pub quants: Vec<PathBuf>,
    /// BASE and QUANTS are sample files (or folders) that lm-evaluation-harness or qeval wrote: compare those, without a
    /// model.
    #[arg(long)]
    pub samples: bool,
    /// Measure every cousin also at the most significant N bits of its integer codes (MatQuant); as 6,4,3,2.
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=7))]
    pub slice_bits: Vec<u32>,
    /// What is measured.
    #[command(flatten)]
    pub selection: selection::Selection,
    /// How it is measured.
    #[command(flatten)]
    pub measuring: Measuring,
    /// What to look at inside the models.
    #[arg(long, value_enum, default_value_t = Probe::Layers)]
    pub probe: Probe,
    /// Tokens of the probes' sample (whole windows), or "all".
    #[arg(long, default_value = "4096", value_parser = parse_probe_tokens, value_name = "N|all")]
    pub probe_tokens: ProbeTokens,
    /// Skip the noise floor (base against itself rounded to bf16) and the cousins' own rounding noise.
    #[arg(long)]
    pub no_noise_floor: bool,
    /// Do not hash the model files.
    #[arg(long)]
    pub no_hash: bool,
    /// What must hold.
    #[command(flatten)]
    pub gate: gate::GateOptions,
}

/// How it is measured: what `compare` and `eval` have in common.
#[derive(Args, Clone, Debug)]
pub struct Measuring {
    /// What is done to the numbers that flow into quantized linears.
    #[arg(long, value_enum, default_value_t = Activations::Declared)]
    pub activations: Activations,
    /// How text is cut into windows: strided, llama.cpp or lm-eval.
    #[arg(long, default_value = "strided")]
    pub protocol: String,
    /// Tokens of a window (n_ctx); 512, or the model's own length for lm-eval.
    #[arg(long, value_name = "TOKENS")]
    pub window: Option<usize>,
    /// Tokens between the starts of strided windows; half a window.
    #[arg(long, value_name = "TOKENS")]
    pub stride: Option<usize>,
    /// Score at most so many windows of each text task (llama.cpp's --chunks); the rest is counted as dropped.
    #[arg(long, value_name = "N")]
    pub max_windows: Option<usize>,
    /// Put questions by base's chat template.
    #[arg(long, value_enum, default_value_t = conversation::Chat::Auto)]
    pub chat: conversation::Chat,
    /// Draw so many answers to each question that is answered by writing, beside the greedy one, with the checkpoint's
    /// own temperature and top-p.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub draws: usize,
    /// Temperature of the draws, instead of the checkpoint's own.
    #[arg(long, value_name = "T", value_parser = parse_temperature)]
    pub temperature: Option<f64>,
    /// Top-p of the draws, instead of the checkpoint's own.
    #[arg(long, value_name = "P", value_parser = parse_top_p)]
    pub top_p: Option<f64>,
    /// Answers written at once.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch: usize,
    /// Compute every request from its beginning, also what it shares with its neighbours: slower, and the same.
    #[arg(long)]
    pub no_prefix_sharing: bool,
    /// Write base's answers, and each cousin's, as lm-evaluation-harness does: results.json and samples_*.jsonl.
    #[arg(long, value_name = "DIR")]
    pub lm_eval: Option<PathBuf>,
    /// Folder of the results; an earlier result in it is replaced.
    #[arg(short, long, default_value = "qeval-report", value_name = "DIR")]
    pub out: PathBuf,
    /// Write into a folder that holds other things.
    #[arg(long)]
    pub force: bool,
    /// Memory to stay within, as 800M or 4G; sizes the chunk of tokens held at once.
    #[arg(long, default_value = "2G", value_parser = memory::parse_bytes, value_name = "SIZE")]
    pub memory: u64,
    /// Where products run: cpu, cuda, cuda:1, metal.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print comparison.json instead of the summary.
    #[arg(long)]
    pub json: bool,
    /// Print this instead of the summary.
    #[command(flatten)]
    pub printing: Printing,
}

/// Which document is printed.
#[derive(Args, Clone, Debug)]
pub struct Printing {
    /// Print one document: json, csv, parquet, md, html, junit, model-card.
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub format: Option<Document>,
    /// The table of --format csv and parquet: a file's name in tables/.
    #[arg(long, value_name = "NAME", default_value = report::export::MAIN_TABLE)]
    pub table: String,
}

/// A document that `--format` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// The comparison itself.
    Json,
    /// One table, comma-separated.
    Csv,
    /// One table, as Apache Parquet.
    Parquet,
    /// A report for a pull request or a job summary.
    Md,
    /// The whole report as one page.
    Html,
    /// The verdict of a policy (`--gate`, else `release`) as JUnit XML.
    Junit,
    /// Evaluation results for model cards on the Hub (`model-index`).
    ModelCard,
}

fn parse_temperature(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err(format!("`{text}` is not a temperature; a number above 0 is expected")),
    }
}

fn parse_top_p(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err(format!("`{text}` is not a top-p; a number above 0 and at most 1 is expected")),
    }
}

const EVAL_EXAMPLES: &str = "Examples:
  qeval eval model-Q4_K_M.gguf --suite multilingual
  qeval eval ./Llama-3.2-1B --data hellaswag=hellaswag_val.jsonl --limit 200
  qeval eval ./Llama-3.2-1B --suite my_task.yaml --lm-eval results/";

/// Arguments of `qeval eval`.
#[derive(Args, Debug)]
#[command(after_help = EVAL_EXAMPLES)]
pub struct EvalArgs {
    /// The model: a .safetensors or .gguf file, a Hugging Face folder, a repository of the Hub (ORG/NAME, with :FILE
    /// where needed); @STEPs as in compare.
    pub model: PathBuf,
    /// What is measured.
    #[command(flatten)]
    pub selection: selection::Selection,
    /// How it is measured.
    #[command(flatten)]
    pub measuring: Measuring,
    /// Do not hash the model's files.
    #[arg(long)]
    pub no_hash: bool,
}

/// What is done to the numbers that flow into quantized linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Activations {
    /// What the checkpoint declares, as compressed-tensors computes it.
    Declared,
    /// The same with the int8 scale of vLLM's kernels (amax/127, not amax/127.5).
    Vllm,
    /// Nothing: weights only.
    None,
    /// What ggml's CPU kernels do for GGUF weights (Q8_0, Q8_1, Q8_K blocks); others as declared.
    Ggml,
}

impl Activations {
    fn mode(self) -> crate::model::ActivationMode {
        use crate::model::ActivationMode;
        match self {
            Activations::Declared => ActivationMode::Declared,
            Activations::Vllm => ActivationMode::Vllm,
            Activations::None => ActivationMode::None,
            Activations::Ggml => ActivationMode::Ggml,
        }
    }
}

/// What to look at inside the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Nothing: token metrics only.
    None,
    /// Every layer's output, and every weight.
    Layers,
    /// Every linear's output as well.
    Linear,
}

/// Size of the probes' sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeTokens {
    /// Every window.
    All,
    /// Whole windows until so many tokens are reached.
    AtLeast(usize),
}

fn parse_probe_tokens(text: &str) -> std::result::Result<ProbeTokens, String> {
    match text {
        "all" => Ok(ProbeTokens::All),
        number => number
            .parse()
            .map(ProbeTokens::AtLeast)
            .map_err(|_| format!("`{number}` is neither a number nor `all`")),
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  qeval inspect model-Q4_K_M.gguf --tensors")]
struct InspectArgs {
    /// A .safetensors or .gguf file, or a Hugging Face folder; @STEPs as in compare.
    model: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  qeval trace model.gguf --text 'Once upon a time' --out trace.safetensors"
)]
struct TraceArgs {
    /// A .safetensors or .gguf file, or a Hugging Face folder; @STEPs as in compare.
    model: PathBuf,
    /// What is done to the numbers that flow into quantized linears.
    #[arg(long, value_enum, default_value_t = Activations::Declared)]
    activations: Activations,
    /// Token ids, as 1,2,3.
    #[arg(long, value_delimiter = ',', required_unless_present = "text", conflicts_with = "text")]
    tokens: Vec<u32>,
    /// Text; tokenized by the model's own tokenizer, BOS first where the model wants one.
    #[arg(long)]
    text: Option<String>,
    /// The file to write: input_ids, logits, hidden.0 … in safetensors.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Where products run: cpu, cuda, cuda:1, metal.
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Args, Debug)]
struct SuitesArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  qeval report qeval-report                            # draw everything again
  qeval report qeval-report --format md                # for a pull request
  qeval report qeval-report --format csv --table layers
  qeval report qeval-report --format model-card --output model-index.yaml")]
struct ReportArgs {
    /// A folder that `qeval compare` wrote.
    folder: PathBuf,
    /// What is printed; without it, the folder's files are made again.
    #[command(flatten)]
    printing: Printing,
    /// Write the document there instead of printing it.
    #[arg(long, value_name = "FILE", requires = "format")]
    output: Option<PathBuf>,
    /// The policy of --format junit: strict, release, smoke, or a YAML file.
    #[arg(long, default_value = "release")]
    policy: String,
}

/// Makes a run's files again, or one document of it.
fn redraw(args: &ReportArgs, quiet: bool) -> Result<Outcome> {
    let Some(document) = args.printing.format else {
        terminal::written(&report::redraw(&args.folder)?, quiet);
        return Ok(Outcome::Done);
    };
    let comparison = report::read(&args.folder)?;
    let bytes = printed(&comparison, document, &args.printing.table, &args.policy)?;
    match &args.output {
        Some(path) => report::write_file(path, &bytes)?,
        None => terminal::bytes(&bytes),
    }
    Ok(Outcome::Done)
}

/// One document of a comparison.
fn printed(comparison: &Comparison, document: Document, table: &str, policy: &str) -> Result<Vec<u8>> {
    let format = match document {
        Document::Json => Format::Json,
        Document::Csv => Format::Csv,
        Document::Parquet => Format::Parquet,
        Document::Md => Format::Markdown,
        Document::Html => Format::Html,
        Document::ModelCard => Format::ModelCard,
        Document::Junit => {
            let verdict = crate::gate::judge(&crate::gate::policy::Policy::load(policy)?, comparison, None);
            return Ok(report::verdict::junit::document(&verdict, false).into_bytes());
        }
    };
    report::export::document(comparison, format, table)
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from measuring; the caller prints it and exits with 2.
pub fn run(cli: Cli) -> Result<Outcome> {
    terminal::init_logging(cli.output.verbose, cli.output.quiet);
    let quiet = cli.output.quiet;
    match cli.command {
        Command::Demo(args) => demo::command(&args, quiet),
        Command::Compare(args) => compare::command(&args, quiet),
        Command::Eval(args) => eval::command(&args, quiet),
        Command::Suites(args) => suites::command(&args),
        Command::Inspect(args) => inspect::command(&args.model, args.tensors, args.json),
        Command::Quantize(args) => quantize::command(&args, quiet),
        Command::Trace(args) => trace::command(&args, quiet),
        Command::Gate(args) => gate::command(&args, quiet),
        Command::Report(args) => redraw(&args, quiet),
        Command::Schema => {
            let schema = schemars::schema_for!(crate::comparison::Comparison);
            terminal::print_json(&schema);
            Ok(Outcome::Done)
        }
        Command::Completions { shell } => {
            terminal::completions(shell, &mut Cli::command());
            Ok(Outcome::Done)
        }
    }
}
