//! Controls that choose among samples without a network: a text, and one of the cousins, tasks or directions.
//!
//! They are hidden until the page's script wakes them: without it all samples are shown. Options carry numbers and
//! samples the same numbers, so that no foreign text is compared in an attribute.

use super::escaped;
use crate::report::format::counted;

/// One of the controls: the samples' attribute after "data-", its label, and the options in the order of their numbers.
pub(super) struct Choice {
    pub(super) key: &'static str,
    pub(super) label: &'static str,
    pub(super) options: Vec<String>,
}

/// The controls for the list `id`, whose items are `total` samples; nothing for fewer than two.
pub(super) fn controls(id: &str, total: usize, noun: &str, choices: &[Choice]) -> String {
    if total < 2 {
        return String::new();
    }
    let selects: String = choices.iter().filter(|choice| choice.options.len() > 1).map(select).collect();
    format!(
        "<div class=\"filter\" role=\"search\" aria-label=\"Filter the {noun}s\" data-list=\"{id}\" data-noun=\"{noun}\" hidden>\
         <label>Contains <input type=\"search\" autocomplete=\"off\" spellcheck=\"false\" /></label>{selects}\
         <button type=\"button\">Show all</button><p role=\"status\" aria-live=\"polite\">{}</p></div>\n",
        counted(total as u64, noun)
    )
}

fn select(choice: &Choice) -> String {
    let options: String = choice
        .options
        .iter()
        .enumerate()
        .map(|(i, name)| format!("<option value=\"{i}\">{}</option>", escaped(name)))
        .collect();
    format!(
        "<label>{} <select data-key=\"{}\"><option value=\"\">all</option>{options}</select></label>",
        choice.label, choice.key
    )
}

/// The place of `name` among `names`, as the value of an attribute.
pub(super) fn number_of(names: &[String], name: &str) -> String {
    names.iter().position(|n| n == name).map_or_else(String::new, |i| i.to_string())
}
