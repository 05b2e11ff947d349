//! GGUF files with the blocks that llama.cpp's quantizer would write.
//!
//! Tensors come in llama.cpp's order, with its names, row order and mixture of types; weights are decoded and encoded a
//! band of rows at a time on all cores, so that memory does not grow with the model. The file is written beside its
//! final name and renamed when it is complete.

mod header;
mod metadata;
mod mixture;
mod sentencepiece;
mod vocabulary;

use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
    path::Path,
};

use rayon::prelude::*;

pub use self::mixture::FileType;
use self::{
    header::{Entry, padding},
    mixture::{Choice, Shape},
};
use super::{Base, EncodingShare, Kept, Progress, Written};
use crate::{
    checkpoint::{
        Weight,
        config::{ModelConfig, RopeScaling},
        encoding::Encoding,
        gguf_place,
    },
    cousin::simulate::encode_ggml,
    error::{Error, Result},
};

/// One tensor of the file to come.
struct Planned {
    entry: Entry,
    why: Option<&'static str>,
    content: Content,
}

enum Content {
    /// `rows`: of each of the file's rows, the model's; `None`: as they are.
    Weight {
        weight: Box<Weight>,
        rows: Option<Vec<usize>>,
    },
    Values(Vec<f32>),
}

/// Writes `base` as `file_type` to `out`.
///
/// # Errors
/// See [`super::quantize`].
pub(super) fn write(
    base: &Path,
    file_type: FileType,
    out: &Path,
    progress: &mut Progress,
) -> Result<Written> {
    let base = Base::open(base)?;
    let planned = plan(&base, file_type)?;
    let (keys, notes) = metadata::keys(&base, file_type)?;
    let entries: Vec<Entry> = planned.iter().map(|tensor| tensor.entry.clone()).collect();
    let header = header::bytes(&keys, &entries);
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let staged = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(out, "create a file beside"))?;
    let mut file = BufWriter::with_capacity(1 << 20, staged);
    let put = |file: &mut BufWriter<_>, bytes: &[u8]| -> Result<()> {
        file.write_all(bytes).map_err(Error::io(out, "write"))
    };
    put(&mut file, &header)?;
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut done = 0;
    for tensor in &planned {
        let name = &tensor.entry.name;
        progress(name, done, total);
        match &tensor.content {
            Content::Values(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                put(&mut file, &bytes)?;
                done += bytes.len() as u64;
            }
            Content::Weight { weight, rows } if !weight.is_matrix() => {
                let values = weight.decode()?;
                let model_row = |at: usize| rows.as_ref().map_or(at, |rows| rows[at]);
                let bytes: Vec<u8> =
                    (0..values.len()).flat_map(|at| values[model_row(at)].to_le_bytes()).collect();
                put(&mut file, &bytes)?;
                done += bytes.len() as u64;
            }
            Content::Weight { weight, rows: order } => {
                let (rows, columns) = (weight.rows(), weight.columns());
                let step = (BAND_WEIGHTS / columns.max(1)).max(1);
                for first in (0..rows).step_by(step) {
                    let band = first..rows.min(first + step);
                    let bytes = encoded(weight, order.as_deref(), tensor.entry.encoding, band)?;
                    put(&mut file, &bytes)?;
                    done += bytes.len() as u64;
                    progress(name, done, total);
                }
                weight.release();
            }
        }
        put(&mut file, &[0; header::ALIGNMENT as usize][..padding(tensor.entry.bytes) as usize])?;
    }
    let staged = file.into_inner().map_err(|failed| Error::io(out, "write")(failed.into_error()))?;
    persist(staged, out)?;
    let written = std::fs::metadata(out).map_err(Error::io(out, "look at"))?.len();
    Ok(summary(out, file_type, written, &planned, notes))
}

/// Weights decoded at once: 16 MB of values.
const BAND_WEIGHTS: usize = 1 << 22;

/// Weights of one task.
const TASK_WEIGHTS: usize = 1 << 16;

/// Gives the complete file its name, readable as any other file.
fn persist(staged: tempfile::NamedTempFile, out: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is its owner's alone; this one is no secret.
        staged
            .as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))
            .map_err(Error::io(out, "set the permissions of"))?;
    }
    staged.as_file().sync_all().map_err(Error::io(out, "write"))?;
    staged
        .persist(out)
        .map(|_| ())
        .map_err(|failed| Error::io(out, "rename a finished file to")(failed.error))
}

/// Every tensor in the order of llama.cpp's quantizer: those outside the layers, then layer by layer, each by name.
fn plan(base: &Base, file_type: FileType) -> Result<Vec<Planned>> {
    let shape = Shape::of(&base.config);
    let mut planned = Vec::new();
    for weight in &base.weights {
        let (name, order) = gguf_place(&base.config, &weight.name).ok_or_else(|| {
            weight.problem(
                format!(
                    "cannot be written to GGUF: a {} lies there in other pieces than here",
                    base.config.architecture.name()
                ),
                "files of Llama- and Qwen2-type models can be written so far; llama.cpp's converter writes the others",
            )
        })?;
        let Choice { encoding, why } =
            mixture::choose(file_type, shape, &name, weight.columns(), !weight.is_matrix());
        let bytes = encoding
            .encoded_bytes(weight.parameters())
            .ok_or_else(|| weight.problem("is too large", "report this as a bug of qeval"))?;
        let rows = order.map(|order| {
            let mut rows = vec![0; order.len()];
            order.iter().enumerate().for_each(|(row, stored)| rows[*stored as usize] = row);
            rows
        });
        planned.push(Planned {
            entry: Entry { name, shape: weight.shape.clone(), encoding, bytes: bytes as u64 },
            why,
            content: Content::Weight { weight: Box::new(weight.clone()), rows },
        });
    }
    if let Some(divisors) = rope_divisors(&base.config) {
        let bytes = 4 * divisors.len() as u64;
        planned.push(Planned {
            entry: Entry {
                name: "rope_freqs.weight".to_owned(),
                shape: vec![divisors.len()],
                encoding: Encoding::F32,
                bytes,
            },
            why: Some("divisors of the rotary frequencies"),
            content: Content::Values(divisors),
        });
    }
    planned.sort_by_cached_key(|tensor| (layer(&tensor.entry.name), tensor.entry.name.clone()));
    Ok(planned)
}

/// The number in `blk.3.attn_q.weight`; `None`, which comes first, outside the layers.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// What every rotary frequency is divided by, where llama.cpp reads that from a tensor: Llama 3.1's scaling, in f32 as its
/// converter computes it (conversion/llama.py).
fn rope_divisors(config: &ModelConfig) -> Option<Vec<f32>> {
    let rope = config.ropes.first()?;
    let (factor, low, high, original) = match &rope.scaling {
        RopeScaling::Divisors { divisors } => return Some(divisors.clone()),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => (*factor, *low_freq_factor, *high_freq_factor, *original_max_position_embeddings),
        _ => return None,
    };
    let [factor, low, high, original] = [factor, low, high, original].map(|x| x as f32);
    let (theta, dimensions) = (rope.theta as f32, rope.dims as f32);
    let divisors = (0..rope.dims / 2).map(|pair| {
        let frequency = 1.0 / theta.powf(2.0 * pair as f32 / dimensions);
        let wavelength = std::f32::consts::TAU / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    Some(divisors.collect())
}

/// The bytes of some rows of a matrix, in the file's order.
fn encoded(
    weight: &Weight,
    order: Option<&[usize]>,
    encoding: Encoding,
    band: std::ops::Range<usize>,
) -> Result<Vec<u8>> {
    let columns = weight.columns();
    let too_large = || weight.problem("is too large", "report this as a bug of qeval");
    let bytes_of = |rows: usize| encoding.encoded_bytes(rows * columns).ok_or_else(too_large);
    let rows_per_task = (TASK_WEIGHTS / columns.max(1)).clamp(1, band.len().max(1));
    let mut out = vec![0; bytes_of(band.len())?];
    let task_bytes = bytes_of(rows_per_task)?.max(1);
    out.par_chunks_mut(task_bytes).enumerate().try_for_each(|(task, out)| -> Result<()> {
        let first = band.start + task * rows_per_task;
        let rows = rows_per_task.min(band.end - first);
        let mut values = vec![0.0; rows * columns];
        match order {
            None => weight.decode_rows_here(first..first + rows, &mut values)?,
            Some(order) => {
                for (row, values) in order[first..].iter().zip(values.chunks_exact_mut(columns)) {
                    let row = *row;
                    weight.decode_rows_here(row..row + 1, values)?;
                }
            }
        }
        if !encode_ggml(encoding, &values, out) {
            return Err(weight.problem(
                format!("cannot be written as {}", encoding.name()),
                "report this as a bug of qeval",
            ));
        }
        encoding
            .decode(out, &mut values)
            .map_err(|mismatch| Error::argument(mismatch.to_string(), "report this as a bug of qeval"))?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(weight.problem(
                format!(
                    "row {} has values beyond what {} can hold",
                    order.map_or(first + at / columns, |order| order[first + at / columns]),
                    encoding.name()
                ),
                "choose a target with a wider range, as bf16; weights as large as these are rarely meant",
            )),
        }
    })?;
    Ok(out)
}

fn summary(out: &Path, file_type: FileType, bytes: u64, planned: &[Planned], notes: Vec<String>) -> Written {
    let mut shares: BTreeMap<Encoding, EncodingShare> = BTreeMap::new();
    let mut kept: Vec<Kept> = Vec::new();
    for Planned { entry, why, .. } in planned {
        let parameters = entry.shape.iter().map(|n| *n as u64).product::<u64>();
        let share = shares.entry(entry.encoding).or_insert_with(|| EncodingShare {
            encoding: entry.encoding.name().to_owned(),
            tensors: 0,
            parameters: 0,
            bytes: 0,
        });
        share.tensors += 1;
        share.parameters += parameters;
        share.bytes += entry.bytes;
        let Some(why) = why.filter(|_| entry.encoding != file_type.encoding()) else { continue };
        let tensors = match layer(&entry.name) {
            _ if why == mixture::VECTOR => "norms and biases".to_owned(),
            Some(_) => entry.name.splitn(3, '.').last().map_or(String::new(), |rest| format!("blk.*.{rest}")),
            None => entry.name.clone(),
        };
        match kept.iter_mut().find(|kept| kept.tensors == tensors && kept.encoding == entry.encoding.name()) {
            Some(kept) => kept.count += 1,
            None => kept.push(Kept {
                tensors,
                count: 1,
                encoding: entry.encoding.name().to_owned(),
                why: why.to_owned(),
            }),
        }
    }
    let mut encodings: Vec<EncodingShare> = shares.into_values().collect();
    encodings.sort_by_key(|share| std::cmp::Reverse(share.parameters));
    let parameters: u64 = encodings.iter().map(|share| share.parameters).sum();
    let stored: u64 = encodings.iter().map(|share| share.bytes).sum();
    Written {
        path: out.to_owned(),
        bytes,
        bits_per_weight: 8.0 * stored as f64 / parameters.max(1) as f64,
        encodings,
        kept,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound cases of Llama 3.1's rule, and one frequency in between by hand in f64.
    #[test]
    fn llama_3_divides_low_frequencies() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::checkpoint::config::from_hugging_face(
            folder.path(),
            &serde_json::json!({
                "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
                "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
                "rope_theta": 500000.0, "rope_scaling": {
                    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3"
                }
            }),
        )
        .unwrap();
        let divisors = rope_divisors(&config).unwrap();
        assert_eq!(divisors.len(), 32);
        // Wavelength 2π·500000^(2i/64): below 2048 up to i = 14, above 8192 from i = 18 on.
        assert!(divisors[..15].iter().all(|divisor| *divisor == 1.0), "{divisors:?}");
        assert!(divisors[18..].iter().all(|divisor| *divisor == 32.0), "{divisors:?}");
        let wavelength = std::f64::consts::TAU * 500_000f64.powf(32.0 / 64.0);
        let smooth = (8192.0 / wavelength - 1.0) / 3.0;
        let expected = 1.0 / ((1.0 - smooth) / 32.0 + smooth);
        assert!((f64::from(divisors[16]) / expected - 1.0).abs() < 1e-5, "{} {expected}", divisors[16]);
    }
}
