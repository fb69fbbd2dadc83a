//! What a file is, before any of its code runs: the interfaces that it implements, the ones that it needs, its
//! manifest. The messages made here stand in for the linker's, which name neither plugin nor remedy.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use model::Digest;
use sha2::{Digest as _, Sha256};
use wasmparser::component_types::{ComponentEntityType, ComponentItem};
use wasmparser::types::{Types, TypesRef};
use wasmparser::{BinaryReaderError, Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::manifest::{self, Manifest};

/// What is known about a component from its bytes alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub digest: Digest,
    pub provides: Provides,
    pub exports: Vec<Interface>,
    pub imports: Vec<Interface>,
    pub manifest: Option<Manifest>,
}

/// The interfaces of this host's packages that a component implements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provides {
    /// `cutover:load-balancer/pool`
    pub load_balancer: bool,
    /// `cutover:load-balancer/limits`
    pub limits: bool,
    /// `cutover:load-balancer/weights`
    pub weights: bool,
    /// `cutover:traffic/router`
    pub router: bool,
    /// `cutover:package-source/source`
    pub package_source: bool,
    /// `cutover:package-source/streaming`
    pub streaming: bool,
    /// `cutover:deployment-kind/kind`
    pub deployment_kind: bool,
    /// `cutover:gate/evaluation`
    pub gate: bool,
}

/// An interface, or a function outside of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// With its version, for example `cutover:plugin/logging@0.1.0`.
    pub name: String,
    /// As the component model writes them, for example `[method]secret.hmac`.
    pub functions: BTreeSet<String>,
}

/// Why a file cannot be a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file is not WebAssembly")]
    NotWasm,
    #[error(
        "the file is a WebAssembly module, not a component: make one of it with `wasm-tools component new`"
    )]
    Module,
    #[error("the file is not a valid component")]
    Invalid(#[source] BinaryReaderError),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    #[error(
        "the manifest has features of a {offer}, whose interface `{interface}` the component does not implement"
    )]
    Claims {
        offer: &'static str,
        interface: &'static str,
    },
    #[error("the component has more than one section `{}`", manifest::SECTION)]
    ManyManifests,
    #[error("the component implements none of {known}; it exports {}", list(exports), known = KNOWN_EXPORTS)]
    ImplementsNothing { exports: Vec<String> },
    #[error("the component does not export `{GUEST}`, which every plugin does")]
    NoGuest,
    #[error("the component implements `{export}`; this host knows version {known} of it")]
    ExportVersion { export: String, known: String },
    #[error("the component needs {}, which this host does not provide", Needs(.0))]
    Imports(Vec<Unprovided>),
}

/// An import that the host does not provide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unprovided {
    Interface {
        name: String,
    },
    /// The interface is provided in another version, which cannot stand in.
    Version {
        name: String,
        provided: String,
    },
    Function {
        interface: String,
        function: String,
    },
}

impl fmt::Display for Unprovided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { name } => write!(f, "`{name}`"),
            Self::Version { name, provided } => {
                write!(f, "`{name}` (provided in version {provided})")
            }
            Self::Function {
                interface,
                function,
            } => write!(f, "`{function}` of `{interface}`"),
        }
    }
}

struct Needs<'a>(&'a [Unprovided]);

impl fmt::Display for Needs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, need) in self.0.iter().enumerate() {
            write!(f, "{}{need}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

const KNOWN_EXPORTS: &str = "`cutover:load-balancer/pool`, `cutover:traffic/router`, \
    `cutover:package-source/source`, `cutover:deployment-kind/kind`, `cutover:gate/evaluation`";
const GUEST: &str = "cutover:plugin/guest";

/// The interfaces that wasmtime-wasi and its HTTP link, all of version 0.2.
const WASI: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// The world that this host serves, read from the description that came with the bindings.
static WORLD: LazyLock<World> = LazyLock::new(World::read);

struct World {
    imports: Vec<Interface>,
    exports: Vec<Interface>,
}

impl World {
    fn read() -> Self {
        let types =
            validate(crate::bindings::COMPONENT_TYPE).expect("the bindings describe a valid world");
        let types = types.as_ref();
        // The description is a component type in a component type, each the only export of what is around it.
        let outer = &types[types.component_type_at(0)];
        let Some(ComponentEntityType::Component(world)) =
            outer.exports.values().next().map(|item| item.ty)
        else {
            unreachable!("the bindings describe a world");
        };
        let world = &types[world];
        Self {
            imports: interfaces(world.imports.iter(), types),
            exports: interfaces(world.exports.iter(), types),
        }
    }
}

/// Reads what a component is.
///
/// # Errors
/// [`Error`] when the bytes are not a component that this host can run.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Error> {
    if !bytes.starts_with(b"\0asm") {
        return Err(Error::NotWasm);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Error::Module);
    }
    let manifest = find_manifest(bytes)?;
    let types = validate(bytes)?;
    let (imports, exports) = surface(bytes, types.as_ref()).map_err(Error::Invalid)?;
    let provides = provides(&exports)?;
    check_claims(manifest.as_ref(), &provides)?;
    let unprovided: Vec<_> = imports.iter().flat_map(unprovided).collect();
    if !unprovided.is_empty() {
        return Err(Error::Imports(unprovided));
    }
    let digest = Digest::parse(&format!(
        "sha256:{}",
        crate::cache::hex(&Sha256::digest(bytes))
    ))
    .expect("a SHA-256 in hexadecimal is a digest");
    Ok(Inspection {
        digest,
        provides,
        exports,
        imports,
        manifest,
    })
}

/// Checks everything but the bodies of functions, which the compiler checks.
fn validate(bytes: &[u8]) -> Result<Types, Error> {
    let features = WasmFeatures::default() - WasmFeatures::CM_ASYNC;
    let mut validator = Validator::new_with_features(features);
    let mut last = None;
    for payload in Parser::new(0).parse_all(bytes) {
        if let wasmparser::ValidPayload::End(types) = validator
            .payload(&payload.map_err(Error::Invalid)?)
            .map_err(Error::Invalid)?
        {
            last = Some(types);
        }
    }
    // Inner modules and components end before the one that holds them.
    last.ok_or(Error::NotWasm)
}

/// The manifest of the component itself, not of one inside it.
fn find_manifest(bytes: &[u8]) -> Result<Option<Manifest>, Error> {
    let mut depth = 0_usize;
    let mut found = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(Error::Invalid)? {
            Payload::Version {
                encoding: Encoding::Module | Encoding::Component,
                ..
            } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section)
                if depth == 1 && section.name() == manifest::SECTION =>
            {
                if found.is_some() {
                    return Err(Error::ManyManifests);
                }
                found = Some(Manifest::parse(section.data())?);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The imports and exports of the outermost component.
fn surface(
    bytes: &[u8],
    types: TypesRef<'_>,
) -> Result<(Vec<Interface>, Vec<Interface>), BinaryReaderError> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let name = import?.name.name;
                    imports.extend(
                        types
                            .component_item_for_import(name)
                            .map(|item| (name.to_owned(), item)),
                    );
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let name = export?.name.name;
                    exports.extend(
                        types
                            .component_item_for_export(name)
                            .map(|item| (name.to_owned(), item)),
                    );
                }
            }
            _ => {}
        }
    }
    let imports = interfaces(imports.iter().map(|(name, item)| (name, *item)), types);
    let exports = interfaces(exports.iter().map(|(name, item)| (name, *item)), types);
    Ok((imports, exports))
}

/// The instances and functions among a component's items. Types need nothing from the host.
fn interfaces<'a>(
    items: impl Iterator<Item = (&'a String, &'a ComponentItem)>,
    types: TypesRef<'_>,
) -> Vec<Interface> {
    items
        .filter_map(|(name, item)| match item.ty {
            ComponentEntityType::Instance(id) => {
                let functions = types[id].exports.iter();
                let functions =
                    functions.filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)));
                Some(Interface {
                    name: name.clone(),
                    functions: functions.map(|(name, _)| name.clone()).collect(),
                })
            }
            ComponentEntityType::Type { .. } => None,
            _ => Some(Interface {
                name: name.clone(),
                functions: BTreeSet::new(),
            }),
        })
        .collect()
}

fn provides(exports: &[Interface]) -> Result<Provides, Error> {
    let mut provides = Provides::default();
    let mut has_guest = false;
    for export in exports {
        let (name, version) = split(&export.name);
        let field = match name {
            GUEST => &mut has_guest,
            "cutover:load-balancer/pool" => &mut provides.load_balancer,
            "cutover:load-balancer/limits" => &mut provides.limits,
            "cutover:load-balancer/weights" => &mut provides.weights,
            "cutover:traffic/router" => &mut provides.router,
            "cutover:package-source/source" => &mut provides.package_source,
            "cutover:package-source/streaming" => &mut provides.streaming,
            "cutover:deployment-kind/kind" => &mut provides.deployment_kind,
            "cutover:gate/evaluation" => &mut provides.gate,
            _ => continue,
        };
        let known = WORLD
            .exports
            .iter()
            .map(|export| split(&export.name))
            .find(|(known, _)| *known == name);
        if let Some((_, known)) = known
            && !is_compatible(version, known)
        {
            return Err(Error::ExportVersion {
                export: export.name.clone(),
                known: known.to_owned(),
            });
        }
        *field = true;
    }
    let Provides {
        load_balancer,
        router,
        package_source,
        deployment_kind,
        gate,
        ..
    } = provides;
    if !(load_balancer || router || package_source || deployment_kind || gate) {
        return Err(Error::ImplementsNothing {
            exports: exports.iter().map(|export| export.name.clone()).collect(),
        });
    }
    if !has_guest {
        return Err(Error::NoGuest);
    }
    Ok(provides)
}

/// Refuses a manifest that has features of what the component does not implement.
fn check_claims(manifest: Option<&Manifest>, provides: &Provides) -> Result<(), Error> {
    for (offer, interface, is_implemented) in [
        (
            manifest::LOAD_BALANCER,
            "cutover:load-balancer/pool",
            provides.load_balancer,
        ),
        (
            manifest::TRAFFIC_ROUTER,
            "cutover:traffic/router",
            provides.router,
        ),
    ] {
        let offered = manifest.and_then(|manifest| manifest.provides.get(offer));
        if offered.is_some_and(|offered| !offered.features.is_empty()) && !is_implemented {
            return Err(Error::Claims { offer, interface });
        }
    }
    Ok(())
}

fn unprovided(import: &Interface) -> Vec<Unprovided> {
    let (name, version) = split(&import.name);
    if WASI.contains(&name) {
        return if is_compatible(version, "0.2.0") {
            Vec::new()
        } else {
            vec![Unprovided::Version {
                name: import.name.clone(),
                provided: "0.2".to_owned(),
            }]
        };
    }
    let provided = WORLD
        .imports
        .iter()
        .map(|known| (split(&known.name), known))
        .find(|((known, _), _)| *known == name);
    match provided {
        None => vec![Unprovided::Interface {
            name: import.name.clone(),
        }],
        Some(((_, known), _)) if !is_compatible(version, known) => {
            vec![Unprovided::Version {
                name: import.name.clone(),
                provided: known.to_owned(),
            }]
        }
        Some((_, known)) => import
            .functions
            .difference(&known.functions)
            .map(|function| Unprovided::Function {
                interface: import.name.clone(),
                function: function.clone(),
            })
            .collect(),
    }
}

/// The name and the version of `NAME@VERSION`.
fn split(interface: &str) -> (&str, &str) {
    interface.split_once('@').unwrap_or((interface, ""))
}

/// Whether a component's version of an interface links with the host's: the linker's own rule.
fn is_compatible(version: &str, known: &str) -> bool {
    version == known || matches!((series(version), series(known)), (Some(a), Some(b)) if a == b)
}

/// `1` of `1.2.3`, `0.2` of `0.2.3`; nothing for `0.0.x` and pre-releases, which are only equal to themselves.
fn series(version: &str) -> Option<&str> {
    let is_release =
        version.split('.').count() == 3 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let (major, rest) = version.split_once('.').filter(|_| is_release)?;
    if major != "0" {
        return Some(major);
    }
    let (minor, _) = rest.split_once('.')?;
    (minor != "0").then(|| &version[..major.len() + 1 + minor.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_read_from_the_bindings() {
        let names: Vec<_> = WORLD
            .imports
            .iter()
            .map(|interface| split(&interface.name).0)
            .collect();

        assert!(names.contains(&"cutover:plugin/sockets"), "{names:?}");
        let secrets = WORLD
            .imports
            .iter()
            .find(|i| i.name.starts_with("cutover:plugin/secrets@"))
            .unwrap();
        assert!(
            secrets.functions.contains("[method]secret.hmac"),
            "{secrets:?}"
        );
        assert!(
            WORLD
                .exports
                .iter()
                .any(|export| export.name.starts_with(GUEST))
        );
    }

    #[test]
    fn versions_link_as_in_the_component_model() {
        for (version, known, expected) in [
            ("0.1.0", "0.1.0", true),
            ("0.1.3", "0.1.0", true),
            ("0.2.0", "0.1.0", false),
            ("1.4.0", "1.0.0", true),
            ("0.0.1", "0.0.2", false),
            ("0.2.0-rc1", "0.2.0", false),
            ("", "0.1.0", false),
        ] {
            assert_eq!(is_compatible(version, known), expected, "{version} {known}");
        }
    }
}
