//! Files in, weights with Hugging Face's names out.
//!
//! [`Checkpoint::open`] reads headers only: what is in the file, in which
//! encoding, and where. Formats end here: `model` asks for a [`Weight`] by name
//! and never learns what kind of file it came from.

pub mod config;
mod content;
pub mod encoding;
pub mod gguf;
mod mapped;
mod names;
pub mod safetensors;
mod weight;

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::mapped::MappedFile;
pub use self::weight::Weight;
use self::{
    config::{Architecture, GgufTensorFacts, ModelConfig},
    encoding::Encoding,
    gguf::{Gguf, Metadata},
    weight::RowOrder,
};
use crate::error::{Error, Result};

/// The container a checkpoint lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One or several `.safetensors` with a `config.json`.
    Safetensors,
    /// One `.gguf`.
    Gguf,
}

impl Format {
    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Gguf => "gguf",
        }
    }
}

/// A tensor as the header describes it.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Name in the file.
    pub name: String,
    /// Row-major, [out, in].
    pub shape: Vec<usize>,
    /// The file's own name of the type, as "Q4_K", "IQ2_XS", "BF16".
    pub type_name: String,
    /// How to decode it; `None` if this version cannot.
    pub encoding: Option<Encoding>,
    /// Bytes in the file; `None` if even the size of the type is unknown.
    pub stored_bytes: Option<u64>,
    file: usize,
    bytes: Option<Range<usize>>,
}

impl StoredTensor {
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        // Shapes were checked against overflow and the file's size when the header was read.
        self.shape.iter().map(|n| *n as u64).product()
    }
}

/// An opened checkpoint: headers read, weights mapped but untouched.
#[derive(Debug)]
pub struct Checkpoint {
    /// The path as the user gave it.
    pub path: PathBuf,
    /// Container.
    pub format: Format,
    /// The files that hold weights.
    pub files: Vec<Arc<MappedFile>>,
    /// All tensors by stored name.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// A GGUF's metadata, which also holds its vocabulary.
    pub gguf_metadata: Option<Metadata>,
    /// The folder where `config.json` and `tokenizer.json` are looked for.
    pub folder: PathBuf,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a `.gguf` file, or a Hugging Face folder, by what it contains.
    ///
    /// # Errors
    /// Anything that is not such a file, or whose header contradicts its size, with what to do.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        if metadata.is_dir() {
            return Self::open_folder(path);
        }
        if path.to_string_lossy().ends_with(".safetensors.index.json") {
            return Self::open_shards(path, path);
        }
        let file = Arc::new(MappedFile::open(path)?);
        if file.bytes().starts_with(b"GGUF") || path.extension().is_some_and(|e| e == "gguf") {
            Self::open_gguf(path, file)
        } else {
            Self::open_safetensors(path, vec![file])
        }
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let single = path.join("model.safetensors");
        let index = path.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::open_shards(path, &index);
        }
        if single.is_file() {
            return Self::open_safetensors(path, vec![Arc::new(MappedFile::open(&single)?)]);
        }
        let ggufs = files_with_extension(path, "gguf")?;
        match (files_with_extension(path, "safetensors")?.as_slice(), ggufs.as_slice()) {
            ([one], _) => Self::open_safetensors(path, vec![Arc::new(MappedFile::open(one)?)]),
            ([], [one]) => Self::open_gguf(path, Arc::new(MappedFile::open(one)?)),
            ([], []) => Err(Error::file(
                path,
                "holds no model.safetensors, no model.safetensors.index.json and no .gguf",
                "give the folder of a Hugging Face checkpoint, or a file",
            )),
            _ => Err(Error::file(
                path,
                "holds several models and no model.safetensors or model.safetensors.index.json",
                "name the file that you mean",
            )),
        }
    }

    fn open_shards(path: &Path, index_path: &Path) -> Result<Self> {
        let index = safetensors::read_index(index_path)?;
        let folder = index_path.parent().unwrap_or(Path::new("."));
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        let files = shards
            .iter()
            .map(|shard| {
                let file = folder.join(shard);
                if !file.is_file() {
                    return Err(Error::file(
                        &file,
                        format!("this shard is missing; {} names it", index_path.display()),
                        "download all shards of the checkpoint",
                    ));
                }
                Ok(Arc::new(MappedFile::open(&file)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let checkpoint = Self::open_safetensors(path, files)?;
        match index.weight_map.keys().find(|name| !checkpoint.tensors.contains_key(*name)) {
            Some(name) => Err(Error::tensor(
                index_path,
                name,
                "is named by the index but in none of the shards",
                "download index and shards of one and the same revision",
            )),
            None => Ok(checkpoint),
        }
    }

    fn open_safetensors(path: &Path, files: Vec<Arc<MappedFile>>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for tensor in safetensors::parse(file.path(), file.bytes())?.0 {
                let stored = StoredTensor {
                    name: tensor.name.clone(),
                    shape: tensor.shape,
                    type_name: format!("{:?}", tensor.dtype),
                    encoding: Encoding::from_safetensors(tensor.dtype),
                    stored_bytes: Some(tensor.bytes.len() as u64),
                    file: index,
                    bytes: Some(tensor.bytes),
                };
                if tensors.insert(tensor.name.clone(), stored).is_some() {
                    let problem = "is in two shards";
                    return Err(Error::tensor(file.path(), &tensor.name, problem, "remove the stale shard"));
                }
            }
        }
        let folder = match files.first().map(|file| file.path()) {
            Some(_) if path.is_dir() => path.to_owned(),
            Some(file) => file.parent().unwrap_or(Path::new(".")).to_owned(),
            None => return Err(Error::file(path, "names no file", "download the checkpoint again")),
        };
        Ok(Self {
            path: path.to_owned(),
            format: Format::Safetensors,
            files,
            tensors,
            gguf_metadata: None,
            folder,
        })
    }

    fn open_gguf(path: &Path, file: Arc<MappedFile>) -> Result<Self> {
        let gguf = Gguf::parse(file.path(), file.bytes())?;
        let tensors = gguf.tensors.into_iter().map(|tensor| {
            let stored = StoredTensor {
                name: tensor.name.clone(),
                shape: tensor.shape,
                type_name: gguf::type_label(tensor.ggml_type),
                encoding: Encoding::from_ggml_type(tensor.ggml_type),
                stored_bytes: tensor.bytes.as_ref().map(|bytes| bytes.len() as u64),
                file: 0,
                bytes: tensor.bytes,
            };
            (tensor.name, stored)
        });
        Ok(Self {
            path: path.to_owned(),
            format: Format::Gguf,
            tensors: tensors.collect(),
            folder: file.path().parent().unwrap_or(Path::new(".")).to_owned(),
            files: vec![file],
            gguf_metadata: Some(gguf.metadata),
        })
    }

    /// The path of `config.json`, if there is one beside the weights.
    pub fn config_json(&self) -> Option<PathBuf> {
        Some(self.folder.join("config.json"))
            .filter(|path| self.format == Format::Safetensors && path.is_file())
    }

    /// The checkpoint's own description of its architecture; `None` where a lone safetensors has no
    /// `config.json` beside it.
    ///
    /// # Errors
    /// An architecture or a setting that is not implemented, by name.
    pub fn config(&self) -> Result<Option<ModelConfig>> {
        if let Some(metadata) = &self.gguf_metadata {
            let has = |ending: &str| self.tensors.keys().any(|name| name.ends_with(ending));
            let facts = GgufTensorFacts {
                vocab_size: self
                    .tensors
                    .get("token_embd.weight")
                    .and_then(|tensor| tensor.shape.first().copied())
                    .unwrap_or(0),
                tie_word_embeddings: !self.tensors.contains_key("output.weight"),
                attention_bias: has(".attn_q.bias"),
                attention_output_bias: has(".attn_output.bias"),
                mlp_bias: has(".ffn_up.bias"),
                rope_freqs: self.rope_freqs()?,
            };
            return config::from_gguf(&self.path, metadata, facts).map(Some);
        }
        let Some(path) = self.config_json() else { return Ok(None) };
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let json = serde_json::from_str(&text)
            .map_err(|reason| Error::file(&path, format!("is not JSON: {reason}"), "download it again"))?;
        config::from_hugging_face(&path, &json).map(Some)
    }

    /// The few values of `rope_freqs.weight`: part of the config, though stored as a tensor.
    fn rope_freqs(&self) -> Result<Option<Vec<f32>>> {
        const NAME: &str = "rope_freqs.weight";
        let Some(tensor) = self.tensors.get(NAME) else { return Ok(None) };
        self.locate(tensor, NAME, &tensor.shape, RowOrder::Plain)?.decode().map(Some)
    }

    /// The weight that the model calls `name`, checked against `shape`.
    ///
    /// # Errors
    /// Missing, misshapen, or in an encoding that cannot be decoded, naming tensor and type.
    pub fn weight(&self, config: &ModelConfig, name: &str, shape: &[usize]) -> Result<Weight> {
        let stored_name = match self.format {
            Format::Safetensors => name.to_owned(),
            Format::Gguf => names::gguf_name(name).unwrap_or_else(|| name.to_owned()),
        };
        let Some(tensor) = self.tensors.get(&stored_name) else {
            return Err(Error::tensor(
                &self.path,
                &stored_name,
                "is missing",
                "the file is not a complete checkpoint of its architecture",
            ));
        };
        let permuted = self.format == Format::Gguf
            && config.architecture == Architecture::Llama
            && names::is_rotary_projection(name);
        let row_order = match permuted {
            true => RowOrder::RotaryInterleaved { head_dim: config.head_dim },
            false => RowOrder::Plain,
        };
        self.locate(tensor, name, shape, row_order)
    }

    fn locate(
        &self,
        tensor: &StoredTensor,
        name: &str,
        shape: &[usize],
        row_order: RowOrder,
    ) -> Result<Weight> {
        let file = &self.files[tensor.file];
        let problem = |problem: String, help: &str| Error::tensor(file.path(), &tensor.name, problem, help);
        if tensor.shape != shape {
            return Err(problem(
                format!("has shape {:?}, but the config asks for {shape:?}", tensor.shape),
                "config and weights belong to different models, or the file is damaged",
            ));
        }
        let (Some(encoding), Some(bytes)) = (tensor.encoding, tensor.bytes.clone()) else {
            return Err(problem(
                format!("is of type {}, which this version cannot decode", tensor.type_name),
                &format!(
                    "decoded types: {}",
                    Encoding::ALL.iter().map(|e| e.name()).collect::<Vec<_>>().join(", ")
                ),
            ));
        };
        Ok(Weight {
            name: name.to_owned(),
            stored_name: tensor.name.clone(),
            shape: shape.to_vec(),
            encoding,
            row_order,
            file: Arc::clone(file),
            bytes,
        })
    }

    /// Tensors inside layers that `used` does not name: the file computes something the config does not say.
    pub fn unused_layer_tensors(&self, used: &[Weight]) -> Vec<&str> {
        // Buffers that older exporters stored; they follow from the config.
        const DERIVED: &[&str] = &["rotary_emb.inv_freq", "masked_bias", "attn.bias"];
        self.tensors
            .keys()
            .filter(|name| name.contains(".layers.") || name.starts_with("blk."))
            .filter(|name| !DERIVED.iter().any(|ending| name.ends_with(ending)))
            .filter(|name| used.iter().all(|weight| weight.stored_name != **name))
            .map(String::as_str)
            .collect()
    }
}

fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        if path.is_file() && path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
