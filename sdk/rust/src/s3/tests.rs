//! Looking objects up in a service that answers as it is told, and the requests that it gets.

use std::cell::RefCell;

use super::*;
use crate::signing::{Credentials, Plain};
use crate::{FailureClass, Time};

/// A service that gives one answer after another.
struct Service {
    config: Config,
    answers: RefCell<Vec<Response>>,
    asked: RefCell<Vec<Request>>,
}

impl Service {
    fn new(config: Config, mut answers: Vec<Response>) -> Self {
        answers.reverse();
        Self {
            config,
            answers: RefCell::new(answers),
            asked: RefCell::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Client<'_, Plain>) -> T) -> T {
        let credentials = self
            .config
            .access_key
            .as_ref()
            .map(|access_key| Credentials {
                access_key: access_key.clone(),
                secret_key: Plain::new("SECRET").with_secret("session-token", "hunter2"),
                session_token: self.config.secrets.session_token.clone(),
            });
        act(&Client {
            vendor: &AWS,
            config: &self.config,
            credentials,
            now: Time::parse("20240102T030405Z").unwrap(),
            send: &|request| {
                self.asked.borrow_mut().push(request.clone());
                let answer = self.answers.borrow_mut().pop();
                answer.ok_or_else(|| Failure::transient("test", "nobody answers"))
            },
        })
    }

    fn resolve(&self, reference: &str) -> Result<Resolved, Failure> {
        self.with(|client| object::resolve(client, reference))
    }

    fn download(&self, pinned: &str) -> crate::Download {
        self.with(|client| object::download(client, pinned))
            .unwrap()
    }

    fn urls(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let urls = asked.iter().map(|it| format!("{} {}", it.method, it.url));
        urls.collect()
    }
}

fn keyed() -> Config {
    Config {
        access_key: Some("AKIDEXAMPLE".to_owned()),
        ..Config::default()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    Response {
        status,
        headers: headers.collect(),
        body: body.as_bytes().to_vec(),
    }
}

fn refusal(status: u16, code: &str, more: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Why &amp; how</Message>{more}<RequestId>R17</RequestId></Error>"
    );
    answer(status, &[], &body)
}

#[test]
fn an_object_is_pinned_to_its_version_and_else_to_its_tag() {
    for (headers, pinned) in [
        (
            vec![("etag", "\"9bb5\""), ("x-amz-version-id", "3/L4")],
            "s3://shop/a/app-1.2.0.tgz?versionId=3/L4",
        ),
        (
            vec![("etag", "\"9bb5-2\""), ("x-amz-version-id", "null")],
            "s3://shop/a/app-1.2.0.tgz?etag=9bb5-2",
        ),
        (vec![("etag", "W/\"9bb5\"")], "s3://shop/a/app-1.2.0.tgz"),
    ] {
        let headers = [headers, vec![("content-length", "17")]].concat();
        let service = Service::new(keyed(), vec![answer(200, &headers, "")]);

        let resolved = service.resolve("s3://shop/a/app-1.2.0.tgz").unwrap();

        assert_eq!(resolved.pinned, pinned);
        assert_eq!((resolved.size, resolved.digest), (Some(17), None));
        assert_eq!(resolved.version.as_deref(), Some("1.2.0"));
        assert_eq!(
            service.urls(),
            ["HEAD https://shop.s3.us-east-1.amazonaws.com/a/app-1.2.0.tgz"]
        );
    }
}

#[test]
fn the_checksum_that_the_service_keeps_is_the_digest() {
    let checksum = (
        "x-amz-checksum-sha256",
        "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    );
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let object = || answer(200, &[checksum, ("etag", "\"e\"")], "");
    let service = Service::new(keyed(), vec![object(), object()]);

    let resolved = service.resolve("s3://shop/a").unwrap();
    let wrong = format!("s3://shop/a#sha256={}", "0".repeat(64));
    let failure = service.resolve(&wrong).unwrap_err();

    assert_eq!(resolved.digest.unwrap().hex, hex);
    assert!(
        failure.message.contains(&format!("sha256:{hex}, not")),
        "{}",
        failure.message
    );
}

#[test]
fn buckets_are_named_as_the_endpoint_wants_them() {
    let other = Config {
        endpoint: Some("http://127.0.0.1:8333/".to_owned()),
        ..keyed()
    };
    let hosted = Config {
        style: Some(Style::VirtualHost),
        ..other.clone()
    };
    let china = Config {
        region: Some("cn-north-1".to_owned()),
        ..keyed()
    };
    for (config, reference, url) in [
        (
            &other,
            "s3://shop/a b+c/ü",
            "http://127.0.0.1:8333/shop/a%20b%2Bc/%C3%BC",
        ),
        (&hosted, "s3://shop/a", "http://shop.127.0.0.1:8333/a"),
        (&hosted, "s3://my.shop/a", "http://127.0.0.1:8333/my.shop/a"),
        (
            &china,
            "s3://shop/a?b",
            "https://shop.s3.cn-north-1.amazonaws.com.cn/a%3Fb",
        ),
    ] {
        let service = Service::new(config.clone(), vec![answer(200, &[], "")]);

        service.resolve(reference).unwrap();

        assert_eq!(service.urls(), [format!("HEAD {url}")]);
    }
    assert_eq!(
        (JDCLOUD.endpoint)("cn-east-2"),
        "https://s3.cn-east-2.jcloudcs.com"
    );
}

#[test]
fn a_fetch_is_planned_as_a_signed_url_that_expires() {
    let service = Service::new(keyed(), Vec::new());

    let versioned = service.download("s3://shop/a?versionId=3/L4");
    let tagged = service.download("s3://shop/a?etag=9bb5");

    assert!(
        versioned.url.starts_with("https://shop.s3.us-east-1.amazonaws.com/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE"),
        "{}",
        versioned.url
    );
    assert!(
        versioned.url.contains("&X-Amz-Expires=3600&"),
        "{}",
        versioned.url
    );
    assert!(
        versioned.url.contains("versionId=3%2FL4"),
        "{}",
        versioned.url
    );
    assert!(
        versioned.url.contains("&X-Amz-Signature="),
        "{}",
        versioned.url
    );
    let now = Time::parse("20240102T030405Z").unwrap().unix_ms();
    assert_eq!(versioned.expires_at, Some(now + 3_600_000));
    assert!(versioned.headers.is_empty());
    let header = &tagged.headers[0];
    assert_eq!(
        (header.name.as_str(), header.value.as_str()),
        ("If-Match", "\"9bb5\"")
    );
    assert!(service.asked.borrow().is_empty(), "nothing is asked");
}

#[test]
fn with_temporary_credentials_the_token_stays_in_a_header_that_the_host_fills() {
    let service = Service::new(
        Config {
            secrets: Secrets {
                session_token: Some("session-token".to_owned()),
                ..Secrets::default()
            },
            ..keyed()
        },
        Vec::new(),
    );

    let download = service.download("s3://shop/a?etag=9bb5");

    let value = |name: &str| {
        let mut headers = download.headers.iter();
        headers
            .find(|it| it.name == name)
            .map(|it| it.value.clone())
    };
    assert_eq!(download.url, "https://shop.s3.us-east-1.amazonaws.com/a");
    assert_eq!(
        value("X-Amz-Security-Token").as_deref(),
        Some("{{secret:session-token}}")
    );
    assert!(
        value("Authorization")
            .unwrap()
            .contains("x-amz-security-token")
    );
    assert_eq!(value("If-Match").as_deref(), Some("\"9bb5\""));
    let now = Time::parse("20240102T030405Z").unwrap().unix_ms();
    assert_eq!(
        download.expires_at,
        Some(now + 900_000),
        "as long as it is signed for"
    );
}

#[test]
fn an_access_key_that_is_a_secret_stays_in_a_header_too() {
    let config = Config {
        access_key: Some("{{secret:access-key}}".to_owned()),
        ..Config::default()
    };

    let download = Service::new(config, Vec::new()).download("s3://shop/a");

    assert_eq!(download.url, "https://shop.s3.us-east-1.amazonaws.com/a");
    let mut headers = download.headers.iter();
    let signed = headers.find(|it| it.name == "Authorization").unwrap();
    assert!(signed.value.contains("Credential={{secret:access-key}}/"));
}

#[test]
fn public_objects_need_no_credentials() {
    let service = Service::new(Config::default(), vec![answer(200, &[], "")]);

    service.resolve("s3://shop/a").unwrap();

    assert!(
        service.asked.borrow()[0]
            .headers
            .iter()
            .all(|(name, _)| name != "Authorization")
    );
    let download = service.download("s3://shop/a");
    assert_eq!(
        download,
        crate::Download::of("https://shop.s3.us-east-1.amazonaws.com/a")
    );
}

/// What a refusal comes to, and the hint.
fn refused(head: Response, told: Response, reference: &str) -> (Failure, String) {
    let service = Service::new(keyed(), vec![head, told]);
    let failure = service.resolve(reference).unwrap_err();
    assert!(
        failure.message.contains("(request id R17)"),
        "{}",
        failure.message
    );
    let hint = failure.hint.clone().unwrap_or_default();
    (failure, hint)
}

#[test]
fn a_refusal_has_the_service_s_code_the_request_and_what_to_do() {
    for (status, code, more, class, hint) in [
        (
            403,
            "InvalidAccessKeyId",
            "",
            FailureClass::Denied,
            "knows no key `AKIDEXAMPLE`",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            "",
            FailureClass::Denied,
            "is not the one of the access key",
        ),
        (
            400,
            "ExpiredToken",
            "",
            FailureClass::Denied,
            "new temporary credentials",
        ),
        (
            403,
            "AccessDenied",
            "",
            FailureClass::Denied,
            "allow `s3:GetObject` on `arn:aws:s3:::shop/a`",
        ),
        (
            403,
            "InvalidObjectState",
            "",
            FailureClass::Permanent,
            "restore the object",
        ),
        (
            412,
            "PreconditionFailed",
            "",
            FailureClass::Conflict,
            "was replaced",
        ),
        (503, "SlowDown", "", FailureClass::Throttled, ""),
        (
            301,
            "PermanentRedirect",
            "<Region>eu-west-1</Region>",
            FailureClass::Invalid,
            "write `region: eu-west-1`",
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            "<Region>eu-west-1</Region>",
            FailureClass::Invalid,
            "write `region: eu-west-1`",
        ),
    ] {
        let told = refusal(status, code, more);
        let head = answer(status, &[], "");

        let (failure, found) = refused(head, told, "s3://shop/a");

        assert_eq!(
            (failure.class, failure.code),
            (class, format!("aws.{code}"))
        );
        assert!(found.contains(hint), "{code}: {found}");
        assert!(
            failure
                .message
                .contains(&format!("refuses `s3://shop/a`: {code}: Why & how"))
        );
    }
}

#[test]
fn a_clock_that_is_wrong_is_told_with_both_times() {
    let told = refusal(
        403,
        "RequestTimeTooSkewed",
        "<ServerTime>2024-01-02T05:00:00Z</ServerTime>",
    );

    let (failure, hint) = refused(answer(403, &[], ""), told, "s3://shop/a");

    assert!(
        failure
            .message
            .contains("it is 2024-01-02T03:04:05Z here and 2024-01-02T05:00:00Z there"),
        "{}",
        failure.message
    );
    assert!(hint.contains("set the clock"), "{hint}");
}

#[test]
fn what_was_deleted_or_archived_is_told_apart_from_what_was_never_there() {
    let deleted = answer(404, &[("x-amz-delete-marker", "true")], "");
    let (failure, hint) = refused(deleted, refusal(404, "NoSuchKey", ""), "s3://shop/a");
    assert_eq!(failure.class, FailureClass::NotFound);
    assert!(hint.contains("`s3://shop/a?versionId=ID`"), "{hint}");

    let archived = answer(200, &[("x-amz-storage-class", "GLACIER")], "");
    let failure = Service::new(keyed(), vec![archived])
        .resolve("s3://shop/a")
        .unwrap_err();
    assert_eq!(failure.code, "aws.InvalidObjectState");
}

#[test]
fn names_that_look_like_a_missing_one_are_told_where_they_may_be_listed() {
    let missing = || vec![answer(404, &[], ""), refusal(404, "NoSuchKey", "")];
    let keys = "<Contents><Key>a/app-1.2.0.tgz</Key></Contents><Contents><Key>a/b</Key></Contents>";
    let listed = Service::new(keyed(), [missing(), vec![answer(200, &[], keys)]].concat());
    let closed = Service::new(
        keyed(),
        [missing(), vec![refusal(403, "AccessDenied", "")]].concat(),
    );
    let no_bucket = vec![answer(404, &[], ""), refusal(404, "NoSuchBucket", "")];
    let buckets = answer(200, &[], "<Bucket><Name>shops</Name></Bucket>");
    let bucket = Service::new(keyed(), [no_bucket, vec![buckets]].concat());

    let near = listed.resolve("s3://shop/a/app-1.2.1.tgz").unwrap_err();
    let far = closed.resolve("s3://shop/a/app-1.2.1.tgz").unwrap_err();
    let other = bucket.resolve("s3://shop/a").unwrap_err();

    assert_eq!(near.hint.unwrap(), "`a/` has `a/app-1.2.0.tgz`, `a/b`");
    assert!(listed.urls()[2].ends_with("/?list-type=2&max-keys=1000&prefix=a%2F"));
    assert_eq!((far.code.as_str(), far.hint), ("aws.NoSuchKey", None));
    assert_eq!(
        other.hint.unwrap(),
        "the buckets of these credentials are `shops`"
    );
}

#[test]
fn a_configuration_that_cannot_work_is_found() {
    let check = |text: &str, found: &[&str]| {
        let config: Config = crate::parse_config(text).unwrap();
        let paths: Vec<_> = config
            .check("/storage")
            .into_iter()
            .map(|it| it.path)
            .collect();
        assert_eq!(paths, found, "{text}");
    };
    check(
        r#"{"region": "eu-central-1", "access_key": "AK", "style": "path"}"#,
        &[],
    );
    check(
        r#"{"region": "EU", "endpoint": "https://h/bucket", "access_key": "", "valid_for": "5s"}"#,
        &[
            "/storage/region",
            "/storage/endpoint",
            "/storage/access_key",
            "/storage/valid_for",
        ],
    );
    check(
        r#"{"secrets": {"session_token": "t"}, "timeout": "0s"}"#,
        &["/storage/access_key", "/storage/timeout"],
    );
    assert!(crate::parse_config::<Config>(r#"{"bucket": "shop"}"#).is_err());
}
