//! From a name of the model to a weight: where its file keeps it, under which name, in which form.

use std::sync::Arc;

use super::{
    Checkpoint, Format, Order, RowSource, StoredBytes, StoredTensor, Weight,
    activations::GgmlActivation,
    architectures::stored::{Map, Name, Piece, Place, places},
    config::ModelConfig,
    encoding::Encoding,
    packing::Packed,
    weight::{Blocks, Mapped, Transposed},
};
use crate::error::{Error, Result};

impl Checkpoint {
    /// The weight that the model calls `name`, checked against `shape`.
    ///
    /// # Errors
    /// Missing, misshapen, or in an encoding that cannot be decoded, naming tensor and type.
    pub fn weight(&self, config: &ModelConfig, name: &str, shape: &[usize]) -> Result<Weight> {
        let places = places(config, self.format, name);
        for place in &places {
            if let Some(weight) = self.at(place, name, shape)? {
                return Ok(weight);
            }
        }
        let stem = format!("{}.", config.architecture.stem());
        for other in config.architecture.other_stems().filter(|_| self.format == Format::Safetensors) {
            for place in &places {
                let renamed = match (place.name.strip_prefix(&stem), other) {
                    (Some(rest), "") => rest.to_owned(),
                    (Some(rest), other) => format!("{other}.{rest}"),
                    (None, "language_model.model") => format!("language_model.{}", place.name),
                    (None, _) => continue,
                };
                let place = Place { name: renamed, piece: place.piece.clone() };
                if let Some(weight) = self.at(&place, name, shape)? {
                    return Ok(weight);
                }
            }
        }
        let looked_for = places.first().map_or(name, |place| &place.name);
        Err(Error::tensor(
            &self.path,
            looked_for,
            "is missing",
            "the file is not a complete checkpoint of its architecture",
        ))
    }

    /// A tensor under its own name, as it lies there, or the matrix that it belongs to where that is packed.
    ///
    /// # Errors
    /// An encoding that cannot be decoded.
    pub fn weight_as_stored(&self, tensor: &StoredTensor) -> Result<Weight> {
        let place = Place { name: tensor.name.clone(), piece: Piece::whole(&*tensor.name) };
        match self.at(&place, &tensor.name, &tensor.shape)? {
            Some(weight) => Ok(weight),
            None => self.plain(tensor, &tensor.name, &tensor.shape, &place.piece),
        }
    }

    /// The weight that lies at a place, if anything does.
    fn at(&self, place: &Place, name: &str, shape: &[usize]) -> Result<Option<Weight>> {
        let module = place.name.strip_suffix(".weight").unwrap_or(&place.name);
        if self.format == Format::Safetensors
            && let [rows, columns] = *shape
            && let Some(packed) = self.packed(module)?
        {
            return self.packed_weight(packed, name, [rows, columns], &place.piece).map(Some);
        }
        let Some(tensor) = self.tensors.get(&place.name) else { return Ok(None) };
        let mut weight = self.plain(tensor, name, shape, &place.piece)?;
        if self.format == Format::Gguf {
            self.apply_gguf_scale(&place.name, name, &mut weight)?;
        }
        Ok(Some(weight))
    }

    /// llama.cpp keeps the outer scale of converted NVFP4 and BitNet matrices beside them, as one f32 that it
    /// multiplies the product with: `blk.0.ffn_up.scale` for `blk.0.ffn_up.weight`.
    fn apply_gguf_scale(&self, stored_name: &str, name: &str, weight: &mut Weight) -> Result<()> {
        let Some(stem) = stored_name.strip_suffix(".weight") else { return Ok(()) };
        for scale in [format!("{stem}.scale"), format!("{stored_name}.scale")] {
            let Some(tensor) = self.tensors.get(&scale) else { continue };
            // A stack of experts has as many.
            let factor = self.plain(tensor, &scale, &tensor.shape, &Piece::whole(&*scale))?;
            let values = factor.decode()?;
            let expert = Name::of(name).expert.filter(|_| values.len() > 1).unwrap_or(0);
            let Some(value) = values.get(expert).copied() else {
                return Err(factor.problem("has too few values", "write the file again from the original"));
            };
            if value == 0.0 {
                return Err(
                    factor.problem("is 0: the matrix would vanish", "write the file again from the original")
                );
            }
            weight.source = Arc::new(Mapped { inner: Arc::clone(&weight.source), map: Map::Times(value) });
            weight.stored_bytes += factor.stored_bytes;
            weight.tensors.push(scale);
        }
        let input_scale = format!("{stem}.input_scale");
        if self.tensors.contains_key(&input_scale) {
            weight.tensors.push(input_scale);
            weight.warnings.push(
                "a calibrated input scale is stored; it is not used, as in llama.cpp's CPU kernels"
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn packed_weight(&self, packed: Packed, name: &str, shape: [usize; 2], piece: &Piece) -> Result<Weight> {
        let stored_name = packed.tensors.first().cloned().unwrap_or_default();
        let file = self.tensors.get(&stored_name).map_or(0, |tensor| tensor.file);
        let path = self.files[file].path();
        let whole = [piece.rows.as_ref().map_or(shape[0], |rows| rows.of), shape[1]];
        if packed.shape != whole {
            return Err(Error::tensor(
                path,
                &stored_name,
                format!("holds a matrix of {:?}, but the config asks for {whole:?}", packed.shape),
                "config and weights belong to different models, or the file is damaged",
            ));
        }
        Ok(Weight {
            name: name.to_owned(),
            stored_name,
            shape: shape.to_vec(),
            encoding: packed.encoding,
            stored_bytes: share(self.bytes_of(&packed.tensors), shape[0], whole[0]),
            ggml_input: None,
            input: packed.input,
            output: packed.output,
            warnings: packed.warnings,
            tensors: packed.tensors,
            path: path.to_owned(),
            rows: piece.rows.as_ref().map(|rows| Arc::clone(&rows.table)),
            columns: piece.columns.clone(),
            source: mapped(packed.source, piece.map),
        })
    }

    /// A tensor, or a part of one, as `shape`; leading dimensions are rows like any other.
    pub(super) fn plain(
        &self,
        tensor: &StoredTensor,
        name: &str,
        shape: &[usize],
        piece: &Piece,
    ) -> Result<Weight> {
        let file = &self.files[tensor.file];
        let problem = |problem: String, help: &str| Error::tensor(file.path(), &tensor.name, problem, help);
        let rows = shape.first().copied().unwrap_or(1);
        let of = piece.rows.as_ref().map_or(rows, |rows| rows.of);
        let total: usize = tensor.shape.iter().product();
        let is_vector = shape.len() == 1;
        // Rows and columns as stored.
        let (expected, columns) = match (shape, piece.transposed) {
            ([_, across], Some(group)) => ([of / group.max(1) * across, group], group),
            ([_, columns], None) => ([of, *columns], *columns),
            _ if is_vector && piece.rows.is_some() => ([of, 1], 1),
            // A stack as it lies there.
            ([leading @ .., last], None) if !leading.is_empty() => ([leading.iter().product(), *last], *last),
            _ => ([1, rows], rows),
        };
        let last = tensor.shape.last().copied().unwrap_or(1);
        let fits = total == expected[0] * expected[1] && (is_vector || last == expected[1]);
        if !fits {
            let asked =
                if piece.rows.is_none() && piece.transposed.is_none() { shape } else { &expected[..] };
            return Err(problem(
                format!("has shape {:?}, but the config asks for {asked:?}", tensor.shape),
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
        let stored_bytes = share(bytes.len() as u64, rows, of);
        let stored = StoredBytes { file: Arc::clone(file), range: bytes };
        let mut source: Arc<dyn RowSource> = Arc::new(Blocks { encoding, columns, stored });
        if let ([_, across], Some(group)) = (shape, piece.transposed) {
            source = Arc::new(Transposed { inner: source, across: *across, group });
        }
        Ok(Weight {
            name: name.to_owned(),
            stored_name: tensor.name.clone(),
            shape: shape.to_vec(),
            encoding: encoding.name().to_owned(),
            stored_bytes,
            ggml_input: Some(encoding).filter(|_| self.format == Format::Gguf).and_then(GgmlActivation::of),
            input: None,
            output: None,
            warnings: Vec::new(),
            tensors: vec![tensor.name.clone()],
            path: file.path().to_owned(),
            rows: piece.rows.as_ref().map(|rows| Arc::clone(&rows.table)),
            columns: piece.columns.clone(),
            source: mapped(source, piece.map),
        })
    }
}

/// Of `bytes` in `of` rows, those of `rows` rows.
fn share(bytes: u64, rows: usize, of: usize) -> u64 {
    let part = u128::from(bytes) * rows as u128 / of.max(1) as u128;
    u64::try_from(part).unwrap_or(bytes)
}

fn mapped(inner: Arc<dyn RowSource>, map: Option<Map>) -> Arc<dyn RowSource> {
    match map {
        Some(map) => Arc::new(Mapped { inner, map }),
        None => inner,
    }
}

/// Whether a safetensors file of this model keeps the matrices of its layers as `[in, out]`, as GPT-2's.
pub fn stores_turned(config: &ModelConfig) -> bool {
    let place = |name: &str| places(config, Format::Safetensors, name).into_iter().next();
    place("model.layers.0.mlp.up_proj.weight").is_some_and(|place| place.piece.transposed.is_some())
}

/// Where a GGUF keeps the tensor that the model calls `name`: its name there, and of each of the model's rows the file's
/// where they are in another order. `None` where it is not a tensor by itself.
pub fn gguf_place(config: &ModelConfig, name: &str) -> Option<(String, Option<Order>)> {
    let place = places(config, Format::Gguf, name).into_iter().next()?;
    let Piece { rows, columns: None, map: None, transposed: None, .. } = place.piece else { return None };
    match rows {
        None => Some((place.name, None)),
        Some(rows) => (rows.of == rows.table.len()).then_some((place.name, Some(rows.table))),
    }
}
