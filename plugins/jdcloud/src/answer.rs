//! What JD Cloud answers: the envelope with its request id, and errors as the host's failures.

use cutover_plugin_sdk::http::Response;
use cutover_plugin_sdk::{Failure, FailureClass, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a request does to the world, which decides what a broken answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// The code of a failure that says a target, or a group, is there already.
const EXISTS: &str = "jd.ALREADY_EXISTS";

/// Whether an answer leaves open what became of the request.
pub(crate) fn is_doubtful(failure: &Failure) -> bool {
    failure.class == FailureClass::UnknownOutcome || failure.code == EXISTS
}

/// Clocks that differ by more make signatures invalid.
const LARGEST_SKEW_MS: u64 = 5 * 60 * 1000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    request_id: Option<String>,
    result: Option<T>,
    error: Option<Problem>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

/// An empty result.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

/// Reads an answer. `what` is what was attempted, `now_ms` the host's clock.
pub(crate) fn read<T: DeserializeOwned>(
    what: &str,
    effect: Effect,
    response: &Response,
    now_ms: u64,
) -> Result<T, Failure> {
    let header_id = response.header("x-jdcloud-request-id").map(str::to_owned);
    let envelope: Envelope<serde_json::Value> = match serde_json::from_slice(&response.body) {
        Ok(envelope) => envelope,
        Err(_) if response.body.is_empty() && (200..300).contains(&response.status) => Envelope {
            request_id: None,
            result: None,
            error: None,
        },
        Err(_) => return Err(not_an_answer(what, effect, response, header_id.as_deref())),
    };
    let id = envelope.request_id.or(header_id);
    if let Some(problem) = envelope.error {
        return Err(refused(
            what,
            effect,
            response,
            &problem,
            id.as_deref(),
            now_ms,
        ));
    }
    if !(200..300).contains(&response.status) {
        return Err(not_an_answer(what, effect, response, id.as_deref()));
    }
    let result = envelope
        .result
        .unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
    serde_json::from_value(result).map_err(|error| {
        let message = format!(
            "{what}: the answer is not what JD Cloud documents ({error}; request id `{}`)",
            id.as_deref().unwrap_or("none")
        );
        match effect {
            Effect::Read => Failure::permanent("jd.answer", message),
            Effect::Write => Failure::unknown_outcome("jd.answer", message),
        }
    })
}

/// An answer of something in between, or of nothing that is known.
fn not_an_answer(what: &str, effect: Effect, response: &Response, id: Option<&str>) -> Failure {
    let status = response.status;
    let id = id.unwrap_or("none");
    let message = format!(
        "{what}: answered with status {status}, and not as JD Cloud does (request id `{id}`)"
    );
    let code = format!("jd.{status}");
    match (status, effect) {
        (429, _) => with_wait(Failure::throttled(code, message), response),
        (500.., Effect::Read) => Failure::transient(code, message),
        (500.., Effect::Write) => Failure::unknown_outcome(code, message),
        (200..300, Effect::Write) => Failure::unknown_outcome(code, message),
        _ => Failure::permanent(code, message).hint("check `endpoint`: is something in between?"),
    }
}

fn refused(
    what: &str,
    effect: Effect,
    response: &Response,
    problem: &Problem,
    id: Option<&str>,
    now_ms: u64,
) -> Failure {
    let http = match response.status {
        200..300 => u16::try_from(problem.code).unwrap_or(500),
        status => status,
    };
    let status = match problem.status.as_str() {
        "" => "error",
        status => status,
    };
    let class = class(http, status, effect);
    let message = format!(
        "{what}: JD Cloud answers {http} {status}: {} (request id `{}`)",
        problem.message.trim().trim_end_matches('.'),
        id.unwrap_or("none")
    );
    let mut failure = Failure::new(class, format!("jd.{status}"), message);
    if let Some(id) = id {
        failure = failure.attribute("jd.request-id", id);
    }
    if class == FailureClass::Throttled {
        failure = with_wait(failure, response);
    }
    match hint(http, status, &problem.message, response, now_ms) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn class(http: u16, status: &str, effect: Effect) -> FailureClass {
    match (http, status) {
        // The quota of something, which waiting does not raise.
        (_, "QUOTA_EXCEEDED") => FailureClass::Permanent,
        (429, _) | (_, "RATE_LIMIT") => FailureClass::Throttled,
        (401 | 403, _) => FailureClass::Denied,
        (404, _) => FailureClass::NotFound,
        (409, _) => FailureClass::Conflict,
        (501, _) => FailureClass::Unsupported,
        (400, "FAILED_PRECONDITION") => FailureClass::Permanent,
        (400, _) => FailureClass::Invalid,
        // The caller's end: nobody knows whether the request was taken before.
        (499 | 500.., _) => match effect {
            Effect::Read => FailureClass::Transient,
            Effect::Write => FailureClass::UnknownOutcome,
        },
        _ => FailureClass::Permanent,
    }
}

/// What the operator can do about it.
fn hint(
    http: u16,
    status: &str,
    message: &str,
    response: &Response,
    now_ms: u64,
) -> Option<String> {
    let words = message.to_ascii_lowercase();
    let says = |word: &str| words.contains(word);
    if matches!(http, 400 | 401 | 403) {
        if let Some(skew) = skew(response, now_ms) {
            return Some(skew);
        }
        if says("token") {
            return Some(
                "get new temporary credentials: replace `access_key` and the secrets `secret-key` and `session-token` together"
                    .to_owned(),
            );
        }
    }
    Some(
        match (http, status) {
            (_, "QUOTA_EXCEEDED") => {
                "delete what is not used (a load balancer has 20 target groups, a group 100 targets), or ask JD Cloud for more"
            }
            (_, "RATE_LIMIT") | (429, _) => {
                "lower `concurrency`, or see what else calls the API with this account"
            }
            (401, _) => {
                "compare `access_key` with the secret that the grant `secret-key` names, and `region` and `signature` with the endpoint"
            }
            (403, _) => {
                "allow the action on this resource in the sub-user's policy; plugins/jdcloud/README.md has the least that is needed"
            }
            (404, _) => "compare the id and `region` with the console of JD Cloud",
            (_, "FAILED_PRECONDITION") => "see in the console in which state the load balancer is",
            _ => return None,
        }
        .to_owned(),
    )
}

/// Both times, where they are too far apart for signatures.
fn skew(response: &Response, now_ms: u64) -> Option<String> {
    let date = response.header("date")?;
    let theirs = Time::parse(date)?;
    if theirs.unix_ms().abs_diff(now_ms) <= LARGEST_SKEW_MS {
        return None;
    }
    let ours = Time::from_unix_ms(now_ms).http_date();
    Some(format!(
        "set the clock: JD Cloud's says {date}, this machine's says {ours}, and signatures are good for a few minutes only"
    ))
}

fn with_wait(failure: Failure, response: &Response) -> Failure {
    match response.retry_after() {
        Some(wait) => failure.retry_after(wait),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-01-02T03:04:05Z.
    const NOW: u64 = 1_704_164_645_000;

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
        Response {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body: body.into(),
        }
    }

    fn error(code: u16, status: &str, message: &str) -> String {
        format!(
            r#"{{"requestId":"bm1","error":{{"code":{code},"status":"{status}","message":"{message}"}}}}"#
        )
    }

    #[track_caller]
    fn check(code: u16, status: &str, effect: Effect, class: FailureClass, hint: &str) {
        let response = response(code, &[], &error(code, status, "why not."));

        let failure = read::<Nothing>("register `i-1`", effect, &response, NOW).unwrap_err();

        assert_eq!(failure.class, class, "{failure:?}");
        assert_eq!(failure.code, format!("jd.{status}"));
        for part in ["register `i-1`", status, "why not", "`bm1`"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        let told = failure.hint.unwrap_or_default();
        assert!(told.contains(hint), "{told}");
    }

    #[test]
    fn errors_have_the_vendors_code_and_what_to_do() {
        use FailureClass::{
            Conflict, Denied, Invalid, NotFound, Permanent, Throttled, Transient, UnknownOutcome,
            Unsupported,
        };
        for effect in [Effect::Read, Effect::Write] {
            check(401, "UNAUTHENTICATED", effect, Denied, "`access_key`");
            check(403, "HTTP_FORBIDDEN", effect, Denied, "policy");
            check(404, "NOT_FOUND", effect, NotFound, "`region`");
            check(409, "ABORTED", effect, Conflict, "");
            check(429, "QUOTA_EXCEEDED", effect, Permanent, "delete");
            check(429, "RATE_LIMIT", effect, Throttled, "`concurrency`");
            check(400, "INVALID_ARGUMENT", effect, Invalid, "");
            check(400, "FAILED_PRECONDITION", effect, Permanent, "state");
            check(501, "NOT_IMPLEMENTED", effect, Unsupported, "");
        }
        for status in [499, 500, 502, 503] {
            check(status, "INTERNAL", Effect::Read, Transient, "");
            check(status, "INTERNAL", Effect::Write, UnknownOutcome, "");
        }
    }

    #[test]
    fn clocks_that_differ_are_told_with_both_times() {
        let body = error(401, "UNAUTHENTICATED", "the signature is invalid");
        let far = response(401, &[("date", "Tue, 02 Jan 2024 04:04:05 GMT")], &body);
        let near = response(401, &[("date", "Tue, 02 Jan 2024 03:04:00 GMT")], &body);

        let far = read::<Nothing>("x", Effect::Read, &far, NOW).unwrap_err();
        let near = read::<Nothing>("x", Effect::Read, &near, NOW).unwrap_err();

        let hint = far.hint.unwrap();
        assert!(hint.contains("Tue, 02 Jan 2024 04:04:05 GMT"), "{hint}");
        assert!(hint.contains("Tue, 02 Jan 2024 03:04:05 GMT"), "{hint}");
        assert!(near.hint.unwrap().contains("`access_key`"));
    }

    #[test]
    fn an_expired_token_is_to_be_replaced_with_its_key() {
        let body = error(401, "UNAUTHENTICATED", "the security token has expired");

        let failure =
            read::<Nothing>("x", Effect::Read, &response(401, &[], &body), NOW).unwrap_err();

        assert!(failure.hint.unwrap().contains("`session-token`"));
    }

    #[test]
    fn the_wait_that_is_asked_for_is_kept() {
        let body = error(429, "RATE_LIMIT", "slow down");
        let answer = response(429, &[("Retry-After", "3")], &body);

        let failure = read::<Nothing>("x", Effect::Write, &answer, NOW).unwrap_err();

        assert_eq!(failure.retry_after, Some(3000));
    }

    #[test]
    fn what_is_no_answer_of_jd_is_told_with_its_status() {
        for (status, effect, class) in [
            (502, Effect::Read, FailureClass::Transient),
            (502, Effect::Write, FailureClass::UnknownOutcome),
            (200, Effect::Write, FailureClass::UnknownOutcome),
            (200, Effect::Read, FailureClass::Permanent),
            (302, Effect::Write, FailureClass::Permanent),
        ] {
            let answer = response(status, &[], "<html>");
            let failure = read::<Nothing>("x", effect, &answer, NOW).unwrap_err();
            assert_eq!(failure.class, class, "{status} {effect:?}");
        }
    }

    #[test]
    fn an_empty_body_and_an_empty_result_are_nothing() {
        for body in [
            "",
            r#"{"requestId":"a"}"#,
            r#"{"requestId":"a","result":{}}"#,
        ] {
            assert!(
                read::<Nothing>("x", Effect::Write, &response(200, &[], body), NOW).is_ok(),
                "{body}"
            );
        }
    }
}
