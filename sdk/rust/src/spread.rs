//! From percentages of sides to weights of their servers, and back.

/// A side's part of the traffic: how many servers it has and what all of them together shall get, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub servers: usize,
    pub percent: u8,
}

/// How far the nearest split may be from the one asked for, in points.
const TOLERANCE: f64 = 2.0;

/// Why there are no weights for a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Impossible {
    /// A part with a share has no server.
    NoServer,
    /// The nearest split is so many points away: few servers would have to get far more than many others.
    TooFar(f64),
}

/// The weight of each server of a side, one for each part: of all that the scale allows those whose split is nearest to
/// the one asked for, and among equals the smallest. A part without a share has weight 0, a part with one has at least 1.
///
/// # Errors
/// [`Impossible`] when no weights come near.
///
/// ```
/// use cutover_plugin_sdk::{Part, weights};
///
/// let parts = [Part { servers: 3, percent: 80 }, Part { servers: 1, percent: 20 }];
///
/// assert_eq!(weights(&parts, 256), Ok(vec![4, 3]));
/// ```
pub fn weights(parts: &[Part], largest: u32) -> Result<Vec<u32>, Impossible> {
    let each = |part: &Part| f64::from(part.percent) / count(part);
    if parts
        .iter()
        .any(|part| part.percent > 0 && part.servers == 0)
    {
        return Err(Impossible::NoServer);
    }
    let most = parts
        .iter()
        .filter(|part| part.servers > 0)
        .map(each)
        .fold(0.0, f64::max);
    let candidate = |top: u32| -> Vec<u32> {
        let weight = |part: &Part| match part.percent {
            0 => 0,
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and `top`, for no side's server gets more than `most`"
            )]
            _ => ((f64::from(top) * each(part) / most).round() as u32).clamp(1, top),
        };
        parts.iter().map(weight).collect()
    };
    let mut best: Option<(f64, Vec<u32>)> = None;
    for top in 1..=largest {
        let weights = candidate(top);
        let error = error(parts, &weights);
        // A difference below this is that of the arithmetic.
        if best.as_ref().is_none_or(|(least, _)| error < least - 1e-9) {
            best = Some((error, weights));
        }
    }
    match best {
        Some((error, weights)) if error < TOLERANCE => Ok(weights),
        Some((error, _)) => Err(Impossible::TooFar(error)),
        None => Err(Impossible::NoServer),
    }
}

/// The largest distance between what a side gets and what it should, in percent.
fn error(parts: &[Part], weights: &[u32]) -> f64 {
    let totals: Vec<f64> = parts
        .iter()
        .zip(weights)
        .map(|(part, weight)| count(part) * f64::from(*weight))
        .collect();
    let sum: f64 = totals.iter().sum();
    parts
        .iter()
        .zip(&totals)
        .map(|(part, total)| (100.0 * total / sum - f64::from(part.percent)).abs())
        .fold(0.0, f64::max)
}

fn count(part: &Part) -> f64 {
    f64::from(u32::try_from(part.servers).unwrap_or(u32::MAX))
}

/// Whole percents of amounts, 100 in sum: the largest remainders are rounded up. Nothing where all amounts are zero.
///
/// ```
/// use cutover_plugin_sdk::percents;
///
/// assert_eq!(percents(&[12, 3]), Some(vec![80, 20]));
/// ```
#[must_use]
pub fn percents(amounts: &[u64]) -> Option<Vec<u8>> {
    let sum: u64 = amounts.iter().sum();
    if sum == 0 {
        return None;
    }
    let mut percents: Vec<u64> = amounts.iter().map(|amount| amount * 100 / sum).collect();
    let mut by_remainder: Vec<usize> = (0..amounts.len()).collect();
    by_remainder.sort_by_key(|&index| std::cmp::Reverse(amounts[index] * 100 % sum));
    let missing = 100 - percents.iter().sum::<u64>();
    for index in by_remainder
        .into_iter()
        .take(usize::try_from(missing).unwrap_or(0))
    {
        percents[index] += 1;
    }
    Some(
        percents
            .into_iter()
            .map(|percent| u8::try_from(percent).unwrap_or(100))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[(usize, u8)], expected: Option<&[u32]>) {
        let parts: Vec<_> = parts
            .iter()
            .map(|&(servers, percent)| Part { servers, percent })
            .collect();

        assert_eq!(weights(&parts, 256).ok().as_deref(), expected, "{parts:?}");
    }

    #[test]
    fn weights_are_the_smallest_that_make_the_split() {
        check(&[(1, 50), (1, 50)], Some(&[1, 1]));
        check(&[(4, 80), (1, 20)], Some(&[1, 1]));
        check(&[(3, 80), (1, 20)], Some(&[4, 3]));
        check(&[(3, 100), (1, 0)], Some(&[1, 0]));
        check(&[(3, 0), (0, 0), (2, 100)], Some(&[0, 0, 1]));
        check(&[(2, 50), (1, 30), (1, 20)], Some(&[5, 6, 4]));
    }

    #[test]
    fn a_share_without_a_server_has_no_weights() {
        check(&[(3, 90), (0, 10)], None);
    }

    #[test]
    fn a_split_that_the_scale_cannot_make_is_told_with_its_distance() {
        let parts = [
            Part {
                servers: 19,
                percent: 1,
            },
            Part {
                servers: 1,
                percent: 99,
            },
        ];

        let Err(Impossible::TooFar(points)) = weights(&parts, 256) else {
            panic!("19 servers of weight 1 get more than 1 %");
        };

        assert!((5.0..7.0).contains(&points), "{points}");
    }

    #[test]
    fn what_few_servers_get_of_many_is_met_within_half_a_point() {
        for (one, other) in [(1, 1), (2, 1), (3, 1), (7, 1), (19, 1), (20, 20), (100, 3)] {
            for percent in 0..=50 {
                let parts = [
                    Part {
                        servers: one,
                        percent: 100 - percent,
                    },
                    Part {
                        servers: other,
                        percent,
                    },
                ];

                let weights = weights(&parts, 256).unwrap();

                assert!(error(&parts, &weights) < 0.5, "{parts:?} {weights:?}");
                assert_eq!(weights[1] == 0, percent == 0);
            }
        }
    }

    #[test]
    fn percents_sum_to_a_hundred() {
        assert_eq!(percents(&[1, 1, 1]), Some(vec![34, 33, 33]));
        assert_eq!(percents(&[3, 12]), Some(vec![20, 80]));
        assert_eq!(percents(&[0, 5]), Some(vec![0, 100]));
        assert_eq!(percents(&[0, 0]), None);
    }
}
