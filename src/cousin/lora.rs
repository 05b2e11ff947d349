//! LoRA adapters as PEFT saves them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! W' = W + s·B·A (arXiv 2106.09685) with s = α/r, or α/√r (rank-stabilized, arXiv 2312.03732); with DoRA
//! (arXiv 2402.09353) each row of W' is brought to a learned magnitude. W may be stored in any encoding: its rows are
//! decoded, the product is added in f32, and nothing dense is kept. Whole tensors that were trained (`modules_to_save`,
//! biases) take the place of those in the checkpoint. What PEFT can do beyond that is refused by name.

mod config;
mod product;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use self::config::LoraConfig;
use crate::{
    checkpoint::{MappedFile, RowSource, Weight, encoding::Encoding, safetensors},
    error::{Error, Result},
};

/// An adapter, opened: headers read, factors mapped but untouched.
#[derive(Clone, Debug)]
pub struct Lora {
    path: PathBuf,
    /// By module: "model.layers.0.self_attn.q_proj".
    adapters: BTreeMap<String, Arc<Adapter>>,
    /// By weight: "lm_head.weight", "model.layers.0.self_attn.q_proj.bias".
    replacements: BTreeMap<String, Arc<Factor>>,
    ties_embedding: bool,
}

/// The adapter of one module; its product has the shape of W.
#[derive(Debug)]
struct Adapter {
    kind: Kind,
    /// `[r, in]`; of an embedding `[r, vocabulary]`.
    a: Factor,
    /// `[out, r]`; of an embedding `[hidden, r]`.
    b: Factor,
    /// DoRA's `[out]`.
    magnitude: Option<Factor>,
    rank: usize,
    scaling: f32,
    /// B of an embedding the other way round: looking up single tokens would turn it again for each.
    turned: OnceLock<Vec<f32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// B·A.
    Linear,
    /// (B·A)ᵀ: PEFT sees an embedding from its other side.
    Embedding,
}

/// A dense tensor of the adapter's file.
#[derive(Debug)]
struct Factor {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    file: Arc<MappedFile>,
    bytes: Range<usize>,
}

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const MERGE: &str = "merge the adapter with PEFT and compare the merged model";

impl Lora {
    /// Opens the folder of an adapter; reads headers only.
    ///
    /// # Errors
    /// A folder without an adapter, another kind of adapter, tensors that are not known or do not fit each other.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::file(
                folder,
                "is not a folder",
                format!("give the folder that holds {CONFIG}"),
            ));
        }
        let (config_path, path) = (folder.join(CONFIG), folder.join(WEIGHTS));
        if !path.is_file() && folder.join("adapter_model.bin").is_file() {
            let help = "load and save the adapter with a newer PEFT, which writes safetensors";
            return Err(Error::file(folder, "holds its weights as a pickle, which could run code", help));
        }
        let config = LoraConfig::open(&config_path)?;
        let file = Arc::new(MappedFile::open(&path)?);
        let mut parts: BTreeMap<String, BTreeMap<Part, Factor>> = BTreeMap::new();
        let mut replacements = BTreeMap::new();
        for tensor in safetensors::parse(&path, file.bytes())?.0 {
            let name = tensor.name.clone();
            let (module, role) = role(&path, &name)?;
            let factor = Factor::new(&file, tensor)?;
            let doubled = match role {
                Role::Replacement(kind) => {
                    replacements.insert(format!("{module}.{kind}"), Arc::new(factor)).is_some()
                }
                Role::Part(part) => {
                    parts.entry(module.to_owned()).or_default().insert(part, factor).is_some()
                }
            };
            if doubled {
                let problem = "is there twice under different names";
                return Err(Error::tensor(&path, &name, problem, "save the adapter again with PEFT"));
            }
        }
        if parts.is_empty() && replacements.is_empty() {
            return Err(Error::file(&path, "holds no tensors", "save the adapter again with PEFT"));
        }
        let adapters = parts
            .into_iter()
            .map(|(module, parts)| {
                let adapter = Adapter::new(&path, &config_path, &config, &module, parts)?;
                Ok((module, Arc::new(adapter)))
            })
            .collect::<Result<_>>()?;
        Ok(Self { path, adapters, replacements, ties_embedding: config.ties_embedding })
    }

    /// Holds the adapter against the names of all weights of a model.
    ///
    /// # Errors
    /// What would find no weight, listed; an adapted embedding that the model also uses as its head.
    pub fn check_matched(&self, names: &[String]) -> Result<()> {
        let has = |name: &str| names.iter().any(|other| other == name);
        let adapted = self.adapters.keys().map(|module| format!("{module}.weight"));
        let left: Vec<String> =
            adapted.chain(self.replacements.keys().cloned()).filter(|name| !has(name)).collect();
        if let Some(first) = left.first() {
            let shown = left.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
            let more = if left.len() > 8 { format!(" and {} more", left.len() - 8) } else { String::new() };
            return Err(Error::tensor(
                &self.path,
                first,
                format!("the model has no such weight; the adapter's without one: {shown}{more}"),
                "the adapter belongs to another model, or its head is tied to the embedding",
            ));
        }
        let tied = !has("lm_head.weight") && has("model.embed_tokens.weight");
        let embedding =
            |name: &String| name.ends_with("embed_tokens") || name.ends_with("embed_tokens.weight");
        if let Some(name) = self.adapters.keys().chain(self.replacements.keys()).find(|name| embedding(name))
            && tied
            && !self.ties_embedding
        {
            return Err(Error::tensor(
                &self.path,
                name,
                "changes the embedding alone, but the model uses the same matrix as its head",
                MERGE,
            ));
        }
        Ok(())
    }

    /// The weight with its adapter; unchanged if it has none.
    ///
    /// # Errors
    /// Factors whose shapes do not fit the weight, with both.
    pub fn apply(&self, weight: Weight) -> Result<Weight> {
        let mut weight = weight;
        if let Some(replacement) = self.replacements.get(&weight.name) {
            weight = replacement.replace(&weight)?;
        }
        let module = weight.name.strip_suffix(".weight");
        match module.and_then(|module| self.adapters.get(module)) {
            Some(adapter) => Adapter::apply(adapter, weight),
            None => Ok(weight),
        }
    }
}

/// What a tensor of the file is for.
enum Role {
    Part(Part),
    /// A whole "weight" or "bias".
    Replacement(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Magnitude,
}

/// Splits a name into module and role: "base_model.model." module ".lora_A.weight", with or without the adapter's own
/// name before the ending.
fn role<'a>(path: &Path, name: &'a str) -> Result<(&'a str, Role)> {
    const PARTS: &[(&str, Part)] = &[
        (".lora_A", Part::A),
        (".lora_B", Part::B),
        (".lora_embedding_A", Part::EmbeddingA),
        (".lora_embedding_B", Part::EmbeddingB),
        (".lora_magnitude_vector", Part::Magnitude),
    ];
    let refused = |problem: &str| Err(Error::tensor(path, name, problem, MERGE));
    let Some(rest) = name.strip_prefix("base_model.model.") else {
        return refused("is not a name that PEFT gives (base_model.model.…)");
    };
    for (mark, part) in PARTS {
        let Some((module, ending)) = rest.split_once(mark) else { continue };
        // "", ".weight", ".default", ".default.weight"; embeddings and magnitudes are saved with and without ".weight".
        let own_name = ending.strip_suffix(".weight").unwrap_or(ending);
        let plain = own_name.is_empty() || (own_name.starts_with('.') && !own_name[1..].contains('.'));
        if own_name.ends_with("bias") {
            return refused("is a bias of B, which is not implemented");
        }
        if plain {
            return Ok((module, Role::Part(*part)));
        }
    }
    for kind in ["weight", "bias"] {
        let Some(module) = rest.strip_suffix(kind).and_then(|module| module.strip_suffix('.')) else {
            continue;
        };
        let module = ["modules_to_save.default", "modules_to_save", "base_layer"]
            .into_iter()
            .find_map(|inner| module.strip_suffix(inner)?.strip_suffix('.'))
            .unwrap_or(module);
        if !["lora_", "token_adapter", "modules_to_save", "base_layer"]
            .iter()
            .any(|part| module.contains(part))
        {
            return Ok((module, Role::Replacement(kind)));
        }
    }
    refused("is of a kind that is not implemented")
}

impl Factor {
    fn new(file: &Arc<MappedFile>, tensor: safetensors::SafetensorsTensor) -> Result<Self> {
        let Some(encoding) = Encoding::from_safetensors(tensor.dtype) else {
            let problem = format!("is of type {:?}; adapters are stored as floats", tensor.dtype);
            return Err(Error::tensor(
                file.path(),
                &tensor.name,
                problem,
                "save the adapter again as F16 or F32",
            ));
        };
        let (name, shape, bytes) = (tensor.name, tensor.shape, tensor.bytes);
        Ok(Self { name, shape, encoding, file: Arc::clone(file), bytes })
    }

    fn problem(&self, problem: impl Into<String>, help: &str) -> Error {
        Error::tensor(self.file.path(), &self.name, problem, help)
    }

    fn expect(&self, shape: &[usize], what: &str) -> Result<()> {
        match self.shape == shape {
            true => Ok(()),
            false => Err(self.problem(
                format!("has shape {:?}, but {what} asks for {shape:?}", self.shape),
                "the adapter belongs to another model, or its settings to another adapter",
            )),
        }
    }

    /// Decodes neighbouring values of the flattened tensor.
    ///
    /// # Errors
    /// A value that is not finite.
    fn decode(&self, values: Range<usize>, out: &mut [f32]) -> Result<()> {
        let width = self.encoding.block_bytes();
        let start = self.bytes.start + values.start * width;
        let bytes = &self.file.bytes()[start..start + values.len() * width];
        self.encoding
            .decode(bytes, out)
            .map_err(|mismatch| Error::argument(mismatch.to_string(), "report this as a bug of qeval"))?;
        match out.iter().fold(true, |fine, x| fine & x.is_finite()) {
            true => Ok(()),
            false => {
                Err(self
                    .problem("holds NaN or infinity", "the adapter is damaged: train or download it again"))
            }
        }
    }

    fn stored_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// A whole tensor in the place of `weight`; what was declared about the quantized one is gone with it.
    fn replace(self: &Arc<Self>, weight: &Weight) -> Result<Weight> {
        self.expect(&weight.shape, "the model")?;
        let columns = weight.shape.last().copied().unwrap_or(1);
        let source = Replacement { factor: Arc::clone(self), columns };
        let label = format!("{} of the adapter", self.encoding.name());
        let mut replaced = weight.derived(label, self.stored_bytes(), Arc::new(source));
        (replaced.input, replaced.output) = (None, None);
        Ok(replaced)
    }
}

/// A dense tensor as rows.
#[derive(Debug)]
struct Replacement {
    factor: Arc<Factor>,
    columns: usize,
}

impl RowSource for Replacement {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.factor.decode(rows.start * self.columns..rows.end * self.columns, out)
    }

    fn release(&self) {
        self.factor.file.release(self.factor.bytes.clone());
    }
}

impl Adapter {
    fn new(
        path: &Path,
        config_path: &Path,
        config: &LoraConfig,
        module: &str,
        mut parts: BTreeMap<Part, Factor>,
    ) -> Result<Self> {
        let (kind, pair) = match (parts.remove(&Part::A), parts.remove(&Part::B)) {
            (None, None) => {
                (Kind::Embedding, (parts.remove(&Part::EmbeddingA), parts.remove(&Part::EmbeddingB)))
            }
            pair => (Kind::Linear, pair),
        };
        let magnitude = parts.remove(&Part::Magnitude);
        let incomplete = |what: &str| {
            Err(Error::tensor(
                path,
                module,
                format!("its adapter {what}"),
                "save the adapter again with PEFT",
            ))
        };
        let (Some(a), Some(b)) = pair else { return incomplete("lacks A or B") };
        if !parts.is_empty() {
            return incomplete("is one of a linear and of an embedding at once");
        }
        match (config.dora, &magnitude, kind) {
            (true, Some(_), Kind::Linear) | (false, None, _) => {}
            (true, _, Kind::Embedding) => {
                return Err(a.problem("is DoRA on an embedding, which is not implemented", MERGE));
            }
            (true, None, _) => return incomplete("has no magnitudes, but use_dora is set"),
            (false, Some(magnitude), _) => {
                return Err(magnitude.problem("is a DoRA magnitude, but use_dora is not set", MERGE));
            }
        }
        let (rank, scaling) = config.of(config_path, module)?;
        for (factor, axis) in [(&a, 0), (&b, 1)] {
            if factor.shape.len() != 2 || factor.shape[axis] != rank {
                return Err(factor.problem(
                    format!("has shape {:?}, but its settings give it rank {rank}", factor.shape),
                    "the weights belong to other settings (r, rank_pattern)",
                ));
            }
        }
        Ok(Self { kind, a, b, magnitude, rank, scaling, turned: OnceLock::new() })
    }

    fn factors(&self) -> impl Iterator<Item = &Factor> {
        [&self.a, &self.b].into_iter().chain(&self.magnitude)
    }

    fn apply(self: &Arc<Self>, weight: Weight) -> Result<Weight> {
        let [rows, columns] = *weight.shape else {
            let problem = format!("is of shape {:?}; only matrices are adapted", weight.shape);
            return Err(weight.problem(problem, "the adapter belongs to another model"));
        };
        let (a_shape, b_shape) = match self.kind {
            Kind::Linear => ([self.rank, columns], [rows, self.rank]),
            Kind::Embedding => ([self.rank, rows], [columns, self.rank]),
        };
        self.a.expect(&a_shape, "the model")?;
        self.b.expect(&b_shape, "the model")?;
        if let Some(magnitude) = &self.magnitude {
            magnitude.expect(&[rows], "the model")?;
        }
        let label = format!(
            "{} + {} r{}",
            weight.encoding,
            if self.magnitude.is_some() { "DoRA" } else { "LoRA" },
            self.rank
        );
        let bytes = self.factors().map(Factor::stored_bytes).fold(weight.stored_bytes, u64::saturating_add);
        let (ggml_input, quantized_input) = (weight.ggml_input, weight.input.is_some());
        let source = Adapted { inner: weight.clone(), adapter: Arc::clone(self) };
        let mut adapted = weight.derived(label, bytes, Arc::new(source));
        adapted.ggml_input = ggml_input;
        if quantized_input {
            adapted.warnings.push(
                "the adapter is added to weights whose input is quantized: here its product sees that input, too, \
                 while PEFT and vLLM give it the unrounded one"
                    .to_owned(),
            );
        }
        Ok(adapted)
    }

    /// The factor to the left of the product, `[rows, r]`.
    fn left(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut left = vec![0.0; rows.len() * self.rank];
        match self.kind {
            Kind::Linear => self.b.decode(rows.start * self.rank..rows.end * self.rank, &mut left)?,
            Kind::Embedding => {
                let vocabulary = self.a.shape[1];
                let mut values = vec![0.0; rows.len()];
                for k in 0..self.rank {
                    self.a.decode(k * vocabulary + rows.start..k * vocabulary + rows.end, &mut values)?;
                    for (left, value) in left[k..].iter_mut().step_by(self.rank).zip(&values) {
                        *left = *value;
                    }
                }
            }
        }
        Ok(left)
    }

    /// The factor to the right, `[r, columns]`. Small beside the rows that it is for: a linear's is decoded anew each
    /// time, so that adapters of many layers cost no memory.
    fn right(&self) -> Result<Cow<'_, [f32]>> {
        let stored = |factor: &Factor| {
            let mut values = vec![0.0; factor.shape.iter().product()];
            factor.decode(0..values.len(), &mut values)?;
            Ok(values)
        };
        if self.kind == Kind::Linear {
            return stored(&self.a).map(Cow::Owned);
        }
        if self.turned.get().is_none() {
            let (stored, hidden) = (stored(&self.b)?, self.b.shape[0]);
            let mut turned = vec![0.0; stored.len()];
            for (column, stored) in stored.chunks_exact(self.rank).enumerate() {
                for (k, value) in stored.iter().enumerate() {
                    turned[k * hidden + column] = *value;
                }
            }
            // If another thread was first, it found the same.
            let _ = self.turned.set(turned);
        }
        Ok(Cow::Borrowed(self.turned.get().map_or(&[], Vec::as_slice)))
    }
}

/// Rows of W'.
#[derive(Debug)]
struct Adapted {
    inner: Weight,
    adapter: Arc<Adapter>,
}

impl RowSource for Adapted {
    fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (adapter, columns) = (&self.adapter, self.inner.columns());
        self.inner.decode_rows_here(rows.clone(), out)?;
        let (left, right) = (adapter.left(rows.clone())?, adapter.right()?);
        product::add_product(out, &left, &right, columns, adapter.scaling);
        let Some(magnitude) = &adapter.magnitude else { return Ok(()) };
        let mut magnitudes = vec![0.0; rows.len()];
        magnitude.decode(rows.clone(), &mut magnitudes)?;
        for ((row, out), magnitude) in rows.zip(out.chunks_exact_mut(columns)).zip(magnitudes) {
            let norm = product::norm(out);
            if norm == 0.0 {
                return Err(self.inner.problem(
                    format!("row {row} is zero with its adapter, so DoRA cannot give it a magnitude"),
                    "the adapter is damaged or belongs to another model",
                ));
            }
            let factor = (f64::from(magnitude) / norm) as f32;
            out.iter_mut().for_each(|x| *x *= factor);
        }
        Ok(())
    }

    fn release(&self) {
        self.inner.release();
        for factor in self.adapter.factors() {
            factor.file.release(factor.bytes.clone());
        }
    }
}
