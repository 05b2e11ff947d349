//! The full coverage study: every estimator of `stats` against simulated studies with a known truth.
//!
//! `cargo run --release --example coverage [STUDIES]`; the seed comes from `QEVAL_COVERAGE_SEED`. Prints a line
//! for each cell and exits with 1 if one misses what is required of it; the last lines, of which nothing is
//! required, show where the limits are. 2000 studies (the default) take some minutes; with so many the
//! simulation's own standard error is 0.5 points, so that at another seed a line may miss by luck.

#![allow(clippy::print_stdout)]

use std::process::ExitCode;

use rayon::prelude::*;
// What the included file takes from its parent module.
use qeval::stats::{Bootstrap, ClusterSums, Estimate, PairedScore, PairedScores, Resampling, clustered_t};

#[path = "../src/stats/coverage_tests.rs"]
mod simulation;

use simulation::{Cell, Estimator, Outcome, STUDIES, Shape};

/// Clusters, items in each, correlation of two items of one.
const INDEPENDENT: [(u32, u32, f64); 5] =
    [(100, 1, 0.0), (200, 1, 0.0), (500, 1, 0.0), (2000, 1, 0.0), (10_000, 1, 0.0)];
const CLUSTERED: [(u32, u32, f64); 9] = [
    (20, 5, 0.1),
    (20, 50, 0.02),
    (50, 8, 0.1),
    (50, 20, 0.05),
    (50, 40, 0.02),
    (100, 10, 0.1),
    (200, 10, 0.1),
    (450, 2, 0.2),
    (250, 24, 0.05),
];

fn main() -> ExitCode {
    let studies = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(STUDIES);
    let seed = std::env::var("QEVAL_COVERAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{studies} studies each, seed {seed}; coverage of 95 % intervals (tests: 1 - false alarms)\n");
    println!(
        "estimator             clusters size  corr  base flips  loss |  covers  below  above   none | required"
    );
    let mut misses = 0;
    let required = grid().into_iter().map(|cell| (cell, cell.required()));
    let beyond = beyond().into_iter().map(|cell| (cell, (0.0, 1.0)));
    for (cell, (lowest, highest)) in required.chain(beyond) {
        let outcome = run(&cell, studies, seed);
        let fine = (lowest..=highest).contains(&outcome.coverage());
        misses += usize::from(!fine);
        let percent = |count: u64| 100.0 * count as f64 / studies as f64;
        println!(
            "{:<21} {:>8} {:>4} {:>5} {:>5} {:>5} {:>5} | {:>6.2}  {:>5.2}  {:>5.2}  {:>5.2} | {:.1} to {:.1}{}",
            format!("{:?}", cell.estimator),
            cell.clusters,
            cell.size,
            cell.correlation,
            cell.base,
            cell.flips,
            cell.loss,
            100.0 * outcome.coverage(),
            percent(outcome.below),
            percent(outcome.above),
            percent(outcome.without),
            100.0 * lowest,
            100.0 * highest,
            if fine { "" } else { "  MISSED" },
        );
    }
    println!("\n{misses} cells miss what is required");
    ExitCode::from(u8::from(misses > 0))
}

fn run(cell: &Cell, studies: u64, seed: u64) -> Outcome {
    let share = studies.div_ceil(64);
    (0..64_u64)
        .into_par_iter()
        .map(|part| cell.run((part * share).min(studies), ((part + 1) * share).min(studies), seed))
        .reduce(Outcome::default, |a, b| Outcome {
            covered: a.covered + b.covered,
            above: a.above + b.above,
            below: a.below + b.below,
            without: a.without + b.without,
        })
}

fn grid() -> Vec<Cell> {
    let mut cells = Vec::new();
    let designs = || INDEPENDENT.into_iter().chain(CLUSTERED);
    for estimator in [
        Estimator::Difference,
        Estimator::Recovery,
        Estimator::RecoveryAboveChance,
        Estimator::Accuracy,
        Estimator::PartialScores,
        Estimator::WeightedTasks,
        Estimator::Test,
    ] {
        for (clusters, size, correlation) in designs() {
            for (base, flips, loss) in shares(estimator) {
                cells.push(Cell { estimator, clusters, size, correlation, base, flips, loss });
            }
        }
    }
    for shape in [Shape::Normal, Shape::Skewed, Shape::HeavyTail] {
        cells.extend(means(Estimator::Mean(shape)));
    }
    cells.extend(means(Estimator::MeanByT(Shape::Normal)));
    cells
}

fn means(estimator: Estimator) -> impl Iterator<Item = Cell> {
    let (size, correlation, base, flips, loss) = (1, 0.0, 0.0, 0.0, 0.0);
    [20, 50, 100, 200].into_iter().map(move |clusters| Cell {
        estimator,
        clusters,
        size,
        correlation,
        base,
        flips,
        loss,
    })
}

/// What nothing is required of, to show where the limits are: the clustered t interval of skewed clusters (it
/// only stands in where the bootstrap degenerates), and flips that come in so few large clumps (20 that are worth
/// seven independent ones) that the sample hardly shows how they clump.
fn beyond() -> Vec<Cell> {
    let by_t = [Shape::Skewed, Shape::HeavyTail].map(Estimator::MeanByT);
    let mut cells: Vec<Cell> = by_t.into_iter().flat_map(means).collect();
    for (clusters, size, correlation) in [(20, 50, 0.05), (50, 40, 0.05), (50, 20, 0.1)] {
        for loss in [0.5, 0.8, 1.0] {
            let (base, flips) = (0.5, 0.01);
            cells.push(Cell {
                estimator: Estimator::Difference,
                clusters,
                size,
                correlation,
                base,
                flips,
                loss,
            });
        }
    }
    cells
}

/// Base's accuracy, flips and the share of them that is lost, which must fit into what is right and wrong.
fn shares(estimator: Estimator) -> Vec<(f64, f64, f64)> {
    match estimator {
        Estimator::Test => vec![(0.5, 0.01, 0.5), (0.5, 0.1, 0.5)],
        Estimator::Accuracy => vec![(0.5, 0.1, 0.5), (0.95, 0.01, 0.5)],
        Estimator::PartialScores | Estimator::WeightedTasks => {
            vec![(0.5, 0.01, 0.5), (0.5, 0.01, 0.8), (0.95, 0.1, 0.8)]
        }
        _ => vec![
            (0.5, 0.01, 0.5),
            (0.5, 0.01, 0.8),
            (0.5, 0.1, 0.5),
            (0.5, 0.1, 0.8),
            (0.95, 0.01, 0.5),
            (0.95, 0.01, 0.8),
            (0.95, 0.1, 0.6),
            (0.95, 0.1, 0.8),
        ],
    }
}
