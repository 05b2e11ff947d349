//! How long a GGUF's vocabulary takes to become a tokenizer.
//!
//! `cargo bench --bench vocabulary`; needs ../shared, and says so without it.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::{hint::black_box, path::Path};

use criterion::{Criterion, criterion_group, criterion_main};
use qeval::{
    checkpoint::gguf::Gguf,
    tokenizer::gguf::{GgufVocabulary, build},
};

fn building(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/llama.cpp-vocab");
    // 102 400 pieces by merges, 64 000 by scores.
    for name in ["deepseek-llm", "baichuan"] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        if !path.exists() {
            eprintln!("{} is not here: nothing to time", path.display());
            continue;
        }
        let header = Gguf::open(&path).unwrap();
        let vocabulary = GgufVocabulary::from_metadata(&path, &header.metadata).unwrap();
        criterion
            .bench_function(name, |bencher| bencher.iter(|| build(&path, black_box(&vocabulary)).unwrap()));
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(10); targets = building }
criterion_main!(benches);
