//! How many bytes of `f32` one core decodes per second, for every encoding and packing.
//!
//! `cargo bench --bench decode`; `cargo bench --bench decode -- Q4_K` for one of them. Both buffers stay the
//! same from one iteration to the next, so that no time goes into page faults. GiB/s count the output, 4
//! bytes per weight; figures belong into `reports/performance.md` with the machine they came from.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, path::Path};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qeval::checkpoint::{Checkpoint, Weight, encoding::Encoding};
use safetensors::{Dtype, tensor::TensorView};

/// Rows and columns of the packed matrix.
const SIDE: usize = 1024;
const WEIGHTS: usize = SIDE * SIDE;
const MODULE: &str = "model.layers.0.mlp.up_proj";

fn encodings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encoding");
    group.throughput(Throughput::Bytes(4 * WEIGHTS as u64));
    let mut out = vec![1.0; WEIGHTS];
    for &encoding in Encoding::ALL {
        // A few scales are infinite or NaN, which costs vectors nothing.
        let bytes = noise(encoding.encoded_bytes(WEIGHTS).unwrap());
        group.bench_function(encoding.name(), |bencher| {
            bencher.iter(|| encoding.decode(black_box(&bytes), black_box(&mut out)).unwrap());
        });
    }
    group.finish();
}

/// Whole rows as an evaluation decodes them, on one core, with the check for NaN and infinity.
fn packings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packing");
    group.throughput(Throughput::Bytes(4 * WEIGHTS as u64));
    let mut out = vec![1.0; WEIGHTS];
    for (name, settings, tensors) in packed() {
        let folder = tempfile::tempdir().unwrap();
        let weight = write(folder.path(), settings, &tensors);
        group.bench_function(name, |bencher| {
            bencher.iter(|| weight.decode_rows_here(0..SIDE, black_box(&mut out)).unwrap());
        });
    }
    group.finish();
}

/// Bytes without a pattern, so that look-ups go all over their tables.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| byte()).collect()
}

type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Name, quantization_config and tensors of the same matrix in each packing.
fn packed() -> Vec<(&'static str, &'static str, Vec<Stored>)> {
    // E4M3 without its NaN.
    let e4m3 = |n: usize| noise(n).into_iter().map(|byte| byte & 0x77 | 1).collect::<Vec<u8>>();
    let floats = |n: usize| 0.01f32.to_le_bytes().repeat(n);
    let halves = |n: usize| [0x00, 0x20].repeat(n);
    let sevens = |n: usize| vec![0x77; n];
    let (nibbles, groups, side) = (WEIGHTS / 2, SIDE / 128, SIDE);
    let shape: Vec<u8> = [side as i64; 2].iter().flat_map(|n| n.to_le_bytes()).collect();
    let g_idx: Vec<u8> = (0..side as i32).flat_map(|column| (column / 128).to_le_bytes()).collect();
    let state = format!(r#"{{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[{side},{side}]}}"#);
    let quant_map: Vec<u8> = (0..16).flat_map(|i| (i as f32 / 7.5 - 1.0).to_le_bytes()).collect();
    let (ct, gptq) = (
        r#"{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{}}"#,
        r#"{"quant_method":"gptq","bits":4,"group_size":128,"desc_act":false,"sym":true}"#,
    );
    vec![
        (
            "compressed-tensors int4 g128",
            ct,
            vec![
                ("weight_packed", Dtype::I32, vec![side, side / 8], noise(nibbles)),
                ("weight_scale", Dtype::F32, vec![side, groups], floats(side * groups)),
                ("weight_shape", Dtype::I64, vec![2], shape),
            ],
        ),
        (
            "compressed-tensors int8 channel",
            ct,
            vec![
                ("weight", Dtype::I8, vec![side, side], noise(WEIGHTS)),
                ("weight_scale", Dtype::F32, vec![side, 1], floats(side)),
            ],
        ),
        (
            "compressed-tensors FP8 channel",
            ct,
            vec![
                ("weight", Dtype::F8_E4M3, vec![side, side], e4m3(WEIGHTS)),
                ("weight_scale", Dtype::F32, vec![side, 1], floats(side)),
            ],
        ),
        (
            "compressed-tensors NVFP4",
            ct,
            vec![
                ("weight_packed", Dtype::U8, vec![side, side / 2], noise(nibbles)),
                ("weight_scale", Dtype::F8_E4M3, vec![side, side / 16], e4m3(WEIGHTS / 16)),
                ("weight_global_scale", Dtype::F32, vec![1], floats(1)),
            ],
        ),
        (
            "GPTQ int4 g128",
            gptq,
            vec![
                ("qweight", Dtype::I32, vec![side / 8, side], noise(nibbles)),
                ("qzeros", Dtype::I32, vec![groups, side / 8], sevens(groups * side / 2)),
                ("scales", Dtype::F16, vec![groups, side], halves(groups * side)),
                ("g_idx", Dtype::I32, vec![side], g_idx),
            ],
        ),
        (
            "AWQ int4 g128",
            r#"{"quant_method":"awq","bits":4,"group_size":128,"zero_point":true,"version":"gemm"}"#,
            vec![
                ("qweight", Dtype::I32, vec![side, side / 8], noise(nibbles)),
                ("qzeros", Dtype::I32, vec![groups, side / 8], sevens(groups * side / 2)),
                ("scales", Dtype::F16, vec![groups, side], halves(groups * side)),
            ],
        ),
        (
            "bitsandbytes NF4 g64",
            r#"{"quant_method":"bitsandbytes","load_in_4bit":true}"#,
            vec![
                ("weight", Dtype::U8, vec![nibbles, 1], noise(nibbles)),
                ("weight.absmax", Dtype::F32, vec![WEIGHTS / 64], floats(WEIGHTS / 64)),
                ("weight.quant_map", Dtype::F32, vec![16], quant_map),
                ("weight.quant_state.bitsandbytes__nf4", Dtype::U8, vec![state.len()], state.into_bytes()),
            ],
        ),
        (
            "MLX int4 g64",
            r#"{"quant_method":"mlx","bits":4,"group_size":64}"#,
            vec![
                ("weight", Dtype::U32, vec![side, side / 8], noise(nibbles)),
                ("scales", Dtype::F16, vec![side, side / 64], halves(WEIGHTS / 64)),
                ("biases", Dtype::F16, vec![side, side / 64], halves(WEIGHTS / 64)),
            ],
        ),
    ]
}

/// Writes a folder that holds this one matrix, and asks for it.
fn write(folder: &Path, settings: &str, tensors: &[Stored]) -> Weight {
    let views = tensors.iter().map(|(ending, dtype, shape, bytes)| {
        (format!("{MODULE}.{ending}"), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let config = format!(
        r#"{{"architectures":["LlamaForCausalLM"],"hidden_size":{SIDE},"intermediate_size":{SIDE},
            "num_hidden_layers":1,"num_attention_heads":8,"vocab_size":8,"rms_norm_eps":1e-6,
            "quantization_config":{settings}}}"#
    );
    std::fs::write(folder.join("config.json"), config).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    checkpoint.weight(&config, &format!("{MODULE}.weight"), &[SIDE, SIDE]).unwrap()
}

criterion_group!(benches, encodings, packings);
criterion_main!(benches);
