//! Choices that follow from the seed and a name, whatever was chosen before.
//!
//! So leaving a part of a scenario out changes nothing of the rest, and what fails keeps failing.

use fastrand::Rng;

/// The chances of one simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chance {
    seed: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A number within a range, for this name.
    pub(crate) fn between(self, what: &str, name: &str, range: std::ops::Range<u64>) -> u64 {
        self.rng(what, name).u64(range)
    }

    /// Whether something is so, this many times of a hundred.
    pub(crate) fn percent(self, what: &str, name: &str, percent: u64) -> bool {
        self.between(what, name, 0..100) < percent
    }

    fn rng(self, what: &str, name: &str) -> Rng {
        // FNV-1a, which is enough to tell names apart.
        let bytes = what.bytes().chain([0]).chain(name.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Rng::with_seed(hash ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}
