//! The named pre-tokenizers of llama.cpp: which regular expressions cut a text before byte-pair merging.
//!
//! It knows nothing of vocabularies and merges. Source of names, patterns and flags: llama.cpp,
//! `src/llama-vocab.cpp` (`llm_tokenizer_bpe` and `llama_vocab::impl::load`) and `src/unicode.cpp`
//! (`unicode_regex_split`), as of 2026. llama.cpp applies the patterns of a name one after another; each cuts
//! every piece so far into its matches and what lies between them. Where `unicode.cpp` replaces a pattern by
//! hand-written code, or its `std::regex` reads a class differently, the pattern here says what that code
//! *does*: non-ASCII white space never matches a literal class, `\d` is ASCII, `\p{Lu}` and its like mean any
//! letter.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// What `tokenizer.ggml.pre` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// Applied one after another, each to the pieces that the one before left.
    pub(super) patterns: &'static [&'static str],
    /// A piece that is a token as a whole is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether BOS is put first where `tokenizer.ggml.add_bos_token` is silent.
    pub(super) adds_bos: bool,
}

/// Why a name cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// llama.cpp does not know the name either (as of the version read for this file).
    Unknown,
    /// llama.cpp knows the name, but merges raw UTF-8 instead of the byte-level alphabet there.
    RawUtf8,
}

/// The pre-tokenizer called `name` in `tokenizer.ggml.pre`.
pub(super) fn find(name: &str) -> Result<PreTokenizer, Unserved> {
    let (patterns, ignore_merges, adds_bos): (&[&str], bool, bool) = match name {
        "default" => (DEFAULT, false, false),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
        | "jina-v5-nano" => (LLAMA3, true, true),
        "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => (LLAMA3, false, false),
        "minicpm5" => (MINICPM5, true, false),
        "jais-2" => (JAIS2, false, false),
        "deepseek-llm" => (DEEPSEEK_LLM, false, false),
        "deepseek-coder" => (DEEPSEEK_CODER, false, false),
        "deepseek-v3" | "hunyuan-dense" | "hy_v4" | "joyai-llm" => (DEEPSEEK_V3, false, false),
        "spark2_5" => (SPARK, false, false),
        "youtu" => (YOUTU, true, false),
        "falcon" => (FALCON, false, false),
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => (STARCODER, false, false),
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "jina-v1-en" | "jina-v2-es"
        | "jina-v2-de" | "jina-v2-code" | "roberta-bpe" | "a.x-4.0" | "mellum" | "modern-bert" | "mpt"
        | "olmo" | "jais" | "exaone4" | "trillion" | "granite-docling" => (GPT2, false, false),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan"
        | "solar-open" | "grok-2" => (QWEN2, false, false),
        "qwen35" => (QWEN35, false, false),
        "ufakzeka" => (UFAKZEKA, false, false),
        "laguna" => (LAGUNA, false, false),
        "bloom" | "poro-chat" | "gpt3-finnish" => (BLOOM, false, false),
        "viking" => (VIKING, false, false),
        "tekken" => (TEKKEN, true, true),
        "chameleon" => (CHAMELEON, false, true),
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => (GPT4O, false, false),
        "granite-embed-multi-97m" => (GRANITE_EMBEDDING, true, false),
        "tiny_aya" | "cohere2moe" => (TINY_AYA, false, false),
        "kimi-k2" => (KIMI_K2, false, false),
        "superbpe" => (SUPERBPE, false, false),
        "bailingmoe" | "bailingmoe2" | "llada-moe" => (BAILING, false, false),
        "seed-coder" => (SEED_CODER, false, false),
        "afmoe" => (AFMOE, false, false),
        "exaone-moe" => (EXAONE_MOE, false, false),
        "gemma4" | "granite-embed-multi-311m" | "sarvam-moe" | "whitespace" => return Err(Unserved::RawUtf8),
        _ => return Err(Unserved::Unknown),
    };
    Ok(PreTokenizer { patterns, ignore_merges, adds_bos })
}

impl PreTokenizer {
    /// The splits, then the byte-level alphabet, then the removal of bytes that have no token.
    ///
    /// llama.cpp writes nothing for a byte whose character is not in the vocabulary, and merges nothing
    /// across it; `without_token` are those characters of the byte-level alphabet.
    ///
    /// # Errors
    /// A pattern does not compile; that is a defect of this file.
    pub(super) fn build(&self, without_token: &[char]) -> tokenizers::Result<PreTokenizerWrapper> {
        let mut steps = Vec::with_capacity(self.patterns.len().saturating_add(2));
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
        }
        steps.push(ByteLevel::new(false, false, false).into());
        if !without_token.is_empty() {
            let class: String = without_token.iter().map(|c| format!("\\x{{{:X}}}", u32::from(*c))).collect();
            let pattern = SplitPattern::Regex(format!("[{class}]"));
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Removed, false)?.into());
        }
        Ok(Sequence::new(steps).into())
    }
}

/// English contractions, ASCII letters of either case only (`(?i:...)` would also take U+017F for `s`).
macro_rules! contraction {
    () => {
        r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
    };
}

/// Runs of white space: up to the last line end, then all but the space before a word, then the rest.
macro_rules! white_space {
    () => {
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    };
}

/// Letters with at most one other character before them, digits as given, the rest with its line ends.
macro_rules! words {
    ($digits:literal) => {
        concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|", $digits, r"| ?[^\s\p{L}\p{N}]+[\r\n]*|", white_space!())
    };
}

/// Words that change from `$upper` to `$lower` once, with their contraction; then as `words`.
macro_rules! cased_words {
    ($upper:literal, $lower:literal, $ending:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?",
            $upper,
            "*",
            $lower,
            "+",
            $ending,
            r"|[^\r\n\p{L}\p{N}]?",
            $upper,
            "+",
            $lower,
            "*",
            $ending,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|",
            white_space!()
        )
    };
}

/// `contraction`, or nothing.
macro_rules! optional_contraction {
    () => {
        concat!("(?:", contraction!(), ")?")
    };
}

/// An ASCII sign with the ASCII letters behind it; words with their marks; signs with their line ends.
macro_rules! signs_and_words {
    ($signs:literal, $white_space:expr) => {
        concat!(
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
            $signs,
            "|",
            $white_space
        )
    };
}

/// Unicode script Han as `unicode_cpt_is_han` bounds it, for use inside a class.
macro_rules! han {
    () => {
        concat!(
            r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}",
            r"\x{2B820}-\x{2CEAF}\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
        )
    };
}

/// GPT-2's own pattern.
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// A run of digits in threes counted from its end, the first with all that stands before it: the hand-written
/// `unicode_regex_split_custom_afmoe` does not cut there, though the models' own patterns do.
const DIGITS_FROM_THE_END: &str = r"(?<!\P{N})\P{N}*+\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
/// Chinese and Japanese syllables.
const CHINESE_AND_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
/// DeepSeek's "CJK" class. U+0800 to U+4E00 spans white space, which llama.cpp has replaced before it looks.
const DEEPSEEK_CJK: &str = r"[[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]&&[^\s]]+";
/// Lines and line ends apart.
const LINES: &str = r"[^\n]+|[\n]+";

const GPT2: &[&str] = &[GPT2_WORDS];
const STARCODER: &[&str] = &[r"\p{N}", GPT2_WORDS];
const DEFAULT: &[&str] = &[r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];
const FALCON: &[&str] = &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2_WORDS, "[0-9][0-9][0-9]"];
const LLAMA3: &[&str] = &[concat!(contraction!(), "|", words!(r"\p{N}{1,3}"))];
const QWEN2: &[&str] = &[concat!(contraction!(), "|", words!(r"\p{N}"))];
const UFAKZEKA: &[&str] = &[words!(r"\p{N}")];
const MINICPM5: &[&str] = &[r"\p{N}{1,3}", concat!(contraction!(), "|", words!(r"\p{N}+"))];
const LAGUNA: &[&str] = &[LINES, concat!(contraction!(), "|", words!(r"\p{N}"))];
const QWEN35: &[&str] = &[concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
    white_space!()
)];
const JAIS2: &[&str] = &[concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)",
    r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
)];
const BAILING: &[&str] = &[concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)];
const SEED_CODER: &[&str] =
    &[concat!(contraction!(), r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|", white_space!())];
const EXAONE_MOE: &[&str] = &[concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?",
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)];
const TEKKEN: &[&str] = &[cased_words!(r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]", "", r"\p{N}")];
const GPT4O: &[&str] =
    &[cased_words!(r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]", optional_contraction!(), r"\p{N}{1,3}")];
const GRANITE_EMBEDDING: &[&str] = &[cased_words!(
    r"[[\p{L}\p{M}]&&[^a-z]]",
    r"[[\p{L}\p{M}]&&[^A-Z]]",
    optional_contraction!(),
    r"\p{N}{1,3}"
)];
const TINY_AYA: &[&str] = &[
    DIGITS_FROM_THE_END,
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        optional_contraction!(),
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|",
        white_space!()
    ),
];
const YOUTU: &[&str] = &[
    concat!(
        r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+",
        r"|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C}",
        r"\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+",
        r"|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
    ),
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        optional_contraction!(),
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|",
        white_space!()
    ),
];
const KIMI_K2: &[&str] = &[concat!(
    "[",
    han!(),
    r"]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^",
    han!(),
    "]]+",
    optional_contraction!(),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|",
    white_space!()
)];
const SUPERBPE: &[&str] = &[r"\p{N}+", "(?=([0-9]{3})+(?![0-9]))"];
const BLOOM_WORDS: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";
const BLOOM: &[&str] = &[BLOOM_WORDS];
const VIKING: &[&str] = &[BLOOM_WORDS, r"\p{N}"];
const CHAMELEON: &[&str] = &[
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    GPT2_WORDS,
];
const DEEPSEEK_V3: &[&str] =
    &[r"\p{N}{1,3}", CHINESE_AND_KANA, signs_and_words!(r" ?[\p{P}\p{S}]+[\r\n]*", white_space!())];
const SPARK: &[&str] = &[
    r"\p{N}{1,3}",
    CHINESE_AND_KANA,
    signs_and_words!(r" ?[\p{P}\p{S}]+", r"[\r\n]|\s+(?!\S)|\s+"),
    r"\p{N}",
];
const AFMOE: &[&str] = &[
    DIGITS_FROM_THE_END,
    concat!(
        r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}",
        r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}",
        r"\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
    ),
    signs_and_words!(r" ?[\p{P}\p{S}]+[\r\n]*", white_space!()),
];
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"];
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    // Latin, Greek, Cyrillic and the other scripts with case, as the model's authors listed them.
    concat!(
        r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}",
        r"\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
        r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}",
        r"\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}",
        r"\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
        r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}",
        r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
        r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}",
        r"\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}",
        r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
        r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
        r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}",
        r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}",
        r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
    ),
    // The authors' class begins its last range at U+3000, the ideographic space: see the head of this file.
    r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3001}-\x{3002}]+",
    r"\s+$",
    DEEPSEEK_CJK,
    r"\p{N}+",
];
