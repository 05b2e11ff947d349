//! Data files to records, whatever format they come in: JSON Lines, JSON, tables with columns, Parquet.
//!
//! A record is a JSON object; what its fields mean is the business of whoever asked for it. Every complaint
//! names the file and the line (or the record). Knows nothing of benchmarks, suites or models.

mod parquet;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Largest file that is read, in bytes.
const LARGEST_FILE: u64 = 4 << 30;

/// Most records of one call.
const MOST_RECORDS: usize = 10_000_000;

/// How to read what does not say so itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadOptions {
    /// Names of the columns of a `.csv` or `.tsv` file that has no header row. A first row that holds all of
    /// these names (in any case) *is* a header row and is read as one, under its own spelling.
    pub columns: Option<Vec<String>>,
}

/// What a file's name says about its content.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    JsonLines,
    Json,
    Csv,
    Tsv,
    Parquet,
}

/// The records of the file at `path`, or of all data files right inside the folder at `path` in the order of
/// their names: JSON objects, as many as there are rows.
///
/// * `.jsonl`, `.ndjson`: one object per line; blank lines are skipped.
/// * `.json`: an array of objects, or an object that holds one array (as SQuAD's `data`), or an answer of the
///   Hub's rows endpoint (`rows[].row`), or JSON Lines under the wrong name.
/// * `.csv`, `.tsv`: columns named by the first row, every value a string. A `.csv` quotes as RFC 4180 says;
///   in a `.tsv` a quotation mark is a letter like any other (as in IANA's `text/tab-separated-values`).
/// * `.parquet`: lists become arrays, structs objects; a float that JSON cannot write (NaN, infinities) null.
///
/// # Errors
/// Another ending, a file above 4 GiB, more than 10 million records, anything malformed (with its line), or
/// no record at all.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    read_with(path, &ReadOptions::default())
}

/// As [`read()`], with [`ReadOptions`].
///
/// # Errors
/// As [`read()`].
pub fn read_with(path: &Path, options: &ReadOptions) -> Result<Vec<Value>> {
    let files = if path.is_dir() { files_in(path)? } else { vec![path.to_owned()] };
    read_files(path, &files, options)
}

/// The records of several files, one after the other; `path` is what is named where there are none.
pub(super) fn read_files(path: &Path, files: &[PathBuf], options: &ReadOptions) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    for file in files {
        let mut more = read_file(file, options)?;
        if records.len().saturating_add(more.len()) > MOST_RECORDS {
            return Err(too_many(file));
        }
        records.append(&mut more);
    }
    if records.is_empty() {
        return Err(Error::file(path, "holds no record", "give a file with at least one record"));
    }
    Ok(records)
}

/// Whether the name of `path` ends as a data file's does.
pub(super) fn is_data_file(path: &Path) -> bool {
    format_of(path).is_some()
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => Some(Format::JsonLines),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// The data files right inside a folder, by name.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "open the folder"))? {
        let path = entry.map_err(Error::io(folder, "list the folder"))?.path();
        if is_data_file(&path) && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let help = "give a folder with .jsonl, .json, .csv, .tsv or .parquet files";
        return Err(Error::file(folder, "the folder holds no data file", help));
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, options: &ReadOptions) -> Result<Vec<Value>> {
    let Some(format) = format_of(path) else {
        let help = "give a .jsonl, .ndjson, .json, .csv, .tsv or .parquet file, or a folder of these";
        return Err(Error::file(path, "its name does not end as a data file's", help));
    };
    let file = File::open(path).map_err(Error::io(path, "open the data"))?;
    let size = file.metadata().map_err(Error::io(path, "open the data"))?.len();
    if size > LARGEST_FILE {
        let problem = format!("has {size} bytes, more than the {LARGEST_FILE} that are read");
        return Err(Error::file(path, problem, "split the file, or keep only what is measured"));
    }
    match format {
        Format::JsonLines => json_lines(path, BufReader::new(file)),
        Format::Json => json(path, file),
        Format::Csv => table(path, BufReader::new(file), b',', options),
        Format::Tsv => table(path, BufReader::new(file), b'\t', options),
        Format::Parquet => parquet::read(path, file, MOST_RECORDS),
    }
}

fn too_many(path: &Path) -> Error {
    let problem = format!("holds more than the {MOST_RECORDS} records that are read");
    Error::file(path, problem, "keep only what is measured")
}

/// One object per line.
fn json_lines(path: &Path, mut lines: impl BufRead) -> Result<Vec<Value>> {
    let help = "write one JSON object per line";
    let mut records = Vec::new();
    let mut line = Vec::new();
    for number in 1usize.. {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(Error::io(path, "read the data"))? == 0 {
            break;
        }
        // Some editors open a file with a byte order mark, which is no JSON.
        let bytes = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line[..] };
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |problem: String| Error::file(path, format!("line {number}: {problem}"), help);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
        let value: Value = serde_json::from_str(text).map_err(|e| wrong(without_line(&e)))?;
        if !value.is_object() {
            return Err(wrong(format!("{} where an object should be", kind_of(&value))));
        }
        if records.len() >= MOST_RECORDS {
            return Err(too_many(path));
        }
        records.push(value);
    }
    Ok(records)
}

/// serde_json's message with the column only, for a line that was parsed on its own.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((problem, _)) => format!("{problem} (column {})", error.column()),
        None => message,
    }
}

/// What a value is, for a message.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A whole JSON file.
fn json(path: &Path, mut file: File) -> Result<Vec<Value>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::io(path, "read the data"))?;
    let content = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut values = serde_json::Deserializer::from_slice(content).into_iter::<Value>();
    let help = "give a list of objects, or an object that holds one";
    let wrong = |problem: String| Error::file(path, problem, help);
    let value = match values.next() {
        None => return Err(wrong("the file is empty".to_owned())),
        Some(value) => value.map_err(|e| wrong(e.to_string()))?,
    };
    // Two values in one file: JSON Lines that were not called so.
    if !content.get(values.byte_offset()..).unwrap_or_default().trim_ascii().is_empty() {
        return json_lines(path, content);
    }
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut fields) => the_one_array(&mut fields).map_err(wrong)?,
        other => return Err(wrong(format!("holds {}", kind_of(&other)))),
    };
    if items.len() > MOST_RECORDS {
        return Err(too_many(path));
    }
    match items.iter().position(|item| !item.is_object()) {
        Some(index) => {
            Err(wrong(format!("record {index}: {} where an object should be", kind_of(&items[index]))))
        }
        None => Ok(items),
    }
}

/// The array in which an object keeps its records.
fn the_one_array(fields: &mut Map<String, Value>) -> Result<Vec<Value>, String> {
    // The Hub's rows endpoint answers {"features": […], "rows": [{"row_idx": 0, "row": {…}}, …], …}.
    if let Some(Value::Array(rows)) = fields.get_mut("rows")
        && rows.iter().all(|row| row.get("row").is_some_and(Value::is_object))
    {
        return Ok(rows.iter_mut().filter_map(|row| row.get_mut("row").map(Value::take)).collect());
    }
    let mut arrays: Vec<(String, Value)> =
        std::mem::take(fields).into_iter().filter(|(_, value)| value.is_array()).collect();
    match (arrays.pop(), arrays.len()) {
        (Some((_, Value::Array(items))), 0) => Ok(items),
        (None, _) => Err("holds an object without a list of records".to_owned()),
        (Some((last, _)), _) => {
            let mut names: Vec<String> = arrays.into_iter().map(|(name, _)| format!("`{name}`")).collect();
            names.push(format!("`{last}`"));
            Err(format!(
                "holds an object with several lists ({}), so which holds the records?",
                names.join(", ")
            ))
        }
    }
}

/// A table whose first row names the columns, or whose columns `options` names.
fn table(path: &Path, file: impl Read, delimiter: u8, options: &ReadOptions) -> Result<Vec<Value>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .quoting(delimiter == b',')
        .from_reader(file);
    let mut rows = reader.records();
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(0, csv::Position::line);
        let problem = match error.kind() {
            csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} columns, where the first row has {expected_len}")
            }
            _ => error.to_string(),
        };
        let help =
            "give every row as many columns as the first; put texts with commas or line ends into quotes";
        Error::file(path, format!("line {line}: {problem}"), help)
    };
    let Some(first) = rows.next() else { return Ok(Vec::new()) };
    let first = first.map_err(wrong)?;
    let first: Vec<&str> = first
        .iter()
        .enumerate()
        .map(|(i, c)| if i == 0 { c.trim_start_matches('\u{feff}') } else { c })
        .collect();
    let named = |name: &String| first.iter().any(|cell| cell.trim().eq_ignore_ascii_case(name));
    let mut records = Vec::new();
    let columns = match &options.columns {
        Some(columns) if !columns.iter().all(named) => {
            if columns.len() != first.len() {
                let problem =
                    format!("line 1: {} columns, and no header row with {}", first.len(), columns.join(", "));
                let help = format!("give a header row, or exactly the {} columns", columns.len());
                return Err(Error::file(path, problem, help));
            }
            records.push(record(columns, first.iter().copied()));
            columns.clone()
        }
        _ => first.iter().map(|cell| cell.trim().to_owned()).collect(),
    };
    let mut seen = BTreeSet::new();
    if let Some(twice) = columns.iter().find(|name| !seen.insert(name.as_str())) {
        let problem = format!("line 1: two columns are called `{twice}`");
        return Err(Error::file(path, problem, "give a first row that names every column once"));
    }
    for row in rows {
        if records.len() >= MOST_RECORDS {
            return Err(too_many(path));
        }
        records.push(record(&columns, row.map_err(wrong)?.iter()));
    }
    Ok(records)
}

fn record<'a>(columns: &[String], cells: impl Iterator<Item = &'a str>) -> Value {
    Value::Object(columns.iter().zip(cells).map(|(name, cell)| (name.clone(), Value::from(cell))).collect())
}

#[cfg(test)]
mod tests;
