//! Facts recorded from Python 3.11.7, NumPy 2.4 and lm-evaluation-harness 0.4.13's own functions, and what
//! follows from the definitions. The whole way from golden answers to golden scores is in
//! `tests/it/lm_eval_tasks.rs`.

mod python_re;

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn options(normalizers: &[&str]) -> Vec<ChoiceOption> {
    let option = |text: &&str| ChoiceOption {
        continuation: "x".to_owned(),
        question: None,
        normalizer: (*text).to_owned(),
    };
    normalizers.iter().map(option).collect()
}

#[test]
fn patterns_find_what_python_finds() {
    for (pattern, text, found, rest) in python_re::FACTS {
        let compiled = Pattern::new(pattern).unwrap();
        assert_eq!(compiled.find_all(text).unwrap(), *found, "findall({pattern:?}, {text:?})");
        assert_eq!(compiled.remove(text).unwrap(), *rest, "sub({pattern:?}, \"\", {text:?})");
    }
}

#[test]
fn patterns_that_cannot_be_used_say_why() {
    for (pattern, reason) in [
        ("(", "lacks a `)`"),
        (")", "a `)` too many"),
        ("[a", "lacks a `]`"),
        ("a\\", "ends with a backslash"),
        (r"\y", r"the escape `\y`"),
        (r"\ud800", "`d800`, which is no character"),
        (r"\x4", "`4`, which is no character"),
        (r"[\d-x]", "a range that begins with a class"),
        (r"[x-\d]", "a range that ends with a class"),
        ("(?x)a b", "`(?x`"),
        ("(?a)a", "`(?a`"),
        ("(a)(?(1)b|c)", "a conditional group"),
        ("a(?i)b", "not stand at its start"),
        ("(?P<1>a)", "`1`, which is no identifier"),
        ("(?P<n", "lacks a `>`"),
        ("*", "cannot be compiled"),
        (r"(a)\2", "cannot be compiled"),
        ("(?:(?:a{1000}){1000}){1000}", "cannot be compiled"),
        (&"a".repeat(20_001), "is longer"),
    ] {
        let said = Pattern::new(pattern).err().unwrap_or_else(|| panic!("{pattern:?} was accepted"));
        assert!(said.contains(reason), "{pattern:?}: {said:?} does not say {reason:?}");
    }
    let filter = Filter {
        name: "strict".to_owned(),
        steps: vec![FilterStep::Regex { pattern: "(".to_owned(), group_select: 0, fallback: String::new() }],
    };
    let error = CompiledFilter::new(&filter).unwrap_err();
    assert_eq!(error.to_string(), "filter `strict`: the pattern `(` lacks a `)`");
    assert!(error.help().unwrap().contains("Python's `re`"));
    let comparison = TextComparison { regexes_to_ignore: texts(&["[z-a]"]), ..TextComparison::default() };
    let error = CompiledComparison::new(&comparison).unwrap_err().to_string();
    assert!(error.starts_with("regexes_to_ignore: the pattern `[z-a]` cannot be compiled"), "{error}");
}

#[test]
fn a_pattern_without_end_gives_up() {
    let pattern = Pattern::new(r"(a+)+\1$").unwrap();
    let error = pattern.find_all(&format!("{}b", "a".repeat(60))).unwrap_err();
    assert!(error.contains("gave up on a text"), "{error}");
}

#[test]
fn the_likeliest_option_is_chosen() {
    let plain = options(&["a", "ab", "abc"]);
    assert_eq!(choose(&[-3.0, -1.0, -2.0], &plain, &Metric::Acc), Some(1));
    // numpy.argmax takes the first of equal ones, -inf included.
    assert_eq!(choose(&[-1.0, -1.0, -2.0], &plain, &Metric::Acc), Some(0));
    assert_eq!(choose(&[f64::NEG_INFINITY; 3], &plain, &Metric::Acc), Some(0));
    assert_eq!(choose(&[-1.0, f64::NAN, -2.0], &plain, &Metric::Acc), None);
    assert_eq!(choose(&[-1.0, -2.0], &plain, &Metric::Acc), None);
    assert_eq!(choose(&[], &[], &Metric::Acc), None);
    assert_eq!(choose(&[-3.0, -1.0, -2.0], &plain, &Metric::F1), None);
    // -6/1, -8/2, -11/3: characters. The ä has two bytes: -6/2, -8/2, -11/3.
    let umlaut = options(&["ä", "ab", "abc"]);
    assert_eq!(choose(&[-6.0, -8.0, -11.0], &umlaut, &Metric::AccNorm), Some(2));
    assert_eq!(choose(&[-6.0, -8.0, -11.0], &umlaut, &Metric::AccBytes), Some(0));
    assert_eq!(choose(&[-6.0, -8.0, -11.0], &umlaut, &Metric::Acc), Some(0));
    // As NumPy divides: -1/0 is -inf, 0/0 is NaN.
    assert_eq!(choose(&[-1.0, -9.0], &options(&["", "a"]), &Metric::AccNorm), Some(1));
    assert_eq!(choose(&[0.0, -9.0], &options(&["", "a"]), &Metric::AccNorm), None);
}

#[test]
fn scores_of_a_choice() {
    let plain = options(&["a", "b", "c"]);
    assert_eq!(choice_score(&Metric::Acc, &[-3.0, -1.0, -2.0], &plain, &[1]), Some(1.0));
    assert_eq!(choice_score(&Metric::Acc, &[-3.0, -1.0, -2.0], &plain, &[0, 2]), Some(0.0));
    assert_eq!(choice_score(&Metric::AccNorm, &[-3.0, -1.0, -2.0], &plain, &[0, 1]), Some(1.0));
    assert_eq!(choice_score(&Metric::Acc, &[f64::NAN, -1.0, -2.0], &plain, &[1]), None);
    // Probabilities 1/2, 1/4, 1/8, also where exp would give 0 of all of them.
    let share = |shift: f64, gold: &[usize]| {
        let values = [0.5_f64, 0.25, 0.125].map(|p| p.ln() + shift);
        choice_score(&Metric::GoldProbability, &values, &plain, gold).unwrap()
    };
    for shift in [0.0, -2000.0] {
        assert!((share(shift, &[0]) - 4.0 / 7.0).abs() < 1e-12);
        assert!((share(shift, &[1, 2, 2]) - 3.0 / 7.0).abs() < 1e-12);
        assert_eq!(share(shift, &[]), 0.0);
    }
    let impossible = [f64::NEG_INFINITY; 3];
    assert_eq!(choice_score(&Metric::GoldProbability, &impossible, &plain, &[0]), None);
}

/// The answers that a filter of one regular expression gives.
fn filtered(pattern: &str, group_select: i64, fallback: &str, answers: &[&str]) -> Vec<String> {
    let step = FilterStep::Regex { pattern: pattern.to_owned(), group_select, fallback: fallback.to_owned() };
    let filter = Filter { name: "f".to_owned(), steps: vec![step] };
    apply(&CompiledFilter::new(&filter).unwrap(), &texts(answers)).unwrap()
}

/// Recorded by running the harness's `RegexFilter`.
#[test]
fn the_regex_filter() {
    let flexible = r"(-?[$0-9.,]{2,})|(-?[0-9]+)";
    let answers = ["a 12 and 7", "none", " $5.", ""];
    assert_eq!(filtered(flexible, -1, "[invalid]", &answers), ["7", "[invalid]", "$5.", "[invalid]"]);
    let strict = r"#### (\-?[0-9\.\,]+)";
    let answers = ["x #### 1,200 y", "#### -5.", "12"];
    assert_eq!(filtered(strict, 0, "[invalid]", &answers), ["1,200", "-5.", "[invalid]"]);
    let letter = r"answer is ([A-D]) ?";
    assert_eq!(filtered(letter, 0, "?", &["the answer is B C. answer is D", "no"]), ["B", "?"]);
    let nothing = filtered(r"(a)|(b)|", 0, "[invalid]", &["xb", "ab", ""]);
    assert_eq!(nothing, ["[invalid]", "a", "[invalid]"]);
    assert_eq!(filtered(r"\s*[a-z]+\s*", 1, "-", &[" one  two  three ", "a b"]), ["two", "b"]);
    assert_eq!(filtered(r"(x)?y", 0, "-", &["y", "xy"]), ["", "x"]);
    // Beyond the matches the harness stops with an IndexError; here it is the fallback.
    assert_eq!(filtered("a", 5, "-", &["aa"]), ["-"]);
    assert_eq!(filtered("a", -3, "-", &["aa"]), ["-"]);
    assert_eq!(filtered("a", i64::MIN, "-", &["aa"]), ["-"]);
}

/// Cases recorded by running the harness's filters, except for the last two steps.
#[test]
fn the_other_filters() {
    let run = |steps: &[FilterStep], answers: &[&str]| {
        let filter = Filter { name: "f".to_owned(), steps: steps.to_vec() };
        apply(&CompiledFilter::new(&filter).unwrap(), &texts(answers)).unwrap()
    };
    assert_eq!(run(&[], &["a", "b"]), ["a", "b"]);
    assert_eq!(run(&[FilterStep::TakeFirst], &["a", "b"]), ["a"]);
    assert_eq!(run(&[FilterStep::TakeFirstK(2)], &["a", "b", "c"]), ["a", "b"]);
    assert_eq!(run(&[FilterStep::MajorityVote], &["b", "a", "a", "b"]), ["b"]);
    assert_eq!(run(&[FilterStep::MajorityVote], &["b", "a", "a"]), ["a"]);
    assert!(run(&[FilterStep::MajorityVote], &[]).is_empty());
    let white = ["  a b \n", "\x1c x\u{a0}", ""];
    assert_eq!(run(&[FilterStep::RemoveWhitespace], &white), ["a b", "x", ""]);
    assert_eq!(run(&[FilterStep::Lowercase], &["ÀΣ ΟΔΟΣ İ", "ß"]), ["àς οδος i\u{307}", "ß"]);
    assert_eq!(run(&[FilterStep::Uppercase], &["straße ﬁ ŉ"]), ["STRASSE FI ʼN"]);
    assert_eq!(run(&[FilterStep::StripThinking], &["<think>x</think> y", "z"]), ["y", "z"]);
    let steps = [FilterStep::StripThinking, FilterStep::Uppercase, FilterStep::MajorityVote];
    assert_eq!(run(&steps, &["c", "<think>a</think>b", "B"]), ["B"]);
}

/// Recorded by running the harness's `exact_match_hf_evaluate` (NumPy 2.4).
#[test]
fn equality_of_texts() {
    let case = TextComparison { ignore_case: true, ..TextComparison::default() };
    let punctuation = TextComparison { ignore_punctuation: true, ..TextComparison::default() };
    let numbers = TextComparison { ignore_numbers: true, ..TextComparison::default() };
    let without = |patterns: &[&str], comparison: &TextComparison| TextComparison {
        regexes_to_ignore: texts(patterns),
        ..comparison.clone()
    };
    let none = TextComparison::default();
    let gsm8k = without(&[",", r"\$", "(?s).*#### ", r"\.$"], &case);
    let articles = without(&[r"\b(?:The |the |An |A |The |a |an )"], &case);
    let articles = TextComparison { ignore_punctuation: true, ..articles };
    for (comparison, answer, target, equal) in [
        (&none, "a", "a", true),
        (&none, "a", "A", false),
        (&none, "a\0", "a", true),
        (&none, "a\0b", "a", false),
        (&none, "", "\0", true),
        (&case, "ΟΔΟΣ", "οδος", true),
        (&case, "İ", "i\u{307}", false),
        (&case, "İ", "i", true),
        (&punctuation, "a-b!", "ab", true),
        (&punctuation, "a„b", "ab", false),
        (&numbers, "a1b2", "ab", true),
        (&numbers, "a²", "a", false),
        (&gsm8k, "$1,200.", "so it is\nx #### 1200", true),
        (&gsm8k, "1201", "so it is\nx #### 1200", false),
        (&without(&[r"\.$"], &none), "5.\n", "5", false),
        (&without(&[r"\.$"], &none), "5.\n", "5\n", true),
        (&without(&["THE "], &case), "the cat", "cat", false),
        (&without(&["THE "], &case), "THE cat", "Cat", true),
        (&without(&["b$"], &none), "a\0b", "a", true),
        (&articles, "The Cat.", "a cat", true),
    ] {
        let compiled = CompiledComparison::new(comparison).unwrap();
        let found = exact_match(&compiled, answer, &texts(&[target])).unwrap();
        assert_eq!(found, equal, "{answer:?} {target:?} {comparison:?}");
        let several = exact_match(&compiled, answer, &texts(&["neither this", target])).unwrap();
        assert_eq!(several, equal, "{answer:?} among several");
    }
    assert!(!exact_match(&CompiledComparison::new(&none).unwrap(), "a", &[]).unwrap());
}

/// Recorded from Python with the rules of SQuAD's script (its normal form, and F1 over a `Counter`).
#[test]
fn f1_of_words_as_squad() {
    for (answer, target, expect) in [
        ("the Cat sat", "cat sat down", 0.8),
        ("a", "the", 1.0),
        ("", "x", 0.0),
        ("x", "", 0.0),
        ("it's the-end", "its theend", 1.0),
        ("red red blue", "red blue blue", 2.0 / 3.0),
        ("Denver_the Broncos", "denver_the", 2.0 / 3.0),
        ("theатр the", "театр", 0.0),
        ("a\u{a0}b", "b", 1.0),
        ("über THE", "uber", 0.0),
    ] {
        let found = f1(answer, &texts(&[target]));
        assert!((found - expect).abs() < 1e-15, "{answer:?} {target:?}: {found}");
        assert_eq!(f1(answer, &texts(&["zzz zz z", target])), found.max(f1(answer, &texts(&["zzz zz z"]))));
    }
    assert_eq!(f1("x", &[]), 0.0);
}

#[test]
fn thinking_is_told_from_the_answer() {
    use ThinkBlock::{Closed, None, Unclosed};
    for (text, answer, block) in [
        ("42", "42", None),
        (" 42\n", " 42\n", None),
        ("<think>6·7</think>\n\n42", "42", Closed),
        ("6·7</think>42 ", "42 ", Closed),
        ("<think>6·7", "", Unclosed),
        ("so <think>6·7</think> 42", "so 42", Closed),
        ("<think>a</think>b<think>c</think>d", "bd", Closed),
        ("<think>a</think>b<think>c", "", Unclosed),
        ("<think>a<think>b</think>c", "c", Closed),
        ("<think>a</think>b</think>c", "bc", Closed),
        ("<think></think>", "", Closed),
        ("</think>", "", Closed),
        ("", "", None),
        ("<think", "<think", None),
    ] {
        assert_eq!(strip_thinking(text), (answer.to_owned(), block), "{text:?}");
    }
}

#[test]
fn repetition_is_the_share_of_known_runs() {
    assert_eq!(repeated_ngrams(&[1, 2, 3, 4], 2), 0.0);
    // (1 2) (2 1) (1 2) (2 1): two of four.
    assert_eq!(repeated_ngrams(&[1, 2, 1, 2, 1], 2), 0.5);
    assert_eq!(repeated_ngrams(&[7; 11], 4), 7.0 / 8.0);
    assert_eq!(repeated_ngrams(&[7; 3], 4), 0.0);
    assert_eq!(repeated_ngrams(&[7; 4], 4), 0.0);
    assert_eq!(repeated_ngrams(&[7; 4], 0), 0.0);
}

/// `len(re.split(r"\s+", text))` of Python.
#[test]
fn words_as_python_splits_them() {
    for (text, count) in [
        ("", 1),
        (" ", 2),
        ("a b", 2),
        (" a  b\n", 4),
        ("a", 1),
        ("\x1ca", 2),
        ("a\u{200b}b", 1),
        ("a\u{a0}b", 2),
    ] {
        assert_eq!(count_words(text), count, "{text:?}");
    }
}
