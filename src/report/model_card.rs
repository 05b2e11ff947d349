//! Results as the YAML head of a model card on the Hugging Face Hub (`model-index`): one block per cousin, ready to paste.
//!
//! Every value is the comparison's own, as it is (a share is between 0 and 1), its interval beside it in `args`, where
//! the format has room for anything. What was not measured says so. Foreign text is made visible, then quoted where YAML
//! needs it. `source` is left out: readers of cards refuse one without an address.
//! It must not know where the text is written.

use serde::Serialize;

use crate::comparison::tasks::{PairedScores, QuestionComparison, QuestionsComparison, SideScores, TaskKey};
use crate::comparison::{Comparison, ForeignComparison, QuantComparison, TaskCard, TokenMetrics};
use crate::stats::Estimate;

use super::format::visible;
use super::questions;

/// What stands in a value's place where there is none.
const NOT_MEASURED: &str = "not measured";
/// First folders of paths that look like a repository of the Hub and are none.
const FOLDERS: [&str; 9] =
    ["models", "model", "data", "checkpoints", "weights", "shared", "out", "output", "tmp"];

/// The head of a card.
#[derive(Serialize)]
struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_model_relation: Option<&'static str>,
    #[serde(rename = "model-index")]
    model_index: [Model; 1],
}

#[derive(Serialize)]
struct Model {
    name: String,
    results: Vec<Outcome>,
}

/// All metrics of one dataset.
#[derive(Serialize)]
struct Outcome {
    task: Task,
    dataset: Dataset,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Task {
    r#type: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct Dataset {
    name: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    args: DatasetArgs,
}

#[derive(Serialize)]
struct DatasetArgs {
    #[serde(skip_serializing_if = "Option::is_none")]
    suite_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suite_sha256: Option<String>,
    protocol: String,
    seed: u64,
    measured_with: String,
}

#[derive(Serialize)]
struct Metric {
    r#type: String,
    value: Value,
    name: String,
    args: MetricArgs,
    verified: bool,
}

/// A number, or words where there is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Words(&'static str),
}

#[derive(Default, Serialize)]
struct MetricArgs {
    lower: Option<f64>,
    upper: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    samples: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
}

/// The block of one cousin; those of another vocabulary follow the others. Empty where there is no such cousin.
pub fn block(comparison: &Comparison, quant_index: usize) -> String {
    let foreign = || comparison.foreign.get(quant_index.checked_sub(comparison.quants.len())?);
    match comparison.quants.get(quant_index) {
        Some(quant) => head_of(comparison, &quant.model.label, of_quant(comparison, quant), true),
        None => foreign().map_or_else(String::new, |foreign| {
            head_of(comparison, &foreign.model.label, of_foreign(comparison, foreign), true)
        }),
    }
}

/// The blocks of all cousins, or that of a model alone: one YAML document each.
pub fn document(comparison: &Comparison) -> String {
    let quants = comparison.quants.iter().map(|quant| &quant.model);
    let cousins = quants.chain(comparison.foreign.iter().map(|foreign| &foreign.model));
    let blocks: Vec<String> =
        cousins.enumerate().map(|(i, model)| under_its_name(&model.label, &block(comparison, i))).collect();
    if blocks.is_empty() {
        let label = &comparison.base.label;
        return under_its_name(label, &head_of(comparison, label, of_base(comparison), false));
    }
    blocks.concat()
}

fn under_its_name(label: &str, block: &str) -> String {
    format!("---\n# {}\n{block}", visible(label))
}

fn head_of(comparison: &Comparison, label: &str, results: Vec<Outcome>, is_cousin: bool) -> String {
    let base_model = hub_id(&comparison.base.path).filter(|_| is_cousin);
    let head = Head {
        base_model_relation: base_model.is_some().then_some("quantized"),
        base_model,
        model_index: [Model { name: text(label), results }],
    };
    // Strings, numbers and maps with string keys: nothing here that YAML could not hold.
    let yaml = serde_yaml::to_string(&head).unwrap_or_default();
    yaml.lines().map(|line| with_a_point(line) + "\n").collect()
}

/// YAML 1.1, which most readers of cards speak, takes `1e-5` for text and `1.0e-5` for a number.
fn with_a_point(line: &str) -> String {
    let is_number = |text: &str| {
        text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && text.parse::<f64>().is_ok()
    };
    let Some((key, number)) = line.rsplit_once(": ").filter(|(_, number)| is_number(number)) else {
        return line.to_owned();
    };
    let Some((mantissa, exponent)) = number.split_once('e') else { return line.to_owned() };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{key}: {mantissa}{point}e{sign}{exponent}")
}

/// Foreign text as a YAML string in every dialect: what would be a date, a time or a number with underscores in one of
/// them stands in quotation marks.
fn text(foreign: &str) -> String {
    let shown = visible(foreign);
    let is_odd = |c: char| c.is_ascii_hexdigit() || "_:.+-,xXoOtTzZ ".contains(c);
    let begins = shown.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    // What the serializer takes for something else it quotes by itself.
    let is_quoted = || serde_yaml::to_string(&shown).is_ok_and(|yaml| yaml.starts_with(['\'', '"']));
    if begins && shown.chars().all(is_odd) && !is_quoted() { format!("“{shown}”") } else { shown }
}

/// `org/name` of a path that names a repository of the Hub, without file and revision.
fn hub_id(path: &str) -> Option<String> {
    let id = path.split([':', '@']).next()?;
    let (org, name) = id.split_once('/')?;
    let is_name = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(plain)
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("..")
            && !part.contains("--")
    };
    let is_file = [".gguf", ".safetensors", ".bin", ".json", ".jsonl", ".kld"]
        .iter()
        .any(|end| name.to_ascii_lowercase().ends_with(end));
    (is_name(org) && is_name(name) && !is_file && !FOLDERS.contains(&org)).then(|| id.to_owned())
}

fn of_quant(comparison: &Comparison, quant: &QuantComparison) -> Vec<Outcome> {
    let mut results = Vec::new();
    if super::wording::is_measured(&quant.overall) {
        results.push(Outcome::over_all(comparison, "all text", tokens(&quant.overall)));
    }
    let tasks = quant.tasks.iter().filter_map(|task| Some((task, task.metrics.as_ref()?)));
    results.extend(tasks.map(|(task, metrics)| Outcome::of(comparison, &task.task, tokens(metrics))));
    results.extend(asked(comparison, quant.questions.as_ref()));
    results
}

fn asked(comparison: &Comparison, questions: Option<&QuestionsComparison>) -> Vec<Outcome> {
    let Some(questions) = questions else { return Vec::new() };
    let overall = questions.overall.as_ref();
    let overall = overall.map(|scores| Outcome::over_all(comparison, "all questions", kept(scores)));
    overall.into_iter().chain(answers(comparison, &questions.tasks)).collect()
}

fn of_foreign(comparison: &Comparison, foreign: &ForeignComparison) -> Vec<Outcome> {
    let mut results: Vec<Outcome> = foreign
        .bytes
        .iter()
        .map(|task| {
            let figures = &task.figures;
            let base = Some(figures.base_bits_per_byte.value);
            let metric = Metric::of("bits_per_byte", "Bits per byte", Some(&figures.quant_bits_per_byte));
            let args = MetricArgs { base: base.filter(|base| base.is_finite()), ..metric.args };
            let metric = Metric { args: MetricArgs { samples: figures.documents as u64, ..args }, ..metric };
            Outcome::of(comparison, &task.task, vec![metric])
        })
        .collect();
    results.extend(asked(comparison, foreign.questions.as_ref()));
    results
}

fn of_base(comparison: &Comparison) -> Vec<Outcome> {
    let texts = comparison.base_text.iter().map(|side| {
        let metric = Metric::of("perplexity", "Perplexity", Some(&side.perplexity));
        let metrics = vec![metric.over(side.scored_tokens)];
        match &side.task {
            None => Outcome::over_all(comparison, "all text", metrics),
            Some(task) => Outcome::of(comparison, task, metrics),
        }
    });
    let rows: &[SideScores] = comparison.base_questions.as_ref().map_or(&[], |side| &side.tasks);
    let names = questions::distinct(rows.iter().map(|row| row.key.task.as_str()));
    let answers = names.into_iter().map(|task| {
        let of = rows.iter().filter(|row| row.key.task == task);
        let metrics = of.map(|row| accuracy(&row.key, &row.score, None).over(row.samples));
        Outcome::of(comparison, task, metrics.collect())
    });
    texts.chain(answers).collect()
}

/// Metrics of scored tokens.
fn tokens(metrics: &TokenMetrics) -> Vec<Metric> {
    let kl = &metrics.kl_divergence;
    let perplexity = Metric::of("perplexity", "Perplexity", Some(&metrics.quant_perplexity));
    let base = Some(metrics.base_perplexity.value).filter(|base| base.is_finite());
    let perplexity = Metric { args: MetricArgs { base, ..perplexity.args }, ..perplexity };
    let all = [
        perplexity,
        Metric::of("kl_divergence", "KL divergence from base, mean, nats", Some(&kl.mean)),
        Metric::of("kl_divergence_p99", "KL divergence from base, 99th percentile, nats", kl.p99.as_ref()),
        Metric::of("top1_agreement", "Same most likely token as base, share", Some(&metrics.top1_agreement)),
    ];
    all.into_iter().map(|metric| metric.over(metrics.scored_tokens)).collect()
}

/// How much of base's accuracy is kept, and what flipped.
fn kept(scores: &PairedScores) -> Vec<Metric> {
    let recovery = Metric::of("recovery", "Score as a share of base's", scores.recovery.as_ref());
    let share = scores.flips.as_ref().map(|flips| flips.flips);
    let flips = Metric {
        value: Value::of(share),
        ..Metric::of("flips", "Samples right under one side and wrong under the other, share", None)
    };
    [recovery, flips].into_iter().map(|metric| metric.over(scores.samples)).collect()
}

/// Every task: its score by each metric, and what became of base's by the first of them.
fn answers(comparison: &Comparison, rows: &[QuestionComparison]) -> Vec<Outcome> {
    let names = questions::distinct(rows.iter().map(|row| row.key.task.as_str()));
    let outcome = |task: &str| {
        let of: Vec<&QuestionComparison> = rows.iter().filter(|row| row.key.task == task).collect();
        let mut metrics: Vec<Metric> = of
            .iter()
            .map(|row| accuracy(&row.key, &row.scores.quant, Some(&row.scores.base)).over(row.scores.samples))
            .collect();
        metrics.extend(of.first().map(|row| kept(&row.scores)).unwrap_or_default());
        Outcome::of(comparison, task, metrics)
    };
    names.into_iter().map(outcome).collect()
}

fn accuracy(key: &TaskKey, score: &Estimate, base: Option<&Estimate>) -> Metric {
    let filter = key.filter.as_deref().map(text);
    let name = match &filter {
        Some(filter) => format!("{} ({filter})", visible(&key.metric)),
        None => text(&key.metric),
    };
    let metric = Metric::of(&key.metric, &name, Some(score));
    let base = base.map(|base| base.value).filter(|base| base.is_finite());
    Metric { args: MetricArgs { base, filter, ..metric.args }, ..metric }
}

impl Value {
    fn of(number: Option<f64>) -> Self {
        number.filter(|x| x.is_finite()).map_or(Value::Words(NOT_MEASURED), Value::Number)
    }
}

impl Metric {
    fn of(metric: &str, name: &str, estimate: Option<&Estimate>) -> Self {
        let finite = |end: Option<f64>| end.filter(|end| end.is_finite());
        Metric {
            r#type: text(metric),
            value: Value::of(estimate.map(|estimate| estimate.value)),
            name: name.to_owned(),
            args: MetricArgs {
                lower: finite(estimate.and_then(|estimate| estimate.lower)),
                upper: finite(estimate.and_then(|estimate| estimate.upper)),
                confidence: estimate.map(|estimate| estimate.confidence),
                ..MetricArgs::default()
            },
            verified: false,
        }
    }

    /// The metric over so many tokens or samples.
    fn over(self, samples: usize) -> Self {
        Metric { args: MetricArgs { samples: samples as u64, ..self.args }, ..self }
    }
}

impl Outcome {
    /// Results on a task.
    fn of(comparison: &Comparison, task: &str, metrics: Vec<Metric>) -> Self {
        let card = comparison.tasks.iter().find(|card| card.name == task);
        // A type with a slash would be taken for a data set of the Hub.
        let (suite, config) = match task.split_once('/') {
            Some((suite, rest)) => (suite, Some(text(rest))),
            None => (task, None),
        };
        let dataset =
            Dataset { name: text(task), r#type: text(suite), config, args: dataset_args(comparison, card) };
        Outcome { task: TASK, dataset, metrics }
    }

    /// Results over everything of a kind.
    fn over_all(comparison: &Comparison, what: &str, metrics: Vec<Metric>) -> Self {
        let dataset = Dataset {
            name: what.to_owned(),
            r#type: "qeval".to_owned(),
            config: Some(what.replace(' ', "-")),
            args: dataset_args(comparison, None),
        };
        Outcome { task: TASK, dataset, metrics }
    }
}

const TASK: Task = Task { r#type: "text-generation", name: "Text generation" };

fn dataset_args(comparison: &Comparison, card: Option<&TaskCard>) -> DatasetArgs {
    DatasetArgs {
        suite_version: card.map(|card| card.suite_version),
        suite_sha256: card.map(|card| text(&card.suite_sha256)),
        protocol: text(&comparison.protocol.description),
        seed: comparison.provenance.seed,
        measured_with: format!("qeval {}", visible(&comparison.provenance.qeval_version)),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_yaml::Value as Yaml;

    use super::super::fixture;
    use super::*;

    fn documents(text: &str) -> Vec<Yaml> {
        serde_yaml::Deserializer::from_str(text).map(|one| Yaml::deserialize(one).unwrap()).collect()
    }

    /// The metric of a type on a dataset.
    fn metric<'y>(head: &'y Yaml, dataset: &str, kind: &str) -> &'y Yaml {
        let results = head["model-index"][0]["results"].as_sequence().unwrap();
        let of = results.iter().find(|r| r["dataset"]["name"] == dataset).expect(dataset);
        assert_eq!(of["task"]["type"], "text-generation");
        of["metrics"].as_sequence().unwrap().iter().find(|m| m["type"] == kind).expect(kind)
    }

    fn same(metric: &Yaml, estimate: &Estimate, samples: usize) {
        assert_eq!(metric["value"].as_f64(), Some(estimate.value));
        assert_eq!(metric["args"]["lower"].as_f64(), estimate.lower);
        assert_eq!(metric["args"]["upper"].as_f64(), estimate.upper);
        assert_eq!(metric["args"]["confidence"].as_f64(), Some(estimate.confidence));
        assert_eq!(metric["args"]["samples"].as_u64(), Some(samples as u64));
        assert_eq!(metric["verified"], false);
    }

    #[test]
    fn values_are_the_comparisons() {
        let comparison = fixture::with_questions();
        let quant = &comparison.quants[1];
        let head: Yaml = serde_yaml::from_str(&block(&comparison, 1)).unwrap();
        assert_eq!(head["model-index"][0]["name"], quant.model.label.as_str());
        let metrics = &quant.overall;
        same(metric(&head, "all text", "perplexity"), &metrics.quant_perplexity, 10_200);
        same(metric(&head, "all text", "kl_divergence"), &metrics.kl_divergence.mean, 10_200);
        same(
            metric(&head, "all text", "kl_divergence_p99"),
            metrics.kl_divergence.p99.as_ref().unwrap(),
            10_200,
        );
        same(metric(&head, "all text", "top1_agreement"), &metrics.top1_agreement, 10_200);
        let task = quant.tasks[1].metrics.as_ref().unwrap();
        same(metric(&head, "perplexity/russian-news", "kl_divergence"), &task.kl_divergence.mean, 10_200);
        let questions = quant.questions.as_ref().unwrap();
        let all = questions.overall.as_ref().unwrap();
        same(metric(&head, "all questions", "recovery"), all.recovery.as_ref().unwrap(), all.samples);
        let flips = metric(&head, "all questions", "flips");
        assert_eq!(flips["value"].as_f64(), Some(all.flips.unwrap().flips));
        for (row, kind) in questions.tasks.iter().zip(["acc", "acc_norm", "acc", "acc", "exact_match", "acc"])
        {
            let found = metric(&head, &row.key.task, kind);
            same(found, &row.scores.quant, row.scores.samples);
            assert_eq!(found["args"]["base"].as_f64(), Some(row.scores.base.value));
        }
    }

    #[test]
    fn every_cousin_has_a_document_and_a_model_alone_one() {
        let comparison = fixture::with_questions();
        let all = documents(&document(&comparison));
        let names: Vec<&str> =
            all.iter().map(|head| head["model-index"][0]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["polyglot6m-Q8_0", "polyglot6m-Q2_K", "other-4b"]);
        let bytes = &comparison.foreign[0].bytes[0].figures;
        same(metric(&all[2], "rolling/pages", "bits_per_byte"), &bytes.quant_bits_per_byte, bytes.documents);
        let alone = fixture::alone();
        let own = documents(&document(&alone));
        assert_eq!(own.len(), 1);
        same(metric(&own[0], "all text", "perplexity"), &alone.base_text[0].perplexity, 10_200);
        assert!(own[0].get("base_model").is_none());
        assert_eq!(block(&comparison, 3), "");
    }

    #[test]
    fn what_was_not_measured_says_so() {
        let mut comparison = fixture::comparison();
        comparison.quants[0].overall.kl_divergence.p99 = None;
        comparison.quants[0].overall.quant_perplexity.value = f64::NAN;
        comparison.quants[0].overall.quant_perplexity.lower = Some(f64::NAN);
        let head: Yaml = serde_yaml::from_str(&block(&comparison, 0)).unwrap();
        assert_eq!(metric(&head, "all text", "kl_divergence_p99")["value"], NOT_MEASURED);
        let perplexity = metric(&head, "all text", "perplexity");
        assert_eq!(perplexity["value"], NOT_MEASURED);
        assert!(perplexity["args"]["lower"].is_null());
    }

    #[test]
    fn only_a_repository_is_a_base_model() {
        for (path, id) in [
            ("org/name-1.5", Some("org/name-1.5")),
            ("org/name:file.gguf@main", Some("org/name")),
            ("models/polyglot6m", None),
            ("a/b/c", None),
            ("./name", None),
            ("../name", None),
            ("org/model.gguf", None),
            ("org/na me", None),
            ("org/x\ny: z", None),
            ("org/x--y", None),
            ("/abs", None),
        ] {
            assert_eq!(hub_id(path).as_deref(), id, "{path}");
        }
        let mut comparison = fixture::comparison();
        assert!(!block(&comparison, 0).contains("base_model"));
        comparison.base.path = "org/name".to_owned();
        let head: Yaml = serde_yaml::from_str(&block(&comparison, 0)).unwrap();
        assert_eq!(head["base_model"], "org/name");
        assert_eq!(head["base_model_relation"], "quantized");
    }

    #[test]
    fn foreign_text_stays_text() {
        for hostile in [
            "a: b\n- c",
            "---\nx: 1",
            "# not a comment",
            "!!python/object/apply:os.system",
            "*alias",
            "&anchor",
            "{flow: [1]}",
            "'quoted\"",
            "null",
            "yes",
            "1e5",
            "0x1F",
            "\u{1b}[2J\u{0}\u{202e}\u{2028}\u{85}",
            "%YAML 1.1",
            "@at `tick`",
            " spaces ",
            "",
        ] {
            let mut comparison = fixture::with_questions();
            comparison.quants[0].model.label = hostile.to_owned();
            comparison.quants[0].questions.as_mut().unwrap().tasks[0].key.task = format!("{hostile}/x");
            comparison.quants[0].questions.as_mut().unwrap().tasks[0].key.filter = Some(hostile.to_owned());
            let text = document(&comparison);
            let all = documents(&text);
            assert_eq!(all.len(), 3, "{hostile:?}:\n{text}");
            assert_eq!(all[0]["model-index"][0]["name"], visible(hostile).as_str());
            assert!(metric(&all[0], &visible(&format!("{hostile}/x")), "acc")["value"].is_f64());
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        }
    }

    #[test]
    fn other_dialects_read_the_same() {
        for odd in ["2024-01-02", "12_000", "1:30", "2024-01-02 03:04:05", "1,000", "+12:30:45"] {
            assert_eq!(text(odd), format!("“{odd}”"));
        }
        for tame in ["0x1F", "1e5", "Q8_0", "IQ2_XS", "1.5", "all text", "7B-instruct"] {
            assert_eq!(text(tame), tame);
        }
        assert_eq!(with_a_point("    value: 1e-5"), "    value: 1.0e-5");
        assert_eq!(with_a_point("    value: -2.5e16"), "    value: -2.5e+16");
        assert_eq!(with_a_point("    name: '1e-5'"), "    name: '1e-5'");
        assert_eq!(with_a_point("    value: 0.25"), "    value: 0.25");
    }
}
