//! How long a saved run takes to become a report, and how much memory: 10 cousins, 100 000 scored tokens each, 32 layers
//! with every linear and weight, 24 languages with text and questions.
//!
//! `cargo bench --bench report` makes the run once (its figures are made up, but reduced by the program's own code),
//! then times `qeval report`'s work on it and prints the largest memory that the process ever held.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::Instant;

use qeval::comparison::{
    Comparison, ErrorView, LayerComparison, LayerErrors, LinearComparison, ModelCard, ProtocolCard,
    Provenance, QuantComparison, Stage, TaskCard, WeightComparison,
    reduce::{TokenTexts, Tokens},
    tasks::{self, Item, TaskItems, TaskKey},
};
use qeval::observation::{BaseToken, QuantToken};
use qeval::report;

const COUSINS: usize = 10;
const LAYERS: usize = 32;
const LANGUAGES: [&str; 24] = [
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "uk", "el", "tr", "ar", "he", "fa", "hi", "bn",
    "ta", "te", "th", "vi", "zh", "ja", "ko",
];
const DOCUMENTS: u32 = 30;
const TOKENS: u32 = 139;
const QUESTIONS: u32 = 60;
const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A number in [0, 1) without a pattern.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let comparison = comparison();
    let tokens: usize = comparison.quants[0].overall.scored_tokens;
    report::write(folder.path(), &comparison, None).unwrap();
    drop(comparison);
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len() as f64 / 1e6;
    println!("{COUSINS} cousins, {tokens} tokens, {LAYERS} layers, {} languages", LANGUAGES.len());
    println!("comparison.json {:.1} MB, report.html {:.2} MB", size("comparison.json"), size("report.html"));
    for _ in 0..3 {
        let started = Instant::now();
        report::redraw(folder.path()).unwrap();
        println!("report: {:.2} s", started.elapsed().as_secs_f64());
    }
    let policy = qeval::gate::policy::Policy::load("release").unwrap();
    let started = Instant::now();
    let verdict = qeval::gate::judge(&policy, &report::read(folder.path()).unwrap(), None);
    println!("gate release: {} checks, {:.2} s", verdict.checks.len(), started.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: not known");
    println!("largest memory, making the run included: {peak}");
}

fn comparison() -> Comparison {
    let tasks = LANGUAGES.iter().flat_map(|language| {
        [
            card(&format!("texts/{language}"), "text", language),
            card(&format!("exam/{language}"), "choice", language),
        ]
    });
    Comparison {
        schema_version: qeval::comparison::SCHEMA_VERSION,
        provenance: Provenance {
            qeval_version: env!("CARGO_PKG_VERSION").to_owned(),
            candle_version: String::new(),
            created_utc: "2026-01-02T03:04:05Z".to_owned(),
            command_line: vec!["bench".to_owned()],
            seed: 0,
            platform: String::new(),
            device: "cpu".to_owned(),
            threads: 2,
            compute: String::new(),
            wall_seconds: 1.0,
            floating_point_operations: 1e12,
            chunk_tokens: 4096,
        },
        protocol: ProtocolCard { name: "strided".to_owned(), description: "strided: window 512".to_owned() },
        tasks: tasks.collect(),
        vocabulary_size: 32_000,
        base: model("base", 16.0),
        quants: (0..COUSINS).map(quant).collect(),
        base_text: Vec::new(),
        base_questions: None,
        foreign: Vec::new(),
        asking: Some("plain text".to_owned()),
        noise_floor: None,
        warnings: Vec::new(),
    }
}

fn card(name: &str, kind: &str, language: &str) -> TaskCard {
    TaskCard {
        name: name.to_owned(),
        kind: kind.to_owned(),
        group: Some("group".to_owned()).filter(|_| kind != "text"),
        suite_version: 1,
        suite_sha256: "0".repeat(64),
        language: Some(language.to_owned()),
        documents: DOCUMENTS as usize,
        documents_dropped: 0,
        samples_cut: 0,
        samples_not_asked: 0,
        answer_tokens_cut: 0,
        left_out: Vec::new(),
        tokens: (DOCUMENTS * TOKENS) as usize,
        scored_tokens: (DOCUMENTS * TOKENS) as usize,
        unscored_tokens: 0,
        dropped_tokens: 0,
        scored_bytes: 10_000,
        input_sha256: Some("0".repeat(64)),
    }
}

fn model(label: &str, bits: f64) -> ModelCard {
    ModelCard {
        label: label.to_owned(),
        path: label.to_owned(),
        format: "gguf".to_owned(),
        architecture: "LlamaForCausalLM".to_owned(),
        files: Vec::new(),
        num_hidden_layers: LAYERS,
        hidden_size: 4096,
        vocab_size: 32_000,
        parameters: 7_000_000_000,
        weight_bytes: (7e9 * bits / 8.0) as u64,
        bits_per_weight: bits,
        encodings: Vec::new(),
        activations: String::new(),
        kv_cache: None,
        tokenizer: String::new(),
        tokens_per_second: Some(100.0),
        excluded_mass: 0.0,
    }
}

fn quant(index: usize) -> QuantComparison {
    let mut dice = Dice(index as u64 + 1);
    let kl = 1e-3 * 2f64.powi(index as i32);
    let (mut base, mut cousin) = (Vec::new(), Vec::new());
    for language in 0..LANGUAGES.len() as u32 {
        for i in 0..DOCUMENTS * TOKENS {
            let nll = 4.0 * dice.next();
            base.push(BaseToken {
                nll,
                entropy: 2.0,
                max_probability: dice.next(),
                task: 2 * language,
                document: i / TOKENS,
                window: 0,
                position: i % TOKENS + 1,
                token: i,
                top1: 1,
                bytes: 4,
                reserved: 0,
            });
            cousin.push(QuantToken {
                nll: nll + kl * (dice.next() - 0.4),
                entropy: 2.0,
                kl_divergence: -kl * dice.next().max(1e-9).ln(),
                reverse_kl: -kl * dice.next().max(1e-9).ln(),
                delta_p: kl * (dice.next() - 0.5),
                top1: u32::from(dice.next() > kl),
                top5_common: 4 + u32::from(dice.next() > kl),
            });
        }
    }
    let tokens = Tokens { base: &base, quant: &cousin, clusters: &[], seed: 0, bytes_known: true };
    let cards: Vec<String> =
        LANGUAGES.iter().flat_map(|l| [format!("texts/{l}"), format!("exam/{l}")]).collect();
    let names: Vec<&str> = cards.iter().map(String::as_str).collect();
    let word = |_: &BaseToken, _: u32| TokenTexts {
        context: "some words before the token that was".to_owned(),
        target: " right".to_owned(),
        base_top1: " right".to_owned(),
        quant_top1: " wrong".to_owned(),
    };
    let linear = |layer: usize, linear: &str, dice: &mut Dice| LinearComparison {
        layer,
        linear: linear.to_owned(),
        cumulative: errors(dice),
        injected: errors(dice),
    };
    QuantComparison {
        model: model(&format!("model-7b-instruct-Q{index}_K_M"), 8.0 - 0.6 * index as f64),
        overall: tokens.metrics(),
        tasks: tokens.by_task(&names, |task| task % 2 == 0),
        by_base_confidence: tokens.by_base_confidence(),
        by_context_position: tokens.by_context_position(),
        kl_histogram: tokens.kl_histogram(),
        layers: (0..=LAYERS)
            .map(|i| LayerComparison {
                stage: if i == 0 { Stage::Embedding } else { Stage::Layer },
                layer: i.saturating_sub(1),
                base_layer: i.saturating_sub(1),
                cumulative: Some(errors(&mut dice)),
                injected: Some(errors(&mut dice)),
                cka: None,
                router_agreement: None,
                injected_router_agreement: None,
            })
            .collect(),
        linears: (0..LAYERS)
            .flat_map(|layer| LINEARS.iter().map(move |name| (layer, *name)))
            .map(|(layer, name)| linear(layer, name, &mut dice))
            .collect(),
        weights: (0..LAYERS)
            .flat_map(|layer| LINEARS.iter().map(move |name| format!("model.layers.{layer}.{name}.weight")))
            .map(|name| WeightComparison {
                name,
                encoding: "Q4_K".to_owned(),
                base_encoding: "BF16".to_owned(),
                shape: vec![4096, 4096],
                bits_per_weight: 4.5,
                sqnr_db: Some(15.0 + 10.0 * dice.next()),
                identical: false,
            })
            .collect(),
        questions: Some(tasks::compare(&questions(kl, &mut dice), 0)),
        generations: Vec::new(),
        traces: Vec::new(),
        rolling: Vec::new(),
        flipped: Vec::new(),
        worst_tokens: tokens.worst_tokens(&names, &word),
        rounding_noise: None,
    }
}

fn errors(dice: &mut Dice) -> LayerErrors {
    let mut view = || ErrorView {
        tokens: 4096,
        identical: false,
        sqnr_db: Some(10.0 + 20.0 * dice.next()),
        update_sqnr_db: Some(10.0 * dice.next()),
        relative_error: dice.next(),
        cosine_distance: dice.next(),
        max_abs_error: dice.next(),
        base_kurtosis: 3.0,
        quant_kurtosis: 3.0,
        base_max_over_rms: 5.0,
        quant_max_over_rms: 5.0,
        non_finite: 0,
    };
    LayerErrors { all: view(), without_first: Some(view()) }
}

fn questions(kl: f64, dice: &mut Dice) -> Vec<TaskItems> {
    let task = |language: &&str| TaskItems {
        key: TaskKey {
            task: format!("exam/{language}"),
            language: Some((*language).to_owned()),
            group: Some("group".to_owned()),
            metric: "acc".to_owned(),
            filter: None,
        },
        right_or_wrong: true,
        chance: Some(0.25),
        level_unit: Some("digits".to_owned()),
        items: (0..QUESTIONS)
            .map(|i| {
                let base = dice.next() < 0.7;
                let flips = dice.next() < kl;
                Item {
                    sample: i,
                    cluster: i,
                    level: Some(i % 5),
                    base: Some(f64::from(u8::from(base))),
                    quant: Some(f64::from(u8::from(base != flips))),
                    same_answer: !flips,
                }
            })
            .collect(),
    };
    LANGUAGES.iter().map(task).collect()
}
