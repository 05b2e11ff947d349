//! What a rule may be about: every metric with its name, unit, direction and where it comes from. A new one is one line of
//! `metrics!` and one arm in `figure.rs`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a metric is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Scored tokens of text.
    Tokens,
    /// Answered questions.
    Questions,
    /// Base's own written answers, read by the cousin.
    Traces,
    /// Written answers.
    Generations,
    /// Texts, per byte.
    Bytes,
    /// The weights themselves: exact, without a sample.
    Weights,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident $name:literal $unit:literal $source:ident $higher:literal $neutral:expr;)*) => {
        /// What a rule may be about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Metric {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &[Metric] = &[$(Metric::$variant,)*];

            /// Name, as in a policy.
            pub fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name,)* }
            }

            /// Unit; empty for a share.
            pub fn unit(self) -> &'static str {
                match self { $(Metric::$variant => $unit,)* }
            }

            /// What it is measured on.
            pub fn source(self) -> Source {
                match self { $(Metric::$variant => Source::$source,)* }
            }

            /// Whether more of it is better.
            pub fn higher_is_better(self) -> bool {
                match self { $(Metric::$variant => $higher,)* }
            }

            /// Its value for a cousin that is no worse than base; `None` where there is none, so that no margin can be
            /// counted from it.
            pub fn neutral(self) -> Option<f64> {
                match self { $(Metric::$variant => $neutral,)* }
            }
        }
    };
}

metrics! {
    /// Mean KL divergence of the cousin from base, nats per token.
    KlDivergence "kl_divergence" "nats" Tokens false Some(0.0);
    /// Its median.
    KlDivergenceMedian "kl_divergence_median" "nats" Tokens false Some(0.0);
    /// Its 90th percentile.
    KlDivergenceP90 "kl_divergence_p90" "nats" Tokens false Some(0.0);
    /// Its 95th percentile.
    KlDivergenceP95 "kl_divergence_p95" "nats" Tokens false Some(0.0);
    /// Its 99th percentile.
    KlDivergenceP99 "kl_divergence_p99" "nats" Tokens false Some(0.0);
    /// Its 99.9th percentile.
    KlDivergenceP999 "kl_divergence_p99_9" "nats" Tokens false Some(0.0);
    /// Mean KL divergence of base from the cousin, nats per token.
    ReverseKl "reverse_kl" "nats" Tokens false Some(0.0);
    /// Mean of the cousin's nll less base's, nats per token.
    DeltaNll "delta_nll" "nats" Tokens false Some(0.0);
    /// The cousin's perplexity over base's.
    PplRatio "ppl_ratio" "" Tokens false Some(1.0);
    /// Share of tokens with the same most likely one.
    Top1Agreement "top1_agreement" "" Tokens true Some(1.0);
    /// Mean share of the five most likely tokens that both have.
    Top5Overlap "top5_overlap" "" Tokens true Some(1.0);
    /// Accuracy of the cousin (the headline metric of each task); a margin is counted from base's.
    Accuracy "accuracy" "" Questions true None;
    /// The cousin's accuracy over base's.
    Recovery "recovery" "" Questions true Some(1.0);
    /// The same of what lies above guessing.
    ChanceCorrectedRecovery "chance_corrected_recovery" "" Questions true Some(1.0);
    /// Share of samples that are right under one side and wrong under the other.
    Flips "flips" "" Questions false Some(0.0);
    /// Share of samples whose answer changed.
    AnswerChanges "answer_changes" "" Questions false Some(0.0);
    /// Mean KL divergence along base's own written answers, nats per token.
    TraceKlDivergence "trace_kl_divergence" "nats" Traces false Some(0.0);
    /// Share of tokens of base's own answers at which the cousin would go on alike.
    TraceTop1Agreement "trace_top1_agreement" "" Traces true Some(1.0);
    /// Share of written answers that are equal to the last token.
    IdenticalAnswers "identical_answers" "" Generations true Some(1.0);
    /// Mean share of base's answer before the first token that differs.
    FirstDivergenceShare "first_divergence_share" "" Generations true Some(1.0);
    /// Share of the cousin's answers that ran out of tokens.
    Truncated "truncated" "" Generations false None;
    /// Mean share of the cousin's 4-grams that occurred before in the same answer.
    Repetition "repetition" "" Generations false None;
    /// Share of the cousin's answers that never close their thinking.
    UnclosedThink "unclosed_think" "" Generations false None;
    /// Bits per byte of the cousin less base's; for cousins of any vocabulary.
    DeltaBitsPerByte "delta_bits_per_byte" "bits" Bytes false Some(0.0);
    /// Signal-to-noise ratio of the weight that is furthest from base's, decibels.
    WeightSqnrDb "weight_sqnr_db" "dB" Weights true None;
    /// Bits per weight, scales included.
    BitsPerWeight "bits_per_weight" "bits" Weights false None;
    /// Bytes of all weights as stored.
    WeightBytes "weight_bytes" "bytes" Weights false None;
}

impl Metric {
    /// Whether a difference between two cousins of two runs can be estimated from what is saved.
    pub fn is_pairable(self) -> bool {
        let of_tokens = matches!(
            self,
            Self::KlDivergence
                | Self::ReverseKl
                | Self::DeltaNll
                | Self::PplRatio
                | Self::Top1Agreement
                | Self::Top5Overlap
        );
        of_tokens || matches!(self, Self::Accuracy | Self::Recovery | Self::Flips)
    }

    /// Which percentile of KL divergence it is.
    pub fn percentile(self) -> Option<f64> {
        match self {
            Metric::KlDivergenceMedian => Some(0.5),
            Metric::KlDivergenceP90 => Some(0.9),
            Metric::KlDivergenceP95 => Some(0.95),
            Metric::KlDivergenceP99 => Some(0.99),
            Metric::KlDivergenceP999 => Some(0.999),
            _ => None,
        }
    }
}
