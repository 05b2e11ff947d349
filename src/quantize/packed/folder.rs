//! The folder around the weights: `config.json` with its `quantization_config`, the tokenizer's files, and how all of
//! it comes into being at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;

use crate::error::{Error, Result};

/// Files that go with a model and that no quantization changes.
const COMPANIONS: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Refuses a place where something lies that is not the folder of a model like those written here: whatever else
/// somebody keeps there must not vanish with it.
///
/// # Errors
/// If so, naming it.
pub(super) fn refuse_foreign(out: &Path) -> Result<()> {
    let refuse = |problem: String| {
        Err(Error::file(out, problem, "name another folder with --out; this one is not replaced"))
    };
    let Ok(metadata) = out.symlink_metadata() else { return Ok(()) };
    if !metadata.is_dir() {
        return refuse("is there already, and no folder".to_owned());
    }
    for entry in fs::read_dir(out).map_err(Error::io(out, "list"))? {
        let name = entry.map_err(Error::io(out, "list"))?.file_name();
        let own = ["model.safetensors", "config.json"];
        if !name.to_str().is_some_and(|name| own.contains(&name) || COMPANIONS.contains(&name)) {
            return refuse(format!("holds `{}`, which belongs to no model", name.to_string_lossy()));
        }
    }
    Ok(())
}

/// A folder beside its later place; removed unless it is published.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Staging {
    /// # Errors
    /// The operating system's.
    pub(super) fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::file(target, "is no name for a folder", "name a folder that does not exist yet")
        })?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io(parent, "create the output folder"))?;
        // Two runs at once must not meet.
        let path = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&path).map_err(Error::io(&path, "create the output folder"))?;
        Ok(Self { path, target: target.to_owned(), published: false })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// Something that lies there by now; the operating system's.
    pub(super) fn publish(mut self) -> Result<()> {
        const ACTION: &str = "give the finished folder its name";
        refuse_foreign(&self.target)?;
        let former = self.path.with_extension("former");
        let replaced = self.target.exists();
        if replaced {
            fs::rename(&self.target, &former).map_err(Error::io(&self.target, ACTION))?;
        }
        if let Err(reason) = fs::rename(&self.path, &self.target) {
            if replaced {
                // Back where it was; the failure itself is reported.
                let _ = fs::rename(&former, &self.target);
            }
            return Err(Error::io(&self.target, ACTION)(reason));
        }
        self.published = true;
        match replaced {
            true => fs::remove_dir_all(&former).map_err(Error::io(&former, "remove what was replaced")),
            false => Ok(()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // What remains after a failure is a hidden folder; the failure itself is reported.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Reads a JSON file with its keys in their order.
///
/// # Errors
/// A file that cannot be read or is not JSON.
pub(super) fn read_json(path: &Path) -> Result<Json> {
    let text = fs::read(path).map_err(Error::io(path, "read"))?;
    serde_json::from_slice(&text)
        .map_err(|reason| Error::file(path, format!("is not JSON: {reason}"), "download it again"))
}

/// Writes `config.json`: the base's, and the settings of the quantizer. Gives its length.
///
/// # Errors
/// The operating system's.
pub(super) fn write_config(staging: &Staging, base: &Json, settings: Result<Json>) -> Result<u64> {
    let path = staging.path.join("config.json");
    let broken = |problem: String| Error::file(&path, problem, "report this as a bug of qeval");
    let config =
        with_settings(base, settings?).ok_or_else(|| broken("the base's is not a JSON object".to_owned()))?;
    let mut text = serde_json::to_string_pretty(&config).map_err(|reason| broken(reason.to_string()))?;
    text.push('\n');
    fs::write(&path, &text).map_err(Error::io(&path, "write"))?;
    Ok(text.len() as u64)
}

/// All keys of `base` in their order; the new one where it belongs by name, or last if they are not sorted.
fn with_settings(base: &Json, settings: Json) -> Option<Json> {
    const KEY: &str = "quantization_config";
    let entries: Vec<(&String, &Json)> = base.as_object()?.iter().filter(|(key, _)| *key != KEY).collect();
    let at = match entries.is_sorted_by_key(|(key, _)| *key) {
        true => entries.partition_point(|(key, _)| key.as_str() < KEY),
        false => entries.len(),
    };
    let own = |(key, value): &(&String, &Json)| ((*key).clone(), (*value).clone());
    let before = entries[..at].iter().map(own);
    let all = before.chain([(KEY.to_owned(), settings)]).chain(entries[at..].iter().map(own));
    Some(Json::Object(all.collect()))
}

/// Copies the tokenizer's files and what else goes with a model. Gives their length.
///
/// # Errors
/// The operating system's.
pub(super) fn copy_companions(from: &Path, staging: &Staging) -> Result<u64> {
    let mut copied = 0;
    for name in COMPANIONS {
        let source = from.join(name);
        if source.is_file() {
            // Not `fs::copy`: what was read-only there need not be so here.
            let bytes = fs::read(&source).map_err(Error::io(&source, "read"))?;
            let target = staging.path.join(name);
            fs::write(&target, &bytes).map_err(Error::io(&target, "write"))?;
            copied += bytes.len() as u64;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(config: &Json) -> Vec<&str> {
        config.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn settings_stand_where_they_belong_and_disturb_nothing() {
        let sorted = json!({"architectures": ["A"], "pad_token_id": null, "rms_norm_eps": 1e-6});
        let config = with_settings(&sorted, json!(1)).unwrap();
        assert_eq!(keys(&config), ["architectures", "pad_token_id", "quantization_config", "rms_norm_eps"]);
        let unsorted = json!({"vocab_size": 1, "architectures": ["A"]});
        let config = with_settings(&unsorted, json!(1)).unwrap();
        assert_eq!(keys(&config), ["vocab_size", "architectures", "quantization_config"]);
        assert_eq!(with_settings(&json!([1]), json!(1)), None);
    }

    #[test]
    fn a_folder_is_complete_or_absent() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("deep/model");
        let staging = Staging::create(&target).unwrap();
        fs::write(staging.path().join("x"), "x").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 0);
        let staging = Staging::create(&target).unwrap();
        fs::write(staging.path().join("x"), "x").unwrap();
        staging.publish().unwrap();
        assert!(target.join("x").is_file());
        // A model is replaced as a whole, anything else stays.
        fs::rename(target.join("x"), target.join("vocab.txt")).unwrap();
        let staging = Staging::create(&target).unwrap();
        fs::write(staging.path().join("config.json"), "{}").unwrap();
        staging.publish().unwrap();
        assert!(target.join("config.json").is_file() && !target.join("vocab.txt").exists());
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
        fs::write(target.join("thesis.tex"), "x").unwrap();
        let staging = Staging::create(&target).unwrap();
        let error = staging.publish().unwrap_err().to_string();
        assert!(error.contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
        assert!(refuse_foreign(&target.join("thesis.tex")).is_err());
    }
}
