//! The gate on made-up runs whose figures are reduced by the program's own code.

mod simulation;

use super::policy::{PRESETS, Policy, STARTER};
use super::*;
use crate::comparison::evidence::Scores;
use crate::comparison::reduce::Tokens;
use crate::comparison::tasks::{self, Item, TaskItems, TaskKey};
use crate::comparison::{Comparison, QuantComparison, TaskMetrics, TokenMetrics};
use crate::observation::{BaseToken, QuantToken};
use crate::report::fixture::{self, NONE};
use crate::stats::Power;

const DOCUMENTS: u32 = 40;
const EACH: u32 = 60;
const SEED: u64 = 5;

/// A number in [0, 1) that looks random and is not (splitmix64).
fn chosen(i: u32, what: u32) -> f64 {
    let mut mixed = (u64::from(i) << 32 | u64::from(what)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
}

/// Figures of 40 documents of 60 tokens; KL divergence around `kl`, nll `delta` above base's.
fn text(kl: f64, delta: f64) -> TokenMetrics {
    let (mut base, mut quant) = (Vec::new(), Vec::new());
    for i in 0..DOCUMENTS * EACH {
        let nll = 2.0 + chosen(i, 1);
        base.push(BaseToken {
            nll,
            entropy: 2.0,
            max_probability: 0.5,
            task: 0,
            document: i / EACH,
            window: 0,
            position: i % EACH + 1,
            token: i,
            top1: 1,
            bytes: 4,
            reserved: 0,
        });
        quant.push(QuantToken {
            nll: nll + delta * (0.9 + 0.2 * chosen(i, 2)),
            entropy: 2.0,
            kl_divergence: kl * (0.5 + chosen(i, 3)),
            reverse_kl: kl * (0.5 + chosen(i, 4)),
            delta_p: 0.0,
            top1: u32::from(chosen(i, 5) > kl),
            top5_common: 5 - u32::from(chosen(i, 6) < kl),
        });
    }
    Tokens { base: &base, quant: &quant, clusters: &[], seed: SEED, bytes_known: true }.metrics()
}

/// Questions of one task, of which base gets `right` and the cousin loses a share `lost` and gains `gained`.
fn asked(name: &str, language: &str, count: u32, (right, lost, gained): (f64, f64, f64)) -> TaskItems {
    let item = |i: u32| {
        let base = chosen(i, 11) < right;
        let flips = chosen(i, 12) < if base { lost / right } else { gained / (1.0 - right) };
        Item {
            sample: i,
            cluster: i,
            level: Some(1 + i % 2),
            base: Some(f64::from(base)),
            quant: Some(f64::from(base != flips)),
            same_answer: !flips,
        }
    };
    TaskItems {
        key: TaskKey {
            task: name.to_owned(),
            language: Some(language.to_owned()),
            group: Some("exam".to_owned()),
            metric: "acc".to_owned(),
            filter: None,
        },
        right_or_wrong: true,
        chance: Some(0.25),
        level_unit: Some("digits".to_owned()),
        items: (0..count).map(item).collect(),
    }
}

fn cousin(label: &str, (kl, delta): (f64, f64), questions: &[TaskItems]) -> QuantComparison {
    let mut quant = fixture::quant(label, NONE);
    quant.overall = text(kl, delta);
    quant.tasks = vec![TaskMetrics { task: "prose/en".to_owned(), metrics: Some(text(kl, delta)) }];
    quant.questions = (!questions.is_empty()).then(|| tasks::compare(questions, SEED));
    quant
}

/// A run of one text and of the questions that the first cousin answered.
fn run(quants: Vec<QuantComparison>) -> Comparison {
    let mut comparison = fixture::of(quants);
    comparison.provenance.seed = SEED;
    let card = comparison.tasks[0].clone();
    let card = |name: &str, kind: &str, language: &str| crate::comparison::TaskCard {
        name: name.to_owned(),
        kind: kind.to_owned(),
        language: Some(language.to_owned()),
        group: Some("exam".to_owned()).filter(|_| kind != "text"),
        input_sha256: Some(format!("input of {name}")),
        ..card.clone()
    };
    comparison.tasks = vec![card("prose/en", "text", "en")];
    let questions = comparison.quants[0].questions.clone();
    comparison.tasks.extend(
        questions
            .iter()
            .flat_map(|q| &q.tasks)
            .map(|row| card(&row.key.task, "choice", row.key.language.as_deref().unwrap_or("en"))),
    );
    if let Some(floor) = &mut comparison.noise_floor {
        (floor.overall, floor.tasks[0].task) = (text(1e-3, 0.0), "prose/en".to_owned());
        floor.tasks[0].metrics = Some(text(1e-3, 0.0));
    }
    comparison
}

/// English and Thai, the cousin losing and gaining as said.
fn exams(count: u32, english: (f64, f64, f64), thai: (f64, f64, f64)) -> Vec<TaskItems> {
    vec![asked("exam/en", "en", count, english), asked("exam/th", "th", count, thai)]
}

const FINE: (f64, f64, f64) = (0.7, 0.01, 0.01);
const BAD: (f64, f64, f64) = (0.7, 0.15, 0.0);

fn policy(rules: &str) -> Policy {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, format!("version: 1\n{rules}")).unwrap();
    Policy::load(path.to_str().unwrap()).unwrap()
}

fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, text).unwrap();
    Policy::load(path.to_str().unwrap()).unwrap_err().to_string()
}

fn verdict(rules: &str, comparison: &Comparison) -> Verdict {
    judge(&policy(rules), comparison, None)
}

/// The outcome of a policy of one rule.
fn of_rule(rule: &str, comparison: &Comparison) -> Outcome {
    verdict(&format!("rules: [{{ name: r, {rule} }}]"), comparison).outcome
}

#[test]
fn bounds_decide_and_limits_are_not_rounded() {
    use Limit::{Margin, Max, Min};
    for (limit, lower, upper, expected) in [
        (Margin(0.01), -0.01, 0.0099, Outcome::Pass),
        (Margin(0.01), -0.01, 0.01, Outcome::Inconclusive),
        (Margin(0.01), 0.01, 0.02, Outcome::Inconclusive),
        (Margin(0.01), 0.0101, 0.02, Outcome::Fail),
        (Max(0.5), 0.1, 0.5, Outcome::Pass),
        (Max(0.5), 0.5, 0.6, Outcome::Inconclusive),
        (Max(0.5), 0.500_000_1, 0.6, Outcome::Fail),
        (Min(0.945), 0.945, 1.0, Outcome::Pass),
        (Min(0.95), 0.945, 0.949_99, Outcome::Fail),
        (Min(0.95), 0.945, 0.95, Outcome::Inconclusive),
    ] {
        assert_eq!(outcome(limit, Some(lower), Some(upper)), expected, "{limit:?} {lower} {upper}");
    }
    assert_eq!(outcome(Max(0.5), None, None), Outcome::Inconclusive);
    assert_eq!(outcome(Max(0.5), Some(0.6), None), Outcome::Fail);
}

#[test]
fn a_gate_is_monotone_in_its_limit() {
    let comparison = run(vec![cousin("q", (0.01, 0.01), &exams(400, (0.7, 0.04, 0.01), FINE))]);
    let rank = |outcome: Outcome| match outcome {
        Outcome::Fail => 0,
        Outcome::Inconclusive => 1,
        Outcome::Pass => 2,
        Outcome::NotMeasured => panic!("measured"),
    };
    for metric in ["accuracy", "kl_divergence", "ppl_ratio", "recovery", "flips", "top1_agreement"] {
        let outcomes: Vec<i32> = [1e-9, 1e-3, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.5]
            .iter()
            .map(|margin| rank(of_rule(&format!("metric: {metric}, margin: {margin}"), &comparison)))
            .collect();
        assert!(outcomes.is_sorted(), "{metric}: {outcomes:?}");
        assert_eq!((outcomes[0], outcomes[8]), (0, 2), "{metric}: from fail to pass: {outcomes:?}");
    }
}

/// The same weights: no difference anywhere, and every rule but those of cost and absolute accuracy passes.
#[test]
fn base_against_itself_passes_everything() {
    let same = (0.7, 0.0, 0.0);
    let mut itself = cousin("itself", (0.0, 0.0), &exams(3000, same, same));
    itself.weights.iter_mut().for_each(|weight| (weight.identical, weight.sqnr_db) = (true, None));
    let comparison = run(vec![itself]);
    for (name, _) in PRESETS {
        let verdict = judge(&Policy::load(name).unwrap(), &comparison, Some(&comparison));
        let open: Vec<&Check> = verdict.checks.iter().filter(|c| c.outcome != Outcome::Pass).collect();
        assert_eq!(verdict.outcome, Outcome::Pass, "{name}: {open:#?}");
    }
}

#[test]
fn a_loss_in_one_language_fails_where_the_average_passes() {
    let comparison = run(vec![cousin("q", (0.01, 0.0), &exams(2000, (0.7, 0.005, 0.005), BAD))]);
    assert_eq!(of_rule("metric: accuracy, margin: 0.1", &comparison), Outcome::Pass);
    let verdict =
        verdict("rules: [{ name: worst, metric: accuracy, margin: 0.1, per: language }]", &comparison);
    assert_eq!(verdict.outcome, Outcome::Fail);
    let of =
        |name: &str| verdict.checks.iter().find(|c| c.subject.as_ref().unwrap().words() == name).unwrap();
    assert_eq!((of("en").outcome, of("th").outcome), (Outcome::Pass, Outcome::Fail));
    let row = &comparison.quants[0].questions.as_ref().unwrap().tasks[1].scores;
    assert!((of("th").value.unwrap() + row.difference.value).abs() < 1e-12, "the loss is −Δ");
    assert_eq!(of("th").samples, Some(2000));
}

#[test]
fn scopes_and_patterns_choose_what_is_looked_at() {
    let questions = exams(600, FINE, FINE);
    let comparison = run(vec![
        cousin("model-Q8_0", (0.001, 0.0), &questions),
        cousin("model-Q4_K_M", (0.02, 0.0), &questions),
    ]);
    let names = |rule: &str| -> Vec<String> {
        let verdict =
            verdict(&format!("rules: [{{ name: r, metric: accuracy, margin: 0.5, {rule} }}]"), &comparison);
        assert_eq!(verdict.outcome, Outcome::Pass, "{rule}: {:?}", verdict.checks);
        let name =
            |c: &Check| format!("{} {}", c.cousin.as_ref().unwrap(), c.subject.as_ref().unwrap().words());
        verdict.checks.iter().map(name).collect()
    };
    assert_eq!(names("cousins: '*Q4*'"), ["model-Q4_K_M all"]);
    assert_eq!(names("cousins: '!*Q4*', per: task"), ["model-Q8_0 exam/en", "model-Q8_0 exam/th"]);
    assert_eq!(names("cousins: '*Q4*', tasks: ['exam/*', '!*/th'], per: task"), ["model-Q4_K_M exam/en"]);
    assert_eq!(names("cousins: '*Q4*', languages: th, per: language"), ["model-Q4_K_M th"]);
    assert_eq!(names("cousins: '*Q4*', per: group"), ["model-Q4_K_M exam"]);
    assert_eq!(
        names("cousins: '*Q4*', tasks: exam/en, per: level"),
        ["model-Q4_K_M exam/en, 1 digits", "model-Q4_K_M exam/en, 2 digits"]
    );
    for (rule, reason) in [
        (
            "metric: accuracy, margin: 0.5, cousins: '*Q5*'",
            "no cousin matches *Q5*; there are model-Q8_0, model-Q4_K_M",
        ),
        (
            "metric: accuracy, margin: 0.5, tasks: 'mmlu/*'",
            "no task matches mmlu/*; there are exam/en, exam/th",
        ),
        ("metric: trace_kl_divergence, max: 1", "no answer was written"),
        ("metric: accuracy, margin: 0.5, score: acc_norm", "exam/en was not answered with acc_norm"),
        ("metric: delta_bits_per_byte, max: 1", "its bytes were not scored"),
    ] {
        let verdict = verdict(&format!("rules: [{{ name: r, {rule} }}]"), &comparison);
        assert_eq!(verdict.outcome, Outcome::NotMeasured, "{rule}");
        assert!(verdict.checks[0].message.contains(reason), "{rule}: {}", verdict.checks[0].message);
    }
}

/// Each way in which a run may not have measured what a rule asks: never a pass.
#[test]
fn what_was_not_measured_does_not_pass() {
    let whole = || run(vec![cousin("q", (0.01, 0.0), &exams(600, FINE, FINE))]);
    let broken = |breaking: &dyn Fn(&mut Comparison)| {
        let mut comparison = whole();
        breaking(&mut comparison);
        comparison
    };
    let accuracy = "metric: accuracy, margin: 0.5, per: task";
    assert_eq!(of_rule(accuracy, &whole()), Outcome::Pass);
    let rows = |c: &mut Comparison| c.quants[0].questions.as_mut().unwrap().tasks.clone();
    for (what, rule, comparison) in [
        ("no question", accuracy, broken(&|c| c.quants[0].questions = None)),
        ("a skipped task", accuracy, broken(&|c| drop(c.quants[0].questions.as_mut().unwrap().tasks.pop()))),
        (
            "an answer not judged",
            accuracy,
            broken(&|c| {
                let mut rows = rows(c);
                let samples = rows[0].samples.as_mut().unwrap();
                samples.quant.0[3] = None;
                c.quants[0].questions.as_mut().unwrap().tasks = rows;
            }),
        ),
        (
            "an older version",
            accuracy,
            broken(&|c| c.quants[0].questions.as_mut().unwrap().tasks[0].samples = None),
        ),
        (
            "lists of other lengths",
            accuracy,
            broken(&|c| {
                c.quants[0].questions.as_mut().unwrap().tasks[0].samples.as_mut().unwrap().base =
                    Scores(vec![]);
            }),
        ),
        (
            "a NaN token",
            "metric: kl_divergence, max: 9",
            broken(&|c| c.quants[0].overall.non_finite_tokens = 1),
        ),
        (
            "NaN",
            "metric: kl_divergence, max: 9",
            broken(&|c| {
                c.quants[0].overall.sums.as_mut().unwrap().kl_divergence[0] = f64::NAN;
            }),
        ),
        (
            "no text",
            "metric: kl_divergence, max: 9",
            broken(&|c| {
                (c.quants[0].overall.scored_tokens, c.quants[0].overall.sums) = (0, None);
            }),
        ),
        (
            "a task without a token",
            "metric: ppl_ratio, max: 9, per: task",
            broken(&|c| c.quants[0].tasks[0].metrics = None),
        ),
        ("no noise floor", "metric: kl_divergence, max_noise_floors: 99", broken(&|c| c.noise_floor = None)),
        ("no weights", "metric: weight_sqnr_db, min: 0", broken(&|c| c.quants[0].weights.clear())),
        (
            "a NaN weight",
            "metric: weight_sqnr_db, min: 0",
            broken(&|c| {
                (c.quants[0].weights[0].identical, c.quants[0].weights[0].sqnr_db) = (false, None);
            }),
        ),
        (
            "another vocabulary",
            "metric: kl_divergence, max: 9",
            broken(&|c| {
                c.foreign = fixture::with_questions().foreign;
            }),
        ),
        ("no cousin", "metric: kl_divergence, max: 9", broken(&|c| c.quants.clear())),
        (
            "a task of which all was dropped",
            "metric: kl_divergence, max: 9",
            broken(&|c| c.tasks[0].scored_tokens = 0),
        ),
        (
            "a percentile at a confidence that is not kept",
            "metric: kl_divergence_p99, max: 9, confidence: 0.999",
            whole(),
        ),
    ] {
        let verdict = verdict(&format!("rules: [{{ name: r, {rule} }}]"), &comparison);
        assert_eq!(verdict.outcome, Outcome::NotMeasured, "{what}");
        assert_eq!(verdict.outcome.exit_code(), 2);
        let reasons = verdict.checks.iter().filter(|c| c.outcome == Outcome::NotMeasured).map(|c| &c.message);
        assert!(
            reasons.clone().count() > 0 && reasons.into_iter().all(|reason| !reason.is_empty()),
            "{what}"
        );
    }
}

/// Bounds are the ends of the 95 % interval that a report shows, made of the same samples: of shares, percentiles and scores
/// at 97.5 % on each side, of other means at 95 %, where half the error is taken.
#[test]
fn bounds_are_made_of_what_is_displayed() {
    let comparison = run(vec![cousin("q", (0.01, 0.02), &exams(600, (0.7, 0.04, 0.01), FINE))]);
    let quant = &comparison.quants[0];
    let (text, all) = (&quant.overall, quant.questions.as_ref().unwrap().overall.as_ref().unwrap());
    let p99 = text.kl_divergence.p99.unwrap();
    for (metric, shown) in [
        ("kl_divergence", &text.kl_divergence.mean),
        ("reverse_kl", &text.reverse_kl.mean),
        ("delta_nll", &text.delta_nll),
        ("ppl_ratio", &text.ppl_ratio),
        ("top1_agreement", &text.top1_agreement),
        ("top5_overlap", &text.top5_overlap),
        ("kl_divergence_p99", &p99),
        ("accuracy", &all.quant),
        ("recovery", all.recovery.as_ref().unwrap()),
        ("chance_corrected_recovery", all.chance_corrected_recovery.as_ref().unwrap()),
    ] {
        let held = |confidence: f64| {
            let rule = format!("rules: [{{ name: r, metric: {metric}, max: 9, confidence: {confidence} }}]");
            let check = verdict(&rule, &comparison).checks.remove(0);
            (check.value.unwrap(), check.lower.unwrap(), check.upper.unwrap())
        };
        let is_mean = ["kl_divergence", "reverse_kl", "delta_nll", "ppl_ratio"].contains(&metric);
        let (value, lower, upper) = held(if is_mean { 0.95 } else { 0.975 });
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        assert!(near(value, shown.value), "{metric}: {value} {}", shown.value);
        assert!(
            near(lower, shown.lower.unwrap()) && near(upper, shown.upper.unwrap()),
            "{metric}: {shown:?}"
        );
        let (_, inner_lower, inner_upper) = held(0.9);
        assert!(lower < inner_lower && inner_upper < upper, "{metric}: less confidence is narrower");
        if metric == "kl_divergence_p99" {
            assert_eq!(held(0.96), held(0.975), "the next confidence that is kept");
        }
    }
    let flips = all.flips.unwrap().flips;
    let check = verdict("rules: [{ name: r, metric: flips, max: 9 }]", &comparison).checks.remove(0);
    assert!((check.value.unwrap() - flips).abs() < 1e-12);
    let check = verdict("rules: [{ name: r, metric: answer_changes, max: 9 }]", &comparison).checks.remove(0);
    assert!((check.value.unwrap() - all.flips.unwrap().answer_changes).abs() < 1e-12);
}

#[test]
fn requirements_are_kept() {
    let comparison = run(vec![cousin("q", (0.01, 0.0), &exams(600, FINE, FINE))]);
    let rules = "rules: [{ name: r, metric: kl_divergence, max: 9 }]";
    let hash = &comparison.tasks[1].suite_sha256;
    for (require, expected) in [
        ("tasks: ['exam/*', prose/en]".to_owned(), Outcome::Pass),
        ("tasks: ['exam/*', 'mmlu/*']".to_owned(), Outcome::NotMeasured),
        ("cousins: q".to_owned(), Outcome::Pass),
        ("cousins: ['*Q2*']".to_owned(), Outcome::NotMeasured),
        ("protocol: strided".to_owned(), Outcome::Pass),
        ("protocol: llama.cpp".to_owned(), Outcome::NotMeasured),
        (format!("suites: {{ exam: {hash} }}"), Outcome::Pass),
        ("suites: { exam: abc }".to_owned(), Outcome::NotMeasured),
        (format!("suites: {{ mmlu: {hash} }}"), Outcome::NotMeasured),
        ("previous: true".to_owned(), Outcome::NotMeasured),
    ] {
        let found = verdict(&format!("require: {{ {require} }}\n{rules}"), &comparison);
        assert_eq!(found.outcome, expected, "{require}: {:?}", found.checks);
    }
}

#[test]
fn guessing_few_samples_and_few_clusters_decide_nothing() {
    let guesses = run(vec![cousin("q", (0.01, 0.0), &exams(600, (0.26, 0.0, 0.0), FINE))]);
    let found = verdict("rules: [{ name: r, metric: recovery, min: 0.5, per: task }]", &guesses);
    assert_eq!(found.outcome, Outcome::Inconclusive);
    assert!(found.checks[0].message.contains("guessing"), "{}", found.checks[0].message);
    assert_eq!(found.checks[1].outcome, Outcome::Pass);

    let few = run(vec![cousin("q", (0.01, 0.0), &exams(9, FINE, FINE))]);
    assert_eq!(of_rule("metric: accuracy, margin: 0.9, per: task", &few), Outcome::Inconclusive);

    let enough = run(vec![cousin("q", (0.01, 0.0), &exams(600, FINE, FINE))]);
    let found = verdict("rules: [{ name: r, metric: accuracy, margin: 0.5, min_samples: 5000 }]", &enough);
    assert_eq!(found.outcome, Outcome::Inconclusive);
    assert_eq!(found.checks[0].samples_needed, Some(5000));
    assert!(found.checks[0].message.contains("3,800 more samples"), "{}", found.checks[0].message);

    let percentile = run(vec![cousin("q", (0.01, 0.0), &[])]);
    let found = verdict("rules: [{ name: r, metric: kl_divergence_p99_9, max: 9 }]", &percentile);
    assert_eq!(found.outcome, Outcome::Inconclusive);
    assert!(found.checks[0].message.contains("10,000 tokens"), "{}", found.checks[0].message);
}

/// A task judged by something else than right and wrong is left out of a sum, and said to be; alone it is refused.
#[test]
fn what_is_no_accuracy_is_left_out_and_said_so() {
    let mut tasks = exams(600, FINE, BAD);
    tasks[1].right_or_wrong = false;
    let comparison = run(vec![cousin("q", (0.01, 0.0), &tasks)]);
    let found = verdict("rules: [{ name: r, metric: accuracy, margin: 0.05 }]", &comparison);
    assert_eq!((found.outcome, found.checks[0].samples), (Outcome::Pass, Some(600)));
    assert!(found.checks[0].message.contains("1 task left out"), "{}", found.checks[0].message);
    let alone = verdict(
        "rules: [{ name: r, metric: accuracy, margin: 0.05, per: task, tasks: exam/th }]",
        &comparison,
    );
    assert_eq!(alone.outcome, Outcome::NotMeasured);
    assert!(
        alone.checks[0].message.contains("judged by acc, which is no accuracy"),
        "{}",
        alone.checks[0].message
    );
}

/// With as many samples as the message says, the same shares decide.
#[test]
fn the_message_says_how_many_samples_decide() {
    let small = run(vec![cousin("q", (0.01, 0.0), &[asked("exam/en", "en", 300, (0.7, 0.02, 0.02))])]);
    let rule = "rules: [{ name: r, metric: accuracy, margin: 0.02 }]";
    let found = verdict(rule, &small);
    assert_eq!(found.outcome, Outcome::Inconclusive);
    let needed = found.checks[0].samples_needed.unwrap();
    assert!(found.checks[0].message.contains("more samples would decide it"), "{}", found.checks[0].message);
    // The same 300 samples again and again: same shares, that many samples.
    let mut task = asked("exam/en", "en", 300, (0.7, 0.02, 0.02));
    let once = task.items.clone();
    let times = u32::try_from(needed.div_ceil(300)).unwrap();
    task.items = (0..times)
        .flat_map(|t| {
            once.iter().map(move |i| Item { sample: i.sample + 300 * t, cluster: i.cluster + 300 * t, ..*i })
        })
        .collect();
    assert_eq!(verdict(rule, &run(vec![cousin("q", (0.01, 0.0), &[task])])).outcome, Outcome::Pass);
}

#[test]
fn an_earlier_run_is_what_regressions_are_held_against() {
    let good = exams(2000, FINE, FINE);
    let bad = exams(2000, FINE, BAD);
    let then = run(vec![cousin("q", (0.01, 0.01), &good)]);
    let (same, worse) = (then.clone(), run(vec![cousin("q", (0.03, 0.05), &bad)]));
    let text = "rules: [{ name: r, metric: kl_divergence, max: 9 }]
regressions:
  - { name: accuracy, metric: accuracy, margin: 0.02 }
  - { name: kl, metric: kl_divergence, margin: 0.005 }
  - { name: perplexity, metric: ppl_ratio, margin: 0.01 }
  - { name: recovery, metric: recovery, min: 0.98 }
  - { name: top1, metric: top1_agreement, margin: 0.005 }
  - { name: flips, metric: flips, max: 0.02 }";
    // A flip rate has no limit but a margin.
    assert!(refused(&format!("version: 1\n{text}")).contains("regressions.flips"));
    let policy = policy(&text.replace("max: 0.02", "margin: 0.02"));
    assert_eq!(judge(&policy, &same, Some(&then)).outcome, Outcome::Pass);
    let found = judge(&policy, &worse, Some(&then));
    for name in ["accuracy", "kl", "perplexity", "recovery", "top1", "flips"] {
        let check = found.checks.iter().find(|check| check.rule == name).unwrap();
        assert_eq!(
            (check.outcome, check.against_previous),
            (Outcome::Fail, true),
            "{name}: {}",
            check.message
        );
    }
    let value = |name: &str| found.checks.iter().find(|check| check.rule == name).unwrap().value.unwrap();
    assert!((value("kl") - 0.02).abs() < 1e-3 && (value("perplexity") - (0.04f64.exp() - 1.0)).abs() < 2e-3);
    // Better than then is no regression; only flips count what changed in either direction.
    let found = judge(&policy, &then, Some(&worse));
    let failed: Vec<&str> =
        found.checks.iter().filter(|c| c.outcome != Outcome::Pass).map(|c| c.rule.as_str()).collect();
    assert_eq!(failed, ["flips"]);
    // Without an earlier run they are not looked at, and the verdict says so.
    let alone = judge(&policy, &worse, None);
    assert_eq!(alone.outcome, Outcome::Pass);
    assert!(alone.notes[0].contains("6 regression rules not looked at"), "{:?}", alone.notes);
}

#[test]
fn a_changed_suite_protocol_or_prompt_cannot_be_compared() {
    let then = run(vec![cousin("q", (0.01, 0.0), &exams(600, FINE, FINE))]);
    let policy = policy(
        "regressions: [{ name: kl, metric: kl_divergence, margin: 9 }, { name: acc, metric: accuracy, margin: 0.9 }]",
    );
    type Change = (&'static str, &'static dyn Fn(&mut Comparison));
    let changes: [Change; 7] = [
        ("suite of exam/en changed", &|c| c.tasks[1].suite_sha256 = "other".to_owned()),
        ("the protocol changed", &|c| c.protocol.description = "other".to_owned()),
        ("asks changed", &|c| c.tasks[1].input_sha256 = Some("other".to_owned())),
        ("not known", &|c| c.tasks[1].input_sha256 = None),
        ("other tasks", &|c| drop(c.tasks.pop())),
        ("no cousin of this label", &|c| {
            c.quants[0].model.label = "one".to_owned();
            let other = QuantComparison { model: c.base.clone(), ..c.quants[0].clone() };
            c.quants.push(other);
        }),
        ("was not answered in the earlier run", &|c| {
            drop(c.quants[0].questions.as_mut().unwrap().tasks.pop());
        }),
    ];
    assert_eq!(judge(&policy, &then, Some(&then)).outcome, Outcome::Pass);
    for (reason, change) in changes {
        let mut earlier = then.clone();
        change(&mut earlier);
        let found = judge(&policy, &then, Some(&earlier));
        assert_eq!(found.outcome, Outcome::NotMeasured, "{reason}");
        assert!(
            found.checks.iter().any(|check| check.message.contains(reason)),
            "{reason}: {:?}",
            found.checks
        );
    }
    // The only cousin of both runs is the same one under another name.
    let mut renamed = then.clone();
    renamed.quants[0].model.label = "q-v2".to_owned();
    assert_eq!(judge(&policy, &renamed, Some(&then)).outcome, Outcome::Pass);
}

#[test]
fn policies_extend_each_other_and_replace_rules_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = |name: &str| Policy::load(folder.path().join(name).to_str().unwrap());
    write(
        "own.yaml",
        "version: 1\nextends: [release, sub/more.yaml]\nconfidence: 0.99\nrules:\n  - { name: recovery, metric: recovery, min: 0.9 }\n  - { name: worst_language, enabled: false }\n",
    );
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    write(
        "sub/more.yaml",
        "version: 1\nextends: base.yaml\nrules: [{ name: extra, metric: flips, max: 0.1 }]\n",
    );
    write(
        "sub/base.yaml",
        "version: 1\nrules: [{ name: extra, metric: flips, max: 0.3 }, { name: size, metric: bits_per_weight, max: 5 }]\n",
    );
    let policy = load("own.yaml").unwrap();
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["recovery", "kl_tail", "kl_mean", "perplexity", "every_weight", "extra", "size"]);
    assert_eq!((policy.rules[0].min, policy.rules[5].max), (Some(0.9), Some(0.1)));
    assert_eq!(policy.confidence_of(&policy.rules[0]), 0.99);
    assert_eq!((policy.name.as_deref(), policy.regressions.len()), (Some("own"), 2));
    assert_eq!(Policy::load("release").unwrap().name.as_deref(), Some("release"));
    write("a.yaml", "version: 1\nextends: b.yaml\nrules: []\n");
    write("b.yaml", "version: 1\nextends: a.yaml\nrules: []\n");
    assert!(load("a.yaml").unwrap_err().to_string().contains("without end"));
    write("lost.yaml", "version: 1\nextends: nowhere.yaml\nrules: []\n");
    assert!(load("lost.yaml").unwrap_err().to_string().contains("nowhere.yaml: there is no such policy"));
}

#[test]
fn mistakes_in_a_policy_are_named() {
    for (text, reason) in [
        ("rules: []", "missing field `version`"),
        ("version: 2\nrules: []", "version 2 of the policy format"),
        ("version: 1\nrules: []", "the policy has no rule"),
        ("version: 1\nruels: []", "unknown field `ruels`"),
        ("version: 1\nrules: [{ name: r, metric: acuracy, margin: 0.1 }]", "unknown variant `acuracy`"),
        ("version: 1\nrules: [{ name: r, metric: accuracy }]", "`rules.r`: needs exactly one of margin, max"),
        ("version: 1\nrules: [{ name: r, metric: accuracy, max: 1, min: 0 }]", "needs exactly one of"),
        ("version: 1\nrules: [{ name: r, max: 1 }]", "has no metric"),
        ("version: 1\nrules: [{ name: r, metric: accuracy, max: .nan }]", "no finite number"),
        (
            "version: 1\nrules: [{ name: r, metric: accuracy, max: 1, confidence: 0.2 }]",
            "confidence out of range",
        ),
        (
            "version: 1\nconfidence: 1.0\nrules: [{ name: r, metric: accuracy, max: 1 }]",
            "confidence is out of range",
        ),
        ("version: 1\nrules: [{ name: r, metric: bits_per_weight, margin: 1 }]", "has no such limit"),
        ("version: 1\nrules: [{ name: r, metric: accuracy, max_noise_floors: 1 }]", "has no such limit"),
        (
            "version: 1\nrules: [{ name: r, metric: kl_divergence, max: 1, per: level }]",
            "not about questions",
        ),
        (
            "version: 1\nrules: [{ name: r, metric: kl_divergence, max: 1, per: overall, tasks: x }]",
            "overall and names tasks",
        ),
        (
            "version: 1\nregressions: [{ name: r, metric: kl_divergence_p99, margin: 1 }]",
            "against an earlier run",
        ),
        (
            "version: 1\nrules: [{ name: r, metric: flips, max: 1 }, { name: r, metric: flips, max: 1 }]",
            "two rules are called `r`",
        ),
        ("[1, 2", "this is not a policy"),
    ] {
        let found = refused(text);
        assert!(found.contains(reason), "{text}: {found}");
    }
}

/// What the program brings along loads, is what its schema says, and states sample sizes that the formula gives.
#[test]
fn presets_and_starter_are_policies() {
    let schema = serde_json::to_value(schemars::schema_for!(Policy)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, text) in PRESETS.iter().copied().chain([("starter", STARTER)]) {
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        if name != "starter" {
            let policy = Policy::load(name).unwrap();
            assert!(policy.description.as_ref().unwrap().len() > 80 && policy.rules.len() >= 4);
            assert!(policy.rules.iter().all(|rule| rule.why.is_some()), "{name}: every rule has its reason");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({ "version": 1, "ruels": [] })));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), STARTER).unwrap();
    let starter = Policy::load(folder.path().join("policy.yaml").to_str().unwrap()).unwrap();
    assert!(starter.rules.iter().any(|rule| rule.name == "accuracy"));
    for metric in metric::Metric::ALL {
        assert!(STARTER.contains(metric.name()), "the starter lists {}", metric.name());
    }
    // 4 % flips, base right on 70 %: losses of 0.01 · 0.7 and 0.03 · 0.7.
    let release = Policy::load("release").unwrap().description.unwrap();
    for margin in [0.007, 0.021] {
        let size = Power::default().non_inferiority_sample_size(0.04, margin).unwrap();
        let rounded = crate::format::count(size.div_ceil(100) * 100);
        assert!(release.contains(&rounded), "{margin}: {size}, rounded up {rounded}: {release}");
    }
}

#[test]
fn names_are_those_of_the_yaml() {
    for metric in metric::Metric::ALL {
        assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
    }
}
