//! A text that tells one request from every other.

/// Makes a UUID of random bits, for schemes that refuse a request whose nonce they have seen.
///
/// ```no_run
/// use cutover_plugin_sdk::signing::nonce;
///
/// assert_ne!(nonce(), nonce());
/// ```
#[must_use]
pub fn nonce() -> String {
    // What RFC 9562 fixes in a UUID of version 4.
    let high = random() & !0xf000 | 0x4000;
    let low = random() & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(target_family = "wasm")]
fn random() -> u64 {
    crate::bindings::wasi::wasi::random::random::get_random_u64()
}

/// The seeds of hash maps are random; natively there is nothing that asks for more.
#[cfg(not(target_family = "wasm"))]
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_a_uuid_of_version_4_and_another_each_time() {
        let nonces: std::collections::BTreeSet<_> = (0..100).map(|_| nonce()).collect();

        assert_eq!(nonces.len(), 100);
        for nonce in nonces {
            let groups: Vec<_> = nonce.split('-').collect();
            let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{nonce}");
            assert!(groups[2].starts_with('4'), "{nonce}");
            assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "{nonce}");
        }
    }
}
