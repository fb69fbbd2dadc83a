//! Thresholds: `< 0.01`.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    operator: Operator,
    number: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    NotEqual,
}

/// The longer ones first, since the others begin them.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl Threshold {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        OPERATORS.iter().find_map(|(sign, operator)| {
            let number: f64 = text.strip_prefix(sign)?.trim().parse().ok()?;
            number.is_finite().then_some(Self {
                operator: *operator,
                number,
            })
        })
    }

    /// Whether a value is on this side. No number is on any.
    pub(crate) fn holds(self, value: f64) -> bool {
        if value.is_nan() {
            return false;
        }
        match self.operator {
            Operator::Less => value < self.number,
            Operator::AtMost => value <= self.number,
            Operator::Greater => value > self.number,
            Operator::AtLeast => value >= self.number,
            Operator::Equal => value == self.number,
            Operator::NotEqual => value != self.number,
        }
    }

    /// Whether some value holds for both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let (low, high) = (self.number.min(other.number), self.number.max(other.number));
        // The sides change at the two numbers only, so one value of each stretch speaks for it.
        [
            f64::NEG_INFINITY,
            low,
            low / 2.0 + high / 2.0,
            high,
            f64::INFINITY,
        ]
        .into_iter()
        .any(|value| self.holds(value) && other.holds(value))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS
            .iter()
            .find(|(_, operator)| *operator == self.operator)
            .map_or("", |(sign, _)| *sign);
        write!(f, "{sign} {}", self.number)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no threshold: write a comparison with a number, like `< 0.01` or `>= 5`"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Threshold {
        Threshold::parse(text).unwrap()
    }

    #[test]
    fn thresholds_are_comparisons() {
        for (text, holds, does_not) in [
            ("< 0.01", 0.0, 0.01),
            ("<=0.01", 0.01, 0.02),
            ("> 5", f64::INFINITY, 5.0),
            (" >= -5 ", -5.0, -5.1),
            ("== 1", 1.0, 1.5),
            ("!= 1", 1.5, 1.0),
            ("< 1e-3", 0.0005, 0.001),
        ] {
            let threshold = threshold(text);
            assert!(
                threshold.holds(holds) && !threshold.holds(does_not),
                "{text}"
            );
            assert!(!threshold.holds(f64::NAN), "{text}");
        }
        for text in ["0.01", "<", "< x", "=> 1", "< 1%", "< NaN", "> inf", ""] {
            assert!(Threshold::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_value_that_passes_and_fails_is_found() {
        for (pass, fail, overlaps) in [
            ("< 0.01", "> 0.05", false),
            ("< 0.05", "> 0.01", true),
            ("< 1", ">= 1", false),
            ("<= 1", ">= 1", true),
            ("> 99", "< 95", false),
            ("== 0", "!= 0", false),
            ("!= 0", "!= 1", true),
            ("< 1", "< 0", true),
        ] {
            assert_eq!(
                threshold(pass).overlaps(threshold(fail)),
                overlaps,
                "{pass} {fail}"
            );
        }
    }
}
