//! What was measured: numbers with their targets, and the table of them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    /// The typical value: of repeated measurements the median.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// Other statistics of the same measurements, by name.
    pub(crate) others: Vec<(&'static str, f64)>,
    /// How many times the value of the line that it is compared with.
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<Target>,
    pub(crate) met: Option<bool>,
    /// What the value contains.
    pub(crate) contains: String,
}

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    Ratio(f64),
    Value(f64),
}

/// All lines.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) v: u32,
    pub(crate) machine: String,
    pub(crate) figures: Vec<Figure>,
}

/// Repeated measurements of one thing, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "a sample holds a measurement");
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn of_times(times: &[Duration]) -> Self {
        Self::of(times.iter().map(Duration::as_secs_f64))
    }

    /// The value below which this share of the sample is.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        self.0[((last as f64) * share).round() as usize]
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0[0]
    }
}

impl Figure {
    pub(crate) fn new(
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        contains: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            others: Vec::new(),
            ratio: None,
            target: None,
            met: None,
            contains: contains.into(),
        }
    }

    /// The median of times in seconds, shown in milliseconds, with the fastest one.
    pub(crate) fn milliseconds(
        what: impl Into<String>,
        times: &Sample,
        contains: impl Into<String>,
    ) -> Self {
        Self::new(what, times.median() * 1e3, "ms", contains).with("min", times.min() * 1e3)
    }

    /// The median of times in seconds, shown in microseconds, with the slow end.
    pub(crate) fn microseconds(
        what: impl Into<String>,
        times: &Sample,
        contains: impl Into<String>,
    ) -> Self {
        Self::new(what, times.median() * 1e6, "µs", contains)
            .with("p99", times.quantile(0.99) * 1e6)
    }

    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.others.push((name, value));
        self
    }

    pub(crate) fn at_most(mut self, value: f64) -> Self {
        self.target = Some(Target::Value(value));
        self.met = Some(self.value <= value);
        self
    }

    pub(crate) fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    pub(crate) fn ratio_at_most(mut self, ratio: f64, most: f64) -> Self {
        self = self.ratio(ratio);
        self.target = Some(Target::Ratio(most));
        self.met = Some(ratio <= most);
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            [
                "figure", "measured", "", "ratio", "target", "met", "contains",
            ]
            .map(str::to_owned),
        ];
        rows.extend(self.figures.iter().map(row));
        let widths: [usize; 7] = std::array::from_fn(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        });
        writeln!(f, "{}\n", self.machine)?;
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn row(figure: &Figure) -> [String; 7] {
    let others: Vec<_> = figure
        .others
        .iter()
        .map(|(name, value)| format!("{name} {}", number(*value)))
        .collect();
    let target = match figure.target {
        Some(Target::Ratio(most)) => format!("<= {most}x"),
        Some(Target::Value(most)) => format!("<= {} {}", number(most), figure.unit),
        None => String::new(),
    };
    let met = match figure.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [
        figure.what.clone(),
        format!("{} {}", number(figure.value), figure.unit),
        others.join(", "),
        figure
            .ratio
            .map(|ratio| format!("{ratio:.2}x"))
            .unwrap_or_default(),
        target,
        met.to_owned(),
        figure.contains.clone(),
    ]
}

/// Three digits that matter, and whole numbers beyond.
fn number(value: f64) -> String {
    let places = match value.abs() {
        magnitude if magnitude >= 100.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters_and_no_more() {
        assert_eq!(number(0.1437), "0.144");
        assert_eq!(number(1.0), "1");
        assert_eq!(number(53.26), "53.3");
        assert_eq!(number(12_345.6), "12346");
    }

    #[test]
    fn a_sample_knows_its_middle_and_its_ends() {
        let sample = Sample::of([3.0, 1.0, 2.0]);

        assert_eq!(
            (sample.min(), sample.median(), sample.quantile(1.0)),
            (1.0, 2.0, 3.0)
        );
    }

    #[test]
    fn a_target_says_whether_it_is_met() {
        let slow = Figure::new("a", 61.0, "µs", "").at_most(60.0);
        let close = Figure::new("b", 9.0, "ms", "").ratio_at_most(2.0, 2.0);

        assert_eq!((slow.met, close.met), (Some(false), Some(true)));
    }
}
