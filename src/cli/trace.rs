//! `qeval trace`: one sequence through one model, written as safetensors.

use super::{Outcome, TraceArgs, models, terminal};
use crate::{
    cousin::Recipe,
    error::{Error, Result},
    evaluate::trace,
};

pub(super) fn command(args: &TraceArgs, quiet: bool) -> Result<Outcome> {
    let device = models::device(&args.device)?;
    let opening = models::Opening { device: &device, activations: args.activations.mode() };
    let model = models::open_alone(&Recipe::parse(&args.model)?, opening)?;
    let tokens = match &args.text {
        None => args.tokens.clone(),
        Some(text) => {
            let tokenizer = model.tokenizer.as_ref().ok_or_else(|| {
                Error::file(&args.model, "has no tokenizer", "give ids instead: --tokens 1,2,3")
            })?;
            let mut tokens: Vec<u32> = tokenizer.bos().into_iter().collect();
            tokens.extend(tokenizer.encode(text)?.ids);
            tokens
        }
    };
    let traced = trace::trace(&model.decoder, &tokens)?;
    trace::write(&traced, &tokens, &args.out)?;
    let layers = model.decoder.config.num_hidden_layers();
    terminal::note(
        &format!("{}: {} tokens, {} hidden states, logits", args.out.display(), tokens.len(), layers + 1),
        quiet,
    );
    Ok(Outcome::Done)
}
