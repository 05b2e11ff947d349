//! Tables as files, CSV and Parquet: the only file of the report that uses polars.
//!
//! Numbers keep every digit that tells them apart from their neighbours (CSV: the shortest text that
//! reads back the same). The token table is written batch by batch, one row group each: memory does
//! not grow with the length of the text. It must not know what a figure means.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use polars::prelude::{
    Column, CsvWriter, DataFrame, NamedFrom, ParquetWriter, PolarsError, PolarsResult, SerWriter, Series,
};

use super::tidy::{Table, Values};
use crate::error::{Error, Result};
use crate::observation::{BaseToken, QuantToken};

/// Rows per batch and per row group of the token table.
const BATCH: usize = 1 << 16;

/// Every scored token with both sides' figures.
#[derive(Clone, Debug)]
pub struct TokenTable<'a> {
    /// Names of the tasks, by the index that [`BaseToken::task`] holds.
    pub tasks: Vec<String>,
    /// Base's side of every scored position.
    pub base: &'a [BaseToken],
    /// Label and side of each quant, at the same positions in the same order.
    pub quants: Vec<(String, &'a [QuantToken])>,
}

/// Writes `table` into `folder` in both formats; returns the names of the files.
pub(super) fn write(folder: &Path, table: &Table) -> Result<Vec<PathBuf>> {
    let (csv, parquet) =
        (folder.join(format!("{}.csv", table.name)), folder.join(format!("{}.parquet", table.name)));
    for (path, kind) in [(&csv, Kind::Csv), (&parquet, Kind::Parquet)] {
        let mut file = create(path)?;
        encode(table, kind, &mut file).map_err(failed(path))?;
        finish(file, path)?;
    }
    Ok(vec![csv, parquet])
}

/// A file format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Comma-separated, with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// `table` as the bytes of a file.
pub(super) fn bytes(table: &Table, kind: Kind) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(table, kind, &mut bytes).map_err(failed(Path::new(table.name)))?;
    Ok(bytes)
}

fn encode(table: &Table, kind: Kind, to: &mut impl Write) -> PolarsResult<()> {
    let mut frame = frame(&table.columns)?;
    match kind {
        Kind::Csv => CsvWriter::new(to).include_header(true).finish(&mut frame),
        Kind::Parquet => ParquetWriter::new(to).finish(&mut frame).map(|_| ()),
    }
}

/// Writes the token table into `folder`, one row per token and quant; returns the names of the files.
pub(super) fn write_tokens(folder: &Path, tokens: &TokenTable<'_>) -> Result<Vec<PathBuf>> {
    check(tokens)?;
    let (csv_path, parquet_path) = (folder.join("tokens.csv"), folder.join("tokens.parquet"));
    let empty = token_frame(tokens, "", &[], &[]).map_err(failed(&csv_path))?;
    let (mut csv_file, mut parquet_file) = (create(&csv_path)?, create(&parquet_path)?);
    let csv = CsvWriter::new(&mut csv_file).include_header(true);
    let mut csv = csv.batched(empty.schema()).map_err(failed(&csv_path))?;
    let mut parquet =
        ParquetWriter::new(&mut parquet_file).batched(empty.schema()).map_err(failed(&parquet_path))?;
    // Without any batch the CSV file would lack its header.
    csv.write_batch(&empty).map_err(failed(&csv_path))?;
    for (label, quant) in &tokens.quants {
        for (base, quant) in tokens.base.chunks(BATCH).zip(quant.chunks(BATCH)) {
            let frame = token_frame(tokens, label, base, quant).map_err(failed(&csv_path))?;
            csv.write_batch(&frame).map_err(failed(&csv_path))?;
            parquet.write_batch(&frame).map_err(failed(&parquet_path))?;
        }
    }
    csv.finish().map_err(failed(&csv_path))?;
    parquet.finish().map_err(failed(&parquet_path))?;
    drop((csv, parquet));
    finish(csv_file, &csv_path)?;
    finish(parquet_file, &parquet_path)?;
    Ok(vec![csv_path, parquet_path])
}

fn check(tokens: &TokenTable<'_>) -> Result<()> {
    let help = "please report this: it is a mistake of qeval, not of yours";
    if let Some((label, quant)) = tokens.quants.iter().find(|(_, quant)| quant.len() != tokens.base.len()) {
        let problem = format!("{label} has {} token records and base {}", quant.len(), tokens.base.len());
        return Err(Error::argument(problem, help));
    }
    if let Some(token) = tokens.base.iter().find(|token| token.task as usize >= tokens.tasks.len()) {
        let problem = format!("a token belongs to task {} of {}", token.task, tokens.tasks.len());
        return Err(Error::argument(problem, help));
    }
    Ok(())
}

fn token_frame(
    table: &TokenTable<'_>,
    label: &str,
    base: &[BaseToken],
    quant: &[QuantToken],
) -> PolarsResult<DataFrame> {
    let of_base =
        |name: &str, get: fn(&BaseToken) -> f64| column(name, base.iter().map(get).collect::<Vec<_>>());
    let base_id =
        |name: &str, get: fn(&BaseToken) -> u32| column(name, base.iter().map(get).collect::<Vec<_>>());
    let of_quant =
        |name: &str, get: fn(&QuantToken) -> f64| column(name, quant.iter().map(get).collect::<Vec<_>>());
    let quant_id =
        |name: &str, get: fn(&QuantToken) -> u32| column(name, quant.iter().map(get).collect::<Vec<_>>());
    let task = |token: &BaseToken| table.tasks.get(token.task as usize).map(String::as_str);
    let columns = vec![
        column("label", vec![label; base.len()]),
        column("task", base.iter().map(task).collect::<Vec<_>>()),
        base_id("document", |b| b.document),
        base_id("window", |b| b.window),
        base_id("position", |b| b.position),
        base_id("token", |b| b.token),
        base_id("bytes", |b| b.bytes),
        of_base("base_nll", |b| b.nll),
        of_quant("quant_nll", |q| q.nll),
        of_quant("kl_divergence", |q| q.kl_divergence),
        of_quant("reverse_kl", |q| q.reverse_kl),
        of_quant("delta_p", |q| q.delta_p),
        of_base("base_entropy", |b| b.entropy),
        of_quant("quant_entropy", |q| q.entropy),
        of_base("base_max_probability", |b| b.max_probability),
        base_id("base_top1", |b| b.top1),
        quant_id("quant_top1", |q| q.top1),
        quant_id("top5_common", |q| q.top5_common),
    ];
    DataFrame::new(base.len(), columns)
}

fn frame(columns: &[(String, Values)]) -> PolarsResult<DataFrame> {
    let columns: Vec<Column> = columns
        .iter()
        .map(|(name, values)| match values {
            Values::Text(values) => column(name, values.as_slice()),
            Values::Integer(values) => column(name, values.as_slice()),
            Values::Number(values) => column(name, values.as_slice()),
            Values::Flag(values) => column(name, values.as_slice()),
        })
        .collect();
    DataFrame::new_infer_height(columns)
}

fn column<T, Phantom: ?Sized>(name: &str, values: T) -> Column
where
    Series: NamedFrom<T, Phantom>,
{
    Series::new(name.into(), values).into()
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path).map(BufWriter::new).map_err(Error::io(path, "create the table"))
}

/// What a buffer still holds must reach the file, or fail here and not unheard.
fn finish(mut file: BufWriter<File>, path: &Path) -> Result<()> {
    file.flush().map_err(Error::io(path, "write the table"))
}

fn failed(path: &Path) -> impl FnOnce(PolarsError) -> Error + use<> {
    let path = path.to_owned();
    move |reason| Error::file(&path, format!("cannot write the table: {reason}"), "is the disk full?")
}

#[cfg(test)]
mod tests {
    use polars::prelude::{CsvReadOptions, ParquetReader, SerReader};

    use super::super::{fixture, tidy};
    use super::*;

    fn read_csv(path: &Path) -> DataFrame {
        let options = CsvReadOptions::default().with_infer_schema_length(None);
        options.try_into_reader_with_file_path(Some(path.to_owned())).unwrap().finish().unwrap()
    }

    fn read_parquet(path: &Path) -> DataFrame {
        ParquetReader::new(File::open(path).unwrap()).finish().unwrap()
    }

    /// A value as text that keeps every bit of a number; a CSV file knows no types beyond that.
    fn exact(frame: &DataFrame, name: &str, row: usize) -> String {
        use polars::prelude::AnyValue;
        match frame.column(name).unwrap().get(row).unwrap() {
            AnyValue::Null => "null".to_owned(),
            AnyValue::Float64(v) => format!("{:x}", v.to_bits()),
            AnyValue::String(s) => s.to_owned(),
            AnyValue::StringOwned(s) => s.to_string(),
            AnyValue::Boolean(b) => b.to_string(),
            other => other.to_string(),
        }
    }

    fn exact_value(values: &Values, row: usize) -> String {
        let text = match values {
            Values::Text(v) => v[row].clone(),
            Values::Integer(v) => v[row].map(|v| v.to_string()),
            Values::Number(v) => v[row].map(|v| format!("{:x}", v.to_bits())),
            Values::Flag(v) => v[row].map(|v| v.to_string()),
        };
        text.unwrap_or_else(|| "null".to_owned())
    }

    #[test]
    fn files_read_back_as_they_were() {
        let mut comparison = fixture::with_questions();
        comparison.quants.extend(fixture::comparison().quants.drain(..2));
        comparison.quants[0].model.label = "quoted \"label\", with a comma\nand a line".to_owned();
        comparison.quants[1].overall.kl_divergence.mean.value = 0.1 + 0.2;
        comparison.quants[2].overall.kl_divergence.mean.value = 5e-324;
        comparison.quants[3].overall.kl_divergence.mean.value = 1.797_693_134_862_315_7e308;
        let folder = tempfile::tempdir().unwrap();
        for table in tidy::tables(&comparison) {
            let files = write(folder.path(), &table).unwrap();
            let (csv, parquet) = (read_csv(&files[0]), read_parquet(&files[1]));
            assert_eq!(csv.height(), parquet.height(), "{}", table.name);
            for (name, values) in &table.columns {
                for row in 0..parquet.height() {
                    assert_eq!(exact(&parquet, name, row), exact_value(values, row), "{} {name}", table.name);
                    // A whole number in a CSV file may be read as an integer, an empty column as text.
                    let from_csv = csv.column(name).unwrap().get(row).unwrap();
                    let same = match (values, from_csv.try_extract::<f64>()) {
                        (Values::Number(v), Ok(read)) => v[row].map(f64::to_bits) == Some(read.to_bits()),
                        _ => exact(&csv, name, row) == exact_value(values, row),
                    };
                    assert!(same, "{} {name} row {row}: {from_csv}", table.name);
                }
            }
        }
    }

    fn tokens(n: usize) -> (Vec<BaseToken>, Vec<QuantToken>) {
        let base = |i: usize| BaseToken {
            nll: i as f64 / 7.0,
            entropy: 1.0 / (i + 1) as f64,
            max_probability: 0.5,
            task: (i % 2) as u32,
            document: (i / 100) as u32,
            window: 0,
            position: (i % 100) as u32,
            token: i as u32,
            top1: 7,
            bytes: 3,
            reserved: 0,
        };
        let quant = |i: usize| QuantToken {
            nll: i as f64 / 7.0 + 0.01,
            entropy: 1.0,
            kl_divergence: (i as f64).sqrt() * 1e-5,
            reverse_kl: 0.0,
            delta_p: -0.25,
            top1: 8,
            top5_common: 4,
        };
        ((0..n).map(base).collect(), (0..n).map(quant).collect())
    }

    #[test]
    fn tokens_are_written_in_batches_and_read_back_whole() {
        let n = BATCH + 1000;
        let (base, quant) = tokens(n);
        let table = TokenTable {
            tasks: vec!["one".into(), "two".into()],
            base: &base,
            quants: vec![("a".into(), &quant), ("b".into(), &quant)],
        };
        let folder = tempfile::tempdir().unwrap();
        let files = write_tokens(folder.path(), &table).unwrap();
        let (csv, parquet) = (read_csv(&files[0]), read_parquet(&files[1]));
        assert_eq!((csv.height(), parquet.height()), (2 * n, 2 * n));
        for (row, i) in [(0, 0), (BATCH, BATCH), (n - 1, n - 1), (n, 0), (2 * n - 1, n - 1)] {
            for frame in [&csv, &parquet] {
                assert_eq!(exact(frame, "label", row), if row < n { "a" } else { "b" });
                assert_eq!(exact(frame, "task", row), ["one", "two"][i % 2]);
                assert_eq!(exact(frame, "token", row), i.to_string());
                assert_eq!(
                    exact(frame, "kl_divergence", row),
                    format!("{:x}", quant[i].kl_divergence.to_bits())
                );
                assert_eq!(exact(frame, "base_nll", row), format!("{:x}", base[i].nll.to_bits()));
            }
        }
    }

    #[test]
    fn no_tokens_are_a_table_with_a_header() {
        let table = TokenTable { tasks: Vec::new(), base: &[], quants: vec![("a".into(), &[])] };
        let folder = tempfile::tempdir().unwrap();
        let files = write_tokens(folder.path(), &table).unwrap();
        let text = std::fs::read_to_string(&files[0]).unwrap();
        assert!(text.starts_with("label,task,document,") && text.lines().count() == 1, "{text}");
        assert_eq!(read_parquet(&files[1]).height(), 0);
    }

    #[test]
    fn sides_of_different_length_are_refused() {
        let (base, quant) = tokens(3);
        let folder = tempfile::tempdir().unwrap();
        let short = TokenTable {
            tasks: vec!["t".into(), "u".into()],
            base: &base,
            quants: vec![("a".into(), &quant[..2])],
        };
        assert!(write_tokens(folder.path(), &short).is_err());
        let lost = TokenTable { tasks: vec!["t".into()], base: &base, quants: vec![("a".into(), &quant)] };
        assert!(write_tokens(folder.path(), &lost).is_err());
    }
}
