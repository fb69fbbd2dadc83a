//! Generated bindings, fenced off from the rest of the crate.
//!
//! One module for everything that the host provides, one for each interface that a component may export. The type
//! section of an exported interface stands in its export macro, so a component is asked only for the interfaces that it
//! names in [`export!`](crate::export). Not part of the SDK's surface: use the traits and re-exports of the other
//! modules.

#![allow(unsafe_code, unreachable_pub, missing_docs, reason = "generated code")]
#![allow(clippy::all, clippy::unwrap_used, reason = "generated code")]

/// What the host provides.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit/plugin",
        inline: "
            package cutover:sdk-host;
            world host {
                include cutover:plugin/host-imports@0.1.0;
                include cutover:plugin/with-secrets-reveal@0.1.0;
                include cutover:plugin/with-state@0.1.0;
                include cutover:plugin/with-sockets@0.1.0;
                include cutover:plugin/with-programs@0.1.0;
                include cutover:plugin/with-directories@0.1.0;
                include cutover:plugin/with-http@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

/// `wasi:http/outgoing-handler`, whose resources cannot be compared as the host's own records can.
pub mod http {
    wit_bindgen::generate!({
        path: ["../../wit/deps/io", "../../wit/deps/clocks", "../../wit/deps/http"],
        inline: "package cutover:sdk-http; world http { import wasi:http/outgoing-handler@0.2.12; }",
        generate_all,
    });
}

/// `wasi:clocks/wall-clock` and `wasi:random/random`.
pub mod wasi {
    wit_bindgen::generate!({
        path: ["../../wit/deps/io", "../../wit/deps/clocks", "../../wit/deps/random"],
        inline: "
            package cutover:sdk-wasi;
            world wasi {
                import wasi:clocks/wall-clock@0.2.12;
                import wasi:random/random@0.2.12;
            }
        ",
        generate_all,
    });
}

/// `cutover:plugin/guest`, which every component exports.
pub mod guest {
    wit_bindgen::generate!({
        path: "../../wit/plugin",
        inline: "package cutover:sdk-guest; world guest { export cutover:plugin/guest@0.1.0; }",
        with: { "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types },
        pub_export_macro: true,
        export_macro_name: "export_guest",
        additional_derives: [PartialEq],
    });
}

/// `cutover:load-balancer/pool`, `weights` and `limits`, which share their types.
///
/// The last two are optional, but the world's own type section would demand them of every load balancer. So each
/// function table is exported by itself, with the type section that the build script made for it.
pub mod load_balancer {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/load-balancer"],
        inline: "
            package cutover:sdk-load-balancer;
            world load-balancer {
                export cutover:load-balancer/pool@0.1.0;
                export cutover:load-balancer/weights@0.1.0;
                export cutover:load-balancer/limits@0.1.0;
            }
        ",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:load-balancer/pool@0.1.0": generate,
            "cutover:load-balancer/weights@0.1.0": generate,
            "cutover:load-balancer/limits@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_load_balancer",
        additional_derives: [PartialEq],
    });

    pub use exports::cutover::load_balancer::{limits, pool, weights};

    /// Type section of a component that exports `pool`.
    pub const POOL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pool.bin"));
    /// Type section of a component that exports `pool` and `weights`.
    pub const WEIGHTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin"));
    /// Type section of a component that exports `pool` and `limits`.
    pub const LIMITS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/limits.bin"));

    /// Makes an array of a type section, as the linker wants it.
    pub const fn section<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut section = [0; N];
        section.copy_from_slice(bytes);
        section
    }

    #[doc(hidden)]
    #[macro_export]
    macro_rules! __export_load_balancer {
        ($plugin:ident, $interface:ident, $table:ident, $section:ident) => {
            use $crate::bindings::load_balancer;
            load_balancer::$interface::$table!($plugin with_types_in load_balancer::$interface);

            #[unsafe(link_section = concat!("component-type:cutover-plugin-sdk:", stringify!($interface)))]
            pub static SECTION: [u8; load_balancer::$section.len()] = load_balancer::section(load_balancer::$section);
        };
    }
}

/// `cutover:package-source/source`.
pub mod source {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/package-source"],
        inline: "package cutover:sdk-source; world source { export cutover:package-source/source@0.1.0; }",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:package-source/source@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_source",
        additional_derives: [PartialEq],
    });
}

/// `cutover:package-source/streaming`.
pub mod streaming {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/package-source"],
        inline: "package cutover:sdk-streaming; world streaming { export cutover:package-source/streaming@0.1.0; }",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:package-source/sink@0.1.0": generate,
            "cutover:package-source/streaming@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_streaming",
        additional_derives: [PartialEq],
    });
}

/// `cutover:traffic/router`.
pub mod router {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/traffic"],
        inline: "package cutover:sdk-router; world router { export cutover:traffic/router@0.1.0; }",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:traffic/router@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_router",
        additional_derives: [PartialEq],
    });
}

/// `cutover:gate/evaluation`.
pub mod gate {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/gate"],
        inline: "package cutover:sdk-gate; world gate { export cutover:gate/evaluation@0.1.0; }",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:gate/evaluation@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_gate",
        additional_derives: [PartialEq],
    });
}

/// `cutover:deployment-kind/kind`.
pub mod kind {
    wit_bindgen::generate!({
        path: ["../../wit/plugin", "../../wit/deployment-kind"],
        inline: "package cutover:sdk-kind; world kind { export cutover:deployment-kind/kind@0.1.0; }",
        with: {
            "cutover:plugin/types@0.1.0": crate::bindings::host::cutover::plugin::types,
            "cutover:deployment-kind/target@0.1.0": generate,
            "cutover:deployment-kind/lifecycle@0.1.0": generate,
            "cutover:deployment-kind/kind@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_kind",
        additional_derives: [PartialEq],
    });
}
