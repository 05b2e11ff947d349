//! `adapter_config.json` of PEFT: what is read from it, and what is refused because it would change the result.

use std::{collections::BTreeMap, fmt, path::Path};

use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use crate::error::{Error, Result};

/// The settings that decide about W'.
#[derive(Debug)]
pub(super) struct LoraConfig {
    rank: u32,
    alpha: f64,
    rank_pattern: Vec<(Regex, f64)>,
    alpha_pattern: Vec<(Regex, f64)>,
    /// Scaling by α/√r instead of α/r.
    rank_stabilized: bool,
    /// Rows are brought back to learned magnitudes.
    pub(super) dora: bool,
    /// An adapter of the embedding is one of the tied head, too.
    pub(super) ties_embedding: bool,
}

/// As far as it is read; keys that only matter in training are not.
#[derive(serde::Deserialize)]
struct Stored {
    #[serde(default)]
    peft_type: Option<String>,
    #[serde(default = "eight")]
    r: f64,
    #[serde(default = "eight")]
    lora_alpha: f64,
    #[serde(default)]
    rank_pattern: Option<InOrder>,
    #[serde(default)]
    alpha_pattern: Option<InOrder>,
    #[serde(default)]
    use_rslora: Option<bool>,
    #[serde(default)]
    use_dora: Option<bool>,
    #[serde(default)]
    ensure_weight_tying: Option<bool>,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

/// PEFT's default of both.
fn eight() -> f64 {
    8.0
}

/// Settings under which the adapter is no sum W + s·B·A, or not for every token.
const REFUSED: &[(&str, &str)] = &[
    ("lora_bias", "B has a bias of its own"),
    ("use_qalora", "A works on pooled groups of the input"),
    ("layer_replication", "layers are repeated"),
    ("alora_invocation_tokens", "the adapter acts after certain tokens only"),
    ("target_parameters", "parameters of experts are adapted"),
    ("trainable_token_indices", "rows of the embedding are trained by themselves"),
    ("use_bdlora", "A or B is block-diagonal"),
    ("arrow_config", "adapters are chosen token by token"),
    ("kasa_config", "a diagonal stands between B and A"),
    ("monteclora_config", "B·A is a mean over samples"),
];

/// Initializations that take their B·A off the base weights: those in the checkpoint are then not what the adapter
/// belongs to.
const CHANGES_BASE: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// Larger than any adapter's settings; a hostile file is not read.
const MAX_BYTES: u64 = 16 << 20;

impl LoraConfig {
    /// Reads the settings of an adapter.
    ///
    /// # Errors
    /// Another kind of adapter, or a setting that is not implemented, by name.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::metadata(path).map_err(Error::io(path, "open"))?.len();
        if bytes > MAX_BYTES {
            let problem = format!("is {bytes} bytes long; settings are never that long");
            return Err(Error::file(path, problem, "download it again"));
        }
        let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        let stored: Stored = serde_json::from_slice(text).map_err(|reason| {
            Error::file(path, format!("is no adapter_config.json: {reason}"), "download it again")
        })?;
        let refuse = |key: &str, problem: String, help: &str| Err(Error::key(path, key, problem, help));
        match stored.peft_type.as_deref() {
            Some("LORA") => {}
            Some(other) => {
                let help = "only LORA is applied here: merge the adapter and compare the merged model";
                return refuse("peft_type", format!("`{other}` is another kind of adapter"), help);
            }
            None => return refuse("peft_type", "is missing".to_owned(), "give the folder of a PEFT adapter"),
        }
        if let Some((key, why)) = REFUSED.iter().find(|(key, _)| stored.rest.get(*key).is_some_and(is_set)) {
            let help = "this is not implemented: merge the adapter with PEFT and compare the merged model";
            return refuse(key, format!("is set: {why}"), help);
        }
        if let Some(start) = stored.rest.get("init_lora_weights").and_then(Json::as_str)
            && CHANGES_BASE.iter().any(|known| start.to_lowercase().starts_with(known))
        {
            let help = "let PEFT convert it into a plain LoRA (save_pretrained with \
                        path_initial_model_for_weight_conversion), or merge it";
            let problem = format!("`{start}` changes the base weights before training");
            return refuse("init_lora_weights", problem, help);
        }
        let pattern = |key: &str, pattern: Option<InOrder>| -> Result<Vec<(Regex, f64)>> {
            let pattern = pattern.unwrap_or(InOrder(Vec::new()));
            pattern.0.into_iter().map(|(name, value)| Ok((whole_end(path, key, &name)?, value))).collect()
        };
        Ok(Self {
            rank: rank(path, "r", stored.r)?,
            alpha: finite(path, "lora_alpha", stored.lora_alpha)?,
            rank_pattern: pattern("rank_pattern", stored.rank_pattern)?,
            alpha_pattern: pattern("alpha_pattern", stored.alpha_pattern)?,
            rank_stabilized: stored.use_rslora.unwrap_or(false),
            dora: stored.use_dora.unwrap_or(false),
            ties_embedding: stored.ensure_weight_tying.unwrap_or(false),
        })
    }

    /// Rank r and scaling (α/r, or α/√r) of the adapter of a module.
    ///
    /// # Errors
    /// A rank or alpha that is none, naming its key.
    pub(super) fn of(&self, path: &Path, module: &str) -> Result<(usize, f32)> {
        let find = |patterns: &[(Regex, f64)]| {
            patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
        };
        let rank = find(&self.rank_pattern).map_or(Ok(self.rank), |r| rank(path, "rank_pattern", r))?;
        let alpha =
            find(&self.alpha_pattern).map_or(Ok(self.alpha), |alpha| finite(path, "alpha_pattern", alpha))?;
        let divisor = if self.rank_stabilized { f64::from(rank).sqrt() } else { f64::from(rank) };
        Ok((rank as usize, (alpha / divisor) as f32))
    }
}

/// Whether a value says more than "no".
fn is_set(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::Array(items) => !items.is_empty(),
        Json::Object(items) => !items.is_empty(),
        _ => true,
    }
}

fn rank(path: &Path, key: &str, value: f64) -> Result<u32> {
    if value >= 1.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0 {
        return Ok(value as u32);
    }
    Err(Error::key(path, key, format!("{value} is no rank"), "ranks are whole numbers from 1 on"))
}

fn finite(path: &Path, key: &str, value: f64) -> Result<f64> {
    // The product with 1/√r must be an f32.
    if value.is_finite() && value.abs() < 1e30 {
        return Ok(value);
    }
    Err(Error::key(path, key, format!("{value} is no alpha"), "download the adapter again"))
}

/// PEFT's rule: the key is a regular expression for the end of the module's name, from a dot on.
fn whole_end(path: &Path, key: &str, name: &str) -> Result<Regex> {
    Regex::new(&format!(r"^(?:.*\.)?(?:{name})$")).map_err(|reason| {
        Error::key(path, key, format!("`{name}` is no regular expression: {reason}"), "correct it")
    })
}

/// A map in the order of the file: of several patterns that match, the first counts.
struct InOrder(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of numbers by pattern")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
