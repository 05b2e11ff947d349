//! Neighbours in the ranking, in sentences: which steps of the order the data show, and which they do not.

use crate::comparison::Comparison;
use crate::comparison::pairwise::{Pair, PairedFigure};

use super::super::format::{Figure, counted, listed, number, visible};
use super::{capitalized, with_units_kept};

/// What one figure says about a pair.
enum Said {
    Shown,
    NotShown,
    /// The one behind in the ranking is the better one by this figure.
    OtherWay,
}

/// How much of the ranking is shown: "KL divergence shows 3 of 4 steps of the ranking, accuracy 1 of 4."
pub fn shown_steps(pairs: &[Pair]) -> Option<String> {
    let count = |what: &str, get: fn(&Pair) -> Option<&PairedFigure>, is_ahead: fn(f64) -> bool| {
        let figures: Vec<&PairedFigure> = pairs.iter().filter_map(get).collect();
        let shown = figures.iter().filter(|f| f.is_shown && is_ahead(f.difference.value)).count();
        (!figures.is_empty()).then(|| (what.to_owned(), shown, figures.len()))
    };
    let kl = count("KL divergence", |pair| pair.kl_divergence.as_ref(), |x| x > 0.0);
    let accuracy = count("accuracy", |pair| pair.accuracy.as_ref(), |x| x < 0.0);
    let parts: Vec<String> = [kl, accuracy]
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(i, (what, shown, all))| match i {
            0 => format!("{what} shows {shown} of {} of the ranking", counted(all as u64, "step")),
            _ => format!("{what} {shown} of {all}"),
        })
        .collect();
    (!parts.is_empty()).then(|| capitalized(&format!("{}.", parts.join(", "))))
}

/// A sentence for every pair whose cousins exist, in their order.
pub fn pairs(comparison: &Comparison, pairs: &[Pair]) -> Vec<String> {
    pairs.iter().filter_map(|pair| sentence(comparison, pair)).collect()
}

/// "Q5_K_M ahead of Q4_K_M: shown in KL divergence (+0.0021 nats, p 0.001), not shown in accuracy (…)."
fn sentence(comparison: &Comparison, pair: &Pair) -> Option<String> {
    let name = |index: usize| comparison.quants.get(index).map(|quant| visible(&quant.model.label));
    let (better, worse) = (name(pair.better)?, name(pair.worse)?);
    let kl = pair.kl_divergence.as_ref().map(|figure| {
        let amount = Figure::from(&figure.difference).signed_with_interval();
        said("KL divergence", figure, figure.difference.value > 0.0, &format!("{amount} nats"))
    });
    let accuracy = pair.accuracy.as_ref().map(|figure| {
        let amount = Figure::percent(&figure.difference).signed_with_interval();
        said("accuracy", figure, figure.difference.value < 0.0, &format!("{amount} points"))
    });
    let parts: Vec<String> = [kl, accuracy].into_iter().flatten().collect();
    let text = match parts.as_slice() {
        [] => format!("{better} ahead of {worse}: nothing to compare them by."),
        parts => format!("{better} ahead of {worse}: {}.", listed(parts)),
    };
    Some(with_units_kept(&text))
}

/// `as_ranked`: the figure has the sign that the ranking promises.
fn said(what: &str, figure: &PairedFigure, as_ranked: bool, amount: &str) -> String {
    let said = match (figure.is_shown, as_ranked) {
        (false, _) => Said::NotShown,
        (true, true) => Said::Shown,
        (true, false) => Said::OtherWay,
    };
    let verb = match said {
        Said::Shown => "shown in",
        Said::NotShown => "not shown in",
        Said::OtherWay => "the other way round in",
    };
    let p = figure.p_holm.or(figure.p).filter(|p| p.is_finite());
    let p = p.map(|p| format!(", p\u{a0}{}", number(p, 2)));
    format!("{verb} {what} ({amount}{})", p.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture;
    use super::*;

    fn figure(value: f64, half: f64, p: f64, is_shown: bool) -> Option<PairedFigure> {
        Some(PairedFigure {
            difference: fixture::estimate(value, half),
            p: Some(p / 2.0),
            p_holm: Some(p),
            is_shown,
        })
    }

    fn said_of(pair: Pair) -> String {
        pairs(&fixture::comparison(), &[pair]).concat().replace('\u{a0}', " ")
    }

    #[test]
    fn steps_are_counted_in_the_direction_of_the_ranking() {
        let pair = |kl: f64, accuracy: Option<PairedFigure>| Pair {
            better: 0,
            worse: 1,
            kl_divergence: figure(kl, 0.1, 0.01, true),
            accuracy,
        };
        let all = [
            pair(0.2, figure(-0.1, 0.05, 0.01, true)),
            pair(0.1, figure(0.1, 0.05, 0.01, true)),
            pair(-0.1, figure(-0.1, 0.2, 0.6, false)),
            pair(0.3, None),
        ];
        assert_eq!(
            shown_steps(&all).unwrap(),
            "KL divergence shows 3 of 4 steps of the ranking, accuracy 1 of 3."
        );
        let only = Pair { kl_divergence: None, ..pair(0.0, figure(-0.1, 0.05, 0.01, true)) };
        assert_eq!(shown_steps(&[only]).unwrap(), "Accuracy shows 1 of 1 step of the ranking.");
        assert_eq!(shown_steps(&[]), None);
    }

    #[test]
    fn what_is_shown_and_what_is_not_stands_in_one_sentence() {
        let (kl, accuracy) = (figure(0.0018, 0.0002, 0.001, true), figure(-0.004, 0.011, 0.42, false));
        let pair = Pair { better: 0, worse: 1, kl_divergence: kl, accuracy };
        assert_eq!(
            said_of(pair.clone()),
            "polyglot6m-Q8_0 ahead of polyglot6m-Q4_K_M: shown in KL divergence (+0.00180 [+0.00160, +0.00200] nats, \
             p 0.0010) and not shown in accuracy (−0.4 [−1.5, +0.7] points, p 0.42)."
        );
        let text = said_of(Pair { accuracy: None, ..pair.clone() });
        assert!(!text.contains("accuracy") && text.ends_with("p 0.0010)."), "{text}");
        let text = said_of(Pair { accuracy: figure(0.02, 0.01, 0.03, true), ..pair.clone() });
        assert!(text.contains("the other way round in accuracy (+2.0 [+1.0, +3.0] points"), "{text}");
        let text = said_of(Pair { kl_divergence: None, accuracy: None, ..pair.clone() });
        assert!(text.ends_with("nothing to compare them by."), "{text}");
        assert!(pairs(&fixture::comparison(), &[Pair { worse: 99, ..pair }]).is_empty());
    }
}
