//! Parquet to records: the one file format here that needs a decoder of its own, which polars brings.
//!
//! Only the column types that benchmarks on the Hub have are read. The others are refused by name before any
//! row is decoded, because polars, built small, answers them with a panic.

mod pages;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::{AnyValue, ArrowDataType, DataType, ParquetReader, PolarsError, SerReader, Series};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Most bytes that the columns of one file may unpack to, as the file itself declares.
const LARGEST_CONTENT: i128 = 16 << 30;

/// What helps where a file is damaged.
const AGAIN: &str = "download the file again";

/// Deepest nesting of lists and structs.
const DEEPEST: usize = 16;

/// One object per row of the file at `path`, at most `most` of them.
pub(super) fn read(path: &Path, file: File, most: usize) -> Result<Vec<Value>> {
    // A damaged file makes the decoder panic in places; that must end as an error like any other.
    catch_unwind(AssertUnwindSafe(|| decode(path, file, most)))
        .unwrap_or_else(|_| Err(Error::file(path, "the Parquet decoder gave up on it", AGAIN)))
}

fn decode(path: &Path, file: File, most: usize) -> Result<Vec<Value>> {
    let broken = |e: PolarsError| Error::file(path, format!("not a readable Parquet file: {e}"), AGAIN);
    let again = file.try_clone().map_err(Error::io(path, "read the data"))?;
    let mut reader = ParquetReader::new(file).set_rechunk(true);
    let metadata = reader.get_metadata().map_err(broken)?;
    let rows = metadata.num_rows;
    if rows > most {
        let problem = format!("holds {rows} records, more than the {most} that are read");
        return Err(Error::file(path, problem, "keep only what is measured"));
    }
    let size: i128 = metadata.row_groups.iter().map(|group| group.total_byte_size() as i128).sum();
    if size > LARGEST_CONTENT {
        let problem = format!("unpacks to {size} bytes, more than the {LARGEST_CONTENT} that are read");
        return Err(Error::file(path, problem, "keep only what is measured"));
    }
    let columns = metadata.row_groups.iter().flat_map(|group| group.byte_ranges_iter()).collect::<Vec<_>>();
    pages::check(&again, columns.into_iter())
        .map_err(|e| Error::file(path, format!("not a readable Parquet file: {e}"), AGAIN))?;
    for (name, field) in reader.schema().map_err(broken)?.iter() {
        if let Some(unreadable) = unreadable(&field.dtype, DEEPEST) {
            let problem = format!("column `{name}` is of the type {unreadable}, which is not read");
            let help = "remove the column, or save the file as JSON Lines";
            return Err(Error::file(path, problem, help));
        }
    }
    let table = reader.finish().map_err(broken)?;
    let mut records = vec![Map::new(); table.height()];
    for column in table.columns() {
        let name = column.name().as_str();
        let values = values(column.as_materialized_series()).map_err(broken)?;
        for (record, value) in records.iter_mut().zip(values) {
            record.insert(name.to_owned(), value);
        }
    }
    Ok(records.into_iter().map(Value::Object).collect())
}

/// What of a column's type is not read, if anything.
fn unreadable(dtype: &ArrowDataType, depth: usize) -> Option<String> {
    use ArrowDataType as T;
    let Some(depth) = depth.checked_sub(1) else { return Some("too deeply nested".to_owned()) };
    match dtype {
        T::Null | T::Boolean | T::Int32 | T::Int64 | T::UInt32 | T::UInt64 | T::Float32 | T::Float64 => None,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => None,
        T::List(item) | T::LargeList(item) => unreadable(&item.dtype, depth),
        T::Struct(fields) => fields.iter().find_map(|field| unreadable(&field.dtype, depth)),
        other => Some(format!("{other:?}")),
    }
}

/// One value per row.
fn values(series: &Series) -> Result<Vec<Value>, PolarsError> {
    match series.dtype() {
        DataType::Struct(_) => {
            let mut rows = vec![Map::new(); series.len()];
            for field in series.struct_()?.fields_as_series() {
                for (row, value) in rows.iter_mut().zip(values(&field)?) {
                    row.insert(field.name().to_string(), value);
                }
            }
            let present = series.is_not_null();
            let object = |(row, there): (Map<String, Value>, Option<bool>)| match there {
                Some(true) => Value::Object(row),
                _ => Value::Null,
            };
            Ok(rows.into_iter().zip(present.iter()).map(object).collect())
        }
        DataType::List(_) => {
            let lists = series.list()?;
            (0..series.len())
                .map(|row| match lists.get_as_series(row) {
                    Some(items) => Ok(Value::Array(values(&items)?)),
                    None => Ok(Value::Null),
                })
                .collect()
        }
        _ => series.iter().map(scalar).collect(),
    }
}

fn scalar(value: AnyValue) -> Result<Value, PolarsError> {
    Ok(match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => Value::from(value),
        AnyValue::Int32(value) => Value::from(value),
        AnyValue::Int64(value) => Value::from(value),
        AnyValue::UInt32(value) => Value::from(value),
        AnyValue::UInt64(value) => Value::from(value),
        AnyValue::Float32(value) => Value::from(value),
        AnyValue::Float64(value) => Value::from(value),
        AnyValue::String(value) => Value::from(value),
        AnyValue::StringOwned(value) => Value::from(value.as_str()),
        other => return Err(PolarsError::ComputeError(format!("unexpected value {other}").into())),
    })
}
