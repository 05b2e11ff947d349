//! llama.cpp's saved base logits (`llama-perplexity --kl-divergence-base`), read in place of a base model.
//!
//! Layout (little-endian; `tools/perplexity/perplexity.cpp` of llama.cpp): "_logits_", u32 n_ctx,
//! i32 n_vocab, i32 n_chunk, i32 tokens\[n_ctx·n_chunk\]; then for each chunk n_ctx − 1 − n_ctx/2 records of
//! 2·⌈n_vocab/2⌉ + 4 u16: f32 scale, f32 minimum, n_vocab codes; ln p = scale·code + minimum.
//! The file clips: everything more than 16 nats below the largest logit is stored as that floor, and
//! 65 536 steps share the rest. llama.cpp leaves entries at the floor out of its sums; here they are read
//! as another 16 nats lower, where they carry no mass either but keep the reverse KL finite. The target alone is read as
//! it is stored, as llama.cpp does: its nll is the floor's, the least that it can have been.

use std::{ops::Range, path::Path};

use crate::{
    checkpoint::MappedFile,
    error::{Error, Result},
    suite::Request,
};

const MAGIC: &[u8] = b"_logits_";
const HEADER_BYTES: usize = 20;
/// Bytes of scale and minimum before the codes of a record.
const RECORD_HEADER_BYTES: usize = 8;

/// Depth below the largest logit at which llama.cpp clips.
const CLIP_NATS: f32 = 16.0;

/// A mapped logits file.
#[derive(Debug)]
pub struct LogitsFile {
    file: MappedFile,
    /// Tokens of a window.
    pub n_ctx: usize,
    /// Entries of a distribution.
    pub vocab_size: usize,
    /// Windows.
    pub chunks: usize,
}

impl LogitsFile {
    /// Whether a file starts like one.
    pub fn recognises(path: &Path) -> bool {
        use std::io::Read;
        let mut start = [0; MAGIC.len()];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
    }

    /// Maps the file and checks its size against its header.
    ///
    /// # Errors
    /// A header that contradicts itself or the file's length.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let help = "write it again with llama-perplexity --kl-divergence-base";
        let number = |at: usize| -> Option<usize> {
            let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(i32::from_le_bytes(word)).ok()
        };
        let header = bytes.starts_with(MAGIC).then(|| Some((number(8)?, number(12)?, number(16)?))).flatten();
        let Some((n_ctx, vocab_size, chunks)) = header else {
            return Err(Error::file(path, "is not a llama.cpp logits file", help));
        };
        if n_ctx < 4 || vocab_size == 0 || chunks == 0 {
            let problem = format!("its header says {n_ctx} tokens, {vocab_size} ids, {chunks} windows");
            return Err(Error::file(path, problem, help));
        }
        let logits = Self { n_ctx, vocab_size, chunks, file };
        let needed = logits
            .record_bytes()
            .checked_mul(logits.records_per_chunk())
            .and_then(|n| n.checked_mul(chunks))
            .and_then(|n| n.checked_add(logits.data_start()?));
        if needed.is_none_or(|needed| needed > logits.file.bytes().len()) {
            let length = logits.file.bytes().len();
            let problem = match needed {
                Some(needed) => format!("is truncated: its header asks for {needed} bytes, it has {length}"),
                None => "its header asks for more bytes than a file can have".to_owned(),
            };
            return Err(Error::file(path, problem, help));
        }
        Ok(logits)
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The windows as requests of one document: the second half of each is scored. `bos` replaces each
    /// first token, as llama.cpp does when the model wants one. The text itself is not in the file, so
    /// no bytes are known.
    ///
    /// # Errors
    /// A token id outside the file's own vocabulary.
    pub fn requests(&self, bos: Option<u32>) -> Result<Vec<Request>> {
        let scored = self.n_ctx / 2 + 1..self.n_ctx;
        (0..self.chunks)
            .map(|chunk| {
                let mut tokens = (0..self.n_ctx)
                    .map(|i| self.token(chunk * self.n_ctx + i))
                    .collect::<Result<Vec<_>>>()?;
                if let Some(bos) = bos {
                    tokens[0] = bos;
                }
                Ok(Request {
                    task: 0,
                    document: 0,
                    window: u32::try_from(chunk).unwrap_or(u32::MAX),
                    tokens,
                    scored: scored.clone(),
                    bytes: vec![0; scored.len()],
                })
            })
            .collect()
    }

    /// Writes ln p of `ids` at the target `target` of window `window` into `out`.
    pub fn log_probabilities(
        &self,
        window: usize,
        target: usize,
        ids: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let record = target.checked_sub(self.n_ctx / 2 + 1).filter(|r| *r < self.records_per_chunk());
        let start = record
            .filter(|_| window < self.chunks && ids.end <= self.vocab_size && ids.len() == out.len())
            .and_then(|record| {
                let index = window * self.records_per_chunk() + record;
                self.data_start()?.checked_add(index.checked_mul(self.record_bytes())?)
            });
        let bytes = start.and_then(|start| self.file.bytes().get(start..start + self.record_bytes()));
        let Some(bytes) = bytes else {
            let problem = format!("holds no distribution for target {target} of window {window}");
            return Err(Error::file(self.path(), problem, "report this as a bug of qeval"));
        };
        let float = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (scale, minimum) = (float(0), float(4));
        let own = self.token(window * self.n_ctx + target)?;
        let codes = &bytes[RECORD_HEADER_BYTES + 2 * ids.start..RECORD_HEADER_BYTES + 2 * ids.end];
        // A record that spans less was not clipped: its lowest entry is a true value.
        let clipped = scale * f32::from(u16::MAX) > CLIP_NATS * 0.999;
        for ((id, out), code) in ids.zip(out.iter_mut()).zip(codes.as_chunks::<2>().0) {
            let code = u16::from_le_bytes(*code);
            *out = scale * f32::from(code) + minimum;
            if clipped && code == 0 && id != own as usize {
                *out -= CLIP_NATS;
            }
        }
        Ok(())
    }

    fn token(&self, index: usize) -> Result<u32> {
        let at = HEADER_BYTES + 4 * index;
        let word = self.file.bytes().get(at..at + 4).and_then(|word| word.try_into().ok());
        let id = word.map_or(u32::MAX, u32::from_le_bytes);
        if id as usize >= self.vocab_size {
            let problem = format!("token {index} is {id}, outside its vocabulary of {}", self.vocab_size);
            return Err(Error::file(self.path(), problem, "the file is damaged: write it again"));
        }
        Ok(id)
    }

    fn records_per_chunk(&self) -> usize {
        self.n_ctx - 1 - self.n_ctx / 2
    }

    fn record_bytes(&self) -> usize {
        self.vocab_size.div_ceil(2) * 4 + RECORD_HEADER_BYTES
    }

    fn data_start(&self) -> Option<usize> {
        self.n_ctx.checked_mul(self.chunks)?.checked_mul(4)?.checked_add(HEADER_BYTES)
    }
}
