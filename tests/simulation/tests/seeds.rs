//! Releases from seeds keep every rule.

use std::sync::atomic::{AtomicU64, Ordering};

use simulation::check;

const SEEDS: u64 = 2_000;

#[test]
fn releases_of_2000_seeds_keep_every_rule() {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);

    let broken: Vec<_> = std::thread::scope(|scope| {
        let search = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return None;
                }
                if let Err(failure) = check(seed) {
                    // One is enough to read.
                    next.store(SEEDS, Ordering::Relaxed);
                    return Some(failure);
                }
            }
        };
        let searches: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        let found = searches.into_iter();
        found.filter_map(|search| search.join().unwrap()).collect()
    });

    assert!(broken.is_empty(), "{}", broken[0].explained());
}

#[test]
fn a_seed_always_comes_to_the_same() {
    for seed in 0..40 {
        let first = check(seed).unwrap();

        assert_eq!(check(seed).unwrap(), first, "seed {seed}");
    }
}
