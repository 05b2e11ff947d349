//! Declared activations and caches, scheme by scheme.

use super::*;
use crate::checkpoint::activations::{
    ActivationFormat, ActivationQuantization, ActivationScale, Granularity, KvCacheQuantization,
};

fn scaled(
    format: ActivationFormat,
    granularity: Granularity,
    scale: ActivationScale,
) -> Option<ActivationQuantization> {
    Some(ActivationQuantization::Scaled { format, granularity, scale })
}

fn eight_bits() -> Fixture {
    Fixture::default()
        .tensor(&named("weight"), Dtype::I8, &[2, 4], [1; 8])
        .floats(&named("weight_scale"), &[2, 1], &[1.0, 2.0])
        .floats(&named("input_scale"), &[1], &[0.25])
        .tensor(&named("input_zero_point"), Dtype::I8, &[1], [0xF6])
        .floats(&named("input_global_scale"), &[1], &[300.0])
}

#[test]
fn declared_activations_are_read() {
    let int8 = |symmetric| ActivationFormat::Int { bits: 8, symmetric };
    let dynamic = |half_range| ActivationScale::Dynamic { half_range };
    let (e4m3, e2m1) = (ActivationFormat::E4m3, ActivationFormat::E2m1);
    let args = |bits: u32, kind: &str, strategy: &str, dynamic: Json, more: Json| {
        let mut args = json!({"num_bits": bits, "type": kind, "strategy": strategy, "dynamic": dynamic,
            "observer": "minmax", "observer_kwargs": {"averaging_constant": 0.01}, "zp_dtype": null});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    for (declared, expected) in [
        (
            args(8, "int", "token", json!(true), json!({})),
            scaled(int8(true), Granularity::Token, dynamic(127.5)),
        ),
        (
            args(4, "int", "token", json!(true), json!({"symmetric": false})),
            scaled(ActivationFormat::Int { bits: 4, symmetric: false }, Granularity::Token, dynamic(7.5)),
        ),
        (
            args(8, "int", "tensor", json!(false), json!({})),
            scaled(
                int8(true),
                Granularity::Tensor,
                ActivationScale::Static { scale: 0.25, zero_point: -10.0 },
            ),
        ),
        (
            args(8, "int", "tensor", json!(false), json!({"symmetric": false})),
            scaled(
                int8(false),
                Granularity::Tensor,
                ActivationScale::Static { scale: 0.25, zero_point: -10.0 },
            ),
        ),
        (
            args(8, "float", "tensor", json!(true), json!({})),
            scaled(e4m3, Granularity::Tensor, dynamic(448.0)),
        ),
        (args(8, "float", "token", json!(true), json!({})), scaled(e4m3, Granularity::Token, dynamic(448.0))),
        (
            args(8, "float", "group", json!(true), json!({"group_size": 128})),
            scaled(e4m3, Granularity::Group(128), dynamic(448.0)),
        ),
        (
            args(8, "float", "group", json!(true), json!({"group_size": 32, "scale_dtype": "torch.uint8"})),
            scaled(e4m3, Granularity::Group(32), ActivationScale::PowerOfTwo),
        ),
        (
            args(4, "float", "group", json!(true), json!({"group_size": 32, "scale_dtype": "torch.uint8"})),
            scaled(e2m1, Granularity::Group(32), ActivationScale::PowerOfTwo),
        ),
        (
            args(
                4,
                "float",
                "tensor_group",
                json!("local"),
                json!({"group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}),
            ),
            scaled(e2m1, Granularity::Group(16), ActivationScale::Local { global: 300.0 }),
        ),
        (Json::Null, None),
    ] {
        let fixture = eight_bits().settings(settings(int(8, "channel", None, true), declared.clone()));
        let packed = fixture.matrix(MODULE).unwrap();
        assert_eq!((&packed.input, &packed.output), (&expected, &None), "{declared}");
        assert!(packed.tensors.contains(&named("input_scale")));
    }
    let mut output = settings(int(8, "channel", None, true), Json::Null);
    output["config_groups"]["group_0"]["output_activations"] =
        args(8, "float", "tensor", json!(false), json!({}));
    let output = eight_bits().floats(&named("output_scale"), &[], &[0.5]).settings(output);
    let scale = ActivationScale::Static { scale: 0.5, zero_point: 0.0 };
    assert_eq!(output.matrix(MODULE).unwrap().output, scaled(e4m3, Granularity::Tensor, scale));

    let refused = |declared: Json, fixture: Fixture| {
        fixture.settings(settings(int(8, "channel", None, true), declared)).refusal(MODULE)
    };
    let key = "`quantization_config.config_groups.group_0.input_activations`: the scheme ";
    for (declared, words) in [
        (
            args(8, "float", "group", json!(false), json!({"group_size": 128})),
            "float8, Group(128), calibrated",
        ),
        (args(16, "float", "token", json!(true), json!({})), "float16, Token, dynamic"),
        (
            args(4, "float", "tensor_group", json!(true), json!({"group_size": 16})),
            "float4, TensorGroup(16), dynamic",
        ),
        (
            args(8, "float", "token", json!(true), json!({"scale_dtype": "torch.bfloat16"})),
            "float8, Token, dynamic, scales in bfloat16",
        ),
        (args(8, "int", "attn_head", json!(false), json!({})), "int8, AttentionHead, calibrated"),
    ] {
        assert_eq!(refused(declared, eight_bits()), format!("{key}{words} is not computed by this version"));
    }
    let missing = eight_bits().without(&named("input_scale"));
    assert_eq!(
        refused(args(8, "int", "tensor", json!(false), json!({})), missing),
        format!(
            "tensor `{}`: is missing, but `config_groups.group_0.input_activations` declares that it is calibrated",
            named("input_scale")
        )
    );
    let zero = eight_bits().floats(&named("input_scale"), &[1], &[0.0]);
    assert!(
        refused(args(8, "int", "tensor", json!(false), json!({})), zero)
            .contains("row 0, column 0 is 0, expected a positive number")
    );
}

#[test]
fn declared_caches_are_read_under_every_name() {
    let attention = "model.layers.0.self_attn";
    let scheme =
        json!({"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": false, "symmetric": true});
    let with = |scheme: Json| {
        let mut settings = settings(Json::Null, Json::Null);
        settings["kv_cache_scheme"] = scheme;
        Fixture::default().floats("model.norm.weight", &[1], &[1.0]).settings(settings)
    };
    for [k, v] in [
        ["k_scale", "v_scale"],
        ["k_proj.k_scale", "v_proj.v_scale"],
        ["k_proj.output_scale", "v_proj.output_scale"],
    ] {
        let fixture = with(scheme.clone()).floats(&format!("{attention}.{k}"), &[1], &[0.5]).floats(
            &format!("{attention}.{v}"),
            &[],
            &[0.125],
        );
        let expected = KvCacheQuantization { format: ActivationFormat::E4m3, k_scale: 0.5, v_scale: 0.125 };
        assert_eq!(fixture.kv_cache(attention).unwrap(), Some(expected));
        let missing =
            fixture.without(&format!("{attention}.{v}")).kv_cache(attention).unwrap_err().to_string();
        assert!(
            missing.contains("self_attn.v_scale`: is missing, but `kv_cache_scheme` declares"),
            "{missing}"
        );
    }
    assert_eq!(with(Json::Null).kv_cache(attention).unwrap(), None);
    for (key, value) in [
        ("dynamic", json!(true)),
        ("strategy", json!("attn_head")),
        ("num_bits", json!(4)),
        ("symmetric", json!(false)),
    ] {
        let mut other = scheme.clone();
        other[key] = value;
        let error = with(other).kv_cache(attention).unwrap_err().to_string();
        assert!(
            error.contains("kv_cache_scheme`: the scheme") && error.contains("is not computed"),
            "{error}"
        );
    }
}
