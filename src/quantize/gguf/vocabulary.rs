//! A folder's tokenizer as the keys `tokenizer.*` of a GGUF file.
//!
//! Two kinds can be said there: byte-level byte-pair encoding with a pre-tokenizer that llama.cpp knows by name (`gpt2`),
//! and SentencePiece's with scores (`llama`). What is written is read back and must tokenize a text of many scripts as
//! the original does; anything else is refused, because a tokenizer that is almost right makes a model that is wrong.

use std::{collections::HashMap, path::Path};

use serde_json::Value as Json;

use super::{
    header::{Item, Keys},
    sentencepiece,
};
use crate::{
    checkpoint::{Checkpoint, config::ModelConfig},
    error::{Error, Result},
    tokenizer::{
        Tokenizer,
        chat::ChatTemplate,
        gguf::{GgufVocabulary, build, scored_merges},
        read_json,
    },
};

/// Types of tokens (`llama_token_type` in llama.h).
mod kind {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
    pub(super) const BYTE: i64 = 6;
}

/// Score of tokens that no pair is joined to: below all others.
const NO_SCORE: f32 = -1e6;

const INSTEAD: &str = "convert the model with llama.cpp's convert_hf_to_gguf.py and quantize that file, or choose a safetensors layout";

/// The keys of the tokenizer in the checkpoint's folder, and what the reader should know.
///
/// # Errors
/// No tokenizer, or one that GGUF cannot hold, saying what stands in the way.
pub(super) fn keys(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<(Keys, Vec<String>)> {
    let path = checkpoint.folder.join("tokenizer.json");
    let tokenizer = match path.is_file() {
        true => Tokenizer::from_file(&path)?,
        false => {
            return Err(Error::file(
                &path,
                "is missing: a GGUF holds its tokenizer",
                "put the model's tokenizer.json there",
            ));
        }
    };
    let json: Json = read_json(&path)?.unwrap_or_default();
    let settings = read_json(&checkpoint.folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let mut source = Source { path: &path, json: &json, notes: Vec::new() };
    let mut vocabulary = source.vocabulary(&checkpoint.folder, config.vocab_size)?;
    vocabulary.bos_token_id = tokenizer.bos_token_id;
    vocabulary.eos_token_id = tokenizer.eos_token_id;
    vocabulary.add_bos_token = Some(tokenizer.adds_bos);
    vocabulary.add_eos_token = settings.get("add_eos_token").and_then(Json::as_bool);
    let id_of = |role: &str| {
        let token = settings.get(role)?;
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        vocabulary.tokens.iter().position(|token| token == text).and_then(|id| u32::try_from(id).ok())
    };
    vocabulary.unknown_token_id = id_of("unk_token");
    let padding = id_of("pad_token");
    source.check_alike(&tokenizer, &vocabulary)?;
    let template = ChatTemplate::text_from_settings(&checkpoint.folder)?;
    Ok((written(vocabulary, padding, template), source.notes))
}

fn written(vocabulary: GgufVocabulary, padding: Option<u32>, template: Option<String>) -> Keys {
    let mut keys = Keys::new();
    let mut put = |key: &str, item: Option<Item>| {
        if let Some(item) = item {
            keys.push((format!("tokenizer.{key}"), item));
        }
    };
    let types = vocabulary.token_types.iter().filter_map(|kind| i32::try_from(*kind).ok()).collect();
    let scored = Some(vocabulary.scores).filter(|scores| !scores.is_empty());
    let merged = Some(vocabulary.merges).filter(|merges| !merges.is_empty());
    put("ggml.model", Some(Item::Text(vocabulary.model)));
    put("ggml.pre", vocabulary.pre.map(Item::Text));
    put("ggml.tokens", Some(Item::Texts(vocabulary.tokens)));
    put("ggml.scores", scored.map(Item::F32s));
    put("ggml.token_type", Some(Item::I32s(types)));
    put("ggml.merges", merged.map(Item::Texts));
    put("ggml.bos_token_id", vocabulary.bos_token_id.map(Item::U32));
    put("ggml.eos_token_id", vocabulary.eos_token_id.map(Item::U32));
    put("ggml.unknown_token_id", vocabulary.unknown_token_id.map(Item::U32));
    put("ggml.padding_token_id", padding.map(Item::U32));
    put("ggml.add_bos_token", vocabulary.add_bos_token.map(Item::Bool));
    put("ggml.add_eos_token", vocabulary.add_eos_token.map(Item::Bool));
    put("ggml.add_space_prefix", vocabulary.add_space_prefix.map(Item::Bool));
    put("chat_template", template.map(Item::Text));
    keys
}

/// A token beside the model's own.
struct Added<'a> {
    id: usize,
    text: &'a str,
    special: bool,
}

/// A `tokenizer.json` as it is read.
struct Source<'a> {
    path: &'a Path,
    json: &'a Json,
    notes: Vec<String>,
}

impl Source<'_> {
    fn refuse(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::key(self.path, key, problem, INSTEAD)
    }

    fn at(&self, pointer: &str) -> &Json {
        self.json.pointer(pointer).unwrap_or(&Json::Null)
    }

    fn vocabulary(&mut self, folder: &Path, vocab_size: usize) -> Result<GgufVocabulary> {
        let kind = self.at("/model/type").as_str().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(
                self.refuse("model.type", format!("`{kind}` cannot be written; byte-pair encodings can"))
            );
        }
        for (key, what) in [
            ("continuing_subword_prefix", "a prefix of later pieces"),
            ("end_of_word_suffix", "a suffix of last pieces"),
        ] {
            if self.at(&format!("/model/{key}")).as_str().is_some_and(|text| !text.is_empty()) {
                return Err(self.refuse(&format!("model.{key}"), format!("{what} cannot be said in GGUF")));
            }
        }
        match self.at("/model/byte_fallback").as_bool() {
            Some(true) => self.scored(folder, vocab_size),
            _ => self.byte_level(vocab_size),
        }
    }

    /// The texts by id; ids without a text, up to the rows of the embedding, are named and unused.
    fn texts(&self, vocab_size: usize) -> Result<(Vec<String>, Vec<i64>)> {
        let mut texts: Vec<Option<(String, i64)>> = vec![None; vocab_size];
        let mut put = |id: usize, text: &str, kind: i64| match texts.get_mut(id) {
            Some(slot) => {
                *slot = Some((text.to_owned(), kind));
                Ok(())
            }
            None => Err(self.refuse(
                "model.vocab",
                format!("`{text}` has the id {id}, but the embedding has {vocab_size} rows"),
            )),
        };
        let Json::Object(vocab) = self.at("/model/vocab") else {
            return Err(self.refuse("model.vocab", "is no list of texts with ids"));
        };
        for (text, id) in vocab {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
            put(id.unwrap_or(usize::MAX), text, kind::NORMAL)?;
        }
        for token in self.added() {
            put(token.id, token.text, if token.special { kind::CONTROL } else { kind::USER_DEFINED })?;
        }
        let named = |(id, text): (usize, Option<(String, i64)>)| {
            text.unwrap_or_else(|| (format!("[PAD{id}]"), kind::UNUSED))
        };
        Ok(texts.into_iter().enumerate().map(named).unzip())
    }

    /// What has no meaning as text is a control token, whatever the file says (as llama.cpp's converter takes it).
    fn added(&self) -> impl Iterator<Item = Added<'_>> {
        let looks_special = |text: &str| {
            [("<|", "|>"), ("<｜", "｜>")]
                .iter()
                .any(|(start, end)| text.starts_with(start) && text.ends_with(end))
        };
        self.at("/added_tokens").as_array().into_iter().flatten().filter_map(move |token| {
            let text = token.get("content")?.as_str()?;
            let id = usize::try_from(token.get("id")?.as_u64()?).ok()?;
            let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
            Some(Added { id, text, special: special || looks_special(text) })
        })
    }

    /// Pairs in the order of their ranks.
    fn merges(&self) -> Result<Vec<(&str, &str)>> {
        let pairs = self.at("/model/merges").as_array().map_or(&[][..], Vec::as_slice);
        pairs
            .iter()
            .map(|pair| match pair {
                Json::String(text) => text.split_once(' '),
                Json::Array(both) => {
                    both.first().and_then(Json::as_str).zip(both.get(1).and_then(Json::as_str))
                }
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| self.refuse("model.merges", "is no list of pairs"))
    }

    fn byte_level(&mut self, vocab_size: usize) -> Result<GgufVocabulary> {
        let normalizer = self.at("/normalizer/type").as_str();
        if let Some(name) = normalizer.filter(|name| *name != "NFC") {
            return Err(self.refuse("normalizer", format!("`{name}` cannot be said in GGUF")));
        }
        if normalizer.is_some() {
            self.notes.push(
                "the tokenizer brings text into Unicode's form NFC first; GGUF cannot say so, and llama.cpp does not"
                    .to_owned(),
            );
        }
        let pre = self.pre_tokenizer()?;
        let merges = self.merges()?;
        if let Some((left, right)) =
            merges.iter().find(|(left, right)| left.contains(' ') || right.contains(' '))
        {
            return Err(self
                .refuse("model.merges", format!("`{left}` + `{right}`: a space cannot be part of a pair")));
        }
        let merges = merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
        let (tokens, token_types) = self.texts(vocab_size)?;
        Ok(GgufVocabulary {
            model: "gpt2".to_owned(),
            pre: Some(pre.to_owned()),
            tokens,
            token_types,
            merges,
            ..GgufVocabulary::default()
        })
    }

    /// llama.cpp's name of what cuts the text.
    fn pre_tokenizer(&self) -> Result<&'static str> {
        let node = self.at("/pre_tokenizer");
        let steps = match node.get("pretokenizers").and_then(Json::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![node],
        };
        let steps: Option<Vec<Step<'_>>> = steps.into_iter().map(Step::of).collect();
        let ignores_merges = self.at("/model/ignore_merges").as_bool().unwrap_or(false);
        PRE_TOKENIZERS
            .iter()
            .find(|(known, ignores, _)| Some(*known) == steps.as_deref() && *ignores == ignores_merges)
            .map(|(_, _, name)| *name)
            .ok_or_else(|| {
                let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|(_, _, name)| *name).collect();
                self.refuse(
                    "pre_tokenizer",
                    format!("is none that qeval can name for llama.cpp; it knows {}", known.join(", ")),
                )
            })
    }

    /// SentencePiece's: what it calls a score is an order of merging.
    fn scored(&mut self, folder: &Path, vocab_size: usize) -> Result<GgufVocabulary> {
        let (mut tokens, mut token_types) = self.texts(vocab_size)?;
        let unknown = self.at("/model/unk_token").as_str();
        for (token, kind) in tokens.iter().zip(&mut token_types) {
            if Some(token.as_str()) == unknown {
                *kind = kind::UNKNOWN;
            } else if *kind == kind::NORMAL && is_byte(token) {
                *kind = kind::BYTE;
            }
        }
        let mut scores = self.scores(&tokens, &token_types)?;
        let model_path = folder.join("tokenizer.model");
        if let Some(model) = sentencepiece::read(&model_path)?.filter(|model| model.is_bpe) {
            // The original scores: those made from ranks have the same order.
            for (id, (text, score, kind)) in model.pieces.into_iter().enumerate().take(tokens.len()) {
                if tokens[id] != text {
                    return Err(Error::file(
                        &model_path,
                        format!(
                            "says that token {id} is `{text}`, tokenizer.json that it is `{}`",
                            tokens[id]
                        ),
                        "put both files of the same model there, or remove tokenizer.model",
                    ));
                }
                (tokens[id], scores[id]) = (text, score);
                if token_types[id] != kind::CONTROL {
                    token_types[id] = i64::from(kind);
                }
            }
        }
        self.check_merges(&tokens, &scores)?;
        Ok(GgufVocabulary {
            model: "llama".to_owned(),
            pre: Some("default".to_owned()),
            tokens,
            scores,
            token_types,
            add_space_prefix: Some(self.adds_space()?),
            ..GgufVocabulary::default()
        })
    }

    /// Of each token minus the rank at which it first appears; tokens that no pair makes come last.
    fn scores(&self, tokens: &[String], token_types: &[i64]) -> Result<Vec<f32>> {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (left, right) in self.merges()? {
            let next = ranks.len();
            ranks.entry(format!("{left}{right}")).or_insert(next);
        }
        let score = |(token, kind): (&String, &i64)| match (ranks.get(token), *kind) {
            (Some(rank), _) => -(*rank as f32),
            (None, kind::NORMAL) => NO_SCORE,
            (None, _) => 0.0,
        };
        Ok(tokens.iter().zip(token_types).map(score).collect())
    }

    /// The scores must lead to the file's own pairs, in an order that agrees with its own.
    fn check_merges(&self, tokens: &[String], scores: &[f32]) -> Result<()> {
        let own = self.merges()?;
        let mut from_scores: Vec<(String, String)> = scored_merges(tokens, scores);
        let mut sorted: Vec<(&str, &str)> = own.clone();
        sorted.sort_unstable();
        sorted.dedup();
        from_scores.sort_unstable();
        let same = sorted.len() == from_scores.len()
            && sorted.iter().zip(&from_scores).all(|(a, b)| (a.0, a.1) == (b.0.as_str(), b.1.as_str()));
        let by_text: HashMap<&str, f32> =
            tokens.iter().map(String::as_str).zip(scores.iter().copied()).collect();
        let falling = own
            .iter()
            .map(|(left, right)| by_text.get(format!("{left}{right}").as_str()).copied().unwrap_or(f32::NAN))
            .collect::<Vec<_>>()
            .is_sorted_by(|a, b| a >= b);
        match same && falling {
            true => Ok(()),
            false => Err(self.refuse(
                "model.merges",
                "is no order of merging that scores of tokens could say, as llama.cpp's `llama` vocabulary has them",
            )),
        }
    }

    /// Whether a space is put before a text, by either way of saying so.
    fn adds_space(&self) -> Result<bool> {
        let normalizers = match self.at("/normalizer/normalizers").as_array() {
            Some(list) => list.iter().collect(),
            None => vec![self.at("/normalizer")],
        };
        let prepends =
            normalizers.iter().any(|step| step.get("type").and_then(Json::as_str) == Some("Prepend"));
        let scheme = self.at("/pre_tokenizer/prepend_scheme").as_str();
        match (self.at("/pre_tokenizer/type").as_str(), scheme) {
            (None, _) => Ok(prepends),
            (Some("Metaspace"), Some("never")) => Ok(false),
            // A piece behind a special token gets a space there and none here; plain text is alike.
            (Some("Metaspace"), _) => Ok(true),
            (Some(other), _) => {
                Err(self.refuse("pre_tokenizer", format!("`{other}` cannot be said beside scores")))
            }
        }
    }

    /// Reads the vocabulary back and holds it against the original.
    fn check_alike(&self, tokenizer: &Tokenizer, vocabulary: &GgufVocabulary) -> Result<()> {
        let built = build(self.path, vocabulary)?;
        let encoded = built.tokenizer.encode(PROBE, false);
        let original = tokenizer.encode(PROBE)?;
        match encoded.is_ok_and(|encoded| encoded.get_ids() == original.ids) {
            true => Ok(()),
            false => Err(self.refuse(
                "model",
                "as llama.cpp would read it, this vocabulary tokenizes a trial text differently",
            )),
        }
    }
}

/// Scripts, numbers, signs, white space, upper and lower case; composed characters only.
const PROBE: &str = "Hello, World! It's 12:34 o'clock; don't PANIC — we've 1234567 reasons (3.14159…). \n\n\
    \tdef f(x):\n        return x**2  # comment\r\n   trailing   \n\
    Ärger über Öl, déjà vu, naïve façade. Съешь же ещё этих мягких французских булок. \
    快速的棕色狐狸跳过了懒狗。いろはにほへと ちりぬるを カタカナ 다람쥐 헌 쳇바퀴에 타고파 \
    सभी मनुष्यों को गौरव ทดสอบภาษาไทย بعض النصوص العربية שלום עולם 😀👩‍👩‍👧 ½ ² Ⅷ \
    <html>&amp;</html> https://example.org/?q=a%20b#c $100 50% 'LL 'tis CamelCaseWord snake_case_word ALLCAPS";

/// Whether `text` is `<0x00>` to `<0xFF>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// One step of a pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Every match apart.
    Split(&'a str),
    /// Every digit apart.
    Digits,
    /// The byte-level alphabet, after GPT-2's own pattern.
    BytesOfWords,
    /// The byte-level alphabet.
    Bytes,
}

impl<'a> Step<'a> {
    fn of(json: &'a Json) -> Option<Self> {
        let flag = |key: &str, default: bool| json.get(key).map_or(Some(default), Json::as_bool);
        match json.get("type")?.as_str()? {
            "Split" => {
                let isolated = json.get("behavior")?.as_str()? == "Isolated" && !flag("invert", false)?;
                isolated.then_some(Step::Split(json.get("pattern")?.get("Regex")?.as_str()?))
            }
            "Digits" => flag("individual_digits", false)?.then_some(Step::Digits),
            "ByteLevel" if flag("add_prefix_space", true)? => None,
            "ByteLevel" => Some(if flag("use_regex", true)? { Step::BytesOfWords } else { Step::Bytes }),
            _ => None,
        }
    }
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Steps, whether whole tokens go before merges, and llama.cpp's name (patterns of published models: its
/// `src/llama-vocab.cpp` cites them).
const PRE_TOKENIZERS: &[(&[Step<'static>], bool, &str)] = &[
    (&[Step::BytesOfWords], false, "gpt-2"),
    (&[Step::Digits, Step::BytesOfWords], false, "starcoder"),
    (&[Step::Split(LLAMA3), Step::Bytes], true, "llama-bpe"),
    (&[Step::Split(LLAMA3), Step::Bytes], false, "smaug-bpe"),
    (&[Step::Split(QWEN2), Step::Bytes], false, "qwen2"),
    (&[Step::Split(TEKKEN), Step::Bytes], true, "tekken"),
    (&[Step::Split(GPT4O), Step::Bytes], false, "gpt-4o"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// GPT-2's alphabet: the letter of each byte.
    fn letters() -> Vec<char> {
        let mut extra = 0x100..;
        (0..=u8::MAX)
            .map(|byte| match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
                _ => extra.next().and_then(char::from_u32).unwrap(),
            })
            .collect()
    }

    /// A byte-level tokenizer in which any two neighbours of the trial text join: every cut shows.
    fn byte_level(pre_tokenizer: &Json, ignore_merges: bool, normalizer: &Json) -> Json {
        let letters = letters();
        let spelled: Vec<char> = PROBE.bytes().map(|byte| letters[usize::from(byte)]).collect();
        let pairs: BTreeSet<(char, char)> = spelled.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let texts = letters.iter().map(|letter| letter.to_string());
        let texts = texts.chain(pairs.iter().map(|(left, right)| format!("{left}{right}")));
        let vocab: serde_json::Map<String, Json> =
            texts.enumerate().map(|(id, text)| (text, Json::from(id))).collect();
        let merges: Vec<String> = pairs.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let count = vocab.len();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer,
            "added_tokens": [
                {"id": count, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false,
                 "rstrip": false, "normalized": false},
                {"id": count + 1, "content": "<think>", "special": false, "single_word": false, "lstrip": false,
                 "rstrip": false, "normalized": false}
            ],
            "pre_tokenizer": pre_tokenizer, "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                      "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges}
        })
    }

    fn bytes(use_regex: bool) -> Json {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
    }

    fn split(pattern: &str) -> Json {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
    }

    fn folder(tokenizer: &Json) -> (TempDir, Checkpoint, ModelConfig) {
        let folder = tempfile::tempdir().unwrap();
        let vocab_size = tokenizer["model"]["vocab"].as_object().unwrap().len() + 4;
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "vocab_size": vocab_size, "rms_norm_eps": 1e-5
        });
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), [2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'])
            .unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let config = checkpoint.config().unwrap().unwrap();
        (folder, checkpoint, config)
    }

    fn key<'a>(keys: &'a Keys, name: &str) -> Option<&'a Item> {
        keys.iter().find(|(key, _)| key == name).map(|(_, item)| item)
    }

    /// Each known pre-tokenizer, as published models write it, cuts the trial text as llama.cpp's of that name does.
    #[test]
    fn known_pre_tokenizers_are_named_and_cut_alike() {
        for (steps, ignore_merges, name) in PRE_TOKENIZERS {
            let steps: Vec<Json> = steps
                .iter()
                .map(|step| match step {
                    Step::Split(pattern) => split(pattern),
                    Step::Digits => json!({"type": "Digits", "individual_digits": true}),
                    Step::BytesOfWords => bytes(true),
                    Step::Bytes => bytes(false),
                })
                .collect();
            let whole = match steps.as_slice() {
                [one] => one.clone(),
                several => json!({"type": "Sequence", "pretokenizers": several}),
            };
            let (_folder, checkpoint, config) = folder(&byte_level(&whole, *ignore_merges, &Json::Null));
            let (keys, notes) = keys(&checkpoint, &config).unwrap();
            assert_eq!(key(&keys, "tokenizer.ggml.pre"), Some(&Item::Text((*name).to_owned())));
            assert!(notes.is_empty());
            let Some(Item::I32s(types)) = key(&keys, "tokenizer.ggml.token_type") else { panic!("{name}") };
            // The added tokens, then two rows of the embedding that no token has.
            assert_eq!(types[types.len() - 5..], [1, 3, 4, 5, 5]);
            let Some(Item::Texts(tokens)) = key(&keys, "tokenizer.ggml.tokens") else { panic!("{name}") };
            assert_eq!(tokens[tokens.len() - 1], format!("[PAD{}]", tokens.len() - 1));
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let refused = |tokenizer: &Json| {
            let (_folder, checkpoint, config) = folder(tokenizer);
            keys(&checkpoint, &config).unwrap_err().to_string()
        };
        let unknown = byte_level(
            &json!({"type": "Sequence", "pretokenizers": [split("x+"), bytes(false)]}),
            false,
            &Json::Null,
        );
        assert!(refused(&unknown).contains("`pre_tokenizer`"));
        // Known steps, but whole tokens go first where llama.cpp's do not.
        assert!(refused(&byte_level(&bytes(true), true, &Json::Null)).contains("`pre_tokenizer`"));
        let lowercase = byte_level(&bytes(true), false, &json!({"type": "Lowercase"}));
        assert!(refused(&lowercase).contains("Lowercase"));
        let mut suffix = byte_level(&bytes(true), false, &Json::Null);
        suffix["model"]["end_of_word_suffix"] = "</w>".into();
        assert!(refused(&suffix).contains("end_of_word_suffix"));
        let mut beyond = byte_level(&bytes(true), false, &Json::Null);
        beyond["added_tokens"][0]["id"] = 100_000.into();
        assert!(refused(&beyond).contains("rows"), "{}", refused(&beyond));
    }

    #[test]
    fn composing_first_is_noted() {
        let (_folder, checkpoint, config) = folder(&byte_level(&bytes(true), false, &json!({"type": "NFC"})));
        let (_, notes) = keys(&checkpoint, &config).unwrap();
        assert!(notes[0].contains("NFC"), "{notes:?}");
    }
}
