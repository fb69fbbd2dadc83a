//! Which instances go together.

use crate::Amount;

/// How the instances of a deployment follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batching {
    /// A sliding window: as soon as one has ended, the next begins.
    Window(Amount),
    /// So many batches, one after the other, of sizes that differ by at most one, larger first.
    Even(u32),
    /// Batches that reach these cumulative amounts; what is left after the last is one more batch.
    Growing(Vec<Amount>),
    /// A first batch, then the others in so many even batches.
    FirstThenEven { first: u32, rest: u32 },
}

impl Batching {
    /// Sizes of the batches of `total` instances, in order: each at least 1, together `total`. For a window these are
    /// the instances that are in flight together when each takes equally long.
    #[must_use]
    pub fn sizes(&self, total: usize) -> Vec<usize> {
        match self {
            Batching::Window(amount) => {
                let size = amount.of(total);
                let full = vec![size; total / size];
                let rest = Some(total % size).filter(|rest| *rest > 0);
                full.into_iter().chain(rest).collect()
            }
            Batching::Even(count) => even(total, *count),
            Batching::Growing(amounts) => {
                let mut sizes = Vec::new();
                let mut reached = 0;
                let ends = amounts.iter().map(|amount| amount.of(total).min(total));
                for end in ends.chain([total]) {
                    if end > reached {
                        sizes.push(end - reached);
                        reached = end;
                    }
                }
                sizes
            }
            Batching::FirstThenEven { first, rest } => {
                let first = (*first as usize).clamp(1, total.max(1)).min(total);
                let mut sizes = Vec::from_iter(Some(first).filter(|first| *first > 0));
                sizes.extend(even(total - first, *rest));
                sizes
            }
        }
    }
}

/// `total` in `count` parts that differ by at most one, larger first; fewer parts where there is not one for each.
fn even(total: usize, count: u32) -> Vec<usize> {
    let count = (count as usize).clamp(1, total.max(1));
    let (size, larger) = (total / count, total % count);
    (0..count)
        .map(|index| size + usize::from(index < larger))
        .filter(|size| *size > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount() -> impl Strategy<Value = Amount> {
        prop_oneof![
            (0..200u32).prop_map(Amount::Count),
            (0..=100u8).prop_map(Amount::Percent)
        ]
    }

    fn batching() -> impl Strategy<Value = Batching> {
        prop_oneof![
            amount().prop_map(Batching::Window),
            (0..50u32).prop_map(Batching::Even),
            proptest::collection::vec(amount(), 0..6).prop_map(Batching::Growing),
            (0..50u32, 0..50u32).prop_map(|(first, rest)| Batching::FirstThenEven { first, rest }),
        ]
    }

    #[test]
    fn sizes_are_those_of_the_published_examples() {
        let first_then = |first, rest| Batching::FirstThenEven { first, rest };
        let growing = Batching::Growing(vec![
            Amount::Count(1),
            Amount::Percent(10),
            Amount::Percent(50),
            Amount::Percent(100),
        ]);
        let cases = [
            (Batching::Even(3), 5, vec![2, 2, 1]),
            (Batching::Even(4), 6, vec![2, 2, 1, 1]),
            (Batching::Even(9), 2, vec![1, 1]),
            (first_then(1, 3), 6, vec![1, 2, 2, 1]),
            (first_then(2, 1), 3, vec![2, 1]),
            (first_then(3, 1), 2, vec![2]),
            (Batching::Window(Amount::Count(2)), 3, vec![2, 1]),
            (Batching::Window(Amount::Percent(50)), 5, vec![2, 2, 1]),
            (Batching::Window(Amount::Percent(10)), 3, vec![1, 1, 1]),
            (growing.clone(), 20, vec![1, 1, 8, 10]),
            (growing, 3, vec![1, 2]),
        ];

        for (batching, total, expected) in cases {
            assert_eq!(batching.sizes(total), expected, "{batching:?} of {total}");
        }
    }

    proptest! {
        #[test]
        fn every_instance_is_in_exactly_one_batch(batching in batching(), total in 0..300usize) {
            let sizes = batching.sizes(total);

            prop_assert_eq!(sizes.iter().sum::<usize>(), total);
            prop_assert!(sizes.iter().all(|size| *size > 0));
        }

        #[test]
        fn even_batches_are_balanced_and_larger_first(count in 1..60u32, total in 1..300usize) {
            let sizes = Batching::Even(count).sizes(total);

            prop_assert_eq!(sizes.len(), (count as usize).min(total));
            prop_assert!(sizes.windows(2).all(|pair| pair[0] == pair[1] || pair[0] == pair[1] + 1));
            prop_assert!(sizes[0] - sizes[sizes.len() - 1] <= 1);
        }

        #[test]
        fn a_window_is_never_wider_than_its_share(percent in 1..=100u8, total in 1..300usize) {
            let sizes = Batching::Window(Amount::Percent(percent)).sizes(total);

            prop_assert!(sizes[0] == 1 || sizes[0] * 100 <= total * usize::from(percent));
        }
    }
}
