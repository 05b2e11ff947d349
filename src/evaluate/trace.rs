//! One sequence through one model with everything kept: logits and every hidden state.
//!
//! The tool for checking an architecture against another implementation; it runs
//! the same decoder, layer by layer, as a comparison does.

use std::{collections::HashMap, path::Path};

use candle_core::{DType, Tensor};

use crate::{
    error::{Error, Result},
    model::{Decoded, Decoder, Geometry},
};

/// Ids decoded of the head at once.
const HEAD_TILE: usize = 8192;

/// Everything a model computed for one sequence of T tokens.
#[derive(Clone, Debug)]
pub struct Trace {
    /// `[T, vocab_size]` f32.
    pub logits: Tensor,
    /// `[T, hidden_size]` f32: the embedding, then every layer's output, the last one after the final
    /// norm, as Hugging Face returns them.
    pub hidden: Vec<Tensor>,
}

/// Runs one sequence.
///
/// # Errors
/// An empty sequence, an id outside the vocabulary, a weight that cannot be decoded.
pub fn trace(decoder: &Decoder, tokens: &[u32]) -> Result<Trace> {
    if tokens.is_empty() {
        return Err(Error::argument(
            "there is no token to trace",
            "give --tokens 1,2,3 or --text with some text",
        ));
    }
    let tables = decoder.rope_tables(tokens.len())?;
    let geometry = Geometry::new(&[tokens.len()], &tables).map_err(Error::compute("packing positions"))?;
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let mut hidden = vec![decoder.embed(tokens, &positions)?];
    let mut x = hidden[0].clone();
    for layer in 0..decoder.config.num_hidden_layers() {
        x = decoder
            .layer(layer, &mut Decoded::default())?
            .forward(&x, &geometry, None)
            .map_err(Error::compute(format!("running layer {layer}")))?;
        hidden.push(x.clone());
    }
    let normed = decoder.final_norm(&x)?;
    let request = 0..tokens.len();
    let logits = logits(decoder, &decoder.head_input(&normed, std::slice::from_ref(&request))?)?;
    if let Some(last) = hidden.last_mut().filter(|_| decoder.config.num_hidden_layers() > 0) {
        *last = normed;
    }
    Ok(Trace { logits, hidden })
}

fn logits(decoder: &Decoder, normed: &Tensor) -> Result<Tensor> {
    let vocabulary = decoder.config.vocab_size;
    let mut tiles = Vec::with_capacity(vocabulary.div_ceil(HEAD_TILE));
    for first in (0..vocabulary).step_by(HEAD_TILE) {
        let head = decoder.head_rows(first..vocabulary.min(first + HEAD_TILE))?;
        let tile = head.t().and_then(|head| decoder.logits(normed, &head));
        tiles.push(tile.map_err(Error::compute("computing logits"))?);
    }
    Tensor::cat(&tiles, 1).map_err(Error::compute("joining logits"))
}

/// Writes `input_ids` `[1,T]` i64, `logits` `[1,T,V]` f32 and `hidden.<l>` `[1,T,H]` f32, under a temporary
/// name first, so that a file of this name is always complete.
pub fn write(trace: &Trace, tokens: &[u32], path: &Path) -> Result<()> {
    let doing = "preparing the trace";
    let batch = |x: &Tensor| x.to_dtype(DType::F32)?.unsqueeze(0);
    let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
    let mut tensors = HashMap::new();
    let ids = Tensor::from_vec(ids, (1, tokens.len()), &candle_core::Device::Cpu);
    tensors.insert("input_ids".to_owned(), ids.map_err(Error::compute(doing))?);
    tensors.insert("logits".to_owned(), batch(&trace.logits).map_err(Error::compute(doing))?);
    for (index, hidden) in trace.hidden.iter().enumerate() {
        tensors.insert(format!("hidden.{index}"), batch(hidden).map_err(Error::compute(doing))?);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder, "write in"))?;
    candle_core::safetensors::save(&tensors, temporary.path())
        .map_err(Error::compute("writing the trace"))?;
    temporary.persist(path).map_err(|reason| Error::io(path, "create")(reason.error))?;
    Ok(())
}
