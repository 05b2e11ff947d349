//! Sample files of lm-evaluation-harness: writing a run in its form, reading runs, pairing two of them.
//!
//! What a model answered to each document is kept in `samples_<task>.jsonl`, one row per document and filter,
//! next to `results.json`. The form and its hashes are those of lm-evaluation-harness 0.4.13 (`evaluator.py`,
//! `result_schema.py`, `loggers/evaluation_tracker.py`); files of versions back to 0.4.0 are read as well.
//! Nothing here knows a model: two files that other programs wrote can be compared.

mod digest;
mod json;
mod pair;
mod parse;
mod read;
mod row;
mod write;

#[cfg(test)]
mod tests;

pub use json::Json;
pub use pair::{Aggregate, Paired, PairedItem, PairedTask, pair};
pub use read::{SampleFile, SampleTask, read};
pub use write::{AggregateMetric, MetricValue, Run, SampleRow, TaskRun, write};
