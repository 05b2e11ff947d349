//! Observations of a finished pass, with the models' cards, into a `Comparison`.

use super::models::{self, BaseModel, Models};
use crate::{
    checkpoint::Weight,
    comparison::{
        Comparison, ErrorView, LayerComparison, LayerErrors, LinearComparison, ModelCard, ProtocolCard,
        Provenance, QuantComparison, RoundingNoise, SCHEMA_VERSION, Stage, TaskCard, WeightComparison,
        reduce::{self, TokenTexts},
    },
    error::{Error, Result},
    evaluate::{
        Observations,
        observations::{LayerObservation, QuantObservations},
    },
    metrics::layer,
    model::Decoder,
    observation::{BaseToken, QuantToken},
    suite::{Protocol, Request},
};

/// Name of the noise floor's row.
const NOISE_FLOOR: &str = "noise floor (base in bf16)";
/// What llama.cpp's own logits file does to base's distribution.
const CLIPPED_BASE: &str = "Base is a llama.cpp logits file: its probabilities were clipped 16 nats below each \
    position's best and stored in 16 bits, which adds a divergence of its own (about 5e-6 nats on identical models) \
    and hides differences in the tail. Use the model itself as base for exact figures, layers and weights.";
/// Tokens shown before a worst token.
const CONTEXT_TOKENS: usize = 24;

/// A finished pass and what it was run on.
pub(super) struct Measured<'a> {
    pub models: &'a Models,
    pub protocol: &'a Protocol,
    pub requests: &'a [Request],
    pub tasks: Vec<TaskCard>,
    /// As run: the models' decoders, and the noise floor's if there is one more.
    pub quants: &'a [Decoder],
    pub observations: &'a Observations,
    /// Per quant, where it was measured.
    pub rounding_noise: &'a [Option<RoundingNoise>],
    pub provenance: Provenance,
    pub hash: bool,
}

/// Reduces everything that was observed.
pub(super) fn comparison(measured: Measured) -> Result<Comparison> {
    let Measured { models, observations, .. } = measured;
    let mut hashes = models::Hashes::new(measured.hash);
    let (protocol, mut base) = match &models.base {
        BaseModel::Logits(file) => (Protocol::LlamaCpp { n_ctx: file.n_ctx }, models::logits_card(file)),
        BaseModel::Model(model) => (measured.protocol.clone(), models::card(model, &mut hashes)),
    };
    base.tokens_per_second = observations.base_tokens_per_second;
    base.excluded_mass = observations.base_excluded_mass;
    let mut warnings = warnings(models, &measured.tasks);
    let mut rows = Vec::with_capacity(measured.quants.len());
    for (index, observed) in observations.quants.iter().enumerate() {
        let mut card = match models.quants.get(index) {
            Some(model) => models::card(model, &mut hashes),
            None => ModelCard { label: NOISE_FLOOR.to_owned(), ..base.clone() },
        };
        card.tokens_per_second = Some(observed.tokens_per_second);
        card.excluded_mass = observed.excluded_mass;
        let mut row = quant(card, observed, measured.quants[index].weights(), &measured);
        row.rounding_noise = measured.rounding_noise.get(index).cloned().flatten();
        if row.overall.non_finite_tokens > 0 {
            warnings.push(format!(
                "{}: {} of {} positions gave NaN or infinite figures; they are in no mean.",
                row.model.label,
                row.overall.non_finite_tokens,
                row.overall.non_finite_tokens + row.overall.scored_tokens
            ));
        }
        rows.push(row);
    }
    let noise_floor = if rows.len() > models.quants.len() { rows.pop() } else { None };
    Ok(Comparison {
        schema_version: SCHEMA_VERSION,
        provenance: measured.provenance,
        protocol: ProtocolCard { name: protocol.name().to_owned(), description: protocol.describe() },
        tasks: measured.tasks,
        vocabulary_size: models.vocabulary,
        base,
        quants: rows,
        noise_floor,
        warnings,
    })
}

fn warnings(models: &Models, tasks: &[TaskCard]) -> Vec<String> {
    let mut warnings = models.warnings.clone();
    if matches!(models.base, BaseModel::Logits(_)) {
        warnings.push(CLIPPED_BASE.to_owned());
    }
    warnings.extend(tasks.iter().filter(|task| task.documents_dropped > 0).map(|task| {
        let TaskCard { name, documents, documents_dropped, .. } = task;
        format!("{name}: {documents_dropped} of {documents} documents are too short for the protocol.")
    }));
    warnings
}

fn quant(
    model: ModelCard,
    observed: &QuantObservations,
    weights: &[Weight],
    measured: &Measured,
) -> QuantComparison {
    let models = measured.models;
    let tokens = reduce::Tokens {
        base: measured.observations.base_tokens.as_slice(),
        quant: observed.tokens.as_slice(),
        seed: measured.provenance.seed,
        bytes_known: measured.tasks.iter().any(|task| task.scored_bytes > 0),
    };
    let texts = |base: &BaseToken, quant_top1: u32| texts(measured, base, quant_top1);
    let names: Vec<&str> = measured.tasks.iter().map(|task| task.name.as_str()).collect();
    let base_weights = models.base.model().map_or(&[][..], |base| base.decoder.weights());
    QuantComparison {
        model,
        overall: tokens.metrics(),
        tasks: tokens.by_task(&names),
        by_base_confidence: tokens.by_base_confidence(),
        by_context_position: tokens.by_context_position(),
        kl_histogram: tokens.kl_histogram(),
        layers: observed.layers.iter().map(layer_comparison).collect(),
        linears: observed
            .linears
            .iter()
            .map(|linear| LinearComparison {
                layer: linear.layer,
                linear: linear.linear.to_owned(),
                cumulative: layer_errors(&linear.cumulative),
                injected: layer_errors(&linear.injected),
            })
            .collect(),
        weights: observed
            .weights
            .iter()
            .filter_map(|weight| {
                let find = |list: &[Weight]| list.iter().find(|other| other.name == weight.name).cloned();
                let (quant, base) = (find(weights)?, find(base_weights)?);
                Some(WeightComparison {
                    name: weight.name.clone(),
                    encoding: quant.encoding.clone(),
                    base_encoding: base.encoding.clone(),
                    bits_per_weight: quant.stored_bytes as f64 * 8.0 / quant.parameters().max(1) as f64,
                    shape: quant.shape,
                    sqnr_db: weight.errors.sqnr_db,
                    identical: weight.errors.identical,
                })
            })
            .collect(),
        worst_tokens: tokens.worst_tokens(&names, &texts),
        rounding_noise: None,
    }
}

/// A cousin against its moved self, beside its divergence from base at the same positions.
pub(super) fn rounding_noise(
    itself: &Observations,
    all: &Observations,
    quant: &QuantObservations,
    seed: u64,
) -> Result<RoundingNoise> {
    let Some(moved) = itself.quants.first() else {
        return Err(Error::argument(
            "a cousin was not compared with itself",
            "report this as a bug of qeval",
        ));
    };
    let base = itself.base_tokens.as_slice();
    let noise = reduce::Tokens { base, quant: moved.tokens.as_slice(), seed, bytes_known: false }.metrics();
    // Both lists are in the order of task, document, window, position; the sample holds whole windows.
    let key = |token: &BaseToken| (token.task, token.document, token.window, token.position);
    let (all_base, all_quant) = (all.base_tokens.as_slice(), quant.tokens.as_slice());
    let same: Vec<usize> =
        base.iter().filter_map(|token| all_base.binary_search_by_key(&key(token), key).ok()).collect();
    let base: Vec<BaseToken> = same.iter().map(|index| all_base[*index]).collect();
    let quant: Vec<QuantToken> = same.iter().map(|index| all_quant[*index]).collect();
    let loss = reduce::Tokens { base: &base, quant: &quant, seed, bytes_known: false }.metrics();
    Ok(RoundingNoise {
        scored_tokens: noise.scored_tokens,
        kl_divergence: noise.kl_divergence.mean,
        kl_divergence_from_base: loss.kl_divergence.mean,
        top1_agreement: noise.top1_agreement,
    })
}

/// The words around a scored position.
fn texts(measured: &Measured, base: &BaseToken, quant_top1: u32) -> TokenTexts {
    let decode = |ids: &[u32]| measured.models.tokenizer.decode(ids);
    let key = (base.task, base.document, base.window);
    let request = measured
        .requests
        .binary_search_by_key(&key, |request| (request.task, request.document, request.window))
        .ok()
        .map(|index| &measured.requests[index]);
    let position = base.position as usize;
    let context =
        request.and_then(|request| request.tokens.get(position.saturating_sub(CONTEXT_TOKENS)..position));
    TokenTexts {
        context: context.map(decode).unwrap_or_default(),
        target: decode(&[base.token]),
        base_top1: decode(&[base.top1]),
        quant_top1: decode(&[quant_top1]),
    }
}

fn layer_comparison(observed: &LayerObservation) -> LayerComparison {
    LayerComparison {
        stage: if observed.layer.is_some() { Stage::Layer } else { Stage::Embedding },
        layer: observed.layer.unwrap_or(0),
        base_layer: observed.base_layer.unwrap_or(0),
        cumulative: observed.cumulative.as_ref().map(layer_errors),
        injected: observed.injected.as_ref().map(layer_errors),
        cka: observed.cka,
    }
}

fn layer_errors(report: &layer::LayerErrorReport) -> LayerErrors {
    LayerErrors { all: error_view(&report.all), without_first: report.without_first.as_ref().map(error_view) }
}

fn error_view(view: &layer::ErrorView) -> ErrorView {
    ErrorView {
        tokens: view.tokens,
        identical: view.identical,
        sqnr_db: view.sqnr_db,
        update_sqnr_db: view.update_sqnr_db,
        relative_error: view.relative_error,
        cosine_distance: view.cosine_distance,
        max_abs_error: view.max_abs_error,
        base_kurtosis: view.base_kurtosis,
        quant_kurtosis: view.quant_kurtosis,
        base_max_over_rms: view.base_max_over_rms,
        quant_max_over_rms: view.quant_max_over_rms,
        non_finite: view.non_finite,
    }
}
