//! A gate that asks a web server, or every instance that has the version, and holds the answer against what is expected.
//!
//! One call makes one attempt. What an attempt needs to know of the ones before it is in the token.

mod config;
mod expected;

use cutover_plugin_sdk::http::{self, Request, Response};
use cutover_plugin_sdk::{
    Diagnostic, Evidence, Failure, FailureClass, Gate, GateInput, OpContext, Pending, Plugin,
    Verdict, export,
};
use serde::{Deserialize, Serialize};

use crate::config::{ADDRESS, Config};

struct HttpCheck;

impl Plugin for HttpCheck {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl Gate for HttpCheck {
    fn evaluate(_ctx: &OpContext, input: &GateInput) -> Result<Verdict, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        attempt(&config, input, Progress::default(), http::send)
    }

    fn poll(_ctx: &OpContext, input: &GateInput, token: &str) -> Result<Verdict, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let progress = serde_json::from_str(token).map_err(|_| {
            Failure::invalid(
                "http-check.token",
                format!("`{token}` is no token of this gate"),
            )
        })?;
        attempt(&config, input, progress, http::send)
    }
}

export!(HttpCheck: Gate);

/// What came of the attempts so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    made: u32,
    in_a_row: u32,
}

fn attempt(
    config: &Config,
    input: &GateInput,
    before: Progress,
    send: impl Fn(&Request) -> Result<Response, Failure>,
) -> Result<Verdict, Failure> {
    let requests = requests(config, input)?;
    if requests.is_empty() {
        return Ok(Verdict::Inconclusive(
            "no instance has the version yet".to_owned(),
        ));
    }
    let mut evidence = Vec::with_capacity(requests.len());
    for request in &requests {
        let found = judge(config, request, send(request))?;
        let passed = found.passed;
        evidence.push(found);
        if !passed {
            break;
        }
    }
    let is_right = evidence.iter().all(|found| found.passed);
    let progress = Progress {
        made: before.made.saturating_add(1),
        in_a_row: if is_right {
            before.in_a_row.saturating_add(1)
        } else {
            0
        },
    };
    Ok(verdict(config, progress, evidence))
}

fn verdict(config: &Config, progress: Progress, mut evidence: Vec<Evidence>) -> Verdict {
    let missing = config.successes.saturating_sub(progress.in_a_row);
    if missing == 0 {
        return Verdict::Pass(evidence);
    }
    let left = config.attempts().saturating_sub(progress.made);
    if left < missing {
        let in_a_row = format!("{} in {} attempts", progress.in_a_row, progress.made);
        let in_a_row = Evidence::new("right answers in a row", in_a_row, false);
        evidence.push(in_a_row.against(format!(
            "{} in {} attempts",
            config.successes,
            config.attempts()
        )));
        return Verdict::Fail(evidence);
    }
    let last = evidence.iter().find(|found| !found.passed);
    let message = match last {
        Some(found) => format!("{}: {}", found.name, found.value),
        None => format!("{} of {} in a row", progress.in_a_row, config.successes),
    };
    let token = serde_json::json!({"made": progress.made, "in_a_row": progress.in_a_row});
    Verdict::Pending(Pending::new(token.to_string(), config.interval, message))
}

/// What is to be asked, one request for each instance where the URL has a place for its address.
fn requests(config: &Config, input: &GateInput) -> Result<Vec<Request>, Failure> {
    let request = |template: &str| {
        let url = input.fill(template, http::percent_encode)?;
        let mut request = Request::new(config.method.as_str(), url).timeout(config.timeout);
        for (name, value) in &config.headers {
            request = request.header(name, input.fill(value, str::to_owned)?);
        }
        Ok(request)
    };
    if !config.is_per_target() {
        return Ok(vec![request(&config.url)?]);
    }
    input
        .targets
        .iter()
        .map(|target| match &target.address {
            Some(address) => request(&config.url.replace(ADDRESS, address)),
            None => Err(Failure::invalid(
                "http-check.address",
                format!(
                    "instance `{}` has no address to put into the URL",
                    target.id
                ),
            )
            .hint("give it `address: HOST:PORT`, or name a host in `url`")),
        })
        .collect()
}

/// What one answer, or none, says.
fn judge(
    config: &Config,
    request: &Request,
    answer: Result<Response, Failure>,
) -> Result<Evidence, Failure> {
    let shown = request.url.split('?').next().unwrap_or_default();
    let name = format!("{} {shown}", request.method);
    let threshold = format!("{}{}", config.status, config.body);
    let (value, passed) = match answer {
        Ok(response) if !config.status.includes(response.status) => {
            (format!("status {}", response.status), false)
        }
        Ok(response) => match config.body.mismatch(&response.body) {
            Some(mismatch) => (format!("status {}, but {mismatch}", response.status), false),
            None => (format!("status {}", response.status), true),
        },
        // No answer is an answer about the service. That the check itself may not or cannot be made is not.
        Err(failure)
            if matches!(
                failure.class,
                FailureClass::Transient
                    | FailureClass::Throttled
                    | FailureClass::UnknownOutcome
                    | FailureClass::Permanent
            ) =>
        {
            (failure.message, false)
        }
        Err(failure) => return Err(failure),
    };
    Ok(Evidence::new(name, value, passed).against(threshold))
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::{GateTarget, parse_config};

    use super::*;

    fn input() -> GateInput {
        let target = |id: &str, address: &str| GateTarget {
            id: id.to_owned(),
            address: Some(address.to_owned()),
        };
        GateInput {
            group: "shop/web".to_owned(),
            release_id: "r".to_owned(),
            deployment_id: "r-1".to_owned(),
            version: "1.2.0".to_owned(),
            batch: 1,
            of_batches: 2,
            targets: vec![
                target("web-1", "10.0.0.1:80"),
                target("web-2", "10.0.0.2:80"),
            ],
            since: 0,
            parameters: "{}".to_owned(),
        }
    }

    fn answer(status: u16) -> Result<Response, Failure> {
        Ok(Response {
            status,
            ..Response::default()
        })
    }

    /// Makes attempts with one answer after another until there is a verdict, and says how many it took.
    fn run(config: &str, answers: &[u16]) -> (usize, Verdict) {
        let config: Config = parse_config(config).unwrap();
        let mut progress = Progress::default();
        for (i, status) in answers.iter().enumerate() {
            match attempt(&config, &input(), progress, |_| answer(*status)).unwrap() {
                Verdict::Pending(pending) => {
                    progress = serde_json::from_str(&pending.token).unwrap();
                }
                verdict => return (i + 1, verdict),
            }
        }
        panic!("no verdict after {progress:?}")
    }

    #[test]
    fn one_right_answer_passes_and_one_wrong_answer_fails() {
        let config = r#"{"url": "http://x/health"}"#;

        assert!(matches!(run(config, &[200]), (1, Verdict::Pass(_))));
        let (1, Verdict::Fail(evidence)) = run(config, &[503]) else {
            panic!("no failure")
        };
        assert_eq!(evidence[0].name, "GET http://x/health");
        assert_eq!(evidence[0].value, "status 503");
        assert_eq!(evidence[0].threshold.as_deref(), Some("200-299"));
    }

    #[test]
    fn answers_have_to_be_right_in_a_row() {
        let config = r#"{"url": "http://x", "successes": 2, "attempts": 5}"#;

        assert!(matches!(run(config, &[200, 200]), (2, Verdict::Pass(_))));
        assert!(matches!(
            run(config, &[200, 500, 200, 200]),
            (4, Verdict::Pass(_))
        ));
        // After four attempts without two in a row, the fifth cannot bring them.
        let (4, Verdict::Fail(evidence)) = run(config, &[200, 500, 200, 500]) else {
            panic!("no failure")
        };
        assert_eq!(evidence.last().unwrap().value, "0 in 4 attempts");
    }

    #[test]
    fn every_instance_is_asked_and_what_is_known_is_filled_in() {
        let text = r#"{"url": "http://{{address}}/{{group}}?v={{version}}",
            "headers": {"x-version": "{{version}}", "authorization": "Bearer {{secret:token}}"}}"#;
        let config: Config = parse_config(text).unwrap();

        let requests = requests(&config, &input()).unwrap();

        let urls: Vec<_> = requests.iter().map(|r| r.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "http://10.0.0.1:80/shop%2Fweb?v=1.2.0",
                "http://10.0.0.2:80/shop%2Fweb?v=1.2.0"
            ]
        );
        assert_eq!(requests[0].headers[0].1, "Bearer {{secret:token}}");
        assert_eq!(requests[0].headers[1].1, "1.2.0");
        let found = judge(&config, &requests[0], answer(200)).unwrap();
        assert!(!found.name.contains('?'), "{found:?}");
    }

    #[test]
    fn no_instance_is_no_proof() {
        let config: Config = parse_config(r#"{"url": "http://{{address}}/"}"#).unwrap();
        let input = GateInput {
            targets: Vec::new(),
            ..input()
        };

        let verdict = attempt(&config, &input, Progress::default(), |_| answer(200)).unwrap();

        assert!(matches!(verdict, Verdict::Inconclusive(_)), "{verdict:?}");
    }

    #[test]
    fn an_instance_without_an_address_is_named() {
        let config: Config = parse_config(r#"{"url": "http://{{address}}/"}"#).unwrap();
        let mut input = input();
        input.targets[1].address = None;

        let failure = requests(&config, &input).unwrap_err();

        assert_eq!(
            failure.message,
            "instance `web-2` has no address to put into the URL"
        );
    }

    #[test]
    fn a_server_that_is_down_fails_the_check_and_a_denial_is_a_failure() {
        let config: Config = parse_config(r#"{"url": "http://x"}"#).unwrap();
        let with = |failure: fn() -> Failure| {
            attempt(&config, &input(), Progress::default(), |_| Err(failure()))
        };

        let down = with(|| Failure::transient("host.io", "nobody there")).unwrap();
        let denied = with(|| Failure::denied("host.denied", "not granted"));

        assert!(matches!(down, Verdict::Fail(_)), "{down:?}");
        assert_eq!(denied.unwrap_err().class, FailureClass::Denied);
    }
}
