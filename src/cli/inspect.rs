//! `qeval inspect`: what a file is, from its headers alone.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{Outcome, terminal};
use crate::{
    checkpoint::{Checkpoint, StoredWeight, Weight},
    cousin::Recipe,
    error::{Error, Result},
    model::Decoder,
    report::format::{bytes, count},
};

/// What `inspect` found; also its `--json`.
#[derive(Serialize)]
struct Inspection {
    path: String,
    format: &'static str,
    files: Vec<(String, u64)>,
    architecture: String,
    /// Why this version cannot run the model; absent if it can.
    cannot_run: Option<String>,
    config: Option<Vec<(&'static str, String)>>,
    parameters: u64,
    weight_bytes: Option<u64>,
    bits_per_weight: Option<f64>,
    encodings: Vec<Share>,
    tokenizer: Option<String>,
    chat_template_characters: Option<usize>,
    tensors: Vec<TensorLine>,
}

#[derive(Serialize)]
struct Share {
    encoding: String,
    tensors: usize,
    parameters: u64,
    bytes: Option<u64>,
    bits_per_weight: Option<f64>,
}

#[derive(Serialize)]
struct TensorLine {
    name: String,
    shape: Vec<usize>,
    encoding: String,
    bytes: Option<u64>,
    bits_per_weight: Option<f64>,
}

fn bits(bytes: Option<u64>, parameters: u64) -> Option<f64> {
    bytes.map(|n| n as f64 * 8.0 / parameters.max(1) as f64)
}

pub(super) fn command(path: &Path, tensors: bool, json: bool) -> Result<Outcome> {
    let inspection = inspect(path)?;
    if json {
        terminal::print_json(&inspection);
    } else {
        terminal::text(&render(&inspection, tensors));
    }
    Ok(Outcome::Done)
}

fn inspect(path: &Path) -> Result<Inspection> {
    let recipe = Recipe::parse(path)?;
    let checkpoint = Checkpoint::open(&recipe.path)?;
    let (architecture, mut config, opened) = architecture(&checkpoint);
    let opened = match (recipe.is_plain(), opened) {
        (true, opened) => opened,
        // What follows the path needs a model that can be run.
        (false, opened) => Ok(recipe.apply(&opened?)?),
    };
    if let (Some(facts), Ok(decoder)) = (&mut config, &opened) {
        let (activations, kv_cache) = super::models::computed_as(decoder);
        facts.push(("activations", activations));
        facts.push(("kv cache", kv_cache.unwrap_or_else(|| "as computed".to_owned())));
    }
    let weights = match &opened {
        Ok(decoder) if !recipe.is_plain() => decoder.weights().iter().map(made).collect(),
        _ => checkpoint.stored_weights(),
    };
    let cannot_run = opened.err().map(|reason| reason.to_string());
    let encodings = shares(&weights);
    let parameters: u64 = encodings.iter().map(|share| share.parameters).sum();
    let weight_bytes: Option<u64> = encodings.iter().map(|share| share.bytes).sum();
    Ok(Inspection {
        path: path.display().to_string(),
        format: checkpoint.format.name(),
        files: checkpoint
            .files
            .iter()
            .map(|file| (file.path().display().to_string(), file.bytes().len() as u64))
            .collect(),
        architecture,
        cannot_run,
        config,
        parameters,
        weight_bytes,
        bits_per_weight: bits(weight_bytes, parameters),
        encodings,
        tokenizer: tokenizer(&checkpoint),
        chat_template_characters: chat_template(&checkpoint).map(|template| template.chars().count()),
        tensors: weights
            .into_iter()
            .map(|weight| TensorLine {
                bits_per_weight: bits(weight.stored_bytes, weight.parameters()),
                name: weight.name,
                shape: weight.shape,
                encoding: weight.encoding,
                bytes: weight.stored_bytes,
            })
            .collect(),
    })
}

type Facts = Vec<(&'static str, String)>;

/// A weight as a recipe leaves it.
fn made(weight: &Weight) -> StoredWeight {
    StoredWeight {
        name: weight.name.clone(),
        shape: weight.shape.clone(),
        encoding: weight.encoding.clone(),
        stored_bytes: Some(weight.stored_bytes),
    }
}

/// Name, settings, and the model, or the first reason why it cannot be run.
fn architecture(checkpoint: &Checkpoint) -> (String, Option<Facts>, Result<Decoder>) {
    let stated = stated_architecture(checkpoint);
    match checkpoint.config() {
        Ok(Some(config)) => {
            let facts = config.facts();
            let name = config.architecture.name().to_owned();
            (name, Some(facts), Decoder::open(checkpoint, config, &candle_core::Device::Cpu))
        }
        Ok(None) => {
            let problem = "has no config.json beside it";
            let missing =
                Error::file(&checkpoint.path, problem, "put the model's config.json into its folder");
            (stated, None, Err(missing))
        }
        Err(reason) => (stated, None, Err(reason)),
    }
}

/// The architecture's name as the file states it, implemented or not.
fn stated_architecture(checkpoint: &Checkpoint) -> String {
    if let Some(metadata) = &checkpoint.gguf_metadata {
        return metadata.get_str("general.architecture").unwrap_or("not stated").to_owned();
    }
    config_json(checkpoint)
        .and_then(|json| Some(json.get("architectures")?.get(0)?.as_str()?.to_owned()))
        .unwrap_or_else(|| "not stated".to_owned())
}

fn config_json(checkpoint: &Checkpoint) -> Option<serde_json::Value> {
    read_json(&checkpoint.config_json()?)
}

fn tokenizer_config(checkpoint: &Checkpoint) -> Option<serde_json::Value> {
    read_json(&checkpoint.folder.join("tokenizer_config.json"))
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn shares(weights: &[StoredWeight]) -> Vec<Share> {
    let mut shares: BTreeMap<&str, Share> = BTreeMap::new();
    for weight in weights {
        let share = shares.entry(&weight.encoding).or_insert_with(|| Share {
            encoding: weight.encoding.clone(),
            tensors: 0,
            parameters: 0,
            bytes: Some(0),
            bits_per_weight: None,
        });
        share.tensors += 1;
        share.parameters += weight.parameters();
        share.bytes = share.bytes.zip(weight.stored_bytes).map(|(a, b)| a + b);
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    for share in &mut shares {
        share.bits_per_weight = bits(share.bytes, share.parameters);
    }
    shares.sort_by(|a, b| b.parameters.cmp(&a.parameters).then(a.encoding.cmp(&b.encoding)));
    shares
}

/// A line on the tokenizer; for a GGUF from its metadata alone, so that a large vocabulary costs nothing.
fn tokenizer(checkpoint: &Checkpoint) -> Option<String> {
    if let Some(metadata) = &checkpoint.gguf_metadata {
        let model = metadata.get_str("tokenizer.ggml.model")?;
        let pieces = metadata.get_strings("tokenizer.ggml.tokens").map_or(0, <[String]>::len);
        let pre = metadata.get_str("tokenizer.ggml.pre").map(|pre| format!(", pre-tokenizer {pre}"));
        return Some(format!(
            "GGUF vocabulary: {model}{}, {} ids",
            pre.unwrap_or_default(),
            count(pieces as u64)
        ));
    }
    let path = checkpoint.folder.join("tokenizer.json");
    let size = std::fs::metadata(&path).ok()?.len();
    // Building a large tokenizer takes longer than everything else here; its settings say what matters.
    let settings = tokenizer_config(checkpoint);
    let class = settings.as_ref().and_then(|json| json.get("tokenizer_class")?.as_str());
    let bos = match settings.as_ref().and_then(|json| json.get("add_bos_token")?.as_bool()) {
        Some(true) => ", BOS first",
        Some(false) => ", no BOS",
        None => "",
    };
    Some(format!(
        "tokenizer.json, {}{}{bos}",
        bytes(size),
        class.map(|c| format!(", {c}")).unwrap_or_default()
    ))
}

fn chat_template(checkpoint: &Checkpoint) -> Option<String> {
    if let Some(metadata) = &checkpoint.gguf_metadata {
        return metadata.get_str("tokenizer.chat_template").map(str::to_owned);
    }
    let separate = checkpoint.folder.join("chat_template.jinja");
    if let Ok(template) = std::fs::read_to_string(separate) {
        return Some(template);
    }
    tokenizer_config(checkpoint)?.get("chat_template")?.as_str().map(str::to_owned)
}

fn render(inspection: &Inspection, tensors: bool) -> String {
    let mut lines = vec![inspection.path.clone()];
    let mut field = |name: &str, value: String| lines.push(format!("  {name:24} {value}"));
    let size: u64 = inspection.files.iter().map(|file| file.1).sum();
    let files = match inspection.files.len() {
        1 => String::new(),
        n => format!(" in {n} files"),
    };
    field("format", format!("{}, {}{files}", inspection.format, bytes(size)));
    field("architecture", inspection.architecture.clone());
    for (name, value) in inspection.config.iter().flatten() {
        field(name, value.clone());
    }
    field("parameters", count(inspection.parameters));
    if let Some(bits) = inspection.bits_per_weight {
        field("bits per weight", format!("{bits:.3}"));
    }
    field("tokenizer", inspection.tokenizer.clone().unwrap_or_else(|| "none".to_owned()));
    let template = inspection.chat_template_characters.map(|n| format!("{} characters", count(n as u64)));
    field("chat template", template.unwrap_or_else(|| "none".to_owned()));
    match &inspection.cannot_run {
        None => field("can be measured", "yes".to_owned()),
        Some(reason) => field("can be measured", format!("no: {reason}")),
    }
    lines.push(format!(
        "\n  {:24} {:>8} {:>14} {:>12} {:>7}",
        "encoding", "tensors", "parameters", "bytes", "bits"
    ));
    for share in &inspection.encodings {
        lines.push(format!(
            "  {:24} {:>8} {:>14} {:>12} {:>7}",
            share.encoding,
            share.tensors,
            count(share.parameters),
            share.bytes.map_or("?".to_owned(), bytes),
            share.bits_per_weight.map_or("?".to_owned(), |bits| format!("{bits:.3}")),
        ));
    }
    lines.push(format!(
        "  {:24} {:>8} {:>14} {:>12} {:>7}",
        "total",
        inspection.tensors.len(),
        count(inspection.parameters),
        inspection.weight_bytes.map_or("?".to_owned(), bytes),
        inspection.bits_per_weight.map_or("?".to_owned(), |bits| format!("{bits:.3}")),
    ));
    if tensors {
        lines.push(String::new());
        for tensor in &inspection.tensors {
            let bits = tensor.bits_per_weight.map_or("?".to_owned(), |bits| format!("{bits:.3}"));
            lines.push(format!("  {:44} {:14} {bits:>7} {:?}", tensor.name, tensor.encoding, tensor.shape));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
