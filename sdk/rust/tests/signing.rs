//! Signatures against those that the vendors' own SDKs make.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::time::Duration;

use cutover_plugin_sdk::Time;
use cutover_plugin_sdk::http::Request;
use cutover_plugin_sdk::signing::jdcloud::Dialect;
use cutover_plugin_sdk::signing::{Credentials, Plain, aws, huawei, jdcloud};
use serde_json::Value;

const AWS_TIME: &str = "20240102T030405Z";
const JD_TIME: &str = "20190917T064708Z";
const JD_NONCE: &str = "ed558a3b-9808-4edb-8597-187bda63a4f2";
const PROJECT: &str = "0605767f9a8e4b2c8f0d2f5c6a7b8c9d";

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn corners(vendor: &str) -> Vec<Value> {
    let all = vectors(include_str!("vectors/corners.json"));
    let corners = all[vendor].as_array().unwrap().clone();
    assert!(!corners.is_empty());
    corners
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

fn at(text: &str) -> Time {
    Time::parse(text).unwrap()
}

fn credentials(access_key: &str, secret_key: &str, token: Option<&str>) -> Credentials<Plain> {
    let key = Plain::new(secret_key);
    Credentials {
        access_key: access_key.to_owned(),
        secret_key: match token {
            Some(token) => key.with_secret("session-token", token),
            None => key,
        },
        session_token: token.map(|_| "session-token".to_owned()),
    }
}

fn aws_credentials(token: Option<&str>) -> Credentials<Plain> {
    credentials(
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        token,
    )
}

/// The request of a corner, unsigned.
fn request(vector: &Value) -> Request {
    let headers = vector["headers"].as_array().unwrap().iter();
    headers.fold(
        Request::new(text(vector, "method"), text(vector, "url")).body(text(vector, "body")),
        |request, header| request.header(header[0].as_str().unwrap(), header[1].as_str().unwrap()),
    )
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let mut found = request
        .headers
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "{name} is there twice");
    Some(value)
}

#[test]
fn calls_of_aws_sign_as_botocore_does() {
    let vectors = vectors(include_str!("vectors/aws.json"));
    let vectors = vectors.as_object().unwrap();
    assert_eq!(vectors.len(), 6);
    for (name, vector) in vectors {
        let url = "https://elasticloadbalancing.us-east-1.amazonaws.com/";
        let mut request = Request::new("POST", url)
            .header("Content-Type", text(vector, "content_type"))
            .body(text(vector, "body"));

        aws::sign(
            &mut request,
            &aws_credentials(None),
            "us-east-1",
            "elasticloadbalancing",
            at(AWS_TIME),
        )
        .unwrap();

        assert_eq!(
            header(&request, "authorization"),
            Some(text(vector, "authorization")),
            "{name}"
        );
        assert_eq!(header(&request, "x-amz-date"), Some(AWS_TIME));
    }
}

#[test]
fn corners_of_aws_sign_as_botocore_does() {
    for vector in corners("aws") {
        let name = text(&vector, "name");
        let credentials = aws_credentials(vector["token"].as_str());
        let mut request = request(&vector);
        let (region, service) = ("us-east-1", text(&vector, "service"));
        if let Some(expires) = vector["expires"].as_u64() {
            let url = aws::presign(
                &request,
                &credentials,
                region,
                service,
                at(AWS_TIME),
                Duration::from_secs(expires),
            )
            .unwrap();

            assert_eq!(sorted(&url), sorted(text(&vector, "presigned")), "{name}");
            continue;
        }

        aws::sign(&mut request, &credentials, region, service, at(AWS_TIME)).unwrap();

        assert_eq!(
            header(&request, "authorization"),
            Some(text(&vector, "authorization")),
            "{name}"
        );
        let token = vector["token"].as_str().map(|_| "{{secret:session-token}}");
        assert_eq!(header(&request, "x-amz-security-token"), token, "{name}");
    }
}

/// A URL's parts, whose order is no part of what it says.
fn sorted(url: &str) -> Vec<&str> {
    let mut parts: Vec<_> = url.split(['?', '&']).collect();
    parts.sort_unstable();
    parts
}

#[test]
fn calls_of_jd_sign_as_its_sdks_do() {
    let vectors = vectors(include_str!("vectors/jdcloud.json"));
    let vectors = vectors.as_object().unwrap();
    assert_eq!(vectors.len(), 5);
    for (name, vector) in vectors {
        for (dialect, expected) in [(Dialect::Two, "jdcloud2"), (Dialect::Three, "jdcloud3")] {
            let query = match text(vector, "query") {
                "" => String::new(),
                query => format!("?{query}"),
            };
            let url = format!("https://lb.jdcloud-api.com{}{query}", text(vector, "path"));
            let mut request = Request::new(text(vector, "method"), url)
                .header("Content-Type", "application/json")
                .body(text(vector, "body"));

            let credentials = credentials("ak", "sk", None);
            let (region, time) = ("cn-north-1", at(JD_TIME));
            jdcloud::sign(
                &mut request,
                &credentials,
                dialect,
                region,
                "lb",
                time,
                JD_NONCE,
            )
            .unwrap();

            assert_eq!(
                header(&request, "authorization"),
                Some(text(vector, expected)),
                "{name}"
            );
            assert_eq!(
                header(&request, "x-jdcloud-content-sha256"),
                Some(text(vector, "body_sha256"))
            );
        }
    }
}

#[test]
fn corners_of_jd_sign_as_its_sdk_does() {
    for vector in corners("jdcloud") {
        let name = text(&vector, "name");
        let credentials = credentials("ak", "sk", vector["token"].as_str());
        let mut request = request(&vector).header("content-type", "application/json");

        jdcloud::sign(
            &mut request,
            &credentials,
            Dialect::Three,
            "cn-north-1",
            text(&vector, "service"),
            at(JD_TIME),
            text(&vector, "nonce"),
        )
        .unwrap();

        assert_eq!(
            header(&request, "authorization"),
            Some(text(&vector, "jdcloud3")),
            "{name}"
        );
        let token = vector["token"]
            .as_str()
            .map(|_| "{{secret:session-token|base64}}");
        assert_eq!(
            header(&request, "x-jdcloud-security-token"),
            token,
            "{name}"
        );
    }
}

#[test]
fn calls_of_huawei_sign_as_its_sdk_does() {
    let vectors = vectors(include_str!("vectors/huawei.json"));
    let vectors = vectors.as_object().unwrap();
    assert_eq!(vectors.len(), 6);
    for (name, vector) in vectors {
        let parameters = vector["query"].as_array().unwrap().iter();
        let parameters: Vec<_> = parameters
            .map(|pair| {
                format!(
                    "{}={}",
                    pair[0].as_str().unwrap(),
                    pair[1].as_str().unwrap()
                )
            })
            .collect();
        let query = match parameters.join("&") {
            query if query.is_empty() => query,
            query => format!("?{query}"),
        };
        let url = format!(
            "https://elb.cn-north-4.myhuaweicloud.com{}{query}",
            text(vector, "path")
        );
        let mut request = Request::new(text(vector, "method"), url)
            .header("Content-Type", "application/json")
            .body(text(vector, "body"));

        let credentials = credentials("AKEXAMPLE", "SKEXAMPLE", None);
        huawei::sign(&mut request, &credentials, PROJECT, at(AWS_TIME)).unwrap();

        assert_eq!(
            header(&request, "authorization"),
            Some(text(vector, "authorization")),
            "{name}"
        );
    }
}

#[test]
fn corners_of_huawei_sign_as_its_sdk_does() {
    for vector in corners("huawei") {
        let name = text(&vector, "name");
        let credentials = credentials("AKEXAMPLE", "SKEXAMPLE", vector["token"].as_str());
        let mut request = request(&vector);

        huawei::sign(&mut request, &credentials, PROJECT, at(AWS_TIME)).unwrap();

        assert_eq!(
            header(&request, "authorization"),
            Some(text(&vector, "authorization")),
            "{name}"
        );
        let token = vector["token"].as_str().map(|_| "{{secret:session-token}}");
        assert_eq!(header(&request, "x-security-token"), token, "{name}");
    }
}

#[test]
fn signing_again_replaces_what_was_signed() {
    let url = "https://lb.jdcloud-api.com/v1/regions/cn-north-1/backends/b";
    let fresh = || Request::get(url).header("Content-Type", "application/json");
    let later = at("20240102T030406Z");
    let with_token = credentials("ak", "sk", Some("token"));
    let without = credentials("ak", "sk", None);
    type Sign = fn(&mut Request, &Credentials<Plain>, Time);
    let schemes: [Sign; 4] = [
        |request, who, at| aws::sign(request, who, "r", "s3", at).unwrap(),
        |request, who, at| huawei::sign(request, who, PROJECT, at).unwrap(),
        |request, who, at| {
            jdcloud::sign(request, who, Dialect::Two, "r", "lb", at, "n").unwrap();
        },
        |request, who, at| {
            jdcloud::sign(request, who, Dialect::Three, "r", "lb", at, "n").unwrap();
        },
    ];

    for sign in schemes {
        let (mut once, mut twice) = (fresh(), fresh());
        sign(&mut once, &without, later);
        sign(&mut twice, &with_token, at(AWS_TIME));
        sign(&mut twice, &without, later);

        assert_eq!(twice.headers, once.headers);
    }
}

#[test]
fn a_url_is_not_signed_with_a_token_or_for_ever() {
    let request = Request::get("https://bucket.s3.amazonaws.com/a");
    let sign = |credentials: &Credentials<Plain>, seconds| {
        let valid_for = Duration::from_secs(seconds);
        aws::presign(&request, credentials, "r", "s3", at(AWS_TIME), valid_for)
    };

    let with_token = sign(&aws_credentials(Some("token")), 60).unwrap_err();
    let never = sign(&aws_credentials(None), 0).unwrap_err();
    let for_ever = sign(&aws_credentials(None), 604_801).unwrap_err();

    assert_eq!(
        with_token.hint.as_deref(),
        Some("sign the headers of the request instead")
    );
    assert_eq!(
        never.message,
        "a URL is signed for 1 to 604800 seconds, not for 0"
    );
    assert_eq!(for_ever.code, "signing.expiry");
}
