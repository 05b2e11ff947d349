//! All models' answers to all questions, and base's own answers under every cousin.

use super::{
    answers::{self, SideAnswers},
    models::{Foreign, Models},
    workload::{Tasks, Workload},
    writing::{self, Answers, WritingOptions},
};
use crate::{
    checkpoint::generation::GenerationDefaults,
    error::Result,
    evaluate::{self, Base, Observations, Settings},
    model::Decoder,
    progress::Progress,
    suite::Request,
    tokenizer::Tokenizer,
};

/// What one model wrote, prompt by prompt.
pub(super) type WrittenAnswers = Vec<Answers>;

/// What is asked, and how.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub tasks: &'a Tasks,
    pub options: &'a WritingOptions,
    /// Base's, for all models.
    pub defaults: &'a GenerationDefaults,
    /// Prompts end inside a block of reasoning.
    pub opened: bool,
    pub progress: &'a dyn Progress,
}

impl Asking<'_> {
    /// Lets one model answer the prompts that are cut for its tokenizer.
    pub(super) fn write(
        &self,
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        work: &Workload,
    ) -> Result<WrittenAnswers> {
        if work.prompts.is_empty() {
            return Ok(Vec::new());
        }
        let asked = (self.tasks, work.prompts.as_slice());
        writing::answer((decoder, tokenizer), asked, self.defaults, self.options, self.opened, self.progress)
    }
}

/// One side's answers from a pass (`quant`: which cousin, `None`: base) and from what it wrote.
pub(super) fn of_pass(
    tasks: &Tasks,
    work: &Workload,
    observations: &Observations,
    quant: Option<usize>,
    written: Option<&WrittenAnswers>,
) -> SideAnswers {
    let base = observations.base_tokens.as_slice();
    let written = written.map(|answers| (work.prompts.as_slice(), answers.as_slice()));
    match quant.and_then(|index| observations.quants.get(index)) {
        None => answers::gather(tasks, base, &|index| (base[index].nll, base[index].top1), written),
        Some(quant) => {
            let quant = quant.tokens.as_slice();
            answers::gather(tasks, base, &|index| (quant[index].nll, quant[index].top1), written)
        }
    }
}

/// The same where nothing was asked but what is answered by writing: token records are then those of traces.
pub(super) fn written_only(tasks: &Tasks, work: &Workload, written: Option<&WrittenAnswers>) -> SideAnswers {
    let written = written.map(|answers| (work.prompts.as_slice(), answers.as_slice()));
    answers::gather(tasks, &[], &|_| (f64::NAN, 0), written)
}

/// A cousin of another vocabulary, measured on its own.
pub(super) struct ForeignRun {
    pub answers: SideAnswers,
    /// Its text, cut so that every byte is scored, as is base's; `None` where a tokenizer has no token to start from.
    pub text: Option<(Observations, Observations)>,
}

/// Runs one such cousin through everything that can be compared. `cut` cuts the tasks for a tokenizer; `cut_text` cuts
/// text alone, every byte scored.
pub(super) fn foreign(
    foreign: &Foreign,
    models: &Models,
    base_text: Option<&[Request]>,
    (work, text): (&Workload, Option<&[Request]>),
    asking: Asking,
    settings: &Settings,
) -> Result<ForeignRun> {
    let alone = |decoder: &Decoder, requests: &[Request]| {
        let settings = Settings {
            probe_tokens: Some(0),
            probe_linears: false,
            compare_weights: false,
            ..settings.clone()
        };
        let vocabulary = decoder.config.vocab_size;
        evaluate::run(Base::Model(decoder), &[], requests, vocabulary, &settings, asking.progress)
    };
    let decoder = &foreign.model.decoder;
    // Its text is measured below, in the way in which both can be compared.
    let questions = alone(decoder, &work.requests[work.text_requests..])?;
    let written = asking.write(decoder, &foreign.tokenizer, work)?;
    let answers = of_pass(asking.tasks, work, &questions, None, Some(&written));
    let text = match (models.base.model(), base_text, text) {
        (Some(base), Some(of_base), Some(own)) if !own.is_empty() => {
            Some((alone(&base.decoder, of_base)?, alone(decoder, own)?))
        }
        _ => None,
    };
    Ok(ForeignRun { answers, text })
}
