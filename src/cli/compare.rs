//! `qeval compare`: the whole road, station by station.

use std::{path::PathBuf, time::Instant};

use clap::ValueEnum;

use super::{
    CompareArgs, Outcome, Probe, ProbeTokens,
    assemble::{self, Measured},
    memory,
    models::{self, BaseModel, Models},
    terminal,
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
    suite::{self, Protocol, Request, Suite, TokenizedText},
};

/// Runs the command.
pub(super) fn command(args: &CompareArgs, quiet: bool) -> Result<Outcome> {
    let (comparison, written) = run(args, &terminal::Bar::new(quiet))?;
    if args.json {
        terminal::print_json(&comparison);
    } else {
        terminal::text(&report::summary::terminal(&comparison, 80));
    }
    terminal::written(&written, quiet);
    let unmeasured: usize = comparison.rows().map(|row| row.overall.non_finite_tokens).sum();
    Ok(if unmeasured == 0 { Outcome::Done } else { Outcome::NotMeasured })
}

/// The suites as one list of tasks, cut into requests.
struct Workload {
    suites: Vec<Suite>,
    requests: Vec<Request>,
    tasks: Vec<TaskCard>,
}

/// Compares, writes the output folder, and returns both.
///
/// # Errors
/// Anything that keeps it from measuring; nothing that looks complete is left behind.
pub fn run(args: &CompareArgs, progress: &dyn Progress) -> Result<(Comparison, Written)> {
    let started = Instant::now();
    let created_utc = utc_now();
    let device = models::device(&args.device)?;
    let suites = load_suites(args)?;
    tracing::info!("opening models");
    let opening = models::Opening { device: &device, activations: args.activations.mode() };
    let mut models = models::open(&Recipe::parse(&args.base)?, &recipes(args)?, opening)?;
    let protocol = protocol(args, &models)?;
    let workload = workload(suites, &protocol, &models, args)?;
    let texts: Vec<&str> = workload
        .suites
        .iter()
        .flat_map(|suite| &suite.tasks)
        .flat_map(|task| &task.documents)
        .map(|document| document.text.as_str())
        .collect();
    models::check_vocabularies(&mut models, &workload.requests, &texts)?;
    // Before anything is measured, and after everything that can be refused without measuring.
    report::prepare(&args.out, args.force)?;
    models.warn_of_long_windows(protocol.longest_input());
    let plan = plan(args, &mut models);
    tracing::info!(
        chunk_tokens = plan.settings.chunk_tokens,
        requests = workload.requests.len(),
        "measuring"
    );
    let base = match &models.base {
        BaseModel::Model(model) => Base::Model(&model.decoder),
        BaseModel::Logits(file) => Base::Logits(file),
    };
    let observations =
        evaluate::run(base, &plan.quants, &workload.requests, models.vocabulary, &plan.settings, progress)?;
    let rounding_noise = match args.no_noise_floor {
        true => Vec::new(),
        false => rounding_noise(&plan, &workload, &observations, models.vocabulary, progress)?,
    };
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
    let comparison = assemble::comparison(Measured {
        models: &models,
        protocol: &protocol,
        requests: &workload.requests,
        tasks: workload.tasks,
        quants: &plan.quants,
        observations: &observations,
        rounding_noise: &rounding_noise,
        provenance,
        hash: !args.no_hash,
    })?;
    let written = write(args, &comparison, &observations)?;
    Ok((comparison, written))
}

/// What the user named, each followed by its slices.
fn recipes(args: &CompareArgs) -> Result<Vec<Recipe>> {
    let mut recipes = Vec::new();
    for quant in &args.quants {
        let recipe = Recipe::parse(quant)?;
        let slices: Vec<Recipe> = args.slice_bits.iter().map(|bits| recipe.sliced(*bits)).collect();
        recipes.push(recipe);
        recipes.extend(slices);
    }
    Ok(recipes)
}

/// Each quant that rounds its activations against itself, its embeddings moved by less than any error.
fn rounding_noise(
    plan: &Plan,
    workload: &Workload,
    observations: &Observations,
    vocabulary: usize,
    progress: &dyn Progress,
) -> Result<Vec<Option<RoundingNoise>>> {
    let sample = spread(&workload.requests, NOISE_TOKENS);
    let settings = Settings {
        probe_tokens: Some(0),
        probe_linears: false,
        compare_weights: false,
        ..plan.settings.clone()
    };
    let noise = |(quant, observed): (&Decoder, &QuantObservations)| -> Result<Option<RoundingNoise>> {
        if !quant.rounds_activations() {
            return Ok(None);
        }
        let moved = [quant.nudged()];
        let itself = evaluate::run(Base::Model(quant), &moved, &sample, vocabulary, &settings, progress)?;
        assemble::rounding_noise(&itself, observations, observed, plan.settings.seed).map(Some)
    };
    plan.quants.iter().zip(&observations.quants).map(noise).collect()
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

fn plan(args: &CompareArgs, models: &mut Models) -> Plan {
    let mut quants: Vec<Decoder> = models.quants.iter().map(|quant| quant.decoder.clone()).collect();
    let base = models.base.model().map(|model| &model.decoder);
    if let Some(base) = base.filter(|_| !args.no_noise_floor) {
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
        probe_tokens: match (args.probe, args.probe_tokens) {
            (Probe::None, _) => Some(0),
            (_, ProbeTokens::All) => None,
            (_, ProbeTokens::AtLeast(tokens)) => Some(tokens),
        },
        probe_linears: args.probe == Probe::Linear,
        compare_weights: args.probe != Probe::None,
        seed: args.seed,
        scratch_folder: args.out.clone(),
    };
    Plan { quants, settings }
}

fn load_suites(args: &CompareArgs) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for name in &args.suite {
        suites.push(match suite::embedded(name) {
            Some(embedded) => embedded?,
            None => suite::load(&PathBuf::from(name))?,
        });
    }
    for text in &args.text {
        suites.push(suite::from_text(text)?);
    }
    if suites.is_empty()
        && let Some(default) = suite::embedded("perplexity")
    {
        suites.push(default?);
    }
    Ok(suites)
}

fn protocol(args: &CompareArgs, models: &Models) -> Result<Protocol> {
    // lm-eval's window is the model's own length, where it is known.
    let own_length = models
        .base
        .model()
        .filter(|_| args.protocol == "lm-eval")
        .map(|base| base.decoder.config.max_position_embeddings);
    Protocol::parse(&args.protocol, args.window.or(own_length), args.stride)
}

fn workload(
    suites: Vec<Suite>,
    protocol: &Protocol,
    models: &Models,
    args: &CompareArgs,
) -> Result<Workload> {
    let tokenizer = &models.tokenizer;
    if let BaseModel::Logits(file) = &models.base {
        if !args.suite.is_empty() || !args.text.is_empty() {
            return Err(Error::argument(
                "a llama.cpp logits file brings its own tokens; --suite and --text cannot be used with it",
                "leave them out, or give the model itself as base",
            ));
        }
        let requests = file.requests(tokenizer.bos())?;
        let scored_tokens: usize = requests.iter().map(|request| request.scored.len()).sum();
        let tokens = file.n_ctx * file.chunks;
        let task = TaskCard {
            name: "llama.cpp logits".to_owned(),
            suite_version: 1,
            suite_sha256: String::new(),
            language: None,
            documents: 1,
            documents_dropped: 0,
            tokens,
            scored_tokens,
            unscored_tokens: tokens - scored_tokens,
            dropped_tokens: 0,
            scored_bytes: 0,
        };
        return Ok(Workload { suites: Vec::new(), requests, tasks: vec![task] });
    }
    let tokenize = |text: &str| -> Result<TokenizedText> {
        let encoded = tokenizer.encode(text)?;
        Ok(TokenizedText { ids: encoded.ids, offsets: encoded.offsets })
    };
    let (mut requests, mut tasks) = (Vec::new(), Vec::<TaskCard>::new());
    for suite in &suites {
        let mut rendered = suite::render(suite, protocol, tokenizer.bos(), tokenizer.prefix(), &tokenize)?;
        if let Some(windows) = args.max_windows {
            rendered.keep_windows(windows);
        }
        let first_task = tasks.len() as u32;
        requests.extend(rendered.requests.into_iter().map(|mut request| {
            request.task += first_task;
            request
        }));
        tasks.extend(rendered.tasks.into_iter().map(|task| TaskCard {
            name: format!("{}/{}", suite.name, task.name),
            suite_version: suite.version,
            suite_sha256: suite.sha256.clone(),
            language: Some(task.language).filter(|language| language != "und"),
            documents: task.documents,
            documents_dropped: task.documents_dropped,
            tokens: task.tokens,
            scored_tokens: task.scored_tokens,
            unscored_tokens: task.unscored_tokens,
            dropped_tokens: task.dropped_tokens,
            scored_bytes: task.scored_bytes,
        }));
    }
    Ok(Workload { suites, requests, tasks })
}

fn write(args: &CompareArgs, comparison: &Comparison, observations: &Observations) -> Result<Written> {
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
fn utc_now() -> String {
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
fn candle_version() -> &'static str {
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
