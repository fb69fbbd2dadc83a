//! Whatever the model can hold survives the disk, and what a released program wrote stays readable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{
    Amount, AppSpec, Balancer, Batching, Boundary, Calls, Capacity, Cause, Context, Decision,
    Deployment, DeploymentId, Digest, Direction, Ending, Evidence, Fact, FileMapping, Gate,
    GateCheck, GatePolicy, GatePosition, GroupRef, Hold, Host, Instance, InstanceId,
    InstanceOutcome, Kinds, LifecycleEvent, OnExisting, OnFailure, Order, Package, Permission,
    PluginName, Promote, Release, ReleaseId, ReleaseStatus, Retire, Revision, Router, Run, Scope,
    Script, Shares, SideGroup, SideName, Sides, Ssh, SshAddress, SshSettings, Stage, StopFailures,
    Strategy as Rollout, Target, Timestamp, Verdict, Version,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{decode, encode};

fn id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}"
}

fn deployment_id() -> impl Strategy<Value = DeploymentId> {
    id().prop_map(|text| DeploymentId::parse(text).unwrap())
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    id().prop_map(|text| InstanceId::parse(text).unwrap())
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,20}"]
}

fn env() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(words(), words(), 0..3)
}

fn event() -> impl Strategy<Value = LifecycleEvent> {
    select(&LifecycleEvent::ALL[..])
}

fn version() -> impl Strategy<Value = Version> {
    "[0-9]{1,18}(\\.[0-9]{1,4}){2,3}".prop_map(|text| Version::parse(&text).unwrap())
}

fn digest() -> impl Strategy<Value = Digest> {
    "sha256:[0-9a-f]{64}".prop_map(|text| Digest::parse(&text).unwrap())
}

fn revision() -> impl Strategy<Value = Revision> {
    (version(), words(), digest()).prop_map(|(version, source, digest)| Revision {
        version,
        source,
        digest,
    })
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        any::<u32>().prop_map(Amount::Count),
        any::<u8>().prop_map(Amount::Percent)
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let run = prop_oneof![
        words().prop_map(Run::Location),
        words().prop_map(Run::Command)
    ];
    (run, any::<Duration>(), option::of(words())).prop_map(|(run, timeout, runas)| Script {
        run,
        timeout,
        runas,
    })
}

fn permission() -> impl Strategy<Value = Permission> {
    let kinds = select(vec![Kinds::Files, Kinds::Directories, Kinds::Both]);
    let names = (
        option::of(words()),
        option::of(words()),
        option::of(any::<u32>()),
    );
    let context = (option::of(words()), words(), option::of(words()))
        .prop_map(|(user, kind, range)| Context { user, kind, range });
    let labels = (vec(words(), 0..3), option::of(context));
    (words(), words(), vec(words(), 0..3), kinds, names, labels).prop_map(
        |(object, pattern, except, kinds, names, labels)| {
            let (owner, group, mode) = names;
            let (acls, context) = labels;
            Permission {
                object,
                pattern,
                except,
                kinds,
                owner,
                group,
                mode,
                acls,
                context,
            }
        },
    )
}

fn appspec() -> impl Strategy<Value = AppSpec> {
    let file = (words(), words()).prop_map(|(source, destination)| FileMapping {
        source,
        destination,
    });
    let on_existing = select(vec![
        OnExisting::Disallow,
        OnExisting::Overwrite,
        OnExisting::Retain,
    ]);
    let hooks = btree_map(event(), vec(script(), 0..3), 0..4);
    (
        vec(file, 0..3),
        vec(permission(), 0..3),
        hooks,
        env(),
        on_existing,
    )
        .prop_map(|(files, permissions, hooks, env, on_existing)| AppSpec {
            files,
            permissions,
            hooks,
            env,
            on_existing,
        })
}

fn package() -> impl Strategy<Value = Package> {
    (deployment_id(), revision(), appspec()).prop_map(|(deployment, revision, appspec)| Package {
        deployment,
        revision,
        appspec,
    })
}

fn host() -> impl Strategy<Value = Host> {
    let address = (
        option::of("[a-z_][a-z0-9_.-]{0,8}"),
        "[a-z0-9][a-z0-9.-]{0,12}|10\\.0\\.0\\.2|fe80::1(%eth0)?",
        option::of(1..=u16::MAX),
    )
        .prop_map(|(user, host, port)| SshAddress { user, host, port });
    let settings = (
        any::<Duration>(),
        any::<u32>(),
        any::<bool>(),
        option::of(words()),
    )
        .prop_map(|(connect_timeout, retries, sudo, agent_dir)| SshSettings {
            connect_timeout,
            retries,
            sudo,
            agent_dir,
        });
    let ssh =
        (address, settings).prop_map(|(address, settings)| Host::Ssh(Ssh { address, settings }));
    prop_oneof![Just(Host::Local), ssh]
}

fn target() -> impl Strategy<Value = Target> {
    let instance = (
        instance_id(),
        words(),
        option::of(words()),
        option::of(words()),
        vec(words(), 0..3),
        env(),
        host(),
    )
        .prop_map(
            |(id, rootdir, address, provider_id, labels, env, host)| Instance {
                id,
                host,
                rootdir,
                address,
                provider_id,
                labels,
                env,
            },
        );
    (instance, option::of(deployment_id()), deployment_id()).prop_map(
        |(instance, outgoing, incoming)| Target {
            instance,
            outgoing,
            incoming,
        },
    )
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let plugin = || id().prop_map(|text| PluginName::parse(text).unwrap());
    let group = (id(), id())
        .prop_map(|(application, group)| format!("{application}/{group}").parse().unwrap());
    let direction = prop_oneof![
        Just(Direction::Deploy),
        Just(Direction::Operate),
        deployment_id().prop_map(|of| Direction::Rollback { of }),
        deployment_id().prop_map(|of| Direction::Retire { of }),
    ];
    let on_failure = select(vec![OnFailure::Stop, OnFailure::Rollback]);
    let stop_failures = select(vec![StopFailures::Fail, StopFailures::Ignore]);
    let command = || (words(), any::<Duration>());
    let balancer = prop_oneof![
        (plugin(), words(), any::<Duration>()).prop_map(|(plugin, config, timeout)| {
            Balancer::Plugin {
                plugin,
                config,
                timeout,
            }
        }),
        command().prop_map(|(command, timeout)| Balancer::Command { command, timeout }),
    ];
    let router = prop_oneof![
        (plugin(), words(), any::<Duration>()).prop_map(|(plugin, config, timeout)| {
            Router::Plugin {
                plugin,
                config,
                timeout,
            }
        }),
        command().prop_map(|(command, timeout)| Router::Command { command, timeout }),
    ];
    let calls = (
        plugin(),
        words(),
        words(),
        btree_map(event(), any::<Duration>(), 0..3),
    );
    let calls = calls.prop_map(|(plugin, config, item, events)| Calls {
        plugin,
        config,
        item,
        events,
    });
    let pace = (
        batching(),
        any::<Duration>(),
        option::of(amount()),
        option::of(amount()),
        vec(gate(), 0..3),
        (option::of(sides()), btree_map(instance_id(), words(), 0..3)),
    );
    let identity = (
        deployment_id(),
        group,
        option::of(any::<u64>()),
        words(),
        any::<i64>(),
        direction,
    );
    let rules = (
        revision(),
        (rollout(), pace),
        amount(),
        on_failure,
        (stop_failures, option::of(balancer), option::of(router)),
        (vec(event(), 0..13), option::of(calls)),
    );
    let content = (
        btree_map(deployment_id(), package().prop_map(Arc::new), 0..3),
        vec(target().prop_map(Arc::new), 0..3),
        vec(instance_id(), 0..3),
        btree_map(plugin(), digest(), 0..3),
        any::<u32>(),
    );
    (identity, rules, content).prop_map(|(identity, rules, content)| {
        let (id, group, service_id, kind, priority, direction): (_, GroupRef, _, _, _, _) =
            identity;
        let (revision, (strategy, pace), failure_threshold, on_failure, traffic, steps) = rules;
        let (sequence, calls) = steps;
        let (batching, wait_between, batch_failure_threshold, minimum_healthy, gates, around) =
            pace;
        let (sides, down) = around;
        let (stop_failures, balancer, router) = traffic;
        let (packages, targets, excluded, plugins, keep_revisions) = content;
        Deployment {
            id,
            group,
            service_id,
            kind,
            priority,
            direction,
            revision,
            strategy,
            batching,
            wait_between,
            failure_threshold,
            batch_failure_threshold,
            minimum_healthy,
            gates,
            on_failure,
            stop_failures,
            balancer,
            router,
            sides,
            down,
            sequence,
            calls,
            packages,
            targets,
            excluded,
            plugins,
            keep_revisions,
        }
    })
}

fn rollout() -> impl Strategy<Value = Rollout> {
    let retire = select(vec![Retire::Keep, Retire::Stop]);
    let promote = prop_oneof![
        Just(Promote::Manual),
        Just(Promote::Given),
        any::<Duration>().prop_map(Promote::After)
    ];
    prop_oneof![
        Just(Rollout::Rolling),
        (any::<Duration>(), retire).prop_map(|(bake, retire)| Rollout::BlueGreen { bake, retire }),
        (option::of(any::<u8>()), promote)
            .prop_map(|(traffic, promote)| Rollout::Canary { traffic, promote }),
    ]
}

fn batching() -> impl Strategy<Value = Batching> {
    prop_oneof![
        amount().prop_map(Batching::Window),
        any::<u32>().prop_map(Batching::Even),
        vec(amount(), 0..3).prop_map(Batching::Growing),
        (any::<u32>(), any::<u32>())
            .prop_map(|(first, rest)| Batching::FirstThenEven { first, rest }),
    ]
}

fn gate() -> impl Strategy<Value = Gate> {
    use GatePolicy::{Continue, Pause, Rollback, Stop};
    use GatePosition::{Each, First, Last};
    let policy = || select(vec![Continue, Pause, Stop, Rollback]);
    let check = prop_oneof![
        words().prop_map(|ask| GateCheck::Approval { ask }),
        words().prop_map(|command| GateCheck::Command { command }),
        (id(), words()).prop_map(|(plugin, config)| GateCheck::Plugin {
            plugin: PluginName::parse(plugin).unwrap(),
            config
        }),
    ];
    (
        words(),
        select(vec![First, Each, Last]),
        check,
        option::of(any::<Duration>()),
        any::<Duration>(),
        (policy(), policy()),
    )
        .prop_map(|(name, after, check, timeout, interval, policies)| Gate {
            name,
            after,
            check,
            timeout,
            interval,
            on_fail: policies.0,
            on_inconclusive: policies.1,
        })
}

fn side() -> impl Strategy<Value = SideName> {
    id().prop_map(|text| SideName::parse(text).unwrap())
}

fn shares() -> impl Strategy<Value = Shares> {
    let two = (side(), 0..=100u8, side())
        .prop_filter("two sides", |(one, _, other)| one != other)
        .prop_map(|(one, percent, other)| Shares::between(one, percent, other));
    prop_oneof![
        Just(Shares::default()),
        side().prop_map(Shares::all_to),
        two
    ]
}

fn sides() -> impl Strategy<Value = Sides> {
    let group =
        (side(), words(), vec(target(), 0..2)).prop_map(|(name, group, targets)| SideGroup {
            name,
            group,
            instances: targets.into_iter().map(|target| target.instance).collect(),
        });
    let installed = btree_map(instance_id(), deployment_id(), 0..3);
    (
        vec(group, 0..3),
        option::of(side()),
        side(),
        shares(),
        installed,
    )
        .prop_map(|(list, from, to, shares, installed)| Sides {
            list,
            from,
            to,
            shares,
            installed,
        })
}

fn stage() -> impl Strategy<Value = Stage> {
    (any::<u32>(), any::<u32>()).prop_map(|(boundary, index)| Stage { boundary, index })
}

fn hold() -> impl Strategy<Value = Hold> {
    prop_oneof![
        Just(Hold::Interval),
        Just(Hold::Promotion),
        any::<u32>().prop_map(|index| Hold::Gate { index }),
        Just(Hold::Bake),
        Just(Hold::Health),
    ]
}

fn decision() -> impl Strategy<Value = Decision> {
    let verdict = || {
        select(vec![
            Verdict::Passed,
            Verdict::Failed,
            Verdict::Inconclusive,
        ])
    };
    let evidence = (words(), words(), option::of(words()), verdict()).prop_map(
        |(name, value, threshold, verdict)| Evidence {
            name,
            value,
            threshold,
            verdict,
        },
    );
    (
        verdict(),
        option::of(words()),
        option::of(words()),
        vec(evidence, 0..3),
    )
        .prop_map(|(verdict, by, reason, evidence)| Decision {
            verdict,
            by,
            reason,
            evidence,
        })
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        plain_order(),
        (deployment_id(), plain_order()).prop_map(|(deployment, order)| Order::For {
            deployment,
            order: Box::new(order),
        }),
    ]
}

fn plain_order() -> impl Strategy<Value = Order> {
    let word = || (option::of(words()), option::of(words()));
    let boundary = || option::of(select(vec![Boundary::Service, Boundary::Batch]));
    prop_oneof![
        boundary().prop_map(|at| Order::Pause { at }),
        boundary().prop_map(|at| Order::Stop { at }),
        Just(Order::Promote),
        (
            any::<u8>(),
            select(vec![Capacity::Respect, Capacity::Exceed])
        )
            .prop_map(|(percent, capacity)| Order::Weight { percent, capacity }),
        word().prop_map(|(gate, comment)| Order::Approve { gate, comment }),
        word().prop_map(|(gate, comment)| Order::Reject { gate, comment }),
        instance_id().prop_map(|instance| Order::Skip { instance }),
        option::of(words()).prop_map(|reason| Order::Rollback { reason }),
    ]
}

fn waiting() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (
            deployment_id(),
            stage(),
            hold(),
            option::of(any::<i64>().prop_map(Timestamp))
        )
            .prop_map(|(deployment, stage, hold, until)| Fact::HoldOpened {
                deployment,
                stage,
                hold,
                until
            }),
        (deployment_id(), stage(), decision()).prop_map(|(deployment, stage, decision)| {
            Fact::HoldClosed {
                deployment,
                stage,
                decision,
            }
        }),
        (deployment_id(), btree_map(instance_id(), words(), 0..3))
            .prop_map(|(deployment, down)| Fact::HealthObserved { deployment, down }),
        (order(), words()).prop_map(|(order, operator)| Fact::Ordered { order, operator }),
    ]
}

fn status() -> impl Strategy<Value = ReleaseStatus> {
    use ReleaseStatus::{
        Failed, Interrupted, Paused, Pausing, Running, Stopped, Stopping, Succeeded,
    };
    select(vec![
        Running,
        Succeeded,
        Failed,
        Pausing,
        Paused,
        Stopping,
        Stopped,
        Interrupted,
    ])
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        (
            option::of(any::<i32>()),
            option::of(words()),
            option::of(words())
        )
            .prop_map(|(exit_code, log, note)| Ending::Succeeded {
                exit_code,
                log,
                note
            }),
        (
            select(&Cause::ALL[..]),
            words(),
            option::of(words()),
            option::of(any::<i32>()),
            option::of(words())
        )
            .prop_map(|(cause, reason, script, exit_code, log)| Ending::Failed {
                cause,
                reason,
                script,
                exit_code,
                log
            }),
        words().prop_map(|reason| Ending::Lost { reason }),
        words().prop_map(|reason| Ending::Unreachable { reason }),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    use InstanceOutcome::{Failed, Skipped, Succeeded, Unreachable};
    let step = || (deployment_id(), instance_id(), event());
    let outcome = select(vec![Succeeded, Failed, Unreachable, Skipped]);
    prop_oneof![
        (
            id(),
            words(),
            words(),
            select(vec![Scope::Service, Scope::Plan])
        )
            .prop_map(|(id, comment, operator, scope)| {
                Fact::ReleaseOpened(Release {
                    id: ReleaseId::parse(id).unwrap(),
                    comment,
                    operator,
                    scope,
                })
            }),
        deployment().prop_map(|deployment| Fact::DeploymentOpened(Arc::new(deployment))),
        (step(), any::<u32>(), option::of(event())).prop_map(
            |((deployment, instance, event), attempt, then)| {
                Fact::StepStarted {
                    deployment,
                    instance,
                    event,
                    attempt,
                    then,
                }
            }
        ),
        (step(), any::<u32>(), ending()).prop_map(
            |((deployment, instance, event), attempt, ending)| {
                Fact::StepEnded {
                    deployment,
                    instance,
                    event,
                    attempt,
                    ending,
                }
            }
        ),
        (step(), words()).prop_map(
            |((deployment, instance, event), reason)| Fact::StepSkipped {
                deployment,
                instance,
                event,
                reason
            }
        ),
        (deployment_id(), instance_id(), outcome, option::of(words())).prop_map(
            |(deployment, instance, outcome, reason)| Fact::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason
            }
        ),
        (deployment_id(), status(), option::of(words())).prop_map(
            |(deployment, status, reason)| Fact::DeploymentEnded {
                deployment,
                status,
                reason
            }
        ),
        waiting(),
        (
            (deployment_id(), any::<u32>(), option::of(stage())),
            shares(),
            shares()
        )
            .prop_map(|((deployment, attempt, stage), from, to)| {
                Fact::SwitchStarted {
                    deployment,
                    attempt,
                    stage,
                    from,
                    to,
                }
            }),
        (deployment_id(), any::<u32>(), ending()).prop_map(|(deployment, attempt, ending)| {
            Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            }
        }),
        (deployment_id(), option::of(stage()), words()).prop_map(|(deployment, stage, reason)| {
            Fact::SwitchSkipped {
                deployment,
                stage,
                reason,
            }
        }),
        (status(), words()).prop_map(|(status, reason)| Fact::StatusChanged { status, reason }),
        (status(), option::of(words()))
            .prop_map(|(status, reason)| Fact::ReleaseEnded { status, reason }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_fact_comes_back_as_it_was(fact in fact()) {
        let text = encode(&fact).unwrap();

        prop_assert_eq!(decode(&text).unwrap(), fact);
    }
}

/// What a body becomes when a program of another time, or a broken disk, wrote it.
#[test]
fn unknown_or_broken_content_is_an_error() {
    let package = r#"{"version":"1","source":"s","digest":"sha256:00"}"#;
    for text in [
        "",
        "{}",
        "null",
        r#"{"step-started":{"deployment":"d-1"}}"#,
        r#"{"step-started":{"deployment":"../d","instance":"i","event":"Install","attempt":1}}"#,
        r#"{"step-started":{"deployment":"d","instance":"i","event":"Reboot","attempt":1}}"#,
        r#"{"step-started":{"deployment":"d","instance":"i","event":"Install","attempt":-1}}"#,
        r#"{"step-started":{"deployment":"d","instance":"i","event":"Install","attempt":1,"extra":1}}"#,
        r#"{"release-ended":{"status":"DONE"}}"#,
        r#"{"release-exploded":{"status":"FAILED"}}"#,
        &format!(r#"{{"deployment-opened":{{"revision":{package}}}}}"#),
    ] {
        assert!(decode(text).is_err(), "{text}");
    }
}

#[test]
fn a_host_that_is_not_known_is_an_error() {
    let line = include_str!("../../fixtures/v1.jsonl")
        .lines()
        .nth(1)
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = line["fact"].to_string();

    let broken = decode(&text.replace("local:", "carrier-pigeon:")).unwrap_err();

    assert_eq!(
        broken.to_string(),
        "`carrier-pigeon:` is not a kind of host that this program knows"
    );
}

#[test]
fn the_first_format_stays_readable() {
    let mut kinds = BTreeSet::new();

    for line in include_str!("../../fixtures/v1.jsonl").lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let fact = decode(&line["fact"].to_string()).unwrap();

        let written: serde_json::Value = serde_json::from_str(&encode(&fact).unwrap()).unwrap();
        assert_eq!(written, line["fact"]);
        kinds.extend(written.as_object().unwrap().keys().cloned());
    }

    assert_eq!(
        kinds.len(),
        12,
        "the fixture holds every kind of fact: {kinds:?}"
    );
}
