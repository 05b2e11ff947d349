//! The benchmarks that are known: what each is, where it is published, how its records become questions.

use super::build::{Draw, Recipe, Variant};
use super::files::Split::{self, Dev, Test, Train, Validation};
use super::{
    Benchmark, Output, Parts, generation, languages, multilingual, multiple_choice as choice, subjects,
    wikitext,
};

const TRAIN: &[Split] = &[Train];
const TEST_FIRST: &[Split] = &[Test, Validation, Dev];
const VALIDATION_FIRST: &[Split] = &[Validation, Dev];

/// What most have in common.
const PLAIN: Recipe = Recipe {
    scored: TEST_FIRST,
    shots: TRAIN,
    draw: Draw::Random,
    few_shot: true,
    noise: "",
    columns: None,
    part_fields: &[],
    id: "id",
    expand: std::convert::identity,
    variants: &[],
};

/// Every benchmark, in the order of the documentation.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "hellaswag",
        about: "how an everyday scene goes on, four endings",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "Rowan/hellaswag",
        config: "",
        splits: "validation, train",
        license: "MIT",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            id: "ind",
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: choice::hellaswag }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "arc_easy",
        about: "school science that word statistics answer, mostly four options",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "allenai/ai2_arc",
        config: "ARC-Easy",
        splits: "test, train",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: choice::arc }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "arc_challenge",
        about: "school science that word statistics do not answer, mostly four options",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "allenai/ai2_arc",
        config: "ARC-Challenge",
        splits: "test, train",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: choice::arc }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "mmlu",
        about: "exam questions in 57 subjects, answered by letter; the first examples of dev are shown",
        parts: Parts::Subjects(subjects::MMLU),
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "cais/mmlu",
        config: "",
        splits: "test, dev",
        license: "MIT",
        recipe: Recipe {
            scored: &[Test, Validation],
            shots: &[Dev],
            draw: Draw::First,
            columns: Some(&["question", "A", "B", "C", "D", "answer"]),
            part_fields: &["subject"],
            variants: &[Variant { suffix: "", frame: choice::about_subject, item: choice::mmlu }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "winogrande",
        about: "which of two a sentence means, by partial evaluation",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "allenai/winogrande",
        config: "winogrande_xl",
        splits: "validation, train",
        license: "CC-BY-4.0",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            id: "qID",
            variants: &[Variant { suffix: "", frame: choice::acc, item: choice::winogrande }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "piqa",
        about: "how to do everyday things, two ways",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "baber/piqa",
        config: "",
        splits: "validation, train",
        license: "AFL-3.0",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: choice::piqa }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "boolq",
        about: "yes or no, after a passage; questions on one passage are a cluster",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "google/boolq, or aps/super_glue (boolq)",
        config: "boolq",
        splits: "validation, train",
        license: "CC-BY-SA-3.0",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            id: "idx",
            variants: &[Variant { suffix: "", frame: choice::acc, item: choice::boolq }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "openbookqa",
        about: "elementary science put to use, four options",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "allenai/openbookqa",
        config: "main",
        splits: "test, train",
        license: "Apache-2.0",
        recipe: Recipe {
            noise: "openbook qa",
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: choice::openbookqa }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "lambada",
        about: "the last word of a passage, which only the whole passage tells",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Continuation,
        dataset: "EleutherAI/lambada_openai",
        config: "default",
        splits: "test",
        license: "MIT",
        recipe: Recipe {
            noise: "openai standard",
            variants: &[Variant { suffix: "", frame: choice::last_word, item: choice::lambada }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "truthfulqa",
        about: "questions that common errors answer wrongly; one right option (mc1) and several (mc2); six worked \
                examples are part of every question",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "truthfulqa/truthful_qa",
        config: "multiple_choice",
        splits: "validation",
        license: "Apache-2.0",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            few_shot: false,
            noise: "mc task",
            variants: &[
                Variant { suffix: "_mc1", frame: choice::acc, item: choice::truthfulqa_mc1 },
                Variant { suffix: "_mc2", frame: choice::right_share, item: choice::truthfulqa_mc2 },
            ],
            ..PLAIN
        },
    },
    Benchmark {
        name: "gsm8k",
        about: "grade school arithmetic in words, worked out in writing",
        parts: Parts::One,
        language: "en",
        num_fewshot: 5,
        output: Output::Generation,
        dataset: "openai/gsm8k",
        config: "main",
        splits: "test, train",
        license: "MIT",
        recipe: Recipe {
            variants: &[Variant { suffix: "", frame: generation::gsm8k_frame, item: generation::gsm8k }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "math",
        about: "competition mathematics in seven subjects and five levels; answers are compared by patterns and \
                common spellings, which knows fewer equal answers than the authors' normal form",
        parts: Parts::Subjects(subjects::MATH),
        language: "en",
        num_fewshot: 0,
        output: Output::Generation,
        dataset: "EleutherAI/hendrycks_math",
        config: "",
        splits: "test, train",
        license: "MIT",
        recipe: Recipe {
            noise: "hendrycks",
            part_fields: &["type", "subject"],
            id: "unique_id",
            variants: &[Variant { suffix: "", frame: generation::math_frame, item: generation::math }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "mgsm",
        about: "250 questions of GSM8K in 11 languages, answered directly",
        parts: Parts::Languages(languages::MGSM),
        language: "mul",
        num_fewshot: 0,
        output: Output::Generation,
        dataset: "juletxara/mgsm",
        config: "",
        splits: "test, train",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            noise: "direct",
            columns: Some(&["question", "answer_number"]),
            part_fields: &["language", "lang"],
            variants: &[Variant { suffix: "", frame: multilingual::mgsm_frame, item: multilingual::mgsm }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "xcopa",
        about: "cause or effect of a premise in 11 languages, two options",
        parts: Parts::Languages(languages::XCOPA),
        language: "mul",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "cambridgeltl/xcopa",
        config: "",
        splits: "test, validation",
        license: "CC-BY-4.0",
        recipe: Recipe {
            shots: &[Train, Validation],
            part_fields: &["language", "lang"],
            id: "idx",
            variants: &[Variant { suffix: "", frame: choice::acc, item: multilingual::xcopa }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "belebele",
        about: "reading comprehension in 122 languages, answered by letter; questions on one passage are a \
                cluster in all languages; worked examples are the first records, which are then not asked",
        parts: Parts::Languages(languages::BELEBELE),
        language: "mul",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "facebook/belebele",
        config: "",
        splits: "test",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            draw: Draw::First,
            part_fields: &["dialect", "language", "lang"],
            variants: &[Variant { suffix: "", frame: choice::acc_and_norm, item: multilingual::belebele }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "xnli",
        about: "whether one sentence follows from another, in 15 languages; the validation split is asked, as \
                lm-evaluation-harness does",
        parts: Parts::Languages(languages::XNLI),
        language: "mul",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "facebook/xnli",
        config: "",
        splits: "validation, train",
        license: "CC-BY-NC-4.0",
        recipe: Recipe {
            scored: &[Validation, Dev, Test],
            part_fields: &["language", "lang"],
            expand: multilingual::one_language_each,
            variants: &[Variant { suffix: "", frame: choice::acc, item: multilingual::xnli }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "xquad",
        about: "questions on a passage in 12 languages, answered in its words; questions on one passage are a \
                cluster in all languages",
        parts: Parts::Languages(languages::XQUAD),
        language: "mul",
        num_fewshot: 0,
        output: Output::Generation,
        dataset: "google/xquad",
        config: "",
        splits: "validation",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            scored: &[Validation, Dev, Test],
            part_fields: &["language", "lang"],
            expand: generation::one_question_each,
            variants: &[Variant { suffix: "", frame: generation::squad_frame, item: multilingual::xquad }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "squad",
        about: "questions on a passage, answered in its words (\"unanswerable\" where SQuAD 2.0 has no answer); \
                questions on one passage are a cluster",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Generation,
        dataset: "rajpurkar/squad",
        config: "plain_text",
        splits: "validation, train",
        license: "CC-BY-SA-4.0",
        recipe: Recipe {
            scored: VALIDATION_FIRST,
            noise: "v1 v2 1 0",
            expand: generation::one_question_each,
            variants: &[Variant { suffix: "", frame: generation::squad_frame, item: generation::squad }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "cmmlu",
        about: "Chinese exam questions in 67 subjects, answered by letter; the first examples of dev are shown",
        parts: Parts::Subjects(subjects::CMMLU),
        language: "zh",
        num_fewshot: 0,
        output: Output::Choice,
        dataset: "haonan-li/cmmlu",
        config: "",
        splits: "test, dev",
        license: "CC-BY-NC-4.0",
        recipe: Recipe {
            scored: &[Test],
            shots: &[Dev],
            draw: Draw::First,
            columns: Some(&["Question", "A", "B", "C", "D", "Answer"]),
            part_fields: &["subject"],
            variants: &[Variant { suffix: "", frame: multilingual::cmmlu_frame, item: multilingual::cmmlu }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "bbh",
        about: "27 hard tasks of BIG-Bench, asked directly (the authors' worked chains of thought are not \
                included); letters, numbers and yes or no are taken out by a pattern alone, which finds fewer \
                answers than lm-evaluation-harness",
        parts: Parts::Subjects(subjects::BBH),
        language: "en",
        num_fewshot: 0,
        output: Output::Generation,
        dataset: "SaylorTwift/bbh",
        config: "",
        splits: "test",
        license: "MIT",
        recipe: Recipe {
            noise: "zeroshot",
            part_fields: &["task", "subset"],
            variants: &[Variant { suffix: "", frame: generation::bbh_frame, item: generation::bbh }],
            ..PLAIN
        },
    },
    Benchmark {
        name: "wikitext",
        about: "pages of Wikipedia, every token; words and bytes are counted before detokenizing",
        parts: Parts::One,
        language: "en",
        num_fewshot: 0,
        output: Output::Rolling,
        dataset: "EleutherAI/wikitext_document_level",
        config: "wikitext-2-raw-v1",
        splits: "test",
        license: "CC-BY-SA-3.0",
        recipe: Recipe {
            few_shot: false,
            noise: "wiki",
            expand: wikitext::one_page_each,
            variants: &[Variant { suffix: "", frame: wikitext::frame, item: wikitext::item }],
            ..PLAIN
        },
    },
];
