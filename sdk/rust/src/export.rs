//! The macro that makes a component of a type.

/// Exports a type as a component, with the interfaces named.
///
/// The names are those of the traits: `LoadBalancer`, `Weights`, `Limits`, `Router`, `PackageSource`,
/// `Streaming`, `DeploymentKind`, `Gate`. [`Plugin`](crate::Plugin) is exported by itself. Use it once in a crate. Natively it only checks
/// that the type implements the traits.
///
/// ```
/// use cutover_plugin_sdk::{DeploymentKind, Event, Failure, KindDescription, Plugin, Recipe, Step, export};
///
/// struct Nightly;
///
/// impl Plugin for Nightly {
///     type Config = serde_json::Value;
/// }
///
/// impl DeploymentKind for Nightly {
///     fn kinds() -> Vec<KindDescription> {
///         vec![KindDescription {
///             name: "NIGHTLY".to_owned(),
///             summary: "restarts the service".to_owned(),
///             item_schema: "{}".to_owned(),
///         }]
///     }
///
///     fn plan(_kind: &str, _item: &str) -> Result<Recipe, Failure> {
///         let events = [Event::ApplicationStop, Event::ApplicationStart];
///         Ok(Recipe { reference: None, steps: events.map(Step::usual).to_vec() })
///     }
/// }
///
/// export!(Nightly: DeploymentKind);
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ident: $($interface:ident),+ $(,)?) => {
        const _: () = {
            fn implements<T: $crate::Plugin $(+ $crate::$interface)+>() {}
            let _ = implements::<$plugin>;
        };
        $crate::__export_interface!(Plugin, $plugin);
        $($crate::__export_interface!($interface, $plugin);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_interface {
    (LoadBalancer, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::__export_load_balancer!($plugin, pool, __export_cutover_load_balancer_pool_0_1_0_cabi, POOL);
        }
    };
    (Weights, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::__export_load_balancer!(
                $plugin, weights, __export_cutover_load_balancer_weights_0_1_0_cabi, WEIGHTS
            );
        }
    };
    (Limits, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::__export_load_balancer!(
                $plugin, limits, __export_cutover_load_balancer_limits_0_1_0_cabi, LIMITS
            );
        }
    };
    (Plugin, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::guest::export_guest!($plugin with_types_in $crate::bindings::guest);
        }
    };
    (Router, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::router::export_router!($plugin with_types_in $crate::bindings::router);
        }
    };
    (PackageSource, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::source::export_source!($plugin with_types_in $crate::bindings::source);
        }
    };
    (Streaming, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::streaming::export_streaming!($plugin with_types_in $crate::bindings::streaming);
        }
    };
    (Gate, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::gate::export_gate!($plugin with_types_in $crate::bindings::gate);
        }
    };
    (DeploymentKind, $plugin:ident) => {
        $crate::__export_guarded! {
            $crate::bindings::kind::export_kind!($plugin with_types_in $crate::bindings::kind);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_guarded {
    ($($export:tt)*) => {
        // The exported symbols are the component model's; a native library has no use for them.
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "generated code of the component model's calling convention")]
        const _: () = {
            $($export)*
        };
    };
}
