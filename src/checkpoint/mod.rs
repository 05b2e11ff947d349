//! Files in, weights with Hugging Face's names out.
//!
//! [`Checkpoint::open`] reads headers only: what is in the file, in which
//! encoding, and where. Formats end here: `model` asks for a [`Weight`] by name
//! and never learns what kind of file it came from.

pub mod activations;
pub mod architectures;
pub mod config;
mod content;
pub mod encoding;
pub mod generation;
pub mod gguf;
mod lookup;
mod mapped;
mod packing;
pub mod quantization;
pub mod safetensors;
mod weight;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub use self::lookup::{gguf_place, stores_turned};
pub use self::mapped::MappedFile;
pub(crate) use self::packing::codes::pack as pack_codes;
pub use self::weight::{Order, RowSource, StoredBytes, Weight};
use self::{
    activations::KvCacheQuantization,
    architectures::stored::Piece,
    config::{ModelConfig, gguf::GgufTensors},
    encoding::Encoding,
    gguf::{Gguf, Metadata},
    packing::{Packed, Packing, Tensors},
    quantization::Quantization,
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
    /// The element type of a safetensors tensor.
    dtype: Option<::safetensors::Dtype>,
    file: usize,
    bytes: Option<Range<usize>>,
}

impl StoredWeight {
    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).fold(1, u64::saturating_mul)
    }
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
    /// How packed matrices are read, settled when the first is asked for.
    packings: OnceLock<Packings>,
}

#[derive(Debug)]
struct Packings {
    all: Vec<Box<dyn Packing>>,
    /// What the settings call the packing.
    method: Option<String>,
}

/// One weight as a reader counts it: a plain tensor, or all the tensors of a packed matrix.
#[derive(Clone, Debug)]
pub struct StoredWeight {
    /// The tensor's name, or the module's with ".weight".
    pub name: String,
    /// Row-major, [out, in].
    pub shape: Vec<usize>,
    /// For reports: "Q4_K", "int4 g128".
    pub encoding: String,
    /// Bytes of all its tensors; `None` if the size of the type is unknown.
    pub stored_bytes: Option<u64>,
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
            ([], [first, others @ ..]) if gguf::Split::is_first_of(first, others.len() + 1) => {
                Self::open_gguf(path, Arc::new(MappedFile::open(first)?))
            }
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
                    dtype: Some(tensor.dtype),
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
            packings: OnceLock::new(),
        })
    }

    fn open_gguf(path: &Path, first: Arc<MappedFile>) -> Result<Self> {
        let folder = first.path().parent().unwrap_or(Path::new(".")).to_owned();
        let mut files = vec![first];
        let mut parsed = vec![Gguf::parse(files[0].path(), files[0].bytes())?];
        if let Some(split) = parsed[0].split {
            let paths = split.parts(files[0].path())?;
            files = paths.iter().map(|path| MappedFile::open(path).map(Arc::new)).collect::<Result<_>>()?;
            parsed =
                files.iter().map(|file| Gguf::parse(file.path(), file.bytes())).collect::<Result<_>>()?;
            gguf::check_parts(&split, &paths, &parsed)?;
        }
        let mut tensors = BTreeMap::new();
        let mut gguf_metadata = None;
        for (index, gguf) in parsed.into_iter().enumerate() {
            for tensor in gguf.tensors {
                let stored = StoredTensor {
                    name: tensor.name.clone(),
                    shape: tensor.shape,
                    type_name: gguf::type_label(tensor.ggml_type),
                    encoding: Encoding::from_ggml_type(tensor.ggml_type),
                    stored_bytes: tensor.bytes.as_ref().map(|bytes| bytes.len() as u64),
                    dtype: None,
                    file: index,
                    bytes: tensor.bytes,
                };
                if tensors.insert(tensor.name.clone(), stored).is_some() {
                    let problem = "is in two parts";
                    return Err(Error::tensor(
                        files[index].path(),
                        &tensor.name,
                        problem,
                        "split the model again",
                    ));
                }
            }
            // The first part holds the model's metadata.
            gguf_metadata.get_or_insert(gguf.metadata);
        }
        Ok(Self {
            path: path.to_owned(),
            format: Format::Gguf,
            tensors,
            folder,
            files,
            gguf_metadata,
            packings: OnceLock::new(),
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
            let embedding = self.tensors.get("token_embd.weight");
            let tensors = GgufTensors {
                vocab_size: embedding.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0),
                tie_word_embeddings: !self.tensors.contains_key("output.weight"),
                has: &has,
                values: &|name| self.small_values(name),
            };
            return config::gguf::from_gguf(&self.path, metadata, &tensors).map(Some);
        }
        self.packings()?;
        let Some(path) = self.config_json() else { return Ok(None) };
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let json = serde_json::from_str(&text)
            .map_err(|reason| Error::file(&path, format!("is not JSON: {reason}"), "download it again"))?;
        config::from_hugging_face(&path, &json).map(Some)
    }

    /// The values of a small tensor that is part of the config, though stored as a tensor.
    fn small_values(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        self.plain(tensor, name, &tensor.shape, &Piece::whole(name))?.decode().map(Some)
    }

    /// Element type and bytes of a safetensors tensor, as stored.
    pub fn stored(&self, tensor: &StoredTensor) -> Option<(::safetensors::Dtype, StoredBytes)> {
        let file = Arc::clone(self.files.get(tensor.file)?);
        Some((tensor.dtype?, StoredBytes { file, range: tensor.bytes.clone()? }))
    }

    /// What is declared about the KV cache of an attention module ("model.layers.0.self_attn").
    ///
    /// # Errors
    /// A scale that is not a positive number, naming the tensor.
    pub fn kv_cache(&self, attention: &str) -> Result<Option<KvCacheQuantization>> {
        for packing in self.packings()? {
            if let Some(declared) = packing.kv_cache(&self.packed_tensors(), attention)? {
                return Ok(Some(declared));
            }
        }
        Ok(None)
    }

    /// Every weight as a reader counts them: packed matrices as one, in the order of their names.
    ///
    /// A matrix whose tensors do not fit each other is listed tensor by tensor; asking for it says why.
    pub fn stored_weights(&self) -> Vec<StoredWeight> {
        let modules: BTreeSet<&str> = match self.format {
            // gpt-oss' blocks have no dot before their ending.
            Format::Safetensors => self
                .tensors
                .keys()
                .flat_map(|name| {
                    [name.rsplit_once('.').map(|(module, _)| module), name.strip_suffix("_blocks")]
                })
                .flatten()
                .collect(),
            Format::Gguf => BTreeSet::new(),
        };
        let mut packed_names = BTreeSet::new();
        let mut weights = Vec::new();
        for module in modules {
            let Ok(Some(packed)) = self.packed(module) else { continue };
            weights.push(StoredWeight {
                name: format!("{module}.weight"),
                shape: packed.shape.to_vec(),
                encoding: packed.encoding,
                stored_bytes: Some(self.bytes_of(&packed.tensors)),
            });
            packed_names.extend(packed.tensors);
        }
        weights.extend(self.tensors.values().filter(|tensor| !packed_names.contains(&tensor.name)).map(
            |tensor| StoredWeight {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                encoding: tensor.type_name.clone(),
                stored_bytes: tensor.stored_bytes,
            },
        ));
        weights.sort_by(|a, b| a.name.cmp(&b.name));
        weights
    }

    fn packed_tensors(&self) -> Tensors<'_> {
        Tensors { files: &self.files, by_name: &self.tensors }
    }

    fn packings(&self) -> Result<&[Box<dyn Packing>]> {
        if let Some(packings) = self.packings.get() {
            return Ok(&packings.all);
        }
        let prepared = match self.format {
            Format::Gguf => Packings { all: Vec::new(), method: None },
            Format::Safetensors => {
                let settings = Quantization::of(&self.folder)?;
                Packings {
                    all: packing::prepare(&self.packed_tensors(), settings.as_ref())?,
                    method: settings.as_ref().and_then(Quantization::method),
                }
            }
        };
        Ok(&self.packings.get_or_init(|| prepared).all)
    }

    /// What the settings call the packing of the weights, if they do.
    ///
    /// # Errors
    /// Settings that cannot be read.
    pub fn packing_method(&self) -> Result<Option<&str>> {
        self.packings()?;
        Ok(self.packings.get().and_then(|packings| packings.method.as_deref()))
    }

    fn packed(&self, module: &str) -> Result<Option<Packed>> {
        for packing in self.packings()? {
            if let Some(packed) = packing.matrix(&self.packed_tensors(), module)? {
                return Ok(Some(packed));
            }
        }
        Ok(None)
    }

    fn bytes_of(&self, names: &[String]) -> u64 {
        names.iter().filter_map(|name| self.tensors.get(name)?.stored_bytes).sum()
    }

    /// Tensors inside layers that `used` does not name: the file computes something the config does not say.
    pub fn unused_layer_tensors(&self, config: &ModelConfig, used: &[Weight]) -> Vec<&str> {
        // Buffers that older exporters stored, which follow from the config; scales of a KV cache, which no matrix
        // uses.
        const DERIVED: &[&str] = &[
            "rotary_emb.inv_freq",
            "masked_bias",
            "attn.bias",
            "attention.bias",
            "self_attn.k_scale",
            "self_attn.v_scale",
        ];
        let used: HashSet<&str> =
            used.iter().flat_map(|weight| &weight.tensors).map(String::as_str).collect();
        let own = config.num_hidden_layers();
        let further = own..own + config.num_nextn_predict_layers;
        let is_layers = |name: &str| {
            let rest = match self.format {
                Format::Gguf => name.strip_prefix("blk."),
                Format::Safetensors => config.architecture.layer_of(name),
            };
            let number = rest.and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
            number.is_some_and(|layer| !further.contains(&layer))
        };
        self.tensors
            .keys()
            .filter(|name| is_layers(name))
            .filter(|name| !DERIVED.iter().any(|ending| name.ends_with(ending)))
            .filter(|name| !used.contains(name.as_str()))
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
