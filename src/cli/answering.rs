//! All models' answers to all questions, and base's own answers under every cousin.

use super::{
    answers::{self, SideAnswers},
    models::Foreign,
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
    /// Its text, cut so that every byte is scored; `None` where its tokenizer has no token to start from.
    pub text: Option<Observations>,
}

/// A pass of one model by itself, without a look at its layers.
pub(super) fn alone(
    decoder: &Decoder,
    requests: &[Request],
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Observations> {
    let vocabulary = decoder.config.vocab_size;
    evaluate::run(Base::Model(decoder), &[], requests, vocabulary, settings, progress)
}

/// Runs one such cousin through everything that can be compared: what was asked, and `text`, of which every byte is
/// scored. `settings` without probes.
pub(super) fn foreign(
    foreign: &Foreign,
    (work, text): (&Workload, Option<&[Request]>),
    asking: Asking,
    settings: &Settings,
) -> Result<ForeignRun> {
    let decoder = &foreign.model.decoder;
    // Its text is measured apart, in the way in which both can be compared.
    let questions = alone(decoder, &work.requests[work.text_requests..], settings, asking.progress)?;
    let written = asking.write(decoder, &foreign.tokenizer, work)?;
    let answers = of_pass(asking.tasks, work, &questions, None, Some(&written));
    let own = text.filter(|text| !text.is_empty());
    let text = own.map(|text| alone(decoder, text, settings, asking.progress)).transpose()?;
    Ok(ForeignRun { answers, text })
}
