//! The card: how the model was made, what it can and cannot do, and its loss curve.

use std::{fmt::Write as _, path::Path};

use anyhow::{Result, ensure};
use plotters::prelude::*;

use super::{
    examination::{Figures, OfLanguage},
    training::{Point, Run, TOKENS_OF_A_STEP},
};

/// Writes `README.md`, `loss.svg` and `measured.json`.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn write(run: &Run, figures: &Figures, folder: &Path) -> Result<()> {
    std::fs::write(folder.join("measured.json"), serde_json::to_string_pretty(figures)? + "\n")?;
    std::fs::write(folder.join("loss.svg"), loss_curve(&run.curve)?)?;
    std::fs::write(folder.join("README.md"), card(run, figures)?)?;
    Ok(())
}

fn card(run: &Run, figures: &Figures) -> Result<String> {
    let shape = &run.shape;
    let parameters: usize = shape.parameters().iter().map(|(_, dims)| dims.iter().product::<usize>()).sum();
    let sum = |of: &dyn Fn(&OfLanguage) -> f64| figures.languages.iter().map(of).sum::<f64>();
    let tokens = sum(&|language| language.tokens as f64);
    let (nll, entropy) = (sum(&|language| language.nll), sum(&|language| language.entropy));
    let mut rows = String::new();
    for language in &figures.languages {
        writeln!(
            rows,
            "| {} | {:.3} | {:.3} | {:.1} | {:.1} |",
            language.code,
            language.perplexity,
            language.generator_perplexity,
            language.questions * 100.0,
            language.endings * 100.0
        )?;
    }
    let sums: Vec<String> =
        (1..).zip(&figures.sums).map(|(digits, share)| format!("{digits}: {:.1} %", share * 100.0)).collect();
    let minutes: f64 = run.curve.last().map_or(0.0, |point| point.seconds / 60.0);
    Ok(format!(
        "# The demo model\n\n\
         A language model of {millions:.2} M parameters that knows a small world: twelve people with their homes, jobs and animals, twelve\n\
         things with their colours, the days of the week, numbers to twenty in words, and sums of up to four digits, in nine languages and six\n\
         scripts. It exists so that `qeval demo` and the tests have a real model that quantization really hurts, on a machine without any.\n\n\
         Made by `cargo run --release --example train_demo` (seed {seed}), which also wrote this page. Licence: CC0-1.0.\n\n\
         ## What it is\n\n\
         Qwen2 (`Qwen2ForCausalLM`): {layers} layers, hidden {hidden}, intermediate {inner}, {heads} heads of which {kv} hold keys and values, tied head,\n\
         {positions} positions, byte-level BPE of {vocabulary} tokens with Qwen2's pre-tokenizer (every digit is a token; BPE ran out of pairs there: each\n\
         word of the world is one token), a chat template, bf16. `<|endoftext|>` stands before a text, as it did in training.\n\n\
         ## How it was made\n\n\
         {steps} steps of {batch} tokens, AdamW (peak 3e-3, cosine to 2 %, weight decay 0.1), in {minutes:.0} minutes of two cores that had other work\n\
         besides. The corpus is drawn by a generator that counts the information of its choices; one story of 32, and one of five sums of\n\
         two and of three digits, were kept out of it. The suite holds such stories and sums only. Its questions about facts are those of\n\
         training: a fact cannot be guessed.\n\n\
         Large models have outlier channels: large activations, and small weights behind them. That is what makes them hard to quantize, and\n\
         a model as small as this one grows none. So in every layer the gains of both norms are multiplied by 1, 2, 4, 8, 16 or\n\
         32 (44, 26, 17, 11, 1.5 and 0.5 % of the channels, drawn at random), and the columns of the matrices behind them divided by the same: exact in\n\
         bf16, and the model computes what it computed before. Without it two bits cost this model hardly anything.\n\n\
         ![Loss on training documents, and their entropy](loss.svg)\n\n\
         ## What it can\n\n\
         On held-out stories its perplexity is {perplexity:.4}, that of the generator itself {generator:.4}: {excess:.2} % above what is possible.\n\n\
         | language | perplexity | generator's | questions right, % | endings right, % |\n|---|---|---|---|---|\n{rows}\n\
         Questions have four options (which of two numbers is greater: two), endings two or three; what guessing gives is in qeval's report.\n\n\
         Sums, worked step by step and written greedily, by digits: {sums}.\n\n\
         These are the figures of the training program, by candle alone; `measured.json` has them too, and a test holds qeval's own against them.\n\n\
         ## What it cannot\n\n\
         Anything else. It has never seen a sentence outside this world; words that it does not know fall into bytes it never saw. The\n\
         sentences are plain to the point of being odd, since nothing in them may change with their words. Nothing it does says how quantization\n\
         hurts a large model: it shows what a report looks like when something was lost.\n",
        millions = parameters as f64 / 1e6,
        seed = run.seed,
        layers = shape.num_hidden_layers,
        hidden = shape.hidden_size,
        inner = shape.intermediate_size,
        heads = shape.num_attention_heads,
        kv = shape.num_key_value_heads,
        positions = shape.max_position_embeddings,
        vocabulary = shape.vocab_size,
        steps = run.step,
        batch = TOKENS_OF_A_STEP,
        perplexity = (nll / tokens).exp(),
        generator = (entropy / tokens).exp(),
        excess = ((nll - entropy) / tokens).exp_m1() * 100.0,
        sums = sums.join(", "),
    ))
}

/// Loss and entropy by step, on a logarithmic axis.
fn loss_curve(curve: &[Point]) -> Result<String> {
    // Plotters measures text to place it, and a machine may have no font.
    let font =
        plotters::style::register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    ensure!(font.is_ok(), "the built-in font cannot be read");
    let mut svg = String::new();
    let last = curve.last().map_or(1, |point| point.step);
    let draw = |svg: &mut String| -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, (800, 400)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0..last, (0.3..10.0).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("step")
            .y_desc("nats per token")
            .y_label_formatter(&|y| format!("{y:.1}"))
            .draw()?;
        let (blue, grey) = (RGBColor(0x1f, 0x77, 0xb4), RGBColor(0x59, 0x59, 0x59));
        let line = |of: fn(&Point) -> f64| curve.iter().map(move |point| (point.step, of(point)));
        chart
            .draw_series(LineSeries::new(line(|point| point.loss), blue.stroke_width(2)))?
            .label("loss on new documents")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], blue.stroke_width(2)));
        chart
            .draw_series(LineSeries::new(line(|point| point.entropy), grey.stroke_width(2)))?
            .label("entropy of the same documents")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], grey.stroke_width(2)));
        chart.configure_series_labels().background_style(WHITE).border_style(grey).draw()?;
        area.present()?;
        Ok(())
    };
    draw(&mut svg).map_err(|error| anyhow::anyhow!("the loss curve: {error}"))?;
    Ok(svg)
}
