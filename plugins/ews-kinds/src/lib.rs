//! The kinds of deployment that orchestrated release plans know: START, STOP, RESTART, HTTP_UPLOAD_DEPLOY and
//! COMPILE_DEPLOY.
//!
//! Each is a recipe of lifecycle events that the host carries out; no step calls the plugin back. What it asks of an
//! item is in `item`.

mod item;

use cutover_plugin_sdk::{
    DeploymentKind, Diagnostic, Event, Failure, KindDescription, Plugin, Recipe, Step, export,
};
use serde::Deserialize;

use item::{Item, Needs};

struct EwsKinds;

/// There is nothing to configure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// One value of `deployment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Start,
    Stop,
    Restart,
    HttpUploadDeploy,
    CompileDeploy,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::HttpUploadDeploy,
        Self::CompileDeploy,
    ];

    fn from_name(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Failure::unsupported(
                    "ews-kinds.kind",
                    format!("`{name}` is none of this plugin's kinds"),
                )
                .hint(format!("use one of {known}"))
            })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Stop => "STOP",
            Self::Restart => "RESTART",
            Self::HttpUploadDeploy => "HTTP_UPLOAD_DEPLOY",
            Self::CompileDeploy => "COMPILE_DEPLOY",
        }
    }

    fn summary(self) -> &'static str {
        match self {
            Self::Start => "starts the installed version, validates it and lets traffic to it",
            Self::Stop => "takes traffic from the installed version and stops it",
            Self::Restart => {
                "takes traffic from the installed version, stops and starts it, and lets traffic to it again"
            }
            Self::HttpUploadDeploy => "deploys the package at `httpSrcUri`",
            Self::CompileDeploy => {
                "builds the branch `compileRepoBranch` of `compileRepoPath` and deploys the result"
            }
        }
    }

    /// Whether the event is part of the kind. The canonical order does the rest.
    fn has(self, event: Event) -> bool {
        let takes_down = matches!(
            event,
            Event::BeforeBlockTraffic
                | Event::BlockTraffic
                | Event::AfterBlockTraffic
                | Event::ApplicationStop
        );
        let brings_up = matches!(
            event,
            Event::ApplicationStart
                | Event::ValidateService
                | Event::BeforeAllowTraffic
                | Event::AllowTraffic
                | Event::AfterAllowTraffic
        );
        match self {
            Self::Start => brings_up,
            Self::Stop => takes_down,
            Self::Restart => takes_down || brings_up,
            Self::HttpUploadDeploy | Self::CompileDeploy => true,
        }
    }

    fn needs(self) -> Needs {
        match self {
            Self::Start | Self::Stop | Self::Restart => Needs::Nothing,
            Self::HttpUploadDeploy => Needs::Package,
            Self::CompileDeploy => Needs::Sources,
        }
    }
}

impl Plugin for EwsKinds {
    type Config = Config;
}

impl DeploymentKind for EwsKinds {
    fn kinds() -> Vec<KindDescription> {
        Kind::ALL
            .into_iter()
            .map(|kind| KindDescription {
                name: kind.name().to_owned(),
                summary: kind.summary().to_owned(),
                item_schema: item::schema(kind.needs()),
            })
            .collect()
    }

    fn validate(kind: &str, item: &str) -> Result<Vec<Diagnostic>, Failure> {
        let kind = Kind::from_name(kind)?;
        Ok(Item::parse(item)?.check(kind.name(), kind.needs()))
    }

    fn plan(kind: &str, item: &str) -> Result<Recipe, Failure> {
        let kind = Kind::from_name(kind)?;
        let reference = match kind.needs() {
            Needs::Nothing => None,
            needs => Item::parse(item)?.reference(kind.name(), needs)?,
        };
        let steps = Event::ALL
            .into_iter()
            .filter(|event| kind.has(*event))
            .map(Step::usual)
            .collect();
        Ok(Recipe { reference, steps })
    }
}

export!(EwsKinds: DeploymentKind);

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::{Action, FailureClass};

    use super::*;

    fn check(kind: &str, item: &str, reference: Option<&str>, events: &[Event]) {
        let recipe = EwsKinds::plan(kind, item).unwrap();

        let planned: Vec<Event> = recipe.steps.iter().map(|step| step.event).collect();
        assert_eq!(
            (recipe.reference.as_deref(), planned.as_slice()),
            (reference, events),
            "{kind}"
        );
    }

    #[test]
    fn stopping_takes_traffic_away_first() {
        check(
            "STOP",
            "{}",
            None,
            &[
                Event::BeforeBlockTraffic,
                Event::BlockTraffic,
                Event::AfterBlockTraffic,
                Event::ApplicationStop,
            ],
        );
    }

    #[test]
    fn starting_lets_traffic_in_last() {
        check(
            "START",
            "{}",
            None,
            &[
                Event::ApplicationStart,
                Event::ValidateService,
                Event::BeforeAllowTraffic,
                Event::AllowTraffic,
                Event::AfterAllowTraffic,
            ],
        );
    }

    #[test]
    fn restarting_is_both_without_an_installation() {
        let events: Vec<Event> = Event::ALL
            .into_iter()
            .filter(|e| {
                !matches!(
                    e,
                    Event::DownloadBundle
                        | Event::BeforeInstall
                        | Event::Install
                        | Event::AfterInstall
                )
            })
            .collect();

        check("RESTART", "{}", None, &events);
    }

    #[test]
    fn a_deployment_goes_through_all_events() {
        let item = r#"{"serviceId": 111, "deployment": "HTTP_UPLOAD_DEPLOY", "httpSrcUri": "http://h/app-1.0.0.zip"}"#;

        check(
            "HTTP_UPLOAD_DEPLOY",
            item,
            Some("http://h/app-1.0.0.zip"),
            &Event::ALL,
        );
    }

    #[test]
    fn a_build_is_a_reference_to_a_branch() {
        let check = |path: &str, branch: &str, reference: &str| {
            let item = format!(
                r#"{{"serviceId": 111, "deployment": "COMPILE_DEPLOY", "compileRepoPath": "{path}", "compileRepoBranch": "{branch}"}}"#
            );
            check("COMPILE_DEPLOY", &item, Some(reference), &Event::ALL);
        };

        check("https://h/a.git", "main", "git+https://h/a.git#main");
        check("/srv/a.git", "feature/x", "git+file:///srv/a.git#feature/x");
    }

    #[test]
    fn the_host_does_its_own_events() {
        let recipe =
            EwsKinds::plan("HTTP_UPLOAD_DEPLOY", r#"{"httpSrcUri": "http://h/a"}"#).unwrap();

        let built_in: Vec<Event> = recipe
            .steps
            .iter()
            .filter(|step| step.action == Action::BuiltIn)
            .map(|step| step.event)
            .collect();

        assert_eq!(
            built_in,
            [
                Event::DownloadBundle,
                Event::BlockTraffic,
                Event::Install,
                Event::AllowTraffic
            ]
        );
    }

    #[test]
    fn another_kind_is_unsupported() {
        for name in ["FUNCTION_DEPLOY", "start", ""] {
            let failure = EwsKinds::plan(name, "{}").unwrap_err();

            assert_eq!(failure.class, FailureClass::Unsupported, "{name}");
        }
    }

    #[test]
    fn every_kind_is_described_with_a_schema_that_is_json() {
        for kind in EwsKinds::kinds() {
            let schema: serde_json::Value = serde_json::from_str(&kind.item_schema).unwrap();

            assert_eq!(schema["type"], "object", "{}", kind.name);
        }
    }
}
