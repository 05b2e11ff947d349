//! A small file is built field by field, then damaged in one place at a time.

use super::*;
use proptest::prelude::*;

/// A header under construction, and the data that follows it.
#[derive(Clone, Default)]
struct Draft {
    version: Option<u32>,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data_bytes: usize,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), &count.to_le_bytes()[..], elements].concat()
}

impl Draft {
    /// A pair whose value is the raw `bytes` of type `kind`.
    fn pair(mut self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.pairs.push([&string(key), &kind.to_le_bytes()[..], bytes].concat());
        self
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], ggml_type: u32, offset: u64) -> Self {
        let mut bytes = string(name);
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        bytes.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
        bytes.extend(ggml_type.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data_bytes = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.unwrap_or(3).to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        file.extend(self.pairs.concat());
        file.extend(self.tensors.concat());
        file.resize(file.len().next_multiple_of(32) + self.data_bytes, 0);
        file
    }

    fn parse(&self) -> Result<Gguf> {
        Gguf::parse(Path::new("dir/m.gguf"), &self.bytes())
    }

    fn value(kind: u32, bytes: &[u8]) -> Result<Value> {
        Draft::default()
            .pair("key", kind, bytes)
            .parse()
            .map(|mut gguf| gguf.metadata.0.remove("key").unwrap())
    }

    #[track_caller]
    fn fails(&self, words: &str) {
        check_failure(self.parse(), words);
    }
}

#[track_caller]
fn check_failure<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().starts_with("dir/m.gguf: "), "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.help().is_some_and(|help| !help.is_empty()), "no help: {error}");
}

/// Q8_0 [2, 32] and F32 [3] after it, with metadata of every shape.
fn sound() -> Draft {
    Draft::default()
        .pair("general.architecture", 8, &string("llama"))
        .pair("llama.block_count", 4, &7u32.to_le_bytes())
        .pair("tokenizer.ggml.tokens", 9, &array(8, 2, &[string("<s>"), string("▁a")].concat()))
        .pair("tokenizer.ggml.scores", 9, &array(6, 2, &[0, 0, 0, 0, 0, 0, 0x80, 0xBF]))
        .tensor("blk.0.ffn_down.weight", &[32, 2], 8, 0)
        .tensor("output_norm.weight", &[3], 0, 96)
        .data(96 + 12)
}

#[test]
fn a_sound_header_is_read() {
    let gguf = sound().parse().unwrap();
    assert_eq!((gguf.version, gguf.alignment, gguf.data_start % 32), (3, 32, 0));
    assert_eq!(gguf.metadata.get_str("general.architecture"), Some("llama"));
    assert_eq!(gguf.metadata.get_u64("llama.block_count"), Some(7));
    assert_eq!(gguf.metadata.get_strings("tokenizer.ggml.tokens").unwrap(), ["<s>", "▁a"]);
    assert_eq!(gguf.metadata.get_floats("tokenizer.ggml.scores").unwrap(), [0.0, -1.0]);
    let start = gguf.data_start as usize;
    let expected = [
        GgufTensor {
            name: "blk.0.ffn_down.weight".into(),
            shape: vec![2, 32],
            ggml_type: 8,
            bytes: Some(start..start + 68),
        },
        GgufTensor {
            name: "output_norm.weight".into(),
            shape: vec![3],
            ggml_type: 0,
            bytes: Some(start + 96..start + 108),
        },
    ];
    assert_eq!(gguf.tensors, expected);
    assert_eq!(Draft { version: Some(2), ..sound() }.parse().unwrap().tensors, expected);
}

#[test]
fn every_type_of_value_is_read() {
    let scalars: [(u32, &[u8], Value); 13] = [
        (0, &[200], Value::Unsigned(200)),
        (1, &[0xFF], Value::Signed(-1)),
        (2, &0xFEDCu16.to_le_bytes(), Value::Unsigned(0xFEDC)),
        (3, &(-2i16).to_le_bytes(), Value::Signed(-2)),
        (4, &u32::MAX.to_le_bytes(), Value::Unsigned(u32::MAX.into())),
        (5, &i32::MIN.to_le_bytes(), Value::Signed(i32::MIN.into())),
        (6, &1e-5f32.to_le_bytes(), Value::Float(f64::from(1e-5f32))),
        (7, &[1], Value::Bool(true)),
        (8, &string("текст"), Value::String("текст".into())),
        (9, &array(4, 1, &5u32.to_le_bytes()), Value::Integers(vec![5])),
        (10, &u64::MAX.to_le_bytes(), Value::Unsigned(u64::MAX)),
        (11, &i64::MIN.to_le_bytes(), Value::Signed(i64::MIN)),
        (12, &0.1f64.to_le_bytes(), Value::Float(0.1)),
    ];
    for (kind, bytes, expected) in scalars {
        assert_eq!(Draft::value(kind, bytes).unwrap(), expected, "type {kind}");
    }
    let arrays: [(u32, u64, &[u8], Value); 13] = [
        (0, 2, &[1, 255], Value::Integers(vec![1, 255])),
        (1, 2, &[1, 255], Value::Integers(vec![1, -1])),
        (2, 1, &[1, 255], Value::Integers(vec![0xFF01])),
        (3, 1, &[1, 255], Value::Integers(vec![-255])),
        (4, 1, &[0, 0, 0, 255], Value::Integers(vec![0xFF00_0000])),
        (5, 1, &[0, 0, 0, 255], Value::Integers(vec![-0x0100_0000])),
        (6, 1, &0.5f32.to_le_bytes(), Value::Floats(vec![0.5])),
        (7, 3, &[1, 0, 1], Value::Bools(vec![true, false, true])),
        (8, 0, &[], Value::Strings(vec![])),
        (9, 1, &array(7, 1, &[0]), Value::Nested(vec![Value::Bools(vec![false])])),
        (10, 1, &7u64.to_le_bytes(), Value::Integers(vec![7])),
        (11, 1, &(-7i64).to_le_bytes(), Value::Integers(vec![-7])),
        (12, 1, &0.5f64.to_le_bytes(), Value::Floats(vec![0.5])),
    ];
    for (kind, count, bytes, expected) in arrays {
        assert_eq!(Draft::value(9, &array(kind, count, bytes)).unwrap(), expected, "array of type {kind}");
    }
}

#[test]
fn getters_answer_only_for_their_own_kind() {
    let draft =
        sound().pair("n", 5, &(-3i32).to_le_bytes()).pair("t", 7, &[1]).pair("x", 6, &0.5f32.to_le_bytes());
    let metadata = draft.pair("ints", 9, &array(0, 1, &[9])).parse().unwrap().metadata;
    assert_eq!(metadata.get_u64("n"), None);
    assert_eq!(metadata.get_f64("n"), Some(-3.0));
    assert_eq!((metadata.get_f64("x"), metadata.get_u64("x")), (Some(0.5), None));
    assert_eq!((metadata.get_bool("t"), metadata.get_bool("n")), (Some(true), None));
    assert_eq!((metadata.get_integers("ints"), metadata.get_floats("ints")), (Some(&[9][..]), None));
    assert_eq!((metadata.get_str("missing"), metadata.get_str("n")), (None, None));
}

#[test]
fn versions_and_byte_orders_that_are_not_read_are_explained() {
    Draft { version: Some(1), ..sound() }.fails("GGUF version 1 is not read");
    Draft { version: Some(3u32.swap_bytes()), ..sound() }.fails("big-endian");
    Draft { version: Some(4), ..sound() }.fails("GGUF version 4 is not known");
    check_failure(Gguf::parse(Path::new("dir/m.gguf"), b"GGUF\x03\0"), "truncated");
    check_failure(Gguf::parse(Path::new("dir/m.gguf"), b"version https://git-lfs"), "git-lfs pointer");
    check_failure(
        Gguf::parse(Path::new("dir/m.gguf"), b"\x02\0\0\0\0\0\0\0{}"),
        "this is a safetensors file",
    );
    check_failure(Gguf::parse(Path::new("dir/m.gguf"), b"BLOB and more"), "not a GGUF file");
}

#[test]
fn a_part_of_a_split_model_says_which_it_is() {
    let part = |number: u16, count: u16| {
        sound().pair("split.no", 2, &number.to_le_bytes()).pair("split.count", 2, &count.to_le_bytes())
    };
    assert_eq!(part(1, 3).parse().unwrap().split, Some(Split { number: 1, count: 3, tensors: None }));
    assert_eq!(part(0, 1).parse().unwrap().split, None);
    part(3, 3).fails("no such part");
    sound().pair("split.count", 2, &2u16.to_le_bytes()).fails("no such part");
}

#[test]
fn parts_are_found_by_name_and_must_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let split = Split { number: 0, count: 2, tensors: Some(2) };
    let first = folder.path().join("m-00001-of-00002.gguf");
    std::fs::write(&first, "x").unwrap();
    assert!(split.parts(&first).unwrap_err().to_string().contains("missing"));
    let second = folder.path().join("m-00002-of-00002.gguf");
    std::fs::write(&second, "x").unwrap();
    assert_eq!(split.parts(&first).unwrap(), [first.clone(), second.clone()]);
    assert_eq!(Split { number: 1, ..split }.parts(&second).unwrap(), [first.clone(), second.clone()]);
    let renamed = split.parts(&folder.path().join("other.gguf")).unwrap_err();
    assert!(renamed.to_string().contains("should be called NAME-00001-of-00002.gguf"), "{renamed}");

    let paths = [first, second];
    let mut parts = [sound().parse().unwrap(), sound().parse().unwrap()];
    let tensors = parts[0].tensors.len() as u64 * 2;
    (parts[0].split, parts[1].split) = (Some(split), Some(Split { number: 1, ..split }));
    let fitting = Split { tensors: Some(tensors), ..split };
    check_parts(&fitting, &paths, &parts).unwrap();
    let promised = check_parts(&Split { tensors: Some(tensors + 1), ..split }, &paths, &parts).unwrap_err();
    assert!(promised.to_string().contains("are promised"), "{promised}");
    parts[1].split = None;
    assert!(check_parts(&fitting, &paths, &parts).unwrap_err().to_string().contains("its metadata None"));
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    for at in [8, 16] {
        for count in [u64::MAX, 1 << 60, 1 << 40, 1000] {
            let mut file = sound().bytes();
            file[at..at + 8].copy_from_slice(&count.to_le_bytes());
            check_failure(Gguf::parse(Path::new("dir/m.gguf"), &file), "cannot hold");
        }
    }
    for count in [u64::MAX, 1 << 61, 1 << 40, 1000] {
        for kind in 0..13 {
            check_failure(Draft::value(9, &array(kind, count, &[0; 4])), "truncated or corrupt");
        }
        check_failure(Draft::value(8, &count.to_le_bytes()), "truncated or corrupt: needs bytes");
    }
}

/// A file of zeros costs nothing on a disk, however long; a count must not turn it into memory.
#[test]
fn a_long_file_does_not_turn_into_memory() {
    let cases: [(u32, u64, &str); 2] =
        [(0, 150_000_000, "corrupt: bytes"), (8, 20_000_000, "promises 20000000 elements")];
    for (kind, count, words) in cases {
        let mut file = vec![0; 2 * content::MAX_HEADER_BYTES];
        let header = Draft::default().pair("key", 9, &array(kind, count, &[])).bytes();
        file[..header.len()].copy_from_slice(&header);
        check_failure(Gguf::parse(Path::new("dir/m.gguf"), &file), words);
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_key() {
    check_failure(Draft::value(13, &[0; 8]), "`key`: value type 13 is not known");
    check_failure(Draft::value(7, &[2]), "`key`: a truth value must be 0 or 1, not 2");
    check_failure(Draft::value(8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF]), "`key`: `\u{FFFD}` is not UTF-8");
    check_failure(Draft::value(9, &array(10, 1, &u64::MAX.to_le_bytes())), "beyond the range of an i64");
    check_failure(Draft::value(9, &array(99, 1, &[0; 8])), "value type 99 is not known");
    let nested = (0..20).fold(array(0, 0, &[]), |inner, _| array(9, 1, &inner));
    check_failure(Draft::value(9, &nested), "nested deeper");
    sound()
        .pair("llama.block_count", 4, &[0; 4])
        .fails("`llama.block_count`: the metadata has this key twice");
    for alignment in [0u32, 24] {
        sound().pair("general.alignment", 4, &alignment.to_le_bytes()).fails("power of two");
    }
    sound().pair("general.alignment", 8, &string("32")).fails("power of two");
    sound()
        .pair("general.alignment", 10, &(1u64 << 63).to_le_bytes())
        .fails("truncated: it needs bytes 9223372036854775808");
}

#[test]
fn a_stated_alignment_moves_the_data() {
    let draft =
        Draft::default().pair("general.alignment", 4, &128u32.to_le_bytes()).tensor("t", &[4], 0, 128);
    let gguf = draft.clone().data(1024).parse().unwrap();
    assert_eq!((gguf.alignment, gguf.data_start % 128), (128, 0));
    assert_eq!(gguf.tensors[0].bytes.as_ref().unwrap().start as u64, gguf.data_start + 128);
    draft.tensor("u", &[4], 0, 32).data(1024).fails("its offset 32 is not a multiple of 128");
}

#[test]
fn tensors_that_cannot_be_are_refused_by_name() {
    sound()
        .tensor("output_norm.weight", &[1], 0, 0)
        .fails("`output_norm.weight`: the header names this tensor twice");
    sound()
        .tensor("t", &[33], 8, 128)
        .data(512)
        .fails("`t`: a row of 33 weights is not a whole number of Q8_0 blocks");
    sound().tensor("t", &[128], 12, 128).data(512).fails("not a whole number of Q4_K blocks of 256");
    sound().tensor("t", &[1 << 32, 1 << 32], 0, 128).data(512).fails("too large for any file");
    sound().tensor("t", &[1 << 62], 0, 128).data(512).fails("too large for any file");
    sound().tensor("t", &[1, 1, 1, 1, 1], 0, 128).data(512).fails("it has 5 dimensions");
    sound().tensor("t", &[4], 0, 130).data(512).fails("its offset 130 is not a multiple of 32");
    sound().tensor("t", &[4], 0, u64::MAX - 31).data(512).fails("beyond any file");
    sound().tensor("t", &[4], 0, 64).data(512).fails("`t`: its bytes");
    sound().tensor("t", &[256], 0, 128).data(512).fails("`t`: truncated: it needs bytes");
    sound().tensor("t\u{1b}[2J", &[4], 0, 130).data(512).fails("`t\\u{1b}[2J`");
}

#[test]
fn a_truncated_tensor_is_named_with_its_bytes() {
    let whole = sound().bytes();
    let end = whole.len();
    let error = Gguf::parse(Path::new("dir/m.gguf"), &whole[..end - 1]).unwrap_err().to_string();
    let expected = format!("truncated: it needs bytes {}..{end}, the file has {}", end - 12, end - 1);
    assert!(error.contains("`output_norm.weight`") && error.contains(&expected), "{error}");
}

#[test]
fn types_that_are_not_known_leave_the_rest_readable() {
    let gguf = sound().tensor("t", &[100], 777, 128).tensor("u", &[256], 16, 128).data(512).parse().unwrap();
    assert_eq!((gguf.tensors[2].bytes.clone(), type_label(777).as_str()), (None, "ggml type 777"));
    assert_eq!(gguf.tensors[3].bytes.as_ref().map(Range::len), Some(66));
    assert_eq!(type_label(16), "IQ2_XXS");
}

#[test]
fn a_vocabulary_without_tensors_may_end_before_the_data_would_begin() {
    let mut file = Draft::default().pair("a", 8, &string("b")).bytes();
    file.truncate(24 + 9 + 4 + 9);
    assert_eq!(Gguf::parse(Path::new("m"), &file).unwrap().tensors, []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    /// Whatever happens to a file, its header is read or refused: no panic, no range outside of the file, no
    /// memory out of proportion (a count that slipped through would abort the test).
    #[test]
    fn a_damaged_file_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut file = sound().bytes();
        for (at, byte) in &changes {
            let at = at.index(file.len());
            file[at] = *byte;
        }
        let length = length.index(2 * file.len()).min(file.len());
        if let Ok(gguf) = Gguf::parse(Path::new("m"), &file[..length]) {
            for tensor in gguf.tensors {
                prop_assert!(tensor.bytes.is_none_or(|bytes| file[..length].get(bytes).is_some()));
            }
        }
    }
}
