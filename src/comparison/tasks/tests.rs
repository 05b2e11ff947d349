//! Task figures against closed forms and counts by hand.

use super::*;
use crate::stats::{IntervalMethod, TestMethod};

fn key(task: &str, language: &str, group: &str) -> TaskKey {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    TaskKey {
        task: task.to_owned(),
        language: text(language),
        group: text(group),
        metric: "acc".to_owned(),
        filter: None,
    }
}

fn item(sample: u32, base: f64, quant: f64) -> Item {
    Item {
        sample,
        cluster: sample,
        level: None,
        base: Some(base),
        quant: Some(quant),
        same_answer: base == quant,
    }
}

fn task(key: TaskKey, chance: Option<f64>, items: Vec<Item>) -> TaskItems {
    TaskItems { key, right_or_wrong: true, chance, level_unit: Some("digits".to_owned()), items }
}

/// `counts`: both right, right to wrong, wrong to right, both wrong with the same answer, with another.
fn items(counts: [u32; 5], first: u32) -> Vec<Item> {
    let kinds = [(1.0, 1.0, true), (1.0, 0.0, false), (0.0, 1.0, false), (0.0, 0.0, true), (0.0, 0.0, false)];
    let all = counts.iter().zip(kinds).flat_map(|(count, kind)| std::iter::repeat_n(kind, *count as usize));
    all.zip(first..)
        .map(|((base, quant, same_answer), sample)| Item { same_answer, ..item(sample, base, quant) })
        .collect()
}

#[test]
fn figures_of_one_task_are_counts() {
    let rows = [task(key("t", "en", ""), Some(0.25), items([60, 9, 4, 20, 7], 0))];
    let compared = compare(&rows, 0);
    let scores = &compared.tasks[0].scores;
    assert_eq!((scores.samples, scores.not_judged), (100, 0));
    assert_eq!((scores.base.value, scores.quant.value), (0.69, 0.64));
    assert!((scores.difference.value + 0.05).abs() < 1e-12);
    assert_eq!(scores.difference.method, IntervalMethod::Tango);
    let flips = scores.flips.unwrap();
    assert_eq!((flips.right_to_wrong, flips.wrong_to_right, flips.wrong_to_another_wrong), (9, 4, 7));
    assert!((flips.flips - 0.13).abs() < 1e-12 && (flips.answer_changes - 0.20).abs() < 1e-12);
    assert!((scores.recovery.unwrap().value - 64.0 / 69.0).abs() < 1e-12);
    let corrected = scores.chance_corrected_recovery.unwrap();
    assert!((corrected.value - (0.64 - 0.25) / (0.69 - 0.25)).abs() < 1e-12);
    assert!(corrected.lower.unwrap() < corrected.value && corrected.value < corrected.upper.unwrap());
    // McNemar: 2·P(X ≤ 4), X binomial (13, ½) = 2·(1 + 13 + 78 + 286 + 715)/8192.
    let test = scores.test.unwrap();
    assert_eq!(test.method, TestMethod::Mcnemar);
    assert!((test.p - 2.0 * 1093.0 / 8192.0).abs() < 1e-12);
    // One test needs no adjustment.
    assert_eq!(scores.p_holm, Some(test.p));
    assert!(scores.uninformative.is_none());
    assert!(scores.minimum_detectable_effect.unwrap() > 2.0 * scores.difference.standard_error.unwrap());
    let overall = compared.overall.unwrap();
    assert_eq!(overall.difference, scores.difference);
    assert!(compared.languages.is_empty() && compared.groups.is_empty());
}

#[test]
fn what_cannot_be_judged_is_counted_and_in_no_figure() {
    let mut all = items([30, 2, 2, 6, 0], 0);
    all.push(Item { base: None, ..item(90, 1.0, 1.0) });
    all.push(Item { quant: None, ..item(91, 1.0, 1.0) });
    let scores = compare(&[task(key("t", "en", ""), None, all.clone())], 0).tasks.remove(0).scores;
    assert_eq!((scores.samples, scores.not_judged), (40, 2));
    assert_eq!(scores.base.value, 0.8);
    let side = side(&[task(key("t", "en", ""), None, all)], 0).tasks.remove(0);
    // Base alone is missing one only.
    assert_eq!((side.samples, side.not_judged), (41, 1));
    assert!((side.score.value - 33.0 / 41.0).abs() < 1e-12);
}

#[test]
fn a_base_that_guesses_has_nothing_to_lose() {
    let guessing = task(key("t", "en", ""), Some(0.25), items([20, 8, 8, 64, 0], 0));
    let knowing = task(key("u", "en", ""), Some(0.25), items([50, 8, 8, 34, 0], 0));
    let compared = compare(&[guessing, knowing], 0);
    assert!(compared.tasks[0].scores.uninformative.as_ref().unwrap().contains("28.0 % against 25.0 %"));
    assert!(compared.tasks[0].scores.chance_corrected_recovery.is_none());
    assert!(compared.tasks[1].scores.uninformative.is_none());
    let nothing = compare(&[task(key("g", "en", ""), None, items([0, 0, 3, 30, 0], 0))], 0);
    assert!(nothing.tasks[0].scores.uninformative.as_ref().unwrap().contains("nothing right"));
    assert!(nothing.tasks[0].scores.recovery.is_none());
    let empty = compare(&[task(key("g", "en", ""), None, Vec::new())], 0);
    assert!(empty.tasks[0].scores.uninformative.is_some() && empty.tasks[0].scores.base.value.is_nan());
}

#[test]
fn only_headlines_enter_the_sums_and_the_adjustment() {
    let a = task(key("a", "en", "g"), None, items([40, 12, 0, 8, 0], 0));
    let mut norm = task(key("a", "en", "g"), None, items([50, 0, 0, 10, 0], 0));
    norm.key.metric = "acc_norm".to_owned();
    let b = task(key("b", "en", "g"), None, items([40, 1, 1, 18, 0], 100));
    let compared = compare(&[a, norm, b], 0);
    let p = |row: usize| compared.tasks[row].scores.test.unwrap().p;
    assert!(compared.tasks[1].scores.p_holm.is_none());
    // Holm over two tests: the smaller p twice, the larger as it is, never decreasing.
    assert!((compared.tasks[0].scores.p_holm.unwrap() - 2.0 * p(0)).abs() < 1e-12);
    assert_eq!(compared.tasks[2].scores.p_holm, Some(p(2).max(2.0 * p(0))));
    let overall = compared.overall.as_ref().unwrap();
    assert_eq!(overall.samples, 120);
    assert!((overall.difference.value + 0.1).abs() < 1e-12);
    assert_eq!((compared.groups.len(), compared.groups[0].tasks), (1, 2));
    assert_eq!(compared.groups[0].scores.difference, overall.difference);
}

#[test]
fn languages_are_held_against_english_item_by_item() {
    // Thirty parallel items; English loses 3 of them, Thai these and 6 more, German none.
    let language = |name: &str, lost: std::ops::Range<u32>| {
        let items = (0..30).map(|i| item(i, 1.0, f64::from(!lost.contains(&i)))).collect();
        task(key(&format!("{name}-choices"), name, "choices"), Some(0.5), items)
    };
    let compared = compare(&[language("en", 0..3), language("th", 0..9), language("de", 0..0)], 0);
    let names: Vec<&str> = compared.languages.iter().map(|l| l.language.as_str()).collect();
    assert_eq!(names, ["de", "en", "th"]);
    assert_eq!(compared.worst_language.as_deref(), Some("th"));
    let [german, english, thai] = compared.languages.as_slice() else { panic!() };
    assert!(english.difference_to_english.is_none());
    assert!((thai.difference_to_english.unwrap().value + 0.2).abs() < 1e-12);
    assert!((german.difference_to_english.unwrap().value - 0.1).abs() < 1e-12);
    assert_eq!(thai.difference_to_english.unwrap().clusters, 30);
    // All languages together: items of one number are one cluster.
    let overall = compared.overall.as_ref().unwrap();
    assert_eq!((overall.samples, overall.difference.clusters), (90, 30));
    assert!(compared.languages.iter().all(|l| l.scores.p_holm.is_some()));
}

#[test]
fn a_level_is_named_where_the_loss_is_shown() {
    let mut all = Vec::new();
    for (level, lost) in [(1, 0), (2, 1), (3, 14), (4, 15)] {
        let of_level = items([40 - lost, lost, 0, 0, 0], level * 100);
        all.extend(of_level.into_iter().map(|item| Item { level: Some(level), ..item }));
    }
    let row = compare(&[task(key("arithmetic", "en", ""), None, all)], 0).tasks.remove(0);
    let levels: Vec<u32> = row.levels.iter().map(|level| level.value).collect();
    assert_eq!(levels, [1, 2, 3, 4]);
    assert_eq!(row.levels[2].unit, "digits");
    assert!((row.levels[2].scores.quant.value - 0.65).abs() < 1e-12);
    assert_eq!(row.falls_off_at, Some(3));
}

#[test]
fn means_of_draws_are_no_flips() {
    let draws = (0..40).map(|i| item(i, [1.0, 0.5, 0.75, 0.0][i as usize % 4], 0.5)).collect();
    let scores = compare(&[task(key("t", "en", ""), None, draws)], 0).tasks.remove(0).scores;
    assert!(scores.flips.is_none());
    assert_eq!(scores.test.unwrap().method, TestMethod::SignFlipSampled);
    assert!((scores.difference.value - (0.5 - 0.5625)).abs() < 1e-12);
    assert!(scores.difference.lower.unwrap() < scores.difference.value);
}

#[test]
fn written_answers_by_hand() {
    let item = |cluster: u32, first: Option<u32>, quant: u32| GenerationItem {
        cluster,
        base_tokens: 10,
        quant_tokens: quant,
        first_divergence: first,
        base_truncated: false,
        quant_truncated: quant == 20,
        base_repetition: 0.0,
        quant_repetition: 0.5,
        base_unclosed_think: false,
        quant_unclosed_think: cluster == 0,
    };
    let all: Vec<GenerationItem> =
        (0..20).map(|i| if i % 2 == 0 { item(i, None, 10) } else { item(i, Some(4), 20) }).collect();
    let figures = generations(&all, 0).unwrap();
    assert_eq!(figures.samples, 20);
    assert_eq!(figures.identical.value, 0.5);
    assert_eq!(figures.first_divergence_median, 7.0);
    assert!((figures.first_divergence_share.value - 0.7).abs() < 1e-12);
    assert_eq!((figures.base_tokens.value, figures.quant_tokens.value), (10.0, 15.0));
    assert_eq!((figures.quant_truncated.value, figures.base_truncated.value), (0.5, 0.0));
    assert_eq!(figures.quant_repetition.value, 0.5);
    assert_eq!(figures.quant_unclosed_think.value, 0.05);
    assert!(generations(&[], 0).is_none());
}

#[test]
fn bytes_are_sums_over_texts() {
    let item = |cluster: u32, base_nll: f64| ByteItem {
        cluster,
        base_nll,
        quant_nll: base_nll * 1.1,
        bytes: 50.0,
        words: 10.0,
    };
    let mut all: Vec<ByteItem> = (0..12).map(|i| item(i, f64::from(i) + 30.0)).collect();
    let sum: f64 = all.iter().map(|item| item.base_nll).sum();
    all.push(item(12, f64::NAN));
    let figures = bytes(&all, 0).unwrap();
    assert_eq!((figures.documents, figures.not_finite), (12, 1));
    let bits = sum / 600.0 / std::f64::consts::LN_2;
    assert!((figures.base_bits_per_byte.value - bits).abs() < 1e-12);
    assert!((figures.delta_bits_per_byte.value - 0.1 * bits).abs() < 1e-12);
    assert!((figures.base_word_perplexity.value - (sum / 120.0).exp()).abs() < 1e-9);
}
