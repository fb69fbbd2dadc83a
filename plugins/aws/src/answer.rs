//! What an answer says, and above all what went wrong: each failure has the code and the request id of AWS, a class that
//! says what the host does about it, and what a person can do.

use std::time::Duration;

use cutover_plugin_sdk::http::Response;
use cutover_plugin_sdk::{Failure, FailureClass};

use crate::query::{Effect, Query};
use crate::xml::Element;

/// How long to wait where AWS throttles without saying how long.
const THROTTLED: Duration = Duration::from_secs(1);

/// An answer, and the time that the request was signed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) signed_at: Option<String>,
}

/// The document of an answer that succeeded.
pub(crate) fn read(query: &Query, answer: &Answer) -> Result<Element, Failure> {
    let Response { status, .. } = answer.response;
    let document = Element::parse(&answer.response.text());
    if (200..300).contains(&status) {
        return document.map_err(|failure| unreadable(query, failure));
    }
    let said = document.ok().and_then(|document| Refusal::of(&document));
    let request_id = said
        .as_ref()
        .and_then(|said| said.request_id.clone())
        .or_else(|| {
            answer
                .response
                .header("x-amzn-requestid")
                .map(str::to_owned)
        });
    let failure = match &said {
        Some(said) => said.failure(query, answer),
        None => foreign(query, status),
    };
    let failure = match request_id {
        Some(id) => Failure {
            message: format!("{} (request id `{id}`)", failure.message),
            ..failure
        }
        .attribute("aws.request-id", id),
        None => failure,
    };
    Err(match failure.class {
        FailureClass::Throttled => {
            let wait = answer.response.retry_after().unwrap_or(THROTTLED);
            failure.retry_after(wait)
        }
        _ => failure,
    })
}

/// A request that was not answered. The host takes each request of a call that changes something for one that may have had
/// an effect; what only reads had none.
pub(crate) fn unanswered(query: &Query, failure: Failure) -> Failure {
    let class = match (failure.class, query.effect) {
        (FailureClass::UnknownOutcome, Effect::Reads) => FailureClass::Transient,
        (class, _) => class,
    };
    Failure {
        class,
        ..failure.about(format!("no answer to `{}`", query.action))
    }
}

/// An answer that says that all is well, in words of somebody else.
fn unreadable(query: &Query, failure: Failure) -> Failure {
    let message = format!("`{}`: {}", query.action, failure.message);
    let failure = match query.effect {
        Effect::Reads => Failure { message, ..failure },
        Effect::Changes => Failure::unknown_outcome(failure.code, message),
    };
    failure.hint("check `endpoint`: something else than Elastic Load Balancing answers there")
}

/// An error that is not said in the words of AWS: that of a proxy, for one.
fn foreign(query: &Query, status: u16) -> Failure {
    let code = format!("aws.status-{status}");
    let message = format!(
        "`{}` was answered with status {status}, and not as AWS does",
        query.action
    );
    match status {
        429 => Failure::throttled(code, message),
        401 | 403 | 407 => Failure::denied(code, message)
            .hint("something between here and AWS wants credentials: check the proxy"),
        409 => Failure::conflict(code, message),
        408 | 500.. => interrupted(query, code, message),
        _ => Failure::invalid(code, message)
            .hint("check `endpoint`: something else than Elastic Load Balancing answers there"),
    }
}

/// A failure on the way or at the provider's.
fn interrupted(query: &Query, code: String, message: String) -> Failure {
    match query.effect {
        Effect::Reads => Failure::transient(code, message),
        Effect::Changes => Failure::unknown_outcome(code, message),
    }
}

/// `ErrorResponse`.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: String,
    message: String,
    request_id: Option<String>,
}

impl Refusal {
    /// The error of a document. Services differ in what they wrap it in.
    fn of(document: &Element) -> Option<Self> {
        let error = ["Error", "Errors"]
            .iter()
            .find_map(|name| document.child(name))
            .map_or(document, |error| error.child("Error").unwrap_or(error));
        let id = |element: &Element| {
            let id = ["RequestId", "RequestID"]
                .iter()
                .find_map(|name| element.text_at(&[name]));
            id.map(str::to_owned)
        };
        Some(Self {
            code: error.text_at(&["Code"])?.to_owned(),
            message: error.text_at(&["Message"]).unwrap_or_default().to_owned(),
            request_id: id(document).or_else(|| id(error)),
        })
    }

    fn failure(&self, query: &Query, answer: &Answer) -> Failure {
        let status = answer.response.status;
        let Query { action, .. } = query;
        let code = format!("aws.{}", self.code);
        let message = format!(
            "aws refused `{action}` with `{}`: {}",
            self.code, self.message
        );
        let failure = match self.code.as_str() {
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown" => Failure::throttled(code, message),
            "HealthUnavailable" => Failure::transient(code, message),
            _ if status == 429 => Failure::throttled(code, message),
            _ if status >= 500 => interrupted(query, code, message),
            _ if self.is_about_time() => Failure::denied(code, message),
            "AccessDenied"
            | "AccessDeniedException"
            | "UnauthorizedOperation"
            | "AuthFailure"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "OptInRequired"
            | "OperationNotPermitted"
            | "NotAuthorized" => Failure::denied(code, message),
            found if found.ends_with("NotFound") => Failure::not_found(code, message),
            found if is_quota(found) => Failure::permanent(code, message),
            "ResourceInUse" | "ConflictException" | "PriorityInUse" => {
                Failure::conflict(code, message)
            }
            _ if status == 401 || status == 403 => Failure::denied(code, message),
            _ if status == 404 => Failure::not_found(code, message),
            _ if status == 409 => Failure::conflict(code, message),
            _ => Failure::invalid(code, message),
        };
        match self.hint(action, answer) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// Whether the signature's time is not that of AWS.
    fn is_about_time(&self) -> bool {
        matches!(
            self.code.as_str(),
            "RequestExpired" | "RequestTimeTooSkewed"
        ) || self.message.contains("Signature expired")
            || self.message.contains("Signature not yet current")
    }

    fn hint(&self, action: &str, answer: &Answer) -> Option<String> {
        if self.is_about_time() {
            let here = answer.signed_at.as_deref().unwrap_or("another time");
            let there = answer.response.header("date").unwrap_or("unknown");
            return Some(format!(
                "set this machine's clock: the request was signed at {here}, and for AWS it is {there}"
            ));
        }
        let hint = match self.code.as_str() {
            "InvalidClientTokenId" | "UnrecognizedClientException" => {
                "check `access_key`: AWS knows no such key; one that begins with `ASIA` needs `secrets.session_token` too"
            }
            "SignatureDoesNotMatch" | "InvalidSignatureException" => {
                "check the granted secret key: it is not that of `access_key`; check `region` as well"
            }
            "ExpiredToken" | "ExpiredTokenException" => {
                "get new temporary credentials, and replace access key, secret key and session token together"
            }
            "AccessDenied"
            | "AccessDeniedException"
            | "UnauthorizedOperation"
            | "NotAuthorized" => {
                return Some(format!(
                    "allow `elasticloadbalancing:{action}` in the policy of the user or role; the plugin's README has a whole one"
                ));
            }
            "TargetGroupNotFound" => "check `target_group` and `region`",
            "ListenerNotFound" => "check `listener` and `region`",
            "RuleNotFound" => "check `rule` and `region`",
            "InvalidTarget" => {
                "check that the instance is running, in the VPC of the target group, and of the group's target type"
            }
            found if is_quota(found) => {
                "raise the quota in the Service Quotas console, or remove what is not used"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn is_quota(code: &str) -> bool {
    let is_about_requests = code == "TooManyRequestsException";
    (code.starts_with("TooMany") && !is_about_requests)
        || code.ends_with("Limit")
        || code.ends_with("QuotaExceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, message: &str) -> Answer {
        let body = format!(
            "<ErrorResponse xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        );
        Answer {
            response: Response {
                status,
                headers: vec![("Date".to_owned(), b"Tue, 02 Jan 2024 03:34:05 GMT".to_vec())],
                body: body.into_bytes(),
            },
            signed_at: Some("20240102T030405Z".to_owned()),
        }
    }

    #[track_caller]
    fn check(query: &Query, answer: &Answer, class: FailureClass, text: &str) {
        let failure = read(query, answer).unwrap_err();

        let hint = failure.hint.map(|hint| format!("; {hint}"));
        let told = format!(
            "{}: {}{}",
            failure.code,
            failure.message,
            hint.unwrap_or_default()
        );
        assert_eq!((failure.class, told.as_str()), (class, text));
    }

    #[test]
    fn each_refusal_has_its_class_the_words_of_aws_and_what_to_do() {
        use FailureClass::{Conflict, Denied, Invalid, NotFound, Permanent, Throttled, Transient};

        let register = Query::changing("RegisterTargets");
        for (status, code, class, hint) in [
            (400, "Throttling", Throttled, ""),
            (503, "RequestLimitExceeded", Throttled, ""),
            (500, "HealthUnavailable", Transient, ""),
            (
                403,
                "InvalidClientTokenId",
                Denied,
                "; check `access_key`: AWS knows no such key; one that begins with `ASIA` needs `secrets.session_token` too",
            ),
            (
                403,
                "SignatureDoesNotMatch",
                Denied,
                "; check the granted secret key: it is not that of `access_key`; check `region` as well",
            ),
            (
                403,
                "ExpiredToken",
                Denied,
                "; get new temporary credentials, and replace access key, secret key and session token together",
            ),
            (
                403,
                "AccessDenied",
                Denied,
                "; allow `elasticloadbalancing:RegisterTargets` in the policy of the user or role; the plugin's README has a whole one",
            ),
            (403, "SomethingElse", Denied, ""),
            (400, "OperationNotPermitted", Denied, ""),
            (
                400,
                "TargetGroupNotFound",
                NotFound,
                "; check `target_group` and `region`",
            ),
            (404, "Unheard", NotFound, ""),
            (
                400,
                "InvalidTarget",
                Invalid,
                "; check that the instance is running, in the VPC of the target group, and of the group's target type",
            ),
            (400, "ValidationError", Invalid, ""),
            (
                400,
                "TooManyTargets",
                Permanent,
                "; raise the quota in the Service Quotas console, or remove what is not used",
            ),
            (
                400,
                "TargetGroupAssociationLimit",
                Permanent,
                "; raise the quota in the Service Quotas console, or remove what is not used",
            ),
            (400, "ResourceInUse", Conflict, ""),
        ] {
            let text = format!(
                "aws.{code}: aws refused `RegisterTargets` with `{code}`: why &c (request id `r-1`){hint}"
            );
            check(
                &register,
                &refused(status, code, "why &amp;c"),
                class,
                &text,
            );
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_told_with_both_times() {
        let said = "Signature expired: 20240102T030405Z is now earlier than 20240102T032905Z (20240102T033405Z - 5 min.)";

        check(
            &Query::reading("DescribeTargetHealth"),
            &refused(403, "SignatureDoesNotMatch", said),
            FailureClass::Denied,
            &format!(
                "aws.SignatureDoesNotMatch: aws refused `DescribeTargetHealth` with `SignatureDoesNotMatch`: {said} (request id `r-1`); \
                 set this machine's clock: the request was signed at 20240102T030405Z, and for AWS it is Tue, 02 Jan 2024 03:34:05 GMT"
            ),
        );
    }

    #[test]
    fn an_error_of_the_provider_leaves_a_change_unknown_and_a_read_to_be_repeated() {
        for (query, class) in [
            (Query::reading("X"), FailureClass::Transient),
            (Query::changing("X"), FailureClass::UnknownOutcome),
        ] {
            check(
                &query,
                &refused(500, "InternalFailure", "oh"),
                class,
                "aws.InternalFailure: aws refused `X` with `InternalFailure`: oh (request id `r-1`)",
            );
            let plain = Answer {
                response: Response {
                    status: 502,
                    headers: vec![("x-amzn-RequestId".to_owned(), b"r-2".to_vec())],
                    body: b"<html>Bad Gateway<br></html>".to_vec(),
                },
                signed_at: None,
            };
            check(
                &query,
                &plain,
                class,
                "aws.status-502: `X` was answered with status 502, and not as AWS does (request id `r-2`)",
            );
        }
    }

    #[test]
    fn something_else_than_aws_is_told_as_that() {
        let answer = |status: u16| Answer {
            response: Response {
                status,
                body: b"It works".to_vec(),
                ..Response::default()
            },
            signed_at: None,
        };
        let hint = "check `endpoint`: something else than Elastic Load Balancing answers there";

        for (query, status, class, code) in [
            (
                Query::reading("X"),
                404,
                FailureClass::Invalid,
                "aws.status-404",
            ),
            (
                Query::reading("X"),
                200,
                FailureClass::Permanent,
                "aws.answer",
            ),
            (
                Query::changing("X"),
                200,
                FailureClass::UnknownOutcome,
                "aws.answer",
            ),
        ] {
            let failure = read(&query, &answer(status)).unwrap_err();

            assert_eq!((failure.class, &*failure.code), (class, code), "{status}");
            assert_eq!(failure.hint.as_deref(), Some(hint));
        }
        assert_eq!(
            read(&Query::reading("X"), &answer(429)).unwrap_err().class,
            FailureClass::Throttled
        );
    }

    #[test]
    fn throttling_waits_as_long_as_it_says_or_a_second() {
        let mut answer = refused(400, "Throttling", "Rate exceeded");
        let wait = |answer: &Answer| read(&Query::reading("X"), answer).unwrap_err().retry_after;

        assert_eq!(wait(&answer), Some(1000));
        let header = ("Retry-After".to_owned(), b"7".to_vec());
        answer.response.headers.push(header);
        assert_eq!(wait(&answer), Some(7000));
    }

    #[test]
    fn a_read_that_nobody_answered_can_be_repeated() {
        let lost = || Failure::unknown_outcome("http.broken", "the connection broke off");

        let read = unanswered(&Query::reading("DescribeRules"), lost());
        let change = unanswered(&Query::changing("ModifyRule"), lost());

        assert_eq!(read.class, FailureClass::Transient);
        assert_eq!(change.class, FailureClass::UnknownOutcome);
        assert_eq!(
            read.message,
            "no answer to `DescribeRules`: the connection broke off"
        );
    }
}
