//! `qeval compare --samples`: sample files that were written elsewhere, paired and compared like answers of our own.

use std::{collections::BTreeMap, path::Path};

use super::{CompareArgs, compare};
use crate::{
    comparison::{
        Comparison, ForeignComparison, ModelCard, ProtocolCard, Provenance, SCHEMA_VERSION, TaskBytes,
        TaskCard,
        tasks::{self, ByteItem, Item, TaskItems, TaskKey},
    },
    error::{Error, Result},
    report::{self, Written},
    samples::{self, Aggregate, Paired, PairedTask, SampleFile},
};

/// Reads, pairs, compares and writes.
///
/// # Errors
/// A file that is no sample file; files that have nothing in common.
pub(super) fn run(args: &CompareArgs) -> Result<(Comparison, Written)> {
    let selection = &args.selection;
    if !(selection.suite.is_empty() && selection.data.is_empty() && selection.text.is_empty()) {
        return Err(Error::argument(
            "sample files hold what was asked; --suite, --data and --text cannot be used with --samples",
            "leave them out, or give the models instead",
        ));
    }
    let base = samples::read(&args.base)?;
    let mut warnings = Vec::new();
    let mut cards = BTreeMap::<String, TaskCard>::new();
    let mut foreign = Vec::new();
    for path in &args.quants {
        let quant = samples::read(path)?;
        let paired = samples::pair(&base, &quant)?;
        foreign.push(compared(path, &quant, &paired, args.measuring.seed, &mut warnings));
        for task in &paired.tasks {
            cards.entry(task.task.clone()).or_insert_with(|| card(task));
        }
    }
    report::prepare(&args.measuring.out, args.measuring.force)?;
    let comparison = Comparison {
        schema_version: SCHEMA_VERSION,
        provenance: Provenance {
            qeval_version: env!("CARGO_PKG_VERSION").to_owned(),
            candle_version: compare::candle_version().to_owned(),
            created_utc: compare::utc_now(),
            command_line: std::env::args().collect(),
            seed: args.measuring.seed,
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            device: "none".to_owned(),
            threads: rayon::current_num_threads(),
            compute: "none: answers come from sample files".to_owned(),
            wall_seconds: 0.0,
            floating_point_operations: 0.0,
            chunk_tokens: 0,
        },
        protocol: ProtocolCard {
            name: "samples".to_owned(),
            description: "sample files of lm-evaluation-harness, paired document by document".to_owned(),
        },
        tasks: cards.into_values().collect(),
        vocabulary_size: 0,
        base: model_card(&args.base),
        quants: Vec::new(),
        noise_floor: None,
        base_text: Vec::new(),
        base_questions: None,
        foreign,
        asking: Some("as the sample files were made".to_owned()),
        warnings,
    };
    let written = report::write(&args.measuring.out, &comparison, None)?;
    Ok((comparison, written))
}

fn compared(
    path: &Path,
    quant: &SampleFile,
    paired: &Paired,
    seed: u64,
    warnings: &mut Vec<String>,
) -> ForeignComparison {
    let label = path.display();
    warnings.extend(paired.notes.iter().map(|note| format!("{label}: {note}.")));
    for (side, only) in [("base", &paired.only_base), ("the cousin", &paired.only_quant)] {
        if !only.is_empty() {
            warnings.push(format!("{label}: only {side} has {}.", only.join("; ")));
        }
    }
    let mut rows = Vec::new();
    let mut bytes = BTreeMap::<String, BTreeMap<String, ByteItem>>::new();
    for task in &paired.tasks {
        warnings.extend(left_out(&label.to_string(), task));
        if task.aggregate == Aggregate::Mean {
            rows.push(items(task));
            continue;
        }
        // Words and bytes of a text come as metrics of their own.
        for (number, item) in task.items.iter().enumerate() {
            let text = bytes.entry(task.task.clone()).or_default().entry(item.key.clone());
            let text = text.or_insert(ByteItem {
                cluster: number as u32,
                base_nll: -item.base.unwrap_or(f64::NAN),
                quant_nll: -item.quant.unwrap_or(f64::NAN),
                bytes: f64::NAN,
                words: f64::NAN,
            });
            match task.metric.starts_with("word") {
                true => text.words = item.units,
                false => text.bytes = item.units,
            }
        }
    }
    let bytes = bytes.into_iter().filter_map(|(task, items)| {
        let items: Vec<ByteItem> = items.into_values().collect();
        Some(TaskBytes { task, figures: tasks::bytes(&items, seed)? })
    });
    ForeignComparison {
        model: model_card(&quant.path),
        reason: "only answers are known, not distributions".to_owned(),
        bytes: bytes.collect(),
        questions: (!rows.is_empty()).then(|| tasks::compare(&rows, seed)),
        flipped: Vec::new(),
    }
}

fn left_out(label: &str, task: &PairedTask) -> Vec<String> {
    let name = format!("{label}: {}, {}", task.task, task.metric);
    let counted = [
        (task.unpaired_base, "documents of base have no counterpart"),
        (task.unpaired_quant, "documents of the cousin have no counterpart"),
        (task.different_prompts.len(), "documents were asked in another way and are left out"),
        (task.different_targets.len(), "documents have another right answer and are left out"),
        (task.different_settings, "documents were answered with other generation settings"),
        (task.without_value, "documents have no finite value"),
        (task.unexplained, "recorded scores do not follow from their log-likelihoods"),
    ];
    counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{name}: {count} {what}."))
        .collect()
}

fn items(task: &PairedTask) -> TaskItems {
    let item = |(number, item): (usize, &samples::PairedItem)| Item {
        sample: number as u32,
        cluster: number as u32,
        level: None,
        base: item.base,
        quant: item.quant,
        same_answer: item.same_answer.unwrap_or(false),
    };
    TaskItems {
        key: TaskKey {
            task: task.task.clone(),
            language: None,
            group: None,
            metric: task.metric.clone(),
            filter: Some(task.filter.clone()).filter(|filter| filter != "none"),
        },
        right_or_wrong: task.right_or_wrong,
        chance: task.chance,
        level_unit: None,
        items: task.items.iter().enumerate().map(item).collect(),
    }
}

fn card(task: &PairedTask) -> TaskCard {
    TaskCard {
        name: task.task.clone(),
        kind: "samples".to_owned(),
        group: None,
        suite_version: 1,
        suite_sha256: String::new(),
        language: None,
        documents: task.items.len(),
        documents_dropped: task.different_prompts.len() + task.different_targets.len(),
        samples_cut: 0,
        samples_not_asked: 0,
        answer_tokens_cut: 0,
        left_out: Vec::new(),
        tokens: 0,
        scored_tokens: 0,
        unscored_tokens: 0,
        dropped_tokens: 0,
        scored_bytes: 0,
        input_sha256: None,
    }
}

fn model_card(path: &Path) -> ModelCard {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let stem = stem.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    ModelCard {
        // Sample files of one task are called alike; their folder tells them apart.
        label: parent
            .filter(|parent| !parent.is_empty())
            .map_or(stem.clone(), |parent| format!("{parent}/{stem}")),
        path: path.display().to_string(),
        format: "samples".to_owned(),
        architecture: "not known".to_owned(),
        files: Vec::new(),
        num_hidden_layers: 0,
        hidden_size: 0,
        vocab_size: 0,
        parameters: 0,
        weight_bytes: 0,
        bits_per_weight: 0.0,
        encodings: Vec::new(),
        activations: String::new(),
        kv_cache: None,
        tokenizer: "not known".to_owned(),
        tokens_per_second: None,
        excluded_mass: 0.0,
    }
}
