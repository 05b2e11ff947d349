//! Hugging Face folders with packed weights, as LLM Compressor and bitsandbytes leave them.
//!
//! Codes and scales are those of the simulation of the same name (`cousin::simulate`), so that what `compare` measured
//! with `@w4a16` is what the folder holds. The linears inside the layers are quantized; embedding, head, norms, biases
//! and routers are copied byte by byte. Nothing is calibrated: schemes whose files hold figures of calibration data
//! (static input scales of `fp8` and `nvfp4`) are not on the list.

mod bitsandbytes;
mod compressed_tensors;
mod folder;
mod writer;

use std::path::Path;

use safetensors::Dtype;
use serde_json::Value as Json;

use self::{
    folder::Staging,
    writer::{Part, TensorFile},
};
use super::{EncodingShare, Kept, Progress, Written};
use crate::{
    checkpoint::{Checkpoint, Format, StoredTensor, Weight, config::ModelConfig, stores_turned},
    cousin::simulate::{Encoder, Quantizer, Simulation},
    error::{Error, Result},
};

/// How a folder is quantized and laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// As a simulation calls it.
    name: &'static str,
    /// Weights that share a scale, where not as many as usual.
    group: Option<usize>,
    container: Container,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    CompressedTensors,
    BitsAndBytes,
}

impl Scheme {
    /// What follows the `@` of a cousin with the same weights.
    pub fn simulated(self) -> String {
        match self.group {
            Some(group) => format!("{}-g{group}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The same with a scale for every `group` neighbouring weights.
    ///
    /// # Errors
    /// A scheme whose groups are fixed, or a number that is no group size.
    pub fn with_group(self, group: usize) -> Result<Self> {
        let changed = Self { group: Some(group), ..self };
        // `w8a8` stores one scale for each row.
        if Quantizer::parse(self.name)?.input().is_some() {
            return Err(Error::argument(
                format!("the group of {} is fixed", self.name),
                "group sizes are for integer weights without quantized inputs: w4a16-g64",
            ));
        }
        Quantizer::parse(&changed.simulated()).map(|_| changed)
    }
}

/// What may be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As written after `--to`.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// Whose layout it is.
    pub source: &'static str,
    /// What [`write()`] takes.
    pub scheme: Scheme,
}

const fn compressed(name: &'static str, summary: &'static str) -> Target {
    let scheme = Scheme { name, group: None, container: Container::CompressedTensors };
    Target { name, summary, source: "compressed-tensors 0.19, as LLM Compressor writes it", scheme }
}

const fn bnb(name: &'static str, simulated: &'static str, summary: &'static str) -> Target {
    let scheme = Scheme { name: simulated, group: None, container: Container::BitsAndBytes };
    Target { name, summary, source: "bitsandbytes 0.50, as transformers saves it", scheme }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    compressed("w8a8", "int8, a scale for each row; input int8 by token"),
    compressed("w8a16", "8 bits about zero, a scale for 128 weights"),
    compressed("w4a16", "4 bits about zero, a scale for 128 weights"),
    compressed("w4a16_asym", "4 bits, scale and zero point for 128 weights"),
    compressed("w3a16", "3 bits about zero, a scale for 128 weights"),
    compressed("w2a16", "2 bits about zero, a scale for 128 weights"),
    compressed("fp8_dynamic", "E4M3, a scale for each row; input E4M3 by token"),
    compressed("fp8_block", "E4M3, a scale for 128 × 128 weights; input E4M3 by 128 channels"),
    compressed("nvfp4a16", "E2M1 by 16, scales in E4M3; weights only"),
    compressed("mxfp4", "E2M1 by 32, scales powers of two; input the same"),
    compressed("mxfp4a16", "E2M1 by 32, scales powers of two; weights only"),
    compressed("mxfp8", "E4M3 by 32, scales powers of two; input the same"),
    bnb("nf4", "nf4", "16 quantiles of a normal distribution, a scale for 64 weights"),
    bnb("nf4_dq", "nf4-dq", "NF4 with its scales quantized to 8 bits"),
    bnb("fp4", "fp4", "bitsandbytes' own 4-bit float, a scale for 64 weights"),
    bnb("fp4_dq", "fp4-dq", "FP4 with its scales quantized to 8 bits"),
    bnb(
        "llm_int8",
        "llm_int8",
        "int8, a scale for each row; input int8 by token, outlier columns as they are",
    ),
];

/// Quantizes `base`, a safetensors checkpoint, into the folder `out`.
///
/// One matrix is held at a time. `out` is complete or absent: it is written beside its place under another name, and
/// renamed at the end. A folder of a model that lies there is replaced; one with anything else in it never is.
///
/// # Errors
/// A base that is a GGUF file, quantized already or without `config.json`; rows that the format cannot hold and
/// weights that are not finite, naming them; an `out` that holds something else; the operating system's.
pub fn write(base: &Path, scheme: Scheme, out: &Path, progress: &mut Progress) -> Result<Written> {
    folder::refuse_foreign(out)?;
    let base = Base::open(base)?;
    let plan = Plan::new(&base, scheme)?;

    // Double quantization writes the mean of a matrix' scales as text, whose length the header announces: those
    // matrices are read here, too.
    let mut parts = base.copied.iter().map(|(part, _)| part.clone()).collect::<Vec<_>>();
    for step in &plan.steps {
        match step {
            Step::Copy { part, .. } => parts.push(part.clone()),
            Step::Encode { weight } => parts.extend(plan.parts(&plan.encoder(&base, weight)?)?),
        }
    }

    let staging = Staging::create(out)?;
    let mut file = TensorFile::create(&staging.path().join("model.safetensors"), parts)?;
    for (part, tensor) in &base.copied {
        copy(&base.checkpoint, tensor, part, &mut file)?;
    }
    let total = file.data_bytes();
    let mut encodings: Vec<EncodingShare> = Vec::new();
    for step in &plan.steps {
        let before = file.written_bytes();
        let (weight, encoding) = match step {
            Step::Copy { weight, part, tensor } => {
                progress(&weight.name, before, total);
                check_finite(weight)?;
                copy(&base.checkpoint, tensor, part, &mut file)?;
                (weight, weight.encoding.clone())
            }
            Step::Encode { weight } => {
                progress(&weight.name, before, total);
                for (name, bytes) in plan.encode(&plan.encoder(&base, weight)?)? {
                    file.write(&name, &bytes)?;
                }
                (weight, plan.quantizer.label())
            }
        };
        weight.release();
        let (parameters, bytes) = (weight.parameters() as u64, file.written_bytes() - before);
        match encodings.iter_mut().find(|share| share.encoding == encoding) {
            Some(share) => {
                share.tensors += 1;
                share.parameters += parameters;
                share.bytes += bytes;
            }
            None => encodings.push(EncodingShare { encoding, tensors: 1, parameters, bytes }),
        }
    }
    progress("", total, total);
    encodings.sort_by_key(|share| std::cmp::Reverse(share.parameters));
    let parameters: u64 = encodings.iter().map(|share| share.parameters).sum();
    let weights_bytes = file.finish()?;
    let other_bytes = folder::write_config(&staging, &base.config_json, plan.settings())?
        + folder::copy_companions(&base.checkpoint.folder, &staging)?;
    staging.publish()?;
    Ok(Written {
        path: out.to_owned(),
        bytes: weights_bytes + other_bytes,
        bits_per_weight: 8.0 * total as f64 / parameters.max(1) as f64,
        encodings,
        kept: plan.kept().map(kept).collect(),
        notes: Vec::new(),
    })
}

/// A matrix left as it was.
fn kept(weight: &Weight) -> Kept {
    let why = match weight.name.as_str() {
        HEAD => "the head stays as it is, as the tools of this format leave it",
        name if name.contains(".layers.") => "no tool quantizes such a matrix unasked",
        _ => "embeddings stay as they are, as the tools of this format leave them",
    };
    Kept { tensors: weight.name.clone(), count: 1, encoding: weight.encoding.clone(), why: why.to_owned() }
}

/// What is quantized.
struct Base {
    checkpoint: Checkpoint,
    config: ModelConfig,
    /// `config.json`, its keys in their order.
    config_json: Json,
    /// All tensors that hold numbers, by name.
    weights: Vec<Weight>,
    /// All others (masks, positions), as they lie there.
    copied: Vec<(Part, StoredTensor)>,
}

impl Base {
    fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        if checkpoint.format == Format::Gguf {
            return Err(Error::file(
                path,
                "is a GGUF model; this target is written from safetensors alone",
                "give the safetensors checkpoint that it was converted from, or choose a GGUF type, as q4_k_m",
            ));
        }
        if let Some(method) = checkpoint.packing_method()? {
            return Err(Error::file(
                path,
                format!("is quantized already, by {method}"),
                "quantize the original: errors would add up",
            ));
        }
        let (Some(config_path), Some(config)) = (checkpoint.config_json(), checkpoint.config()?) else {
            return Err(Error::file(
                path,
                "has no config.json beside it, which the quantized folder needs",
                "give the folder of a Hugging Face checkpoint",
            ));
        };
        if stores_turned(&config) {
            return Err(Error::file(
                path,
                format!("is a {}, whose matrices lie the other way round", config.architecture.name()),
                "no tool quantizes such a model into this layout; simulate it instead: model@w8a8",
            ));
        }
        let config_json = folder::read_json(&config_path)?;
        let (mut weights, mut copied) = (Vec::new(), Vec::new());
        for tensor in checkpoint.tensors.values() {
            if config.tie_word_embeddings && repeats_the_embedding(&checkpoint, tensor) {
                continue;
            }
            if tensor.encoding.is_none() && !tensor.name.contains(".weight") {
                // A buffer (mask, positions) of a type that is no weight's.
                copied.push((part(&checkpoint, tensor)?, tensor.clone()));
                continue;
            }
            let weight = checkpoint.weight_as_stored(tensor)?;
            if weight.is_packed() {
                return Err(weight.problem(
                    format!("is quantized already ({})", weight.encoding),
                    "quantize the original: errors would add up",
                ));
            }
            weights.push(weight);
        }
        Ok(Self { checkpoint, config, config_json, weights, copied })
    }
}

const HEAD: &str = "lm_head.weight";

/// Whether this is a tied head that was saved all the same: it is the embedding, whatever reads the file.
fn repeats_the_embedding(checkpoint: &Checkpoint, tensor: &StoredTensor) -> bool {
    let bytes = |tensor| checkpoint.stored(tensor);
    let embedding = checkpoint.tensors.get("model.embed_tokens.weight");
    match (tensor.name.as_str(), embedding) {
        (HEAD, Some(embedding)) => match (bytes(tensor), bytes(embedding)) {
            (Some((own, a)), Some((other, b))) => {
                own == other && tensor.shape == embedding.shape && a.bytes() == b.bytes()
            }
            _ => false,
        },
        _ => false,
    }
}

/// A tensor as the base holds it.
fn part(checkpoint: &Checkpoint, tensor: &StoredTensor) -> Result<Part> {
    match checkpoint.stored(tensor) {
        Some((dtype, _)) => Ok(Part::new(tensor.name.clone(), dtype, tensor.shape.as_slice())),
        None => Err(Error::tensor(
            &checkpoint.path,
            &tensor.name,
            format!("is of type {}, whose bytes cannot be copied", tensor.type_name),
            "report this as a bug of qeval",
        )),
    }
}

fn copy(checkpoint: &Checkpoint, tensor: &StoredTensor, part: &Part, file: &mut TensorFile) -> Result<()> {
    match checkpoint.stored(tensor) {
        Some((_, stored)) => {
            file.write(&part.name, stored.bytes())?;
            stored.release();
            Ok(())
        }
        None => Ok(()),
    }
}

/// Weights looked at together.
const CHECK_WEIGHTS: usize = 1 << 22;

/// Refuses a copied weight with a value that is not a number.
fn check_finite(weight: &Weight) -> Result<()> {
    let (rows, columns) = (weight.rows(), weight.columns());
    // Buffers (masks) may hold infinities by design.
    if columns == 0 || !(weight.name.ends_with(".weight") || weight.name.ends_with(".bias")) {
        return Ok(());
    }
    let step = (CHECK_WEIGHTS / columns).max(1);
    for first in (0..rows).step_by(step) {
        let rows = first..rows.min(first + step);
        weight.decode_rows(rows.clone(), &mut vec![0.0; rows.len() * columns])?;
    }
    Ok(())
}

/// What becomes of each weight.
struct Plan {
    simulation: Simulation,
    quantizer: Quantizer,
    container: Container,
    steps: Vec<Step>,
}

enum Step {
    Copy { weight: Weight, part: Part, tensor: StoredTensor },
    Encode { weight: Weight },
}

impl Plan {
    fn new(base: &Base, scheme: Scheme) -> Result<Self> {
        let name = scheme.simulated();
        let (simulation, quantizer) = (Simulation::parse(&name)?, Quantizer::parse(&name)?);
        let mut steps = Vec::new();
        for weight in &base.weights {
            let weight = weight.clone();
            steps.push(match simulation.encoder(&weight, &base.weights)? {
                Some(_) => Step::Encode { weight },
                None => {
                    let tensor = &base.checkpoint.tensors[&weight.name];
                    Step::Copy { part: part(&base.checkpoint, tensor)?, tensor: tensor.clone(), weight }
                }
            });
        }
        if !steps.iter().any(|step| matches!(step, Step::Encode { .. })) {
            return Err(Error::file(
                &base.checkpoint.path,
                format!(
                    "has no linear inside a layer ({} layers in its config)",
                    base.config.num_hidden_layers()
                ),
                "give the checkpoint of a language model",
            ));
        }
        Ok(Self { simulation, quantizer, container: scheme.container, steps })
    }

    /// The codes and scales of a weight that is quantized.
    fn encoder(&self, base: &Base, weight: &Weight) -> Result<Encoder> {
        self.simulation
            .encoder(weight, &base.weights)?
            .ok_or_else(|| weight.problem("is quantized no longer", "report this as a bug of qeval"))
    }

    fn parts(&self, encoder: &Encoder) -> Result<Vec<Part>> {
        match self.container {
            Container::CompressedTensors => compressed_tensors::parts(encoder, self.quantizer),
            Container::BitsAndBytes => bitsandbytes::parts(encoder),
        }
    }

    /// Every tensor of [`Plan::parts`] by name.
    fn encode(&self, encoder: &Encoder) -> Result<Vec<(String, Vec<u8>)>> {
        match self.container {
            Container::CompressedTensors => compressed_tensors::encode(encoder, self.quantizer),
            Container::BitsAndBytes => bitsandbytes::encode(encoder),
        }
    }

    /// `quantization_config`.
    fn settings(&self) -> Result<Json> {
        let modules = self.kept().filter_map(|weight| weight.name.strip_suffix(".weight"));
        let left: Vec<&str> = modules.filter(|module| module.contains(".layers.")).collect();
        match self.container {
            Container::CompressedTensors => compressed_tensors::settings(self.quantizer, &left),
            Container::BitsAndBytes => {
                let dtype = self.steps.iter().find_map(|step| match step {
                    Step::Encode { weight } => Some(bitsandbytes::dtype(weight)),
                    Step::Copy { .. } => None,
                });
                Ok(bitsandbytes::settings(self.quantizer, dtype.unwrap_or("float32"), &left))
            }
        }
    }

    /// The matrices left as they are.
    fn kept(&self) -> impl Iterator<Item = &Weight> {
        self.steps.iter().filter_map(|step| match step {
            Step::Copy { weight, .. } if weight.shape.len() > 1 => Some(weight),
            _ => None,
        })
    }
}

/// F32 in a file.
fn f32_bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A tensor of a module.
fn of_module(weight: &Weight, ending: &str, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Part {
    Part::new(named(weight, ending), dtype, shape)
}

/// The name of a module's tensor: `weight` is "….q_proj.weight", `ending` follows its module.
fn named(weight: &Weight, ending: &str) -> String {
    let module = weight.name.strip_suffix(".weight").unwrap_or(&weight.name);
    format!("{module}.{ending}")
}
