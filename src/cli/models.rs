//! Opens what the user named, fills what is missing, and refuses what cannot be compared.
//!
//! Everything here happens before a weight is read: headers, configs, vocabularies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::Device;
use sha2::{Digest, Sha256};

use crate::{
    checkpoint::{Checkpoint, config::ModelConfig},
    comparison::{EncodingShare, FileCard, ModelCard},
    cousin::Recipe,
    error::{Error, Result},
    evaluate::logits_file::LogitsFile,
    model::{ActivationMode, Decoder},
    tokenizer::Tokenizer,
};

/// One model: opened, its tokenizer found, its weights checked.
pub(super) struct Model {
    pub label: String,
    /// What the user wrote.
    pub given: String,
    pub checkpoint: Arc<Checkpoint>,
    pub decoder: Decoder,
    /// Before the steps of its recipe.
    as_stored: Decoder,
    /// Its own tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// Where the tokenizer in use came from, for the report.
    pub tokenizer_source: String,
}

/// The reference.
pub(super) enum BaseModel {
    Model(Box<Model>),
    Logits(LogitsFile),
}

impl BaseModel {
    /// The model, unless only its logits are known.
    pub(super) fn model(&self) -> Option<&Model> {
        match self {
            BaseModel::Model(model) => Some(model),
            BaseModel::Logits(_) => None,
        }
    }

    fn path(&self) -> &Path {
        match self {
            BaseModel::Model(model) => &model.checkpoint.path,
            BaseModel::Logits(file) => file.path(),
        }
    }
}

/// A cousin of another vocabulary.
pub(super) struct Foreign {
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// Why its distributions cannot be compared with base's.
    pub reason: String,
}

/// Everything that takes part in a comparison.
pub(super) struct Models {
    pub base: BaseModel,
    /// Cousins of base's vocabulary.
    pub quants: Vec<Model>,
    /// Cousins of another vocabulary: compared per byte and per sample.
    pub foreign: Vec<Foreign>,
    /// The tokenizer that cuts the text for all but these.
    pub tokenizer: Tokenizer,
    /// Ids that all models share.
    pub vocabulary: usize,
    pub warnings: Vec<String>,
}

impl Models {
    /// A window longer than a model was trained for measures extrapolation; the reader must know.
    pub(super) fn warn_of_long_windows(&mut self, longest: usize) {
        let short = self
            .base
            .model()
            .into_iter()
            .chain(&self.quants)
            .find(|m| m.decoder.config.max_position_embeddings < longest);
        if let Some(model) = short {
            self.warnings.push(format!(
                "Windows of {longest} tokens are longer than the {} that {} was trained for; use a smaller --window.",
                model.decoder.config.max_position_embeddings, model.label
            ));
        }
    }
}

/// How models are opened.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub device: &'a Device,
    pub activations: ActivationMode,
}

/// Opens one model with its own config.
pub(super) fn open_alone(recipe: &Recipe, opening: Opening) -> Result<Model> {
    let checkpoint = Arc::new(Checkpoint::open(&recipe.path)?);
    let config = checkpoint.config()?.ok_or_else(|| missing_config(&checkpoint))?;
    finish(recipe, checkpoint, config, label(recipe), opening, &[])
}

/// Checks the tokenizer and the weights; a recipe on a checkpoint that is open already shares its weights.
fn finish(
    recipe: &Recipe,
    checkpoint: Arc<Checkpoint>,
    config: ModelConfig,
    label: String,
    opening: Opening,
    open: &[&Model],
) -> Result<Model> {
    let twin = open.iter().find(|model| !recipe.is_plain() && Arc::ptr_eq(&model.checkpoint, &checkpoint));
    let tokenizer = match twin {
        Some(twin) => twin.tokenizer.clone(),
        None => Tokenizer::of(&checkpoint)?,
    };
    if let Some(largest) = tokenizer.as_ref().and_then(Tokenizer::largest_id)
        && largest as usize >= config.vocab_size
    {
        return Err(Error::file(
            &checkpoint.path,
            format!("its tokenizer has id {largest}, but the model only {} embeddings", config.vocab_size),
            "the tokenizer belongs to another model: put the right tokenizer.json beside the weights",
        ));
    }
    let stored = match twin {
        Some(twin) => twin.as_stored.clone(),
        None => Decoder::open(&checkpoint, config, opening.device)?.with_activations(opening.activations),
    };
    let decoder = recipe.apply(&stored)?;
    let tokenizer_source = tokenizer.as_ref().map_or("none".to_owned(), |t| t.source.clone());
    Ok(Model {
        label,
        given: recipe.text.clone(),
        checkpoint,
        decoder,
        as_stored: stored,
        tokenizer,
        tokenizer_source,
    })
}

fn missing_config(checkpoint: &Checkpoint) -> Error {
    Error::file(
        &checkpoint.path,
        "has no config.json beside it, and no GGUF cousin to take it from",
        "put the model's config.json into the same folder",
    )
}

/// Opens base and cousins, and settles config, tokenizer and vocabulary between them.
pub(super) fn open(base: &Recipe, quants: &[Recipe], opening: Opening) -> Result<Models> {
    let mut warnings = Vec::new();
    let quant_checkpoints = quants.iter().map(|quant| Checkpoint::open(&quant.path).map(Arc::new));
    let mut quant_checkpoints = quant_checkpoints.collect::<Result<Vec<_>>>()?;
    let mut configs =
        quant_checkpoints.iter().map(|checkpoint| checkpoint.config()).collect::<Result<Vec<_>>>()?;
    let base_recipe = base;
    let base = if base.is_plain() && LogitsFile::recognises(&base.path) {
        BaseOpened::Logits(LogitsFile::open(&base.path)?)
    } else {
        let checkpoint = Arc::new(Checkpoint::open(&base.path)?);
        let own = checkpoint.config()?;
        BaseOpened::Checkpoint(checkpoint, Box::new(own))
    };
    // Recipes on one file read it through one mapping and decode what they share once.
    for index in (0..quants.len()).filter(|index| !quants[*index].is_plain()) {
        let path = &quants[index].path;
        let of_base = match &base {
            BaseOpened::Checkpoint(checkpoint, _) if base_recipe.path == *path => {
                Some(Arc::clone(checkpoint))
            }
            _ => quants[..index]
                .iter()
                .position(|q| q.path == *path)
                .map(|i| Arc::clone(&quant_checkpoints[i])),
        };
        if let Some(checkpoint) = of_base {
            quant_checkpoints[index] = checkpoint;
        }
    }
    // A lone safetensors borrows the description of the first model of the run that has one.
    let borrowed = configs.iter().flatten().next().cloned();
    let base = match base {
        BaseOpened::Logits(file) => BaseModel::Logits(file),
        BaseOpened::Checkpoint(checkpoint, own) => {
            let config = match (*own, &borrowed) {
                (Some(own), _) => own,
                (None, Some(borrowed)) => {
                    warnings.push(borrowed_config(&checkpoint.path));
                    ModelConfig { tie_word_embeddings: !has_head(&checkpoint), ..borrowed.clone() }
                }
                (None, None) => return Err(missing_config(&checkpoint)),
            };
            let label = label(base_recipe);
            BaseModel::Model(Box::new(finish(base_recipe, checkpoint, config, label, opening, &[])?))
        }
    };
    let base_config = base.model().map(|model| model.decoder.config.clone());
    let mut models: Vec<Model> = Vec::with_capacity(quants.len());
    for ((recipe, checkpoint), config) in quants.iter().zip(quant_checkpoints).zip(configs.drain(..)) {
        let config = match (config, &base_config, &borrowed) {
            (Some(own), _, _) => own,
            (None, Some(other), _) | (None, None, Some(other)) => {
                warnings.push(borrowed_config(&checkpoint.path));
                ModelConfig { tie_word_embeddings: !has_head(&checkpoint), ..other.clone() }
            }
            (None, None, None) => return Err(missing_config(&checkpoint)),
        };
        let label = match !recipe.is_plain() && recipe.path == base_recipe.path {
            // Of the same file as base only the steps matter.
            true => recipe.suffix().to_owned(),
            false => label(recipe),
        };
        let label = unique_label(label, &base, &models);
        let open: Vec<&Model> = base.model().into_iter().chain(&models).collect();
        let model = finish(recipe, checkpoint, config, label, opening, &open)?;
        models.push(model);
    }
    for model in base.model().into_iter().chain(&models) {
        warnings.extend(weight_warnings(model));
        let packed = model.as_stored.weights().iter().any(|weight| weight.is_packed());
        if let Some(method) = model.checkpoint.packing_method()?.filter(|_| !packed) {
            warnings.push(format!(
                "{}: its settings say that the weights are packed by {method}, but they are dense; they are read as \
                 they are.",
                model.label
            ));
        }
    }
    settle_vocabulary(base, models, warnings)
}

/// What reading the weights brought to light: what is true of many weights is said once, with the first of them.
fn weight_warnings(model: &Model) -> Vec<String> {
    let mut told = BTreeMap::<&str, (String, usize)>::new();
    for weight in model.decoder.weights() {
        let module = weight.name.trim_end_matches(".weight");
        for warning in &weight.warnings {
            let what =
                warning.strip_prefix(module).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(warning);
            told.entry(what).or_insert_with(|| (module.to_owned(), 0)).1 += 1;
        }
    }
    let sentences = told.into_iter().map(|(what, (module, count))| match count {
        1 => format!("{}, {module}: {what}.", model.label),
        _ => format!("{}, {module} and {} more: {what}.", model.label, count - 1),
    });
    sentences.collect()
}

enum BaseOpened {
    Checkpoint(Arc<Checkpoint>, Box<Option<ModelConfig>>),
    Logits(LogitsFile),
}

fn has_head(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors.contains_key("lm_head.weight")
}

fn borrowed_config(path: &Path) -> String {
    format!("{} has no config.json beside it; the description of its cousin was used.", path.display())
}

/// Chooses the tokenizer and the shared ids, or says why there are none.
fn settle_vocabulary(base: BaseModel, mut quants: Vec<Model>, mut warnings: Vec<String>) -> Result<Models> {
    let base_path = base.path().to_owned();
    let (base_vocab, own) = match &base {
        BaseModel::Model(model) => (model.decoder.config.vocab_size, model.tokenizer.clone()),
        BaseModel::Logits(file) => (file.vocab_size, None),
    };
    let tokenizer = match own {
        Some(own) => own,
        None => {
            let donor = quants
                .iter()
                .filter(|quant| quant.decoder.config.vocab_size == base_vocab)
                .find_map(|quant| Some((quant, quant.tokenizer.clone()?)));
            let Some((donor, tokenizer)) = donor else {
                return Err(Error::file(
                    &base_path,
                    format!("has no tokenizer, and no cousin with {base_vocab} embeddings has one"),
                    "put the model's tokenizer.json into the same folder",
                ));
            };
            warnings.push(format!(
                "{} has no tokenizer; {}'s was used, as their vocabulary sizes agree.",
                base_path.display(),
                donor.label
            ));
            tokenizer
        }
    };
    warnings.extend(tokenizer.warnings.iter().cloned());
    for quant in &mut quants {
        let size = quant.decoder.config.vocab_size;
        if quant.tokenizer.is_none() {
            if size != base_vocab {
                return Err(Error::Incomparable {
                    base: base_path,
                    quant: quant.checkpoint.path.clone(),
                    problem: format!("it has no tokenizer, and {size} embeddings against {base_vocab}"),
                    help: "put its tokenizer.json beside its weights".to_owned(),
                });
            }
            quant.tokenizer_source = "base's, as the vocabulary sizes agree".to_owned();
            warnings.push(format!(
                "{} has no tokenizer; base's was used, as their vocabulary sizes agree.",
                quant.label
            ));
        }
    }
    Ok(Models { base, quants, foreign: Vec::new(), tokenizer, vocabulary: base_vocab, warnings })
}

/// Sets aside the cousins whose vocabulary is not base's, knowing which ids the text uses.
///
/// Ids that never occur may differ (unused and padding ids); that is a warning.
///
/// # Errors
/// Nothing but saved logits to compare such a cousin with.
pub(super) fn check_vocabularies(models: &mut Models, used: &BTreeSet<u32>, texts: &[&str]) -> Result<()> {
    let base_vocab = models.vocabulary;
    let mut warnings = Vec::new();
    for quant in std::mem::take(&mut models.quants) {
        let Some(reason) = other_vocabulary(&models.tokenizer, base_vocab, &quant, used) else {
            warnings.extend(vocabulary_warnings(&models.tokenizer, base_vocab, &quant, texts)?);
            models.vocabulary = models.vocabulary.min(quant.decoder.config.vocab_size);
            models.quants.push(quant);
            continue;
        };
        let (BaseModel::Model(_), Some(tokenizer)) = (&models.base, quant.tokenizer.clone()) else {
            return Err(Error::Incomparable {
                base: models.base.path().to_owned(),
                quant: quant.checkpoint.path.clone(),
                problem: reason,
                help: "KL divergence needs one vocabulary on both sides; give a cousin of the same tokenizer, or the \
                       model itself as base"
                    .to_owned(),
            });
        };
        warnings.push(format!(
            "{}: no KL divergence, top-1 agreement or layer errors: {reason}. It is compared per byte and per sample.",
            quant.label
        ));
        models.foreign.push(Foreign { model: quant, tokenizer, reason });
    }
    models.warnings.extend(warnings);
    Ok(())
}

/// Why the distributions of this cousin are over other tokens than base's, if they are.
fn other_vocabulary(
    base: &Tokenizer,
    base_vocab: usize,
    quant: &Model,
    used: &BTreeSet<u32>,
) -> Option<String> {
    let shared = base_vocab.min(quant.decoder.config.vocab_size);
    let own = quant.tokenizer.as_ref();
    if let (Some(id), Some(own)) =
        (used.iter().find(|id| own.is_some_and(|own| base.piece(**id) != own.piece(**id))), own)
    {
        let spelled = |t: &Tokenizer| t.piece(*id).map_or("nothing".to_owned(), |piece| format!("{piece:?}"));
        return Some(format!(
            "their vocabularies differ: id {id} is {} in base and {} in the cousin",
            spelled(base),
            spelled(own)
        ));
    }
    let beyond = used.iter().next_back().filter(|id| **id as usize >= shared)?;
    Some(format!("the text uses id {beyond}, but only {shared} ids are shared"))
}

/// What the reader should know of a vocabulary that agrees where it matters.
fn vocabulary_warnings(
    base: &Tokenizer,
    base_vocab: usize,
    quant: &Model,
    texts: &[&str],
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let size = quant.decoder.config.vocab_size;
    if size != base_vocab {
        warnings.push(format!(
            "{} has {size} embeddings and base {base_vocab}; token metrics are taken over the ids that all models \
             share, and the excluded probability is reported.",
            quant.label
        ));
    }
    let Some(own) = &quant.tokenizer else { return Ok(warnings) };
    let difference = base.difference(own, base_vocab.min(quant.decoder.config.vocab_size));
    if !difference.differing.is_empty() {
        warnings.push(format!(
            "{} ids that the text never uses have another text in {} than in base.",
            difference.differing.len(),
            quant.label
        ));
    }
    if own.bos() != base.bos() {
        warnings.push(format!(
            "{}'s own tokenizer would start sequences differently (BOS {:?}, base {:?}); base's way was used for all.",
            quant.label,
            own.bos(),
            base.bos()
        ));
    }
    let differently = differently_cut(base, own, texts)?;
    if differently > 0 {
        warnings.push(format!(
            "{}'s own tokenizer cuts {differently} of {} texts differently; base's tokens were used for all.",
            quant.label,
            texts.len()
        ));
    }
    Ok(warnings)
}

fn differently_cut(base: &Tokenizer, quant: &Tokenizer, texts: &[&str]) -> Result<usize> {
    let mut count = 0;
    for text in texts {
        count += usize::from(base.encode(text)?.ids != quant.encode(text)?.ids);
    }
    Ok(count)
}

/// A short name: the file's stem, or the folder's name; then the steps of the recipe.
fn label(recipe: &Recipe) -> String {
    format!("{}{}", stem(&recipe.path), recipe.suffix())
}

fn stem(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    match name.map(|name| name.to_string_lossy().into_owned()) {
        // Every Hugging Face file is called `model`; its folder tells them apart.
        Some(name) if name == "model" => path
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()))
            .unwrap_or(name),
        Some(name) => name,
        None => path.display().to_string(),
    }
}

fn unique_label(stem: String, base: &BaseModel, models: &[Model]) -> String {
    let taken = |label: &str| {
        models.iter().any(|model| model.label == label)
            || base.model().is_some_and(|model| model.label == label)
    };
    let mut unique = stem.clone();
    let mut number = 2;
    while taken(&unique) {
        unique = format!("{stem} ({number})");
        number += 1;
    }
    unique
}

/// What is done to activations and to the KV cache, in words.
pub(super) fn computed_as(decoder: &Decoder) -> (String, Option<String>) {
    let config = &decoder.config;
    let schemes: BTreeSet<String> = (0..config.num_hidden_layers())
        .filter_map(|layer| {
            let widths = config.layers[layer].mixer.kv_widths()?;
            let scheme = decoder.kv_cache(layer)?;
            // One row per position serves as key and value.
            let what = if widths.value == 0 { " of the latent" } else { "" };
            Some(format!("{}, {:.4} bits per number{what}", scheme.name(), scheme.bits_per_value(widths.key)))
        })
        .collect();
    let mut schemes: Vec<String> = schemes.into_iter().collect();
    let without = config.layers.iter().filter(|layer| layer.mixer.kv_widths().is_none()).count();
    if without > 0 && !schemes.is_empty() {
        schemes.push(format!("{without} of {} layers keep a memory instead of a cache", config.layers.len()));
    }
    (decoder.activations_in_words(), Some(schemes.join("; ")).filter(|text| !text.is_empty()))
}

/// The card of a model in the report.
pub(super) fn card(model: &Model, hashes: &mut Hashes) -> ModelCard {
    let mut shares: Vec<EncodingShare> = Vec::new();
    for weight in model.decoder.weights() {
        let (parameters, bytes) = (weight.parameters() as u64, weight.stored_bytes);
        match shares.iter_mut().find(|share| share.encoding == weight.encoding) {
            Some(share) => {
                share.tensors += 1;
                share.parameters += parameters;
                share.bytes += bytes;
            }
            None => shares.push(EncodingShare {
                encoding: weight.encoding.clone(),
                tensors: 1,
                parameters,
                bytes,
            }),
        }
    }
    shares.sort_by(|a, b| b.parameters.cmp(&a.parameters).then(a.encoding.cmp(&b.encoding)));
    let parameters: u64 = shares.iter().map(|share| share.parameters).sum();
    let weight_bytes: u64 = shares.iter().map(|share| share.bytes).sum();
    let config = &model.decoder.config;
    let (activations, kv_cache) = computed_as(&model.decoder);
    ModelCard {
        label: model.label.clone(),
        path: model.given.clone(),
        format: model.checkpoint.format.name().to_owned(),
        architecture: config.architecture.name().to_owned(),
        files: model.checkpoint.files.iter().map(|file| hashes.card(file.path(), file.bytes())).collect(),
        num_hidden_layers: config.num_hidden_layers(),
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        parameters,
        weight_bytes,
        bits_per_weight: weight_bytes as f64 * 8.0 / parameters.max(1) as f64,
        encodings: shares,
        activations,
        kv_cache,
        tokenizer: model.tokenizer_source.clone(),
        tokens_per_second: None,
        excluded_mass: 0.0,
    }
}

/// The card of a logits file in base's place.
pub(super) fn logits_card(file: &LogitsFile) -> ModelCard {
    ModelCard {
        label: stem(file.path()),
        path: file.path().display().to_string(),
        format: "llama.cpp logits".to_owned(),
        architecture: "not known".to_owned(),
        files: Vec::new(),
        num_hidden_layers: 0,
        hidden_size: 0,
        vocab_size: file.vocab_size,
        parameters: 0,
        weight_bytes: 0,
        bits_per_weight: 0.0,
        encodings: Vec::new(),
        activations: "as llama.cpp computed them".to_owned(),
        kv_cache: None,
        tokenizer: "token ids are in the file".to_owned(),
        tokens_per_second: None,
        excluded_mass: 0.0,
    }
}

/// Bytes hashed at once.
const HASH_BLOCK: usize = 1 << 22;

/// Hashes of the files of a run, each computed once; or none.
pub(super) struct Hashes {
    wanted: bool,
    known: BTreeMap<PathBuf, String>,
}

impl Hashes {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, known: BTreeMap::new() }
    }

    fn card(&mut self, path: &Path, bytes: &[u8]) -> FileCard {
        let hash = || {
            let mut sha = Sha256::new();
            bytes.chunks(HASH_BLOCK).for_each(|block| sha.update(block));
            sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let sha256 = self.wanted.then(|| self.known.entry(path.to_owned()).or_insert_with(hash).clone());
        FileCard {
            name: path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned()),
            bytes: bytes.len() as u64,
            sha256,
        }
    }
}

/// The device that `--device` names.
pub(super) fn device(name: &str) -> Result<Device> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize = index.parse().map_err(|_| {
        Error::argument(format!("`{name}` is not a device"), "write cpu, cuda, cuda:1 or metal")
    })?;
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" => Device::new_cuda(index).map_err(Error::compute("opening the CUDA device (feature `cuda`)")),
        "metal" => {
            Device::new_metal(index).map_err(Error::compute("opening the Metal device (feature `metal`)"))
        }
        _ => Err(Error::argument(format!("`{name}` is not a device"), "write cpu, cuda, cuda:1 or metal")),
    }
}
