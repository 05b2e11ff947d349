//! llama.cpp's saved logits in place of base: the layout from its definition, the figures against the model itself.

use std::{io::Write, path::Path};

use candle_core::Device;
use qeval::{checkpoint::Checkpoint, evaluate::trace, model::Decoder, tokenizer::Tokenizer};

use crate::support::{compare, demo_cousin, demo_text, demo_weights, refusal};

const N_CTX: usize = 128;
const CHUNKS: usize = 12;

/// Writes the file as llama.cpp's `perplexity.cpp` does: 16 nats below the best are the floor, 65 535 steps above it.
/// Returns the mean nll of the targets, none counted as more than the floor, and how many are beyond it.
fn write_logits(path: &Path, model: &Path, text: &str) -> (f64, usize) {
    let checkpoint = Checkpoint::open(model).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let vocabulary = config.vocab_size;
    let tokenizer = Tokenizer::of(&checkpoint).unwrap().unwrap();
    let decoder = Decoder::open(&checkpoint, config, &Device::Cpu).unwrap();
    let mut tokens = vec![tokenizer.bos().unwrap()];
    tokens.extend(tokenizer.encode(text).unwrap().ids);
    tokens.truncate(N_CTX * CHUNKS);
    let mut file = std::fs::File::create(path).unwrap();
    let mut put = |bytes: &[u8]| file.write_all(bytes).unwrap();
    put(b"_logits_");
    [N_CTX, vocabulary, CHUNKS].iter().for_each(|n| put(&(*n as i32).to_le_bytes()));
    tokens.iter().for_each(|id| put(&(*id as i32).to_le_bytes()));
    let (mut nll, mut beyond) = (0.0, 0);
    for window in tokens.chunks(N_CTX) {
        let mut window = window.to_vec();
        window[0] = tokenizer.bos().unwrap();
        let logits = trace::trace(&decoder, &window).unwrap().logits.to_vec2::<f32>().unwrap();
        for (row, target) in logits[N_CTX / 2..N_CTX - 1].iter().zip(&window[N_CTX / 2 + 1..]) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let min = row.iter().copied().fold(f32::INFINITY, f32::min).max(max - 16.0);
            let log_sum = row.iter().map(|z| f64::from(z - max).exp()).sum::<f64>().ln() as f32;
            let below = f64::from(max - row[*target as usize]);
            nll += below.min(16.0) + f64::from(log_sum);
            beyond += usize::from(below > 16.0);
            let scale = (max - min) / 65_535.0;
            put(&scale.to_le_bytes());
            put(&(min - max - log_sum).to_le_bytes());
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for z in row {
                put(&((if *z > min { (z - min) * inverse + 0.5 } else { 0.0 }) as u16).to_le_bytes());
            }
            if vocabulary % 2 == 1 {
                put(&[0, 0]);
            }
        }
    }
    (nll / (CHUNKS * (N_CTX - N_CTX / 2 - 1)) as f64, beyond)
}

#[test]
fn a_logits_file_stands_in_for_its_model() {
    let text_path = demo_text();
    let text = std::fs::read_to_string(&text_path).unwrap();
    let out = tempfile::tempdir().unwrap();
    let logits = out.path().join("base.logits");
    let base = demo_weights();
    let quants = ["q8_0", "q4_0", "bf16"].map(demo_cousin);
    let (clipped_nll, beyond) = write_logits(&logits, &base, &text);
    assert!(beyond > 0, "some targets are beyond what the file can say");
    let from_file = compare(&logits, &quants, &[]);
    let (window, windows) = (N_CTX.to_string(), CHUNKS.to_string());
    let from_model = compare(
        &base,
        &quants,
        &[
            "--text",
            text_path.to_str().unwrap(),
            "--protocol",
            "llama.cpp",
            "--window",
            &window,
            "--max-windows",
            &windows,
            "--no-noise-floor",
        ],
    );
    assert!(
        from_file.warnings.iter().any(|warning| warning.contains("16 nats")),
        "the clipping is explained"
    );
    assert_eq!(from_file.protocol.name, "llama.cpp");
    for (file, model) in from_file.quants.iter().zip(&from_model.quants) {
        let (file, model) = (&file.overall, &model.overall);
        assert_eq!(file.scored_tokens, CHUNKS * (N_CTX - N_CTX / 2 - 1));
        assert_eq!(file.scored_tokens, model.scored_tokens);
        assert!((file.quant_nll.value - model.quant_nll.value).abs() < 1e-12, "the quant itself is the same");
        // 16 bits over 16 nats: the file's own noise, of the order of 1e-5 nats.
        assert!((file.base_nll.value - clipped_nll).abs() < 1e-4);
        assert!(file.base_nll.value < model.base_nll.value, "no target counts as worse than it is");
        assert!((file.kl_divergence.mean.value - model.kl_divergence.mean.value).abs() < 5e-5);
        assert!((file.top1_agreement.value - model.top1_agreement.value).abs() < 2e-3);
        assert!(file.base_bits_per_byte.is_none(), "the text is not in the file");
    }
}

#[test]
fn a_damaged_logits_file_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("base.logits");
    let text = std::fs::read_to_string(demo_text()).unwrap();
    write_logits(&path, &demo_weights(), &text);
    let whole = std::fs::read(&path).unwrap();
    let quant = demo_cousin("q8_0");
    for length in [8, 19, 20, 500, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let said = refusal([
            "compare".as_ref(),
            path.as_os_str(),
            quant.as_os_str(),
            "--out".as_ref(),
            out.path().join("run").as_os_str(),
        ]);
        assert!(said.contains("base.logits"), "{said}");
    }
    // An id outside the vocabulary.
    let mut wrong = whole.clone();
    wrong[20..24].copy_from_slice(&i32::MAX.to_le_bytes());
    std::fs::write(&path, &wrong).unwrap();
    let run = out.path().join("run");
    let said =
        refusal(["compare".as_ref(), path.as_os_str(), quant.as_os_str(), "--out".as_ref(), run.as_os_str()]);
    assert!(said.contains("outside its vocabulary"), "{said}");
    // A text beside a file that brings its own tokens.
    std::fs::write(&path, &whole).unwrap();
    let said = refusal([
        "compare".as_ref(),
        path.as_os_str(),
        quant.as_os_str(),
        "--suite".as_ref(),
        "perplexity".as_ref(),
        "--out".as_ref(),
        run.as_os_str(),
    ]);
    assert!(said.contains("--suite"), "{said}");
    assert!(!run.exists(), "nothing was created");
}
