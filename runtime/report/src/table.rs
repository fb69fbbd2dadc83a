//! Aligned columns.

use std::time::Duration;

/// Rows of text whose columns line up.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self {
            rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row of as many cells as the heading has.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing below the heading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }
}

/// A duration for a column: up to a minute all are of one width, with their units below each other.
#[must_use]
pub fn duration(time: Duration) -> String {
    format!("{:>6}", crate::line::duration(time))
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_with_text() {
        let mut table = Table::new(["NAME", "TOOK", "NOTE"]);
        table.row([
            "über".into(),
            duration(Duration::from_millis(7)),
            String::new(),
        ]);
        table.row([
            "longer".into(),
            duration(Duration::from_millis(1_200)),
            "x".into(),
        ]);

        assert_eq!(
            table.to_string(),
            "NAME    TOOK    NOTE\nüber      7 ms\nlonger   1.2 s  x\n"
        );
    }
}
