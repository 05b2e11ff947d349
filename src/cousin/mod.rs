//! Cousins that are made from a checkpoint as they are measured: what a user may write after its path.
//!
//! `base.safetensors@q4_k` is base with its weights as Q4_K would leave them, `@kv=q8_0` with another KV cache,
//! `@lora=DIR` with an adapter, `@slice=4` at the most significant bits of its codes. Steps are taken from left to
//! right: `@nf4@lora=DIR` is an adapter on NF4, `@lora=DIR@nf4` the merged model requantized.

pub mod lora;
pub mod simulate;

use std::path::{Path, PathBuf};

use self::{lora::Lora, simulate::Simulation};
use crate::{
    error::{Error, Result},
    model::{Decoder, kv_cache::KvCacheScheme},
};

/// A path, and what is done to the model that lies there.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// As the user wrote it.
    pub text: String,
    /// The checkpoint.
    pub path: PathBuf,
    /// The steps as written, each with its `@`.
    suffix: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Simulate(Simulation),
    Lora(PathBuf),
    KvCache(KvCacheScheme),
    Slice(u32),
}

impl Recipe {
    /// Reads `PATH`, or `PATH@STEP@STEP…`. A path that exists is a path, whatever characters it has.
    ///
    /// # Errors
    /// A step that is not known, listing what is.
    pub fn parse(given: &Path) -> Result<Self> {
        let whole = |path: &Path| Self {
            text: path.display().to_string(),
            path: path.to_owned(),
            suffix: String::new(),
            steps: Vec::new(),
        };
        let Some(text) = given.to_str().filter(|text| text.contains('@') && !given.exists()) else {
            return Ok(whole(given));
        };
        let cuts = || text.match_indices('@').map(|(at, _)| at);
        let Some(cut) = cuts().find(|at| Path::new(&text[..*at]).exists()).or_else(|| cuts().next()) else {
            return Ok(whole(given));
        };
        let steps = text[cut + 1..].split('@').map(step).collect::<Result<Vec<_>>>()?;
        let (path, suffix) = (PathBuf::from(&text[..cut]), text[cut..].to_owned());
        Ok(Self { text: text.to_owned(), path, suffix, steps })
    }

    /// The same model at the most significant `bits` of its codes.
    pub fn sliced(&self, bits: u32) -> Self {
        let mut sliced = self.clone();
        sliced.text = format!("{}@slice={bits}", self.text);
        sliced.suffix += &format!("@slice={bits}");
        sliced.steps.push(Step::Slice(bits));
        sliced
    }

    /// Whether the model is measured as it lies there.
    pub fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// What follows the path, with its `@`; empty for a plain one.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// The same, shown under another name than its path: of a repository of the Hub, not of where its copy lies.
    pub fn named(mut self, name: &str) -> Self {
        self.text = format!("{name}{}", self.suffix);
        self
    }

    /// Takes every step.
    ///
    /// # Errors
    /// An adapter that cannot be read, a scheme that does not fit the model, a step that changes nothing.
    pub fn apply(&self, decoder: &Decoder) -> Result<Decoder> {
        self.steps.iter().try_fold(decoder.clone(), |decoder, step| step.apply(&decoder))
    }
}

/// Every step with its meaning, for `--help`.
pub fn help() -> String {
    let mut text = String::from(
        "Steps after a path, taken from left to right:\n  \
         @lora=DIR        PEFT adapter: adapter_config.json, adapter_model.safetensors\n  \
         @slice=N         the most significant N bits of integer codes\n  \
         @kv=CACHE        another KV cache (k:CACHE+v:CACHE for two)\n  \
         @QUANTIZER,PATTERN=QUANTIZER|none,…\n                   \
         linears as the quantizer would leave them; overrides by module name or glob\n\nQuantizers:\n",
    );
    let mut line = |name: &str, summary: &str| text += &format!("  {name:16} {summary}\n");
    simulate::QUANTIZERS.iter().for_each(|entry| line(entry.name, entry.summary));
    text += "\nCaches:\n";
    let mut line = |name: &str, summary: &str| text += &format!("  {name:16} {summary}\n");
    KvCacheScheme::names().for_each(|(name, summary)| line(name, summary));
    text
}

/// Whether a text is a step: what follows the `@` of a repository's revision may be one.
pub fn is_step(text: &str) -> bool {
    step(text).is_ok()
}

fn step(text: &str) -> Result<Step> {
    match text.split_once('=') {
        Some(("kv", scheme)) => KvCacheScheme::parse(&scheme.to_lowercase()).map(Step::KvCache),
        Some(("lora", "")) => Err(Error::argument(
            "@lora= names no adapter",
            "give the folder of adapter_config.json: @lora=my-adapter/",
        )),
        Some(("lora", folder)) => Ok(Step::Lora(PathBuf::from(folder))),
        Some(("slice", bits)) => match bits.parse() {
            Ok(bits @ 1..=7) => Ok(Step::Slice(bits)),
            _ => Err(Error::argument(
                format!("@slice={bits}: `{bits}` is not a number of bits that a code can be cut to"),
                "write @slice=1 to @slice=7",
            )),
        },
        _ => Simulation::parse(text).map(Step::Simulate),
    }
}

impl Step {
    fn apply(&self, decoder: &Decoder) -> Result<Decoder> {
        let names = || decoder.weights().iter().map(|weight| weight.name.clone()).collect::<Vec<_>>();
        match self {
            Step::KvCache(scheme) => decoder.with_kv_cache(scheme.clone()),
            Step::Simulate(simulation) => {
                simulation.check_matched(&names())?;
                decoder.with_weights(|weight| simulation.apply(weight.clone(), decoder.weights()))
            }
            Step::Lora(folder) => {
                let lora = Lora::open(folder)?;
                lora.check_matched(&names())?;
                decoder.with_weights(|weight| lora.apply(weight.clone()))
            }
            Step::Slice(bits) => slice(decoder, *bits),
        }
    }
}

fn slice(decoder: &Decoder, bits: u32) -> Result<Decoder> {
    let mut sliced = 0;
    let result = decoder.with_weights(|weight| {
        let cut = weight.sliced(bits);
        sliced += usize::from(cut.is_some());
        Ok(cut.unwrap_or_else(|| weight.clone()))
    })?;
    match (sliced, decoder.weights().first()) {
        (0, Some(weight)) => Err(weight.problem(
            format!("no weight of this model has integer codes of more than {bits} bits"),
            "slicing needs an integer-coded checkpoint (GPTQ, AWQ, MLX, compressed-tensors int, Q8_0 …) and fewer bits",
        )),
        _ => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_exists_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("model@q4_k");
        std::fs::write(&odd, "x").unwrap();
        let recipe = Recipe::parse(&odd).unwrap();
        assert!(recipe.is_plain());
        assert_eq!(recipe.path, odd);
        let recipe = Recipe::parse(&folder.path().join("model@q4_k@q8_0")).unwrap();
        assert_eq!((recipe.path.as_path(), recipe.suffix()), (odd.as_path(), "@q8_0"));
    }

    #[test]
    fn steps_are_read_in_order() {
        let recipe = Recipe::parse(Path::new("m.gguf@nf4@lora=some/dir@kv=q8_0@slice=4")).unwrap();
        assert_eq!(recipe.path, Path::new("m.gguf"));
        assert_eq!(recipe.suffix(), "@nf4@lora=some/dir@kv=q8_0@slice=4");
        assert!(matches!(
            recipe.steps.as_slice(),
            [Step::Simulate(_), Step::Lora(_), Step::KvCache(_), Step::Slice(4)]
        ));
        assert_eq!(recipe.sliced(2).text, format!("{}@slice=2", recipe.text));
    }

    #[test]
    fn unknown_steps_are_refused_by_name() {
        for (text, said) in [
            ("m@q4_z", "q4_z"),
            ("m@kv=q3", "q3"),
            ("m@slice=9", "9"),
            ("m@slice=", "slice"),
            ("m@lora=", "adapter"),
        ] {
            let error = Recipe::parse(Path::new(text)).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(error.help().is_some(), "{error}");
        }
    }
}
