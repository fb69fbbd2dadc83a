//! The message of a panic, which would be lost: a component for `wasm32-unknown-unknown` has no stderr, and what the
//! host sees of a panic is the trap.

/// From here on a panic is logged before it traps. Every exported function begins with this; only the first counts.
pub(crate) fn send_to_host() {
    #[cfg(target_family = "wasm")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                let message = panic.payload_as_str().unwrap_or("panic without a message");
                let place = panic
                    .location()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                crate::log(crate::Level::Error, message, &[("panic.location", &place)]);
            }));
        });
    }
}
