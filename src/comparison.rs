//! The saved comparison: what a run found, versioned and self-describing.
//!
//! This is the hinge of the program. Everything before it needs models;
//! everything after it (tables, charts, HTML, the gate) reads only this.
//! Types here are a contract: a change of meaning raises [`SCHEMA_VERSION`].
//! It must not know candle, polars, plotters or a checkpoint.

pub mod evidence;
pub mod pairwise;
pub mod reduce;
pub mod tasks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::evidence::{PercentileBounds, TokenSums};
use self::tasks::{ByteComparison, GenerationComparison, QuestionsComparison, SideQuestions};
use crate::stats::Estimate;

/// Version of the `comparison.json` format.
pub const SCHEMA_VERSION: u32 = 1;

/// One base, its quants, and everything that was measured between them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// [`SCHEMA_VERSION`] of the program that wrote the file.
    pub schema_version: u32,
    /// Who measured, where, when and how.
    pub provenance: Provenance,
    /// How text was cut into windows.
    pub protocol: ProtocolCard,
    /// What text was scored.
    pub tasks: Vec<TaskCard>,
    /// Token ids that both sides share, and over which every token metric is taken.
    pub vocabulary_size: usize,
    /// The reference.
    pub base: ModelCard,
    /// The cousins, in the order given.
    pub quants: Vec<QuantComparison>,
    /// What base alone showed on text, over all tasks and by task; empty in files of older versions.
    #[serde(default)]
    pub base_text: Vec<SideText>,
    /// What base alone showed on questions.
    #[serde(default)]
    pub base_questions: Option<SideQuestions>,
    /// Cousins of another vocabulary: what can be compared.
    #[serde(default)]
    pub foreign: Vec<ForeignComparison>,
    /// How questions were put: plain text or a chat template, how answers were written.
    #[serde(default)]
    pub asking: Option<String>,
    /// Base against base with every linear's output and the residual stream rounded to bf16:
    /// what is below this is rounding, not quantization. Absent if it was not asked for.
    pub noise_floor: Option<QuantComparison>,
    /// Everything a reader must know before trusting a figure, in whole sentences.
    pub warnings: Vec<String>,
}

/// Who measured, where, when and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// Version of qeval.
    pub qeval_version: String,
    /// Version of the tensor library.
    pub candle_version: String,
    /// Start of the run, UTC, RFC 3339.
    pub created_utc: String,
    /// The command line as typed.
    pub command_line: Vec<String>,
    /// Seed of every random choice (bootstrap, probe sample).
    pub seed: u64,
    /// Operating system and processor architecture, as "linux x86_64".
    pub platform: String,
    /// Where products ran: "cpu", "cuda:0", "metal:0".
    pub device: String,
    /// Worker threads.
    pub threads: usize,
    /// How weights and activations were computed with, in words.
    pub compute: String,
    /// Wall time of the measurement, seconds.
    pub wall_seconds: f64,
    /// Multiply-adds counted twice, over all models of the run.
    pub floating_point_operations: f64,
    /// Largest number of tokens held in memory at once.
    pub chunk_tokens: usize,
}

/// How text was cut into windows; printed beside every perplexity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProtocolCard {
    /// `llama.cpp`, `lm-eval` or `strided`.
    pub name: String,
    /// One line with all settings.
    pub description: String,
}

fn text_kind() -> String {
    "text".to_owned()
}

/// What text a task scored, or what questions it asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskCard {
    /// Suite and task, as "perplexity/english-prose".
    pub name: String,
    /// `text`, `choice`, `continuation`, `rolling` or `generation`; "text" in files of older versions.
    #[serde(default = "text_kind")]
    pub kind: String,
    /// Tasks of one group are also reported together.
    #[serde(default)]
    pub group: Option<String>,
    /// Version of the suite.
    pub suite_version: u32,
    /// SHA-256 of the suite's definition and data.
    pub suite_sha256: String,
    /// BCP-47 language tag, where the suite states one.
    pub language: Option<String>,
    /// Documents scored; of questions, samples.
    pub documents: usize,
    /// Documents too short for the protocol, not scored.
    pub documents_dropped: usize,
    /// Samples of which something was cut off on the left, because the model reads no more at once.
    #[serde(default)]
    pub samples_cut: usize,
    /// Options or texts without a token to score.
    #[serde(default)]
    pub samples_not_asked: usize,
    /// Tokens of answers that were cut off.
    #[serde(default)]
    pub answer_tokens_cut: usize,
    /// Records of the data that no sample was made of, in words.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Tokens of all documents.
    pub tokens: usize,
    /// Scored targets (a token may be scored once at most).
    pub scored_tokens: usize,
    /// Tokens never scored because the protocol gives them no context (first tokens, first halves).
    pub unscored_tokens: usize,
    /// Tokens cut off as an incomplete tail.
    pub dropped_tokens: usize,
    /// UTF-8 bytes that the scored tokens cover.
    pub scored_bytes: usize,
    /// SHA-256 of everything that a model reads in this task, token by token: equal where two runs asked the same.
    /// Absent where that is not known, and in files of older versions.
    #[serde(default)]
    pub input_sha256: Option<String>,
}

/// One model as it lies on disk, and what running it cost.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelCard {
    /// Short unique name used in every table and chart.
    pub label: String,
    /// The path as given.
    pub path: String,
    /// `safetensors`, `gguf`, `llama.cpp logits`.
    pub format: String,
    /// Hugging Face's architecture name, as "LlamaForCausalLM".
    pub architecture: String,
    /// Files with their hashes, so that two files of the same label can be told apart.
    pub files: Vec<FileCard>,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Rows of the head.
    pub vocab_size: usize,
    /// Number of stored weights (a tied head counts once).
    pub parameters: u64,
    /// Bytes of all weights as stored, scales included.
    pub weight_bytes: u64,
    /// `weight_bytes`·8 / `parameters`.
    pub bits_per_weight: f64,
    /// What encodings hold how much, largest first.
    pub encodings: Vec<EncodingShare>,
    /// What was done to the numbers that flow into its linears, in words; empty in files of older versions.
    #[serde(default)]
    pub activations: String,
    /// How keys and values were stored, with bits per stored number; absent where they were kept as computed.
    #[serde(default)]
    pub kv_cache: Option<String>,
    /// Where the tokenizer came from, in words.
    pub tokenizer: String,
    /// Prefill speed in this run, this build, tokens per second of wall time.
    pub tokens_per_second: Option<f64>,
    /// Mean probability mass on ids outside the shared vocabulary (0 where vocabularies are equal).
    pub excluded_mass: f64,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileCard {
    /// File name without folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal (the identity that model hubs show); absent with `--no-hash`.
    pub sha256: Option<String>,
}

/// How much of a checkpoint one encoding holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EncodingShare {
    /// Name, as "Q4_K" or "BF16".
    pub encoding: String,
    /// Tensors in this encoding.
    pub tensors: usize,
    /// Weights in this encoding.
    pub parameters: u64,
    /// Bytes in this encoding, scales included.
    pub bytes: u64,
}

/// Everything measured between base and one quant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuantComparison {
    /// The quant.
    pub model: ModelCard,
    /// All scored tokens of all tasks.
    pub overall: TokenMetrics,
    /// Each task by itself, in the order of [`Comparison::tasks`].
    pub tasks: Vec<TaskMetrics>,
    /// By base's largest probability.
    pub by_base_confidence: Vec<Bucket>,
    /// By number of context tokens.
    pub by_context_position: Vec<Bucket>,
    /// Distribution of per-token KL divergence on a logarithmic axis.
    pub kl_histogram: Histogram,
    /// Embedding and every layer's output, cumulative and injected.
    pub layers: Vec<LayerComparison>,
    /// Every linear layer's output; empty unless `--probe linear`.
    pub linears: Vec<LinearComparison>,
    /// Every weight against base's; empty if base has no weights (a logits file).
    pub weights: Vec<WeightComparison>,
    /// What was answered, against base; absent where nothing was asked.
    #[serde(default)]
    pub questions: Option<QuestionsComparison>,
    /// How written answers diverge from base's, by task.
    #[serde(default)]
    pub generations: Vec<TaskGeneration>,
    /// Base's own written answers, read by the cousin token by token: by task.
    #[serde(default)]
    pub traces: Vec<TaskMetrics>,
    /// Rolling texts, per byte and per word.
    #[serde(default)]
    pub rolling: Vec<TaskBytes>,
    /// Samples that flipped, a few of every task.
    #[serde(default)]
    pub flipped: Vec<FlippedSample>,
    /// The scored tokens with the largest KL divergence, largest first.
    pub worst_tokens: Vec<WorstToken>,
    /// How far the cousin is from itself; absent where nothing rounds its activations.
    #[serde(default)]
    pub rounding_noise: Option<RoundingNoise>,
}

/// A cousin against itself with every embedding moved by 2⁻²²: rounding of activations amplifies any difference near a
/// tie, so this much of its divergence is not reproducible by anyone, on any other machine or kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RoundingNoise {
    /// Positions measured (whole windows of the same text, spread over it).
    pub scored_tokens: usize,
    /// Mean KL divergence of the moved model from the model, nats.
    pub kl_divergence: Estimate,
    /// The cousin's mean KL divergence from base at the same positions, nats.
    pub kl_divergence_from_base: Estimate,
    /// Share of positions with the same most likely token.
    pub top1_agreement: Estimate,
}

/// Token metrics over one set of positions; both sides saw the same tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenMetrics {
    /// Positions that entered the figures below.
    pub scored_tokens: usize,
    /// Positions with a NaN or infinite result on either side: counted here, in no figure below.
    pub non_finite_tokens: usize,
    /// Mean −ln p(target) of base, nats per token.
    pub base_nll: Estimate,
    /// Mean −ln q(target) of the quant, nats per token.
    pub quant_nll: Estimate,
    /// exp(`base_nll`).
    pub base_perplexity: Estimate,
    /// exp(`quant_nll`).
    pub quant_perplexity: Estimate,
    /// Paired mean of quant − base nll, nats per token.
    pub delta_nll: Estimate,
    /// exp(`delta_nll`).
    pub ppl_ratio: Estimate,
    /// Σ nll / (ln 2 · bytes of the scored text) of base; absent where the source text is not known.
    pub base_bits_per_byte: Option<Estimate>,
    /// The same of the quant.
    pub quant_bits_per_byte: Option<Estimate>,
    /// Mean entropy of base's distribution, nats.
    pub base_entropy: Estimate,
    /// Mean entropy of the quant's distribution, nats.
    pub quant_entropy: Estimate,
    /// Σ p ln(p/q) per position, nats.
    pub kl_divergence: Distribution,
    /// Σ q ln(q/p) per position, nats.
    pub reverse_kl: Distribution,
    /// Share of positions with the same most likely token.
    pub top1_agreement: Estimate,
    /// Mean share of the five most likely tokens that both sides have.
    pub top5_overlap: Estimate,
    /// q(target) − p(target).
    pub delta_p: DeltaP,
    /// What the means are made of, cluster by cluster; of all text and of each task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<TokenSums>,
    /// Bounds of the percentiles of KL divergence at several confidences; of all text and of each task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kl_divergence_bounds: Vec<PercentileBounds>,
}

/// Mean and upper tail of a per-token figure. Percentiles are given only with at least
/// ten observations beyond them; `max` has no interval.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Mean.
    pub mean: Estimate,
    /// 50th percentile.
    pub median: Option<Estimate>,
    /// 90th percentile.
    pub p90: Option<Estimate>,
    /// 95th percentile.
    pub p95: Option<Estimate>,
    /// 99th percentile.
    pub p99: Option<Estimate>,
    /// 99.9th percentile.
    pub p99_9: Option<Estimate>,
    /// Largest observation.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub max: f64,
}

/// Change of the target's probability.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeltaP {
    /// Mean.
    pub mean: Estimate,
    /// Root of the mean square.
    pub rms: Estimate,
    /// 1st percentile (the losses).
    pub p1: Option<Estimate>,
    /// 10th percentile.
    pub p10: Option<Estimate>,
    /// 50th percentile.
    pub median: Option<Estimate>,
    /// 90th percentile.
    pub p90: Option<Estimate>,
    /// 99th percentile (the gains).
    pub p99: Option<Estimate>,
}

/// One task's token metrics.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskMetrics {
    /// Name, as in [`TaskCard::name`].
    pub task: String,
    /// The figures; absent if no token of the task could be scored.
    pub metrics: Option<TokenMetrics>,
}

/// One bucket of a breakdown; the lower bound belongs to the bucket.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// Inclusive lower bound.
    pub from: f64,
    /// Exclusive upper bound (inclusive for the last confidence bucket).
    pub to: f64,
    /// Positions in the bucket.
    pub scored_tokens: usize,
    /// The figures; absent if the bucket is empty.
    pub metrics: Option<TokenMetrics>,
}

/// Counts over logarithmically spaced bins.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// Bin edges, nats, ascending; one more than `counts`.
    pub edges: Vec<f64>,
    /// Observations per bin.
    pub counts: Vec<u64>,
    /// Observations below the first edge (zeros and rounding-sized negatives among them).
    pub below: u64,
    /// Observations at or above the last edge.
    pub above: u64,
}

/// Which point of the residual stream a probe looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The embedding, before the first layer.
    Embedding,
    /// A decoder layer's output, before any final norm.
    Layer,
}

/// Divergence at one point of the residual stream.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LayerComparison {
    /// Embedding or layer.
    pub stage: Stage,
    /// Index of the quant's layer, from 0; 0 for the embedding.
    pub layer: usize,
    /// Index of base's layer at the same relative depth (equal to `layer` where depths agree).
    pub base_layer: usize,
    /// Quant on its own input: errors of all layers before add up. Absent where widths differ.
    pub cumulative: Option<LayerErrors>,
    /// Quant's layer on base's input: the layer's own error. Absent where depth or width differ.
    pub injected: Option<LayerErrors>,
    /// Debiased linear CKA in place of the errors, for cousins of another depth or width.
    pub cka: Option<f64>,
    /// Share of probed tokens that go through the same experts on both sides, each on its own input. Absent where a
    /// layer has no experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_agreement: Option<f64>,
    /// The same with the quant's layer on base's input: what its own error changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub injected_router_agreement: Option<f64>,
}

/// Divergence of one linear layer's output.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LinearComparison {
    /// Layer index, from 0.
    pub layer: usize,
    /// Name within the layer, as "self_attn.q_proj".
    pub linear: String,
    /// Each side on its own input.
    pub cumulative: LayerErrors,
    /// The quant's linear on base's input to it.
    pub injected: LayerErrors,
}

/// Errors over all probed tokens, and without each request's first position, whose massive
/// activations dominate a residual stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LayerErrors {
    /// All probed tokens.
    pub all: ErrorView,
    /// Without position 0 of each request; absent if nothing else was probed.
    pub without_first: Option<ErrorView>,
}

/// Error of a quant's vectors ŷ against base's y over a set of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorView {
    /// Tokens probed.
    pub tokens: u64,
    /// Whether every element was equal.
    pub identical: bool,
    /// 10·log10(Σ‖y‖²/Σ‖y−ŷ‖²), decibels; null if there is no error at all.
    pub sqnr_db: Option<f64>,
    /// 10·log10(Σ‖y−x‖²/Σ‖y−ŷ‖²), x base's layer input: the layer's own contribution as signal.
    pub update_sqnr_db: Option<f64>,
    /// ‖y−ŷ‖_F/‖y‖_F.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub relative_error: f64,
    /// 1 − mean cosine per token.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub cosine_distance: f64,
    /// Largest absolute difference of an element.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub max_abs_error: f64,
    /// Kurtosis of base's elements (3 for a Gaussian): outliers.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub base_kurtosis: f64,
    /// Kurtosis of the quant's elements.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub quant_kurtosis: f64,
    /// Largest magnitude of base over its root mean square.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub base_max_over_rms: f64,
    /// The same of the quant.
    #[serde(deserialize_with = "crate::stats::estimate::nan_if_null")]
    #[schemars(with = "Option<f64>")]
    pub quant_max_over_rms: f64,
    /// Elements that were NaN or infinite on either side; they are in no figure above.
    pub non_finite: u64,
}

/// One weight of the quant against base's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WeightComparison {
    /// Hugging Face's name, as "model.layers.0.self_attn.q_proj.weight".
    pub name: String,
    /// Encoding in the quant.
    pub encoding: String,
    /// Encoding in base.
    pub base_encoding: String,
    /// `[out, in]` or `[n]`.
    pub shape: Vec<usize>,
    /// Bits per weight in the quant, scales included.
    pub bits_per_weight: f64,
    /// 10·log10(Σw²/Σ(w−ŵ)²), decibels; null if there is no error at all.
    pub sqnr_db: Option<f64>,
    /// Whether every element was equal.
    pub identical: bool,
}

/// One of the positions where the quant is furthest from base.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorstToken {
    /// Name of the task.
    pub task: String,
    /// Index of the document in its task.
    pub document: u32,
    /// Index of the window in its document.
    pub window: u32,
    /// Context tokens before the target.
    pub position: u32,
    /// The text before the target, as decoded (last tokens only).
    pub context: String,
    /// The target as decoded.
    pub target: String,
    /// Base's most likely token as decoded.
    pub base_top1: String,
    /// The quant's most likely token as decoded.
    pub quant_top1: String,
    /// p(target) of base.
    pub base_probability: f64,
    /// q(target) of the quant.
    pub quant_probability: f64,
    /// KL divergence at this position, nats.
    pub kl_divergence: f64,
}

/// One model's text metrics.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SideText {
    /// Name, as in [`TaskCard::name`]; absent for all tasks together.
    pub task: Option<String>,
    /// Positions that entered the figures.
    pub scored_tokens: usize,
    /// Positions with a figure that is not finite: in none.
    pub non_finite_tokens: usize,
    /// Mean −ln p(target), nats per token.
    pub nll: Estimate,
    /// exp(`nll`).
    pub perplexity: Estimate,
    /// Σ nll / (ln 2 · bytes of the scored text); absent where the source text is not known.
    pub bits_per_byte: Option<Estimate>,
    /// Mean entropy, nats.
    pub entropy: Estimate,
}

/// How written answers of one task diverge from base's.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskGeneration {
    /// Name, as in [`TaskCard::name`].
    pub task: String,
    /// The figures.
    pub figures: GenerationComparison,
}

/// A cousin of another vocabulary: no KL divergence, no layers, but everything per byte and per sample.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForeignComparison {
    /// The cousin.
    pub model: ModelCard,
    /// Why its distributions cannot be compared with base's.
    pub reason: String,
    /// Bits per byte of text tasks, every byte scored, by task.
    pub bytes: Vec<TaskBytes>,
    /// What was answered, against base.
    pub questions: Option<QuestionsComparison>,
    /// Samples that flipped, a few of every task.
    pub flipped: Vec<FlippedSample>,
}

/// Bits per byte of one task.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskBytes {
    /// Name, as in [`TaskCard::name`].
    pub task: String,
    /// The figures.
    pub figures: ByteComparison,
}

/// A sample that one side answered right and the other wrong.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FlippedSample {
    /// Name, as in [`TaskCard::name`].
    pub task: String,
    /// The sample's id in its task.
    pub sample: String,
    /// The end of the question.
    pub question: String,
    /// What is right.
    pub expected: String,
    /// Base's answer.
    pub base_answer: String,
    /// The cousin's answer.
    pub quant_answer: String,
    /// Base's score, 0 to 1.
    pub base_score: f64,
    /// The cousin's score, 0 to 1.
    pub quant_score: f64,
}

impl Comparison {
    /// Positions and samples without a figure: a run with any must not look complete.
    pub fn unmeasured(&self) -> usize {
        let tokens: usize = self.rows().map(|row| row.overall.non_finite_tokens).sum();
        let base: usize =
            self.base_text.iter().filter(|text| text.task.is_none()).map(|t| t.non_finite_tokens).sum();
        let questions = |questions: &Option<QuestionsComparison>| -> usize {
            questions.iter().flat_map(|q| &q.tasks).map(|task| task.scores.not_judged).sum()
        };
        let rows: usize = self.quants.iter().map(|row| questions(&row.questions)).sum();
        let foreign: usize = self.foreign.iter().map(|row| questions(&row.questions)).sum();
        let alone: usize =
            self.base_questions.iter().flat_map(|side| &side.tasks).map(|task| task.not_judged).sum();
        let rolling =
            self.quants.iter().flat_map(|row| &row.rolling).chain(self.foreign.iter().flat_map(|f| &f.bytes));
        tokens + base + rows + foreign + alone + rolling.map(|task| task.figures.not_finite).sum::<usize>()
    }

    /// Every quant, and then the noise floor where it was measured: the rows of a table.
    pub fn rows(&self) -> impl Iterator<Item = &QuantComparison> {
        self.quants.iter().chain(self.noise_floor.as_ref())
    }
}
