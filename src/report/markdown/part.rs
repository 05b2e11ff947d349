//! Parts of a Markdown document, and how they come to fit into little room: what is long loses its last rows, and says
//! how many. Texts that come here are Markdown already. It must not know what a part is about.

/// Room for the line that says what was cut.
const NOTE: usize = 120;

/// A row of a table or an entry of a list, with its line feed.
struct Row {
    text: String,
    is_loss: bool,
}

/// A part: what stands above its rows, the rows, what stands below.
pub(super) struct Part {
    head: String,
    rows: Vec<Row>,
    foot: String,
    /// What a row is about: "task".
    noun: &'static str,
    cut: usize,
    losses_cut: usize,
}

impl Part {
    /// A part that is never cut.
    pub(super) fn text(head: String) -> Self {
        Part { head, rows: Vec::new(), foot: String::new(), noun: "", cut: 0, losses_cut: 0 }
    }

    /// A list or a sequence of blocks, cut at its end where room is short.
    pub(super) fn list(head: String, rows: Vec<String>, noun: &'static str) -> Self {
        let rows = rows.into_iter().map(|text| Row { text, is_loss: false }).collect();
        Part { head, rows, foot: String::new(), noun, cut: 0, losses_cut: 0 }
    }

    /// The part with more below it.
    pub(super) fn followed_by(mut self, foot: &str) -> Self {
        self.foot.push_str(foot);
        self
    }

    /// The part behind a line that opens it.
    pub(super) fn behind(mut self, summary: &'static str) -> Self {
        self.head = format!("<details><summary>{summary}</summary>\n\n{}", self.head);
        self.followed_by("\n</details>\n")
    }

    fn rows_size(&self) -> usize {
        self.rows.iter().map(|row| row.text.len()).sum()
    }

    fn cut_last(&mut self) -> usize {
        let Some(row) = self.rows.pop() else { return 0 };
        self.cut += 1;
        self.losses_cut += usize::from(row.is_loss);
        row.text.len()
    }

    fn markdown(&self) -> String {
        let mut text = self.head.clone();
        text.extend(self.rows.iter().map(|row| row.text.as_str()));
        if self.cut > 0 {
            let plural = if self.cut == 1 { "" } else { "s" };
            text += &format!("\n… {} more {}{plural} in report.html", self.cut, self.noun);
            if self.losses_cut > 0 {
                text += &format!(", {} with a shown loss", self.losses_cut);
            }
            text.push('\n');
        }
        text + &self.foot
    }
}

/// All parts below each other in at most `most` bytes, as long as their heads have room.
pub(super) fn fitted(mut parts: Vec<Part>, most: usize) -> String {
    let heads: usize = parts.iter().map(|part| part.head.len() + part.foot.len() + NOTE + 1).sum();
    let mut rows: Vec<usize> = parts.iter().map(Part::rows_size).collect();
    while heads + rows.iter().sum::<usize>() > most {
        let longest = rows.iter_mut().zip(&mut parts).max_by_key(|(size, _)| **size);
        let Some((size, part)) = longest.filter(|(size, _)| **size > 0) else { break };
        *size -= part.cut_last();
    }
    parts.iter().map(Part::markdown).collect::<Vec<_>>().join("\n")
}

/// A table in the making; every row gets as many cells as there are headings.
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<(Vec<String>, bool)>,
    noun: &'static str,
    is_text: bool,
}

/// What was not measured.
pub(super) const MISSING: &str = "–";

impl Table {
    /// A table with these headings, whose rows are about a `noun` each.
    pub(super) fn new(headings: Vec<String>, noun: &'static str) -> Self {
        Table { headings, rows: Vec::new(), noun, is_text: false }
    }

    /// The same table for texts: all columns to the left.
    pub(super) fn of_texts(mut self) -> Self {
        self.is_text = true;
        self
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.marked_row(cells, false);
    }

    /// One more row, which may show a loss: that is said if it is cut.
    pub(super) fn marked_row(&mut self, mut cells: Vec<String>, is_loss: bool) {
        cells.resize(self.headings.len(), MISSING.to_owned());
        self.rows.push((cells, is_loss));
    }

    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes out columns without any figure and returns their headings.
    pub(super) fn take_missing_columns(&mut self) -> Vec<String> {
        let is_missing =
            |column: usize| self.rows.iter().all(|(cells, _)| cells.get(column).is_none_or(|c| c == MISSING));
        let missing: Vec<bool> = (0..self.headings.len()).map(is_missing).collect();
        let is_kept = |i: usize| !missing.get(i).copied().unwrap_or(false);
        for (cells, _) in &mut self.rows {
            *cells = kept(std::mem::take(cells), is_kept);
        }
        let taken = kept(self.headings.clone(), |i| !is_kept(i));
        self.headings = kept(std::mem::take(&mut self.headings), is_kept);
        taken
    }

    /// The table below `above`.
    pub(super) fn part(self, above: &str) -> Part {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        // Names to the left, figures to the right.
        let rule = |i: usize| if i == 0 || self.is_text { "---" } else { "---:" };
        let rules: Vec<String> = (0..self.headings.len()).map(|i| rule(i).to_owned()).collect();
        Part {
            head: format!("{above}{}{}", line(&self.headings), line(&rules)),
            rows: self.rows.iter().map(|(cells, loss)| Row { text: line(cells), is_loss: *loss }).collect(),
            foot: String::new(),
            noun: self.noun,
            cut: 0,
            losses_cut: 0,
        }
    }
}

fn kept(items: Vec<String>, is_kept: impl Fn(usize) -> bool) -> Vec<String> {
    items.into_iter().enumerate().filter(|(i, _)| is_kept(*i)).map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_table_loses_its_last_rows_and_says_so() {
        let table = |n: usize, noun| {
            let mut table = Table::new(vec!["task".to_owned(), "points".to_owned()], noun);
            (0..n).for_each(|i| table.marked_row(vec![format!("t{i}")], i % 2 == 1));
            table.part("### Title\n\n")
        };
        let whole = fitted(vec![table(3, "task"), table(100, "task")], 60_000);
        assert!(whole.contains("| t99 | – |\n") && !whole.contains("more"), "{whole}");
        let text = fitted(vec![table(3, "level"), table(100, "task")], 900);
        assert!(text.len() <= 900, "{}", text.len());
        assert!(text.contains("| t2 | – |") && !text.contains("level"), "the short one is whole: {text}");
        let kept = text.matches("\n| t").count() - 2 - 3;
        let losses = (kept..100).filter(|i| i % 2 == 1).count();
        let note = format!("\n… {} more tasks in report.html, {losses} with a shown loss\n", 100 - kept);
        assert!(text.contains(&note), "{note}:\n{text}");
    }

    #[test]
    fn columns_without_a_figure_are_named() {
        let mut table = Table::new(["a", "b", "c"].map(str::to_owned).to_vec(), "row");
        table.row(["1", MISSING, "2"].map(str::to_owned).to_vec());
        table.row(["3", MISSING, MISSING].map(str::to_owned).to_vec());
        assert_eq!(table.take_missing_columns(), ["b"]);
        assert_eq!(table.part("").markdown(), "| a | c |\n| --- | ---: |\n| 1 | 2 |\n| 3 | – |\n");
    }
}
