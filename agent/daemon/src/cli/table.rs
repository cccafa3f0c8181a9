//! Tables as kubectl prints them: columns three spaces apart, nothing behind the last.

use std::io::{self, Write};

use super::escape::first_line;
use super::style::Style;

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    widths: Vec<usize>,
}

/// A text of one line, and how it looks on a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

const GAP: usize = 3;

// === impl Cell ===

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Option<Style>) -> Self {
        Self { text: first_line(&text.into()).into_owned(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, None)
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn new(header: Vec<&'static str>) -> Self {
        let widths = header.iter().map(|name| name.len()).collect();
        Self { header, rows: Vec::new(), widths }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.text.chars().count());
        }
        self.rows.push(row);
    }

    /// Writes the header and every row.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let header: Vec<_> = self.header.iter().map(|name| Cell::from(*name)).collect();
        self.line(&header, out)?;
        self.write_rows(out)
    }

    /// Writes the rows alone.
    pub(crate) fn write_rows(&self, out: &mut impl Write) -> io::Result<()> {
        self.rows.iter().try_for_each(|row| self.line(row, out))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets the rows; later ones keep the columns.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    fn line(&self, row: &[Cell], out: &mut impl Write) -> io::Result<()> {
        let last = row.len().saturating_sub(1);
        for (column, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            match cell.style {
                Some(style) => write!(out, "{}", style.paint(&cell.text))?,
                None => write!(out, "{}", cell.text)?,
            }
            if column < last {
                let blank = width - cell.text.chars().count() + GAP;
                write!(out, "{:blank$}", "")?;
            }
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colour_takes_no_room() {
        let mut table = Table::new(vec!["NAME", "STATUS", "AGE"]);
        table.push(vec!["a".into(), Cell::styled("Running", Some(Style::Good)), "5s".into()]);
        table.push(vec!["longer".into(), "No".into(), "".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(text, "NAME     STATUS    AGE\na        Running   5s\nlonger   No        \n");
    }
}
