//! Sample files from disk: which files of a folder belong to a run, and the rows of each, with line numbers in
//! every complaint.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::{
    digest::Digest,
    parse::{Malformed, Parser, parse},
    row::Row,
};
use crate::error::{Error, Result};

/// Longest line, bytes.
const LONGEST_LINE: u64 = 64 << 20;
/// Largest file of the old form, one array over many lines, bytes.
const LARGEST_ARRAY: u64 = 2 << 30;
/// Most rows of a file.
const MOST_ROWS: usize = 10_000_000;
/// Most entries of a folder.
const MOST_ENTRIES: usize = 100_000;
/// What a row without a filter is called.
const NO_FILTER: &str = "none";

/// What one model answered, as another program (or this one) wrote it down.
#[derive(Clone, Debug)]
pub struct SampleFile {
    /// The file or folder that was asked for.
    pub path: PathBuf,
    /// By name.
    pub tasks: Vec<SampleTask>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// The rows of one task.
#[derive(Clone, Debug)]
pub struct SampleTask {
    /// From the file's name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Whether the file's name says which task it is (`samples_<task>….jsonl`).
    pub(super) is_named: bool,
    /// By filter, rows in the order of their documents.
    pub(super) rows: BTreeMap<String, Vec<Row>>,
}

impl SampleTask {
    /// The filters that the rows went through; `none` without one.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// Rows, over all filters.
    pub fn rows(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }
}

/// Reads a sample file, or the sample files of a folder (or of its only subfolder that holds any, as
/// lm-evaluation-harness nests them by model).
///
/// Of several runs of a task the newest is read, by the times in the files' names; the notes name the others.
/// Files of lm-evaluation-harness from 0.4.0 are understood: hashes are computed where they are missing, rows
/// without the name of their filter are told apart by their order.
///
/// # Errors
/// A folder without sample files, several runs of a task that cannot be put in order, a line that is no row (with
/// its number), two rows for the same document and filter, values beyond the limits (64 MiB per line, 10 million
/// rows).
pub fn read(path: &Path) -> Result<SampleFile> {
    let mut notes = Vec::new();
    let metadata = fs::metadata(path).map_err(Error::io(path, "open"))?;
    let files = match metadata.is_dir() {
        true => newest(path, &mut notes)?,
        false => vec![Named::new(path.to_owned())],
    };
    let mut tasks = files.into_iter().map(task).collect::<Result<Vec<_>>>()?;
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(SampleFile { path: path.to_owned(), tasks, notes })
}

/// A sample file, and what its name says.
struct Named {
    path: PathBuf,
    task: String,
    is_named: bool,
    time: Option<String>,
}

impl Named {
    fn new(path: PathBuf) -> Self {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let (stem, is_named) = match stem.strip_prefix("samples_") {
            Some(rest) => (rest, true),
            None => (stem.as_str(), false),
        };
        let (task, time) = match stem.rsplit_once('_') {
            Some((task, time)) if is_time(time) => (task, Some(time.to_owned())),
            _ => (stem, None),
        };
        Self { task: task.to_owned(), is_named, time, path }
    }
}

/// As the harness writes times into names: `2026-11-21T14-30-00.123456`.
fn is_time(text: &str) -> bool {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fits = |(index, byte): (usize, u8)| match index {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b'-' || byte == b':',
        _ => byte.is_ascii_digit(),
    };
    seconds.len() == 19
        && seconds.bytes().enumerate().all(fits)
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

/// The newest sample file of every task in a folder.
fn newest(folder: &Path, notes: &mut Vec<String>) -> Result<Vec<Named>> {
    let mut by_task: BTreeMap<String, Vec<Named>> = BTreeMap::new();
    for file in sample_files(folder)? {
        by_task.entry(file.task.clone()).or_default().push(file);
    }
    let mut chosen = Vec::new();
    for (task, mut files) in by_task {
        files.sort_by(|a, b| a.time.cmp(&b.time));
        let older = files.len().saturating_sub(1);
        let undated = files.iter().filter(|file| file.time.is_none()).count();
        if older > 0 && undated > 0 {
            let problem =
                format!("holds {} sample files of the task `{task}`, not all with a time", files.len());
            return Err(Error::file(folder, problem, "name the file that is meant"));
        }
        if let Some(last) = files.pop() {
            if older > 0 {
                let time = last.time.as_deref().unwrap_or_default();
                let runs = if older == 1 { "run" } else { "runs" };
                notes.push(format!("task `{task}`: {older} older {runs} left out, the newest is of {time}"));
            }
            chosen.push(last);
        }
    }
    Ok(chosen)
}

/// The sample files of a folder, or of its only subfolder that holds any.
fn sample_files(folder: &Path) -> Result<Vec<Named>> {
    let (files, folders) = entries(folder)?;
    if !files.is_empty() {
        return Ok(files);
    }
    let mut found = Vec::new();
    for inner in folders {
        let (files, _) = entries(&inner)?;
        if !files.is_empty() {
            found.push((inner, files));
        }
    }
    let help = "give a samples_<task>.jsonl file or a folder that holds some (lm_eval --log_samples)";
    match found.len() {
        0 => Err(Error::file(folder, "holds no samples_<task>.jsonl file", help)),
        1 => Ok(found.pop().map(|(_, files)| files).unwrap_or_default()),
        count => {
            let names =
                found.iter().filter_map(|(inner, _)| inner.file_name()).map(|name| name.to_string_lossy());
            let names = names.take(5).collect::<Vec<_>>().join(", ");
            let problem = format!("holds the sample files of {count} models ({names})");
            Err(Error::file(folder, problem, "name the folder of one model"))
        }
    }
}

/// The sample files and the folders in a folder, by name.
fn entries(folder: &Path) -> Result<(Vec<Named>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    for (index, entry) in entries.enumerate() {
        if index >= MOST_ENTRIES {
            let problem = format!("holds more than {MOST_ENTRIES} entries");
            return Err(Error::file(folder, problem, "name the sample file itself"));
        }
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            folders.push(path);
        } else if name.starts_with("samples_") && name.ends_with(".jsonl") {
            files.push(Named::new(path));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    folders.sort();
    Ok((files, folders))
}

fn task(file: Named) -> Result<SampleTask> {
    let rows = by_filter(&file.path, rows(&file.path)?)?;
    Ok(SampleTask { name: file.task, path: file.path, is_named: file.is_named, rows })
}

fn wrong_line(path: &Path, line: usize, problem: &str) -> Error {
    let help = "give the samples_<task>.jsonl file of a finished run (not results_*.json)";
    Error::file(path, format!("line {line} {problem}"), help)
}

/// All rows of a file, in its order.
fn rows(path: &Path) -> Result<Vec<Row>> {
    let mut reader = BufReader::new(File::open(path).map_err(Error::io(path, "open"))?);
    let start = reader.fill_buf().map_err(Error::io(path, "read"))?;
    if start.trim_ascii_start().starts_with(b"[") {
        return rows_of_array(path, reader);
    }
    let mut rows = Vec::new();
    let mut bytes = Vec::new();
    let mut line = 0_usize;
    let mut empty = None;
    loop {
        bytes.clear();
        let limit = LONGEST_LINE.saturating_add(1);
        let read =
            reader.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(Error::io(path, "read"))?;
        if read == 0 {
            break;
        }
        line = line.saturating_add(1);
        let wrong = |problem: &str| wrong_line(path, line, problem);
        if read as u64 > LONGEST_LINE {
            return Err(wrong("is longer than the 64 MiB that are read"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8"))?;
        if text.trim_ascii().is_empty() {
            empty = empty.or(Some(line));
            continue;
        }
        if let Some(empty) = empty {
            return Err(wrong_line(path, empty, "is empty"));
        }
        if rows.len() >= MOST_ROWS {
            return Err(wrong("is beyond the 10 million rows that are read"));
        }
        let value = parse(text).map_err(|Malformed { at, problem }| {
            let place = text.get(..at).map_or(at, |before| before.chars().count());
            wrong(&format!("{problem} (at character {})", place.saturating_add(1)))
        })?;
        rows.push(Row::new(&value, line).map_err(|problem| wrong(&problem))?);
    }
    Ok(rows)
}

/// The rows of a file that is one array over many lines, as the harness wrote before 0.4.3 (under the same name).
fn rows_of_array(path: &Path, reader: BufReader<File>) -> Result<Vec<Row>> {
    let mut bytes = Vec::new();
    let read = reader.take(LARGEST_ARRAY.saturating_add(1)).read_to_end(&mut bytes);
    if read.map_err(Error::io(path, "read"))? as u64 > LARGEST_ARRAY {
        let problem = "is one array of more than 2 GiB";
        return Err(Error::file(path, problem, "write it with one row per line"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        wrong_line(path, lines_before(before).saturating_add(1), "is not UTF-8")
    })?;
    // Lines are counted on from row to row, so that a long file is not gone through once per row.
    let (mut line, mut counted) = (1_usize, 0_usize);
    let mut line_at = |at: usize| {
        line = line.saturating_add(lines_before(text.as_bytes().get(counted..at).unwrap_or_default()));
        counted = counted.max(at);
        line
    };
    let mut parser = Parser::new(text);
    let mut rows = Vec::new();
    parser.take('[');
    while !parser.take(']') {
        let at = parser.position();
        if !rows.is_empty() && !parser.take(',') {
            return Err(wrong_line(path, line_at(at), "has no `,` between two rows"));
        }
        let line = line_at(parser.position());
        let value = parser.value();
        let value = value.map_err(|malformed| wrong_line(path, line_at(malformed.at), &malformed.problem))?;
        if rows.len() >= MOST_ROWS {
            return Err(wrong_line(path, line, "is beyond the 10 million rows that are read"));
        }
        rows.push(Row::new(&value, line).map_err(|problem| wrong_line(path, line, &problem))?);
    }
    parser.end().map_err(|malformed| wrong_line(path, line_at(malformed.at), &malformed.problem))?;
    Ok(rows)
}

fn lines_before(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Rows by filter, each in the order of the documents.
fn by_filter(path: &Path, rows: Vec<Row>) -> Result<BTreeMap<String, Vec<Row>>> {
    if rows.is_empty() {
        let help = "give the samples_<task>.jsonl file of a finished run";
        return Err(Error::file(path, "holds no row", help));
    }
    let nameless = name_filters(&rows);
    let mut filters: BTreeMap<String, BTreeMap<u64, Row>> = BTreeMap::new();
    for (row, nameless) in rows.into_iter().zip(nameless) {
        let name = row.filter.clone().unwrap_or(nameless);
        let (line, doc_id) = (row.line, row.doc_id);
        let rows = filters.entry(name.clone()).or_default();
        if let Some(before) = rows.insert(doc_id, row) {
            let problem = format!(
                "is a second row for document {doc_id} and filter `{name}`; the first is line {}",
                before.line
            );
            let help =
                "give the file of one run (lm-evaluation-harness appends where a file is there already)";
            return Err(Error::file(path, format!("line {line} {problem}"), help));
        }
    }
    Ok(filters.into_iter().map(|(name, rows)| (name, rows.into_values().collect())).collect())
}

/// Names for rows without the name of a filter (before 0.4.7): `none`; where every document has the same number of
/// rows that filter the same answer, `unnamed 1`, `unnamed 2`, … in their order.
fn name_filters(rows: &[Row]) -> Vec<String> {
    let mut seen: BTreeMap<u64, (usize, Option<Digest>)> = BTreeMap::new();
    let mut same_answers = true;
    let mut order = Vec::with_capacity(rows.len());
    for row in rows {
        let (count, answered) = seen.entry(row.doc_id).or_insert((0, row.answered));
        *count = count.saturating_add(1);
        same_answers &= answered.is_some() && *answered == row.answered;
        order.push(*count);
    }
    let mut counts = seen.values().map(|(count, _)| *count);
    let first = counts.next().unwrap_or(0);
    let are_filters = first > 1
        && counts.all(|count| count == first)
        && same_answers
        && rows.iter().all(|row| row.filter.is_none());
    let name = |order: usize| if are_filters { format!("unnamed {order}") } else { NO_FILTER.to_owned() };
    order.into_iter().map(name).collect()
}
