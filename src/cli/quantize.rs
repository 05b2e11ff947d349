//! `qeval quantize`: a base model written in a quantized format.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Outcome, resolve, terminal};
use crate::{
    error::{Error, Result},
    progress::Progress,
    quantize::{self, Target, Written},
    report::format::{bytes, count},
};

const EXAMPLES: &str = "Examples:
  qeval quantize ./Llama-3.2-1B --to q4_k_m
  qeval quantize model-F16.gguf --to q8_0 --out model-Q8_0.gguf
  qeval quantize ./Llama-3.2-1B --to w4a16-g64 --out Llama-3.2-1B-W4A16
  qeval quantize org/base --to q6_k && qeval compare org/base base-Q6_K.gguf

`qeval quantize --help` lists the targets. Nothing is calibrated: no importance matrix, no data.";

fn targets() -> String {
    let width = quantize::targets().map(|target| target.name.len()).max().unwrap_or(0);
    let lines = quantize::targets().map(|target| format!("  {:width$}  {}\n", target.name, target.summary));
    format!("{EXAMPLES}\n\nTargets:\n{}", lines.collect::<String>())
}

/// Arguments of `qeval quantize`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = targets())]
pub struct QuantizeArgs {
    /// The model, not quantized yet: a Hugging Face folder, a .safetensors or .gguf file, or a repository of the Hub
    /// (ORG/NAME, with :FILE where needed).
    pub base: PathBuf,
    /// What to quantize to, as q4_k_m or w8a8; `--help` lists all.
    #[arg(long, value_name = "TARGET")]
    pub to: String,
    /// The file (GGUF) or folder (all other targets) to write; BASE-TARGET in this folder if it is not given.
    #[arg(short, long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long)]
    pub force: bool,
    /// Never touch the network; a repository must be in the Hub's cache.
    #[arg(long)]
    pub offline: bool,
}

pub(super) fn command(args: &QuantizeArgs, quiet: bool) -> Result<Outcome> {
    let target = quantize::target(&args.to)?;
    let bar = terminal::Bar::new(quiet);
    let base = resolve::model(&args.base, args.offline, &bar)?;
    if !base.is_plain() {
        return Err(Error::argument(
            format!("{} follows the path; what is written is the model that lies there", base.suffix()),
            "leave it out, and choose the format with --to",
        ));
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.base, &base.path, &target));
    if out.exists() && !args.force {
        return Err(Error::file(&out, "is there already", "name another path with --out, or add --force"));
    }
    let (started, shown) = (Cell::new(false), Cell::new(0));
    let mut progress = |_tensor: &str, done: u64, total: u64| {
        if !started.replace(true) {
            bar.start("writing", total);
        }
        bar.advance(done.saturating_sub(shown.replace(done)));
    };
    let written = quantize::quantize(&base.path, &target, &out, &mut progress);
    bar.finish();
    let written = written?;
    terminal::text(&render(&written, &args.base));
    for note in &written.notes {
        terminal::note(&format!("note: {note}"), quiet);
    }
    Ok(Outcome::Done)
}

/// The base's name with the target's, in this folder.
fn default_out(given: &Path, base: &Path, target: &Target) -> PathBuf {
    // A repository of the Hub is known by its own name, not by that of its copy.
    let named = if given.exists() { base } else { given };
    let whole = named.canonicalize().unwrap_or_else(|_| named.to_owned());
    let generic = ["model.safetensors", "model.safetensors.index.json"];
    let file = whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = match whole.parent().and_then(Path::file_name).filter(|_| generic.contains(&file.as_str())) {
        Some(folder) => folder.to_string_lossy().into_owned(),
        None => [".safetensors", ".gguf"]
            .iter()
            .find_map(|extension| file.strip_suffix(extension))
            .unwrap_or(&file)
            .to_owned(),
    };
    let extension = if target.is_file() { ".gguf" } else { "" };
    PathBuf::from(format!("{stem}-{}{extension}", target.name.to_uppercase()))
}

fn render(written: &Written, base: &Path) -> String {
    let mut lines = vec![format!("{}: {}", written.path.display(), bytes(written.bytes))];
    lines.push(format!(
        "\n  {:24} {:>8} {:>14} {:>12} {:>7}",
        "encoding", "tensors", "parameters", "bytes", "bits"
    ));
    let mut line = |name: &str, tensors: usize, parameters: u64, stored: u64, bits: f64| {
        lines.push(format!(
            "  {name:24} {tensors:>8} {:>14} {:>12} {bits:>7.3}",
            count(parameters),
            bytes(stored)
        ));
    };
    let (mut tensors, mut parameters, mut stored) = (0, 0, 0);
    for share in &written.encodings {
        let bits = 8.0 * share.bytes as f64 / share.parameters.max(1) as f64;
        line(&share.encoding, share.tensors, share.parameters, share.bytes, bits);
        tensors += share.tensors;
        parameters += share.parameters;
        stored += share.bytes;
    }
    line("total", tensors, parameters, stored, written.bits_per_weight);
    if !written.kept.is_empty() {
        lines.push("\n  otherwise than the target's name says:".to_owned());
    }
    for kept in &written.kept {
        let times = if kept.count == 1 { String::new() } else { format!(" ({} tensors)", kept.count) };
        lines.push(format!("  {:24} {}{times}: {}", kept.tensors, kept.encoding, kept.why));
    }
    lines.push(format!("\nNext: qeval compare {} {}\n", base.display(), written.path.display()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_model_and_target() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("Tiny-1M");
        std::fs::create_dir(&model).unwrap();
        let target = quantize::target("Q4-K-M").unwrap();
        let named = |path: &Path| default_out(path, path, &target).display().to_string();
        assert_eq!(named(&model), "Tiny-1M-Q4_K_M.gguf");
        for (file, expected) in [
            ("model.safetensors", "Tiny-1M-Q4_K_M.gguf"),
            ("other.v2.safetensors", "other.v2-Q4_K_M.gguf"),
            ("tiny-f16.gguf", "tiny-f16-Q4_K_M.gguf"),
        ] {
            std::fs::write(model.join(file), "").unwrap();
            assert_eq!(named(&model.join(file)), expected);
        }
        assert_eq!(named(Path::new("org/name")), "name-Q4_K_M.gguf");
    }
}
