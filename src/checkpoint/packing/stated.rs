//! What the settings of GPTQ, AWQ and AutoRound state about a module: width, group size, symmetry, and exceptions.
//!
//! Statements only; the tensors are believed where they differ. GPTQModel lists exceptions under `dynamic` (regular
//! expressions, "-:" before those that stay unquantized), AutoRound under `extra_config`.

use regex::{Regex, RegexBuilder};
use serde_json::Value as Json;

use super::warnings::contradiction;
use crate::checkpoint::quantization::Quantization;

/// The settings of a checkpoint.
#[derive(Debug)]
pub(super) struct Stated {
    base: Expected,
    exceptions: Vec<(Pattern, Expected)>,
}

/// What is stated about one module; `None` where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Whether it stays unquantized.
    pub(super) skipped: bool,
    /// Bits of a code.
    pub(super) bits: Option<u32>,
    /// Inputs that share a scale; −1: all of them.
    pub(super) group_size: Option<i64>,
    /// Whether the zero point is the middle code.
    pub(super) symmetric: Option<bool>,
}

#[derive(Debug)]
enum Pattern {
    Matches(Regex),
    /// Python's expressions can do more than ours; which modules are meant is then unknown.
    Unreadable,
}

/// A pattern of a settings file compiles to little; a hostile one is not compiled.
const PATTERN_BYTES: usize = 1 << 20;

impl Stated {
    pub(super) fn read(settings: &Quantization) -> Self {
        let base = Expected::default().with(&settings.json);
        let exceptions = ["dynamic", "extra_config"]
            .into_iter()
            .filter_map(|key| settings.get(key)?.as_object())
            .flatten()
            .map(|(pattern, value)| {
                let negative = pattern.starts_with("-:");
                let pattern = pattern.trim_start_matches("-:").trim_start_matches("+:");
                let expected = base.with(value);
                (Pattern::read(pattern), Expected { skipped: negative || expected.skipped, ..expected })
            })
            .collect();
        Self { base, exceptions }
    }

    /// What may be meant for a module: of several exceptions the settings do not keep the order. Empty: unknown.
    pub(super) fn of(&self, module: &str) -> Vec<Expected> {
        if self.exceptions.iter().any(|(pattern, _)| matches!(pattern, Pattern::Unreadable)) {
            return Vec::new();
        }
        let matching: Vec<Expected> = self
            .exceptions
            .iter()
            .filter(|(pattern, _)| matches!(pattern, Pattern::Matches(regex) if regex.is_match(module)))
            .map(|(_, expected)| *expected)
            .collect();
        if matching.is_empty() { vec![self.base] } else { matching }
    }
}

impl Pattern {
    fn read(pattern: &str) -> Self {
        // As Python's `re.match`: at the start, not to the end.
        match RegexBuilder::new(&format!("^(?:{pattern})")).size_limit(PATTERN_BYTES).build() {
            Ok(regex) => Pattern::Matches(regex),
            Err(_) => Pattern::Unreadable,
        }
    }
}

impl Expected {
    /// Overridden by what an object of settings states.
    fn with(self, json: &Json) -> Self {
        let integer = |keys: [&str; 2]| keys.iter().find_map(|key| json.get(key)?.as_i64());
        let bits = integer(["bits", "w_bit"]).and_then(|bits| u32::try_from(bits).ok());
        Self {
            // AutoRound writes 16 bits for what it leaves alone.
            skipped: *json == Json::Bool(false) || bits.is_some_and(|bits| bits >= 16),
            bits: bits.or(self.bits),
            group_size: integer(["group_size", "q_group_size"]).or(self.group_size),
            symmetric: json.get("sym").and_then(Json::as_bool).or(self.symmetric),
        }
    }

    /// Inputs that share a scale, of so many.
    pub(super) fn group(&self, inputs: usize) -> Option<usize> {
        match self.group_size? {
            -1 => Some(inputs),
            size => usize::try_from(size).ok().filter(|size| *size > 0),
        }
    }
}

/// What the settings say against what was found, as warnings; empty expectations say nothing.
pub(super) fn differences(
    module: &str,
    expected: &[Expected],
    bits: u32,
    inputs: usize,
    group: Option<usize>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !expected.is_empty() && expected.iter().all(|expected| expected.skipped) {
        warnings.push(contradiction(module, "that it is not quantized", &format!("codes of {bits} bits")));
        return warnings;
    }
    let stated: Vec<u32> = expected.iter().filter_map(|expected| expected.bits).collect();
    if let (Some(first), false) = (stated.first(), stated.contains(&bits)) {
        warnings.push(contradiction(module, &format!("{first} bits"), &format!("codes of {bits} bits")));
    }
    let stated: Vec<usize> = expected.iter().filter_map(|expected| expected.group(inputs)).collect();
    // A group larger than the matrix is the whole of it.
    if let (Some(group), Some(first)) = (group, stated.first())
        && !stated.iter().any(|size| *size.min(&inputs) == group)
    {
        warnings.push(contradiction(
            module,
            &format!("groups of {first} inputs"),
            &format!("groups of {group}"),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stated(json: Json) -> Stated {
        Stated::read(&Quantization { path: "config.json".into(), key: "quantization_config", json })
    }

    #[test]
    fn exceptions_override_the_base() {
        let stated = stated(json!({
            "bits": 4, "group_size": 128, "sym": true,
            "dynamic": {
                "+:.*\\.down_proj": {"bits": 8},
                ".*\\.v_proj": {"group_size": 32, "sym": false},
                "-:lm_head": {},
                "model\\.embed": false,
            },
        }));
        let base = Expected { skipped: false, bits: Some(4), group_size: Some(128), symmetric: Some(true) };
        assert_eq!(stated.of("model.layers.0.mlp.up_proj"), [base]);
        assert_eq!(stated.of("model.layers.0.mlp.down_proj"), [Expected { bits: Some(8), ..base }]);
        let v = Expected { group_size: Some(32), symmetric: Some(false), ..base };
        assert_eq!(stated.of("model.layers.0.self_attn.v_proj"), [v]);
        assert!(stated.of("lm_head")[0].skipped && stated.of("model.embed_tokens")[0].skipped);
        // At the start only.
        assert!(!stated.of("model.lm_head")[0].skipped);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_warns_of_nothing() {
        let stated = stated(json!({"bits": 4, "dynamic": {"(?!x).*": {"bits": 8}}}));
        assert_eq!(stated.of("any"), []);
        assert_eq!(differences("any", &stated.of("any"), 2, 64, Some(32)), Vec::<String>::new());
    }

    #[test]
    fn warnings_say_both_sides() {
        let stated = stated(json!({"w_bit": 4, "q_group_size": -1, "extra_config": {"m.b": {"bits": 16}}}));
        let said = differences("m.a", &stated.of("m.a"), 8, 256, Some(128));
        assert_eq!(said.len(), 2);
        assert!(
            said[0].contains("m.a: the settings say 4 bits, the tensors say codes of 8 bits"),
            "{said:?}"
        );
        assert!(said[1].contains("groups of 256 inputs") && said[1].contains("groups of 128"), "{said:?}");
        assert_eq!(differences("m.a", &stated.of("m.a"), 4, 256, Some(256)), Vec::<String>::new());
        let said = differences("m.b", &stated.of("m.b"), 4, 256, Some(256));
        assert!(said.len() == 1 && said[0].contains("not quantized"), "{said:?}");
    }
}
