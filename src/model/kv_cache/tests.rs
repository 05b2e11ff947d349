//! The schemes against naive ones: blocks packed into bytes, caches filled token by token, sums in f64.

use std::f64::consts::PI;

use half::{bf16, f16};

use super::{
    lloyd_max::{Codebook, codebook},
    random_matrix::Matrix,
    turboquant::{Channels, Quantizer, channels_by_norm},
    *,
};

const PARTS: [Part; 2] = [Part::Keys, Part::Values];

fn all() -> Vec<KvCacheScheme> {
    let mut schemes: Vec<KvCacheScheme> = SCHEMES.iter().map(|named| named.scheme.clone()).collect();
    schemes.push(KvCacheScheme::Fp8 { k_scale: 0.013, v_scale: 0.4 });
    schemes.push(KvCacheScheme::Int8 { k_scale: 0.021, v_scale: 0.034 });
    schemes.push(KvCacheScheme::parse("k:q8_0-hadamard+v:q4_0").unwrap());
    schemes.push(KvCacheScheme::parse("k:kivi2+v:turboquant2.5").unwrap());
    schemes
}

/// Standard normal numbers, the same in every run (sum of 12 uniforms).
struct Normals(u64);

impl Normals {
    fn next(&mut self) -> f32 {
        let uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 40) as f32 / (1u64 << 24) as f32
        };
        std::iter::repeat_with(uniform).take(12).sum::<f32>() - 6.0
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        std::iter::repeat_with(|| self.next()).take(n).collect()
    }
}

/// `[tokens, heads, head_dim]` with a few channels much larger than the others, as keys have them.
fn keys(tokens: usize, heads: usize, head_dim: usize, seed: u64) -> Vec<f32> {
    let mut x = Normals(seed).take(tokens * heads * head_dim);
    for (index, x) in x.iter_mut().enumerate() {
        let channel = index % (heads * head_dim);
        if channel.is_multiple_of(13) {
            *x = *x * 4.0 + if channel.is_multiple_of(2) { 9.0 } else { -7.0 };
        }
    }
    x
}

// The schemes' definitions, written naively for one vector or group.

/// A block of llama.cpp packed to its bytes and read back, as ggml-quants.c does it.
fn naive_block(format: GgmlBlock, x: &[f32]) -> Vec<f32> {
    let two_bytes = |x: f32| f16::from_f32(x).to_le_bytes();
    let read = |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f32();
    let (mut amax, mut extreme, mut min, mut max) = (0f32, 0f32, f32::MAX, -f32::MAX);
    for v in x {
        if amax < v.abs() {
            (amax, extreme) = (v.abs(), *v);
        }
        (min, max) = (min.min(*v), max.max(*v));
    }
    let inverse = |d: f32| if d == 0.0 { 0.0 } else { 1.0 / d };
    let codes_about = |d: f32, zero: f32, largest: i32| -> Vec<i32> {
        x.iter().map(|v| ((v * inverse(d) + zero + 0.5) as i32).min(largest)).collect()
    };
    let codes_from = |d: f32, largest: i32| -> Vec<i32> {
        x.iter().map(|v| (((v - min) * inverse(d) + 0.5) as i32).min(largest)).collect()
    };
    match format {
        GgmlBlock::Q8_0 => {
            let d = amax / 127.0;
            let codes: Vec<i8> = x.iter().map(|v| (v * inverse(d)).round() as i8).collect();
            codes.iter().map(|code| f32::from(*code) * read(two_bytes(d))).collect()
        }
        GgmlBlock::Q4_0 => {
            let d = extreme / -8.0;
            codes_about(d, 8.0, 15).iter().map(|code| (code - 8) as f32 * read(two_bytes(d))).collect()
        }
        GgmlBlock::Q5_0 => {
            let d = extreme / -16.0;
            codes_about(d, 16.0, 31).iter().map(|code| (code - 16) as f32 * read(two_bytes(d))).collect()
        }
        GgmlBlock::Q4_1 | GgmlBlock::Q5_1 => {
            let largest = if format == GgmlBlock::Q4_1 { 15 } else { 31 };
            let d = (max - min) / largest as f32;
            let codes = codes_from(d, largest);
            codes.iter().map(|code| *code as f32 * read(two_bytes(d)) + read(two_bytes(min))).collect()
        }
        GgmlBlock::Iq4Nl => {
            let levels: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
            let nearest = |x: f32| -> f32 {
                let mut best = 0;
                for index in 1..16 {
                    let distance = |level: i8| (f64::from(level) - f64::from(x)).abs();
                    if distance(levels[index]) <= distance(levels[best]) {
                        best = index;
                    }
                }
                f32::from(levels[best])
            };
            if amax < 1e-15 {
                return vec![0.0; x.len()];
            }
            let inverse = 1.0 / (extreme / -127.0);
            let codes: Vec<f32> = x.iter().map(|v| nearest(v * inverse)).collect();
            let (mut products, mut squares) = (0f32, 0f32);
            for (v, q) in x.iter().zip(&codes) {
                products += v * v * q * v;
                squares += v * v * q * q;
            }
            codes.iter().map(|q| q * read(two_bytes(products / squares))).collect()
        }
    }
}

/// One group of KIVI.
fn naive_kivi(x: &[f32], bits: KiviBits) -> Vec<f32> {
    let largest = if bits == KiviBits::Two { 3.0 } else { 15.0 };
    let min = x.iter().copied().fold(f32::INFINITY, f32::min);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = f16::from_f32((max - min) / largest).to_f32();
    let min = f16::from_f32(min).to_f32();
    x.iter().map(|x| ((x - min) / scale).clamp(0.0, largest).round_ties_even() * scale + min).collect()
}

/// One head as the cache returns it, for schemes that store tokens one by one.
fn naive_head(scheme: &KvCacheScheme, part: Part, x: &[f32]) -> Vec<f32> {
    match scheme.of(part) {
        KvCacheScheme::Ggml(GgmlCache::F16) => x.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
        KvCacheScheme::Ggml(GgmlCache::Bf16) => x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        KvCacheScheme::Ggml(GgmlCache::Block { format, hadamard: false }) => {
            x.chunks(32).flat_map(|block| naive_block(*format, block)).collect()
        }
        KvCacheScheme::Ggml(GgmlCache::Block { format, hadamard: true }) => {
            let n = if part == Part::Values { 64 } else { 1 << x.len().trailing_zeros() };
            let mut rotated = x.to_vec();
            ggml::rotate(&mut rotated, n);
            let mut stored: Vec<f32> =
                rotated.chunks(32).flat_map(|block| naive_block(*format, block)).collect();
            ggml::rotate(&mut stored, n);
            stored
        }
        KvCacheScheme::Fp8 { k_scale, v_scale } => {
            let scale = if part == Part::Keys { *k_scale } else { *v_scale };
            x.iter().map(|x| naive_e4m3(x / scale) * scale).collect()
        }
        KvCacheScheme::Int8 { k_scale, v_scale } => {
            let scale = if part == Part::Keys { *k_scale } else { *v_scale };
            x.iter().map(|x| (x / scale).round_ties_even().clamp(-128.0, 127.0) * scale).collect()
        }
        KvCacheScheme::TurboQuant { bits: TurboBits::Two | TurboBits::Three | TurboBits::Four, .. } => {
            scheme.stored(part, x, 1, x.len())
        }
        other => panic!("{} does not store tokens one by one", other.name()),
    }
}

/// The nearest of all E4M3 values, ties to the even code.
fn naive_e4m3(x: f32) -> f32 {
    let magnitude = |code: u32| -> f64 {
        let (exponent, mantissa) = (code >> 3, f64::from(code & 7));
        if exponent == 0 { mantissa / 512.0 } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent as i32 - 7) }
    };
    let distance = |code: u32| (magnitude(code) - f64::from(x).abs()).abs();
    let mut best = 0;
    for code in 1..0x7F {
        if distance(code) < distance(best) || (distance(code) == distance(best) && code % 2 == 0) {
            best = code;
        }
    }
    (magnitude(best) as f32).copysign(x)
}

// A decoding loop with an explicit cache.

/// The cache of one half, filled token by token as the scheme's runtime fills it.
struct Cache {
    scheme: KvCacheScheme,
    part: Part,
    heads: usize,
    head_dim: usize,
    /// What attention reads, one token after another: `stored` of them as stored, then `recent` as computed.
    stored: Vec<Vec<f32>>,
    recent: Vec<Vec<f32>>,
    /// TurboQuant's channels by head, once known.
    orders: Vec<Vec<usize>>,
}

impl Cache {
    fn new(scheme: &KvCacheScheme, part: Part, heads: usize, head_dim: usize) -> Self {
        let scheme = scheme.clone();
        Self { scheme, part, heads, head_dim, stored: vec![], recent: vec![], orders: vec![] }
    }

    /// Before attention of the token.
    fn append(&mut self, token: &[f32]) {
        self.recent.push(token.to_vec());
        match self.scheme.of(self.part).clone() {
            KvCacheScheme::Kivi(_) => {}
            KvCacheScheme::TurboQuant { bits, form }
                if matches!(bits, TurboBits::TwoAndHalf | TurboBits::ThreeAndHalf) =>
            {
                if self.orders.is_empty() && self.recent.len() == 32 {
                    self.orders = (0..self.heads).map(|head| self.loudest(head)).collect();
                }
                if !self.orders.is_empty() {
                    for token in std::mem::take(&mut self.recent) {
                        self.stored.push(self.split(&token, bits, form));
                    }
                }
            }
            scheme => {
                for token in std::mem::take(&mut self.recent) {
                    let heads = token.chunks(self.head_dim);
                    self.stored.push(heads.flat_map(|head| naive_head(&scheme, self.part, head)).collect());
                }
            }
        }
    }

    /// After attention of the token.
    fn flush(&mut self) {
        let KvCacheScheme::Kivi(bits) = *self.scheme.of(self.part) else { return };
        match self.part {
            Part::Keys if self.recent.len() == 128 => {
                for group in std::mem::take(&mut self.recent).chunks(32) {
                    let mut rows = group.to_vec();
                    for channel in 0..self.heads * self.head_dim {
                        let column: Vec<f32> = group.iter().map(|row| row[channel]).collect();
                        for (row, x) in rows.iter_mut().zip(naive_kivi(&column, bits)) {
                            row[channel] = x;
                        }
                    }
                    self.stored.extend(rows);
                }
            }
            Part::Values if self.recent.len() > 128 => {
                let oldest = self.recent.remove(0);
                self.stored.push(oldest.chunks(32).flat_map(|group| naive_kivi(group, bits)).collect());
            }
            _ => {}
        }
    }

    /// The channels of a head, those of largest norm so far first.
    fn loudest(&self, head: usize) -> Vec<usize> {
        let norm = |channel: &usize| -> f64 {
            self.recent.iter().map(|row| f64::from(row[head * self.head_dim + channel]).powi(2)).sum()
        };
        let mut order: Vec<usize> = (0..self.head_dim).collect();
        order.sort_by(|a, b| norm(b).partial_cmp(&norm(a)).unwrap());
        order
    }

    /// Two instances of TurboQuant, on the outlier quarter and on the rest.
    fn split(&self, token: &[f32], bits: TurboBits, form: TurboForm) -> Vec<f32> {
        let regular = if bits == TurboBits::TwoAndHalf { 2 } else { 3 };
        let mut token = token.to_vec();
        for (head, order) in token.chunks_mut(self.head_dim).zip(&self.orders) {
            let (outliers, others) = order.split_at(self.head_dim / 4);
            for (channels, bits, which) in
                [(outliers, regular + 1, Channels::Outliers), (others, regular, Channels::Others)]
            {
                let mut channels = channels.to_vec();
                channels.sort_unstable();
                let mut part: Vec<f32> = channels.iter().map(|channel| head[*channel]).collect();
                let every: Vec<usize> = (0..part.len()).collect();
                let dim = part.len();
                Quantizer::shared(self.part, which, dim, bits, form).store(&mut part, dim, &[&every]);
                for (channel, x) in channels.iter().zip(part) {
                    head[*channel] = x;
                }
            }
        }
        token
    }

    fn rows(&self) -> Vec<&[f32]> {
        self.stored.iter().chain(&self.recent).map(Vec::as_slice).collect()
    }
}

/// softmax(q·k/√d)·v of one query head in f64, over the head that starts at `first` in every row.
fn attention(q: &[f32], keys: &[&[f32]], values: &[&[f32]], first: usize) -> Vec<f64> {
    let dot = |key: &&[f32]| -> f64 {
        q.iter().zip(&key[first..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
            / (q.len() as f64).sqrt()
    };
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len())
        .map(|channel| {
            weights
                .iter()
                .zip(values)
                .map(|(weight, value)| weight * f64::from(value[first + channel]))
                .sum::<f64>()
                / total
        })
        .collect()
}

/// What the query at `query` reads, by the formula.
fn read<'a>(
    scheme: &KvCacheScheme,
    part: Part,
    query: usize,
    stored: &'a [f32],
    computed: &'a [f32],
    width: usize,
) -> Vec<&'a [f32]> {
    let before = scheme.stored_before(part, query);
    assert!(before <= query + 1);
    let stored = stored.chunks(width).take(before);
    stored.chain(computed.chunks(width).take(query + 1).skip(before)).collect()
}

#[test]
fn a_sequence_at_once_equals_decoding_token_by_token() {
    let (tokens, heads, head_dim, group) = (300, 2, 64, 2);
    let width = heads * head_dim;
    let q = Normals(7).take(tokens * group * width);
    let (k, v) = (keys(tokens, heads, head_dim, 1), Normals(2).take(tokens * width));
    for scheme in all() {
        let name = scheme.name();
        let stored_k = scheme.stored(Part::Keys, &k, heads, head_dim);
        let stored_v = scheme.stored(Part::Values, &v, heads, head_dim);
        let mut key_cache = Cache::new(&scheme, Part::Keys, heads, head_dim);
        let mut value_cache = Cache::new(&scheme, Part::Values, heads, head_dim);
        let mut worst = 0f64;
        for t in 0..tokens {
            key_cache.append(&k[t * width..][..width]);
            value_cache.append(&v[t * width..][..width]);
            let (cached_k, cached_v) = (key_cache.rows(), value_cache.rows());
            let read_k = read(&scheme, Part::Keys, t, &stored_k, &k, width);
            let read_v = read(&scheme, Part::Values, t, &stored_v, &v, width);
            // Bit for bit, so that every query can be trusted, not only those whose attention is computed
            // below.
            assert_eq!(cached_k, read_k, "{name}: keys at {t}");
            assert_eq!(cached_v, read_v, "{name}: values at {t}");
            for head in 0..heads * group {
                let q = &q[(t * heads * group + head) * head_dim..][..head_dim];
                let first = head / group * head_dim;
                let decoded = attention(q, &cached_k, &cached_v, first);
                let at_once = attention(q, &read_k, &read_v, first);
                worst = decoded.iter().zip(&at_once).map(|(a, b)| (a - b).abs()).fold(worst, f64::max);
            }
            key_cache.flush();
            value_cache.flush();
        }
        assert!(worst < 1e-6, "{name}: {worst}");
    }
}

#[test]
fn what_is_stored_does_not_depend_on_later_tokens() {
    // Odd counts, so that runs, tiles and groups end anywhere; 96 is no power of two.
    for (heads, head_dim) in [(3, 64), (1, 128), (2, 192)] {
        let width = heads * head_dim;
        let x = keys(270, heads, head_dim, 5);
        for (scheme, part) in all().iter().flat_map(|scheme| PARTS.map(|part| (scheme, part))) {
            let whole = scheme.stored(part, &x, heads, head_dim);
            for tokens in [1, 31, 32, 33, 127, 128, 129, 255, 256, 257, 269] {
                let before = scheme.stored_before(part, tokens - 1) * width;
                let prefix = scheme.stored(part, &x[..tokens * width], heads, head_dim);
                assert_eq!(prefix[..before], whole[..before], "{} {part:?} {tokens}", scheme.name());
            }
        }
    }
}

#[test]
fn kivi_reads_the_cache_as_the_previous_token_left_it() {
    let kivi = KvCacheScheme::parse("kivi2").unwrap();
    let before = |part| [0, 127, 128, 129, 255, 256, 300].map(|query| kivi.stored_before(part, query));
    assert_eq!(before(Part::Keys), [0, 0, 128, 128, 128, 256, 256]);
    assert_eq!(before(Part::Values), [0, 0, 0, 1, 127, 128, 172]);
    let mixed = KvCacheScheme::parse("k:kivi4+v:q8_0").unwrap();
    assert_eq!((mixed.stored_before(Part::Keys, 200), mixed.stored_before(Part::Values, 200)), (128, 201));
    let fractional = KvCacheScheme::parse("turboquant2.5").unwrap();
    assert_eq!([0, 30, 31, 32].map(|query| fractional.stored_before(Part::Keys, query)), [0, 0, 32, 33]);
}

#[test]
fn ggml_blocks_equal_packed_ones() {
    let mut normals = Normals(11);
    let mut x = normals.take(32 * 4000);
    for (index, block) in x.chunks_mut(32).enumerate() {
        match index % 10 {
            // Ties of every code, a block without spread, one with one value, both signs of the largest
            // magnitude.
            0 => block.iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 - 16.0) * 0.5),
            1 => block.fill(block[0]),
            2 => block[1..].fill(0.0),
            3 => (block[5], block[20]) = (-4.0, 4.0),
            4 => (block[5], block[20]) = (4.0, -4.0),
            // Scales that f16 holds as subnormals, as zero, as infinity.
            5 => block.iter_mut().for_each(|x| *x *= 1e-5),
            6 => block.iter_mut().for_each(|x| *x *= 1e-8),
            7 => block.iter_mut().for_each(|x| *x *= 1e-20),
            8 => block.iter_mut().for_each(|x| *x *= 1000.0),
            // Ties of q8_0.
            9 => block
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = if i == 7 { -127.0 } else { i as f32 - 16.5 }),
            _ => {}
        }
    }
    x[..32].fill(0.0);
    x[320..352].fill(-0.0);
    x[640..672].fill(127.5);
    let formats = [
        GgmlBlock::Q8_0,
        GgmlBlock::Q5_0,
        GgmlBlock::Q5_1,
        GgmlBlock::Q4_0,
        GgmlBlock::Q4_1,
        GgmlBlock::Iq4Nl,
    ];
    for format in formats {
        let scheme = KvCacheScheme::Ggml(GgmlCache::Block { format, hadamard: false });
        let stored = scheme.stored(Part::Keys, &x, 4, 64);
        for ((x, stored), index) in x.chunks(32).zip(stored.chunks(32)).zip(0..) {
            assert_eq!(stored, naive_block(format, x), "{format:?} {index}: {x:?}");
        }
    }
}

#[test]
fn halves_equal_the_half_crate() {
    let mut cases: Vec<f32> = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).collect();
    let middles: Vec<f32> = cases.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
    cases.extend(middles.iter().flat_map(|x| [*x, x.next_up(), x.next_down()]));
    cases.extend([65519.99, 65520.0, -65520.0, 1e30, f32::MIN_POSITIVE, 1e-40, f32::MAX, f32::MIN]);
    cases.extend((0..400_000u32).map(|step| f32::from_bits(step.wrapping_mul(0x9E37_79B1))));
    let f16s = KvCacheScheme::parse("f16").unwrap().stored(Part::Keys, &cases, 1, 1);
    let bf16s = KvCacheScheme::parse("bf16").unwrap().stored(Part::Keys, &cases, 1, 1);
    for ((x, half), brain) in cases.iter().zip(f16s).zip(bf16s) {
        let (h, b) = (f16::from_f32(*x).to_f32(), bf16::from_f32(*x).to_f32());
        assert!(half == h || (half.is_nan() && h.is_nan()), "{x:e}: {half:e} {h:e}");
        assert!(brain == b || (brain.is_nan() && b.is_nan()), "{x:e}: {brain:e} {b:e}");
    }
}

#[test]
fn the_rotation_is_the_walsh_hadamard_matrix() {
    // Keys: the largest power of two in the head; values: 64.
    let sizes = |part| [64, 128, 192, 256, 320, 512].map(|head_dim| ggml::rotation_size(part, head_dim));
    assert_eq!(sizes(Part::Keys), [64, 128, 64, 256, 64, 512]);
    assert_eq!(sizes(Part::Values), [64; 6]);
    for n in [64, 256] {
        let x = Normals(3).take(3 * n);
        let mut rotated = x.clone();
        ggml::rotate(&mut rotated, n);
        for (x, rotated) in x.chunks(n).zip(rotated.chunks(n)) {
            for (row, y) in rotated.iter().enumerate() {
                let sign =
                    |column: usize| if (row & column).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let exact: f64 = x.iter().enumerate().map(|(column, x)| sign(column) * f64::from(*x)).sum();
                assert!((exact / (n as f64).sqrt() - f64::from(*y)).abs() < 2e-6, "{n} {row}");
            }
        }
    }
    // One channel larger than the others no longer takes their precision.
    let mut x = Normals(4).take(128 * 50);
    x.chunks_mut(128).for_each(|head| head[40] = 12.0);
    let error = |name: &str| -> f64 {
        let stored = KvCacheScheme::parse(name).unwrap().stored(Part::Keys, &x, 1, 128);
        x.iter().zip(&stored).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    assert!(error("q4_0-hadamard") < error("q4_0"));
}

#[test]
fn a_number_that_is_not_finite_is_never_hidden() {
    for (scheme, part) in all().iter().flat_map(|scheme| PARTS.map(|part| (scheme, part))) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = Normals(9).take(128 * 2 * 64);
            x[70 * 128 + 3] = bad;
            let stored = scheme.stored(part, &x, 2, 64)[70 * 128 + 3];
            let saturates = matches!(scheme.of(part), KvCacheScheme::Fp8 { .. } | KvCacheScheme::Int8 { .. });
            assert!(
                !stored.is_finite() || (saturates && bad.is_infinite()),
                "{} {part:?} {bad}: {stored}",
                scheme.name()
            );
        }
        let zeros = scheme.stored(part, &[0.0; 128 * 2 * 64], 2, 64);
        assert!(zeros.iter().all(|x| *x == 0.0), "{}", scheme.name());
    }
}

// TurboQuant.

/// f(t) ∝ (1 − t²)^((d−3)/2) integrated by plain sums: mass, mean and mean square of every cell.
fn naive_cells(dim: usize, boundaries: &[f64]) -> Vec<(f64, f64, f64)> {
    let steps = 2_000_000;
    let mut cells = vec![(0.0, 0.0, 0.0); boundaries.len() + 1];
    for step in 0..steps {
        let t = (step as f64 + 0.5) / steps as f64 * 2.0 - 1.0;
        let density = (1.0 - t * t).powf((dim as f64 - 3.0) / 2.0);
        let cell = &mut cells[boundaries.partition_point(|boundary| *boundary < t)];
        *cell = (cell.0 + density, cell.1 + density * t, cell.2 + density * t * t);
    }
    let total: f64 = cells.iter().map(|cell| cell.0).sum();
    cells.iter().map(|cell| (cell.0 / total, cell.1 / total, cell.2 / total)).collect()
}

/// d·E[(t − c(t))²], the relative mean squared error of a vector.
fn distortion(dim: usize, codebook: &Codebook) -> f64 {
    let cells = naive_cells(dim, &codebook.boundaries);
    let squares =
        cells.iter().zip(&codebook.centroids).map(|(cell, c)| cell.2 - 2.0 * c * cell.1 + c * c * cell.0);
    squares.sum::<f64>() * dim as f64
}

#[test]
fn codebooks_meet_lloyd_and_max() {
    // d = 3: an even density, cut into equal cells.
    for bits in 1..=4 {
        let levels = 1 << bits;
        for (level, centroid) in codebook(3, bits).centroids.iter().enumerate() {
            let middle = (2.0 * level as f64 + 1.0) / f64::from(levels) - 1.0;
            assert!((centroid - middle).abs() < 1e-9, "{bits} {level}: {centroid} {middle}");
        }
    }
    for dim in [8, 16, 48, 128] {
        for bits in 1..=4 {
            let codebook = codebook(dim, bits);
            for (cell, centroid) in naive_cells(dim, &codebook.boundaries).iter().zip(&codebook.centroids) {
                assert!((cell.1 / cell.0 - centroid).abs() * (dim as f64).sqrt() < 1e-5, "{dim} {bits}");
            }
            for (pair, boundary) in codebook.centroids.windows(2).zip(&codebook.boundaries) {
                assert_eq!((pair[0] + pair[1]) / 2.0, *boundary);
            }
        }
        // One bit: E|t| = Γ(d/2)/(√π·Γ((d+1)/2)), for even d a product.
        let ratio: f64 = (1..dim / 2).map(|i| i as f64 / (i as f64 + 0.5)).product();
        let mean = ratio * 2.0 / PI;
        assert!((codebook(dim, 1).centroids[1] - mean).abs() < 1e-9, "{dim}");
    }
    // Many dimensions: the Gaussian quantizer (Max 1960).
    let root = 1024f64.sqrt();
    assert!((codebook(1024, 1).centroids[1] * root - (2.0 / PI).sqrt()).abs() < 1e-3);
    for (centroid, gaussian) in codebook(1024, 2).centroids[2..].iter().zip([0.4528, 1.510]) {
        assert!((centroid * root - gaussian).abs() < 2e-3);
    }
    for (bits, gaussian) in [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)] {
        let exact = distortion(1024, &codebook(1024, bits));
        assert!((exact / gaussian - 1.0).abs() < 5e-3, "{bits}: {exact}");
    }
}

#[test]
fn matrices_are_orthogonal_and_of_their_law() {
    for dim in [8, 48, 128] {
        let matrix = Matrix::orthogonal(dim, 1);
        for (a, b) in (0..dim).flat_map(|a| (0..dim).map(move |b| (a, b))) {
            let dot: f64 =
                (0..dim).map(|j| f64::from(matrix.entry(a, j)) * f64::from(matrix.entry(b, j))).sum();
            assert!((dot - f64::from(u8::from(a == b))).abs() < 1e-6, "{dim} {a} {b}: {dot}");
        }
    }
    let dim = 128;
    let gaussian = Matrix::gaussian(dim, 2);
    let entries: Vec<f64> = (0..dim * dim).map(|i| f64::from(gaussian.entry(i / dim, i % dim))).collect();
    let moment = |power: i32| entries.iter().map(|x| x.powi(power)).sum::<f64>() / entries.len() as f64;
    // 0, 1, 0, 3, within four standard errors.
    for (power, expected, deviation) in
        [(1, 0.0, 1.0), (2, 1.0, 2f64.sqrt()), (3, 0.0, 15f64.sqrt()), (4, 3.0, 96f64.sqrt())]
    {
        assert!(
            (moment(power) - expected).abs() < 4.0 * deviation / dim as f64,
            "{power}: {}",
            moment(power)
        );
    }
    let (keys, values) = (
        Quantizer::shared(Part::Keys, Channels::All, 16, 2, TurboForm::Mse),
        Quantizer::shared(Part::Values, Channels::All, 16, 2, TurboForm::Mse),
    );
    assert_ne!(keys.parts().0.entry(0, 0), values.parts().0.entry(0, 0));
}

/// The two algorithms of the paper in f64, every matrix product written out; `None` if a rounding decision is
/// too close to call in f32.
fn naive_turboquant(quantizer: &Quantizer, x: &[f32]) -> Option<Vec<f64>> {
    let (rotation, sketch, centroids) = quantizer.parts();
    let dim = x.len();
    let times = |matrix: &Matrix, x: &[f64]| -> Vec<f64> {
        (0..dim).map(|i| (0..dim).map(|j| f64::from(matrix.entry(i, j)) * x[j]).sum()).collect()
    };
    let transposed_times = |matrix: &Matrix, x: &[f64]| -> Vec<f64> {
        (0..dim).map(|i| (0..dim).map(|j| f64::from(matrix.entry(j, i)) * x[j]).sum()).collect()
    };
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let stored = |norm: f64| f64::from(f16::from_f64(norm));
    let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let unit: Vec<f64> = x.iter().map(|value| value / norm(&x)).collect();
    let mut nearest = Vec::new();
    for y in times(rotation, &unit) {
        let mut distances: Vec<(f64, f64)> =
            centroids.iter().map(|c| ((f64::from(*c) - y).abs(), f64::from(*c))).collect();
        distances.sort_by(|a, b| a.partial_cmp(b).unwrap());
        if distances[1].0 - distances[0].0 < 1e-5 {
            return None;
        }
        nearest.push(distances[0].1);
    }
    let scale = stored(norm(&x));
    let mut estimate: Vec<f64> = transposed_times(rotation, &nearest).iter().map(|c| c * scale).collect();
    if let Some(sketch) = sketch {
        let residual: Vec<f64> = x.iter().zip(&estimate).map(|(x, estimate)| x - estimate).collect();
        let projected = times(sketch, &residual);
        if projected.iter().any(|s| s.abs() < 1e-3) {
            return None;
        }
        let signs: Vec<f64> = projected.iter().map(|s| s.signum()).collect();
        let factor = stored(norm(&residual)) * (PI / 2.0).sqrt() / dim as f64;
        for (estimate, sum) in estimate.iter_mut().zip(transposed_times(sketch, &signs)) {
            *estimate += factor * sum;
        }
    }
    Some(estimate)
}

#[test]
fn turboquant_equals_the_paper_written_out() {
    for (dim, bits, form) in [
        (64, 2, TurboForm::Mse),
        (24, 4, TurboForm::Mse),
        (64, 3, TurboForm::InnerProduct),
        (24, 2, TurboForm::InnerProduct),
    ] {
        let coordinate_bits = bits - u32::from(form == TurboForm::InnerProduct);
        let quantizer = Quantizer::new(5, dim, &codebook(dim, coordinate_bits), form);
        let x = keys(200, 1, dim, 8);
        let mut ours = x.clone();
        let every: Vec<usize> = (0..dim).collect();
        quantizer.store(&mut ours, dim, &[&every]);
        let mut compared = 0;
        for (x, ours) in x.chunks(dim).zip(ours.chunks(dim)) {
            let Some(exact) = naive_turboquant(&quantizer, x) else { continue };
            compared += 1;
            let worst = exact.iter().zip(ours).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-4, "{dim} {bits} {form:?}: {worst}");
        }
        assert!(compared > 50, "{dim} {bits} {form:?}: {compared}");
    }
}

#[test]
fn mean_squared_errors_are_those_of_the_law() {
    let dim = 128;
    // Not even nearly isotropic: the law must hold whatever the vectors are.
    let x = keys(4000, 1, dim, 21);
    for (name, bits, gaussian) in
        [("turboquant2", 2, 0.1175), ("turboquant3", 3, 0.03454), ("turboquant4", 4, 0.009497)]
    {
        let expected = distortion(dim, &codebook(dim, bits));
        assert!((expected / gaussian - 1.0).abs() < 0.05, "{name}: {expected}");
        for part in PARTS {
            // Fixed Π: an average over rotations needs vectors in general position.
            let x: Vec<f32> = if part == Part::Keys { Normals(22).take(4000 * dim) } else { x.clone() };
            let stored = KvCacheScheme::parse(name).unwrap().stored(part, &x, 1, dim);
            let relative: f64 = x
                .chunks(dim)
                .zip(stored.chunks(dim))
                .map(|(x, stored)| {
                    let energy: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                    x.iter().zip(stored).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / energy
                })
                .sum::<f64>()
                / 4000.0;
            assert!((relative / expected - 1.0).abs() < 0.02, "{name} {part:?}: {relative} {expected}");
        }
    }
}

#[test]
fn the_inner_product_form_is_unbiased_and_the_other_is_not() {
    let dim = 32;
    let every: Vec<usize> = (0..dim).collect();
    let mut normals = Normals(31);
    let (x, mut y) = (normals.take(dim), normals.take(dim));
    y.iter_mut().zip(&x).for_each(|(y, x)| *y += x);
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let (true_dot, x_norm, y_norm) = (dot(&x, &y), dot(&x, &x).sqrt(), dot(&y, &y).sqrt());
    let draws = 3000;
    for bits in 1..=4 {
        let distortion_of = |bits| distortion(dim, &codebook(dim, bits));
        let estimates = |form, coordinate_bits| -> (f64, f64) {
            let codebook = codebook(dim, coordinate_bits);
            let estimates: Vec<f64> = (0..draws)
                .map(|seed| {
                    let mut stored = x.clone();
                    Quantizer::new(seed, dim, &codebook, form).store(&mut stored, dim, &[&every]);
                    dot(&stored, &y)
                })
                .collect();
            let mean = estimates.iter().sum::<f64>() / draws as f64;
            (mean, estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (draws - 1) as f64)
        };
        // E⟨y, x̂⟩ = (1 − D)·⟨y, x⟩ for centroids that are means of their cells.
        let (mean, variance) = estimates(TurboForm::Mse, bits);
        let expected = (1.0 - distortion_of(bits)) * true_dot;
        assert!(
            (mean - expected).abs() < 4.0 * (variance / draws as f64).sqrt(),
            "{bits}: {mean} {expected}"
        );
        if bits == 1 {
            assert!(mean < 0.7 * true_dot);
            continue;
        }
        let (mean, variance) = estimates(TurboForm::InnerProduct, bits - 1);
        assert!(
            (mean - true_dot).abs() < 4.0 * (variance / draws as f64).sqrt(),
            "{bits}: {mean} {true_dot}"
        );
        // Theorem 2's bound, which the sketch comes close to in many dimensions.
        let bound = PI / 2.0 / dim as f64 * distortion_of(bits - 1) * (x_norm * y_norm).powi(2);
        assert!(variance < 1.1 * bound && variance > 0.8 * bound, "{bits}: {variance} {bound}");
    }
}

#[test]
fn outlier_channels_are_the_loudest_of_the_first_tokens() {
    let (heads, head_dim) = (2, 32);
    let mut x = Normals(41).take(40 * heads * head_dim);
    for (token, row) in x.chunks_mut(heads * head_dim).enumerate() {
        // Loud from the start in one head; in the other only when it is too late.
        (20..28).for_each(|channel| row[channel] *= 50.0);
        (0..8).for_each(|channel| row[head_dim + channel] *= if token < 32 { 10.0 } else { 1.0 });
        (8..32).for_each(|channel| row[head_dim + channel] *= if token < 32 { 1.0 } else { 1000.0 });
    }
    let order = channels_by_norm(&x, heads, head_dim, 0, 8);
    assert_eq!(order[..8], [20, 21, 22, 23, 24, 25, 26, 27]);
    assert_eq!(channels_by_norm(&x, heads, head_dim, 1, 8), (0..32).collect::<Vec<_>>());
    // Their error is that of one more bit, in the scale of their own instance.
    let stored = KvCacheScheme::parse("turboquant2.5").unwrap().stored(Part::Keys, &x, heads, head_dim);
    let error = |channels: std::ops::Range<usize>| -> f64 {
        let rows = x.chunks(heads * head_dim).zip(stored.chunks(heads * head_dim));
        let (mut errors, mut energies) = (0.0, 0.0);
        for (x, stored) in rows {
            errors += channels.clone().map(|c| f64::from(x[c] - stored[c]).powi(2)).sum::<f64>();
            energies += channels.clone().map(|c| f64::from(x[c]).powi(2)).sum::<f64>();
        }
        errors / energies
    };
    let (outliers, others) = (error(20..28), error(0..20));
    assert!((outliers / distortion(8, &codebook(8, 3)) - 1.0).abs() < 0.2, "{outliers}");
    assert!((others / distortion(24, &codebook(24, 2)) - 1.0).abs() < 0.2, "{others}");
}

// Names, sizes, refusals.

#[test]
fn names_and_schemes_are_one_to_one() {
    for (name, about) in KvCacheScheme::names() {
        let scheme = KvCacheScheme::parse(name).unwrap();
        assert_eq!(scheme.name(), name);
        assert!(!about.is_empty() && scheme.check(128).is_ok());
    }
    let mixed = KvCacheScheme::parse("k:q8_0+v:turboquant3").unwrap();
    assert_eq!(mixed.name(), "k:q8_0+v:turboquant3");
    assert_eq!(KvCacheScheme::parse(&mixed.name()).unwrap(), mixed);
    assert_eq!(KvCacheScheme::parse("k:q4_0+v:q4_0").unwrap(), KvCacheScheme::parse("q4_0").unwrap());
    for unknown in [
        "",
        "q4_K",
        "Q8_0",
        "f16-hadamard",
        "k:q8_0",
        "k:q8_0+v:",
        "k:q8_0+v:k:q8_0+v:q4_0",
        "int8",
        "turboquant5",
    ] {
        let error = KvCacheScheme::parse(unknown).unwrap_err();
        assert!(KvCacheScheme::names().all(|(name, _)| error.help().unwrap().contains(name)), "{unknown}");
    }
}

#[test]
fn bits_count_scales_minima_and_norms() {
    let bits = |name: &str, head_dim| KvCacheScheme::parse(name).unwrap().bits_per_value(head_dim);
    // Bytes of llama.cpp's blocks: 34, 22, 24, 18, 20, 18 for 32 values.
    let expected = [
        ("f16", 16.0),
        ("q8_0", 34.0 / 4.0),
        ("q5_0", 22.0 / 4.0),
        ("q5_1", 24.0 / 4.0),
        ("q4_0-hadamard", 18.0 / 4.0),
        ("q4_1", 20.0 / 4.0),
        ("iq4_nl", 18.0 / 4.0),
        ("fp8", 8.0),
        ("kivi2", 3.0),
        ("kivi4", 5.0),
        ("k:q8_0+v:q4_0", 6.5),
        ("turboquant2", 2.125),
        ("turboquant4", 4.125),
        ("turboquant2.5", 2.5),
        ("turboquant3.5", 3.5),
        ("turboquant3-prod", 3.25),
        ("turboquant2.5-prod", 2.75),
    ];
    for (name, expected) in expected {
        assert_eq!(bits(name, 128), expected, "{name}");
    }
    assert_eq!(bits("turboquant2", 64), 2.25);
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let refused = |name: &str, head_dim| {
        let error = KvCacheScheme::parse(name).unwrap().check(head_dim).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&head_dim.to_string()), "{error}");
    };
    refused("q8_0", 80);
    refused("iq4_nl", 16);
    refused("q8_0-hadamard", 96);
    refused("kivi2", 80);
    refused("turboquant3", 4);
    refused("turboquant3", 1032);
    refused("turboquant2.5", 16);
    refused("turboquant2.5", 42);
    for (name, head_dim) in
        [("f16", 80), ("fp8", 1), ("q8_0", 96), ("kivi4", 96), ("turboquant3", 80), ("turboquant3.5", 80)]
    {
        let scheme = KvCacheScheme::parse(name).unwrap();
        scheme.check(head_dim).unwrap();
        assert_eq!(
            scheme.stored(Part::Values, &Normals(1).take(40 * 3 * head_dim), 3, head_dim).len(),
            40 * 3 * head_dim
        );
    }
    assert!(KvCacheScheme::parse("f16").unwrap().check(0).is_err());
    assert!(KvCacheScheme::parse("k:f16+v:q4_0").unwrap().check(80).is_err());
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(KvCacheScheme::Fp8 { k_scale: bad, v_scale: 1.0 }.check(64).is_err());
        assert!(KvCacheScheme::Int8 { k_scale: 1.0, v_scale: bad }.check(64).is_err());
    }
}
