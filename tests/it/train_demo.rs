//! The program that trains the demo model: its gradients, its optimizer, its generator; and that what lies in `suites/demo`
//! is what it writes.

#![allow(dead_code)]

#[path = "../../examples/train_demo/fused.rs"]
mod fused;
#[path = "../../examples/train_demo/model.rs"]
mod model;
#[path = "../../examples/train_demo/optimizer.rs"]
mod optimizer;
#[path = "../../examples/train_demo/suite.rs"]
mod suite;
#[path = "../../examples/train_demo/tokenizer.rs"]
mod tokenizer;
#[path = "../../examples/train_demo/training.rs"]
mod training;
#[path = "../../examples/train_demo/world/mod.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor, Var};

use self::{
    model::Shape,
    optimizer::{Settings, State},
    suite::DemoSuite,
    world::{Dice, TOPICS, World},
};

fn demo_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/demo")
}

fn world() -> World {
    World::new().unwrap()
}

/// Values near normal, the same in every run.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut dice = Dice::new(seed);
    (0..count).map(|_| (0..6).map(|_| dice.uncounted() as f32 - 0.5).sum::<f32>()).collect()
}

/// Holds every gradient of `of`, a scalar, against central differences in f32.
#[track_caller]
fn check_gradients(shapes: &[&[usize]], of: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>) {
    let inputs: Vec<Var> = (1..)
        .zip(shapes)
        .map(|(seed, shape)| {
            let values = values(shape.iter().product(), seed);
            Var::from_tensor(&Tensor::from_vec(values, *shape, &Device::Cpu).unwrap()).unwrap()
        })
        .collect();
    let tensors: Vec<Tensor> = inputs.iter().map(|input| input.as_tensor().clone()).collect();
    let gradients = of(&tensors).unwrap().backward().unwrap();
    for (which, input) in inputs.iter().enumerate() {
        let gradient: Vec<f32> = gradients.get(input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let at: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();
        for i in 0..at.len() {
            let moved = |by: f32| {
                let mut values = at.clone();
                values[i] += by;
                let mut moved = tensors.clone();
                moved[which] = Tensor::from_vec(values, input.shape(), &Device::Cpu).unwrap();
                f64::from(of(&moved).unwrap().to_scalar::<f32>().unwrap())
            };
            let step = 1e-2;
            let difference = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let off = (difference - f64::from(gradient[i])).abs();
            assert!(
                off < 2e-3 * (1.0 + difference.abs()),
                "input {which}, {i}: {difference} against {}",
                gradient[i]
            );
        }
    }
}

/// A scalar in which every element counts differently.
fn weighted_sum(x: &Tensor) -> candle_core::Result<Tensor> {
    let weights = Tensor::from_vec(values(x.elem_count(), 99), x.shape(), &Device::Cpu)?;
    (x * weights)?.sum_all()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    check_gradients(&[&[3, 8], &[8]], |x| {
        weighted_sum(&x[0].apply_op2(&x[1], fused::RmsNorm { eps: 1e-6 })?)
    });
    check_gradients(&[&[2, 4, 4]], |x| weighted_sum(&x[0].apply_op1(fused::CausalSoftmax { scale: 0.7 })?));
    check_gradients(&[&[2, 3, 6]], |x| {
        weighted_sum(&x[0].apply_op1(fused::Rotate { theta: 100.0, direction: 1.0 })?)
    });
    check_gradients(&[&[3, 5], &[3, 5]], |x| weighted_sum(&x[0].apply_op2(&x[1], fused::SwiGlu)?));
    check_gradients(&[&[3, 5]], |x| x[0].apply_op1(fused::CrossEntropy::new(vec![4, fused::IGNORED, 0])));
}

#[test]
fn cross_entropy_of_equal_logits_is_the_logarithm_of_their_number() {
    let logits = Tensor::zeros((2, 7), candle_core::DType::F32, &Device::Cpu).unwrap();
    let loss = logits.apply_op1(fused::CrossEntropy::new(vec![3, 6])).unwrap().to_scalar::<f32>().unwrap();
    assert!((f64::from(loss) - 2.0 * 7f64.ln()).abs() < 1e-5);
}

const SETTINGS: Settings = Settings {
    peak: 0.1,
    floor: 0.1,
    warmup: 4,
    steps: 24,
    beta_1: 0.9,
    beta_2: 0.98,
    eps: 1e-8,
    weight_decay: 0.5,
    clip: 1.0,
};

#[test]
fn the_first_step_of_adamw_is_the_rate_against_each_sign() {
    let rate = SETTINGS.rate(0);
    let state = |decays| State { values: vec![2.0, -3.0], first: vec![0.0; 2], second: vec![0.0; 2], decays };
    let mut states = [state(true), state(false)];
    let norm = optimizer::step(&SETTINGS, 0, &mut states, &[vec![30.0, -40.0], vec![0.0, 0.0]]);
    assert!((norm - 50.0).abs() < 1e-9);
    // First and second moment, without bias, are g and g²: each value moves by the rate, after its decay.
    let expected = [2.0 * (1.0 - rate * 0.5) - rate, -3.0 * (1.0 - rate * 0.5) + rate];
    for (value, expected) in states[0].values.iter().zip(expected) {
        assert!((f64::from(*value) - expected).abs() < 1e-6, "{value} against {expected}");
    }
    assert_eq!(states[1].values, [2.0, -3.0]);
    // A gradient of norm 50 is clipped to 1: moments are those of 0.6 and -0.8.
    assert!((states[0].first[0] - 0.06).abs() < 1e-7 && (states[0].second[1] - 0.02 * 0.64).abs() < 1e-7);
}

#[test]
fn the_rate_rises_then_falls_along_half_a_cosine() {
    let rates: Vec<f64> = (0..=24).map(|step| SETTINGS.rate(step)).collect();
    assert!(
        (rates[0] - 0.025).abs() < 1e-12 && (rates[3] - 0.1).abs() < 1e-12 && (rates[4] - 0.1).abs() < 1e-12
    );
    assert!((rates[14] - (0.01 + 0.09 * 0.5)).abs() < 1e-12, "half way: {}", rates[14]);
    assert!((rates[24] - 0.01).abs() < 1e-12);
    assert!(rates[4..].windows(2).all(|pair| pair[1] <= pair[0]));
}

#[test]
fn a_run_that_was_stopped_goes_on_as_if_it_had_not() {
    let world = world();
    let tokenizer = tokenizers::Tokenizer::from_file(demo_files().join("tokenizer.json")).unwrap();
    let shape = Shape {
        vocab_size: tokenizer.get_vocab_size(true),
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        max_position_embeddings: 24,
    };
    let train = |folder: &Path, steps| {
        let settings = Settings { steps, warmup: 1, peak: 1e-2, floor: 1.0, ..SETTINGS };
        let mut run = training::Run::resume(folder, shape, settings, 3).unwrap();
        run.train(&world, &tokenizer, folder).unwrap();
        run.states.into_iter().flat_map(|state| state.values).collect::<Vec<f32>>()
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let in_one_go = train(whole.path(), 4);
    let first = train(parts.path(), 2);
    assert_ne!(first, in_one_go);
    assert_eq!(train(parts.path(), 4), in_one_go);
}

#[test]
fn a_documents_cost_is_minus_the_logarithm_of_its_probability() {
    let world = world();
    let dice = &mut Dice::new(5);
    let draws = 400_000;
    let mut seen: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for _ in 0..draws {
        let document = world.document(dice);
        let (count, nats) = seen.entry(document.text).or_insert((0, document.nats));
        *count += 1;
        // Two ways to one text would make each look rarer than the text is.
        assert!((*nats - document.nats).abs() < 1e-9);
    }
    let mut checked = 0;
    for (text, (count, nats)) in &seen {
        let expected = f64::from(draws) * (-nats).exp();
        if expected < 30.0 {
            continue;
        }
        checked += 1;
        let deviations = (*count as f64 - expected) / expected.sqrt();
        assert!(deviations.abs() < 5.5, "{count} of {expected}: {text}");
    }
    assert!(checked > 100, "only {checked} texts came often enough");
}

#[test]
fn every_language_says_everything() {
    let world = world();
    for language in &world.languages {
        let dice = &mut Dice::new(1);
        for topic in TOPICS {
            for _ in 0..200 {
                let quiz = world.quiz(language, topic, dice);
                let options: BTreeSet<&String> = quiz.wrong.iter().chain([&quiz.right]).collect();
                assert_eq!(options.len(), quiz.wrong.len() + 1, "{}: {}", language.code, quiz.question);
            }
        }
        let riddle = world.riddle(language, dice);
        assert!(!riddle.wrong.is_empty() && !riddle.wrong.contains(&riddle.right));
    }
}

#[test]
fn no_training_document_holds_what_the_suite_holds_out() {
    let world = world();
    let suite = DemoSuite::new(&world);
    let stories: BTreeSet<&str> = suite
        .languages
        .iter()
        .flat_map(|language| &language.stories)
        .map(|story| story.text.as_str())
        .collect();
    let sums: BTreeSet<String> = suite
        .sums
        .iter()
        .filter(|(_, sum)| matches!(sum.digits, 2 | 3))
        .map(|(_, sum)| sum.asked())
        .collect();
    let dice = &mut Dice::new(6);
    for _ in 0..100_000 {
        let text = world.document(dice).text;
        assert!(!stories.contains(text.as_str()), "{text}");
        let asked =
            text.lines().filter_map(|line| line.split_once(" = ")).any(|(asked, _)| sums.contains(asked));
        assert!(!asked, "{text}");
    }
}

#[test]
fn a_worked_sum_adds_up() {
    let world = world();
    let dice = &mut Dice::new(7);
    for digits in 1..=4 {
        for _ in 0..500 {
            let sum = world.unseen_sum(digits, dice);
            for part in sum.worked().split(" = ") {
                let total: u64 = part.split(" + ").map(|number| number.parse::<u64>().unwrap()).sum();
                assert_eq!(total, sum.a + sum.b, "{}", sum.worked());
            }
        }
    }
}

#[test]
fn the_suite_is_what_the_program_writes() {
    let folder = tempfile::tempdir().unwrap();
    DemoSuite::new(&world()).write(folder.path()).unwrap();
    let mut compared = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let (new, old) = (std::fs::read(&path).unwrap(), std::fs::read(demo_files().join(name)).unwrap());
        assert!(new == old, "suites/demo/{} is not what train_demo writes", name.display());
        compared += 1;
    }
    assert_eq!(compared, 1 + 3 * 9 + 1);
}

#[test]
fn the_tokenizer_is_what_the_program_trains() {
    let trained = tokenizer::train(&world()).unwrap();
    let stored = tokenizers::Tokenizer::from_file(demo_files().join("tokenizer.json")).unwrap();
    assert_eq!(trained.to_string(false).unwrap(), stored.to_string(false).unwrap());
}
