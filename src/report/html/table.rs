//! Tables of figures as HTML: caption, row and column headings, and for every figure its interval
//! below it and its full value for sorting. Cells take numbers and plain text and escape the latter;
//! only headings of rows are given as HTML. It must not know what a figure means.

use std::fmt::Write as _;

use super::escaped;
use crate::report::format::{Figure, number};

/// A table in the making.
pub(super) struct Table {
    caption: String,
    headings: Vec<(String, &'static str)>,
    rows: Vec<Row>,
}

/// One row: the model or thing it is about, as HTML, and its cells.
struct Row {
    heading: String,
    cells: Vec<Cell>,
    is_aside: bool,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    below: String,
    value: Option<f64>,
    heat: Option<f64>,
    is_text: bool,
}

impl Cell {
    /// A figure with its interval.
    pub(super) fn figure(figure: Figure) -> Self {
        Cell::of_parts(figure, false)
    }

    /// A change: with its sign.
    pub(super) fn change(figure: Figure) -> Self {
        Cell::of_parts(figure, true)
    }

    fn of_parts(figure: Figure, signed: bool) -> Self {
        let [text, interval] = figure.parts(signed);
        Cell { text, below: interval.trim().to_owned(), value: Some(figure.value), ..Cell::default() }
    }

    /// A figure that may be missing.
    pub(super) fn optional(figure: Option<Figure>) -> Self {
        figure.map_or_else(Cell::missing, Cell::figure)
    }

    /// A number without interval.
    pub(super) fn number(x: f64, digits: usize) -> Self {
        Cell { text: number(x, digits), value: Some(x), ..Cell::default() }
    }

    /// A value under its own text: a size, a count.
    pub(super) fn labelled(value: f64, text: impl Into<String>) -> Self {
        Cell { text: text.into(), value: Some(value), ..Cell::default() }
    }

    /// Text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Cell { text: text.into(), is_text: true, ..Cell::default() }
    }

    /// The cell with a value of its own to sort by.
    pub(super) fn ranked(self, value: f64) -> Self {
        Cell { value: Some(value), ..self }
    }

    /// What was not measured.
    pub(super) fn missing() -> Self {
        Cell { text: "–".to_owned(), ..Cell::default() }
    }

    /// The cell with a note below its figure.
    pub(super) fn noted(self, note: impl Into<String>) -> Self {
        Cell { below: note.into(), ..self }
    }

    /// The cell shaded by `heat`, 0 to 1.
    pub(super) fn heated(self, heat: f64) -> Self {
        Cell { heat: Some(heat).filter(|h| h.is_finite()), ..self }
    }

    fn html(&self) -> String {
        let mut html = String::from("<td");
        // Writing to a string cannot fail.
        let _ = match (self.heat, self.is_text) {
            (Some(heat), _) => write!(html, " class=\"h\" style=\"--h:{:.2}\"", heat.clamp(0.0, 1.0)),
            (None, true) => write!(html, " class=\"t\""),
            (None, false) => Ok(()),
        };
        if let Some(value) = self.value.filter(|v| v.is_finite()) {
            let _ = write!(html, " data-v=\"{value}\"");
        }
        let _ = write!(html, ">{}", escaped(&self.text));
        if !self.below.is_empty() {
            let _ = write!(html, "<small>{}</small>", escaped(&self.below));
        }
        html + "</td>"
    }
}

impl Table {
    /// A table with these columns (heading and unit); the first is the heading of the rows.
    pub(super) fn new(caption: impl Into<String>, headings: &[(&str, &'static str)]) -> Self {
        let headings = headings.iter().map(|(name, unit)| ((*name).to_owned(), *unit)).collect();
        Table { caption: caption.into(), headings, rows: Vec::new() }
    }

    /// The same table with one more column.
    pub(super) fn column(&mut self, heading: impl Into<String>) {
        self.headings.push((heading.into(), ""));
    }

    /// A row; `heading` is HTML.
    pub(super) fn row(&mut self, heading: String, cells: Vec<Cell>) {
        self.rows.push(Row { heading, cells, is_aside: false });
    }

    /// A row that is not about a cousin: base, the noise floor.
    pub(super) fn aside(&mut self, heading: String, cells: Vec<Cell>) {
        self.rows.push(Row { heading, cells, is_aside: true });
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as HTML, in a frame that scrolls by itself where the page is too narrow.
    pub(super) fn html(&self) -> String {
        let caption = escaped(&self.caption);
        let mut html = format!(
            "<div class=\"scroll\" role=\"group\" tabindex=\"0\" aria-label=\"{caption}\">\
             <table class=\"sortable\"><caption><span>{caption}</span></caption><thead><tr>"
        );
        for (i, (name, unit)) in self.headings.iter().enumerate() {
            // The first heading stands over the headings of the rows.
            let cell = i.checked_sub(1).and_then(|i| self.rows.first()?.cells.get(i));
            let class = if cell.is_some_and(|cell| cell.is_text) { " class=\"t\"" } else { "" };
            let unit =
                if unit.is_empty() { String::new() } else { format!("<small>{}</small>", escaped(unit)) };
            let _ = write!(html, "<th scope=\"col\"{class}>{}{unit}</th>", escaped(name));
        }
        html += "</tr></thead><tbody>\n";
        for row in &self.rows {
            let class = if row.is_aside { " class=\"aside\"" } else { "" };
            let _ = write!(html, "<tr{class}><th scope=\"row\"><span>{}</span></th>", row.heading);
            html.extend(row.cells.iter().map(Cell::html));
            html += "</tr>\n";
        }
        html + "</tbody></table></div>\n"
    }
}

/// `html` behind a line that opens it.
pub(super) fn details(summary_html: &str, html: &str, is_open: bool) -> String {
    let open = if is_open { " open" } else { "" };
    format!("<details{open}><summary>{summary_html}</summary>\n{html}</details>\n")
}
