//! Aligned tables: columns two spaces apart, no space at the end of a line.

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// Words that a terminal shows in colour, wherever they begin a cell.
const GOOD: [&str; 6] = ["Ready", "Running", "InSync", "Complete", "yes", "True"];
const BAD: [&str; 12] = [
    "Lost",
    "Failed",
    "CrashLoop",
    "Contested",
    "Unschedulable",
    "OutOfMemory",
    "NotReady",
    "RolledBack",
    "Warning",
    "Drifted",
    "Degraded",
    "PortTaken",
];

impl Table {
    /// With these column names.
    #[must_use]
    pub fn new(headers: Vec<&'static str>) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// One more row, a cell for each column.
    pub fn push(&mut self, row: Vec<String>) {
        assert!(row.len() == self.headers.len(), "a row has as many cells as there are columns");
        self.rows.push(row);
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The widths that its columns need.
    #[must_use]
    pub fn widths(&self, with_headers: bool) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.headers.iter().map(|h| if with_headers { h.chars().count() } else { 0 }).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    /// As text.
    #[must_use]
    pub fn text(&self, with_headers: bool, colour: bool) -> String {
        let widths = self.widths(with_headers);
        let mut out = String::new();
        if with_headers {
            let names: Vec<String> = self.headers.iter().map(|h| (*h).to_owned()).collect();
            out.push_str(&line(&names, &widths, false));
        }
        out.push_str(&self.rows_text(&widths, colour));
        out
    }

    /// The rows alone, at least so wide: for tables that grow while they are watched.
    #[must_use]
    pub fn rows_text(&self, widths: &[usize], colour: bool) -> String {
        self.rows.iter().map(|row| line(row, widths, colour)).collect()
    }
}

fn line(cells: &[String], widths: &[usize], colour: bool) -> String {
    let mut out = String::new();
    let last = cells.len().saturating_sub(1);
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        // A cell is one line whatever it quotes.
        let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let gap = if index == last { 0 } else { width.saturating_sub(cell.chars().count()) + 2 };
        out.push_str(&if colour { coloured(&cell) } else { cell });
        out.push_str(&" ".repeat(gap));
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
    out
}

fn coloured(cell: &str) -> String {
    let first = cell.split([',', ' ']).next().unwrap_or_default();
    if BAD.contains(&first) {
        format!("\x1b[31m{cell}\x1b[0m")
    } else if GOOD.contains(&first) {
        format!("\x1b[32m{cell}\x1b[0m")
    } else {
        cell.to_owned()
    }
}

/// A cell for what may not be applicable.
#[must_use]
pub fn dash<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// A cell for what may not be known now.
#[must_use]
pub fn unknown<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |v| v.to_string())
}
