//! qeval: know exactly what quantization cost your model.
//!
//! A base model and its quantized cousins move through the same text, layer by
//! layer, together; what differs is measured on the spot. See ARCHITECTURE.md.
//!
//! Stations, in the order of a run: [`cli`] parses, [`checkpoint`] reads headers,
//! [`tokenizer`] and [`suite`] make requests, [`model`] decodes and computes, [`cousin`]
//! makes variants of a model, [`quantize`] writes one down,
//! ([`demo`] has a small one of each,)
//! [`evaluate`] runs the pass, [`metrics`] and [`stats`] reduce, [`comparison`]
//! is saved, [`report`] draws it.

pub mod checkpoint;
pub mod cli;
pub mod comparison;
pub mod cousin;
pub mod demo;
pub mod error;
pub mod evaluate;
pub mod format;
pub mod gate;
pub mod hub;
pub mod metrics;
pub mod minifloat;
pub mod model;
pub mod observation;
pub mod pattern;
pub mod progress;
pub mod quantize;
pub mod report;
pub mod samples;
pub mod stats;
pub mod suite;
pub mod tokenizer;

pub use error::{Error, Result};
