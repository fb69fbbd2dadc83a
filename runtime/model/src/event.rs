//! The lifecycle events of an instance's deployment.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the 13 named stages of an instance's deployment, in the canonical order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LifecycleEvent {
    DownloadBundle,
    BeforeBlockTraffic,
    BlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    BeforeInstall,
    Install,
    AfterInstall,
    ApplicationStart,
    ValidateService,
    BeforeAllowTraffic,
    AllowTraffic,
    AfterAllowTraffic,
}

/// Which of an instance's two revisions something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The revision that the instance has installed.
    Outgoing,
    /// The revision that is being put there.
    Incoming,
}

impl Side {
    /// The word used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Side::Outgoing => "outgoing",
            Side::Incoming => "incoming",
        }
    }
}

impl LifecycleEvent {
    /// All events in the canonical order.
    pub const ALL: [LifecycleEvent; 13] = [
        Self::DownloadBundle,
        Self::BeforeBlockTraffic,
        Self::BlockTraffic,
        Self::AfterBlockTraffic,
        Self::ApplicationStop,
        Self::BeforeInstall,
        Self::Install,
        Self::AfterInstall,
        Self::ApplicationStart,
        Self::ValidateService,
        Self::BeforeAllowTraffic,
        Self::AllowTraffic,
        Self::AfterAllowTraffic,
    ];

    /// The event's name as appspecs and reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DownloadBundle => "DownloadBundle",
            Self::BeforeBlockTraffic => "BeforeBlockTraffic",
            Self::BlockTraffic => "BlockTraffic",
            Self::AfterBlockTraffic => "AfterBlockTraffic",
            Self::ApplicationStop => "ApplicationStop",
            Self::BeforeInstall => "BeforeInstall",
            Self::Install => "Install",
            Self::AfterInstall => "AfterInstall",
            Self::ApplicationStart => "ApplicationStart",
            Self::ValidateService => "ValidateService",
            Self::BeforeAllowTraffic => "BeforeAllowTraffic",
            Self::AllowTraffic => "AllowTraffic",
            Self::AfterAllowTraffic => "AfterAllowTraffic",
        }
    }

    /// Finds an event by its exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Whether an appspec may bind scripts to the event. The other four are the runtime's own work.
    #[must_use]
    pub fn takes_hooks(self) -> bool {
        !matches!(
            self,
            Self::DownloadBundle | Self::BlockTraffic | Self::Install | Self::AllowTraffic
        )
    }

    /// Whether it is one of the six around a load balancer.
    #[must_use]
    pub fn is_about_traffic(self) -> bool {
        matches!(
            self,
            Self::BeforeBlockTraffic
                | Self::BlockTraffic
                | Self::AfterBlockTraffic
                | Self::BeforeAllowTraffic
                | Self::AllowTraffic
                | Self::AfterAllowTraffic
        )
    }

    /// Whose hook runs. The choice is by event alone, never by what happens to be on disk.
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::BeforeBlockTraffic | Self::AfterBlockTraffic | Self::ApplicationStop => {
                Side::Outgoing
            }
            _ => Side::Incoming,
        }
    }
}

impl fmt::Display for LifecycleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
