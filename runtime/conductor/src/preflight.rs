//! What can be known of a group's load balancer before a release: its plugin, the configuration, the grants, and whether
//! it answers at all.

use std::collections::BTreeMap;

use model::{Balancer, Digest, PluginName};
use plugin_host::{CallError, Diagnostic, FailureClass, OpContext, Plugin, Severity};
use spec::workspace::Group;

use crate::balancer::{member_of, pool_of};
use crate::plan::chain;
use crate::plugins::{PluginError, Plugins, implements};

/// A load balancer that a release must not begin with.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("plugin `{plugin}` of {group} is no load balancer: it implements {implements}")]
    NotABalancer {
        plugin: PluginName,
        group: String,
        implements: String,
    },
    #[error("load_balancer.config of {group} is not valid: {}", problems.join("; "))]
    Config {
        group: String,
        problems: Vec<String>,
    },
    #[error("plugins.{plugin}.config is not valid: {}", problems.join("; "))]
    SourceConfig {
        plugin: PluginName,
        problems: Vec<String>,
    },
    #[error("ask plugin `{plugin}` to check its configuration")]
    CheckSource {
        plugin: PluginName,
        source: Box<CallError>,
    },
    #[error("instance `{instance}` of {group}: {reason}")]
    Address {
        instance: String,
        group: String,
        reason: String,
    },
    #[error("ask plugin `{plugin}` of {group} to check its configuration")]
    Check {
        plugin: PluginName,
        group: String,
        source: Box<CallError>,
    },
    #[error("ask plugin `{plugin}` where the instances of {group} stand")]
    Status {
        plugin: PluginName,
        group: String,
        hint: Option<String>,
        source: Box<CallError>,
    },
}

/// Checks the group's balancer, and reads from it. Answers with the digests of the plugins in use; what is odd but no
/// reason to refuse goes to `warnings`.
///
/// # Errors
/// [`PreflightError`] for whatever would fail at the first instance.
pub async fn balancer(
    plugins: &Plugins,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<PluginName, Digest>, PreflightError> {
    let Some(Balancer::Plugin {
        plugin: plugin_name,
        config,
        ..
    }) = &group.balancer
    else {
        return Ok(BTreeMap::new());
    };
    let plugin = plugins.get(plugin_name).await?;
    let name = || group.reference.to_string();
    if !plugin.provides().load_balancer {
        let implements = implements(plugin.provides());
        return Err(PreflightError::NotABalancer {
            plugin: plugin_name.clone(),
            group: name(),
            implements,
        });
    }
    let diagnostics =
        plugin
            .validate_config(config)
            .await
            .map_err(|source| PreflightError::Check {
                plugin: plugin_name.clone(),
                group: name(),
                source: Box::new(source),
            })?;
    let (errors, others): (Vec<_>, Vec<_>) = diagnostics
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    warnings.extend(others.iter().map(|found| {
        format!(
            "load_balancer.config of {}: {}",
            group.reference,
            text(found)
        )
    }));
    if !errors.is_empty() {
        return Err(PreflightError::Config {
            group: name(),
            problems: errors.iter().map(text).collect(),
        });
    }
    read(&plugin, config, group, warnings).await?;
    Ok(BTreeMap::from([(
        plugin_name.clone(),
        plugin.digest().clone(),
    )]))
}

/// Lets a package source check the configuration that the workspace gives it.
///
/// # Errors
/// [`PreflightError::SourceConfig`] for what the source could not work with.
pub async fn source(
    plugin: &Plugin,
    config: &str,
    warnings: &mut Vec<String>,
) -> Result<(), PreflightError> {
    if config == "{}" {
        return Ok(());
    }
    let name = plugin.name();
    if !plugin.provides().package_source {
        warnings.push(format!(
            "plugins.{name}.config is for package sources, and `{name}` implements {}: a load balancer has its `config` in the group",
            implements(plugin.provides())
        ));
        return Ok(());
    }
    let found = plugin.validate_config(config).await;
    let found = found.map_err(|source| PreflightError::CheckSource {
        plugin: name.clone(),
        source: Box::new(source),
    })?;
    let (errors, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    warnings.extend(
        others
            .iter()
            .map(|found| format!("plugins.{name}.config: {}", text(found))),
    );
    if errors.is_empty() {
        return Ok(());
    }
    Err(PreflightError::SourceConfig {
        plugin: name.clone(),
        problems: errors.iter().map(text).collect(),
    })
}

fn text(diagnostic: &Diagnostic) -> String {
    match diagnostic.path.as_str() {
        "" => diagnostic.message.clone(),
        path => format!("{path}: {}", diagnostic.message),
    }
}

/// Asks where the instances stand. What a later call may answer differently is only a warning.
async fn read(
    plugin: &Plugin,
    config: &str,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<(), PreflightError> {
    let name = || group.reference.to_string();
    let mut members = Vec::new();
    for instance in &group.instances {
        members.push(
            member_of(instance).map_err(|reason| PreflightError::Address {
                instance: instance.id.to_string(),
                group: name(),
                reason,
            })?,
        );
    }
    let context = OpContext {
        run_id: "check".to_owned(),
        step_id: name(),
        attempt: 1,
        dry_run: true,
        ..OpContext::default()
    };
    let asked: Vec<_> = members
        .iter()
        .map(|member| member.target_id.clone())
        .collect();
    let Err(error) = plugin
        .status(&context, config, &pool_of(&members), &asked)
        .await
    else {
        return Ok(());
    };
    let passes = error.failure().is_some_and(|failure| {
        matches!(
            failure.class,
            FailureClass::Transient
                | FailureClass::Throttled
                | FailureClass::UnknownOutcome
                | FailureClass::Conflict
        )
    });
    if passes {
        warnings.push(format!(
            "the load balancer of {} does not answer: {}",
            group.reference,
            chain(&error)
        ));
        return Ok(());
    }
    Err(PreflightError::Status {
        plugin: plugin.name().clone(),
        group: name(),
        hint: error.failure().and_then(|failure| failure.hint.clone()),
        source: Box::new(error),
    })
}
