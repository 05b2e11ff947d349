//! Questions that are asked in many languages: one function per benchmark, from a record and a language to an
//! item.
//!
//! Items are parallel: one item has the same id, and so the same cluster, in every language, as its own id or
//! its place in the data. Prompts: lm-evaluation-harness 0.4.13, `lm_eval/tasks/<name>`.

use serde_json::{Map, Value};

use super::build::{Cluster, Frame, Item, choice};
use super::fields::{Fields, Found, Unusable};
use super::multiple_choice::{LETTERS, acc_and_norm, four_options, letter_or_index, lettered};
use super::{generation, languages, subjects};
use crate::suite::question::{Answer, Filter, FilterStep, Metric, TextComparison};

/// A language that the tables lack; parts are looked up there, so that this is never seen.
fn unknown(language: &str) -> Unusable {
    Unusable::Wrong(format!("no words are known for the language `{language}`"))
}

/// MGSM, answered directly. Hub: `question`, `answer` (null in the test split), `answer_number`; authors: a
/// table without a header row. A record with a worked `answer` has the question word in its question already.
pub(super) fn mgsm(fields: Fields, language: &str) -> Found<Item> {
    let words = languages::mgsm(language).ok_or_else(|| unknown(language))?;
    let question = fields.text(&["question"])?;
    let number = fields.text_or_number(&["answer_number"])?;
    let prompt = match fields.0.get("answer") {
        Some(Value::String(_)) => format!("{question}\n{}", words.answer),
        _ => format!("{} {question}\n{}", words.question, words.answer),
    };
    Ok(Item::new(prompt, Answer::Generation(vec![number])))
}

/// MGSM stops where the next question would begin.
pub(super) fn mgsm_frame(language: &str) -> Frame {
    let question = languages::mgsm(language).map_or("", |words| words.question);
    let until: Vec<&str> = [question, "</s>", "<|im_end|>"].into_iter().filter(|s| !s.is_empty()).collect();
    let same = TextComparison { ignore_case: true, ignore_punctuation: true, ..TextComparison::default() };
    Frame {
        target_delimiter: "",
        filters: vec![
            Filter {
                name: "remove_whitespace".to_owned(),
                steps: vec![FilterStep::RemoveWhitespace, FilterStep::TakeFirst],
            },
            generation::last_number(),
        ],
        ..generation::until(&until, vec![Metric::ExactMatch(same)])
    }
}

/// XCOPA: the premise without its last character, a connector, either choice with its first letter in lower
/// case. (The last character goes whatever it is: premises in Thai, which have no full stop, lose a letter,
/// as under lm-evaluation-harness.) Columns: `premise`, `choice1`, `choice2`, `question`, `label`, `idx`.
pub(super) fn xcopa(fields: Fields, language: &str) -> Found<Item> {
    let (cause, effect) = languages::xcopa(language).ok_or_else(|| unknown(language))?;
    let connector = match fields.text(&["question"])? {
        "cause" => cause,
        "effect" => effect,
        other => return Err(Unusable::Wrong(format!("`question` is `{other}`, neither cause nor effect"))),
    };
    let mut premise = fields.text(&["premise"])?.trim().chars();
    premise.next_back();
    let options = [fields.text(&["choice1"])?, fields.text(&["choice2"])?].map(lower_first);
    let gold = fields.index(&["label"], 2)?;
    Ok(Item::new(format!("{} {connector}", premise.as_str()), choice(&options, gold)))
}

fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().into_iter().flat_map(char::to_lowercase).chain(rest).collect()
}

/// Belebele. Columns: `link`, `question_number`, `flores_passage`, `question`, `mc_answer1` to `mc_answer4`,
/// `correct_answer_num` ("1" to "4"). Questions on one passage, which the link names, are one cluster in all
/// languages.
pub(super) fn belebele(fields: Fields, _: &str) -> Found<Item> {
    let passage = fields.text(&["flores_passage"])?;
    let question = fields.text(&["question"])?;
    let mut prompt = format!("P: {passage}\nQ: {}", question.trim());
    for (letter, column) in LETTERS.iter().zip(["mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"]) {
        prompt.push_str(&format!("\n{letter}: {}", fields.text_or_empty(&[column])?));
    }
    prompt.push_str("\nAnswer:");
    let gold = fields.key(&["correct_answer_num"], &["1", "2", "3", "4"])?;
    let item = Item::new(prompt, choice(&LETTERS, gold));
    let link = fields.text(&["link"]).map(str::to_owned);
    let number = fields.text_or_number(&["question_number"]);
    Ok(match (link, number) {
        (Ok(link), Ok(number)) => {
            Item { id: Some(format!("{link}#{number}")), ..item }.of(Cluster::Key(link))
        }
        (Ok(link), Err(_)) => item.of(Cluster::Key(link)),
        (Err(_), _) => item.of(Cluster::SameText(passage.to_owned())),
    })
}

/// XNLI: whole sentences without a context. Hub: `premise`, `hypothesis`, `label` (0 entailment, 1 neutral,
/// 2 contradiction); authors: `sentence1`, `sentence2`, `gold_label` in words.
pub(super) fn xnli(fields: Fields, language: &str) -> Found<Item> {
    let (word, labels) = languages::xnli(language).ok_or_else(|| unknown(language))?;
    let premise = fields.text(&["premise", "sentence1"])?;
    let hypothesis = fields.text(&["hypothesis", "sentence2"])?;
    let gold = match fields.value(&["label", "gold_label"])? {
        Value::String(label) if label == "entailment" => 0,
        Value::String(label) if label == "neutral" => 1,
        Value::String(label) if label == "contradiction" || label == "contradictory" => 2,
        _ => fields.index(&["label", "gold_label"], 3)?,
    };
    let options = labels.map(|label| format!("{premise}, {word}? {label}, {hypothesis}"));
    Ok(Item::new(String::new(), choice(&options, gold)))
}

/// The Hub's configuration `all_languages` of XNLI: one record with the premise in every language becomes a
/// record of each, with its `language`. Other records stay as they are.
pub(super) fn one_language_each(records: Vec<Value>) -> Vec<Value> {
    let mut each = Vec::with_capacity(records.len());
    for record in records {
        match (record.get("premise").and_then(Value::as_object), record.get("hypothesis")) {
            (Some(premises), Some(hypotheses)) => {
                for (language, premise) in premises {
                    each.push(Value::Object(Map::from_iter([
                        ("language".to_owned(), Value::from(language.as_str())),
                        ("premise".to_owned(), premise.clone()),
                        ("hypothesis".to_owned(), in_language(hypotheses, language)),
                        ("label".to_owned(), record.get("label").cloned().unwrap_or_default()),
                    ])));
                }
            }
            _ => each.push(record),
        }
    }
    each
}

/// A text from `{"language": […], "translation": […]}`, or from an object by language.
fn in_language(texts: &Value, language: &str) -> Value {
    let by_name = texts.get(language).cloned();
    let listed = || {
        let index = texts.get("language")?.as_array()?.iter().position(|name| name == language)?;
        texts.get("translation")?.get(index).cloned()
    };
    by_name.or_else(listed).unwrap_or_default()
}

/// XQuAD. Columns as SQuAD's; questions on one passage are one cluster, the same in all languages.
pub(super) fn xquad(fields: Fields, language: &str) -> Found<Item> {
    let [context, question, answer] = languages::xquad(language).ok_or_else(|| unknown(language))?;
    let passage = fields.text(&["context"])?;
    let prompt = format!("{context}: {passage}\n\n{question}: {}\n\n{answer}:", fields.text(&["question"])?);
    let targets = generation::answers(fields)?;
    if targets.is_empty() {
        return Err(Unusable::LeftOut("without an answer".to_owned()));
    }
    Ok(Item::new(prompt, Answer::Generation(targets)).of(Cluster::SameText(passage.to_owned())))
}

/// CMMLU. Columns: `Question`, `A` to `D`, `Answer` (a letter).
pub(super) fn cmmlu(fields: Fields, _: &str) -> Found<Item> {
    let question = fields.text(&["Question", "question"])?;
    let options = four_options(fields)?;
    let gold = letter_or_index(fields, &["Answer", "answer"])?;
    Ok(lettered(question, &options, "答案：", gold))
}

/// CMMLU's description names the subject in Chinese.
pub(super) fn cmmlu_frame(subject: &str) -> Frame {
    let subject = subjects::in_chinese(subject);
    let description = format!("以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n");
    Frame { description, ..acc_and_norm("") }
}
