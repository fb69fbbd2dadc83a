//! Packages in object storages: SeaweedFS and moto, both of which check every signature, and one that does as it is told.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutover_tests::{Moto, SeaweedFs, Site, WebServer};

/// A workspace whose `s3://` is at an endpoint, with an archive of version 1.4.0 as `v1.tar.gz`.
fn shop(endpoint: &str, access_key: &str, more: &str) -> Site {
    let site = Site::with_instances(1, "");
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:
  s3:
    component: s3
    grants:
      http: [\"{endpoint}\"]
      secrets: [secret-key: file:secret.key, session-token: file:session.token]
    config: {{endpoint: \"{endpoint}\", access_key: {access_key}{more}}}
{groups}"
        ),
    );
    site.write("secret.key", &format!("{}\n", SeaweedFs::SECRET_KEY));
    site.write("session.token", "none\n");
    package(&site, "v1", "1.4.0");
    site
}

fn package(site: &Site, name: &str, version: &str) {
    site.traced_package(name, version, "");
    site.pack(name, &format!("{name}.tar.gz"));
}

fn on_seaweed(seaweed: &SeaweedFs) -> Site {
    shop(&seaweed.endpoint, SeaweedFs::ACCESS_KEY, "")
}

/// Puts a file of the site into the bucket, and answers with its version and its tag.
fn upload(
    seaweed: &SeaweedFs,
    site: &Site,
    file: &str,
    bucket: &str,
    key: &str,
) -> (String, String) {
    let printed = seaweed
        .run(&format!(
            "done = s3.put_object(Bucket='{bucket}', Key='{key}', Body=open('{}', 'rb').read())
print(done.get('VersionId'), done['ETag'].strip('\"'))",
            site.path(file).display()
        ))
        .unwrap();
    let (version, tag) = printed.trim().split_once(' ').unwrap();
    (version.to_owned(), tag.to_owned())
}

fn installed(site: &Site) -> String {
    std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap()
}

fn source(site: &Site) -> String {
    let revision = site.report()["deployments"][0]["revision"].clone();
    revision["source"].as_str().unwrap().to_owned()
}

fn refusal(site: &Site, package: &str) -> String {
    let answer = site.cutover(&["deploy", "shop/web", "--package", package]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    site.assert_untouched();
    answer.stderr
}

/// Asserts that no file below a folder holds any of the texts.
fn assert_nowhere(folder: &Path, texts: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // A plugin's code knows the names of the parameters that it writes.
        if path.is_dir() && !path.ends_with("compiled") {
            assert_nowhere(&path, texts);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for text in texts {
                let is_there = bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes());
                assert!(!is_there, "`{text}` is in `{}`", path.display());
            }
        }
    }
}

#[test]
fn the_adapter_of_aws_brings_packages_as_well() {
    let seaweed = SeaweedFs::shared();
    let site = on_seaweed(&seaweed);
    let of_s3 = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let access_key = SeaweedFs::ACCESS_KEY;
    let of_aws = of_s3
        .replace("  s3:\n    component: s3\n", "  aws:\n    component: aws\n")
        .replace("config: {endpoint", "config: {storage: {endpoint")
        .replace(
            &format!("access_key: {access_key}}}"),
            &format!("access_key: {access_key}}}}}"),
        );
    site.write("cutover.yaml", &of_aws);
    seaweed.run("s3.create_bucket(Bucket='adapter')").unwrap();
    upload(&seaweed, &site, "v1.tar.gz", "adapter", "shop-1.4.0.tar.gz");

    site.cutover(&["check"]).ok();
    let package = "s3://adapter/shop-1.4.0.tar.gz";
    site.cutover(&["deploy", "shop/web", "--package", package])
        .ok();

    assert_eq!(installed(&site).trim(), "1.4.0");
}

#[test]
fn an_object_is_deployed_by_its_version_and_its_signed_address_is_kept_nowhere() {
    let seaweed = SeaweedFs::shared();
    let site = on_seaweed(&seaweed);
    package(&site, "v2", "2.0.0");
    seaweed
        .run("s3.create_bucket(Bucket='versions')\ns3.put_bucket_versioning(Bucket='versions', VersioningConfiguration={'Status': 'Enabled'})")
        .unwrap();
    let key = "releases/app 1.4.0+b.tar.gz";
    let (first, _) = upload(&seaweed, &site, "v1.tar.gz", "versions", key);
    let reference = format!("s3://versions/{key}");
    let deploy = |package: &str, version: &str| {
        let arguments = [
            "deploy",
            "shop/web",
            "--package",
            package,
            "--version",
            version,
        ];
        let mut command = site.command(&arguments);
        let output = command.env("CUTOVER_LOG", "trace").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("X-Amz-Signature"), "{said}");
        assert!(!said.contains(SeaweedFs::SECRET_KEY), "{said}");
    };

    deploy(&reference, "1.4.0");
    assert_eq!(source(&site), format!("{reference}?versionId={first}"));
    assert_eq!(installed(&site), "1.4.0");

    let (second, _) = upload(&seaweed, &site, "v2.tar.gz", "versions", key);
    deploy(&reference, "2.0.0");
    assert_eq!(source(&site), format!("{reference}?versionId={second}"));
    assert_eq!(installed(&site), "2.0.0");

    // What the release recorded stands for the same bytes for good.
    deploy(&format!("{reference}?versionId={first}"), "1.4.1");
    assert_eq!(installed(&site), "1.4.0");
    let kept = ["X-Amz-Signature", SeaweedFs::SECRET_KEY];
    assert_nowhere(&site.path(".cutover"), &kept);
}

#[test]
fn an_object_without_versions_is_pinned_to_its_tag_and_a_replaced_one_is_noticed() {
    let seaweed = SeaweedFs::shared();
    let site = on_seaweed(&seaweed);
    package(&site, "v2", "2.0.0");
    let (_, old) = upload(&seaweed, &site, "v1.tar.gz", "shop", "tagged/app.tar.gz");
    let reference = "s3://shop/tagged/app.tar.gz";

    site.cutover(&["check"]).ok();
    site.cutover(&["deploy", "shop/web", "--package", reference])
        .ok();
    assert_eq!(source(&site), format!("{reference}?etag={old}"));
    upload(&seaweed, &site, "v2.tar.gz", "shop", "tagged/app.tar.gz");
    let other = on_seaweed(&seaweed);
    let said = refusal(&other, &format!("{reference}?etag={old}"));

    assert!(said.contains("PreconditionFailed"), "{said}");
    assert!(said.contains("the object was replaced since"), "{said}");
}

#[test]
fn a_large_object_comes_whole_and_its_checksum_counts() {
    let seaweed = SeaweedFs::shared();
    let site = on_seaweed(&seaweed);
    let mut state = 1_u64;
    let noise = (0..20 << 20).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    std::fs::write(site.path("v1/content/noise"), noise.collect::<Vec<_>>()).unwrap();
    site.pack("v1", "v1.tar.gz");
    seaweed
        .run(&format!(
            "s3.put_object(Bucket='shop', Key='large-1.4.0.tgz', Body=open('{}', 'rb').read(), ChecksumAlgorithm='SHA256')",
            site.path("v1.tar.gz").display()
        ))
        .unwrap();

    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "s3://shop/large-1.4.0.tgz",
    ])
    .ok();

    let noise = std::fs::read(site.path("v1/content/noise")).unwrap();
    assert!(std::fs::read(site.path("web-1/app/noise")).unwrap() == noise);
    let wrong = format!("s3://shop/large-1.4.0.tgz#sha256={}", "0".repeat(64));
    let said = refusal(&on_seaweed(&seaweed), &wrong);
    assert!(said.contains("has the checksum sha256:"), "{said}");
}

#[test]
fn credentials_that_are_wrong_are_told_with_the_code_and_the_request() {
    let seaweed = SeaweedFs::shared();
    for (key, secret, code, hint) in [
        (
            SeaweedFs::ACCESS_KEY,
            "not-the-one",
            "SignatureDoesNotMatch",
            "is not the one of the access key",
        ),
        (
            "AKNOBODY",
            "not-the-one",
            "InvalidAccessKeyId",
            "check `access_key`",
        ),
        (
            SeaweedFs::READER.0,
            SeaweedFs::READER.1,
            "AccessDenied",
            "allow `s3:GetObject`",
        ),
    ] {
        let site = shop(&seaweed.endpoint, key, "");
        site.write("secret.key", secret);

        let said = refusal(&site, "s3://versions-of-others/a.tgz");

        assert!(
            said.contains(&format!("refuses `s3://versions-of-others/a.tgz`: {code}")),
            "{said}"
        );
        assert!(said.contains("(request id "), "{said}");
        assert!(said.contains(hint), "{said}");
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let seaweed = SeaweedFs::shared();
    let site = on_seaweed(&seaweed);
    upload(
        &seaweed,
        &site,
        "v1.tar.gz",
        "shop",
        "near/app-1.4.0.tar.gz",
    );

    let key = refusal(&site, "s3://shop/near/app-1.4.1.tar.gz");
    let bucket = refusal(&site, "s3://shopp/near/app-1.4.0.tar.gz");

    assert!(key.contains("NoSuchKey"), "{key}");
    assert!(key.contains("`near/` has `near/app-1.4.0.tar.gz`"), "{key}");
    assert!(bucket.contains("NoSuchBucket"), "{bucket}");
    assert!(
        bucket.contains("the buckets of these credentials are `shop`"),
        "{bucket}"
    );
}

#[test]
fn temporary_credentials_are_taken_and_their_token_is_kept_nowhere() {
    let moto = Moto::with_bucket();
    let [id, secret, token] = ["short_id", "short_secret", "token"].map(|name| moto.made(name));
    let site = shop(
        &moto.endpoint,
        id,
        ", secrets: {session_token: session-token}",
    );
    site.write("secret.key", secret);
    site.write("session.token", token);
    moto.run(&format!(
        "s3.put_object(Bucket='shop', Key='app-1.4.0.tgz', Body=open('{}', 'rb').read())",
        site.path("v1.tar.gz").display()
    ))
    .unwrap();
    let package = "s3://shop/app-1.4.0.tgz";

    let deployed = site
        .cutover(&["deploy", "shop/web", "--package", package])
        .ok();

    assert_eq!(installed(&site), "1.4.0");
    assert!(!deployed.stderr.contains(token));
    assert_nowhere(&site.path(".cutover"), &[token, secret]);
    for (wrong, code) in [
        ("secret.key", "SignatureDoesNotMatch"),
        ("session.token", "InvalidToken"),
    ] {
        let site = shop(
            &moto.endpoint,
            id,
            ", secrets: {session_token: session-token}",
        );
        site.write("secret.key", secret);
        site.write("session.token", token);
        site.write(wrong, "not-the-one");

        let said = refusal(&site, package);

        assert!(said.contains(code), "{said}");
    }
}

/// A storage of one object, whose second answer to a fetch is that the signature has expired.
fn expiring(archive: Vec<u8>) -> WebServer {
    let fetches = AtomicUsize::new(0);
    let (half, length) = (archive.len() / 2, archive.len());
    WebServer::start(move |path| {
        // The plugin's requests are signed by their headers, the host's by the query.
        let is_fetch = path.contains("X-Amz-Signature=");
        let number = if is_fetch {
            fetches.fetch_add(1, Ordering::Relaxed)
        } else {
            usize::MAX
        };
        let head = match number {
            1 => return refused("403 Forbidden", "AccessDenied", "Request has expired"),
            2 => format!(
                "206 Partial Content\r\ncontent-range: bytes {half}-{}/{length}\r\ncontent-length: {}",
                length - 1,
                length - half
            ),
            _ => format!("200 OK\r\ncontent-length: {length}"),
        };
        let body = match number {
            0 => &archive[..half],
            2 => &archive[half..],
            _ => &[],
        };
        let mut answer = format!(
            "HTTP/1.1 {head}\r\netag: \"one\"\r\naccept-ranges: bytes\r\nconnection: close\r\n\r\n"
        )
        .into_bytes();
        answer.extend_from_slice(body);
        answer
    })
}

fn refused(status: &str, code: &str, more: &str) -> Vec<u8> {
    let body = format!(
        "<Error><Code>{code}</Code><Message>{more}</Message><RequestId>R17</RequestId><ServerTime>2031-01-01T00:00:00Z</ServerTime></Error>"
    );
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn an_address_that_expires_in_the_middle_is_signed_anew_and_gone_on_with() {
    let site = shop("http://127.0.0.1:1", "AK", "");
    let server = expiring(std::fs::read(site.path("v1.tar.gz")).unwrap());
    let site = shop(&server.url(""), "AK", "");

    site.cutover(&["deploy", "shop/web", "--package", "s3://shop/app-1.4.0.tgz"])
        .ok();

    assert_eq!(installed(&site), "1.4.0");
    let asked = server.asked();
    let fetches: Vec<_> = asked
        .iter()
        .filter(|it| it.contains("x-amz-signature="))
        .collect();
    assert_eq!(fetches.len(), 3, "{asked:?}");
    assert!(fetches[2].contains("\nrange: bytes="), "{asked:?}");
    assert!(
        fetches.iter().all(|it| it.contains("if-match: \"one\"")),
        "{asked:?}"
    );
}

#[test]
fn a_clock_that_is_wrong_and_a_storage_that_is_busy_are_told_apart() {
    let skewed = WebServer::start(|_| refused("403 Forbidden", "RequestTimeTooSkewed", "too far"));
    let said = refusal(&shop(&skewed.url(""), "AK", ""), "s3://shop/a.tgz");
    assert!(
        said.contains("here and 2031-01-01T00:00:00Z there"),
        "{said}"
    );
    assert!(said.contains("set the clock of this machine"), "{said}");

    let busy = WebServer::start(|_| refused("503 Slow Down", "SlowDown", "too many"));
    let said = refusal(&shop(&busy.url(""), "AK", ""), "s3://shop/a.tgz");
    assert!(said.contains("`s3://shop/a.tgz`, 3 times\n"), "{said}");
    assert!(said.contains("refuses `s3://shop/a.tgz`"), "{said}");
    assert!(
        said.contains("SlowDown: too many (request id R17)"),
        "{said}"
    );
    assert_eq!(busy.asked().len(), 6);
}

#[test]
fn without_a_grant_nothing_is_asked_and_the_line_is_told() {
    let site = shop("http://127.0.0.1:9", "AK", "");
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &text.replace("http: [\"http://127.0.0.1:9\"]", "http: []"),
    );

    let said = refusal(&site, "s3://shop/a.tgz");

    assert!(
        said.contains("plugins.s3.grants.http: [\"http://127.0.0.1:9\"]"),
        "{said}"
    );
}
