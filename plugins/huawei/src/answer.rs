//! What the vendor's refusals mean: the class that says what the host does, and what a person does about it.

use std::time::Duration;

use cutover_plugin_sdk::http::Response;
use cutover_plugin_sdk::{Failure, FailureClass, Time};
use serde_json::Value;

/// Whether a request changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// Who asked, for hints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) access_key: &'a str,
    pub(crate) secret_key: &'a str,
    pub(crate) now: Time,
}

/// The vendor's words for a refusal. Its services and its gateway use several envelopes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    code: Option<String>,
    message: String,
    request_id: Option<String>,
}

impl Words {
    fn of(response: &Response) -> Self {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let places = [&body, &body["error"]];
        let text = |names: &[&str]| {
            let mut found = places
                .iter()
                .flat_map(|place| names.iter().filter_map(|name| place[*name].as_str()));
            found.next().map(|text| one_line(text, 400))
        };
        Self {
            code: text(&["error_code", "errorCode", "code"]),
            message: text(&["error_msg", "errorMsg", "message"])
                .unwrap_or_else(|| one_line(&response.text(), 200)),
            request_id: text(&["request_id", "requestId"])
                .or_else(|| response.header("X-Request-Id").map(|id| one_line(id, 80))),
        }
    }
}

fn one_line(text: &str, longest: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(longest).collect()
}

/// The id by which the vendor finds a request again.
pub(crate) fn request_id(response: &Response) -> String {
    Words::of(response).request_id.unwrap_or_default()
}

/// The vendor's time of an answer.
pub(crate) fn time(response: &Response) -> Option<Time> {
    Time::parse(response.header("Date")?)
}

/// The failure that a refusal is. `what` says what was attempted.
pub(crate) fn refused(
    what: &str,
    effect: Effect,
    asker: Asker<'_>,
    response: &Response,
) -> Failure {
    let words = Words::of(response);
    let (class, hint) = meaning(effect, asker, response, &words);
    let code = words
        .code
        .clone()
        .unwrap_or_else(|| format!("HTTP-{}", response.status));
    let said = match words.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let request = match &words.request_id {
        Some(id) => format!("request {id}"),
        None => "without a request id".to_owned(),
    };
    let status = response.status;
    let message = format!("{what}: Huawei Cloud answered {status} {code}{said} ({request})");
    let mut failure = Failure::new(class, format!("huawei.{code}"), message)
        .attribute("huawei.status", status.to_string());
    if let Some(id) = words.request_id {
        failure = failure.attribute("huawei.request-id", id);
    }
    if let Some(hint) = hint {
        failure = failure.hint(hint);
    }
    if class == FailureClass::Throttled
        && let Some(wait) = retry_after(response, asker.now)
    {
        failure = failure.retry_after(wait);
    }
    failure
}

fn meaning(
    effect: Effect,
    asker: Asker<'_>,
    response: &Response,
    words: &Words,
) -> (FailureClass, Option<String>) {
    let code = words.code.as_deref().unwrap_or_default();
    let says = |part: &str| words.message.to_ascii_lowercase().contains(part);
    let hint = |text: &str| Some(text.to_owned());
    match response.status {
        _ if response.status == 429 || code == "APIGW.0308" || code == "APIG.0308" => (
            FailureClass::Throttled,
            hint(
                "the account sends more requests than the vendor takes: lower `concurrency`, or have the limit raised",
            ),
        ),
        401 => (
            FailureClass::Denied,
            Some(unauthenticated(asker, response, words)),
        ),
        400 | 403 | 409 if says("quota") => (
            FailureClass::Permanent,
            hint(
                "the quota is used up: remove members that nobody needs, or have the quota of Elastic Load Balance raised",
            ),
        ),
        403 => (
            FailureClass::Denied,
            hint(
                "give the user of the access key the policy of the plugin's README, for this project",
            ),
        ),
        404 if code.starts_with("APIG") => (
            FailureClass::NotFound,
            hint("the endpoint has no such API: check `region` and `endpoint`"),
        ),
        404 => (
            FailureClass::NotFound,
            hint(
                "check the id, `region` and `project_id`: an id of another region or project is unknown here",
            ),
        ),
        409 => (
            FailureClass::Conflict,
            hint(
                "look in the console what else changes this load balancer, and try again when it has ended",
            ),
        ),
        408 | 425 if effect == Effect::Reads => (FailureClass::Transient, None),
        400..=499 if response.status != 408 => (FailureClass::Invalid, None),
        // It may have been taken.
        _ if effect == Effect::Writes => (FailureClass::UnknownOutcome, None),
        500.. => (FailureClass::Transient, None),
        _ => (
            FailureClass::Permanent,
            hint("what answers there is not Elastic Load Balance: check `endpoint`"),
        ),
    }
}

/// Why nobody believes who asks. None of it is tried again: after five wrong signatures the vendor locks the key.
fn unauthenticated(asker: Asker<'_>, response: &Response, words: &Words) -> String {
    let says = |part: &str| words.message.to_ascii_lowercase().contains(part);
    let Asker {
        access_key,
        secret_key,
        now,
    } = asker;
    if says("signature expired") || says("signature time") {
        let theirs = time(response).map_or("another time".to_owned(), |time| time.to_string());
        return format!(
            "this machine's clock says {now}, the vendor's {theirs}: set the clock, they may be 15 minutes apart"
        );
    }
    if says("token") {
        return "the session token has expired or is not one of this access key: get new temporary credentials, and put all three parts in place".to_owned();
    }
    if says("not exist") {
        return format!("there is no access key `{access_key}`: check `access_key`");
    }
    if says("reach the limit") {
        return format!(
            "access key `{access_key}` is locked for five minutes after five wrong signatures: correct the secret `{secret_key}`, and wait"
        );
    }
    format!(
        "check that the granted secret `{secret_key}` is the secret of access key `{access_key}`, without a line break at its end; after five wrong signatures the vendor locks the key for five minutes"
    )
}

/// The vendor's wait, which is in seconds or a date.
fn retry_after(response: &Response, now: Time) -> Option<Duration> {
    if let Some(wait) = response.retry_after() {
        return Some(wait);
    }
    let since = time(response).unwrap_or(now).unix_ms();
    let until = Time::parse(response.header("Retry-After")?)?.unix_ms();
    Some(Duration::from_millis(until.saturating_sub(since)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: vec![("Date".to_owned(), b"Tue, 02 Jan 2024 03:24:05 GMT".to_vec())],
            body: body.as_bytes().to_vec(),
        }
    }

    fn failure(effect: Effect, response: &Response) -> Failure {
        let asker = Asker {
            access_key: "AKEXAMPLE",
            secret_key: "secret-key",
            now: Time::parse("20240102T030405Z").unwrap(),
        };
        refused("read pool `p`", effect, asker, response)
    }

    #[track_caller]
    fn check(
        status: u16,
        code: &str,
        message: &str,
        effect: Effect,
        class: FailureClass,
        hint: &str,
    ) {
        let body =
            serde_json::json!({"error_code": code, "error_msg": message, "request_id": "r1"});

        let failure = failure(effect, &response(status, &body.to_string()));

        assert_eq!(failure.class, class, "{status} {code} {message}");
        assert_eq!(failure.code, format!("huawei.{code}"));
        let said =
            format!("read pool `p`: Huawei Cloud answered {status} {code}: {message} (request r1)");
        assert_eq!(failure.message, said);
        assert!(
            failure.hint.as_deref().unwrap_or_default().contains(hint),
            "{failure:?}"
        );
    }

    #[test]
    fn each_refusal_has_its_class_and_what_to_do() {
        use Effect::{Reads, Writes};
        use FailureClass::{
            Conflict, Denied, Invalid, NotFound, Permanent, Throttled, Transient, UnknownOutcome,
        };
        let iam = |what: &str| format!("Incorrect IAM authentication information: {what}");
        let wrong = iam("verify aksk signature fail");
        let skewed = iam(
            "calc aksk signature fail:signature expired, signature time:20240102T030405Z,server time:20240102T032405Z",
        );
        check(
            401,
            "APIGW.0301",
            &wrong,
            Reads,
            Denied,
            "`secret-key` is the secret of access key `AKEXAMPLE`",
        );
        check(
            401,
            "APIGW.0301",
            &skewed,
            Writes,
            Denied,
            "clock says 2024-01-02T03:04:05Z, the vendor's 2024-01-02T03:24:05Z",
        );
        check(
            401,
            "APIGW.0301",
            &iam("token expires, expires_at: x"),
            Reads,
            Denied,
            "new temporary credentials",
        );
        check(
            401,
            "APIGW.0301",
            &iam("ak AKEXAMPLE not exist"),
            Reads,
            Denied,
            "check `access_key`",
        );
        check(
            401,
            "APIGW.0301",
            &iam("AK access failed to reach the limit,forbidden"),
            Reads,
            Denied,
            "locked for five minutes",
        );
        check(
            403,
            "ELB.8101",
            "Policy doesn't allow elb:members:create to be performed.",
            Writes,
            Denied,
            "the policy of the plugin's README",
        );
        check(
            403,
            "ELB.8101",
            "Quota exceeded for resources: ['member'].",
            Writes,
            Permanent,
            "quota",
        );
        check(
            404,
            "ELB.8904",
            "pool p could not be found.",
            Reads,
            NotFound,
            "`project_id`",
        );
        check(
            404,
            "APIGW.0101",
            "The API does not exist",
            Reads,
            NotFound,
            "`endpoint`",
        );
        check(
            409,
            "ELB.8907",
            "already has a member",
            Writes,
            Conflict,
            "console",
        );
        check(
            409,
            "ELB.8905",
            "quota of members exceeded",
            Writes,
            Permanent,
            "quota",
        );
        check(400, "ELB.8902", "weight is invalid", Writes, Invalid, "");
        check(
            429,
            "APIGW.0308",
            "The throttling threshold has been reached",
            Writes,
            Throttled,
            "concurrency",
        );
        check(500, "ELB.8901", "internal error", Reads, Transient, "");
        check(
            503,
            "ELB.8901",
            "internal error",
            Writes,
            UnknownOutcome,
            "",
        );
        check(302, "x", "y", Reads, Permanent, "`endpoint`");
    }

    #[test]
    fn every_envelope_of_the_vendor_is_understood() {
        let read = |body: &str| {
            let words = Words::of(&response(400, body));
            (
                words.code.unwrap_or_default(),
                words.message,
                words.request_id.unwrap_or_default(),
            )
        };
        let expected = |code: &str, message: &str, id: &str| {
            (code.to_owned(), message.to_owned(), id.to_owned())
        };

        assert_eq!(
            read(r#"{"error_code":"A","error_msg":"b","request_id":"c"}"#),
            expected("A", "b", "c")
        );
        assert_eq!(
            read(r#"{"errorCode":"A","message":"b"}"#),
            expected("A", "b", "")
        );
        assert_eq!(
            read(r#"{"error":{"code":"A","message":"b"},"request_id":"c"}"#),
            expected("A", "b", "c")
        );
        assert_eq!(
            read("<html>\n<b>gone</b></html>"),
            expected("", "<html> <b>gone</b></html>", "")
        );
        let headed = Response {
            headers: vec![("x-request-id".to_owned(), b"h1".to_vec())],
            ..response(502, "")
        };
        let failure = failure(Effect::Reads, &headed);
        assert_eq!(
            failure.message,
            "read pool `p`: Huawei Cloud answered 502 HTTP-502 (request h1)"
        );
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let wait = |value: &str| {
            let mut response = response(429, "{}");
            response
                .headers
                .push(("Retry-After".to_owned(), value.as_bytes().to_vec()));
            failure(Effect::Reads, &response).retry_after
        };

        assert_eq!(wait("7"), Some(7000));
        assert_eq!(wait("Tue, 02 Jan 2024 03:24:15 GMT"), Some(10_000));
        assert_eq!(wait("soon"), None);
    }
}
