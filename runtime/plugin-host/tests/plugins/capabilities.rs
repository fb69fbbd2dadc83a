//! Host functions, as a plugin meets them.

use plugin_host::package_source::{Checksum, Download};
use plugin_host::{Grants, OpContext, Progress, Secret, Secrets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::guest::{Guest, encode_with, load_bytes};

/// Connects to the address at 1024 and answers with what `connect` gave: its failure has the layout of ours.
const CONNECT: &str = r#"
    (import "cutover:plugin/sockets@0.1.0" "[static]connection.connect" (func $connect (param i32 i32 i64 i32)))
    (import "cutover:plugin/sockets@0.1.0" "[method]connection.write" (func $write (param i32 i32 i32 i32)))
    (import "cutover:plugin/sockets@0.1.0" "[method]connection.read" (func $read (param i32 i32 i32)))"#;
const SOCKETS: &str = "include cutover:plugin/with-sockets@0.1.0;";
const MANIFEST: &str =
    r#"{"name":"stub","version":"1.0.0","capabilities":{"sockets":[{"address":"tcp:*"}]}}"#;

fn connecting(address: &str, poll: &'static str) -> Guest {
    let items = format!(r#"{CONNECT} (data (i32.const 1024) "{address}")"#);
    Guest {
        includes: SOCKETS,
        items,
        poll,
        manifest: Some(MANIFEST),
        ..Guest::default()
    }
}

#[tokio::test]
async fn a_denied_connection_says_what_would_grant_it() {
    let poll = "(call $connect (i32.const 1024) (i32.const 18) (i64.const 1000) (i32.const 4096)) i32.const 4096";
    let plugin = connecting("tcp:127.0.0.1:9999", poll).load().await;

    let error = plugin
        .poll(&OpContext::default(), "{}", "")
        .await
        .unwrap_err();

    let failure = error.failure().unwrap();
    assert_eq!(failure.code, "host.denied");
    assert_eq!(
        failure.message,
        "plugin `stub` may not use socket `tcp:127.0.0.1:9999`: it is not granted"
    );
    assert_eq!(
        failure.hint.as_deref(),
        Some(r#"plugins.stub.grants.sockets: ["tcp:127.0.0.1:9999"]"#)
    );
}

#[tokio::test]
async fn a_granted_connection_carries_bytes_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    // Sends the first 3 bytes of the address, reads one byte, and traps unless it is `!`.
    let poll = "
        (call $connect (i32.const 1024) (i32.const 64) (i64.const 5000) (i32.const 4096))
        (if (i32.load8_u (i32.const 4096)) (then unreachable))
        (call $write (i32.load (i32.const 4104)) (i32.const 1024) (i32.const 3) (i32.const 5120))
        (if (i32.load8_u (i32.const 5120)) (then unreachable))
        (call $read (i32.load (i32.const 4104)) (i32.const 1) (i32.const 6144))
        (if (i32.load8_u (i32.const 6144)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.load (i32.const 6152))) (i32.const 33)) (then unreachable))
        i32.const 0";
    let poll = Box::leak(
        poll.replace("i32.const 64", &format!("i32.const {}", address.len()))
            .into_boxed_str(),
    );
    let grants = Grants {
        sockets: vec![address.clone()],
        ..Grants::default()
    };
    let plugin = connecting(&address, poll)
        .load_with(&grants, Secrets::default())
        .await;

    let (ctx, server) = (OpContext::default(), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        bytes
    });
    let (outcome, received) = tokio::join!(plugin.poll(&ctx, "{}", ""), server);

    outcome.unwrap();
    assert_eq!(&received, b"tcp");
}

#[tokio::test]
async fn progress_is_throttled_and_ends_with_the_last_line() {
    let items =
        r#"(import "cutover:plugin/progress@0.1.0" "report" (func $report (param i32 i32 i32 i32)))
        (data (i32.const 1024) "step 0123456789")"#
            .to_owned();
    // Reports `0` to `9` as fast as it can.
    let poll = "(local $i i32)
        (loop $more
            (call $report (i32.add (i32.const 1029) (local.get $i)) (i32.const 1) (i32.const 1) (i32.const 200))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 10))))
        i32.const 0";
    let guest = Guest {
        items,
        poll,
        ..Guest::default()
    };
    let (tx, mut rx) = mpsc::channel::<Progress>(64);
    let plugin = guest
        .load_in(
            |o| o.progress = Some(tx),
            &Grants::default(),
            Secrets::default(),
        )
        .await;

    let ctx = OpContext {
        run_id: "r1".to_owned(),
        ..OpContext::default()
    };
    plugin.poll(&ctx, "{}", "").await.unwrap();

    let mut lines = Vec::new();
    while let Ok(line) = rx.try_recv() {
        assert_eq!((line.run_id.as_str(), line.percent), ("r1", Some(100)));
        lines.push(line.message);
    }
    assert_eq!(
        (
            lines.first().map(String::as_str),
            lines.last().map(String::as_str)
        ),
        (Some("0"), Some("9"))
    );
    assert!(lines.len() < 10, "{lines:?}");
}

#[tokio::test]
async fn what_only_computes_gets_no_capability() {
    let validate = "(call $connect (i32.const 1024) (i32.const 18) (i64.const 1000) (i32.const 4096)) i32.const 4096";
    let guest = Guest {
        validate,
        ..connecting("tcp:127.0.0.1:9999", "i32.const 0")
    };
    let grants = Grants {
        sockets: vec!["tcp:127.0.0.1:9999".to_owned()],
        ..Grants::default()
    };
    let plugin = guest.load_with(&grants, Secrets::default()).await;

    let error = plugin.validate_config("{}").await.unwrap_err();

    assert!(
        error.to_string().contains("which only computes an answer"),
        "{error}"
    );
}

/// Bytes in hexadecimal, as WebAssembly text writes them.
fn escaped(hex: &str) -> String {
    let bytes = hex.as_bytes().chunks(2);
    bytes
        .map(|b| format!("\\{}{}", b[0] as char, b[1] as char))
        .collect()
}

/// Traps unless the 32 bytes of the list at `list` are those at 1100.
fn compare(list: u32) -> String {
    format!(
        "(if (i32.ne (i32.load offset=4 (i32.const {list})) (i32.const 32)) (then unreachable))
        (loop $more
            (if (i32.ne (i32.load8_u (i32.add (i32.load (i32.const {list})) (local.get $i)))
                        (i32.load8_u (i32.add (i32.const 1100) (local.get $i)))) (then unreachable))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 32))))
        i32.const 0"
    )
}

const WITH_TOKEN: &str =
    r#"{"name":"stub","version":"1.0.0","capabilities":{"secrets":[{"name":"token"}]}}"#;

/// Runs `poll` in a plugin that is granted the secret `token`.
async fn poll_with_token(
    items: String,
    poll: String,
    value: &str,
) -> Result<(), plugin_host::CallError> {
    let guest = Guest {
        items,
        poll: poll.leak(),
        manifest: Some(WITH_TOKEN),
        ..Guest::default()
    };
    let grants = Grants {
        secrets: vec!["token".to_owned()],
        ..Grants::default()
    };
    let secrets: Secrets = [("token", Secret::new(value))].into_iter().collect();
    let plugin = guest.load_with(&grants, secrets).await;
    plugin
        .poll(&OpContext::default(), "{}", "")
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_secret_signs_without_being_seen_or_the_end_of_its_line() {
    // The known answer for key "Jefe" (RFC 4231, case 2); the key is the prefix "J" and the secret "efe".
    let expected = escaped("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    let items = format!(
        r#"(import "cutover:plugin/secrets@0.1.0" "get" (func $get (param i32 i32 i32)))
           (import "cutover:plugin/secrets@0.1.0" "[method]secret.hmac"
               (func $hmac (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
           (data (i32.const 1024) "token")
           (data (i32.const 1040) "J")
           (data (i32.const 1056) "what do ya want for nothing?")
           (data (i32.const 1100) "{expected}")"#
    );
    let poll = format!(
        "(local $i i32)
        (call $get (i32.const 1024) (i32.const 5) (i32.const 4096))
        (if (i32.load8_u (i32.const 4096)) (then unreachable))
        (call $hmac (i32.load (i32.const 4104)) (i32.const 1) (i32.const 1040) (i32.const 1) (i32.const 0) (i32.const 0)
            (i32.const 1056) (i32.const 28) (i32.const 5120))
        {}",
        compare(5120)
    );

    for value in ["efe", "efe\n", " efe\r\n"] {
        let outcome = poll_with_token(items.clone(), poll.clone(), value).await;
        outcome.unwrap();
    }
}

/// Hashes a text, and answers with what `digest` gave: its failure has the layout of ours.
fn hashing(text: &str, expected: &str) -> (String, String) {
    let items = format!(
        r#"(import "cutover:plugin/secrets@0.1.0" "digest" (func $digest (param i32 i32 i32 i32)))
           (data (i32.const 1100) "{}")
           (data (i32.const 1200) "{text}")"#,
        escaped(expected)
    );
    let poll = format!(
        "(local $i i32)
        (call $digest (i32.const 1) (i32.const 1200) (i32.const {}) (i32.const 4096))
        (if (i32.load8_u (i32.const 4096)) (then (return (i32.const 4096))))
        {}",
        text.len(),
        compare(4104)
    );
    (items, poll)
}

#[tokio::test]
async fn a_text_is_hashed_with_the_secret_in_it() {
    for (text, expected) in [
        // The empty text, and "abc" (FIPS 180-4).
        (
            "",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            "a{{secret:token}}c",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        // Of "aYg==c".
        (
            "a{{secret:token|base64}}c",
            "db87c52863fcbf83f055678cd75e7b842f36569281b8add79be2c4312fa58c68",
        ),
    ] {
        let (items, poll) = hashing(text, expected);
        let outcome = poll_with_token(items, poll, "b\n").await;
        assert!(outcome.is_ok(), "{text}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_text_is_hashed_only_with_secrets_that_are_granted() {
    for (text, problem) in [
        (
            "{{secret:other}}",
            "plugin `stub` may not use secret `other`: its manifest does not declare it",
        ),
        (
            "{{secret:token|rot13}}",
            "plugin `stub` wants secret `token` as `rot13`; the one form there is, is `base64`",
        ),
        (
            "{{secret:token",
            "plugin `stub` left `{{secret:` open in a text",
        ),
    ] {
        let (items, poll) = hashing(text, "");
        let error = poll_with_token(items, poll, "~~").await.unwrap_err();
        assert_eq!(error.to_string(), problem);
    }
}

#[tokio::test]
async fn a_download_gets_its_secrets_only_when_both_are_granted() {
    let manifest = r#"{"name":"stub","version":"1.0.0","capabilities":
        {"http":[{"host":"https://*"}],"secrets":[{"name":"*"}]}}"#;
    let guest = Guest {
        manifest: Some(manifest),
        ..Guest::default()
    };
    let secrets = || -> Secrets { [("token", Secret::new("hunter2\n"))].into_iter().collect() };
    let grants = Grants {
        http: vec!["https://repo.example".to_owned()],
        secrets: vec!["token".to_owned()],
        ..Grants::default()
    };
    let download = |url: &str| Download {
        url: url.to_owned(),
        headers: vec![(
            "authorization".to_owned(),
            "Bearer {{secret:token}}! {{secret:token|base64}}".to_owned(),
        )],
        expires_at: None,
        checksums: Vec::new(),
    };
    let plugin = guest.load_with(&grants, secrets()).await;
    let ungranted = guest
        .load_with(
            &Grants {
                secrets: vec![],
                ..grants
            },
            secrets(),
        )
        .await;

    let headers = plugin
        .authorise("app:1", &download("https://repo.example/app.tgz"))
        .unwrap();
    let elsewhere = plugin
        .authorise("app:1", &download("https://evil.example/app.tgz"))
        .unwrap_err();
    let named = plugin.authorise(
        "https://other.example/a#sha256=0",
        &download("https://other.example/a"),
    );
    let without = ungranted
        .authorise("app:1", &download("https://repo.example/app.tgz"))
        .unwrap_err();
    let folder = plugin
        .authorise("app:1", &download("file:///etc/passwd"))
        .unwrap_err();

    let beside = |url: &str| Checksum {
        url: url.to_owned(),
        headers: vec![("x".to_owned(), "{{secret:token}}".to_owned())],
        file_name: "a".to_owned(),
        needed: false,
    };
    let other = download("https://other.example/a");
    let sums = plugin
        .authorise_checksum(&other, &beside("https://other.example/SHA256SUMS"))
        .unwrap();
    let far = plugin
        .authorise_checksum(&other, &beside("https://evil.example/SHA256SUMS"))
        .unwrap_err();

    assert_eq!(headers[0].1.expose(), b"Bearer hunter2! aHVudGVyMg==");
    assert_eq!(sums[0].1.expose(), b"hunter2");
    assert!(far.failure().unwrap().hint.is_some());
    assert_eq!(
        elsewhere.failure().unwrap().hint.as_deref(),
        Some(r#"plugins.stub.grants.http: ["https://evil.example"]"#)
    );
    assert!(named.is_ok());
    assert_eq!(
        without.failure().unwrap().hint.as_deref(),
        Some(r#"plugins.stub.grants.secrets: ["token"]"#)
    );
    assert!(
        folder.to_string().contains("in no granted directory"),
        "{folder}"
    );
}

/// The part of WASI that a panic message comes through.
const WASI: [&str; 2] = [
    "package wasi:io@0.2.0;
    interface error { resource error; }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
    }",
    "package wasi:cli@0.2.0;
    interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }",
];

#[tokio::test]
async fn what_a_wasi_component_writes_to_stderr_comes_with_its_trap() {
    let items = r#"
        (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
            (func $write (param i32 i32 i32 i32)))
        (data (i32.const 1024) "thread panicked\nat lib.rs")"#;
    let register =
        "(call $write (call $stderr) (i32.const 1024) (i32.const 25) (i32.const 4096)) unreachable";
    let guest = Guest {
        items: items.to_owned(),
        register,
        ..Guest::default()
    };
    let world =
        "package test:guest; world guest { include cutover:load-balancer/load-balancer@0.1.0;
        import wasi:cli/stderr@0.2.0; import wasi:io/streams@0.2.0; }";
    let root = tempfile::tempdir().unwrap();
    let bytes = encode_with(&guest.module(), &WASI, world);
    let plugin = load_bytes(
        root.path(),
        &bytes,
        |_| {},
        &Grants::default(),
        Secrets::default(),
    )
    .await
    .unwrap();

    let error = plugin
        .register(&OpContext::default(), "{}", &Default::default(), &[])
        .await
        .unwrap_err();

    let failure = error.failure().unwrap();
    assert_eq!(failure.code, "host.trap");
    assert_eq!(
        failure.output.as_deref(),
        Some("thread panicked\nat lib.rs")
    );
}
