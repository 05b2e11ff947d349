//! The demo's tokenizer: byte-level BPE with Qwen2's pre-tokenizer, so that digits stand alone and llama.cpp knows it as
//! `qwen2`.

use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, Tokenizer, TokenizerBuilder, TokenizerImpl,
    models::bpe::{BPE, BpeTrainerBuilder},
    normalizers::unicode::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
};

use super::world::{Dice, END_OF_TEXT, END_OF_TURN, START_OF_TURN, World};

/// How Qwen2 cuts text before merging (Qwen/Qwen2-0.5B, tokenizer.json).
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tokens wanted.
pub(crate) const VOCAB_SIZE: usize = 4096;

/// Documents that the merges are counted in.
const DOCUMENTS: usize = 60_000;

/// Draws those documents.
const SEED: u64 = 7;

/// Learns the merges from a sample of the corpus.
///
/// # Errors
/// What `tokenizers` refuses.
pub(crate) fn train(world: &World) -> tokenizers::Result<Tokenizer> {
    let dice = &mut Dice::new(SEED);
    let documents: Vec<String> = (0..DOCUMENTS).flat_map(|_| world.sample(dice)).collect();
    let special = [END_OF_TEXT, START_OF_TURN, END_OF_TURN].map(|token| AddedToken::from(token, true));
    let split = Split::new(SplitPattern::Regex(QWEN2.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    let pre_tokenizers = vec![PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(bytes)];
    let mut tokenizer: TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    > = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC.into()))
        .with_pre_tokenizer(Some(Sequence::new(pre_tokenizers).into()))
        .with_decoder(Some(bytes.into()))
        .build()?;
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(VOCAB_SIZE)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut trainer, documents.iter())?;
    // In training the end of the document before stands before every document.
    let end = tokenizer.token_to_id(END_OF_TEXT).ok_or("the end of text has no token")?;
    let before = TemplateProcessing::builder()
        .try_single(format!("{END_OF_TEXT} $A"))?
        .try_pair(format!("{END_OF_TEXT} $A $B"))?
        .special_tokens(vec![(END_OF_TEXT, end)])
        .build()?;
    tokenizer.with_post_processor(Some(PostProcessorWrapper::from(before)));
    Ok(tokenizer.into())
}
