//! Which bytes of an archive are here, and which somebody is bringing.

use std::ops::Range;

/// Bytes that are here, and bytes that a connection has taken on. Neither overlaps with itself or the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// In order, none touching the next.
    done: Vec<Range<u64>>,
    claimed: Vec<Range<u64>>,
}

impl Ranges {
    /// What an earlier download left. None where that is not a set of ranges below `end`.
    pub(super) fn left(done: Vec<Range<u64>>, end: u64) -> Option<Self> {
        let is_each_some = done.iter().all(|range| range.start < range.end);
        let is_ordered = done.windows(2).all(|pair| pair[0].end < pair[1].start);
        let is_inside = done.last().is_none_or(|last| last.end <= end);
        (is_each_some && is_ordered && is_inside).then_some(Self {
            done,
            claimed: Vec::new(),
        })
    }

    pub(super) fn done(&self) -> &[Range<u64>] {
        &self.done
    }

    /// How many bytes are here.
    pub(super) fn bytes(&self) -> u64 {
        self.done.iter().map(|range| range.end - range.start).sum()
    }

    /// How many bytes below `end` nobody brings.
    pub(super) fn free(&self, end: u64) -> u64 {
        self.gaps(end).map(|gap| gap.end - gap.start).sum()
    }

    /// Takes the first bytes that nobody brings.
    pub(super) fn claim_first(&mut self, end: u64, most: u64) -> Option<Range<u64>> {
        let gap = self.gaps(end).next()?;
        let claim = gap.start..gap.end.min(gap.start.saturating_add(most));
        self.claimed.push(claim.clone());
        Some(claim)
    }

    /// Takes the last bytes that nobody brings, so that who goes on from the beginning can do so for long.
    pub(super) fn claim_last(&mut self, end: u64, most: u64) -> Option<Range<u64>> {
        let gap = self.gaps(end).last()?;
        let claim = gap.start.max(gap.end.saturating_sub(most))..gap.end;
        self.claimed.push(claim.clone());
        Some(claim)
    }

    /// Takes the bytes from `at`, where nobody brings those.
    pub(super) fn claim_at(&mut self, at: u64, end: u64, most: u64) -> Option<Range<u64>> {
        let gap = self.gaps(end).find(|gap| gap.contains(&at))?;
        let claim = at..gap.end.min(at.saturating_add(most));
        self.claimed.push(claim.clone());
        Some(claim)
    }

    /// Notes that the next bytes of a claim, which begins with them, are here.
    pub(super) fn arrived(&mut self, bytes: Range<u64>) {
        let mut claims = self.claimed.iter_mut();
        if let Some(claim) = claims.find(|claim| claim.start == bytes.start) {
            claim.start = bytes.end;
        }
        self.claimed.retain(|claim| claim.start < claim.end);
        let at = self.done.partition_point(|done| done.end < bytes.start);
        let touched = self.done[at..]
            .iter()
            .take_while(|done| done.start <= bytes.end)
            .count();
        let whole = self.done[at..at + touched]
            .iter()
            .fold(bytes, |one, other| {
                one.start.min(other.start)..one.end.max(other.end)
            });
        self.done.splice(at..at + touched, [whole]);
    }

    /// Gives up what is left of a claim, which begins at `at`.
    pub(super) fn release(&mut self, at: u64) {
        self.claimed.retain(|claim| claim.start != at);
    }

    fn gaps(&self, end: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let mut taken: Vec<_> = self.done.iter().chain(&self.claimed).cloned().collect();
        taken.sort_by_key(|range| range.start);
        taken.push(end..end);
        let mut at = 0;
        taken.into_iter().filter_map(move |range| {
            let gap = at..range.start.min(end);
            at = at.max(range.end);
            (gap.start < gap.end).then_some(gap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_from_the_front_and_one_from_the_back_meet() {
        let mut ranges = Ranges::default();

        let front = ranges.claim_first(10, 4);
        let back = ranges.claim_last(10, 3);
        assert_eq!((front, back), (Some(0..4), Some(7..10)));
        assert_eq!(ranges.free(10), 3);
        ranges.arrived(0..4);
        assert_eq!(ranges.claim_at(4, 10, 4), Some(4..7));
        assert_eq!(ranges.claim_first(10, 4), None);
        ranges.arrived(4..7);
        assert_eq!(ranges.claim_at(7, 10, 4), None, "another brings it");
        ranges.arrived(7..10);

        assert_eq!(ranges.done(), std::slice::from_ref(&(0..10)));
        assert_eq!((ranges.bytes(), ranges.free(10)), (10, 0));
    }

    #[test]
    fn what_is_given_up_is_free_again_and_what_came_of_it_is_not() {
        let mut ranges = Ranges::default();
        ranges.claim_last(10, 6);
        ranges.arrived(4..6);

        ranges.release(6);

        assert_eq!(ranges.claim_first(10, 100), Some(0..4));
        assert_eq!(ranges.claim_last(10, 100), Some(6..10));
    }

    #[test]
    fn an_end_that_is_not_known_is_far() {
        let mut ranges = Ranges::default();

        assert_eq!(ranges.claim_first(u64::MAX, 4), Some(0..4));
        ranges.arrived(0..4);
        assert_eq!(ranges.claim_at(4, u64::MAX, 4), Some(4..8));
    }

    #[test]
    fn what_is_no_set_of_ranges_is_not_taken_up() {
        let cases: [(&[Range<u64>], bool); 6] = [
            (&[], true),
            (&[0..4, 6..10], true),
            (&[0..4, 4..10], false),
            (&[6..10, 0..4], false),
            (&[0..4, 6..11], false),
            (&[0..2, 4..4], false),
        ];
        for (done, fits) in cases {
            assert_eq!(Ranges::left(done.to_vec(), 10).is_some(), fits, "{done:?}");
        }
    }
}
