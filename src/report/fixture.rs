//! Small made-up comparisons for the tests of this folder: plausible figures, no model behind them.

mod questions;

pub(crate) use self::questions::{HOSTILE_ANSWER, alone, with_questions};
use crate::comparison::*;
use crate::stats::{Estimate, IntervalMethod};

/// A figure with an interval of ±`half` over 40 clusters.
pub(crate) fn estimate(value: f64, half: f64) -> Estimate {
    Estimate {
        value,
        lower: Some(value - half),
        upper: Some(value + half),
        standard_error: Some(half / 1.96),
        confidence: 0.95,
        clusters: 40,
        observations: 10_200,
        method: IntervalMethod::Bca,
    }
}

/// A figure whose sample was too small for an interval.
pub(crate) fn without_interval(value: f64) -> Estimate {
    Estimate { lower: None, upper: None, standard_error: None, clusters: 4, ..estimate(value, 0.0) }
}

/// What makes one made-up cousin differ from another.
#[derive(Clone, Copy)]
pub(crate) struct Damage {
    pub(crate) bits_per_weight: f64,
    pub(crate) kl: f64,
    pub(crate) ppl_ratio: f64,
    pub(crate) top1: f64,
    /// SQNR after layer 0, dB; None for outputs equal to base's.
    pub(crate) sqnr_db: Option<f64>,
}

/// No difference at all.
pub(crate) const NONE: Damage =
    Damage { bits_per_weight: 16.0, kl: 0.0, ppl_ratio: 1.0, top1: 1.0, sqnr_db: None };
const Q8: Damage =
    Damage { bits_per_weight: 8.5, kl: 4.48e-5, ppl_ratio: 1.0000061, top1: 0.9896, sqnr_db: Some(47.6) };
const Q4: Damage =
    Damage { bits_per_weight: 5.08, kl: 1.888e-3, ppl_ratio: 0.99903, top1: 0.931, sqnr_db: Some(28.3) };
const IQ3: Damage =
    Damage { bits_per_weight: 4.04, kl: 7.03e-3, ppl_ratio: 1.00445, top1: 0.8847, sqnr_db: Some(20.6) };
const Q2: Damage =
    Damage { bits_per_weight: 3.63, kl: 2.106e-2, ppl_ratio: 1.0063, top1: 0.8193, sqnr_db: Some(18.7) };
const IQ2: Damage =
    Damage { bits_per_weight: 2.94, kl: 3.239e-2, ppl_ratio: 1.02912, top1: 0.8206, sqnr_db: Some(16.7) };
const FLOOR: Damage =
    Damage { bits_per_weight: 16.0, kl: 2.1e-5, ppl_ratio: 1.000002, top1: 0.9931, sqnr_db: Some(49.5) };

const TASKS: [(&str, f64); 3] = [
    ("perplexity/english-prose", 0.7),
    ("perplexity/russian-news", 1.05),
    ("perplexity/grade-school-maths", 1.6),
];

/// Five cousins of a small multilingual model on three tasks, six layers, with a noise floor.
pub(crate) fn comparison() -> Comparison {
    let quants = [("Q8_0", Q8), ("Q4_K_M", Q4), ("IQ3_S", IQ3), ("Q2_K", Q2), ("IQ2_XS", IQ2)];
    of(quants.map(|(name, damage)| quant(&format!("polyglot6m-{name}"), damage)).to_vec())
}

/// A comparison with the given cousins.
pub(crate) fn of(quants: Vec<QuantComparison>) -> Comparison {
    Comparison {
        schema_version: SCHEMA_VERSION,
        provenance: provenance(),
        protocol: ProtocolCard {
            name: "strided".into(),
            description: "strided: window 512, stride 256, no BOS, every later token scored once".into(),
        },
        tasks: TASKS.map(|(name, _)| task_card(name)).to_vec(),
        vocabulary_size: 4096,
        base: model("polyglot6m", 16.0),
        quants,
        base_text: Vec::new(),
        base_questions: None,
        foreign: Vec::new(),
        asking: None,
        noise_floor: Some(quant("polyglot6m", FLOOR)),
        warnings: vec![
            "3 documents of perplexity/russian-news are too short for the protocol and were not scored"
                .into(),
        ],
    }
}

/// The same comparison with `text` before every foreign text. Enumerations and scores stay what they are: another word
/// there is a damaged file, and refused.
pub(crate) fn hostile(tame: &Comparison, text: &str) -> Comparison {
    const NOT_FOREIGN: [&str; 5] = ["stage", "method", "base", "quant", "same_answer"];
    fn poison(value: &mut serde_json::Value, key: &str, text: &str) {
        match value {
            serde_json::Value::String(s) if !NOT_FOREIGN.contains(&key) => s.insert_str(0, text),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|v| poison(v, key, text)),
            serde_json::Value::Object(map) => map.iter_mut().for_each(|(k, v)| poison(v, k, text)),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(tame).expect("a comparison is JSON");
    poison(&mut value, "", text);
    serde_json::from_value(value).expect("texts may be anything")
}

fn provenance() -> Provenance {
    let command =
        ["qeval", "compare", "models/polyglot6m", "models/polyglot6m-Q8_0.gguf", "--suite", "perplexity"];
    Provenance {
        qeval_version: "0.1.0".into(),
        candle_version: "0.11.1".into(),
        created_utc: "2026-01-02T03:04:05Z".into(),
        command_line: command.map(String::from).to_vec(),
        seed: 20_260_102,
        platform: "linux x86_64".into(),
        device: "cpu".into(),
        threads: 8,
        compute: "weights only: decoded to f32, products in f32".into(),
        wall_seconds: 21.4,
        floating_point_operations: 3.2e12,
        chunk_tokens: 12_288,
    }
}

fn task_card(name: &str) -> TaskCard {
    TaskCard {
        name: name.into(),
        suite_version: 1,
        suite_sha256: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d".into(),
        language: Some("en".into()),
        documents: 40,
        samples_cut: 0,
        samples_not_asked: 0,
        answer_tokens_cut: 0,
        left_out: Vec::new(),
        kind: "text".to_owned(),
        group: None,
        documents_dropped: 3,
        tokens: 3520,
        scored_tokens: 3400,
        unscored_tokens: 40,
        dropped_tokens: 80,
        scored_bytes: 14_000,
        input_sha256: None,
    }
}

fn model(label: &str, bits_per_weight: f64) -> ModelCard {
    let parameters = 5_775_104;
    let bytes = (parameters as f64 * bits_per_weight / 8.0) as u64;
    let file = FileCard {
        name: format!("{label}.gguf"),
        bytes: bytes + 294_912,
        sha256: Some("2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".into()),
    };
    ModelCard {
        label: label.into(),
        path: format!("models/polyglot6m/{label}.gguf"),
        format: "gguf".into(),
        architecture: "Qwen2ForCausalLM".into(),
        files: vec![file],
        num_hidden_layers: 6,
        hidden_size: 256,
        vocab_size: 4096,
        parameters,
        weight_bytes: bytes,
        bits_per_weight,
        encodings: vec![
            EncodingShare {
                encoding: "Q4_K".into(),
                tensors: 37,
                parameters: 5_700_000,
                bytes: bytes.saturating_sub(50_000),
            },
            EncodingShare { encoding: "F32".into(), tensors: 31, parameters: 75_104, bytes: 50_000 },
        ],
        activations: "as computed".into(),
        kv_cache: None,
        tokenizer: "tokenizer.json of base".into(),
        tokens_per_second: Some(8123.4),
        excluded_mass: 0.0,
    }
}

/// A cousin with that damage everywhere.
pub(crate) fn quant(label: &str, damage: Damage) -> QuantComparison {
    let bucket = |from: f64, to: f64, factor: f64| Bucket {
        from,
        to,
        scored_tokens: 2040,
        metrics: Some(token_metrics(Damage { kl: damage.kl * factor, ..damage })),
    };
    let task = |(name, factor): (&str, f64)| TaskMetrics {
        task: name.into(),
        metrics: Some(token_metrics(Damage {
            kl: damage.kl * factor,
            ppl_ratio: 1.0 + (damage.ppl_ratio - 1.0) * factor,
            ..damage
        })),
    };
    QuantComparison {
        model: model(label, damage.bits_per_weight),
        overall: token_metrics(damage),
        tasks: TASKS.map(task).to_vec(),
        by_base_confidence: vec![
            bucket(0.0, 0.25, 1.3),
            bucket(0.25, 0.5, 1.1),
            bucket(0.5, 0.75, 0.8),
            bucket(0.75, 0.95, 0.4),
            bucket(0.95, 1.0, 0.1),
        ],
        by_context_position: vec![
            bucket(1.0, 64.0, 0.8),
            bucket(64.0, 256.0, 1.0),
            bucket(256.0, 512.0, 1.15),
        ],
        kl_histogram: histogram(damage.kl),
        layers: (0..=6).map(|i| layer(i, damage.sqnr_db)).collect(),
        linears: Vec::new(),
        weights: weights(damage),
        questions: None,
        generations: Vec::new(),
        traces: Vec::new(),
        rolling: Vec::new(),
        flipped: Vec::new(),
        worst_tokens: worst_tokens(damage),
        rounding_noise: None,
    }
}

/// Token metrics around a mean KL divergence and a perplexity ratio.
pub(crate) fn token_metrics(damage: Damage) -> TokenMetrics {
    let kl = damage.kl;
    let base_nll = 3.839;
    let delta = damage.ppl_ratio.ln();
    let spread = kl.sqrt() * 0.02;
    let exp = |nll: f64, half: f64| estimate(nll.exp(), nll.exp() * half);
    let tail = |factor: f64| estimate(kl * factor, kl * factor * 0.06);
    let distribution = || Distribution {
        mean: tail(1.0),
        median: Some(tail(0.65)),
        p90: Some(tail(2.1)),
        p95: Some(tail(2.9)),
        p99: Some(tail(5.8)),
        p99_9: Some(tail(14.5)),
        max: kl * 44.0,
    };
    TokenMetrics {
        scored_tokens: 10_200,
        non_finite_tokens: 0,
        base_nll: estimate(base_nll, 0.05),
        quant_nll: estimate(base_nll + delta, 0.05),
        base_perplexity: exp(base_nll, 0.05),
        quant_perplexity: exp(base_nll + delta, 0.05),
        delta_nll: estimate(delta, spread),
        ppl_ratio: estimate(damage.ppl_ratio, damage.ppl_ratio * spread),
        base_bits_per_byte: Some(estimate(1.81, 0.02)),
        quant_bits_per_byte: Some(estimate(1.81 + delta / 3.0, 0.02)),
        base_entropy: estimate(3.7, 0.04),
        quant_entropy: estimate(3.7 + delta, 0.04),
        kl_divergence: distribution(),
        reverse_kl: distribution(),
        top1_agreement: estimate(damage.top1, (1.0 - damage.top1) * 0.06),
        top5_overlap: estimate(damage.top1 * 0.5 + 0.5, (1.0 - damage.top1) * 0.03),
        delta_p: DeltaP {
            mean: estimate(-kl / 10.0, kl / 40.0),
            rms: estimate(kl.sqrt() / 7.0, kl.sqrt() / 100.0),
            p1: Some(estimate(-kl.sqrt() / 2.0, kl.sqrt() / 50.0)),
            p10: Some(estimate(-kl.sqrt() / 8.0, kl.sqrt() / 90.0)),
            median: Some(estimate(0.0, 0.0)),
            p90: Some(estimate(kl.sqrt() / 8.0, kl.sqrt() / 90.0)),
            p99: Some(estimate(kl.sqrt() / 2.0, kl.sqrt() / 50.0)),
        },
        sums: None,
        kl_divergence_bounds: Vec::new(),
    }
}

/// A log-normal hump around 0.65·`kl`, five bins per decade; all below for a `kl` of 0.
fn histogram(kl: f64) -> Histogram {
    let edges: Vec<f64> = (0..=60).map(|i| 10f64.powf(f64::from(i) / 5.0 - 10.0)).collect();
    let share = |edge: f64| {
        let z = ((edge * 10f64.powf(0.1)).ln() - (kl * 0.65).ln()) / 0.95;
        (0.4 / 0.95 * 0.46 * (-z * z / 2.0).exp() * 10_200.0) as u64
    };
    let counts: Vec<u64> = edges.iter().take(60).map(|&e| if kl > 0.0 { share(e) } else { 0 }).collect();
    let below = if kl > 0.0 { 0 } else { 10_200 };
    Histogram { edges, counts, below, above: 0 }
}

fn layer(i: usize, sqnr_db: Option<f64>) -> LayerComparison {
    let depth = i as f64;
    let own = [9.0, 0.4, 9.4, 11.2, 12.0, 12.4, 10.6];
    let view = |db: Option<f64>| LayerErrors {
        all: error_view(db.map(|db| db + 1.5)),
        without_first: Some(error_view(db)),
    };
    LayerComparison {
        stage: if i == 0 { Stage::Embedding } else { Stage::Layer },
        layer: i.saturating_sub(1),
        base_layer: i.saturating_sub(1),
        cumulative: Some(view(
            sqnr_db.map(|db| if i == 0 { db + 6.0 } else { db - 0.25 * depth + 0.4 * (depth * 2.0).sin() }),
        )),
        injected: Some(view(sqnr_db.map(|db| db + own.get(i).copied().unwrap_or(10.0)))),
        cka: None,
        router_agreement: None,
        injected_router_agreement: None,
    }
}

fn error_view(sqnr_db: Option<f64>) -> ErrorView {
    let relative = sqnr_db.map_or(0.0, |db| 10f64.powf(-db / 20.0));
    ErrorView {
        tokens: 4096,
        identical: sqnr_db.is_none(),
        sqnr_db,
        update_sqnr_db: sqnr_db.map(|db| db - 8.0),
        relative_error: relative,
        cosine_distance: relative * relative / 2.0,
        max_abs_error: relative * 12.0,
        base_kurtosis: 41.0,
        quant_kurtosis: 40.6,
        base_max_over_rms: 55.0,
        quant_max_over_rms: 54.8,
        non_finite: 0,
    }
}

fn weights(damage: Damage) -> Vec<WeightComparison> {
    let names = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
    ];
    let one = |(i, name): (usize, &str)| WeightComparison {
        name: format!("model.layers.{}.{name}.weight", i / 6),
        encoding: "Q4_K".into(),
        base_encoding: "BF16".into(),
        shape: vec![256, 256],
        bits_per_weight: damage.bits_per_weight,
        sqnr_db: damage.sqnr_db.map(|db| db - 6.0 + (i * 7 % 11) as f64),
        identical: damage.sqnr_db.is_none(),
    };
    (0..36).zip(names.into_iter().cycle()).map(one).collect()
}

fn worst_tokens(damage: Damage) -> Vec<WorstToken> {
    let texts = [
        (
            "Janet’s ducks lay 16 eggs per day. She eats three for breakfast and bakes muffins with four. How many are ",
            "left",
            " left",
            " sold",
            0.71,
            0.22,
        ),
        ("Утром в столице прошёл дождь, а вечером синоптики обещают ", "снег", "снег", "дождь", 0.44, 0.13),
        ("def add(a, b):\n    return a + ", "b", "b", "1", 0.93, 0.41),
    ];
    let one =
        |(i, (context, target, base, quant, p, q)): (usize, (&str, &str, &str, &str, f64, f64))| WorstToken {
            task: TASKS[i % TASKS.len()].0.into(),
            document: 3 * i as u32,
            window: 0,
            position: 40 + 7 * i as u32,
            context: context.into(),
            target: target.into(),
            base_top1: base.into(),
            quant_top1: quant.into(),
            base_probability: p,
            quant_probability: q,
            kl_divergence: damage.kl * (44.0 - 5.0 * i as f64),
        };
    if damage.kl == 0.0 { Vec::new() } else { texts.into_iter().enumerate().map(one).collect() }
}

/// Checks that every element is closed in the order in which it was opened, that attributes are
/// quoted and that no raw text looks like markup; returns the names of all elements.
pub(crate) fn elements(html: &str) -> Vec<String> {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let (mut open, mut seen) = (Vec::<String>::new(), Vec::new());
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = rest[start..].find('>').map(|e| start + e).expect("a tag has an end");
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "near {:?}", &rest[start..end + 1]);
        } else {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            seen.push(name.clone());
            if !VOID.contains(&name.as_str()) && !tag.ends_with('/') {
                open.push(name.clone());
            }
        }
        rest = &rest[end + 1..];
        if ["style", "script"].contains(&name.as_str()) && !tag.starts_with('/') {
            rest = &rest[rest.find(&format!("</{name}>")).expect("it is closed")..];
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    seen
}
