//! The manifest: what a plugin is and which capabilities it asks for. It is JSON in a custom section of the
//! component, so that it cannot be parted from the code that it speaks about.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

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
    /// By what is offered, for example `package-source`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provides: BTreeMap<String, Offer>,
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What a plugin offers of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Offer {
    /// Schemes of the references that a package source resolves, without the colon.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// Kinds of load balancer, or values of `deployment` in a release plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// What its provider can do, which an interface alone does not say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub features: BTreeSet<Feature>,
}

/// A fact about a load balancer or a traffic router that its operators want to know beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// What a member has begun it may end, and the balancer tells when it has.
    DrainObserved,
    /// What a member has begun it may end within a set time.
    DrainTimed,
    /// Changes that take their time are waited for without an instance of the plugin.
    Pending,
    /// A member that gets no requests is told with the balancer's reason.
    HealthReasons,
    /// Traffic is split between groups by share.
    SplitGroups,
    /// Traffic is split by the weights of members.
    SplitMembers,
}

/// The keys of `provides` that have features.
pub(crate) const LOAD_BALANCER: &str = "load-balancer";
pub(crate) const TRAFFIC_ROUTER: &str = "traffic-router";

impl Feature {
    /// The name used in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DrainObserved => "drain-observed",
            Self::DrainTimed => "drain-timed",
            Self::Pending => "pending",
            Self::HealthReasons => "health-reasons",
            Self::SplitGroups => "split-groups",
            Self::SplitMembers => "split-members",
        }
    }

    fn is_of(self, offer: &str) -> bool {
        match self {
            Self::Pending => matches!(offer, LOAD_BALANCER | TRAFFIC_ROUTER),
            Self::DrainObserved | Self::DrainTimed | Self::HealthReasons => offer == LOAD_BALANCER,
            Self::SplitGroups | Self::SplitMembers => offer == TRAFFIC_ROUTER,
        }
    }
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
    /// Programs that a deployment kind runs on instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Named>,
    /// Places that a deployment kind reads or changes on instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<InstancePath>,
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

/// Asks for a file or folder of instances, with all that is below it; `*` is any. One that does not begin with `/` is
/// below the instance's `rootdir`, and `.` is that folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstancePath {
    pub path: String,
    #[serde(default)]
    pub access: Access,
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
    #[error(
        "the manifest has the feature `{}` under `provides.{offer}`, which has no such feature",
        feature.name()
    )]
    Feature { offer: String, feature: Feature },
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Error`] when the text is not JSON, lacks a key, or has one or a feature that is not known.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_LENGTH {
            return Err(Error::TooLong { length: json.len() });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(Error::Json)?;
        for (offer, offered) in &manifest.provides {
            let mut features = offered.features.iter().copied();
            if let Some(feature) = features.find(|feature| !feature.is_of(offer)) {
                let offer = offer.clone();
                return Err(Error::Feature { offer, feature });
            }
        }
        Ok(manifest)
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

    #[test]
    fn features_are_known_and_in_their_place() {
        let parse = |provides: &str| {
            let json = format!(r#"{{"name":"a","version":"1","provides":{provides}}}"#);
            Manifest::parse(json.as_bytes())
        };

        let known = r#"{"load-balancer":{"features":["drain-observed","pending","health-reasons"]},
            "traffic-router":{"features":["split-groups","pending"]}}"#;
        let manifest = parse(known).unwrap();
        let misplaced = parse(r#"{"gate":{"features":["pending"]}}"#).unwrap_err();
        let unknown = parse(r#"{"load-balancer":{"features":["draining"]}}"#).unwrap_err();

        let features = &manifest.provides["load-balancer"].features;
        assert!(features.contains(&Feature::DrainObserved));
        assert_eq!(
            misplaced.to_string(),
            "the manifest has the feature `pending` under `provides.gate`, which has no such feature"
        );
        let cause = std::error::Error::source(&unknown).unwrap().to_string();
        assert!(
            cause.starts_with("unknown variant `draining`, expected one of `drain-observed`, "),
            "{cause}"
        );
    }

    #[test]
    fn a_feature_is_called_as_it_is_written() {
        for feature in [
            Feature::DrainObserved,
            Feature::DrainTimed,
            Feature::Pending,
            Feature::HealthReasons,
            Feature::SplitGroups,
            Feature::SplitMembers,
        ] {
            let written = serde_json::to_value(feature).unwrap();
            assert_eq!(written, feature.name());
        }
    }
}
