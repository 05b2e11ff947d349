//! GGUF vocabularies against llama.cpp: every recorded line, every named pre-tokenizer, and a plain second
//! implementation of the merging by scores. Nothing here runs a model.
//!
//! Needs ../shared: llama.cpp's vocabularies and ids.

use crate::support::shared;
use qeval::checkpoint::gguf::{Gguf, Metadata, Value};
use qeval::error::Error;
use qeval::tokenizer::gguf::{BuiltTokenizer, GgufVocabulary, build};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

/// Separator of llama.cpp's `*.gguf.inp` (tests/test-tokenizer-0.cpp).
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// Characters that GGUF files of DeepSeek carry as user-defined tokens: letters of the byte-level alphabet
/// for bytes that no UTF-8 text holds. Found in a text they are one token, whose decoding is that byte.
const DEEPSEEK_LETTERS: &str = "õ÷ÁýÀÿøúþüùöû";

fn read(path: &Path) -> GgufVocabulary {
    let header = Gguf::open(path).unwrap();
    GgufVocabulary::from_metadata(path, &header.metadata).unwrap()
}

fn load(path: &Path) -> BuiltTokenizer {
    build(path, &read(path)).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

/// The texts of a `.inp` file; what follows the last separator is nothing.
fn inputs(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.strip_suffix(SEPARATOR).unwrap();
    text.split(SEPARATOR).map(str::to_owned).collect()
}

/// The ids of a `.out` file, one line per text.
fn expected(path: &Path) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect()
}

/// The folder of llama.cpp's vocabularies: for each name, the kinds of file that are there.
fn vocabularies(folder: &Path) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let kinds = [".gguf.inp", ".gguf.out", ".gguf"];
        if let Some((stem, kind)) = kinds.iter().find_map(|kind| Some((name.strip_suffix(kind)?, *kind))) {
            found.entry(stem.to_owned()).or_default().insert(kind);
        }
    }
    found
}

fn named(found: &BTreeMap<String, BTreeSet<&'static str>>, kinds: &[&'static str]) -> Vec<String> {
    let kinds: BTreeSet<&str> = kinds.iter().copied().collect();
    found
        .iter()
        .filter(|(_, there)| **there == kinds)
        .map(|(name, _)| name.trim_start_matches("ggml-vocab-").to_owned())
        .collect()
}

#[test]
fn every_line_of_every_vocabulary_is_llama_cpps() {
    let Some(folder) = shared("data/llama.cpp-vocab") else { return };
    let found = vocabularies(&folder);
    let complete = named(&found, &[".gguf", ".gguf.inp", ".gguf.out"]);
    // A vocabulary that is added to the folder is to be listed here, in one of three ways.
    assert_eq!(
        complete,
        ["deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-spm", "phi-3", "refact", "starcoder"]
    );
    assert_eq!(named(&found, &[".gguf"]), ["baichuan", "gpt-neox"]);
    // These have texts and ids, but no vocabulary to encode with.
    assert_eq!(
        named(&found, &[".gguf.inp", ".gguf.out"]),
        ["chameleon", "command-r", "deepseek-r1-qwen", "llama-bpe", "qwen2"]
    );
    for name in complete {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let (texts, ids) =
            (inputs(&path.with_extension("gguf.inp")), expected(&path.with_extension("gguf.out")));
        assert_eq!(texts.len(), 46, "{name}");
        assert_eq!(texts.len(), ids.len(), "{name}");
        let tokenizer = load(&path).tokenizer;
        for (text, ids) in texts.iter().zip(&ids) {
            assert_eq!(encode(&tokenizer, text), *ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn vocabularies_without_recorded_ids_build_and_say_what_was_assumed() {
    let Some(folder) = shared("data/llama.cpp-vocab") else { return };
    let baichuan = load(&folder.join("ggml-vocab-baichuan.gguf"));
    assert_eq!(baichuan.warnings, Vec::<String>::new());
    assert_eq!((baichuan.bos_token_id, baichuan.adds_bos), (Some(1), true));
    let neox = load(&folder.join("ggml-vocab-gpt-neox.gguf"));
    assert_eq!(neox.warnings.len(), 1);
    assert!(neox.warnings[0].contains("names no pre-tokenizer"), "{}", neox.warnings[0]);
    // Its runs of spaces are user-defined: found in the text before it is cut, the longest (24) first.
    assert_eq!(encode(&neox.tokenizer, &" ".repeat(29)), [50254, 50273]);
    let falcon = load(&folder.join("ggml-vocab-falcon.gguf"));
    assert!(falcon.warnings[0].contains("0x03 0x04 0x05 0x0B"), "{}", falcon.warnings[0]);
    assert_eq!(encode(&falcon.tokenizer, "a\u{3}b"), encode(&falcon.tokenizer, "a\u{4}b"));
    assert_eq!(
        encode(&falcon.tokenizer, "t\u{3}he").len(),
        2,
        "nothing merges across a byte that is left out"
    );
}

#[test]
fn offsets_cover_the_text_and_decoding_gives_it_back() {
    let Some(folder) = shared("data/llama.cpp-vocab") else { return };
    let mut texts = inputs(&folder.join("ggml-vocab-gpt-2.gguf.inp"));
    texts.extend(
        ["a\u{1F999}\u{1F999}b", "한국어  नमस्ते\u{3000}", "\u{10FFFF}\u{E000}", "é"].map(str::to_owned),
    );
    for name in
        ["baichuan", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "gpt-neox", "llama-spm", "phi-3"]
            .into_iter()
            .chain(["refact", "starcoder"])
    {
        let tokenizer = load(&folder.join(format!("ggml-vocab-{name}.gguf"))).tokenizer;
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let encoding = tokenizer.encode(text.as_str(), false).unwrap();
            assert_eq!(
                gaps(text, encoding.get_offsets()),
                "",
                "{name}: {text:?} {:?}",
                encoding.get_offsets()
            );
            let letters = name.starts_with("deepseek") && text.contains(|c| DEEPSEEK_LETTERS.contains(c));
            if !letters {
                assert_eq!(tokenizer.decode(encoding.get_ids(), false).unwrap(), *text, "{name}");
            }
        }
    }
}

/// What of `text` no range covers; panics on a range that is empty, goes backwards or splits a character.
fn gaps<'a>(text: &'a str, offsets: &[(usize, usize)]) -> &'a str {
    let mut covered = 0;
    for (start, end) in offsets.iter().copied() {
        assert!(start < end && text.get(start..end).is_some(), "{start}..{end} of {text:?}");
        if start > covered {
            return &text[covered..start];
        }
        covered = covered.max(end);
    }
    &text[covered..]
}

/// Four texts and the lengths in characters of the pieces that llama.cpp's `unicode_regex_split` cuts them
/// into, for each set of patterns; one digit a piece, `a` to `z` for 10 to 35, `A` and on for 36 and more.
///
/// Recorded from llama.cpp's own `unicode.cpp` (2026). When this was written, 4 000 random and 849 real
/// texts, of characters assigned by Unicode 14, were cut in the same way under each of the names, without a
/// difference.
const CUT_TEXTS: [&str; 4] = [
    "I've seen 12345678 x'S  CaMeL\r\n\n  don'T-stop!!\n \tfin  ",
    "Führer №٣४ЖжΩ 漢字かなガ한국어、「ok」… ʰa\u{301}b नमस्ते\u{3000}x\u{A0}y  \n42。",
    "a_b==c[0]  //foo/ $3.50\t<sentinel:1>IMGIMGABZ 1234 \n\n\n  end.",
    "l'ster x  77 a    b $`c ~d",
];
const CUTS: &str = "
a.x-4.0 exaone4 gigachat gpt-2 granite-docling jais jina-de jina-es jina-v1-en jina-v2-code jina-v2-de
jina-v2-es mellum modern-bert mpt olmo phi-2 roberta-bpe trillion
= 13592111644111422132 62239222311411111112121 111211111331211211811195541 1232132323121

afmoe
= 13512332216314253142 6223182225722321 1221111133121121911a1134141 1521122323121

bailingmoe bailingmoe2 deepseek-r1-qwen f2llmv2 grok-2 hunyuan kormo llada-moe megrez qwen2 solar-open
stablelm2
= 1351111111112216314253142 62113922232421223111 12211111331211111911a111114141 123211112323121

bloom gpt3-finnish poro-chat
= 4594164b532 679141571111321 9173121l5541 621323243

chameleon
= 1125111111111211251112311141111132 621139112113114111111121111 111111111211311111111181119111111111231
= 11422112411111111

chatglm-bpe dbrx falcon-h1 falcon3 glm4 jina-v5-nano lfm2 llama-bpe llama-v3 llama3 midm-2.0 pixtral
smaug-bpe
= 13513322216314253142 622392223242122321 1221111133121121911a1314141 12321122323121

codeshell command-r exaone mellum2 minerva-7b refact smollm starcoder
= 1351111111112111644111422132 621139222311411111113111 11121111133121111118111911111541 12322112323121

cohere2moe tiny_aya
= 45123341631653142 622392225722321 1221111133121121911a1134141 3321122323121

deepseek-coder
= 11251111111112111611114111421142 61111318222311131112221111 11121111133121111281119111111111141
= 11422112323121

deepseek-llm
= 1125182111611114111421142 11411113181122211116222121 1112111113312112281119141111141 1142222323121

deepseek-v3 hunyuan-dense hy_v4 joyai-llm
= 13513322216314253142 62231532225722321 1221111133121121911a1314141 152222323121

default
= 112513322111644111422132 62239222311411111112121 111211112231111121181119131541 11421122321111111

exaone-moe
= 1351111111112216314253142 6211c222c223111 12211111331211111911a111114141 12511112323121

falcon
= 112513322111644111422132 62239222311411111112121 111211112231111121181119131541 114213232121111

gpt-4o kanana2 llama4 minimax-m2 talkie
= 4513324132131653142 622392223242122321 1221111133121121911a1314141 3321122323121

granite-embed-multi-97m
= 4513324132131653142 622392225722321 1221111133121121911a1314141 3321122323121

jais-2
= 13513322216314253142 622392223242122321 1221111133121121911a1314141 123211222123121

kimi-k2
= 45133241631653142 62231262223242122321 1221111133121121911a1314141 3321122323121

laguna
= 135111111111221612142521142 621139222324212221111 12211111331211111911a1111113141 123211112323121

minicpm5
= 13513322216314253142 622392223242122321 1221111133121121911a1314141 1232222323121

qwen35
= 1351111111112216314253142 62113922257223111 12211111331211111911a111114141 123211112323121

seed-coder
= 13511111111122163142521142 62113922232421223111 12211111331211111911a111114141 123211112323121

spark2_5
= 1351111111112216111142521142 6211315322257223111 12211111331211111911a11111541 1522112323121

superbpe
= a233A 82B21 71b112b1b13a a2e

tekken
= 135111111111221321314253142 62113922232421223111 12211111331211111911a111114141 15211112323121

ufakzeka
= 1351111111112216314253142 62113922232421223111 12211111331211111911a111114141 15211112323121

viking
= 451111111114164b532 6211391415711113111 71117211111a1a11111541 62111123243

youtu
= 4511111111141631653142 6211315322257223111 12211111331211111911a111114141 33211112323121
";

#[test]
fn every_named_pre_tokenizer_cuts_as_llama_cpp_does() {
    let mut names = BTreeSet::new();
    for group in CUTS.trim().split("\n\n") {
        let (group, cuts) = group.split_once('=').unwrap();
        let cuts: Vec<&str> = cuts.split(['=', ' ', '\n']).filter(|cut| !cut.is_empty()).collect();
        assert_eq!(cuts.len(), CUT_TEXTS.len(), "{group}");
        for name in group.split_whitespace() {
            assert!(names.insert(name), "{name} is listed twice");
            let tokenizer = build(Path::new("test.gguf"), &byte_level(name)).unwrap().tokenizer;
            for (text, cut) in CUT_TEXTS.into_iter().zip(&cuts) {
                let lengths: Vec<usize> = cut.chars().map(piece_length).collect();
                assert_eq!(pieces(&tokenizer, text), lengths, "{name}: {text:?}");
            }
        }
    }
    assert_eq!(names.len(), 86);
}

fn piece_length(digit: char) -> usize {
    match digit {
        'A'..='Z' => 36 + (digit as usize - 'A' as usize),
        _ => digit.to_digit(36).unwrap() as usize,
    }
}

/// Lengths in characters of the pieces before merging.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<usize> {
    let mut cut = PreTokenizedString::from(text);
    tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
    let cut = cut.get_splits(OffsetReferential::Original, OffsetType::Char);
    cut.into_iter().map(|(_, (start, end), _)| end - start).collect()
}

/// GPT-2's alphabet: a letter for each byte.
fn byte_letters() -> Vec<String> {
    let mut extra = (0x100..).filter_map(char::from_u32);
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
        _ => extra.next().unwrap().to_string(),
    };
    (0..=255).map(letter).collect()
}

/// A byte-level vocabulary with one merge, `a b`; token 257 is control.
fn byte_level(pre: &str) -> GgufVocabulary {
    let mut tokens = byte_letters();
    tokens.extend(["ab", "<|stop|>"].map(str::to_owned));
    let mut token_types = vec![1; tokens.len()];
    token_types[257] = 3;
    GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        token_types,
        merges: vec!["a b".to_owned()],
        bos_token_id: Some(257),
        ..GgufVocabulary::default()
    }
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the bytes, then `pieces` with their scores.
fn sentencepiece(pieces: &[(&str, f32)]) -> GgufVocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut token_types = vec![2, 3, 3];
    token_types.resize(tokens.len(), 6);
    let mut scores = vec![0.0; tokens.len()];
    for (piece, score) in pieces {
        tokens.push((*piece).to_owned());
        token_types.push(1);
        scores.push(*score);
    }
    GgufVocabulary { model: "llama".to_owned(), tokens, scores, token_types, ..GgufVocabulary::default() }
}

/// llama.cpp's `llm_tokenizer_spm_session`, in the plainest words: join the best neighbours until none are
/// left.
fn join_by_scores(vocabulary: &GgufVocabulary, ids: &HashMap<&str, u32>, text: &str) -> Vec<u32> {
    if text.is_empty() {
        return Vec::new();
    }
    let prefix = if vocabulary.add_space_prefix.unwrap_or(true) { "▁" } else { "" };
    let text = format!("{prefix}{}", text.replace(' ', "▁"));
    let mut symbols: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for left in 0..symbols.len().saturating_sub(1) {
            let joined = format!("{}{}", symbols[left], symbols[left + 1]);
            if let Some(id) = ids.get(joined.as_str()) {
                let score = vocabulary.scores[*id as usize];
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, left));
                }
            }
        }
        let Some((_, left)) = best else { break };
        let right = symbols.remove(left + 1);
        symbols[left].push_str(&right);
    }
    let encode = |symbol: &String| match ids.get(symbol.as_str()) {
        Some(id) => vec![*id],
        None => symbol.bytes().map(|byte| ids[format!("<0x{byte:02X}>").as_str()]).collect(),
    };
    symbols.iter().flat_map(encode).collect()
}

/// Xorshift (Marsaglia 2003), so that every run sees the same texts.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn merging_by_scores_agrees_with_the_plain_algorithm() {
    let Some(folder) = shared("data/llama.cpp-vocab") else { return };
    let Some(stories) = shared("models/stories260k/stories260K-F32.gguf") else { return };
    let signs: Vec<&str> = "   \t\n-.=*#/_()[]{}<>aaeno01www猫я🦙\u{301}|▁".split("").collect();
    let mut draws = Draws(0x9E37_79B9_7F4A_7C15);
    let names = ["llama-spm", "phi-3", "baichuan"].map(|name| folder.join(format!("ggml-vocab-{name}.gguf")));
    for path in names.iter().chain([&stories]) {
        let vocabulary = read(path);
        let ids: HashMap<&str, u32> = vocabulary.tokens.iter().map(String::as_str).zip(0..).collect();
        let tokenizer = build(path, &vocabulary).unwrap().tokenizer;
        let check = |text: &str| {
            assert_eq!(
                encode(&tokenizer, text),
                join_by_scores(&vocabulary, &ids, text),
                "{path:?}: {text:?}"
            );
        };
        // Llama's runs of spaces have one score for all lengths; runs of signs repeat themselves.
        for sign in [" ", "-", "=", "*", "a", "ab", "0", "\n", "\t", "www", " a", "猫"] {
            (1..120).for_each(|length| check(&sign.repeat(length)));
            (1..40).for_each(|length| check(&format!("x{}y{}", sign.repeat(length), " ".repeat(length))));
        }
        for _ in 0..4_000 {
            let mut text = String::new();
            for _ in 0..1 + draws.below(12) {
                match draws.below(4) {
                    0 => text.push_str(signs[draws.below(signs.len())]),
                    1 => text.push_str(&signs[draws.below(signs.len())].repeat(1 + draws.below(9))),
                    _ => text
                        .push_str(&vocabulary.tokens[draws.below(vocabulary.tokens.len())].replace('▁', " ")),
                }
            }
            check(&text);
        }
    }
}

#[test]
fn equal_scores_go_leftmost_and_unknown_characters_become_bytes() {
    let letters = [("▁", -9.0), ("a", -9.0), ("b", -9.0), ("c", -9.0)];
    let joined = [("aa", -5.0), ("aaa", -5.0), ("ab", -1.0), ("bc", -1.0)];
    let vocabulary = sentencepiece(&[&letters[..], &joined[..]].concat());
    let ids: HashMap<&str, u32> = vocabulary.tokens.iter().map(String::as_str).zip(0..).collect();
    let tokenizer = build(Path::new("test.gguf"), &vocabulary).unwrap().tokenizer;
    let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().join(" ");
    assert_eq!(tokens("aaaaaaaa"), "▁ aaa aaa aa");
    assert_eq!(tokens("abc"), "▁ ab c");
    assert_eq!(tokens("a\u{E9}"), "▁ a <0xC3> <0xA9>");
    for length in 0..5 * 5 * 5 * 5 * 5 {
        let text: String = (0..5).map(|at| ['a', 'b', 'c', ' ', 'é'][length / 5usize.pow(at) % 5]).collect();
        assert_eq!(encode(&tokenizer, &text), join_by_scores(&vocabulary, &ids, &text), "{text:?}");
    }
    let plain = GgufVocabulary { add_space_prefix: Some(false), ..vocabulary };
    let plain = build(Path::new("test.gguf"), &plain).unwrap().tokenizer;
    assert_eq!(plain.encode("ab c", false).unwrap().get_tokens(), ["ab", "▁", "c"]);
    assert_eq!(plain.decode(&encode(&plain, " ab c"), false).unwrap(), " ab c");
}

/// Every line of the texts in the shared folder.
fn lines() -> Option<Vec<String>> {
    let mut lines = Vec::new();
    for name in ["mgsm-11-languages.txt", "tinystories-80k.txt", "wikitext-2-test.txt"] {
        let text = std::fs::read_to_string(shared("data/text")?.join(name)).unwrap();
        lines.extend(text.split('\n').map(str::to_owned));
    }
    let stories = std::fs::read_to_string(shared("data/text/tinystories_1000_clean.jsonl")?).unwrap();
    for story in stories.lines() {
        let story: serde_json::Value = serde_json::from_str(story).unwrap();
        lines.push(story["text"].as_str().unwrap().to_owned());
    }
    Some(lines)
}

#[test]
fn gguf_and_tokenizer_json_of_one_model_agree_on_every_line() {
    let Some(lines) = lines() else { return };
    assert!(lines.len() > 6_000);
    for (gguf, special, differing) in [
        ("models/polyglot6m/polyglot6m-Q8_0.gguf", &["<|endoftext|>"][..], 0),
        // Wikitext writes `<unk>` out: the special token to tokenizer.json, five characters to llama.cpp.
        ("models/stories260k/stories260K-F32.gguf", &["<unk>", "<s>", "</s>"][..], 2_224),
    ] {
        let Some(path) = shared(gguf) else { return };
        let built = load(&path).tokenizer;
        let mut original = Tokenizer::from_file(path.with_file_name("tokenizer.json")).unwrap();
        let mut literal = 0;
        for line in &lines {
            let (ours, theirs) = (encode(&built, line), encode(&original, line));
            let writes_special = special.iter().any(|token| line.contains(token));
            assert_eq!(ours != theirs, writes_special, "{gguf}: {line:?}");
            literal += usize::from(writes_special);
        }
        assert_eq!(literal, differing, "{gguf}");
        // Without that one difference the two agree to the last id and the last byte of every range.
        original.set_encode_special_tokens(true);
        for line in &lines {
            let (ours, theirs) =
                (built.encode(line.as_str(), false).unwrap(), original.encode(line.as_str(), false).unwrap());
            assert_eq!(ours.get_ids(), theirs.get_ids(), "{gguf}: {line:?}");
            assert_eq!(ours.get_offsets(), theirs.get_offsets(), "{gguf}: {line:?}");
        }
    }
}

#[test]
fn only_user_defined_tokens_are_found_in_raw_text() {
    let mut vocabulary = byte_level("gpt-2");
    let more = ["<mark>", "<|im_end|>", "<|fim_prefix|>", "<|channel|>", "</s>", "<|end|>", "<other>"];
    vocabulary.tokens.extend(more.map(str::to_owned));
    // All user-defined, but for `<|channel|>` and `<other>`.
    vocabulary.token_types.extend([4, 4, 4, 3, 4, 4, 1]);
    let found = |vocabulary: &GgufVocabulary| {
        let tokenizer = build(Path::new("test.gguf"), vocabulary).unwrap().tokenizer;
        let whole = |text: &str| encode(&tokenizer, &format!("ab{text}ab")).len() == 3;
        ["<|stop|>"].iter().chain(&more).copied().filter(|text| whole(text)).collect::<Vec<_>>()
    };
    assert_eq!(found(&vocabulary), ["<mark>", "<|channel|>"]);
    // A file that gives the role an id is taken at its word.
    vocabulary.roles.insert("fim_pre".to_owned());
    assert_eq!(found(&vocabulary), ["<mark>", "<|fim_prefix|>", "<|channel|>"]);
    // The harmony format: `<|end|>` ends a part, not the generation.
    vocabulary.tokens.extend(["<|return|>", "<|call|>"].map(str::to_owned));
    vocabulary.token_types.extend([3, 3]);
    assert_eq!(found(&vocabulary), ["<mark>", "<|fim_prefix|>", "<|channel|>", "<|end|>"]);
    // Phi-3's tokens take the white space behind them.
    let text = "ab<mark> \nab";
    let length = |vocabulary: &GgufVocabulary| {
        encode(&build(Path::new("test.gguf"), vocabulary).unwrap().tokenizer, text).len()
    };
    assert_eq!(length(&vocabulary), 5);
    vocabulary.model_name = Some("Phi-3 mini".to_owned());
    assert_eq!(length(&vocabulary), 3);
}

#[test]
fn a_space_is_put_before_each_piece_between_tokens_of_the_text() {
    let mut vocabulary = sentencepiece(&[("▁", -9.0), ("a", -9.0), ("<mark>", 0.0)]);
    *vocabulary.token_types.last_mut().unwrap() = 4;
    let tokenizer = build(Path::new("test.gguf"), &vocabulary).unwrap().tokenizer;
    let encoding = tokenizer.encode("a<mark>a</s>", false).unwrap();
    assert_eq!(encoding.get_tokens()[..5], ["▁", "a", "<mark>", "▁", "a"]);
    assert_eq!(encoding.get_tokens()[5..], ["<0x3C>", "<0x2F>", "<0x73>", "<0x3E>"]);
    assert_eq!(gaps("a<mark>a</s>", encoding.get_offsets()), "");
}

#[test]
fn bos_is_as_the_file_says_or_else_as_the_model_is_used_to() {
    let adds = |vocabulary: &GgufVocabulary| {
        let built = build(Path::new("test.gguf"), vocabulary).unwrap();
        (built.adds_bos, built.bos_token_id)
    };
    let spm = sentencepiece(&[("a", -1.0)]);
    assert_eq!(adds(&spm), (true, Some(1)));
    assert_eq!(
        adds(&GgufVocabulary { add_bos_token: Some(false), bos_token_id: Some(2), ..spm }),
        (false, Some(2))
    );
    assert_eq!(adds(&byte_level("gpt-2")), (false, Some(257)));
    assert_eq!(adds(&byte_level("llama-bpe")), (true, Some(257)));
    assert_eq!(
        adds(&GgufVocabulary { add_bos_token: Some(false), ..byte_level("tekken") }),
        (false, Some(257))
    );
    assert_eq!(adds(&GgufVocabulary { bos_token_id: None, ..byte_level("qwen2") }), (false, None));
    let wants = GgufVocabulary { add_eos_token: Some(true), ..byte_level("qwen2") };
    assert!(build(Path::new("test.gguf"), &wants).unwrap().warnings[0].contains("add_eos_token"));
}

#[test]
fn whole_pieces_are_tokens_where_merges_are_ignored() {
    let whole = |pre: &str| {
        let mut vocabulary = byte_level(pre);
        vocabulary.tokens.push("cd".to_owned());
        vocabulary.token_types.push(1);
        encode(&build(Path::new("test.gguf"), &vocabulary).unwrap().tokenizer, "cd").len()
    };
    assert_eq!((whole("llama-bpe"), whole("tekken"), whole("youtu")), (1, 1, 1));
    assert_eq!((whole("gpt-2"), whole("qwen2"), whole("dbrx")), (2, 2, 2));
}

/// The message of a refusal, which names a key and says what to do.
fn refusal(vocabulary: &GgufVocabulary) -> String {
    let error = build(Path::new("test.gguf"), vocabulary).unwrap_err();
    assert!(matches!(error, Error::Key { .. }), "{error}");
    assert!(error.help().is_some_and(|help| !help.is_empty()), "{error}");
    error.to_string()
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for model in ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", "no_vocab", "hybriddna", "surprise", ""] {
        let message = refusal(&GgufVocabulary { model: model.to_owned(), ..byte_level("gpt-2") });
        assert!(
            message.contains(&format!("`tokenizer.ggml.model`: the tokenizer model `{model}`")),
            "{message}"
        );
    }
    for pre in ["gemma4", "sarvam-moe", "granite-embed-multi-311m", "whitespace", "surprise", "LLAMA3"] {
        let message = refusal(&byte_level(pre));
        assert!(message.contains(&format!("`tokenizer.ggml.pre`: the pre-tokenizer `{pre}`")), "{message}");
    }
}

#[test]
fn vocabularies_that_contradict_themselves_are_refused() {
    let good = byte_level("gpt-2");
    build(Path::new("test.gguf"), &good).unwrap();
    let count = good.tokens.len();
    let with = |change: &dyn Fn(&mut GgufVocabulary)| {
        let mut bad = good.clone();
        change(&mut bad);
        refusal(&bad)
    };
    assert!(with(&|v| v.tokens.clear()).contains("is empty"));
    assert!(
        with(&|v| v.token_types.push(1)).contains(&format!("has {} entries for {count} tokens", count + 1))
    );
    assert!(with(&|v| v.scores = vec![0.0; 3]).contains("`tokenizer.ggml.scores`: has 3 entries"));
    assert!(with(&|v| v.tokens[7] = "ab".to_owned()).contains("`ab` is both token 7 and token 256"));
    assert!(with(&|v| v.bos_token_id = Some(count as u32)).contains("bos_token_id"));
    assert!(with(&|v| v.eos_token_id = Some(u32::MAX)).contains("eos_token_id"));
    assert!(with(&|v| v.unknown_token_id = Some(9_999)).contains("unknown_token_id"));
    assert!(with(&|v| v.merges.clear()).contains("merges"));
    for merge in ["", " ", "ab", "a b c", "a  b", "a zz", "zz a", "b a", "é", " é", "a ", "  "] {
        let message = with(&|v| v.merges.push(merge.to_owned()));
        assert!(message.contains("merge 1, `"), "{merge:?}: {message}");
    }
    let good = sentencepiece(&[("a", -1.0)]);
    assert!(refusal(&GgufVocabulary { scores: Vec::new(), ..good.clone() }).contains("scores"));
    let mut bad = good.clone();
    bad.scores[259] = f32::NAN;
    assert!(refusal(&bad).contains("the score of token 259 is not a number"));
    let mut bad = good.clone();
    bad.tokens[3 + 0x41] = "A".to_owned();
    assert!(refusal(&bad).contains("no byte token `<0x41>`"));
    let wants = GgufVocabulary { bos_token_id: None, ..byte_level("llama-bpe") };
    assert!(refusal(&wants).contains("beginning-of-sequence"));
}

#[test]
fn oddities_that_llama_cpp_accepts_are_accepted() {
    // Empty tokens are named, and the first of two equal merges counts.
    let mut vocabulary = byte_level("gpt-2");
    vocabulary.tokens.extend(["", "", "bc", "abc"].map(str::to_owned));
    vocabulary.token_types.extend([1, 5, 1, 1]);
    vocabulary.merges.extend(["b c", "a b", "ab c"].map(str::to_owned));
    let built = build(Path::new("test.gguf"), &vocabulary).unwrap();
    assert_eq!(built.tokenizer.id_to_token(258).unwrap(), "[EMPTY_258]");
    assert_eq!(built.tokenizer.id_to_token(259).unwrap(), "[EMPTY_259]");
    assert_eq!(encode(&built.tokenizer, "abc"), [261]);
    assert_eq!(built.warnings, Vec::<String>::new());
    // A token with a character that is no token cannot be reached here, which is said.
    let odd = build(Path::new("test.gguf"), &sentencepiece(&[("a", -1.0), ("aé", -2.0)])).unwrap();
    assert!(odd.warnings[0].contains("`aé`"), "{}", odd.warnings[0]);
}

#[test]
fn metadata_of_another_kind_is_an_error_and_absence_is_not() {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let texts = |texts: &[&str]| Value::Strings(texts.iter().map(|text| (*text).to_owned()).collect());
    let good = Metadata(BTreeMap::from([
        (key("model"), Value::String("gpt2".to_owned())),
        (key("tokens"), texts(&["a", "b", "ab"])),
        (key("merges"), texts(&["a b"])),
        (key("scores"), Value::Integers(vec![1, 2, 3])),
        (key("fim_pre_token_id"), Value::Unsigned(2)),
        ("general.name".to_owned(), Value::String("Phi-3".to_owned())),
    ]));
    let path = Path::new("test.gguf");
    let read = GgufVocabulary::from_metadata(path, &good).unwrap();
    assert_eq!(read.scores, [1.0, 2.0, 3.0]);
    assert_eq!(read.roles, BTreeSet::from(["fim_pre".to_owned()]));
    assert_eq!((read.pre, read.bos_token_id, read.add_bos_token), (None, None, None));
    assert_eq!(read.model_name.as_deref(), Some("Phi-3"));
    for (name, value) in [
        ("model", Value::Unsigned(1)),
        ("pre", Value::Bool(true)),
        ("tokens", Value::Integers(vec![1])),
        ("scores", texts(&["a"])),
        ("token_type", Value::Floats(vec![1.0])),
        ("merges", Value::Nested(Vec::new())),
        ("bos_token_id", Value::Signed(-1)),
        ("eos_token_id", Value::Unsigned(1 << 32)),
        ("add_bos_token", Value::Unsigned(1)),
    ] {
        let mut bad = good.clone();
        bad.0.insert(key(name), value);
        let error = GgufVocabulary::from_metadata(path, &bad).unwrap_err().to_string();
        assert!(error.contains(&format!("`{}`", key(name))), "{error}");
    }
    for name in ["model", "tokens"] {
        let mut bad = good.clone();
        bad.0.remove(&key(name));
        let error = GgufVocabulary::from_metadata(path, &bad).unwrap_err().to_string();
        assert!(error.contains("is missing"), "{error}");
    }
}
