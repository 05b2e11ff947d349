//! One document of a comparison, for a pipe or a file: what `--format` names.

use super::tables::{self, Kind};
use super::{html, markdown, model_card, tidy};
use crate::comparison::Comparison;
use crate::error::{Error, Result};

/// A document that a comparison can be had as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The comparison itself.
    Json,
    /// One table, comma-separated.
    Csv,
    /// One table, as Apache Parquet.
    Parquet,
    /// A report for a pull request or a job summary.
    Markdown,
    /// The whole report as one page.
    Html,
    /// Evaluation results for model cards on the Hub.
    ModelCard,
}

/// Name of the table that is meant where none is named.
pub const MAIN_TABLE: &str = "models";

/// The document's bytes. `table` is the name of a file in `tables/`, for those formats that hold one.
///
/// # Errors
/// A table that is not there, or a chart that cannot be drawn.
pub fn document(comparison: &Comparison, format: Format, table: &str) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Json => serde_json::to_vec(comparison).map_err(|reason| {
            Error::argument(format!("the comparison cannot be written: {reason}"), "please report this")
        })?,
        Format::Markdown => markdown::document(comparison).into_bytes(),
        Format::Html => html::page(comparison)?.into_bytes(),
        Format::ModelCard => model_card::document(comparison).into_bytes(),
        Format::Csv => one_table(comparison, table, Kind::Csv)?,
        Format::Parquet => one_table(comparison, table, Kind::Parquet)?,
    })
}

fn one_table(comparison: &Comparison, name: &str, kind: Kind) -> Result<Vec<u8>> {
    let all = tidy::tables(comparison);
    match all.iter().find(|table| table.name == name) {
        Some(table) => tables::bytes(table, kind),
        None => {
            let names: Vec<&str> = all.iter().map(|table| table.name).collect();
            let help =
                format!("there are {}; tokens are in tables/tokens.parquet of the run", names.join(", "));
            Err(Error::argument(format!("there is no table `{name}`"), help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn every_format_is_the_file_of_the_same_kind() {
        let comparison = fixture::with_questions();
        let text = |format, table| String::from_utf8(document(&comparison, format, table).unwrap()).unwrap();
        let back: Comparison = serde_json::from_str(&text(Format::Json, MAIN_TABLE)).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&comparison).unwrap());
        assert_eq!(text(Format::Html, MAIN_TABLE), html::page(&comparison).unwrap());
        let csv = text(Format::Csv, MAIN_TABLE);
        assert!(csv.starts_with("role,label,") && csv.lines().count() > comparison.quants.len());
        assert!(text(Format::Csv, "layers").lines().count() > 6);
        let parquet = document(&comparison, Format::Parquet, "tasks").unwrap();
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
        let error = document(&comparison, Format::Csv, "nothing").unwrap_err();
        assert!(error.help().unwrap().contains("models") && error.to_string().contains("nothing"));
    }
}
