//! What commands print: tables, JSON, notes.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::util::output::print;
use crate::util::text::escaped;

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// JSON as in the API.
    Json,
}

/// A time in milliseconds, or nothing.
pub(super) fn date(milliseconds: Option<i64>) -> String {
    milliseconds
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map(|date| format!("{date:.0}"))
        .unwrap_or_default()
}

/// Prints columns as wide as their cells.
pub(super) fn print_table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    // Descriptions may contain what a terminal would act on.
    let rows = rows.map(|row| row.iter().map(|cell| escaped(cell)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(print(text.as_bytes())?)
}

/// Prints JSON, which may hold a value.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = Zeroizing::new(serde_json::to_vec_pretty(value)?);
    text.push(b'\n');
    Ok(print(&text)?)
}

/// A note for the user, separate from the output.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "dew-provider: {text}");
}
