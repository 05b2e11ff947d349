//! What a comparison found, in sentences computed from the figures. The only thresholds are those of the grades in
//! `wording/cousins.rs`, which are stated where they are used.
//!
//! Sentences say what is shown and no more: a cousin is "closest" by its mean KL divergence, and where
//! intervals overlap the order is said to be open; a lower perplexity than base's is called a change,
//! never an improvement; what is as small as rounding is said to be as small as rounding.
//! Shared by the terminal and the HTML report; it must not know either. Plain text, not yet escaped.

mod cousins;
mod faults;
mod pairs;
mod questions;
mod routing;
mod spread;

pub use self::cousins::{CousinVerdict, Grade, cousins, grade};
pub use self::pairs::{pairs, shown_steps};
pub use self::questions::scores_of;

use std::collections::BTreeMap;

use crate::comparison::{Comparison, LayerComparison, QuantComparison, Stage, TokenMetrics};
use crate::stats::Estimate;

use super::format::{Figure, bytes, counted, listed, number, visible};

/// How a reader should take a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A finding.
    Plain,
    /// A finding that is easily misread, or that makes others doubtful.
    Caution,
}

/// One sentence of the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// How to take it.
    pub tone: Tone,
    /// The sentence, with its full stop.
    pub text: String,
}

/// The verdict in one line, without full stop: a heading. Accuracy where it was measured, else the tokens.
pub fn headline(comparison: &Comparison) -> String {
    let order = ranking(comparison);
    let (Some(closest), Some(furthest)) = (order.first(), order.last()) else {
        return with_units_kept(&questions::without_quants(comparison));
    };
    if let Some(answers) = questions::headline(comparison) {
        let nothing_else = order.iter().all(|q| !is_measured(&q.overall));
        let is_silent = questions::cousins(comparison).iter().all(|(_, s)| s.uninformative.is_some());
        if nothing_else || !is_silent {
            return with_units_kept(&answers);
        }
    }
    if order.iter().all(|q| is_identical(&q.overall)) {
        return match order.as_slice() {
            [only] => format!("{}: no difference at all", name(only)),
            all => format!("No difference at all in any of {}", counted(all.len() as u64, "cousin")),
        };
    }
    let near = format!("{} is closest to {}", name(closest), visible(&comparison.base.label));
    with_units_kept(&match order.as_slice() {
        [only] => format!("{}: {}", name(only), cost(&only.overall)),
        _ if !has_mean(closest) => "No cousin has a finite divergence from base".to_owned(),
        _ if !has_mean(furthest) => format!("{near}, {} could not be measured", name(furthest)),
        _ => format!(
            "{near}, {} is furthest: same top token at {} % and {} % of positions",
            name(furthest),
            number(closest.overall.top1_agreement.value * 100.0, 3),
            number(furthest.overall.top1_agreement.value * 100.0, 3)
        ),
    })
}

/// The verdict's sentences, most important first.
pub fn verdict(comparison: &Comparison) -> Vec<Sentence> {
    let order = ranking(comparison);
    let differing = differing(&order);
    let mut sentences = non_finite(comparison);
    sentences.extend(faults::faults(comparison));
    sentences.extend(questions::verdict(comparison));
    sentences.extend(identical(&order));
    sentences.extend(closest(&differing));
    sentences.extend(furthest(&differing));
    sentences.extend(about_all(comparison, &differing));
    sentences
}

/// The verdict without what [`cousins()`] says of each: what is about all of them, and what is easily misread.
pub fn findings(comparison: &Comparison) -> Vec<Sentence> {
    let order = ranking(comparison);
    let mut sentences = non_finite(comparison);
    sentences.extend(about_all(comparison, &differing(&order)));
    sentences
}

fn differing<'a>(order: &[&'a QuantComparison]) -> Vec<&'a QuantComparison> {
    order.iter().copied().filter(|q| has_mean(q) && !is_identical(&q.overall)).collect()
}

fn about_all(comparison: &Comparison, differing: &[&QuantComparison]) -> Vec<Sentence> {
    let mut sentences = against_the_floor(comparison, differing);
    sentences.extend(differing.iter().filter_map(|quant| rounding_noise(quant)));
    sentences.extend(lower_perplexity(comparison, differing));
    sentences.extend(spread::uneven(comparison));
    sentences.extend(worst_task(differing));
    sentences.extend(worst_layer(differing));
    sentences.extend(routing::other_experts(differing));
    sentences.extend(questions::findings(comparison));
    sentences
}

/// Base's perplexity over all texts, as its quants' rows or it alone show it.
pub fn base_perplexity(comparison: &Comparison) -> Option<&Estimate> {
    let rows = comparison.rows().map(|q| &q.overall).filter(|m| is_measured(m)).map(|m| &m.base_perplexity);
    let alone = comparison.base_text.iter().filter(|text| text.task.is_none() && text.scored_tokens > 0);
    rows.chain(alone.map(|text| &text.perplexity)).next()
}

/// Whether any token was scored, be it in vain.
pub fn is_measured(metrics: &TokenMetrics) -> bool {
    metrics.scored_tokens > 0 || metrics.non_finite_tokens > 0
}

/// What intervals mean in this comparison, in a sentence.
pub fn about_intervals(comparison: &Comparison) -> String {
    let means = comparison.rows().filter(|q| is_measured(&q.overall)).map(|q| &q.overall.kl_divergence.mean);
    match means.chain(base_perplexity(comparison)).chain(questions::figures(comparison)).next() {
        Some(Estimate { lower, upper, confidence, clusters, .. }) if lower.or(*upper).is_some() => format!(
            "Brackets are {} % intervals over {} (documents, windows or samples that hang together), each figure by \
             itself; ≥ and ≤ are bounds on one side, where the sample shows no more.",
            super::format::plain(confidence * 100.0),
            counted(*clusters, "cluster")
        ),
        Some(Estimate { clusters, .. }) => {
            format!("No intervals: the text has {}, too few for one.", counted(*clusters, "cluster"))
        }
        None => String::new(),
    }
}

/// Cousins from the smallest mean KL divergence to the largest, those without one last.
pub fn ranking(comparison: &Comparison) -> Vec<&QuantComparison> {
    let mut order: Vec<&QuantComparison> = comparison.quants.iter().collect();
    let key = |q: &QuantComparison| if has_mean(q) { mean_kl(q) } else { f64::INFINITY };
    order.sort_by(|a, b| key(a).total_cmp(&key(b)));
    order
}

/// Whether every divergence between the two sides is exactly zero.
pub fn is_identical(metrics: &TokenMetrics) -> bool {
    let zero = |x: f64| x == 0.0;
    metrics.non_finite_tokens == 0
        && metrics.scored_tokens > 0
        && zero(metrics.kl_divergence.max)
        && zero(metrics.kl_divergence.mean.value)
        && zero(metrics.reverse_kl.max)
        && zero(metrics.reverse_kl.mean.value)
        && zero(metrics.delta_nll.value)
        && zero(metrics.delta_p.rms.value)
        && metrics.top1_agreement.value == 1.0
}

/// The layer that adds the largest error by itself, the embedding among them, and its [`own_sqnr`].
pub fn worst_layer_of(quant: &QuantComparison) -> Option<(&LayerComparison, f64)> {
    let figures = quant.layers.iter().filter_map(|layer| Some((layer, own_sqnr(layer)?)));
    figures.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// SQNR (dB) of what a layer adds by itself, without first positions where it can be; `None` where there is no error, or
/// no finite one.
pub fn own_sqnr(layer: &LayerComparison) -> Option<f64> {
    let errors = layer.injected.as_ref()?;
    errors.without_first.as_ref().unwrap_or(&errors.all).sqnr_db.filter(|db| db.is_finite())
}

/// "layer 3" or "the embedding".
pub fn layer_name(layer: &LayerComparison) -> String {
    match layer.stage {
        Stage::Embedding => "the embedding".to_owned(),
        Stage::Layer => format!("layer {}", layer.layer),
    }
}

fn plain(text: String) -> Sentence {
    Sentence { tone: Tone::Plain, text: with_units_kept(&text) }
}

fn caution(text: String) -> Sentence {
    Sentence { tone: Tone::Caution, text: with_units_kept(&text) }
}

/// No line breaks between a number and its unit.
fn with_units_kept(text: &str) -> String {
    text.replace(" %", "\u{a0}%").replace(" nats", "\u{a0}nats").replace(" dB", "\u{a0}dB")
}

fn name(quant: &QuantComparison) -> String {
    visible(&quant.model.label)
}

fn names(quants: &[&QuantComparison]) -> String {
    listed(&quants.iter().map(|q| name(q)).collect::<Vec<_>>())
}

fn mean_kl(quant: &QuantComparison) -> f64 {
    quant.overall.kl_divergence.mean.value
}

fn has_mean(quant: &QuantComparison) -> bool {
    mean_kl(quant).is_finite()
}

/// "same top token at 93.1 % of positions, perplexity −0.10 %".
fn cost(metrics: &TokenMetrics) -> String {
    format!(
        "same top token at {} % of positions, perplexity {} %",
        Figure::percent(&metrics.top1_agreement).alone(),
        Figure::percent_change(&metrics.ppl_ratio).signed()
    )
}

/// The same with intervals.
fn cost_in_full(metrics: &TokenMetrics) -> String {
    format!(
        "mean KL divergence {} nats, same top token at {} % of positions, perplexity {} %",
        Figure::from(&metrics.kl_divergence.mean).with_interval(),
        Figure::percent(&metrics.top1_agreement).with_interval(),
        Figure::percent_change(&metrics.ppl_ratio).signed_with_interval()
    )
}

fn non_finite(comparison: &Comparison) -> Vec<Sentence> {
    // A row without any token has only answered questions.
    let rows = comparison.rows().filter(|q| is_measured(&q.overall));
    let broken = rows.filter(|q| q.overall.non_finite_tokens > 0 || !has_mean(q));
    let say = |q: &QuantComparison| match q.overall.non_finite_tokens {
        0 => caution(format!("{} has no finite mean KL divergence and is not ranked.", name(q))),
        n => caution(format!(
            "{} has a NaN or infinite result at {} of {}; they are in no figure below, so do not trust it \
             before that is explained.",
            name(q),
            counted(n as u64, "position"),
            counted((n + q.overall.scored_tokens) as u64, "position"),
        )),
    };
    broken.map(say).collect()
}

fn identical(order: &[&QuantComparison]) -> Option<Sentence> {
    let same: Vec<&QuantComparison> = order.iter().copied().filter(|q| is_identical(&q.overall)).collect();
    let scored = same.first()?.overall.scored_tokens;
    Some(plain(format!(
        "{}: no difference at all, every divergence is exactly 0 at all {}.",
        names(&same),
        counted(scored as u64, "scored token")
    )))
}

fn closest(differing: &[&QuantComparison]) -> Option<Sentence> {
    let first = differing.first()?;
    let size = format!(
        "{} ({} bits per weight)",
        bytes(first.model.weight_bytes),
        number(first.model.bits_per_weight, 3)
    );
    let mut text = match differing.len() {
        1 => format!("{} at {size}: {}.", name(first), cost_in_full(&first.overall)),
        _ => format!("{} is closest, at {size}: {}.", name(first), cost_in_full(&first.overall)),
    };
    if let Some(second) = differing.get(1) {
        let doubt = match overlap(&first.overall.kl_divergence.mean, &second.overall.kl_divergence.mean) {
            Some(false) => return Some(plain(text)),
            Some(true) => "their intervals overlap",
            None => "there are no intervals",
        };
        text += &format!(" That it is closer than {} is not shown by these figures: {doubt}.", name(second));
    }
    Some(plain(text))
}

fn furthest(differing: &[&QuantComparison]) -> Option<Sentence> {
    let [first, .., last] = differing else { return None };
    let mut text = format!("{} is furthest: {}", name(last), cost_in_full(&last.overall));
    let times = mean_kl(last) / mean_kl(first);
    if times.is_finite() && times >= 1.5 && mean_kl(first) > 0.0 {
        text += &format!("; its divergence is {} times that of {}", number(times, 2), name(first));
    }
    Some(plain(text + "."))
}

/// Cousins by where their mean KL lies against that of rounding to bf16.
fn against_the_floor(comparison: &Comparison, differing: &[&QuantComparison]) -> Vec<Sentence> {
    let Some(floor) = comparison.noise_floor.as_ref().map(|q| &q.overall.kl_divergence.mean) else {
        return Vec::new();
    };
    if differing.is_empty() || !(floor.value > 0.0 && floor.value.is_finite()) {
        return Vec::new();
    }
    let ends = |e: &Estimate| (e.lower.unwrap_or(e.value), e.upper.unwrap_or(e.value));
    let (floor_low, floor_high) = ends(floor);
    let (mut below, mut level, mut above) = (Vec::new(), Vec::new(), Vec::new());
    for &quant in differing {
        let (low, high) = ends(&quant.overall.kl_divergence.mean);
        let group = match () {
            () if high < floor_low => &mut below,
            () if low > floor_high => &mut above,
            () => &mut level,
        };
        group.push(quant);
    }
    let floor_text = format!("rounding base to bf16 alone moves it by {} nats", Figure::from(floor).alone());
    let mut sentences = Vec::new();
    if !below.is_empty() {
        let text = format!(
            "{}: below the noise floor, {floor_text}; what is left is rounding, not quantization.",
            names(&below)
        );
        sentences.push(plain(text));
    }
    if !level.is_empty() {
        sentences
            .push(plain(format!("{}: not told apart from the noise floor ({floor_text}).", names(&level))));
    }
    if let (Some(first), Some(last)) = (above.first(), above.last()) {
        let times = |q: &QuantComparison| number(mean_kl(q) / floor.value, 2);
        let range = between(times(first), "to", times(last));
        let who = match (above.len() == differing.len(), above.len()) {
            (true, n) if n > 2 => format!("All {n} are"),
            (_, 1) => format!("{} is", name(first)),
            _ => format!("{} are", names(&above)),
        };
        sentences.push(plain(format!("{who} above the noise floor, {range} times it: {floor_text}.")));
    }
    sentences
}

/// How much of a cousin's divergence its own rounding of activations would give to anyone who runs it.
fn rounding_noise(quant: &QuantComparison) -> Option<Sentence> {
    let noise = quant.rounding_noise.as_ref()?;
    let (own, loss) = (noise.kl_divergence.value, noise.kl_divergence_from_base.value);
    if !own.is_finite() || loss.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return None;
    }
    Some(plain(format!(
        "{} rounds its activations: with embeddings moved by one part in four million it differs from itself by \
         a mean KL of {} nats, {} % of its distance from base; that part differs between machines and kernels.",
        name(quant),
        Figure::from(&noise.kl_divergence).plus_minus(false),
        number(own / loss * 100.0, 2),
    )))
}

/// Perplexity alone would call these an improvement.
fn lower_perplexity(comparison: &Comparison, differing: &[&QuantComparison]) -> Option<Sentence> {
    let floor = comparison.noise_floor.as_ref().map_or(0.0, |q| {
        let mean = &q.overall.kl_divergence.mean;
        mean.upper.unwrap_or(mean.value)
    });
    let misleading: Vec<&QuantComparison> = differing
        .iter()
        .copied()
        .filter(|q| {
            let kl = &q.overall.kl_divergence.mean;
            q.overall.ppl_ratio.value < 1.0 && kl.lower.unwrap_or(kl.value) > floor
        })
        .collect();
    let first = misleading.first()?;
    let change = Figure::percent_change(&first.overall.ppl_ratio).signed_with_interval();
    let moved = Figure::from(&first.overall.kl_divergence.mean).with_interval();
    let (has, it, example) = match misleading.len() {
        1 => ("has", "it is", String::new()),
        _ => ("have", "they are", format!("{}: ", name(first))),
    };
    Some(caution(format!(
        "{} {has} a lower perplexity than base ({example}{change} %), but {it} not better: the predictions \
         moved away from base's ({example}{moved} nats on average), which on this text happened to favour the \
         targets. Perplexity alone would have called it an improvement.",
        names(&misleading),
    )))
}

fn worst_task(differing: &[&QuantComparison]) -> Option<Sentence> {
    let worst_of = |q: &QuantComparison| -> Option<(String, f64, f64)> {
        let mut figures: Vec<(&str, f64)> = q
            .tasks
            .iter()
            .filter_map(|t| Some((t.task.as_str(), t.metrics.as_ref()?.kl_divergence.mean.value)))
            .filter(|(_, kl)| kl.is_finite())
            .collect();
        figures.sort_by(|a, b| b.1.total_cmp(&a.1));
        match figures.as_slice() {
            [(task, worst), .., (_, best)] => Some((visible(task), *worst, *best)),
            _ => None,
        }
    };
    let found: Vec<_> = differing.iter().filter_map(|q| Some((*q, worst_of(q)?))).collect();
    let (quant, (_, worst, best)) = found.last()?;
    let by_task = grouped(found.iter().map(|(q, (task, ..))| (task.clone(), *q)));
    let example =
        format!("mean KL {} nats, against {} on its best task", number(*worst, 3), number(*best, 3));
    Some(plain(match by_task.as_slice() {
        [(task, all)] if all.len() > 1 => {
            format!("Every cousin diverges most on {task} ({}: {example}).", name(quant))
        }
        [(task, _)] => format!("{} diverges most on {task} ({example}).", name(quant)),
        several => {
            let parts: Vec<String> =
                several.iter().map(|(task, q)| format!("{task} ({})", names(q))).collect();
            format!("The task that diverges most: {}.", listed(&parts))
        }
    }))
}

fn worst_layer(differing: &[&QuantComparison]) -> Option<Sentence> {
    let found: Vec<_> = differing.iter().filter_map(|q| Some((*q, worst_layer_of(q)?))).collect();
    let (first, (_, first_db)) = found.first()?;
    let (last, (_, last_db)) = found.last()?;
    let by_layer = grouped(found.iter().map(|(q, (layer, _))| (layer_name(layer), *q)));
    let several = found.len() > 1;
    let db = |db: f64, q: &QuantComparison| {
        let of = if several { format!(" ({})", name(q)) } else { String::new() };
        format!("{} dB{of}", number(db, 3))
    };
    Some(plain(match by_layer.as_slice() {
        [(layer, all)] => {
            let (who, capital) = if all.len() > 1 { ("In every cousin ", false) } else { ("", true) };
            let layer = if capital { capitalized(layer) } else { layer.clone() };
            let range = between(db(*first_db, first), "to", db(*last_db, last));
            format!("{who}{layer} adds the largest error of its own: SQNR {range}.")
        }
        several => {
            let parts: Vec<String> =
                several.iter().map(|(layer, q)| format!("{layer} ({})", names(q))).collect();
            format!("The largest error of its own comes from {}.", listed(&parts))
        }
    }))
}

/// Cousins by key, in the order of their first appearance.
fn grouped<'a>(
    pairs: impl Iterator<Item = (String, &'a QuantComparison)>,
) -> Vec<(String, Vec<&'a QuantComparison>)> {
    let mut groups: BTreeMap<String, (usize, Vec<&QuantComparison>)> = BTreeMap::new();
    for (i, (key, quant)) in pairs.enumerate() {
        groups.entry(key).or_insert((i, Vec::new())).1.push(quant);
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(key, (first, quants))| (first, key, quants)).collect();
    groups.sort_by_key(|(first, ..)| *first);
    groups.into_iter().map(|(_, key, quants)| (key, quants)).collect()
}

/// Whether two intervals have a point in common; None if either figure has none.
fn overlap(a: &Estimate, b: &Estimate) -> Option<bool> {
    Some(a.lower? <= b.upper? && b.lower? <= a.upper?)
}

/// "a to b", or "a" where both are the same.
fn between(a: String, to: &str, b: String) -> String {
    if a == b { a } else { format!("{a} {to} {b}") }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Damage, NONE};
    use super::*;
    use crate::comparison::RoundingNoise;

    const SOME: Damage =
        Damage { bits_per_weight: 4.5, kl: 0.01, ppl_ratio: 1.02, top1: 0.9, sqnr_db: Some(20.0) };

    fn text_of(comparison: &Comparison) -> String {
        verdict(comparison).into_iter().map(|s| s.text.replace('\u{a0}', " ") + "\n").collect()
    }

    #[test]
    fn an_identical_cousin_makes_no_difference() {
        let comparison = fixture::of(vec![fixture::quant("same", NONE)]);
        assert_eq!(headline(&comparison), "same: no difference at all");
        let text = text_of(&comparison);
        assert!(
            text.starts_with(
                "same: no difference at all, every divergence is exactly 0 at all 10,200 scored tokens."
            ),
            "{text}"
        );
        assert_eq!(verdict(&comparison).len(), 1, "nothing else is worth saying: {text}");
    }

    #[test]
    fn a_cousin_that_rounds_activations_says_how_far_it_is_from_itself() {
        let mut quant = fixture::quant("w8a8", SOME);
        quant.rounding_noise = Some(RoundingNoise {
            scored_tokens: 4096,
            kl_divergence: fixture::estimate(0.002, 0.0001),
            kl_divergence_from_base: fixture::estimate(0.008, 0.0001),
            top1_agreement: fixture::estimate(0.97, 0.001),
        });
        let text = text_of(&fixture::of(vec![quant.clone()]));
        assert!(
            text.contains("w8a8 rounds its activations") && text.contains("25 % of its distance"),
            "{text}"
        );
        quant.rounding_noise = None;
        assert!(!text_of(&fixture::of(vec![quant])).contains("rounds its activations"));
    }

    #[test]
    fn a_divergence_of_almost_zero_is_not_identical() {
        let comparison = fixture::of(vec![fixture::quant("almost", Damage { kl: 1e-18, ..NONE })]);
        assert!(!text_of(&comparison).contains("no difference at all"));
    }

    #[test]
    fn lower_perplexity_is_never_an_improvement() {
        let better = fixture::quant("lucky", Damage { ppl_ratio: 0.99, ..SOME });
        let comparison = fixture::of(vec![better]);
        let sentences = verdict(&comparison);
        let called_out = sentences.iter().find(|s| s.text.contains("lower perplexity than base"));
        assert_eq!(called_out.map(|s| s.tone), Some(Tone::Caution));
        let text = text_of(&comparison);
        assert!(text.contains("not better") && text.contains("(−1.00 [−1.20, −0.80] %)"), "{text}");
        assert!(!text_of(&fixture::of(vec![fixture::quant("worse", SOME)])).contains("lower perplexity"));
    }

    #[test]
    fn rounding_sized_perplexity_gains_are_not_called_out() {
        let tiny = fixture::quant("tiny", Damage { kl: 1e-6, ppl_ratio: 0.999_999, ..SOME });
        let text = text_of(&fixture::of(vec![tiny]));
        assert!(text.contains("below the noise floor") && !text.contains("lower perplexity"), "{text}");
    }

    #[test]
    fn the_floor_is_compared_by_intervals() {
        let like_floor = fixture::quant("level", Damage { kl: 2.15e-5, ..SOME });
        let text = text_of(&fixture::of(vec![like_floor, fixture::quant("above", SOME)]));
        assert!(text.contains("level: not told apart from the noise floor"), "{text}");
        assert!(text.contains("above is above the noise floor, 476 times it"), "{text}");
        let mut without = fixture::of(vec![fixture::quant("above", SOME)]);
        without.noise_floor = None;
        assert!(!text_of(&without).contains("noise floor"));
    }

    #[test]
    fn the_order_is_said_to_be_open_where_intervals_overlap() {
        let near = |kl| Damage { kl, ..SOME };
        let open = fixture::of(vec![fixture::quant("a", near(0.0101)), fixture::quant("b", near(0.0100))]);
        assert_eq!(
            headline(&open).replace('\u{a0}', " "),
            "b is closest to polyglot6m, a is furthest: same top token at 90.0 % and 90.0 % of positions"
        );
        assert!(text_of(&open).contains("That it is closer than a is not shown"));
        let shown = fixture::of(vec![fixture::quant("a", near(0.02)), fixture::quant("b", near(0.01))]);
        assert!(!text_of(&shown).contains("not shown"));
        assert!(text_of(&shown).contains("its divergence is 2.0 times that of b"));
    }

    #[test]
    fn broken_positions_come_first() {
        let mut broken = fixture::quant("broken", SOME);
        broken.overall.non_finite_tokens = 13;
        let sentences = verdict(&fixture::of(vec![fixture::quant("fine", SOME), broken]));
        assert_eq!(sentences[0].tone, Tone::Caution);
        assert!(
            sentences[0]
                .text
                .starts_with("broken has a NaN or infinite result at 13 positions of 10,213 positions"),
            "{}",
            sentences[0].text
        );
    }

    #[test]
    fn what_is_not_a_number_is_not_ranked() {
        let mut lost = fixture::quant("lost", SOME);
        lost.overall.kl_divergence.mean.value = f64::NAN;
        let comparison = fixture::of(vec![lost, fixture::quant("fine", SOME)]);
        assert_eq!(ranking(&comparison)[0].model.label, "fine");
        assert_eq!(headline(&comparison), "fine is closest to polyglot6m, lost could not be measured");
        assert!(!text_of(&comparison).contains("lost is furthest"));
    }

    #[test]
    fn tasks_and_layers_are_named() {
        let text = text_of(&fixture::comparison());
        assert!(text.contains("Every cousin diverges most on perplexity/grade-school-maths"), "{text}");
        assert!(
            text.contains("In every cousin layer 0 adds the largest error of its own: SQNR 48.0 dB"),
            "{text}"
        );
    }

    #[test]
    fn nothing_compared_says_so() {
        let comparison = fixture::of(Vec::new());
        assert_eq!(headline(&comparison), "Nothing was compared");
        assert!(verdict(&comparison).is_empty());
    }

    #[test]
    fn without_intervals_none_are_claimed() {
        let mut comparison = fixture::of(vec![fixture::quant("few", SOME)]);
        comparison.quants[0].overall.kl_divergence.mean = fixture::without_interval(0.01);
        assert_eq!(about_intervals(&comparison), "No intervals: the text has 4 clusters, too few for one.");
        assert!(
            about_intervals(&fixture::comparison())
                .starts_with("Brackets are 95 % intervals over 40 clusters")
        );
    }
}
