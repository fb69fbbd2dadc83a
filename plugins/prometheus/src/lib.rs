//! A gate that asks a Prometheus server an instant query and holds its numbers against thresholds.

mod answer;
mod config;
mod threshold;

use cutover_plugin_sdk::http::{self, Request, Response};
use cutover_plugin_sdk::{
    Diagnostic, Evidence, Failure, Gate, GateInput, OpContext, Pending, Plugin, Verdict, export,
    warn,
};

use crate::answer::{Answer, Problem, Series};
use crate::config::{Config, Wanted};

struct Prometheus;

impl Plugin for Prometheus {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl Gate for Prometheus {
    fn evaluate(ctx: &OpContext, input: &GateInput) -> Result<Verdict, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        // A dry run wants to know whether the server can be asked, for which no data is needed.
        if !(config.wait.is_zero() || ctx.dry_run) {
            let waiting = Pending::new(WAITED, config.wait, "gathering data");
            return Ok(Verdict::Pending(waiting));
        }
        ask(&config, input)
    }

    fn poll(_ctx: &OpContext, input: &GateInput, token: &str) -> Result<Verdict, Failure> {
        if token != WAITED {
            let message = format!("`{token}` is no token of this gate");
            return Err(Failure::invalid("prometheus.token", message));
        }
        ask(&cutover_plugin_sdk::config()?, input)
    }
}

export!(Prometheus: Gate);

/// The token of the only wait that there is.
const WAITED: &str = "waited";

fn ask(config: &Config, input: &GateInput) -> Result<Verdict, Failure> {
    let (request, query) = request(config, input)?;
    read(config, &query, &http::send(&request)?)
}

/// The request, and the query that it asks.
fn request(config: &Config, input: &GateInput) -> Result<(Request, String), Failure> {
    let query = input.fill(&config.query, escape)?;
    let url = format!(
        "{}/api/v1/query?query={}",
        config.url.trim_end_matches('/'),
        http::percent_encode(&query)
    );
    let mut request = Request::get(url)
        .header("accept", "application/json")
        .timeout(config.timeout);
    for (name, value) in &config.headers {
        request = request.header(name, input.fill(value, str::to_owned)?);
    }
    Ok((request, query))
}

/// Makes a value fit between the quotes of a label's value.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\'', "\\'")
        .replace('\n', "\\n")
}

/// What an answer says. The status of HTTP says less than the body, which is there for errors as well.
fn read(config: &Config, query: &str, response: &Response) -> Result<Verdict, Failure> {
    let Ok(answer) = serde_json::from_slice::<Answer>(&response.body) else {
        let status = response.status;
        let message = format!(
            "`{}` answered with status {status}, and not as Prometheus does",
            config.url
        );
        return match status {
            401 | 403 => Err(Failure::denied("prometheus.denied", message).hint(
                "put credentials into `headers`: {Authorization: \"Bearer {{secret:NAME}}\"}",
            )),
            429 => Err(Failure::throttled("prometheus.throttled", message)),
            500.. => Err(Failure::transient("prometheus.status", message)),
            _ => Err(Failure::invalid("prometheus.status", message)
                .hint("check `url`: behind it comes `/api/v1/query`")),
        };
    };
    for warning in &answer.warnings {
        warn!("the server warns: {warning}");
    }
    match answer.series() {
        Ok(series) => Ok(verdict(config, query, series)),
        Err(Problem::Query(why)) => {
            let message = format!("query `{query}` cannot be used: {why}");
            Err(Failure::invalid("prometheus.query", message))
        }
        Err(Problem::Failed(why)) => Ok(Verdict::Inconclusive(format!(
            "query `{query}` failed: {why}"
        ))),
    }
}

/// On which side a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Pass,
    Fail,
    Between,
}

fn side(config: &Config, value: f64) -> Side {
    let holds = |threshold: Option<threshold::Threshold>| threshold.is_some_and(|t| t.holds(value));
    match (config.pass, config.fail) {
        _ if value.is_nan() => Side::Between,
        _ if holds(config.fail) => Side::Fail,
        _ if holds(config.pass) => Side::Pass,
        // With one threshold alone, what is not on its side is on the other.
        (Some(_), None) => Side::Fail,
        (None, Some(_)) => Side::Pass,
        _ => Side::Between,
    }
}

fn verdict(config: &Config, query: &str, series: Vec<Series>) -> Verdict {
    let sides: Vec<Side> = series.iter().map(|one| side(config, one.value)).collect();
    let (all, any) = (
        |wanted| sides.iter().all(|side| *side == wanted),
        |wanted| sides.contains(&wanted),
    );
    let is = match config.series {
        _ if sides.is_empty() => Side::Between,
        Wanted::All if any(Side::Fail) => Side::Fail,
        Wanted::All if all(Side::Pass) => Side::Pass,
        Wanted::Any if any(Side::Pass) => Side::Pass,
        Wanted::Any if all(Side::Fail) => Side::Fail,
        _ => Side::Between,
    };
    let evidence = || {
        let shown = series.iter().zip(&sides);
        shown
            .map(|(one, side)| {
                let name = if one.labels.is_empty() {
                    query
                } else {
                    &one.labels
                };
                Evidence::new(name, &one.text, *side == Side::Pass).against(thresholds(config))
            })
            .collect()
    };
    match is {
        Side::Pass => Verdict::Pass(evidence()),
        Side::Fail => Verdict::Fail(evidence()),
        Side::Between if series.is_empty() => {
            Verdict::Inconclusive(format!("query `{query}` has no data"))
        }
        Side::Between => {
            let undecided = series.iter().zip(&sides);
            let undecided = undecided
                .filter(|(_, side)| **side == Side::Between)
                .map(|(one, _)| one.text.as_str());
            let undecided: Vec<_> = undecided.take(5).collect();
            Verdict::Inconclusive(format!(
                "query `{query}` gives {}, which neither passes nor fails ({})",
                undecided.join(", "),
                thresholds(config)
            ))
        }
    }
}

fn thresholds(config: &Config) -> String {
    let pass = config.pass.map(|threshold| format!("pass {threshold}"));
    let fail = config.fail.map(|threshold| format!("fail {threshold}"));
    pass.into_iter().chain(fail).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::{FailureClass, parse_config};

    use super::*;

    const BOTH: &str =
        r#"{"url": "http://p:9090/", "query": "errors", "pass": "< 0.01", "fail": "> 0.05"}"#;

    fn config(text: &str) -> Config {
        parse_config(text).unwrap()
    }

    fn series(values: &[f64]) -> Vec<Series> {
        values
            .iter()
            .map(|value| Series {
                labels: String::new(),
                value: *value,
                text: value.to_string(),
            })
            .collect()
    }

    #[track_caller]
    fn check(config_text: &str, values: &[f64], expected: &str) {
        let found = match verdict(&config(config_text), "errors", series(values)) {
            Verdict::Pass(_) => "pass".to_owned(),
            Verdict::Fail(_) => "fail".to_owned(),
            Verdict::Inconclusive(why) => why,
            Verdict::Pending(_) => "pending".to_owned(),
        };
        assert_eq!(found, expected, "{values:?}");
    }

    #[test]
    fn between_the_thresholds_nothing_is_known() {
        check(BOTH, &[0.001], "pass");
        check(BOTH, &[0.06], "fail");
        check(
            BOTH,
            &[0.02],
            "query `errors` gives 0.02, which neither passes nor fails (pass < 0.01, fail > 0.05)",
        );
        check(
            BOTH,
            &[f64::NAN],
            "query `errors` gives NaN, which neither passes nor fails (pass < 0.01, fail > 0.05)",
        );
        check(BOTH, &[], "query `errors` has no data");
    }

    #[test]
    fn one_threshold_alone_has_two_sides_and_no_number_is_on_neither() {
        let pass = r#"{"url": "http://p", "query": "errors", "pass": "< 1"}"#;
        check(pass, &[0.5], "pass");
        check(pass, &[1.0], "fail");
        check(
            pass,
            &[f64::NAN],
            "query `errors` gives NaN, which neither passes nor fails (pass < 1)",
        );
        check(
            r#"{"url": "http://p", "query": "errors", "fail": "> 1"}"#,
            &[1.0],
            "pass",
        );
    }

    #[test]
    fn of_several_series_all_or_any_have_to_pass() {
        let undecided =
            "query `errors` gives 0.02, which neither passes nor fails (pass < 0.01, fail > 0.05)";
        check(BOTH, &[0.0, 0.001], "pass");
        check(BOTH, &[0.0, 0.02], undecided);
        check(BOTH, &[0.0, 0.02, 0.06], "fail");
        let any = BOTH.replace("\"pass\"", "\"series\": \"any\", \"pass\"");
        check(&any, &[0.06, 0.0], "pass");
        check(&any, &[0.06, 0.07], "fail");
        check(&any, &[0.06, 0.02], undecided);
        check(&any, &[], "query `errors` has no data");
    }

    fn input(version: &str) -> GateInput {
        GateInput {
            group: "shop/web".to_owned(),
            release_id: "r".to_owned(),
            deployment_id: "r-1".to_owned(),
            version: version.to_owned(),
            batch: 1,
            of_batches: 2,
            targets: Vec::new(),
            since: 0,
            parameters: "{}".to_owned(),
        }
    }

    #[test]
    fn what_is_known_is_filled_into_the_query_and_cannot_leave_its_quotes() {
        let text =
            r#"{"url": "http://p:9090/prom/", "query": "e{v=\"{{version}}\"}", "pass": "< 1"}"#;

        let (request, query) = request(&config(text), &input("1\"} or up{x=\"")).unwrap();

        assert_eq!(query, r#"e{v="1\"} or up{x=\""}"#);
        assert!(
            request
                .url
                .starts_with("http://p:9090/prom/api/v1/query?query=e%7Bv%3D%221"),
            "{}",
            request.url
        );
    }

    #[test]
    fn what_is_no_answer_of_prometheus_is_a_failure_with_what_to_do() {
        for (status, body, class) in [
            (404, "<html>", FailureClass::Invalid),
            (401, "", FailureClass::Denied),
            (429, "", FailureClass::Throttled),
            (503, "Service Unavailable", FailureClass::Transient),
            (200, "{}", FailureClass::Invalid),
        ] {
            let response = Response {
                status,
                body: body.into(),
                ..Response::default()
            };
            let failure = read(&config(BOTH), "errors", &response).unwrap_err();
            assert_eq!(failure.class, class, "{status}");
        }
    }

    #[test]
    fn a_wrong_query_is_invalid_and_a_query_that_timed_out_is_inconclusive() {
        let answer = |kind: &str| Response {
            status: 400,
            body: format!(r#"{{"status":"error","errorType":"{kind}","error":"why"}}"#).into(),
            ..Response::default()
        };

        let wrong = read(&config(BOTH), "errors", &answer("bad_data")).unwrap_err();
        let late = read(&config(BOTH), "errors", &answer("timeout")).unwrap();

        assert_eq!(wrong.message, "query `errors` cannot be used: why");
        assert_eq!(
            late,
            Verdict::Inconclusive("query `errors` failed: timeout: why".to_owned())
        );
    }
}
