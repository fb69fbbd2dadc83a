//! Generated bindings of the WIT packages. They stay behind this fence: every other module converts at once to the
//! crate's own types, so that a second major version of an interface is one more `bindgen!` and one more conversion.

#![allow(unreachable_pub, dead_code, clippy::all)]

wasmtime::component::bindgen!({
    inline: "
        package cutover:host@0.1.0;

        /// Everything that this host provides and calls. A component implements a part of it.
        world everything {
            include cutover:load-balancer/load-balancer@0.1.0;
            include cutover:package-source/package-source-streaming@0.1.0;
            include cutover:deployment-kind/deployment-kind@0.1.0;
            include cutover:traffic/traffic-router@0.1.0;
            include cutover:gate/gate@0.1.0;
            include cutover:plugin/with-secrets-reveal@0.1.0;
            include cutover:plugin/with-state@0.1.0;
            include cutover:plugin/with-sockets@0.1.0;
            include cutover:plugin/with-programs@0.1.0;
            include cutover:plugin/with-directories@0.1.0;
            include cutover:plugin/with-http@0.1.0;
            export cutover:load-balancer/limits@0.1.0;
            export cutover:load-balancer/weights@0.1.0;
        }
    ",
    path: ["../../wit/plugin", "../../wit/load-balancer", "../../wit/package-source", "../../wit/deployment-kind", "../../wit/traffic", "../../wit/gate"],
    world: "cutover:host/everything",
    imports: {
        "cutover:plugin/sockets": async | trappable,
        "cutover:plugin/programs": async | trappable,
        "cutover:plugin/directories": async | trappable,
        "cutover:package-source/sink": async | trappable,
        "cutover:deployment-kind/target": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "cutover:plugin/secrets.secret": crate::capabilities::secrets::Handle,
        "cutover:plugin/sockets.connection": crate::capabilities::sockets::Connection,
        "cutover:package-source/sink.artifact-sink": crate::capabilities::sink::Sink,
        "cutover:deployment-kind/target.handle": crate::capabilities::target::Handle,
    },
    // The description of the world says which imports are provided, so that no list has to be kept by hand.
    include_component_type: true,
});
