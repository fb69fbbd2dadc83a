//! How things stand, for the eye: a colour, and a sign and a word that tell the same without it.

use maud::{Markup, html};

/// The class of a status, which gives it its colour, and its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) class: &'static str,
    pub(super) sign: &'static str,
}

/// The look of any status of a release, deployment, instance, step, switch or wait.
pub(super) fn look(status: &str) -> Look {
    let (class, sign) = match status {
        "SUCCEEDED" | "PASSED" => ("ok", "✓"),
        "FAILED" => ("bad", "✗"),
        "UNREACHABLE" => ("bad", "⊘"),
        "LOST" | "INCONCLUSIVE" | "UNFINISHED" => ("odd", "?"),
        "INTERRUPTED" => ("odd", "!"),
        "RUNNING" => ("run", "▸"),
        "PAUSING" | "PAUSED" => ("wait", "‖"),
        "STOPPING" | "STOPPED" => ("wait", "■"),
        "WAITING" => ("wait", "…"),
        "SKIPPED" | "ABANDONED" => ("dim", "–"),
        _ => ("dim", "○"),
    };
    Look { class, sign }
}

/// The sign of a status.
pub(super) fn sign(status: &str) -> Markup {
    let Look { class, sign } = look(status);
    html! { b.(class) { (sign) } }
}

/// The sign and the word of a status.
pub(super) fn badge(status: &str) -> Markup {
    let Look { class, sign } = look(status);
    html! { span.badge.(class) { (sign) " " (status) } }
}

/// The class of an attempt on the line: what it did where it succeeded, how it stands elsewhere.
pub(super) fn bar_class(event: &str, status: &str) -> &'static str {
    match status {
        "SUCCEEDED" => match event {
            "DownloadBundle" => "fetch",
            "BeforeBlockTraffic" | "BlockTraffic" | "AfterBlockTraffic" | "BeforeAllowTraffic"
            | "AllowTraffic" | "AfterAllowTraffic" => "traffic",
            "ApplicationStop" => "stop",
            "ApplicationStart" => "start",
            "ValidateService" => "validate",
            _ => "install",
        },
        status => look(status).class,
    }
}

/// What the colours of the line mean.
pub(super) fn legend() -> Markup {
    let kinds = [
        ("fetch", "fetch"),
        ("traffic", "out of or into traffic"),
        ("stop", "stop"),
        ("install", "install"),
        ("start", "start"),
        ("validate", "validate"),
        ("bad", "✗ failed, unreachable"),
        ("odd", "? lost, interrupted"),
        ("run", "▸ under way"),
        ("wait", "… waiting"),
    ];
    html! {
        ul.legend aria-label="Colours" {
            @for (class, word) in kinds {
                li {
                    svg aria-hidden="true" width="18" height="10" {
                        rect.(class) width="18" height="10" rx="2" {}
                    }
                    " " (word)
                }
            }
        }
    }
}
