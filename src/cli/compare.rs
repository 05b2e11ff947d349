//! `qeval compare` and `qeval eval`: the whole road, station by station.

use std::{path::Path, time::Instant};

use clap::ValueEnum;

use super::{
    CompareArgs, Document, Measuring, Outcome, Probe, ProbeTokens,
    answering::{self, Asking, ForeignRun, WrittenAnswers},
    answers::SideAnswers,
    assemble::{self, Measured},
    conversation::{self, Conversation},
    gate::{self, GateOptions, Telling, Told},
    lm_eval_output, memory,
    models::{self, BaseModel, Models},
    resolve, sample_files, selection, terminal,
    workload::{self, Cutting, Tasks, Workload},
    writing::{self, WritingOptions},
};
use crate::{
    comparison::{Comparison, Provenance, RoundingNoise, TaskCard},
    cousin::Recipe,
    error::{Error, Result},
    evaluate::{self, Base, Observations, Settings, observations::QuantObservations},
    metrics::vocabulary::PositionReduction,
    model::{Decoder, Rounding},
    progress::Progress,
    report::{self, TokenTable, Written},
    suite::{Content, Converse, Protocol, Request, Suite, Turn, question::QuestionKind},
    tokenizer::Tokenizer,
};

/// Runs the command.
pub(super) fn command(args: &CompareArgs, quiet: bool) -> Result<Outcome> {
    let GateOptions { gate, against, inconclusive } = &args.gate;
    // A policy that cannot be read is known before anything is measured.
    let prepared = gate.as_deref().map(|policy| gate::prepare(policy, against.as_deref())).transpose()?;
    let (comparison, written) = match args.samples {
        true => sample_files::run(args)?,
        false => run(args, &terminal::Bar::new(quiet))?,
    };
    let Some(prepared) = prepared else { return finish(&comparison, &written, &args.measuring, quiet) };
    // Where a document is printed, it is all that is printed; JUnit is the gate's own.
    let how = match (args.measuring.printing.format, args.measuring.json) {
        (Some(Document::Junit), _) => Told::Junit,
        (None, false) => Told::Text,
        _ => Told::Nothing,
    };
    if how == Told::Junit {
        terminal::written(&written, quiet);
    } else {
        // Whether everything was measured is for the gate to say.
        finish(&comparison, &written, &args.measuring, quiet)?;
    }
    let telling = Telling { how, junit: None, quiet };
    prepared.hold(&comparison, &written.folder, *inconclusive, &telling)
}

/// Prints a comparison, and says whether everything was measured.
pub(super) fn finish(
    comparison: &Comparison,
    written: &Written,
    args: &Measuring,
    quiet: bool,
) -> Result<Outcome> {
    match (args.printing.format, args.json) {
        (Some(document), _) => {
            terminal::bytes(&super::printed(comparison, document, &args.printing.table, "release")?);
        }
        (None, true) => terminal::print_json(comparison),
        (None, false) => terminal::text(&report::summary::terminal(comparison, 80)),
    }
    terminal::written(written, quiet);
    Ok(if comparison.unmeasured() == 0 { Outcome::Done } else { Outcome::NotMeasured })
}

/// Compares, writes the output folder, and returns both.
///
/// # Errors
/// Anything that keeps it from measuring; nothing that looks complete is left behind.
pub fn run(args: &CompareArgs, progress: &dyn Progress) -> Result<(Comparison, Written)> {
    let quants = args.quants.iter().map(|path| resolve::model(path, args.selection.offline, progress));
    let quants: Vec<Recipe> = quants.collect::<Result<_>>()?;
    let mut recipes = Vec::new();
    for recipe in quants {
        let slices: Vec<Recipe> = args.slice_bits.iter().map(|bits| recipe.sliced(*bits)).collect();
        recipes.push(recipe);
        recipes.extend(slices);
    }
    let look = Look {
        probe: args.probe,
        probe_tokens: args.probe_tokens,
        noise_floor: !args.no_noise_floor,
        hash: !args.no_hash,
    };
    measure(&args.base, &recipes, (&args.selection, &args.measuring), look, progress)
}

/// What is looked at beside tokens and answers.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub probe: Probe,
    pub probe_tokens: ProbeTokens,
    pub noise_floor: bool,
    pub hash: bool,
}

/// Measures `base`, and every cousin against it (none: base alone).
///
/// # Errors
/// Anything that keeps it from measuring; nothing that looks complete is left behind.
pub(super) fn measure(
    base: &Path,
    recipes: &[Recipe],
    (selection, args): (&selection::Selection, &Measuring),
    look: Look,
    progress: &dyn Progress,
) -> Result<(Comparison, Written)> {
    let started = Instant::now();
    let created_utc = utc_now();
    let device = models::device(&args.device)?;
    let mut suites = selection::load(selection, args.seed, progress)?;
    tracing::info!("opening models");
    let opening = models::Opening { device: &device, activations: args.activations.mode() };
    let mut models = models::open(&resolve::model(base, selection.offline, progress)?, recipes, opening)?;
    let protocol = protocol(args, &models)?;
    let conversation = match models.base.model() {
        Some(model) => Conversation::of(model, &models.tokenizer, args.chat)?,
        None => None,
    };
    if conversation.as_ref().is_some_and(|conversation| conversation.thinking.is_some()) {
        conversation::strip_thinking(&mut suites);
        leave_room_for_thinking(&mut suites, selection.max_new_tokens.is_some());
    }
    let given = !selection.suite.is_empty() || !selection.text.is_empty() || !selection.data.is_empty();
    let tasks =
        Tasks { suites: if matches!(models.base, BaseModel::Logits(_)) { Vec::new() } else { suites } };
    let workload = workload(&tasks, &protocol, &models, conversation.as_ref(), args, given)?;
    models::check_vocabularies(&mut models, &workload.ids(), &tasks.texts())?;
    // Before anything is measured, and after everything that can be refused without measuring.
    report::prepare(&args.out, args.force)?;
    models.warn_of_long_windows(protocol.longest_input());
    if let Some(conversation) = &conversation {
        models.warnings.extend(conversation.notes());
    }
    let clusters = tasks.clusters();
    let plan = plan(args, look, &mut models, &workload);
    let options = writing_options(args);
    let defaults = writing::defaults(models.base.model())?;
    let opened = conversation.as_ref().is_some_and(Conversation::opens_thinking);
    let asking = Asking { tasks: &tasks, options: &options, defaults: &defaults, opened, progress };

    let base_written = match models.base.model() {
        Some(model) => asking.write(&model.decoder, &models.tokenizer, &workload)?,
        None => Vec::new(),
    };
    let traces = writing::traces(&workload.prompts, &base_written);
    // Where all is written, what was written is also what is looked at.
    let (requests, text_requests) = match workload.requests.is_empty() {
        true => (&traces, 0),
        false => (&workload.requests, workload.text_requests),
    };
    tracing::info!(chunk_tokens = plan.settings.chunk_tokens, requests = requests.len(), "measuring");
    let base_side = match &models.base {
        BaseModel::Model(model) => Base::Model(&model.decoder),
        BaseModel::Logits(file) => Base::Logits(file),
    };
    let pass = |requests: &[Request], settings: &Settings| {
        evaluate::run(base_side, &plan.quants, requests, models.vocabulary, settings, progress)
    };
    let observations = pass(requests, &plan.settings)?;
    let traced = match (traces.is_empty() || plan.quants.is_empty(), workload.requests.is_empty()) {
        (true, _) | (false, true) => None,
        (false, false) => Some(pass(&traces, &without_probes(&plan.settings))?),
    };
    let mut quants_written: Vec<Option<WrittenAnswers>> = Vec::with_capacity(plan.quants.len());
    for (index, decoder) in plan.quants.iter().enumerate() {
        // The noise floor does not write: its answers would cost as much as a cousin's.
        let is_cousin = index < models.quants.len();
        quants_written
            .push(is_cousin.then(|| asking.write(decoder, &models.tokenizer, &workload)).transpose()?);
    }
    let rounding_noise = match look.noise_floor {
        true => rounding_noise(&plan, requests, text_requests, &observations, models.vocabulary, progress)?,
        false => Vec::new(),
    };
    let (foreign_base_text, foreign) =
        foreign(&models, &protocol, conversation.as_ref(), (&tasks, args), asking, &plan.settings)?;

    let answered = !workload.requests.is_empty() || !workload.prompts.is_empty();
    let of = |quant: Option<usize>, written: Option<&WrittenAnswers>| -> SideAnswers {
        // Traces are not answers.
        match workload.requests.is_empty() {
            true => answering::written_only(&tasks, &workload, written),
            false => answering::of_pass(&tasks, &workload, &observations, quant, written),
        }
    };
    let base_answers = answered.then(|| of(None, Some(&base_written)));
    let quant_answers: Vec<SideAnswers> =
        quants_written.iter().enumerate().map(|(index, written)| of(Some(index), written.as_ref())).collect();
    let provenance = Provenance {
        qeval_version: env!("CARGO_PKG_VERSION").to_owned(),
        candle_version: candle_version().to_owned(),
        created_utc,
        command_line: std::env::args().collect(),
        seed: args.seed,
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: args.device.clone(),
        threads: rayon::current_num_threads(),
        compute: format!(
            "weights decoded to f32, products in f32, reductions in f64; --activations {}",
            args.activations
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned())
        ),
        wall_seconds: started.elapsed().as_secs_f64(),
        floating_point_operations: observations.floating_point_operations,
        chunk_tokens: plan.settings.chunk_tokens,
    };
    let measured = Measured {
        models: &models,
        protocol: &protocol,
        requests,
        text_requests,
        clusters: &clusters,
        cards: &workload.cards,
        tasks: &tasks,
        quants: &plan.quants,
        observations: &observations,
        traced: traced
            .as_ref()
            .or((workload.requests.is_empty() && !traces.is_empty()).then_some(&observations)),
        rounding_noise: &rounding_noise,
        base_answers: base_answers.as_ref(),
        quant_answers: &quant_answers,
        foreign: &foreign,
        foreign_base_text: foreign_base_text.as_ref(),
        opened,
        asking: asking_in_words(&tasks, conversation.as_ref(), &options, &defaults),
        provenance,
        hash: look.hash,
    };
    if let (Some(folder), Some(base_answers)) = (&args.lm_eval, &base_answers) {
        lm_eval_output::write(folder, &measured, &workload, base_answers, conversation.as_ref())?;
    }
    let comparison = assemble::comparison(measured)?;
    let written = write(args, &comparison, &observations)?;
    Ok((comparison, written))
}

/// A reasoning model needs more than what a short answer needs.
fn leave_room_for_thinking(suites: &mut [Suite], stated: bool) {
    const THINKING_TOKENS: usize = 2048;
    for task in suites.iter_mut().flat_map(|suite| &mut suite.tasks) {
        if let Content::Questions(questions) = &mut task.content
            && let QuestionKind::Generation(settings) = &mut questions.kind
            && !stated
        {
            settings.max_new_tokens = settings.max_new_tokens.max(THINKING_TOKENS);
        }
    }
}

fn writing_options(args: &Measuring) -> WritingOptions {
    WritingOptions {
        draws: args.draws,
        temperature: args.temperature,
        top_p: args.top_p,
        batch: args.batch,
        memory: args.memory,
        seed: args.seed,
    }
}

/// How questions were put and answers written, for the report; `None` where nothing was asked.
fn asking_in_words(
    tasks: &Tasks,
    conversation: Option<&Conversation>,
    options: &WritingOptions,
    defaults: &crate::checkpoint::generation::GenerationDefaults,
) -> Option<String> {
    tasks.iter().find(|(_, task)| task.questions().is_some())?;
    let mut words = match conversation {
        None => "plain text".to_owned(),
        Some(conversation) if conversation.choices => "conversations by base's chat template".to_owned(),
        Some(_) => "choices as plain text, written answers by base's chat template".to_owned(),
    };
    let generation = tasks.iter().find_map(|(_, task)| match &task.questions()?.kind {
        QuestionKind::Generation(settings) => Some(settings),
        _ => None,
    });
    if let Some(settings) = generation {
        words += match settings.sampling {
            None => "; greedy answers",
            Some(_) => "; drawn answers",
        };
        if options.draws > 0 || settings.sampling.is_some() {
            let drawn = writing::sampling(options, settings, defaults);
            words += &format!(
                ", {} draws at temperature {} and top-p {}, the same dice for all models",
                options.draws.max(settings.repeats),
                drawn.temperature,
                drawn.top_p
            );
        }
    }
    Some(words)
}

/// Base's text with every byte scored, and each cousin of another vocabulary on its own.
fn foreign(
    models: &Models,
    protocol: &Protocol,
    conversation: Option<&Conversation>,
    (tasks, args): (&Tasks, &Measuring),
    asking: Asking,
    settings: &Settings,
) -> Result<(Option<Observations>, Vec<ForeignRun>)> {
    let (Some(base), false) = (models.base.model(), models.foreign.is_empty()) else {
        return Ok((None, Vec::new()));
    };
    let settings = without_probes(settings);
    // Every byte must be scored to be compared: rolling windows from a prefix token.
    let rolling = Protocol::LmEval { max_length: protocol.longest_input() };
    let text = |tokenizer: &Tokenizer, max_length: usize| -> Result<Option<Vec<Request>>> {
        if tokenizer.prefix().is_none() {
            return Ok(None);
        }
        let cutting =
            Cutting { protocol: &rolling, max_windows: None, max_length, chat: None, chat_choices: false };
        let mut work = workload::cut(&tasks.text_only(), tokenizer, cutting)?;
        work.requests.truncate(work.text_requests);
        Ok(Some(work.requests))
    };
    let base_text = text(&models.tokenizer, base.decoder.config.max_position_embeddings)?
        .filter(|text| !text.is_empty())
        .map(|text| answering::alone(&base.decoder, &text, &settings, asking.progress))
        .transpose()?;
    let mut runs = Vec::with_capacity(models.foreign.len());
    for foreign in &models.foreign {
        let max_length = foreign.model.decoder.config.max_position_embeddings;
        // Its own template, as it would be used; the same choice of when.
        let own = match conversation {
            Some(_) => Conversation::of(&foreign.model, &foreign.tokenizer, args.chat)?,
            None => None,
        };
        let writer = own.as_ref().map(|own| move |turns: &[Turn]| own.write(turns));
        let cutting = Cutting {
            protocol,
            max_windows: args.max_windows,
            max_length,
            chat: writer.as_ref().map(|write| write as Converse),
            chat_choices: own.as_ref().is_some_and(|own| own.choices),
        };
        let work = workload::cut(tasks, &foreign.tokenizer, cutting)?;
        let own_text = text(&foreign.tokenizer, max_length)?;
        runs.push(answering::foreign(foreign, (&work, own_text.as_deref()), asking, &settings)?);
    }
    Ok((base_text, runs))
}

/// Each quant that rounds its activations against itself, its embeddings moved by less than any error.
fn rounding_noise(
    plan: &Plan,
    requests: &[Request],
    text_requests: usize,
    observations: &Observations,
    vocabulary: usize,
    progress: &dyn Progress,
) -> Result<Vec<Option<RoundingNoise>>> {
    let of_text = &requests[..text_requests];
    let sample = spread(if of_text.is_empty() { requests } else { of_text }, NOISE_TOKENS);
    let settings = without_probes(&plan.settings);
    let noise = |(quant, observed): (&Decoder, &QuantObservations)| -> Result<Option<RoundingNoise>> {
        if !quant.rounds_activations() || sample.is_empty() {
            return Ok(None);
        }
        let moved = [quant.nudged()];
        let itself = evaluate::run(Base::Model(quant), &moved, &sample, vocabulary, &settings, progress)?;
        assemble::rounding_noise(&itself, observations, observed, plan.settings.seed).map(Some)
    };
    plan.quants.iter().zip(&observations.quants).map(noise).collect()
}

/// The same pass without a look at layers and weights.
fn without_probes(settings: &Settings) -> Settings {
    Settings { probe_tokens: Some(0), probe_linears: false, compare_weights: false, ..settings.clone() }
}

/// Tokens on which a cousin is compared with itself.
const NOISE_TOKENS: usize = 4096;

/// Requests evenly spread over all, of about so many tokens together.
fn spread(requests: &[Request], tokens: usize) -> Vec<Request> {
    let all: usize = requests.iter().map(|request| request.tokens.len()).sum();
    let step = (all / tokens.max(1)).max(1);
    requests.iter().step_by(step).cloned().collect()
}

/// The quants to run (the noise floor, where wanted, after all that the user named) and how.
struct Plan {
    quants: Vec<Decoder>,
    settings: Settings,
}

fn plan(args: &Measuring, look: Look, models: &mut Models, workload: &Workload) -> Plan {
    let mut quants: Vec<Decoder> = models.quants.iter().map(|quant| quant.decoder.clone()).collect();
    let base = models.base.model().map(|model| &model.decoder);
    if let Some(base) = base.filter(|_| look.noise_floor) {
        quants.push(base.with_rounding(Rounding::Bf16));
    }
    let all: Vec<&Decoder> = base.into_iter().chain(&quants).collect();
    let chunk = memory::chunk_tokens(args.memory, &all, PositionReduction::bytes(quants.len()));
    if let Some(needed) = chunk.needed_bytes {
        let (needed, allowed) = (report::format::bytes(needed), report::format::bytes(args.memory));
        models
            .warnings
            .push(format!("--memory {allowed} is less than the smallest step needs, about {needed}."));
    }
    let settings = Settings {
        chunk_tokens: chunk.tokens,
        probe_tokens: match (look.probe, look.probe_tokens) {
            (Probe::None, _) => Some(0),
            (_, ProbeTokens::All) => None,
            (_, ProbeTokens::AtLeast(tokens)) => Some(tokens),
        },
        // Layers are looked at on text, where there is any.
        probe_requests: if workload.text_requests > 0 { workload.text_requests } else { usize::MAX },
        probe_linears: look.probe == Probe::Linear,
        compare_weights: look.probe != Probe::None,
        share_prefixes: !args.no_prefix_sharing,
        seed: args.seed,
        scratch_folder: args.out.clone(),
    };
    Plan { quants, settings }
}

fn protocol(args: &Measuring, models: &Models) -> Result<Protocol> {
    // lm-eval's window is the model's own length, where it is known.
    let own_length = models
        .base
        .model()
        .filter(|_| args.protocol == "lm-eval")
        .map(|base| base.decoder.config.max_position_embeddings);
    Protocol::parse(&args.protocol, args.window.or(own_length), args.stride)
}

fn workload(
    tasks: &Tasks,
    protocol: &Protocol,
    models: &Models,
    conversation: Option<&Conversation>,
    args: &Measuring,
    given: bool,
) -> Result<Workload> {
    let tokenizer = &models.tokenizer;
    if let BaseModel::Logits(file) = &models.base {
        if given {
            return Err(Error::argument(
                "a llama.cpp logits file brings its own tokens; --suite, --data and --text cannot be used with it",
                "leave them out, or give the model itself as base",
            ));
        }
        let requests = file.requests(tokenizer.bos())?;
        let scored_tokens: usize = requests.iter().map(|request| request.scored.len()).sum();
        let tokens = file.n_ctx * file.chunks;
        let card = TaskCard {
            name: "llama.cpp logits".to_owned(),
            kind: "text".to_owned(),
            group: None,
            suite_version: 1,
            suite_sha256: String::new(),
            language: None,
            documents: 1,
            documents_dropped: 0,
            samples_cut: 0,
            samples_not_asked: 0,
            answer_tokens_cut: 0,
            left_out: Vec::new(),
            tokens,
            scored_tokens,
            unscored_tokens: tokens - scored_tokens,
            dropped_tokens: 0,
            scored_bytes: 0,
            input_sha256: None,
        };
        let text_requests = requests.len();
        return Ok(Workload { requests, prompts: Vec::new(), cards: vec![card], text_requests });
    }
    let base = models.base.model();
    let max_length = base.map_or(usize::MAX, |base| base.decoder.config.max_position_embeddings);
    let writer = conversation.map(|conversation| move |turns: &[Turn]| conversation.write(turns));
    let cutting = Cutting {
        protocol,
        max_windows: args.max_windows,
        max_length,
        chat: writer.as_ref().map(|write| write as Converse),
        chat_choices: conversation.is_some_and(|conversation| conversation.choices),
    };
    workload::cut(tasks, tokenizer, cutting)
}

fn write(args: &Measuring, comparison: &Comparison, observations: &Observations) -> Result<Written> {
    let table = TokenTable {
        tasks: comparison.tasks.iter().map(|task| task.name.clone()).collect(),
        base: observations.base_tokens.as_slice(),
        quants: comparison
            .rows()
            .zip(&observations.quants)
            .map(|(row, observed)| (row.model.label.clone(), observed.tokens.as_slice()))
            .collect(),
    };
    report::write(&args.out, comparison, Some(&table))
}
/// Now, as RFC 3339 in UTC, from the days since 1970 (civil calendar by Hinnant's algorithm).
pub(super) fn utc_now() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The tensor library's version, from the lock file that this program was built with.
pub(super) fn candle_version() -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let package = lock.split("[[package]]").find(|block| block.contains("name = \"candle-core\""));
    package.and_then(|block| block.split("version = \"").nth(1)?.split('"').next()).unwrap_or("not known")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_dates_are_well_formed() {
        assert!(candle_version().starts_with("0."), "{}", candle_version());
        let now = utc_now();
        assert_eq!(now.len(), "2026-11-21T08:00:00Z".len());
        assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");
    }
}
