//! Observations of a finished pass, with the models' cards, into a `Comparison`.

use std::collections::BTreeMap;

use super::{
    answering::ForeignRun,
    answers::{SideAnswer, SideAnswers},
    judging,
    models::{self, BaseModel, Foreign, Models},
    workload::Tasks,
};
use crate::{
    checkpoint::Weight,
    comparison::{
        Comparison, ErrorView, ForeignComparison, LayerComparison, LayerErrors, LinearComparison, ModelCard,
        ProtocolCard, Provenance, QuantComparison, RoundingNoise, SCHEMA_VERSION, Stage, TaskBytes, TaskCard,
        TaskGeneration, WeightComparison,
        reduce::{self, TokenTexts},
        tasks::{self, ByteItem},
    },
    error::{Error, Result},
    evaluate::{
        Observations,
        observations::{LayerObservation, QuantObservations},
    },
    metrics::layer,
    model::Decoder,
    observation::{BaseToken, QuantToken},
    suite::{
        Document, Protocol, Request,
        question::{QuestionKind, Sample},
        score,
    },
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
    /// How many of the first requests are of text tasks.
    pub text_requests: usize,
    /// See [`reduce::Tokens::clusters`].
    pub clusters: &'a [Vec<u32>],
    pub cards: &'a [TaskCard],
    pub tasks: &'a Tasks,
    /// As run: the models' decoders, and the noise floor's if there is one more.
    pub quants: &'a [Decoder],
    pub observations: &'a Observations,
    /// Base's own written answers under every quant.
    pub traced: Option<&'a Observations>,
    /// Per quant, where it was measured.
    pub rounding_noise: &'a [Option<RoundingNoise>],
    /// `None` where nothing was asked.
    pub base_answers: Option<&'a SideAnswers>,
    /// Per quant, the noise floor's too.
    pub quant_answers: &'a [SideAnswers],
    /// As [`Models::foreign`].
    pub foreign: &'a [ForeignRun],
    /// Base's text as theirs is cut, every byte scored.
    pub foreign_base_text: Option<&'a Observations>,
    /// Prompts end inside a block of reasoning.
    pub opened: bool,
    /// How questions were put.
    pub asking: Option<String>,
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
    let mut warnings = warnings(models, measured.cards);
    let mut rows = Vec::with_capacity(measured.quants.len());
    for (index, observed) in observations.quants.iter().enumerate() {
        let mut card = match models.quants.get(index) {
            Some(model) => models::card(model, &mut hashes),
            None => ModelCard { label: NOISE_FLOOR.to_owned(), ..base.clone() },
        };
        card.tokens_per_second = Some(observed.tokens_per_second);
        card.excluded_mass = observed.excluded_mass;
        let mut row = quant(card, observed, measured.quants[index].weights(), &measured)?;
        judged(&mut row, index, &measured)?;
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
    let (names, is_text) = names(&measured);
    let base_text = reduce::side_text(
        observations.base_tokens.as_slice(),
        &names,
        &is_text,
        measured.clusters,
        measured.provenance.seed,
        measured.cards.iter().any(|task| task.scored_bytes > 0),
    );
    let base_questions = match measured.base_answers {
        Some(answers) => {
            let names = owned(&names);
            let judgement =
                judging::judge(measured.tasks, &names, measured.clusters, answers, None, measured.opened)?;
            Some(tasks::side(&judgement.rows, measured.provenance.seed)).filter(|side| !side.tasks.is_empty())
        }
        None => None,
    };
    let foreign = models
        .foreign
        .iter()
        .zip(measured.foreign)
        .map(|(cousin, run)| foreign(cousin, run, &mut hashes, &measured))
        .collect::<Result<Vec<_>>>()?;
    let noise_floor = if rows.len() > models.quants.len() { rows.pop() } else { None };
    Ok(Comparison {
        schema_version: SCHEMA_VERSION,
        provenance: measured.provenance,
        protocol: ProtocolCard { name: protocol.name().to_owned(), description: protocol.describe() },
        tasks: measured.cards.to_vec(),
        base_text,
        base_questions,
        foreign,
        asking: measured.asking,
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
) -> Result<QuantComparison> {
    let models = measured.models;
    let all = reduce::Tokens {
        base: measured.observations.base_tokens.as_slice(),
        quant: observed.tokens.as_slice(),
        clusters: measured.clusters,
        seed: measured.provenance.seed,
        bytes_known: measured.cards.iter().any(|task| task.scored_bytes > 0),
    };
    let tokens = all.first(text_tokens(measured));
    let texts = |base: &BaseToken, quant_top1: u32| texts(measured, base, quant_top1);
    let (names, is_text) = names(measured);
    // Of questions it asks about answers, not about the tokens of their options.
    let is_text = |task: usize| is_text.get(task).copied().unwrap_or(false);
    let base_weights = models.base.model().map_or(&[][..], |base| base.decoder.weights());
    Ok(QuantComparison {
        model,
        overall: tokens.metrics(),
        tasks: all.by_task(&names, is_text),
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
        questions: None,
        generations: Vec::new(),
        rolling: Vec::new(),
        traces: Vec::new(),
        flipped: Vec::new(),
    })
}

/// Names of all tasks, and which of them are text.
fn names<'a>(measured: &'a Measured) -> (Vec<&'a str>, Vec<bool>) {
    measured.cards.iter().map(|card| (card.name.as_str(), card.kind == "text")).unzip()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Adds what a quant answered.
fn judged(row: &mut QuantComparison, index: usize, measured: &Measured) -> Result<()> {
    let (Some(base), Some(quant)) = (measured.base_answers, measured.quant_answers.get(index)) else {
        return Ok(());
    };
    let (names, _) = names(measured);
    let names = owned(&names);
    let seed = measured.provenance.seed;
    let judgement =
        judging::judge(measured.tasks, &names, measured.clusters, base, Some(quant), measured.opened)?;
    // What a side did not answer at all (the noise floor does not write) is no row.
    let answered: Vec<_> =
        judgement.rows.into_iter().filter(|row| row.items.iter().any(|item| item.quant.is_some())).collect();
    row.questions = (!answered.is_empty()).then(|| tasks::compare(&answered, seed));
    row.flipped = judgement.flipped;
    row.generations = judgement
        .generations
        .into_iter()
        .filter_map(|(task, items)| {
            Some(TaskGeneration {
                task: names.get(task)?.clone(),
                figures: tasks::generations(&items, seed)?,
            })
        })
        .collect();
    if let Some(observed) = measured.traced.and_then(|traced| Some((traced, traced.quants.get(index)?))) {
        let (traced, quant) = observed;
        let tokens = reduce::Tokens {
            base: traced.base_tokens.as_slice(),
            quant: quant.tokens.as_slice(),
            clusters: measured.clusters,
            seed,
            bytes_known: false,
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        row.traces =
            tokens.by_task(&names, |_| true).into_iter().filter(|task| task.metrics.is_some()).collect();
    }
    row.rolling = rolling(measured, base, quant);
    Ok(())
}

/// Rolling texts: likelihoods per byte and per word of the original text.
fn rolling(measured: &Measured, base: &SideAnswers, quant: &SideAnswers) -> Vec<TaskBytes> {
    let mut all = Vec::new();
    for (index, (_, task)) in measured.tasks.iter().enumerate() {
        let Some(questions) = task.questions().filter(|q| q.kind == QuestionKind::Rolling) else { continue };
        let nll = |answers: &SideAnswers, sample: usize| match &answers[index][sample] {
            SideAnswer::Likelihoods(likelihoods) => {
                likelihoods.first().map_or(f64::NAN, |l| -l.log_likelihood)
            }
            _ => f64::NAN,
        };
        let item = |(number, sample): (usize, &Sample)| {
            // A benchmark may score a text other than the page that it counts (WikiText).
            let text = sample.record["page"].as_str().unwrap_or(&sample.question);
            ByteItem {
                cluster: measured.clusters[index][number],
                base_nll: nll(base, number),
                quant_nll: nll(quant, number),
                bytes: text.len() as f64,
                words: score::count_words(text) as f64,
            }
        };
        let items: Vec<ByteItem> = questions.samples.iter().enumerate().map(item).collect();
        let name = measured.cards.get(index).map_or_else(String::new, |card| card.name.clone());
        let figures = tasks::bytes(&items, measured.provenance.seed);
        all.extend(figures.map(|figures| TaskBytes { task: name, figures }));
    }
    all
}

/// A cousin of another vocabulary.
fn foreign(
    cousin: &Foreign,
    run: &ForeignRun,
    hashes: &mut models::Hashes,
    measured: &Measured,
) -> Result<ForeignComparison> {
    let (names, _) = names(measured);
    let seed = measured.provenance.seed;
    let (mut questions, mut flipped, mut bytes) = (None, Vec::new(), Vec::new());
    if let Some(base) = measured.base_answers {
        let answers = Some(&run.answers);
        let names = owned(&names);
        let judgement =
            judging::judge(measured.tasks, &names, measured.clusters, base, answers, measured.opened)?;
        questions = (!judgement.rows.is_empty()).then(|| tasks::compare(&judgement.rows, seed));
        flipped = judgement.flipped;
        bytes = rolling(measured, base, &run.answers);
    }
    if let (Some(base), Some(quant)) = (measured.foreign_base_text, &run.text) {
        let sums = |observed: &Observations| {
            let mut sums = BTreeMap::<(u32, u32), f64>::new();
            for token in observed.base_tokens.as_slice() {
                *sums.entry((token.task, token.document)).or_default() += token.nll;
            }
            sums
        };
        let (base, quant) = (sums(base), sums(quant));
        for (index, (_, task)) in
            measured.tasks.iter().enumerate().filter(|(_, (_, t))| t.questions().is_none())
        {
            let item = |(number, document): (usize, &Document)| {
                let key = (index as u32, number as u32);
                Some(ByteItem {
                    cluster: measured.clusters[index][number],
                    base_nll: *base.get(&key)?,
                    quant_nll: *quant.get(&key)?,
                    bytes: document.text.len() as f64,
                    words: score::count_words(&document.text) as f64,
                })
            };
            let items: Vec<ByteItem> = task.documents().iter().enumerate().filter_map(item).collect();
            let task = names.get(index).map_or_else(String::new, |name| (*name).to_owned());
            bytes.extend(tasks::bytes(&items, seed).map(|figures| TaskBytes { task, figures }));
        }
    }
    Ok(ForeignComparison {
        model: models::card(&cousin.model, hashes),
        reason: cousin.reason.clone(),
        bytes,
        questions,
        flipped,
    })
}

/// Records of text tasks, which come first; all where there are none, so that what was scored is summed up at all.
fn text_tokens(measured: &Measured) -> usize {
    let scored = measured.requests[..measured.text_requests].iter().map(|request| request.scored.len()).sum();
    if scored == 0 { usize::MAX } else { scored }
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
    let noise =
        reduce::Tokens { base, quant: moved.tokens.as_slice(), clusters: &[], seed, bytes_known: false }
            .metrics();
    // Both lists are in the order of task, document, window, position; the sample holds whole windows.
    let key = |token: &BaseToken| (token.task, token.document, token.window, token.position);
    let (all_base, all_quant) = (all.base_tokens.as_slice(), quant.tokens.as_slice());
    let same: Vec<usize> =
        base.iter().filter_map(|token| all_base.binary_search_by_key(&key(token), key).ok()).collect();
    let base: Vec<BaseToken> = same.iter().map(|index| all_base[*index]).collect();
    let quant: Vec<QuantToken> = same.iter().map(|index| all_quant[*index]).collect();
    let loss =
        reduce::Tokens { base: &base, quant: &quant, clusters: &[], seed, bytes_known: false }.metrics();
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
    // Text comes first; of one kind, requests are in the order of their keys.
    let (text, questions) = measured.requests.split_at(measured.text_requests);
    let is_text = measured.cards.get(base.task as usize).is_some_and(|task| task.kind == "text");
    let requests = if is_text { text } else { questions };
    let request = requests
        .binary_search_by_key(&key, |request| (request.task, request.document, request.window))
        .ok()
        .map(|index| &requests[index]);
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
        router_agreement: observed.router_agreement,
        injected_router_agreement: observed.injected_router_agreement,
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
