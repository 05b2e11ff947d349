//! Where a folder keeps its chat template.

use std::path::Path;

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// Largest settings file that is read; `tokenizer_config.json` lists added tokens, at worst a few thousand.
const MAX_SETTINGS: u64 = 64 << 20;

/// A template as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) template: String,
    /// File and key.
    pub(super) origin: String,
    /// Special tokens besides BOS and EOS, in the order of their names.
    pub(super) special_tokens: Vec<(String, String)>,
}

/// Looks in the order in which transformers lets one place win over another.
pub(super) fn find(folder: &Path) -> Result<Option<Found>> {
    let settings_path = folder.join("tokenizer_config.json");
    let settings = read_json(&settings_path)?;
    let special_tokens = settings.as_ref().map(special_tokens).unwrap_or_default();
    let own = folder.join("chat_template.jinja");
    if own.is_file() {
        let template = read(&own)?;
        return Ok(Some(Found { template, origin: own.display().to_string(), special_tokens }));
    }
    let processor_path = folder.join("chat_template.json");
    let candidates = [(&settings_path, settings), (&processor_path, read_json(&processor_path)?)];
    for (path, json) in candidates {
        if let Some(template) = json.as_ref().and_then(|json| json.get("chat_template")) {
            if template.is_null() {
                continue;
            }
            let template = one_of(path, template)?;
            let origin = format!("{}: `chat_template`", path.display());
            return Ok(Some(Found { template, origin, special_tokens }));
        }
    }
    Ok(None)
}

/// A template, or of a list (or an object) of named ones the default.
fn one_of(path: &Path, value: &Json) -> Result<String> {
    const KEY: &str = "chat_template";
    let shape =
        || Error::key(path, KEY, "is neither a text nor a list of named texts", "download the file again");
    let mut named: Vec<(&str, &str)> = Vec::new();
    match value {
        Json::String(template) => return Ok(template.clone()),
        Json::Array(list) => {
            for entry in list {
                let field = |name: &str| entry.get(name).and_then(Json::as_str).ok_or_else(shape);
                named.push((field("name")?, field("template")?));
            }
        }
        Json::Object(map) => {
            for (name, template) in map {
                named.push((name, template.as_str().ok_or_else(shape)?));
            }
        }
        _ => return Err(shape()),
    }
    // Of two with one name the last wins, as in a Python dictionary.
    match named.iter().rev().find(|(name, _)| *name == "default") {
        Some((_, template)) => Ok((*template).to_owned()),
        None => {
            let mut names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            let names = names.join("`, `");
            Err(Error::key(
                path,
                KEY,
                format!("has several templates and none is the default: `{names}`"),
                "write the one that is meant into chat_template.jinja",
            ))
        }
    }
}

fn special_tokens(settings: &Json) -> Vec<(String, String)> {
    ["cls_token", "mask_token", "pad_token", "sep_token", "unk_token"]
        .into_iter()
        .filter_map(|name| {
            let token = settings.get(name)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect()
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(Error::io(path, "read"))?.len();
    if size > MAX_SETTINGS {
        return Err(Error::file(path, "is larger than any such file", "download it again"));
    }
    std::fs::read_to_string(path).map_err(Error::io(path, "read"))
}

fn read_json(path: &Path) -> Result<Option<Json>> {
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_str(&read(path)?)
        .map(Some)
        .map_err(|reason| Error::file(path, format!("is not JSON: {reason}"), "download it again"))
}
