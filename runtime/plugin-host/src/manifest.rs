//! The manifest: what a plugin is and which capabilities it asks for. It is JSON in a custom section of the
//! component, so that it cannot be parted from the code that it speaks about.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wasm_encoder::{CustomSection, Encode as _, Section as _};

/// Name of the component-level custom section.
pub const SECTION: &str = "cutover:manifest";

/// The largest manifest, in bytes.
const MAX_LENGTH: usize = 256 << 10;

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// By interface package, for example `package-source`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provides: BTreeMap<String, Offer>,
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What a plugin offers under one interface package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Offer {
    /// Schemes of the references that a package source resolves, without the colon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// Kinds of load balancer, or values of `deployment` in a release plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

/// The capabilities that a plugin asks for. Each is a pattern, and each gives the reason for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Capabilities {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<Socket>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<Http>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<Directory>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Named>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Named>,
}

/// Asks for connections to addresses like `tcp:*`, `tcp:*:443` or `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    pub address: String,
    #[serde(default)]
    pub reason: String,
    /// As [`Directory::optional`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Asks for requests to hosts like `https://*` or `https://*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub host: String,
    #[serde(default)]
    pub reason: String,
    /// As [`Directory::optional`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Asks for a directory under a name; `*` is a directory of any name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pub name: String,
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub reason: String,
    /// The plugin does without it: nobody is warned where it is not granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What may be done in a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    #[default]
    Read,
    ReadWrite,
}

impl Access {
    /// The word used in manifests and grants.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read-write",
        }
    }
}

/// Asks for a secret or a program by name; `*` is any name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    #[serde(default)]
    pub reason: String,
    /// As [`Directory::optional`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the manifest in section `{SECTION}`")]
    Json(#[source] serde_json::Error),
    #[error("the manifest has {length} bytes, the limit is {MAX_LENGTH}")]
    TooLong { length: usize },
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error`] when the text is not JSON, lacks a key or has one that is not known.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_LENGTH {
            return Err(Error::TooLong { length: json.len() });
        }
        serde_json::from_slice(json).map_err(Error::Json)
    }
}

/// Appends the manifest to a component as a custom section. The bytes before it stay as they are.
#[must_use]
pub fn embed(component: &[u8], manifest_json: &str) -> Vec<u8> {
    let section = CustomSection {
        name: Cow::Borrowed(SECTION),
        data: Cow::Borrowed(manifest_json.as_bytes()),
    };
    let mut bytes = component.to_vec();
    bytes.push(section.id());
    section.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_documentation_reads_back_as_written() {
        let json = r#"{"name":"haproxy","version":"0.1.0","provides":{"package-source":{"schemes":["file"]}},
            "capabilities":{"sockets":[{"address":"tcp:*","reason":"the control socket"}],
            "directories":[{"name":"*","access":"read-write","reason":"the map"}],
            "secrets":[{"name":"token","optional":true}],"programs":[{"name":"git","reason":"clone"}]}}"#;

        let manifest = Manifest::parse(json.as_bytes()).unwrap();

        assert_eq!(manifest.provides["package-source"].schemes, ["file"]);
        assert_eq!(
            manifest.capabilities.directories[0].access,
            Access::ReadWrite
        );
        assert!(manifest.capabilities.secrets[0].optional);
        assert!(!manifest.capabilities.programs[0].optional);
        assert_eq!(
            Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap(),
            manifest
        );
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = Manifest::parse(br#"{"name":"a","version":"1","capabilities":{"network":[]}}"#)
            .unwrap_err();

        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("`network`"),
            "{error:?}"
        );
    }
}
