//! A hostile component: what it gets to know of the secrets that it signs with, down to its whole memory, and what it can
//! ask of the servers that it was granted.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use hmac::{Hmac, KeyInit as _, Mac as _};
use plugin_host::{Access, DirectoryGrant, Grants, Host, HostOptions, OpContext, Secret, Secrets};
use sha2::{Digest as _, Sha256};

/// What is granted, and in files with a line feed at the end.
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "IQoJb3JpZ2luX2VjEXAMPLE//token+with/slashes==";
/// What the configuration gives to the component, which is in memory for sure.
const CONTROL: &str = "control-7f3a9c2e51d8";

/// A server that sends back what it is sent, headers and all, in headers and in the body.
struct Echo {
    address: SocketAddr,
    /// What came, in the order in which it came.
    requests: mpsc::Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

const END: &str = "the test is over";

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                let request = answer(&mut connection.unwrap());
                let is_over = request.contains(END);
                if is_over || sender.send(request).is_err() {
                    break;
                }
            }
        });
        Self {
            address,
            requests,
            thread: Some(thread),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let mut connection = TcpStream::connect(self.address).unwrap();
        let _ = write!(connection, "GET / HTTP/1.1\r\nx-end: {END}\r\n\r\n");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads one request and sends it back.
fn answer(connection: &mut TcpStream) -> String {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse().unwrap();
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = format!(
        "{}\n\n{}",
        head.join("\n"),
        String::from_utf8(body).unwrap()
    );
    let echoes: String = head
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| format!("echo-{name}: {value}\r\n"))
        .collect();
    let _ = write!(
        connection,
        "HTTP/1.1 200 OK\r\n{echoes}content-length: {}\r\nconnection: close\r\n\r\n{request}",
        request.len()
    );
    request
}

struct Pried {
    /// The component's memory after the call.
    memory: Vec<u8>,
    /// What it learned.
    seen: String,
    /// What it sent.
    sent: Vec<String>,
}

impl Pried {
    fn remembers(&self, text: &str) -> bool {
        let mut places = self.memory.windows(text.len());
        places.any(|place| place == text.as_bytes())
    }
}

/// Lets the component do what it does.
async fn pry() -> Pried {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/components");
    let components = std::env::var_os("CUTOVER_TEST_COMPONENTS").map_or_else(built, PathBuf::from);
    let path = components.join("prying.wasm");
    assert!(
        path.exists(),
        "run `cargo xtask components` first: there is no `{}`",
        path.display()
    );
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("memory");
    std::fs::create_dir(&directory).unwrap();
    let echo = Echo::start();
    let grants = Grants {
        http: vec![echo.url()],
        directories: vec![DirectoryGrant {
            name: "memory".to_owned(),
            path: directory.clone(),
            access: Access::ReadWrite,
        }],
        secrets: vec!["secret-key".to_owned(), "session-token".to_owned()],
        ..Grants::default()
    };
    let secrets: Secrets = [("secret-key", KEY), ("session-token", TOKEN)]
        .into_iter()
        .map(|(name, value)| (name, Secret::new(format!("{value}\n"))))
        .collect();
    let host = Host::new(HostOptions::new(root.path().join("compiled"))).unwrap();
    let plugin = host
        .load("prying".parse().unwrap(), &path, &grants, secrets)
        .await
        .unwrap();

    let config = serde_json::json!({"url": echo.url(), "control": CONTROL}).to_string();
    plugin
        .poll(&OpContext::default(), &config, "")
        .await
        .unwrap();

    Pried {
        memory: std::fs::read(directory.join("dump")).unwrap(),
        seen: std::fs::read_to_string(directory.join("seen")).unwrap(),
        sent: echo.requests.try_iter().collect(),
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

#[tokio::test]
async fn neither_the_key_nor_the_token_is_ever_in_the_memory_of_what_signs_with_them() {
    let pried = pry().await;

    // The search finds what is there: what the component was given, and what it made.
    for present in [
        CONTROL,
        "AKIDEXAMPLE",
        "AWS4-HMAC-SHA256",
        "{{secret:session-token}}",
    ] {
        assert!(pried.remembers(present), "`{present}` is not in memory");
    }
    assert!(pried.memory.len() > 1 << 20, "{}", pried.memory.len());
    for secret in [KEY, TOKEN] {
        let halves = secret.split_at(secret.len() / 2);
        for form in [secret, halves.0, halves.1, &base64(secret)] {
            assert!(!pried.remembers(form), "`{form}` is in memory");
        }
        let reversed: String = secret.chars().rev().collect();
        assert!(!pried.remembers(&reversed));
    }
}

#[tokio::test]
async fn requests_go_out_signed_with_the_token_in_its_place() {
    let pried = pry().await;

    assert_eq!(pried.sent.len(), 4, "{:#?}", pried.sent);
    for (request, algorithm, token) in [
        (
            &pried.sent[0],
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/",
            TOKEN,
        ),
        (
            &pried.sent[1],
            "JDCLOUD3-HMAC-SHA256 Credential=AKIDEXAMPLE/",
            &base64(TOKEN),
        ),
        (
            &pried.sent[2],
            "SDK-HMAC-SHA256 Access=AKIDEXAMPLE, ",
            TOKEN,
        ),
    ] {
        for part in [algorithm, "-security-token, Signature=", token] {
            assert!(request.contains(part), "`{part}` is not in {request}");
        }
    }
    // The server knows the key, and sees the token: what it makes of both is what the component made of neither.
    let huawei = &pried.sent[2];
    assert_eq!(signature_of(huawei), huawei_signature(huawei), "{huawei}");
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let mut lines = request.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no `{name}` in {request}"))
}

fn signature_of(request: &str) -> &str {
    let (_, signature) = header(request, "authorization")
        .rsplit_once("Signature=")
        .unwrap();
    signature
}

/// The signature that a server of Huawei's would compute for a request without a path and a query.
fn huawei_signature(request: &str) -> String {
    let authorization = header(request, "authorization");
    let (_, names) = authorization.split_once("SignedHeaders=").unwrap();
    let (names, _) = names.split_once(',').unwrap();
    let headers: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", header(request, name)))
        .collect();
    let (_, body) = request.split_once("\n\n").unwrap();
    let hash = |text: &str| hex(&Sha256::digest(text));
    let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", hash(body));
    let at = header(request, "x-sdk-date");
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("SDK-HMAC-SHA256\n{at}\n{}", hash(&canonical)).as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_hostile_component_does_not_get_to_see_what_it_signs_with() {
    let pried = pry().await;

    let seen = &pried.seen;
    assert!(
        seen.contains("reveal FailureClass::Unsupported host.unsupported"),
        "{seen}"
    );
    assert!(seen.contains("name secret-key version "), "{seen}");
    // The server got the secrets and sent them back, in headers and in its body.
    let echo = pried.sent.last().unwrap();
    for form in [KEY.to_owned(), format!("{KEY}{TOKEN}"), base64(KEY)] {
        assert!(echo.contains(&form), "{echo}");
    }
    for line in [
        "echo echo-x-plain: [redacted]",
        "echo echo-x-twice: [redacted][redacted]",
        "echo echo-x-base64: [redacted]",
    ] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    // Only headers have places for secrets.
    assert!(
        echo.starts_with("POST /?q={{secret:secret-key}} "),
        "{echo}"
    );
    assert!(echo.ends_with("\n\n{{secret:secret-key}}"), "{echo}");
    assert!(
        seen.contains("half plugin `prying` wants secret `secret-key` as `half`"),
        "{seen}"
    );
    for secret in [KEY, TOKEN] {
        assert!(!seen.contains(secret), "{seen}");
        assert!(!seen.contains(&base64(secret)), "{seen}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let pried = pry().await;

    for (what, problem) in [
        (
            "many",
            "/`: it has more than 100 headers, or 32768 bytes of them",
        ),
        (
            "long",
            "/`: it has more than 100 headers, or 32768 bytes of them",
        ),
        ("large", "/`: its body has more than 4194304 bytes"),
    ] {
        let line = pried.seen.lines().find(|line| line.starts_with(what));
        let line = line.unwrap_or_default();
        assert!(line.ends_with(problem), "{what}: {line}");
    }
    assert!(!pried.sent.iter().any(|request| request.contains("x-100: ")));
}
