//! Every format, and what is said of malformed files.

use serde_json::json;

use super::*;

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn kept(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Vec<Value>> {
    let (_folder, path) = file(name, bytes);
    read_with(&path, options)
}

#[track_caller]
fn gives(name: &str, content: &str, expect: &[Value]) {
    assert_eq!(kept(name, content.as_bytes(), &ReadOptions::default()).unwrap(), expect, "{name}");
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], expect: &str) {
    let error = kept(name, bytes, &ReadOptions::default()).unwrap_err();
    let text = error.to_string();
    let (_, problem) = text.split_once(&format!("{name}: ")).unwrap();
    assert_eq!(problem, expect);
    assert!(error.help().is_some_and(|help| !help.is_empty()));
}

#[test]
fn json_lines_are_records() {
    let two = [json!({"a": 1}), json!({"b": ["x", null]})];
    for name in ["a.jsonl", "a.NDJSON", "a.json"] {
        gives(name, "\u{feff}{\"a\": 1}\r\n\n{\"b\": [\"x\", null]}", &two);
    }
    refused("a.jsonl", b"{}\n\n[1]\n", "line 3: a list where an object should be");
    refused("a.jsonl", b"{}\n{\"a\": \xff}", "line 2: not UTF-8");
    refused("a.jsonl", b"{\"a\": NaN}", "line 1: expected value (column 7)");
    refused("a.jsonl", b"{\"a\": 1} {}", "line 1: trailing characters (column 10)");
    refused("a.jsonl", b"\n \n", "holds no record");
    refused("a.jsonl", "[".repeat(100_000).as_bytes(), "line 1: recursion limit exceeded (column 128)");
    refused("a.txt", b"{}", "its name does not end as a data file's");
}

#[test]
fn a_json_file_holds_one_list() {
    let two = [json!({"a": 1}), json!({"a": 2})];
    gives("a.json", r#"[{"a": 1}, {"a": 2}]"#, &two);
    gives("a.json", r#"{"version": "1.1", "data": [{"a": 1}, {"a": 2}]}"#, &two);
    // As the Hub's rows endpoint answers; `features` is a list too.
    let rows = r#"{"features": [{"name": "a"}], "rows": [{"row_idx": 0, "row": {"a": 1}, "truncated_cells": []},
        {"row_idx": 1, "row": {"a": 2}, "truncated_cells": []}], "num_rows_total": 2}"#;
    gives("a.json", rows, &two);
    refused(
        "a.json",
        b"{\"a\": [{}], \"b\": [{}]}",
        "holds an object with several lists (`a`, `b`), so which holds the records?",
    );
    refused("a.json", b"{\"a\": 1}", "holds an object without a list of records");
    refused("a.json", b"[{}, 3]", "record 1: a number where an object should be");
    refused("a.json", b"3", "holds a number");
    refused("a.json", b" ", "the file is empty");
    refused("a.json", b"[{}, ", "EOF while parsing a value at line 1 column 5");
    refused("a.json", b"[]", "holds no record");
}

#[test]
fn tables_name_their_columns_in_the_first_row() {
    let rows = [json!({"q": "a, \"b\"\nc", "A": "1"}), json!({"q": " d", "A": ""})];
    gives("a.csv", "\u{feff}q,A\n\"a, \"\"b\"\"\nc\",1\n d,\n", &rows);
    // In a .tsv a quotation mark is a letter.
    gives("a.tsv", "q\tA\n\"a\tb\"\n", &[json!({"q": "\"a", "A": "b\""})]);
    refused("a.csv", b"q,A\n1,2\n3\n", "line 3: 1 columns, where the first row has 2");
    refused("a.csv", b"q,A,q\n1,2,3\n", "line 1: two columns are called `q`");
    refused("a.csv", b"q\n\xff\n", "line 2: not UTF-8");
    refused("a.csv", b"q,A\n", "holds no record");
    refused("a.csv", b"", "holds no record");
}

#[test]
fn tables_without_a_header_row_are_told_their_columns() {
    let options = ReadOptions { columns: Some(["Question", "A"].map(String::from).to_vec()) };
    let read = |content: &str| kept("a.csv", content.as_bytes(), &options);
    // Two cells with one text are no reason to complain: they are no names.
    assert_eq!(
        read("x,x\ny,z\n").unwrap(),
        [json!({"Question": "x", "A": "x"}), json!({"Question": "y", "A": "z"})]
    );
    // A header row is known by its names, in its own spelling, with more columns besides.
    assert_eq!(read(",question,A\n0,y,z\n").unwrap(), [json!({"": "0", "question": "y", "A": "z"})]);
    let error = read("x,y,z\n").unwrap_err();
    assert!(error.to_string().ends_with("line 1: 3 columns, and no header row with Question, A"), "{error}");
    assert_eq!(error.help(), Some("give a header row, or exactly the 2 columns"));
}

#[test]
fn a_folder_is_its_files_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("b.jsonl", "{\"n\": 2}");
    write("a.csv", "n\n1\n");
    write("README.md", "none");
    std::fs::create_dir(folder.path().join("deeper.jsonl")).unwrap();
    assert_eq!(read(folder.path()).unwrap(), [json!({"n": "1"}), json!({"n": 2})]);
    let empty = tempfile::tempdir().unwrap();
    assert!(read(empty.path()).unwrap_err().to_string().ends_with("the folder holds no data file"));
    assert!(matches!(read(&folder.path().join("none.jsonl")), Err(Error::Io { .. })));
}

/// Written by pyarrow 26 from these very columns: `write_table(t, …, store_schema=False,
/// write_statistics=False, use_dictionary=False, compression="snappy")`.
const PYARROW: &str = "
5041523115001528152c2c15061500150615061c000000144c02000000030303000000576f3f03000000e4b8ad150015
3015322c15081500150615061c000000181802000000030204010630a40000010000006101000000621500153015322c
15081500150615061c000000181802000000030204010630a40000010000004101000000421500152c15302c15061500
150615061c00000016540200000003030100000000000000ffffffffffffffff1500150e15122c15061500150615061c
0000000718020000000305011500151c15202c15061500150615061c0000000e340200000003030000003f0000c07f15
0419cc35001806736368656d61150a00150c250218087175657374696f6e25004c1c0000003502180763686f69636573
1504003502180474657874150215064c3c000000350418046c697374150200150c25021807656c656d656e7425004c1c
000000350218056c6162656c150215064c3c000000350418046c697374150200150c25021807656c656d656e7425004c
1c000000150425021806616e73776572001500250218026f6b0015082502180178001606191c196c26001c150c192506
001918087175657374696f6e15021606164e16522608491c150015001502003c160c19061926020400000026001c150c
1925060019480763686f696365730474657874046c69737407656c656d656e741502160816561658265a491c15001500
1502003c1604192606021956020002000400000026001c150c1925060019480763686f69636573056c6162656c046c69
737407656c656d656e74150216081656165826b201491c150015001502003c1604192606021956020002000400000026
001c150419250600191806616e737765721502160616521656268a02491c150015001502003c29061926020400000026
001c1500192506001918026f6b150216061634163826e002491c150015001502003c29061926020400000026001c1508
19250600191801781502160616421646269803491c150015001502003c29061926020400000016c2031606260816d603
002820706172717565742d6370702d6172726f772076657273696f6e2032362e302e31196c1c00001c00001c00001c00
001c00001c0000004902000050415231
";

fn pyarrow() -> Vec<u8> {
    let digits: String = PYARROW.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn parquet_with_lists_structs_and_nulls() {
    let records = kept("a.parquet", &pyarrow(), &ReadOptions::default()).unwrap();
    let expect = [
        json!({"question": "Wo?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": 1, "ok": true, "x": 0.5}),
        // NaN is null: JSON has no other word for it.
        json!({"question": "中", "choices": {"text": [], "label": []}, "answer": -1, "ok": null, "x": null}),
        json!({"question": null, "choices": null, "answer": null, "ok": false, "x": null}),
    ];
    assert_eq!(records, expect);
}

#[test]
fn damaged_parquet_is_an_error() {
    let whole = pyarrow();
    for length in (0..whole.len()).step_by(37) {
        assert!(kept("a.parquet", &whole[..length], &ReadOptions::default()).is_err(), "{length}");
    }
    let error = kept("a.parquet", b"PAR1 none of it PAR1", &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("not a readable Parquet file"), "{error}");
}
