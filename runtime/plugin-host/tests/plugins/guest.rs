//! Makes components out of a few lines of WebAssembly text, so that a test says exactly what a plugin does.

use std::path::Path;
use std::sync::Arc;

use plugin_host::{Error, Grants, Host, HostOptions, Plugin, Secrets, embed};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A load balancer whose functions answer with whatever lies at the address that they return. Address 0 holds zeros,
/// which read as success with an empty list.
pub(crate) struct Guest {
    /// WIT imports of the world beyond those of every plugin.
    pub(crate) includes: &'static str,
    /// Core imports, memory contents, more functions.
    pub(crate) items: String,
    pub(crate) validate: &'static str,
    pub(crate) register: &'static str,
    pub(crate) status: &'static str,
    pub(crate) poll: &'static str,
    pub(crate) manifest: Option<&'static str>,
}

const OK: &str = "i32.const 0";

impl Default for Guest {
    fn default() -> Self {
        Self {
            includes: "",
            items: String::new(),
            validate: OK,
            register: OK,
            status: OK,
            poll: OK,
            manifest: None,
        }
    }
}

impl Guest {
    pub(crate) fn module(&self) -> String {
        let Self {
            items,
            validate,
            register,
            status,
            poll,
            ..
        } = self;
        format!(
            r#"(module
            {items}
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 32768))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
                global.get $next
                (global.set $next (i32.add (global.get $next) (local.get 3))))
            (func (export "cutover:plugin/guest@0.1.0#validate-config") (param i32 i32) (result i32) {validate})
            (func (export "cutover:load-balancer/pool@0.1.0#register") (param i32) (result i32) {register})
            (func (export "cutover:load-balancer/pool@0.1.0#deregister") (param i32) (result i32) i32.const 0)
            (func (export "cutover:load-balancer/pool@0.1.0#status") (param i32) (result i32) {status})
            (func (export "cutover:load-balancer/pool@0.1.0#poll")
                (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32) {poll}))"#
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let includes = self.includes;
        let world = format!(
            "package test:guest; world guest {{ include cutover:load-balancer/load-balancer@0.1.0; {includes} }}"
        );
        let component = encode(&self.module(), &world);
        self.manifest
            .map_or(component.clone(), |manifest| embed(&component, manifest))
    }

    /// Loads it without grants.
    pub(crate) async fn load(&self) -> Loaded {
        self.load_with(&Grants::default(), Secrets::default()).await
    }

    pub(crate) async fn load_with(&self, grants: &Grants, secrets: Secrets) -> Loaded {
        self.load_in(|_| {}, grants, secrets).await
    }

    pub(crate) async fn load_in(
        &self,
        options: impl FnOnce(&mut HostOptions),
        grants: &Grants,
        secrets: Secrets,
    ) -> Loaded {
        let root = tempfile::tempdir().unwrap();
        let plugin = load_bytes(root.path(), &self.bytes(), options, grants, secrets)
            .await
            .unwrap();
        Loaded {
            plugin,
            _root: root,
        }
    }
}

/// A plugin with the folder that it lives in.
pub(crate) struct Loaded {
    plugin: Arc<Plugin>,
    _root: tempfile::TempDir,
}

impl std::ops::Deref for Loaded {
    type Target = Plugin;

    fn deref(&self) -> &Plugin {
        &self.plugin
    }
}

/// Loads bytes as plugin `stub`.
pub(crate) async fn load_bytes(
    root: &Path,
    bytes: &[u8],
    options: impl FnOnce(&mut HostOptions),
    grants: &Grants,
    secrets: Secrets,
) -> Result<Arc<Plugin>, Error> {
    let path = root.join("stub.wasm");
    std::fs::write(&path, bytes).unwrap();
    let mut host_options = HostOptions::new(root.join("compiled"));
    options(&mut host_options);
    let host = Host::new(host_options).unwrap();
    host.load("stub".parse().unwrap(), &path, grants, secrets)
        .await
}

/// Turns a core module into a component of a world.
pub(crate) fn encode(module: &str, world: &str) -> Vec<u8> {
    encode_with(module, &[], world)
}

/// As `encode`, with WIT packages that the world needs besides the host's.
pub(crate) fn encode_with(module: &str, packages: &[&str], world: &str) -> Vec<u8> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut resolve = Resolve::default();
    for package in [
        "plugin",
        "load-balancer",
        "package-source",
        "deployment-kind",
        "traffic",
        "gate",
    ] {
        resolve.push_path(wit.join(package)).unwrap();
    }
    for package in packages {
        resolve.push_str("package.wit", package).unwrap();
    }
    let package = resolve.push_str("guest.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}
