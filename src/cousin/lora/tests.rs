//! Against W + s·B·A worked out naively in f64, and against files that must be refused.

use std::path::Path;

use ::safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::*;
use crate::{
    checkpoint::Weight,
    cousin::simulate::{
        Simulation,
        fixture::{Tensor, model, noise, save},
    },
};

const Q: &str = "model.layers.0.self_attn.q_proj";

/// A folder as PEFT saves it; `settings` are added to the least that it writes.
fn adapter(settings: Json, tensors: &[Tensor]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = json!({"peft_type": "LORA", "r": 3, "lora_alpha": 6, "init_lora_weights": true,
        "bias": "none", "lora_bias": false, "layer_replication": null, "target_parameters": null,
        "rank_pattern": {}, "alpha_pattern": {}, "use_dora": false, "fan_in_fan_out": false,
        "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"});
    let more = settings.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
    save(&folder.path().join(WEIGHTS), tensors);
    folder
}

/// W + s·B·A, A `[rank, columns]`, B `[rows, rank]`.
fn merged(w: &[f32], a: &[f32], b: &[f32], rank: usize, columns: usize, s: f64) -> Vec<f64> {
    w.iter()
        .enumerate()
        .map(|(at, w)| {
            let (row, column) = (at / columns, at % columns);
            let product: f64 =
                (0..rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column])).sum();
            f64::from(*w) + s * product
        })
        .collect()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs();
        assert!(off <= 1e-6 * (1.0 + expected.abs()), "{index}: {found} against {expected}");
    }
}

/// 7 × 37 with rank 3: neither rows nor columns fill the tiles of the product.
struct Small {
    w: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

const ROWS: usize = 7;
const COLUMNS: usize = 37;
const RANK: usize = 3;

fn small() -> Small {
    let scaled = |length: usize, seed: u64| noise(length, seed).iter().map(|x| 10.0 * x).collect();
    Small { w: scaled(ROWS * COLUMNS, 1), a: scaled(RANK * COLUMNS, 2), b: scaled(ROWS * RANK, 3) }
}

fn adapted(settings: Json, a_name: &str, b_name: &str) -> Result<Vec<f32>> {
    let Small { w, a, b } = small();
    let (_model, weights) = model(&[(&format!("{Q}.weight"), &[ROWS, COLUMNS], &w)]);
    let folder = adapter(settings, &[(a_name, &[RANK, COLUMNS], &a), (b_name, &[ROWS, RANK], &b)]);
    let lora = Lora::open(folder.path())?;
    lora.check_matched(&[format!("{Q}.weight")])?;
    lora.apply(weights[0].clone())?.decode()
}

fn plain(settings: Json) -> Result<Vec<f32>> {
    let name = |part: &str| format!("base_model.model.{Q}.{part}.weight");
    adapted(settings, &name("lora_A"), &name("lora_B"))
}

#[test]
fn the_product_is_added_with_its_scaling() {
    let Small { w, a, b } = small();
    let check = |settings: Json, s: f64| {
        assert_close(&plain(settings).unwrap(), &merged(&w, &a, &b, RANK, COLUMNS, s));
    };
    check(json!({}), 2.0);
    check(json!({"use_rslora": true}), 6.0 / 3f64.sqrt());
    check(json!({"lora_alpha": 7.5}), 2.5);
    // The pattern is a regular expression for the end of the name.
    check(json!({"alpha_pattern": {"k_proj": 30, "self_attn.q_proj": 12}}), 4.0);
    check(json!({"alpha_pattern": {"proj": 30, "attn.q_proj": 30}}), 2.0);
    check(json!({"alpha_pattern": {r"layers\.\d+\.self_attn\.[qk]_proj": 3}}), 1.0);
    check(json!({"r": 16, "rank_pattern": {"q_proj": 3}}), 2.0);
}

#[test]
fn of_several_patterns_the_first_in_the_file_counts() {
    for (patterns, alpha) in
        [(r#""self_attn.q_proj": 12, "q_proj": 24"#, 12.0), (r#""q_proj": 24, "self_attn.q_proj": 12"#, 24.0)]
    {
        let text = format!(r#"{{"peft_type": "LORA", "r": 4, "alpha_pattern": {{{patterns}}}}}"#);
        let config = LoraConfig::parse(Path::new(CONFIG), text.as_bytes()).unwrap();
        assert_eq!(config.of(Path::new(CONFIG), Q).unwrap(), (4, alpha / 4.0));
    }
}

#[test]
fn names_with_and_without_the_adapters_own() {
    let Small { w, a, b } = small();
    let found = adapted(
        json!({}),
        &format!("base_model.model.{Q}.lora_A.default.weight"),
        &format!("base_model.model.{Q}.lora_B.default.weight"),
    );
    assert_close(&found.unwrap(), &merged(&w, &a, &b, RANK, COLUMNS, 2.0));
}

#[test]
fn tiles_and_rows_by_themselves_give_the_same_bits() {
    // 9 × 64, rank 5: tiles of four rows, one row left; then every row alone and in any cut.
    let (rows, columns, rank) = (9, 64, 5);
    let (left, right) = (noise(rows * rank, 4), noise(rank * columns, 5));
    let mut whole = noise(rows * columns, 6);
    let start = whole.clone();
    product::add_product(&mut whole, &left, &right, columns, 0.5);
    assert_close(&whole, &merged(&start, &right, &left, rank, columns, 0.5));
    for cut in 1..=rows {
        let mut cuts = start.clone();
        for (out, left) in cuts.chunks_mut(cut * columns).zip(left.chunks(cut * rank)) {
            product::add_product(out, left, &right, columns, 0.5);
        }
        assert_eq!(cuts, whole, "{cut}");
    }
}

#[test]
fn factors_of_sixteen_bits() {
    let Small { w, a, b } = small();
    let folder = adapter(json!({}), &[]);
    let halves: Vec<u8> = a.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let brains: Vec<u8> = b.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    let views = [
        ("lora_A", TensorView::new(Dtype::F16, vec![RANK, COLUMNS], &halves).unwrap()),
        ("lora_B", TensorView::new(Dtype::BF16, vec![ROWS, RANK], &brains).unwrap()),
    ]
    .map(|(part, view)| (format!("base_model.model.{Q}.{part}.weight"), view));
    ::safetensors::serialize_to_file(views, None, &folder.path().join(WEIGHTS)).unwrap();
    let (_model, weights) = model(&[(&format!("{Q}.weight"), &[ROWS, COLUMNS], &w)]);
    let weight = Lora::open(folder.path()).unwrap().apply(weights[0].clone()).unwrap();
    assert_eq!(weight.encoding, "F32 + LoRA r3");
    assert_eq!(weight.stored_bytes, (4 * ROWS * COLUMNS + 2 * RANK * (ROWS + COLUMNS)) as u64);
    let a: Vec<f32> = a.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect();
    let b: Vec<f32> = b.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
    assert_close(&weight.decode().unwrap(), &merged(&w, &a, &b, RANK, COLUMNS, 2.0));
}

#[test]
fn dora_gives_every_row_its_magnitude() {
    let Small { w, a, b } = small();
    let magnitudes: Vec<f32> = (0..ROWS).map(|row| 0.5 + row as f32).collect();
    let (_model, weights) = model(&[(&format!("{Q}.weight"), &[ROWS, COLUMNS], &w)]);
    for ending in ["", ".weight", ".default", ".default.weight"] {
        let name = |part: &str| format!("base_model.model.{Q}.{part}");
        let folder = adapter(
            json!({"use_dora": true}),
            &[
                (&name("lora_A.weight"), &[RANK, COLUMNS], &a),
                (&name("lora_B.weight"), &[ROWS, RANK], &b),
                (&name(&format!("lora_magnitude_vector{ending}")), &[ROWS], &magnitudes),
            ],
        );
        let weight = Lora::open(folder.path()).unwrap().apply(weights[0].clone()).unwrap();
        assert_eq!(weight.encoding, "F32 + DoRA r3");
        let mut expected = merged(&w, &a, &b, RANK, COLUMNS, 2.0);
        for (row, magnitude) in expected.chunks_mut(COLUMNS).zip(&magnitudes) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().for_each(|x| *x *= f64::from(*magnitude) / norm);
        }
        assert_close(&weight.decode().unwrap(), &expected);
    }
}

#[test]
fn embeddings_are_adapted_from_their_other_side() {
    // 11 tokens, 6 wide: delta[v, d] = s Σ_k A[k, v] B[d, k].
    let (vocabulary, hidden) = (11, 6);
    let (w, a, b) = (noise(66, 7), noise(RANK * vocabulary, 8), noise(hidden * RANK, 9));
    let (_model, weights) = model(&[("model.embed_tokens.weight", &[vocabulary, hidden], &w)]);
    let name = |part: &str| format!("base_model.model.model.embed_tokens.{part}");
    let folder = adapter(
        json!({}),
        &[
            (&name("lora_embedding_A"), &[RANK, vocabulary], &a),
            (&name("lora_embedding_B"), &[hidden, RANK], &b),
        ],
    );
    let lora = Lora::open(folder.path()).unwrap();
    let weight = lora.apply(weights[0].clone()).unwrap();
    let mut expected = Vec::new();
    for v in 0..vocabulary {
        for d in 0..hidden {
            let product: f64 =
                (0..RANK).map(|k| f64::from(a[k * vocabulary + v]) * f64::from(b[d * RANK + k])).sum();
            expected.push(f64::from(w[v * hidden + d]) + 2.0 * product);
        }
    }
    assert_close(&weight.decode().unwrap(), &expected);
    let mut two = vec![0.0; 2 * hidden];
    weight.gather_rows(&[9, 2], &mut two).unwrap();
    assert_close(&two, &[&expected[9 * hidden..10 * hidden], &expected[2 * hidden..3 * hidden]].concat());

    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    lora.check_matched(&names(&["model.embed_tokens.weight", "lm_head.weight"])).unwrap();
    let error = lora.check_matched(&names(&["model.embed_tokens.weight"])).unwrap_err();
    assert!(error.to_string().contains("as its head"), "{error}");
    std::fs::write(
        folder.path().join(CONFIG),
        json!({"peft_type": "LORA", "r": 3, "ensure_weight_tying": true}).to_string(),
    )
    .unwrap();
    Lora::open(folder.path()).unwrap().check_matched(&names(&["model.embed_tokens.weight"])).unwrap();
}

#[test]
fn whole_tensors_take_the_place_of_the_checkpoints() {
    let (w, bias) = (noise(12, 10), noise(4, 11));
    let head = noise(12, 12);
    let bias_name = format!("{Q}.bias");
    let (_model, weights) = model(&[("lm_head.weight", &[4, 3], &w), (&bias_name, &[4], &bias)]);
    for (name, stored) in [
        ("lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.modules_to_save.weight"),
        ("lm_head.weight", "lm_head.modules_to_save.default.weight"),
        ("lm_head.weight", "lm_head.base_layer.weight"),
    ] {
        let new_bias = noise(4, 13);
        let folder = adapter(
            json!({"modules_to_save": ["lm_head"], "bias": "all"}),
            &[
                (&format!("base_model.model.{stored}"), &[4, 3], &head),
                (&format!("base_model.model.{Q}.base_layer.bias"), &[4], &new_bias),
            ],
        );
        let lora = Lora::open(folder.path()).unwrap();
        lora.check_matched(&[name.to_owned(), bias_name.clone()]).unwrap();
        let replaced = lora.apply(weights[0].clone()).unwrap();
        assert_eq!(replaced.decode().unwrap(), head);
        assert_eq!((replaced.stored_bytes, replaced.encoding.as_str()), (48, "F32 of the adapter"));
        assert_eq!(lora.apply(weights[1].clone()).unwrap().decode().unwrap(), new_bias);
    }
}

#[test]
fn adapters_go_onto_any_encoding_and_in_the_order_of_the_steps() {
    let (rows, columns) = (8, 64);
    let (w, a, b) = (noise(rows * columns, 14), noise(RANK * columns, 15), noise(rows * RANK, 16));
    let (_model, weights) = model(&[(&format!("{Q}.weight"), &[rows, columns], &w)]);
    let name = |part: &str| format!("base_model.model.{Q}.{part}.weight");
    let folder =
        adapter(json!({}), &[(&name("lora_A"), &[RANK, columns], &a), (&name("lora_B"), &[rows, RANK], &b)]);
    let lora = Lora::open(folder.path()).unwrap();
    let simulate = |text: &str, weight: Weight| Simulation::parse(text).unwrap().apply(weight, &[]).unwrap();

    let nf4 = simulate("nf4", weights[0].clone());
    let above = lora.apply(nf4.clone()).unwrap();
    assert_eq!(above.encoding, "NF4 simulated + LoRA r3");
    let expected = merged(&nf4.decode().unwrap(), &a, &b, RANK, columns, 2.0);
    assert_close(&above.decode().unwrap(), &expected);
    assert!(above.warnings.is_empty());

    let below = simulate("nf4", lora.apply(weights[0].clone()).unwrap());
    assert!(below.warnings.is_empty(), "the adapter was added to dense weights");
    assert_ne!(below.decode().unwrap(), above.decode().unwrap());

    let w8a8 = lora.apply(simulate("w8a8", weights[0].clone())).unwrap();
    assert!(w8a8.input.is_some());
    assert!(w8a8.warnings[0].contains("unrounded"), "{:?}", w8a8.warnings);
    let q8_0 = simulate("q8_0", weights[0].clone());
    assert_eq!(lora.apply(q8_0.clone()).unwrap().ggml_input, q8_0.ggml_input);
}

#[test]
fn settings_that_would_change_the_result_are_refused_by_name() {
    for (key, value, said) in [
        ("peft_type", json!("IA3"), "IA3"),
        ("peft_type", json!(null), "missing"),
        ("lora_bias", json!(true), "bias of its own"),
        ("layer_replication", json!([[0, 4], [2, 5]]), "repeated"),
        ("alora_invocation_tokens", json!([1, 2]), "certain tokens"),
        ("target_parameters", json!(["mlp.experts.gate_up_proj"]), "experts"),
        ("use_qalora", json!(true), "pooled"),
        ("init_lora_weights", json!("pissa_niter_4"), "pissa_niter_4"),
        ("init_lora_weights", json!("OLoRA"), "OLoRA"),
        ("r", json!(0), "no rank"),
        ("r", json!(1.5), "no rank"),
        ("lora_alpha", json!(1e38), "no alpha"),
        ("alpha_pattern", json!({"(": 3}), "regular expression"),
        ("rank_pattern", json!({"q_proj": -2}), "no rank"),
    ] {
        let error = plain(json!({ key: value })).unwrap_err();
        assert!(error.to_string().contains(key) && error.to_string().contains(said), "{key}: {error}");
        assert!(error.help().is_some());
    }
    for settings in [json!({"init_lora_weights": "gaussian"}), json!({"init_lora_weights": "eva"})] {
        plain(settings).unwrap();
    }
    assert!(plain(json!({"rank_pattern": {"q_proj": 4}})).unwrap_err().to_string().contains("rank 4"));
    assert!(plain(json!({"r": "many"})).unwrap_err().to_string().contains("adapter_config.json"));
    assert!(plain(json!({"use_dora": true})).unwrap_err().to_string().contains("magnitudes"));
}

#[test]
fn tensors_that_are_not_known_or_do_not_fit_are_refused() {
    let name = |part: &str| format!("base_model.model.{Q}.{part}");
    let (a, b) = (name("lora_A.weight"), name("lora_B.weight"));
    let (x, y) = (noise(RANK * COLUMNS, 17), noise(ROWS * RANK, 18));
    let open = |tensors: &[Tensor]| Lora::open(adapter(json!({}), tensors).path());
    let both: [Tensor; 2] = [(&a, &[RANK, COLUMNS], &x), (&b, &[ROWS, RANK], &y)];
    for (stray, said) in [
        (name("lora_B.bias"), "bias of B"),
        (name("lora_ia3.weight"), "not implemented"),
        (name("lora_A.one.two.weight"), "not implemented"),
        ("base_model.model.model.embed_tokens.token_adapter.weight".to_owned(), "not implemented"),
        (format!("{Q}.lora_A.weight"), "PEFT"),
        (name("lora_magnitude_vector"), "use_dora"),
        (name("lora_embedding_A"), "at once"),
        (name("lora_A.default.weight"), "twice"),
    ] {
        let error = open(&[both[0], both[1], (&stray, &[1], &[0.5])]).unwrap_err();
        assert!(error.to_string().contains(said), "{stray}: {error}");
    }
    assert!(open(&both[..1]).unwrap_err().to_string().contains("lacks A or B"));
    assert!(open(&[]).unwrap_err().to_string().contains("no tensors"));

    let (_model, weights) =
        model(&[(&format!("{Q}.weight"), &[ROWS, COLUMNS + 1], &noise(ROWS * (COLUMNS + 1), 19))]);
    let error = open(&both).unwrap().apply(weights[0].clone()).unwrap_err();
    assert!(error.to_string().contains("[3, 37]") && error.to_string().contains("[3, 38]"), "{error}");

    let mut damaged = x.clone();
    damaged[5] = f32::INFINITY;
    let (_model, weights) = model(&[(&format!("{Q}.weight"), &[ROWS, COLUMNS], &noise(ROWS * COLUMNS, 20))]);
    let folder = adapter(json!({}), &[(&a, &[RANK, COLUMNS], &damaged), both[1]]);
    let weight = Lora::open(folder.path()).unwrap().apply(weights[0].clone()).unwrap();
    let error = weight.decode().unwrap_err();
    assert!(error.to_string().contains("lora_A") && error.to_string().contains("infinity"), "{error}");

    let error =
        open(&both).unwrap().check_matched(&["model.layers.0.mlp.up_proj.weight".to_owned()]).unwrap_err();
    assert!(error.to_string().contains(&format!("{Q}.weight")), "{error}");
}

#[test]
fn folders_that_hold_no_adapter_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Lora::open(path).unwrap_err();
    assert!(open(&folder.path().join("none")).to_string().contains("not a folder"));
    assert!(open(folder.path()).to_string().contains(CONFIG));
    std::fs::write(folder.path().join(CONFIG), r#"{"peft_type": "LORA"}"#).unwrap();
    assert!(open(folder.path()).to_string().contains(WEIGHTS));
    std::fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
    assert!(open(folder.path()).to_string().contains("pickle"));
    std::fs::write(folder.path().join(WEIGHTS), b"\xff\xff\xff\xff\xff\xff\xff\xff{}").unwrap();
    open(folder.path());
    std::fs::write(folder.path().join(CONFIG), "[").unwrap();
    assert!(open(folder.path()).to_string().contains(CONFIG));
}
