//! What one sequence leaves behind in one layer: what generation keeps between tokens.

use candle_core::{DType, Result, Tensor};

use super::{Decoder, delta_net::Memory};
use crate::{checkpoint::config::Mixer, error::Error};

/// What a layer keeps of a sequence.
#[derive(Clone, Debug)]
pub enum KvState {
    /// Rows that grow with the sequence: keys and values, or latents.
    Rows {
        /// Each `[capacity, heads, width]`.
        buffers: Vec<Tensor>,
        /// Positions in them.
        len: usize,
    },
    /// A memory of fixed size.
    Fixed(Memory),
}

impl KvState {
    /// Of a sequence that has not begun, with room for `capacity` positions.
    pub fn empty(decoder: &Decoder, layer: usize, capacity: usize) -> crate::error::Result<Self> {
        let Some(config) = decoder.config.layers.get(layer) else {
            return Err(Error::argument(
                format!("there is no layer {layer}"),
                "report this as a bug of qeval",
            ));
        };
        let room = |heads: usize, width: usize| {
            Tensor::zeros((capacity.max(1), heads, width), DType::F32, decoder.device())
                .map_err(Error::compute("making room for a sequence"))
        };
        match (&config.mixer, config.mixer.kv_widths()) {
            (Mixer::GatedDeltaNet(net), _) => Ok(Self::Fixed(Memory::empty(net))),
            (_, Some(widths)) => {
                let values = (widths.value > 0).then(|| room(widths.heads, widths.value)).transpose()?;
                let buffers = std::iter::once(room(widths.heads, widths.key)?).chain(values).collect();
                Ok(Self::Rows { buffers, len: 0 })
            }
            (_, None) => Ok(Self::Rows { buffers: Vec::new(), len: 0 }),
        }
    }

    /// The same past, to be continued in another way; with room for `capacity` positions in all.
    pub fn forked(&self, capacity: usize) -> Result<Self> {
        let Self::Rows { buffers, len } = self else { return Ok(self.clone()) };
        let copy = |x: &Tensor| -> Result<Tensor> {
            let (_, heads, width) = x.dims3()?;
            let room = Tensor::zeros((capacity.max(*len).max(1), heads, width), x.dtype(), x.device())?;
            if *len > 0 {
                room.slice_set(&x.narrow(0, 0, *len)?.contiguous()?, 0, 0)?;
            }
            Ok(room)
        };
        Ok(Self::Rows { buffers: buffers.iter().map(copy).collect::<Result<_>>()?, len: *len })
    }

    /// Takes up further rows of each buffer; returns all there are.
    pub(super) fn append(&mut self, rows: &[Tensor]) -> Result<Vec<Tensor>> {
        let Self::Rows { buffers, len } = self else {
            candle_core::bail!("a state of fixed size takes up no rows")
        };
        let count = rows.first().map_or(Ok(0), |rows| rows.dim(0))?;
        for (buffer, rows) in buffers.iter().zip(rows) {
            buffer.slice_set(&rows.contiguous()?, 0, *len)?;
        }
        *len += count;
        buffers.iter().map(|buffer| buffer.narrow(0, 0, *len)).collect()
    }
}
