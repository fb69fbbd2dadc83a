//! Identifiers. Each is a short string that is safe as a file name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text that cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a valid name: use at most {most} letters, digits, `-`, `_` and `.`, not starting with `.` or `-`"
)]
pub struct InvalidId {
    /// The text as it was given.
    pub text: String,
    /// The longest that this kind of name may be, in bytes.
    pub most: usize,
}

fn is_valid(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a text.
            ///
            /// # Errors
            /// [`InvalidId`] when the text is empty, too long or not safe as a file name.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                if is_valid(text, $most) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { text: text.to_owned(), most: $most })
                }
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

id!(
    /// Names an application in `cutover.yaml`.
    ApplicationName, 64
);
id!(
    /// Names a deployment group within its application.
    GroupName, 64
);
id!(
    /// Names an instance within its group.
    InstanceId, 64
);
id!(
    /// Names a plugin in `cutover.yaml`.
    PluginName, 64
);
id!(
    /// Names a side of a group: a colour, or one end of a canary.
    SideName, 64
);
id!(
    /// Identifies a release, for example `k7m2x9qd4t`.
    ReleaseId, 64
);
id!(
    /// Identifies a deployment: the release's id and a number, for example `k7m2x9qd4t-1`.
    DeploymentId, 80
);
id!(
    /// Identifies one try of one step: `DEPLOYMENT.INSTANCE.EVENT.NUMBER`, the same after every restart.
    AttemptId, 240
);

impl DeploymentId {
    /// The id of the release's deployment with this number, counted from 1.
    #[must_use]
    pub fn nth(release: &ReleaseId, number: usize) -> Self {
        Self(format!("{release}-{number}").into())
    }
}

impl AttemptId {
    /// The id of an attempt. It depends on nothing but its operands, so that a resumed conductor asks for the
    /// attempt that the killed one began.
    #[must_use]
    pub fn of(
        deployment: &DeploymentId,
        instance: &InstanceId,
        event: crate::LifecycleEvent,
        number: u32,
    ) -> Self {
        Self(format!("{deployment}.{instance}.{event}.{number}").into())
    }

    /// The id of an errand that an attempt has done, counted from 1. Each is an attempt of its own.
    #[must_use]
    pub fn of_errand(
        deployment: &DeploymentId,
        instance: &InstanceId,
        event: crate::LifecycleEvent,
        attempt: u32,
        number: u32,
    ) -> Self {
        Self(format!("{deployment}.{instance}.{event}-{attempt}.{number}").into())
    }

    /// The id of an attempt to switch a deployment's traffic, with the rule of [`AttemptId::of`].
    #[must_use]
    pub fn of_switch(deployment: &DeploymentId, number: u32) -> Self {
        Self(format!("{deployment}.SwitchTraffic.{number}").into())
    }
}

/// Names a group within a workspace, written `APPLICATION/GROUP`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupRef {
    /// The application.
    pub application: ApplicationName,
    /// The group in it.
    pub group: GroupName,
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.application, self.group))
    }
}

impl std::str::FromStr for GroupRef {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (application, group) = text.split_once('/').ok_or_else(|| InvalidId {
            text: text.to_owned(),
            most: 64,
        })?;
        Ok(Self {
            application: application.parse()?,
            group: group.parse()?,
        })
    }
}
