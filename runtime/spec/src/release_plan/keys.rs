//! The keys of a release plan, and which kind of deployment uses which.

use crate::fields::Shape;

pub(super) static PLAN: Shape = Shape {
    name: "plan",
    keys: &["comment", "deployPlanItems"],
    aliases: &[],
};

pub(super) static ITEM: Shape = Shape {
    name: "item",
    keys: &[
        "serviceId",
        "deployment",
        "priority",
        "containerExecMethod",
        "deployLabel",
        "httpSrcUri",
        "compileRepoPath",
        "compileRepoBranch",
    ],
    aliases: &[],
};

/// The keys that say which service is released when and where. All others are the kind's own.
pub(super) const COMMON: [&str; 5] = [
    "serviceId",
    "deployment",
    "priority",
    "containerExecMethod",
    "deployLabel",
];

/// The kinds of deployment of the format. Any other is a plugin's.
pub const KINDS: [&str; 5] = [
    "START",
    "STOP",
    "RESTART",
    "HTTP_UPLOAD_DEPLOY",
    "COMPILE_DEPLOY",
];

/// What a kind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// It goes by what is installed.
    Nothing,
    Package,
    Sources,
    /// A plugin knows.
    Own,
}

impl Needs {
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            "START" | "STOP" | "RESTART" => Self::Nothing,
            "HTTP_UPLOAD_DEPLOY" => Self::Package,
            "COMPILE_DEPLOY" => Self::Sources,
            _ => Self::Own,
        }
    }
}
