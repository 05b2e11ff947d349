//! What holds for every family: editions, prompts, options and filters. The answers themselves are checked
//! in each family's own tests, by solvers that read the text of the question.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::*;

/// A question as a model sees it, read back from both tasks of a family.
pub(super) struct Asked {
    pub(super) level: u32,
    /// Without "Question:" and "Answer:".
    pub(super) text: String,
    pub(super) answer: String,
    /// Without the right one.
    pub(super) wrong: Vec<String>,
    /// The place of the right one.
    pub(super) gold: usize,
}

/// Every question of a family over several editions, worked examples among them (their `wrong` is empty).
pub(super) fn asked(family: &str) -> Vec<Asked> {
    (0..8).flat_map(|seed| asked_in(family, seed, 40)).collect()
}

fn asked_in(family: &str, seed: u64, per_level: usize) -> Vec<Asked> {
    let family = FAMILIES.iter().find(|f| f.name == family).unwrap();
    let [choice, generation] = family.tasks(seed, per_level);
    let bare = |question: &str| {
        question.strip_prefix("Question: ").unwrap().strip_suffix("\nAnswer:").unwrap().to_owned()
    };
    let mut all = Vec::new();
    assert_eq!(choice.questions.samples.len(), generation.questions.samples.len());
    for (sample, twin) in choice.questions.samples.iter().zip(&generation.questions.samples) {
        assert_eq!((&sample.id, &sample.question, &sample.shots), (&twin.id, &twin.question, &twin.shots));
        let (Answer::Choice { options, gold }, Answer::Generation(targets)) = (&sample.answer, &twin.answer)
        else {
            panic!("{}: answers of the wrong kind", sample.id)
        };
        let ([gold], [target]) = (&gold[..], &targets[..]) else { panic!("{}: one right answer", sample.id) };
        let mut wrong: Vec<String> = options.iter().map(|option| option.continuation.clone()).collect();
        let answer = wrong.remove(*gold);
        assert_eq!(&answer, target, "{}", sample.id);
        assert_eq!(sample.record["answer"].to_string().trim_matches('"'), answer, "{}", sample.id);
        let level = sample.level.as_ref().unwrap().value;
        all.push(Asked { level, text: bare(&sample.question), answer, wrong, gold: *gold });
        if all.len() <= family.kinds {
            all.extend(sample.shots.iter().map(|shot| Asked {
                level: family.levels[0],
                text: bare(&shot.question),
                answer: shot.answer.clone(),
                wrong: Vec::new(),
                gold: 0,
            }));
        }
    }
    all
}

/// Runs of decimal digits.
pub(super) fn numbers(text: &str) -> Vec<i128> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter(|run| !run.is_empty())
        .map(|run| run.parse().unwrap())
        .collect()
}

#[test]
fn the_edition_is_what_was_promised() {
    let edition = generate(0, DEFAULT_PER_LEVEL);
    assert_eq!(edition.len(), 2 * FAMILIES.len());
    let total: usize = edition.iter().map(|task| task.questions.samples.len()).sum();
    assert!((1000..1500).contains(&total), "{total} samples");
    for (family, tasks) in FAMILIES.iter().zip(edition.chunks(2)) {
        assert!((4..=6).contains(&family.levels.len()) && family.levels.is_sorted_by(|a, b| a < b));
        assert_eq!(tasks[0].name, format!("{}.choice", family.name));
        assert_eq!(tasks[1].name, format!("{}.generate", family.name));
        assert_eq!(tasks[0].questions.metrics, [Metric::Acc, Metric::AccNorm]);
        assert!(matches!(tasks[1].questions.metrics[..], [Metric::ExactMatch(_)]));
        assert!(tasks[0].questions.filters.is_empty() && tasks[1].questions.filters.len() == 2);
        assert!(tasks[0].questions.kind == QuestionKind::Choice);
        assert!(matches!(&tasks[1].questions.kind, QuestionKind::Generation(how) if how.until == ["\n"]));
        for task in tasks {
            assert!(task.questions.left_out.is_empty(), "{}: {:?}", task.name, task.questions.left_out);
            let samples = &task.questions.samples;
            assert_eq!(samples.len(), family.levels.len() * DEFAULT_PER_LEVEL, "{}", task.name);
            for (i, sample) in samples.iter().enumerate() {
                let (level, index) = (family.levels[i / DEFAULT_PER_LEVEL], i % DEFAULT_PER_LEVEL);
                assert_eq!(sample.id, format!("{}-{level}-{index:02}", family.name));
                assert_eq!((sample.doc_id, &sample.cluster), (i, &sample.id));
                assert_eq!(sample.level, Some(Level { unit: family.unit.into(), value: level }));
                assert_eq!(sample.shots.len(), family.shots);
                assert!((2..=3).contains(&sample.shots.len()) && sample.record.is_object());
            }
        }
    }
}

#[test]
fn an_edition_is_drawn_again_and_a_larger_one_begins_with_it() {
    let small = generate(7, 6);
    assert_eq!(small, generate(7, 6));
    for (small, large) in small.iter().zip(generate(7, 11)) {
        let large: BTreeMap<String, Sample> =
            large.questions.samples.into_iter().map(|sample| (sample.id.clone(), sample)).collect();
        for sample in &small.questions.samples {
            let twin = &large[&sample.id];
            assert_eq!((&sample.question, &sample.answer), (&twin.question, &twin.answer), "{}", sample.id);
            assert_eq!(sample.shots, twin.shots);
        }
    }
    assert_eq!(generate(3, 0), generate(3, 1), "never without a sample");
}

#[test]
fn another_seed_asks_other_questions() {
    let questions = |seed| -> Vec<(String, BTreeSet<String>)> {
        let choices = generate(seed, DEFAULT_PER_LEVEL).into_iter().step_by(2);
        choices
            .map(|task| (task.name, task.questions.samples.into_iter().map(|s| s.question).collect()))
            .collect()
    };
    for (first, second) in [(0, 1), (1, 2), (0, u64::MAX)] {
        for ((name, first), (_, second)) in questions(first).iter().zip(&questions(second)) {
            let common = first.intersection(second).count();
            // One digit and ten days leave little room; everything else is practically unbounded.
            let allowed =
                if ["arithmetic.choice", "calendar.choice"].contains(&name.as_str()) { 5 } else { 0 };
            assert!(common <= allowed, "{name}: {common} of {} in common", first.len());
        }
    }
}

#[test]
fn nothing_is_asked_twice_and_what_is_missing_is_said() {
    for seed in 0..4 {
        for task in generate(seed, 90) {
            let mut seen = BTreeSet::new();
            for sample in &task.questions.samples {
                assert!(
                    seen.insert((sample.level.clone().unwrap().value, &sample.question)),
                    "{}",
                    sample.id
                );
                assert!(sample.shots.iter().all(|shot| shot.question != sample.question), "{}", sample.id);
                let answers: BTreeSet<&str> = sample.shots.iter().map(|shot| shot.answer.as_str()).collect();
                assert_eq!(answers.len(), sample.shots.len(), "{}: worked examples differ", sample.id);
            }
        }
    }
    let family = FAMILIES.iter().find(|family| family.name == "arithmetic").unwrap();
    for task in family.tasks(0, 300) {
        let easiest = task.questions.samples.iter().filter(|s| s.level.as_ref().unwrap().value == 1).count();
        let missing = 300 - easiest;
        assert!((100..160).contains(&missing), "there are not 200 sums of one digit: {easiest}");
        let expected = format!("{missing} at level 1: no more different questions were found");
        assert_eq!(task.questions.left_out, [expected]);
    }
}

#[test]
fn prompts_are_plain_and_short() {
    for task in generate(0, DEFAULT_PER_LEVEL) {
        let questions = &task.questions;
        assert_eq!(
            (questions.target_delimiter.as_str(), questions.fewshot_delimiter.as_str()),
            (" ", "\n\n")
        );
        assert!(questions.description.is_ascii() && questions.description.ends_with(".\n\n"));
        let mut words = 0;
        for sample in &questions.samples {
            let shots = sample.shots.iter().map(|shot| (&shot.question, &shot.answer));
            for (question, answer) in shots.chain([(&sample.question, &sample.id)]) {
                assert!(
                    question.is_ascii() && !question.contains("\n\n") && !question.contains('{'),
                    "{question}"
                );
                assert!(question.starts_with("Question: ") && question.ends_with("\nAnswer:"), "{question}");
                assert!(!question.contains("  ") || task.name.starts_with("code"), "{question}");
                assert!(answer.trim() == answer && !answer.contains('\n'), "{answer:?}");
                words += question.split_whitespace().count();
            }
        }
        let mean = words / questions.samples.len();
        let bound = if task.name.starts_with("needle") { 600 } else { 200 };
        assert!(mean < bound, "{}: {mean} words a prompt", task.name);
    }
}

#[test]
fn the_right_option_stands_everywhere_equally_often() {
    for task in generate(5, DEFAULT_PER_LEVEL).iter().step_by(2) {
        for level in task.questions.samples.chunks(DEFAULT_PER_LEVEL) {
            let mut counts = [0; OPTIONS];
            for sample in level {
                let Answer::Choice { gold, .. } = &sample.answer else { panic!() };
                counts[gold[0]] += 1;
            }
            assert_eq!(counts, [DEFAULT_PER_LEVEL / OPTIONS; OPTIONS], "{} {:?}", task.name, level[0].level);
        }
    }
    // Where four does not divide the number, no place may be preferred: chi-square with 3 degrees of
    // freedom, beyond 16.27 once in a thousand times.
    let mut counts = [0u32; OPTIONS];
    let mut follows = [[0u32; OPTIONS]; OPTIONS];
    for seed in 0..60 {
        let golds: Vec<usize> =
            asked_in("arithmetic", seed, 5).iter().filter(|a| !a.wrong.is_empty()).map(|a| a.gold).collect();
        golds.iter().for_each(|&gold| counts[gold] += 1);
        golds.windows(2).for_each(|pair| follows[pair[0]][pair[1]] += 1);
    }
    assert!(chi_square(&counts) < 16.27, "{counts:?}");
    // The block order is random too: no place is tied to the one before (except that it rarely repeats).
    assert!(follows.iter().flatten().all(|&n| n > 20), "{follows:?}");
}

fn chi_square(counts: &[u32]) -> f64 {
    let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&n| (f64::from(n) - mean).powi(2) / mean).sum()
}

#[test]
fn options_are_different_and_alike() {
    for family in FAMILIES {
        // Words of a fixed set have the lengths they have ("true" and "false", days of the week).
        let bound = match family.name {
            "logic" | "calendar" => 3,
            "word-problems" | "code" => 1,
            _ => 0,
        };
        for asked in asked(family.name).iter().filter(|asked| !asked.wrong.is_empty()) {
            let all: BTreeSet<&str> = asked.wrong.iter().chain([&asked.answer]).map(String::as_str).collect();
            assert_eq!(all.len(), OPTIONS, "{}: {all:?}", asked.text);
            for wrong in &asked.wrong {
                let difference = wrong.len().abs_diff(asked.answer.len());
                assert!(difference <= bound, "{}: {} and {wrong}", asked.text, asked.answer);
            }
        }
    }
}

/// How bad an option looks beside all four.
type Rule = fn(&str, &[&str]) -> i64;

/// Who sees the options but not the question must guess: neither length nor size nor likeness gives the
/// right one away.
#[test]
fn options_do_not_give_themselves_away() {
    for family in FAMILIES {
        let asked = asked(family.name);
        let asked: Vec<&Asked> = asked.iter().filter(|asked| !asked.wrong.is_empty()).collect();
        let rules: [(&str, Rule); 6] = [
            ("longest", |option, _| -(option.len() as i64)),
            ("shortest", |option, _| option.len() as i64),
            ("smallest", |option, _| value(option)),
            ("largest", |option, _| -value(option)),
            ("most like the others", |option, all| all.iter().map(|other| unlike(option, other)).sum()),
            ("least like the others", |option, all| {
                -all.iter().map(|other| unlike(option, other)).sum::<i64>()
            }),
        ];
        for (rule, badness) in rules {
            let mut right = 0.0;
            for asked in &asked {
                let all: Vec<&str> = asked.wrong.iter().chain([&asked.answer]).map(String::as_str).collect();
                let scores: Vec<i64> = all.iter().map(|option| badness(option, &all)).collect();
                let best = *scores.iter().min().unwrap();
                if scores[OPTIONS - 1] == best {
                    right += 1.0 / scores.iter().filter(|&&score| score == best).count() as f64;
                }
            }
            let share = right / asked.len() as f64;
            assert!(
                (0.20..0.30).contains(&share),
                "{}: the {rule} option is right in {share:.3}",
                family.name
            );
        }
    }
}

/// A number, or the digits of a date or list; 0 for words.
fn value(option: &str) -> i64 {
    numbers(option).iter().fold(0i128, |value, number| (value * 100 + number) % 1_000_000_007) as i64
}

/// Characters that differ, read from the end.
fn unlike(a: &str, b: &str) -> i64 {
    let same = a.bytes().rev().zip(b.bytes().rev()).filter(|(a, b)| a == b).count();
    (a.len().max(b.len()) - same) as i64
}

/// As lm-evaluation-harness extracts and compares: `findall`, the match selected, patterns removed, case
/// ignored.
fn judged(questions: &Questions, filter: usize, written: &str, target: &str) -> bool {
    let FilterStep::Regex { pattern, group_select, fallback } = &questions.filters[filter].steps[0] else {
        panic!("no regex")
    };
    let found: Vec<&str> = Regex::new(pattern).unwrap().find_iter(written).map(|m| m.as_str()).collect();
    let answer =
        if *group_select == 0 { found.first() } else { found.last() }.map_or(fallback.as_str(), |m| m.trim());
    let Metric::ExactMatch(comparison) = &questions.metrics[0] else { panic!("no exact match") };
    let reduced = |text: &str| {
        let text = comparison.regexes_to_ignore.iter().fold(text.to_owned(), |text, pattern| {
            Regex::new(pattern).unwrap().replace_all(&text, "").into_owned()
        });
        text.to_lowercase()
    };
    reduced(answer) == reduced(target)
}

#[test]
fn filters_find_the_answer_and_nothing_else() {
    for (choice, generation) in generate(2, 8).chunks(2).map(|tasks| (&tasks[0], &tasks[1])) {
        let questions = &generation.questions;
        assert_eq!(
            questions.filters.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["strict", "flexible"]
        );
        for (sample, twin) in questions.samples.iter().zip(&choice.questions.samples) {
            let Answer::Generation(targets) = &sample.answer else { panic!() };
            let Answer::Choice { options, .. } = &twin.answer else { panic!() };
            let target = targets[0].as_str();
            for filter in [0, 1] {
                assert!(judged(questions, filter, &format!(" {target}"), target), "{}: {target}", sample.id);
                assert!(
                    judged(questions, filter, &format!("{}.", target.to_uppercase()), target),
                    "{}",
                    sample.id
                );
                for other in options.iter().map(|option| &option.continuation).filter(|o| *o != target) {
                    assert!(
                        !judged(questions, filter, &format!(" {other}."), target),
                        "{}: {other}",
                        sample.id
                    );
                    assert!(
                        !judged(questions, filter, &format!("not {target} but {other}"), target),
                        "{}: {other}",
                        sample.id
                    );
                }
                assert!(
                    !judged(questions, filter, "", target)
                        && !judged(questions, filter, "I think so", target)
                );
            }
            let sentence = format!(" It is not 12, the answer is {target}. ");
            assert!(judged(questions, 1, &sentence, target), "{}: {target}", sample.id);
            assert!(!judged(questions, 0, &sentence, target), "{}", sample.id);
        }
    }
}

/// FNV-1a over everything that reaches a model or a judge.
fn fingerprint(edition: &[ReasoningTask]) -> u64 {
    let mut bytes = String::new();
    let mut add = |text: &str| {
        bytes.push_str(text);
        bytes.push('\0');
    };
    for task in edition {
        add(&task.name);
        add(&task.questions.description);
        for filter in &task.questions.filters {
            add(&format!("{filter:?}"));
        }
        for sample in &task.questions.samples {
            add(&sample.id);
            for shot in sample.shots.iter() {
                add(&shot.question);
                add(&shot.answer);
            }
            add(&sample.question);
            match &sample.answer {
                Answer::Choice { options, gold } => {
                    options.iter().for_each(|option| add(&option.continuation));
                    add(&format!("{gold:?}"));
                }
                Answer::Generation(targets) => targets.iter().for_each(|target| add(target)),
                other => panic!("{other:?}"),
            }
        }
    }
    random::tag(&bytes)
}

#[test]
fn the_first_edition_stays_as_it_is() {
    let recorded = (VERSION, fingerprint(&generate(0, DEFAULT_PER_LEVEL)));
    assert_eq!(
        recorded,
        (1, 0x0378_448B_5CD8_1756),
        "the suite changed: raise VERSION, then record the new fingerprint"
    );
}
