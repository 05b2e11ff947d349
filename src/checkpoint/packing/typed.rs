//! For tests: tensors of every type for [`Fixture`], and weights held against their definition.

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value as Json, json};

use super::{Packed, fixture::Fixture};
use crate::error::Result;

/// Tensors from numbers, and settings that may be absent.
pub(super) trait Typed: Sized {
    fn with(self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self;

    /// The matrix of a module; settings without a `quant_method` are MLX's.
    fn read(&self, settings: Option<Json>, module: &str) -> Result<Option<Packed>>;

    /// What is said where there is an error.
    fn refused(&self, settings: Option<Json>, module: &str) -> String;

    fn packed(&self, settings: Option<Json>, module: &str) -> Packed {
        self.read(settings, module).unwrap().unwrap()
    }

    fn u8(self, name: &str, shape: &[usize], values: &[u8]) -> Self {
        self.with(name, Dtype::U8, shape, values.to_vec())
    }

    fn i8(self, name: &str, shape: &[usize], values: &[i8]) -> Self {
        self.with(name, Dtype::I8, shape, values.iter().map(|value| *value as u8).collect())
    }

    fn i32(self, name: &str, shape: &[usize], values: &[u32]) -> Self {
        self.with(name, Dtype::I32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn u32(self, name: &str, shape: &[usize], values: &[u32]) -> Self {
        self.with(name, Dtype::U32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn f32(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.with(name, Dtype::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn f16(self, name: &str, shape: &[usize], values: &[f16]) -> Self {
        self.with(name, Dtype::F16, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn bf16(self, name: &str, shape: &[usize], values: &[bf16]) -> Self {
        self.with(name, Dtype::BF16, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

fn stated(fixture: Fixture, settings: Option<Json>) -> Fixture {
    match settings {
        None => fixture,
        Some(settings) => {
            let key =
                if settings["quant_method"].is_string() { "quantization_config" } else { "quantization" };
            fixture.file("config.json", json!({ key: settings }))
        }
    }
}

impl Typed for Fixture {
    fn with(self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensor(name, dtype, shape, bytes)
    }

    fn read(&self, settings: Option<Json>, module: &str) -> Result<Option<Packed>> {
        stated(self.clone(), settings).find(module)
    }

    fn refused(&self, settings: Option<Json>, module: &str) -> String {
        stated(self.clone(), settings).refusal(module)
    }
}

/// All weights of a matrix, decoded in ranges of rows of every size up to `step`.
pub(super) fn decoded(packed: &Packed, step: usize) -> Vec<f32> {
    let [rows, columns] = packed.shape;
    let mut values = vec![f32::NAN; rows * columns];
    for (task, out) in values.chunks_mut(step * columns).enumerate() {
        let first = task * step;
        packed.source.decode(first..first + out.len() / columns, out).unwrap();
    }
    values
}

/// Holds every way of cutting the rows against the expected weights, to the last bit.
pub(super) fn assert_decodes(packed: &Packed, expected: &[f32]) {
    assert_eq!(packed.shape.iter().product::<usize>(), expected.len());
    for step in [packed.shape[0], 1, 3, 16] {
        let found = decoded(packed, step);
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let (row, column) = (at / packed.shape[1], at % packed.shape[1]);
            assert_eq!(found.to_bits(), expected.to_bits(), "row {row}, column {column}: {found} {expected}");
        }
    }
}

/// Numbers without a pattern, the same in every run.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % limit
    }

    pub(super) fn codes(&mut self, bits: u32, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(1 << bits)).collect()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }

    /// Scales of either sign that every float type holds exactly.
    pub(super) fn scales(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (self.below(120) as f32 + 8.0) / [1024.0, -512.0][self.below(2) as usize])
            .collect()
    }
}

/// Packs codes bit by bit, the first in the lowest bits of the first word.
pub(super) fn pack(bits: u32, codes: &[u32]) -> Vec<u32> {
    let mut words = vec![0u32; (codes.len() * bits as usize).div_ceil(32)];
    for (at, code) in codes.iter().enumerate() {
        for bit in 0..bits as usize {
            let place = at * bits as usize + bit;
            words[place / 32] |= (code >> bit & 1) << (place % 32);
        }
    }
    words
}

/// Tensors of any type and size under the names that packings look for: refused or decoded, never a panic.
#[test]
fn tensors_that_make_no_sense_never_panic() {
    const PARTS: &[&str] = &[
        "m.qweight",
        "m.qzeros",
        "m.scales",
        "m.g_idx",
        "m.biases",
        "m.weight",
        "m.SCB",
        "m.weight_format",
        "m.weight.absmax",
        "m.weight.quant_map",
        "m.weight.nested_absmax",
        "m.weight.nested_quant_map",
        "m_blocks",
        "m_scales",
    ];
    const SIZES: &[usize] = &[0, 1, 2, 3, 4, 8, 12, 16, 24, 32, 64, 96];
    let settings = [
        json!({"quant_method": "gptq", "bits": 4, "group_size": 32}),
        json!({"quant_method": "awq", "bits": 4, "group_size": 0}),
        json!({"bits": 4, "group_size": 32}),
        json!({"bits": u64::MAX, "group_size": i64::MIN, "m": {"bits": -1}}),
    ];
    let mut noise = Noise::new(2);
    let mut decoded = 0;
    for _ in 0..3000 {
        let mut fixture = Fixture::default().u8("other.weight", &[1], &[0]);
        // Mostly a family of names that belong together, so that shapes are looked at.
        let families: [&[usize]; 5] = [&[0, 1, 2], &[0, 1, 2, 3], &[2, 4, 5], &[5, 6, 7], &[12, 13]];
        let family = families[noise.below(5) as usize];
        let extra = [noise.below(PARTS.len() as u32) as usize];
        let (rows, columns) = (SIZES[noise.below(12) as usize], SIZES[noise.below(12) as usize]);
        for part in family.iter().chain(extra.iter().filter(|_| noise.below(4) == 0).collect::<Vec<_>>()) {
            let likely = match part {
                2 if family[0] == 0 => Dtype::F16,
                0 | 1 | 3 => Dtype::I32,
                2 | 4 | 6 => Dtype::F32,
                5 if family[0] == 5 => Dtype::I8,
                5 => Dtype::U32,
                _ => Dtype::U8,
            };
            let any = [
                Dtype::U8,
                Dtype::I8,
                Dtype::I16,
                Dtype::I32,
                Dtype::U32,
                Dtype::F16,
                Dtype::F32,
                Dtype::I64,
            ];
            let dtype = if noise.below(8) == 0 { any[noise.below(8) as usize] } else { likely };
            let size = |noise: &mut Noise| match noise.below(3) {
                0 => rows,
                1 => columns,
                _ => SIZES[noise.below(12) as usize],
            };
            let dimensions = [2, 2, 2, 2, 1, 0, 3, 4][noise.below(8) as usize];
            let mut shape: Vec<usize> = (0..dimensions).map(|_| size(&mut noise).min(32)).collect();
            if *part >= 12 {
                shape = vec![rows.min(4), columns.min(4), 2, 16][..(4 - (*part - 12))].to_vec();
            }
            if shape.first() == Some(&0) && shape.len() > 1 {
                shape[1] = 1 << 60;
            }
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let bytes = if noise.below(2) == 0 { noise.bytes(bytes) } else { vec![0x3C; bytes] };
            fixture = fixture.with(PARTS[*part], dtype, &shape, bytes);
        }
        let state = json!({"blocksize": 32, "dtype": "float32", "shape": [rows, columns], "nested_blocksize": 1,
            "nested_offset": 1e300});
        if noise.below(6) == 0 {
            let text = state.to_string().into_bytes();
            fixture = fixture.u8("m.weight.quant_state.bitsandbytes__nf4", &[text.len()], &text);
        }
        let settings = settings[noise.below(4) as usize].clone();
        if let Ok(Some(packed)) = fixture.read(Some(settings), "m") {
            let [rows, columns] = packed.shape;
            let mut out = vec![0.0; rows * columns];
            // Contents may still mean nothing.
            let _ = packed.source.decode(0..rows, &mut out);
            packed.source.release();
            decoded += 1;
        }
    }
    assert!(decoded > 50, "only {decoded} of 3000 were decoded: the sizes seldom fit");
}
