//! A gate that a command line on this machine decides, by its exit code.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use engine::HoldAction;
use model::{Decision, Evidence, ReleaseId, Verdict};
use plugin_host::bounded::{self, Keep};
use tokio::process::Command;

use super::decide::{Looked, Question};

/// `EX_TEMPFAIL`: the command cannot tell yet.
const UNDECIDED: i32 = 75;
/// How much of each output is kept: the end says what went wrong.
const LONGEST_TAIL: usize = 4 << 10;
/// How many of the last lines are quoted, and how long they may be together.
const QUOTED_LINES: usize = 3;
const LONGEST_QUOTE: usize = 400;
/// What a command sees of this process's environment. All else could hold credentials, or differ from run to run.
const ENVIRONMENT: [&str; 8] = [
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR",
];

/// Runs the command once.
pub(super) async fn evaluate(question: &Question<'_>, command: &str, time: Duration) -> Looked {
    let folder = question.conductor.plugins.folder();
    let variables = variables(question.release, question.action);
    match run(command, folder, &variables, time).await {
        Ok(ended) => judge(&ended),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => undecided(format!(
            "the command took longer than {} s and was killed",
            time.as_secs()
        )),
        Err(error) => undecided(format!("the command could not be run: {error}")),
    }
}

fn undecided(why: String) -> Looked {
    Looked::Undecided {
        why,
        evidence: Vec::new(),
        after: None,
    }
}

/// How a command ended, with the last that it printed.
struct Ended {
    status: ExitStatus,
    said: String,
}

fn judge(ended: &Ended) -> Looked {
    let exit = match (ended.status.code(), ended.status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    };
    let verdict = match ended.status.code() {
        Some(0) => Verdict::Passed,
        Some(UNDECIDED) => Verdict::Inconclusive,
        _ => Verdict::Failed,
    };
    let reason = match ended.said.as_str() {
        "" => exit.clone(),
        said => format!("{exit}: {said}"),
    };
    let evidence = vec![Evidence {
        name: "command".to_owned(),
        value: exit,
        threshold: Some("exit code 0".to_owned()),
        verdict,
    }];
    match verdict {
        Verdict::Inconclusive => Looked::Undecided {
            why: reason,
            evidence,
            after: None,
        },
        Verdict::Passed | Verdict::Failed => Looked::Decided(Decision {
            verdict,
            by: None,
            reason: (verdict == Verdict::Failed || !ended.said.is_empty()).then_some(reason),
            evidence,
        }),
    }
}

/// What the command gets to know, under the names that hooks know where there are any.
fn variables(release: &ReleaseId, action: &HoldAction) -> Vec<(&'static str, String)> {
    let HoldAction {
        deployment,
        gate,
        since,
        batches: (done, of),
        deployed,
        ..
    } = action;
    let deployed_targets = || {
        let targets = deployment.targets.iter();
        targets.filter(|target| deployed.contains(&target.instance.id))
    };
    let ids: Vec<_> = deployed.iter().map(|id| id.as_str()).collect();
    let addresses: Vec<_> = deployed_targets()
        .filter_map(|target| target.instance.address.as_deref())
        .collect();
    vec![
        ("APPLICATION_NAME", deployment.group.application.to_string()),
        ("DEPLOYMENT_GROUP_NAME", deployment.group.group.to_string()),
        ("DEPLOYMENT_ID", deployment.id.to_string()),
        ("CUTOVER_RELEASE_ID", release.to_string()),
        ("CUTOVER_DEPLOYMENT_ID", deployment.id.to_string()),
        ("CUTOVER_VERSION", deployment.revision.version.to_string()),
        ("CUTOVER_REVISION", deployment.revision.digest.to_string()),
        ("CUTOVER_OPERATION", deployment.direction.name().to_owned()),
        ("CUTOVER_GATE", gate.name.clone()),
        ("CUTOVER_BATCH", done.to_string()),
        ("CUTOVER_BATCHES", of.to_string()),
        ("CUTOVER_SINCE", (since.0 / 1000).to_string()),
        ("CUTOVER_INSTANCES", ids.join(" ")),
        ("CUTOVER_ADDRESSES", addresses.join(" ")),
    ]
}

async fn run(
    command: &str,
    folder: &Path,
    variables: &[(&'static str, String)],
    time: Duration,
) -> io::Result<Ended> {
    let inherited = ENVIRONMENT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env_clear()
        .envs(inherited)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let ran = bounded::run(&mut shell, Keep::End(LONGEST_TAIL), time).await?;
    let said = match quote(&ran.stderr.bytes) {
        quoted if quoted.is_empty() => quote(&ran.stdout.bytes),
        quoted => quoted,
    };
    Ok(Ended {
        status: ran.status,
        said,
    })
}

/// The last lines, on one.
fn quote(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.replace(char::is_control, " ").trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let lines = lines.split_off(lines.len().saturating_sub(QUOTED_LINES));
    let quote = lines.join(" | ");
    let surplus = quote.chars().count().saturating_sub(LONGEST_QUOTE);
    quote.chars().skip(surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// The verdict and the reason of a command.
    async fn check(command: &str) -> String {
        let ended = run(
            command,
            Path::new("/"),
            &[("CUTOVER_GATE", "smoke".to_owned())],
            LONG,
        )
        .await
        .unwrap();
        match judge(&ended) {
            Looked::Decided(decision) => format!(
                "{}: {}",
                decision.verdict,
                decision.reason.unwrap_or_default()
            ),
            Looked::Undecided { why, .. } => format!("undecided: {why}"),
        }
    }

    #[tokio::test]
    async fn the_exit_code_decides() {
        assert_eq!(check("true").await, "PASSED: ");
        assert_eq!(
            check("echo one; echo two; exit 3").await,
            "FAILED: exit code 3: one | two"
        );
        assert_eq!(
            check("echo no data >&2; exit 75").await,
            "undecided: exit code 75: no data"
        );
        assert_eq!(check("kill -9 $$").await, "FAILED: killed by signal 9");
    }

    #[tokio::test]
    async fn the_last_lines_are_quoted_and_the_rest_is_read_and_dropped() {
        let told = check("seq 1 100000; exit 1").await;

        assert_eq!(told, "FAILED: exit code 1: 99998 | 99999 | 100000");
    }

    #[tokio::test]
    async fn a_command_sees_what_it_is_given_and_nothing_else() {
        let told = check("echo $CUTOVER_GATE; env | grep -c CARGO; exit 1").await;

        assert_eq!(told, "FAILED: exit code 1: smoke | 0");
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_does_not_hold_the_gate() {
        assert_eq!(
            check("sleep 600 & echo started").await,
            "PASSED: exit code 0: started"
        );
    }
}
