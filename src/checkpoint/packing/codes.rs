//! Integer codes of 1 to 8 bits in 32-bit words, the first code in the lowest bits.
//!
//! Nearly every packing stores its codes so; what they mean (zero points, scales) is said elsewhere. Codes come out
//! unsigned, one byte each. Eight codes are spread at once inside a 64-bit lane, in three steps that each double the
//! distance between halves, so no code is handled alone.

/// How codes lie in the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum BitLayout {
    /// One stream: code i takes bits i·b to (i+1)·b of the row, across the borders of words.
    Dense,
    /// ⌊32/b⌋ codes in each word, its upper bits unused: compressed-tensors before June 2026. Differs from
    /// [`BitLayout::Dense`] for 3, 5, 6 and 7 bits.
    PerWord,
}

impl BitLayout {
    /// 32-bit words that hold so many codes.
    pub(in crate::checkpoint) fn words(self, bits: u32, codes: usize) -> Option<usize> {
        match self {
            BitLayout::Dense => Some(codes.checked_mul(bits as usize)?.div_ceil(32)),
            BitLayout::PerWord => Some(codes.div_ceil((32 / bits) as usize)),
        }
    }

    /// Bit at which a code begins in its row, counted from the first word.
    pub(in crate::checkpoint) fn first_bit(self, bits: u32, code: usize) -> usize {
        match self {
            BitLayout::Dense => code * bits as usize,
            BitLayout::PerWord => {
                let per_word = (32 / bits) as usize;
                code / per_word * 32 + code % per_word * bits as usize
            }
        }
    }
}

/// Unpacks the first `out.len()` codes of a row that begins with the first byte of `words`.
///
/// `bits` is 1 to 8 and `words` holds the whole row (see [`BitLayout::words`]): the caller has checked both against
/// the shapes of its tensors.
pub(in crate::checkpoint) fn unpack(bits: u32, layout: BitLayout, words: &[u8], out: &mut [u8]) {
    struct Unpack<'a> {
        bits: u32,
        layout: BitLayout,
        words: &'a [u8],
        out: &'a mut [u8],
    }

    impl pulp::WithSimd for Unpack<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            let Self { bits, layout, words, out } = self;
            match (layout, bits) {
                (_, 8) => out.copy_from_slice(&words[..out.len()]),
                (_, 1) => dense::<1>(words, out),
                (_, 2) => dense::<2>(words, out),
                (_, 4) => dense::<4>(words, out),
                (BitLayout::Dense, 3) => dense::<3>(words, out),
                (BitLayout::Dense, 5) => dense::<5>(words, out),
                (BitLayout::Dense, 6) => dense::<6>(words, out),
                (BitLayout::Dense, _) => dense::<7>(words, out),
                (BitLayout::PerWord, 3) => per_word::<3, 10>(words, out),
                (BitLayout::PerWord, 5) => per_word::<5, 6>(words, out),
                (BitLayout::PerWord, 6) => per_word::<6, 5>(words, out),
                (BitLayout::PerWord, _) => per_word::<7, 4>(words, out),
            }
        }
    }

    debug_assert!((1..=8).contains(&bits));
    debug_assert!(layout.words(bits, out.len()).is_some_and(|needed| 4 * needed <= words.len()));
    pulp::Arch::new().dispatch(Unpack { bits, layout, words, out });
}

/// Packs the codes of a row into `words`, densely: the inverse of [`unpack`] with [`BitLayout::Dense`].
///
/// `bits` is 1 to 8, no code has more, and `words` holds the whole row; what is left of it becomes zero.
pub(crate) fn pack(bits: u32, codes: &[u8], words: &mut [u8]) {
    debug_assert!((1..=8).contains(&bits));
    debug_assert!(codes.len() * bits as usize <= 8 * words.len());
    let per_group = 8;
    let mut words = words.chunks_mut(bits as usize);
    // Eight codes are `bits` bytes.
    for (codes, out) in codes.chunks(per_group).zip(words.by_ref()) {
        let mut group = 0u64;
        for (code, shift) in codes.iter().zip((0..).step_by(bits as usize)) {
            group |= u64::from(*code) << shift;
        }
        let bytes = group.to_le_bytes();
        out.copy_from_slice(&bytes[..out.len()]);
    }
    words.for_each(|rest| rest.fill(0));
}

/// The unsigned code of `bits_from` bits after MatQuant (arXiv 2502.06786) has kept its most significant `bits_to`.
///
/// With step = 2^(from − to): u → min(⌊u/step + ½⌋, 2^to − 1)·step. Halves round up, as the paper's S(q, r) does; the
/// result stays on the scale of the wide code, so scale and zero point are unchanged. Entries from 2^from on are those
/// of the largest code.
pub(in crate::checkpoint) fn slice_table(bits_from: u32, bits_to: u32) -> [u8; 256] {
    let dropped = bits_from.saturating_sub(bits_to);
    let (largest, half) = ((1u32 << bits_to) - 1, (1u32 << dropped) / 2);
    std::array::from_fn(|code| {
        let code = (code as u32).min((1 << bits_from) - 1);
        ((((code + half) >> dropped).min(largest)) << dropped) as u8
    })
}

/// Spreads the lowest eight `BITS`-bit fields to one byte each.
#[inline(always)]
const fn spread<const BITS: u32>(fields: u64) -> u64 {
    // The masks are those of four, two and one field at the foot of each 64-, 32- and 16-bit part.
    let four = (1u64 << (4 * BITS)) - 1;
    let two = ((1u64 << (2 * BITS)) - 1) * 0x0000_0001_0000_0001;
    let one = ((1u64 << BITS) - 1) * 0x0001_0001_0001_0001;
    let x = (fields & four) | ((fields << (32 - 4 * BITS)) & (four << 32));
    let x = (x & two) | ((x << (16 - 2 * BITS)) & (two << 16));
    (x & one) | ((x << (8 - BITS)) & (one << 8))
}

/// Eight codes are `BITS` bytes; each group is read as eight bytes while the row still has them.
#[inline(always)]
fn dense<const BITS: u32>(words: &[u8], out: &mut [u8]) {
    let step = BITS as usize;
    let (groups, rest) = out.as_chunks_mut::<8>();
    let whole = groups.len().min((words.len() + step).saturating_sub(8) / step);
    let (groups, last) = groups.split_at_mut(whole);
    for (out, bytes) in groups.iter_mut().zip(words.windows(8).step_by(step)) {
        *out = spread::<BITS>(u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))).to_le_bytes();
    }
    let last = last.iter_mut().map(<[u8; 8]>::as_mut_slice).chain([rest]);
    for (out, bytes) in last.zip(words[(whole * step).min(words.len())..].chunks(step)) {
        let mut group = [0; 8];
        group[..bytes.len()].copy_from_slice(bytes);
        out.copy_from_slice(&spread::<BITS>(u64::from_le_bytes(group)).to_le_bytes()[..out.len()]);
    }
}

/// `CODES` codes at the foot of each word.
#[inline(always)]
fn per_word<const BITS: u32, const CODES: usize>(words: &[u8], out: &mut [u8]) {
    for (out, word) in out.chunks_mut(CODES).zip(words.as_chunks().0) {
        let word = u64::from(u32::from_le_bytes(*word));
        let mut codes = [0; 16];
        codes[..8].copy_from_slice(&spread::<BITS>(word).to_le_bytes());
        codes[8..].copy_from_slice(&spread::<BITS>(word >> (8 * BITS)).to_le_bytes());
        match <&mut [u8; CODES]>::try_from(&mut *out) {
            // A copy of constant length is a few moves.
            Ok(out) => out.copy_from_slice(&codes[..CODES]),
            Err(_) => out.copy_from_slice(&codes[..out.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    /// Bit by bit, from the definition of the layouts.
    fn naive(bits: u32, layout: BitLayout, words: &[u8], codes: usize) -> Vec<u8> {
        let bit = |at: usize| words[at / 8] >> (at % 8) & 1;
        let start = |code: usize| match layout {
            BitLayout::Dense => code * bits as usize,
            BitLayout::PerWord => {
                // Code after code; one that would cross the border of a word begins the next.
                (0..code).fold(0, |at, _| {
                    let next = at + bits as usize;
                    if next % 32 + bits as usize > 32 { next.next_multiple_of(32) } else { next }
                })
            }
        };
        (0..codes).map(|code| (0..bits as usize).map(|b| bit(start(code) + b) << b).sum()).collect()
    }

    #[test]
    fn every_width_and_length_equals_bit_by_bit() {
        for layout in [BitLayout::Dense, BitLayout::PerWord] {
            for bits in 1..=8 {
                for codes in (0..80).chain([255, 256, 1000]) {
                    let words = layout.words(bits, codes).unwrap();
                    let packed = noise(4 * words);
                    let mut out = vec![0xAA; codes];
                    unpack(bits, layout, &packed, &mut out);
                    assert_eq!(
                        out,
                        naive(bits, layout, &packed, codes),
                        "{layout:?} {bits} bits, {codes} codes"
                    );
                    let ends =
                        codes.checked_sub(1).map_or(0, |last| layout.first_bit(bits, last) + bits as usize);
                    assert_eq!(words, ends.div_ceil(32), "{layout:?} {bits} bits, {codes} codes");
                    // Whatever follows the row is not read as part of it.
                    let mut longer = packed.clone();
                    longer.extend([0xFF; 40]);
                    unpack(bits, layout, &longer, &mut out);
                    assert_eq!(out, naive(bits, layout, &packed, codes));
                }
            }
        }
        assert_eq!(BitLayout::Dense.words(8, usize::MAX), None);
    }

    #[test]
    fn packing_is_undone_by_unpacking() {
        for bits in 1..=8u32 {
            for length in (0..80).chain([1000]) {
                let codes: Vec<u8> = noise(length).into_iter().map(|byte| byte >> (8 - bits)).collect();
                let mut words = vec![0xAA; 4 * BitLayout::Dense.words(bits, length).unwrap()];
                pack(bits, &codes, &mut words);
                assert_eq!(naive(bits, BitLayout::Dense, &words, length), codes, "{bits} bits, {length}");
                let used = (length * bits as usize).div_ceil(8);
                assert!(words[used..].iter().all(|byte| *byte == 0), "{bits} bits, {length}");
            }
        }
    }

    /// Widths as compressed-tensors writes them: 256 columns of 3 bits are 24 words, formerly 26.
    #[test]
    fn the_layouts_have_the_widths_of_compressed_tensors() {
        let widths = |columns| {
            [BitLayout::Dense, BitLayout::PerWord]
                .map(|layout| (1..=8).map(|bits| layout.words(bits, columns).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(widths(256), [vec![8, 16, 24, 32, 40, 48, 56, 64], vec![8, 16, 26, 32, 43, 52, 64, 64]]);
        // By hand: 0x76543210 is 0..8 in nibbles; 0b111_110_..._000 is 0..8 in three bits, 24 of 32.
        let mut out = [0; 8];
        unpack(4, BitLayout::Dense, &0x7654_3210u32.to_le_bytes(), &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
        unpack(3, BitLayout::Dense, &0o76543210u32.to_le_bytes(), &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn slicing_rounds_half_up_and_clamps() {
        for (from, to) in [(8, 4), (8, 2), (8, 3), (4, 2), (6, 5), (8, 8), (4, 4)] {
            let table = slice_table(from, to);
            let step = f64::from(1u32 << (from - to));
            for (code, sliced) in table.iter().enumerate().take(1 << from) {
                let expected = (code as f64 / step + 0.5).floor().min(f64::from((1u32 << to) - 1)) * step;
                assert_eq!(f64::from(*sliced), expected, "{from} to {to} bits: {code}");
            }
        }
        // 8 to 4 bits: 7 goes down, 8 up, 255 stays in range.
        let table = slice_table(8, 4);
        assert_eq!((table[7], table[8], table[247], table[248], table[255]), (0, 16, 240, 240, 240));
    }
}
