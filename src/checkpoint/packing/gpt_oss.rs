//! The expert matrices of gpt-oss in MXFP4.
//!
//! `<module>_blocks` U8 `[experts, out, in/32, 16]`, low nibble first; `<module>_scales` U8 `[experts, out, in/32]`;
//! w = E2M1·2^(e − 127). Seen as one matrix `[experts·out, in]`. Layout of openai/gpt-oss and of mlx-lm's reader.

use std::sync::Arc;

use safetensors::Dtype;

use super::{
    Kind, Packed, Packing, TensorView, Tensors,
    affine::{Affine, GridRows, Groups, Offset, PackedRows, Value},
    checks::{matrix_shape, stacked},
    codes::BitLayout,
    grid::{Grid, Number, Sound},
};
use crate::error::Result;

/// MXFP4 of gpt-oss.
pub(super) const KIND: Kind = Kind { methods: &["mxfp4"], prepare: |_, _| Ok(Box::new(GptOss)) };

#[derive(Debug)]
struct GptOss;

/// Weights that share a scale, and the bytes that hold their codes.
const BLOCK: (usize, usize) = (32, 16);

impl Packing for GptOss {
    fn matrix(&self, tensors: &Tensors, module: &str) -> Result<Option<Packed>> {
        let Some(blocks) = tensors.get(&format!("{module}_blocks")) else { return Ok(None) };
        let why = "the blocks of an expert matrix have scales";
        let scales = tensors.require(&format!("{module}_scales"), why)?;
        let [experts, outputs, across, _] = *blocks.shape else {
            return Err(blocks.problem(
                format!("has shape {:?}, expected [experts, out, in/32, 16]", blocks.shape),
                "the file is damaged, or written by a tool that packs in another way",
            ));
        };
        blocks.expect(&[experts, outputs, across, BLOCK.1], &[Dtype::U8])?;
        scales.expect(&[experts, outputs, across], &[Dtype::U8])?;
        let flat = stacked(scales.shape);
        let shape = matrix_shape(&blocks, flat[0], across.checked_mul(BLOCK.0))?;
        let grid = TensorView { shape: &flat, ..scales };
        let grid = Grid::of(&grid, Number::E8m0, flat[0], flat[1], Sound::Positive)?;
        Ok(Some(Packed {
            shape,
            encoding: "MXFP4".to_owned(),
            source: Arc::new(Affine {
                columns: shape[1],
                groups: Groups::Of(BLOCK.0),
                codes: Arc::new(PackedRows {
                    bits: 4,
                    layout: BitLayout::Dense,
                    row_bytes: across * BLOCK.1,
                    stored: blocks.stored(),
                }),
                value: Value::e2m1(),
                scales: Arc::new(GridRows { grid, rows_each: 1 }),
                offset: Offset::Zero(0.0),
                sliced: None,
            }),
            tensors: [blocks, scales].map(|view| view.name.to_owned()).to_vec(),
            input: None,
            output: None,
            warnings: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::Fixture,
        super::typed::{Noise, Typed, assert_decodes},
    };

    const MODULE: &str = "model.layers.0.mlp.experts.gate_up_proj";

    fn fixture() -> (Fixture, Vec<u8>, Vec<u8>) {
        let mut noise = Noise::new(1);
        let (blocks, mut scales) = (noise.bytes(3 * 5 * 4 * 16), noise.bytes(3 * 5 * 4));
        for scale in &mut scales {
            *scale = 100 + *scale % 50;
        }
        scales[7] = 0;
        let fixture = Fixture::default()
            .u8(&format!("{MODULE}_blocks"), &[3, 5, 4, 16], &blocks)
            .u8(&format!("{MODULE}_scales"), &[3, 5, 4], &scales)
            .f32(&format!("{MODULE}_bias"), &[1], &[0.0]);
        (fixture, blocks, scales)
    }

    #[test]
    fn weights_equal_the_definition() {
        let (fixture, blocks, scales) = fixture();
        let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let expected: Vec<f32> = (0..3 * 5 * 128)
            .map(|weight| {
                let code = blocks[weight / 2] >> (4 * (weight % 2)) & 15;
                let magnitude = magnitudes[usize::from(code & 7)];
                let power = 2f64.powi(i32::from(scales[weight / 32]) - 127);
                (if code > 7 { -magnitude } else { magnitude } * power) as f32
            })
            .collect();
        let packed = fixture.packed(None, MODULE);
        assert_eq!((packed.shape, packed.encoding.as_str()), ([15, 128], "MXFP4"));
        assert_eq!(packed.tensors, [format!("{MODULE}_blocks"), format!("{MODULE}_scales")]);
        assert_decodes(&packed, &expected);
        assert!(packed.source.sliced(2).is_none());
        assert!(fixture.read(None, "model.layers.0.mlp.experts").unwrap().is_none());
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        let (blocks, scales) = (format!("{MODULE}_blocks"), format!("{MODULE}_scales"));
        let said = fixture().0.without(&scales).refused(None, MODULE);
        assert!(said.contains(&scales) && said.contains("is missing"), "{said}");
        let said = fixture().0.u8(&scales, &[3, 5, 2], &[100; 30]).refused(None, MODULE);
        assert!(said.contains("has shape [3, 5, 2], expected [3, 5, 4]"), "{said}");
        let said = fixture().0.u8(&blocks, &[3, 5, 8, 8], &[0; 960]).refused(None, MODULE);
        assert!(said.contains("has shape [3, 5, 8, 8], expected [3, 5, 8, 16]"), "{said}");
        let said = fixture().0.u8(&blocks, &[15, 64], &[0; 960]).refused(None, MODULE);
        assert!(said.contains("expected [experts, out, in/32, 16]"), "{said}");
        let said = fixture().0.u8(&blocks, &[0, 5, 4, 16], &[]).u8(&scales, &[0, 5, 4], &[]);
        let said = said.refused(None, MODULE);
        assert!(said.contains("no matrix of weights"), "{said}");
    }

    #[test]
    fn a_scale_that_is_no_number_is_named() {
        let (fixture, _, mut values) = fixture();
        values[4 * 6 + 1] = 255;
        let packed = fixture.u8(&format!("{MODULE}_scales"), &[3, 5, 4], &values).packed(None, MODULE);
        let mut out = vec![0.0; 15 * 128];
        let said = packed.source.decode(0..15, &mut out).unwrap_err().to_string();
        assert!(said.contains("_scales") && said.contains("row 6, column 1 is NaN"), "{said}");
        packed.source.decode(0..6, &mut out[..6 * 128]).unwrap();
    }
}
