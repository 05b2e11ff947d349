//! The one integration binary; this file is its table of contents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

// What the code must look like: layers, sizes, documents that are true.
mod tidy;

// Files: what is decoded, what is refused.
mod encodings;
mod hostile_files;
mod suites;
mod tokenizer_gguf;

// The decoder against other implementations.
mod architectures;
mod cousins;
mod generation;
mod gguf_architectures;
mod gguf_writer;
mod oracles;
mod packed;
mod packed_weights;
mod quantize_gguf;
mod quantize_packed;
mod simulated;
mod trace;
mod train_demo;
mod variants;

// The whole measurement against independent figures.
mod anchors;
mod identities;
mod llamacpp_figures;
mod logits_file;
mod weights_only;

// Questions: benchmarks, task files, what lm-evaluation-harness answers, chat templates, the Hub.
mod benchmarks;
mod chat_templates;
mod hub;
mod lm_eval_parity;
mod lm_eval_samples;
mod lm_eval_tasks;
mod questions;

// The program as a person meets it.
mod browser;
mod ci_files;
mod command_line;
mod demo;
mod gate;
mod refusals;
