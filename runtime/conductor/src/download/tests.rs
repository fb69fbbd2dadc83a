//! Downloads from servers that break off, redirect, and change what they have.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use plugin_host::{Proxies, Secret};

use super::request::MOST_REDIRECTS;
use super::*;
use crate::fetch::{Place, Renew};
use crate::plan::chain;
use crate::progress::Progress;

/// A web server that gives one answer after another and keeps what it was asked.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    /// Every answer is written as it is; then the connection is closed.
    fn start(host: &str, answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut connection, _) = listener.accept().unwrap();
                let reading = BufReader::new(connection.try_clone().unwrap());
                let head = reading.lines().map_while(Result::ok);
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                asked.push(head.join("\n").to_ascii_lowercase());
                let _ = connection.write_all(&answer);
            }
            asked
        });
        Self { address, thread }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = head.replace('\n', "\r\n");
    let mut answer = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").into_bytes();
    answer.extend(body);
    answer
}

fn redirect(to: &str) -> Vec<u8> {
    answer(
        &format!("302 Found\nlocation: {to}\ncontent-length: 0"),
        b"",
    )
}

struct Bench {
    folder: tempfile::TempDir,
    granted: Option<String>,
    told: Arc<Mutex<Vec<Progress>>>,
    most_bytes: u64,
    network: Arc<Network>,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            granted: None,
            told: Arc::default(),
            most_bytes: 1 << 20,
            network: Arc::default(),
        }
    }

    fn download(&self, url: &str) -> Result<String, String> {
        self.bring(&Place::of(url), None, &[])?;
        self.partial().clear().unwrap();
        Ok(String::from_utf8(self.whole()).unwrap())
    }

    /// The archive on its way, as another process sees it.
    fn partial(&self) -> Partial {
        Partial::open(self.folder.path().join("download")).unwrap()
    }

    fn bring(
        &self,
        place: &Place,
        renew: Option<&Renew<'_>>,
        known: &[&str],
    ) -> Result<Outcome, String> {
        let (granted, told) = (self.granted.clone(), self.told.clone());
        let rules = Rules {
            most_bytes: self.most_bytes,
            grant: Arc::new(move |url| match &granted {
                Some(granted) if url.starts_with(granted) => Ok(()),
                _ => Err("plugins.x.grants.http: […]".to_owned()),
            }),
            progress: Arc::new(move |progress| told.lock().unwrap().push(progress.clone())),
            network: Arc::clone(&self.network),
        };
        let place = Place {
            headers: vec![("x-secret".to_owned(), Secret::new(b"hunter2".to_vec()))],
            ..place.clone()
        };
        let known: Vec<_> = known.iter().map(ToString::to_string).collect();
        let job = Job {
            place: &place,
            renew,
            rules: &rules,
            known: &known,
        };
        let partial = self.partial();
        let outcome = download(&job, &partial).map_err(|error| chain(&error))?;
        if let Outcome::Here(_) = outcome {
            std::fs::copy(partial.archive(), self.folder.path().join("whole")).unwrap();
        }
        Ok(outcome)
    }

    fn whole(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("whole")).unwrap()
    }

    fn urls_told(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let urls = told.iter().map(|progress| match progress {
            Progress::Download { url, .. } => url.clone(),
            other => panic!("{other:?}"),
        });
        urls.collect()
    }
}

const FIRST: &str = "200 OK\netag: \"one\"\ncontent-length: 10";

#[test]
fn a_broken_download_goes_on_where_it_broke_off() {
    let server = Server::start(
        "127.0.0.1",
        vec![
            answer(FIRST, b"0123"),
            answer(
                "206 Partial Content\ncontent-range: bytes 4-9/10\ncontent-length: 6",
                b"456",
            ),
            answer(
                "206 Partial Content\ncontent-range: bytes 7-9/10\ncontent-length: 3",
                b"789",
            ),
        ],
    );
    let bench = Bench::new();

    let url = server.url("/a.tgz");

    let content = bench.download(&url).unwrap();

    assert_eq!(content, "0123456789");
    let asked = server.asked();
    assert!(!asked[0].contains("range:"));
    assert!(asked[1].contains("\nrange: bytes=4-") && asked[1].contains("if-range: \"one\""));
    assert!(asked[2].contains("\nrange: bytes=7-"));
    let last = bench.told.lock().unwrap().last().cloned();
    let whole = Progress::Download {
        url,
        done: 10,
        total: Some(10),
    };
    assert_eq!(last, Some(whole));
}

#[test]
fn what_changed_meanwhile_is_fetched_from_its_beginning() {
    let server = Server::start(
        "127.0.0.1",
        vec![
            answer(FIRST, b"0123"),
            answer("200 OK\netag: \"two\"\ncontent-length: 5", b"other"),
        ],
    );

    assert_eq!(Bench::new().download(&server.url("/a")).unwrap(), "other");
}

#[test]
fn without_a_tag_nothing_is_pieced_together() {
    for head in [
        "200 OK\ncontent-length: 10",
        "200 OK\netag: W/\"weak\"\ncontent-length: 10",
    ] {
        let answers = vec![answer(head, b"0123"), answer(head, b"0123456789")];
        let server = Server::start("127.0.0.1", answers);

        let content = Bench::new().download(&server.url("/a")).unwrap();

        assert_eq!(content, "0123456789");
        assert!(!server.asked()[1].contains("range:"));
    }
}

#[test]
fn another_range_than_the_one_asked_for_is_not_taken() {
    let server = Server::start(
        "127.0.0.1",
        vec![
            answer(FIRST, b"0123"),
            answer(
                "206 Partial Content\ncontent-range: bytes 3-9/10\ncontent-length: 7",
                b"3456789",
            ),
            answer("200 OK\ncontent-length: 10", b"0123456789"),
        ],
    );

    let content = Bench::new().download(&server.url("/a")).unwrap();

    assert_eq!(content, "0123456789");
}

#[test]
fn a_server_that_never_gives_more_is_left() {
    let answers = vec![answer("200 OK\ncontent-length: 10", b""); 3];
    let server = Server::start("127.0.0.1", answers);

    let error = Bench::new().download(&server.url("/a")).unwrap_err();

    assert!(error.contains(&server.url("/a")), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn redirects_are_followed_and_secrets_stay_where_they_belong() {
    let other = Server::start(
        "127.0.0.1",
        vec![answer("200 OK\ncontent-length: 2", b"ok")],
    );
    let server = Server::start(
        "127.0.0.1",
        vec![redirect("/moved?x=1"), redirect(&other.url("/a"))],
    );

    assert_eq!(Bench::new().download(&server.url("/a")).unwrap(), "ok");

    let asked = server.asked();
    assert!(asked[0].contains("x-secret: hunter2"));
    assert!(asked[1].starts_with("get /moved?x=1 ") && asked[1].contains("x-secret: hunter2"));
    assert!(!other.asked()[0].contains("x-secret"));
}

#[test]
fn redirects_are_bounded() {
    let server = Server::start("127.0.0.1", vec![redirect("/again"); MOST_REDIRECTS + 1]);

    let error = Bench::new().download(&server.url("/a")).unwrap_err();

    assert!(error.contains("too many redirects"), "{error}");
}

#[test]
fn a_redirect_does_not_reach_what_the_operator_did_not_name() {
    let inner = TcpListener::bind("127.0.0.2:0").unwrap();
    let inner_url = format!("http://{}/secret", inner.local_addr().unwrap());
    let port = inner.local_addr().unwrap().port();
    for (to, expected) in [
        (inner_url, "this machine itself"),
        (format!("http://localhost:{port}/"), "this machine itself"),
        (
            "http://[::ffff:127.0.0.2]/".to_owned(),
            "this machine itself",
        ),
        ("http://10.1.2.3/".to_owned(), "a private network"),
        (
            "//169.254.169.254/latest/meta-data".to_owned(),
            "their credentials",
        ),
        ("http://0.0.0.0/".to_owned(), "no address of a server"),
        (
            "file:///etc/passwd".to_owned(),
            "that is no http or https address",
        ),
        (
            "http://user@127.0.0.1/".to_owned(),
            "that is no http or https address",
        ),
    ] {
        let server = Server::start("127.0.0.1", vec![redirect(&to)]);

        let error = Bench::new().download(&server.url("/a")).unwrap_err();

        assert!(error.contains(expected), "{to}: {error}");
    }
    inner.set_nonblocking(true).unwrap();
    assert!(inner.accept().is_err(), "nobody came");
}

#[test]
fn a_grant_opens_a_private_host_and_never_the_credentials() {
    let inner = Server::start(
        "127.0.0.2",
        vec![answer("200 OK\ncontent-length: 2", b"ok")],
    );
    let server = Server::start("127.0.0.1", vec![redirect(&inner.url("/a"))]);
    let mut bench = Bench::new();
    bench.granted = Some("http://".to_owned());

    assert_eq!(bench.download(&server.url("/a")).unwrap(), "ok");

    let error = bench.download("http://169.254.169.254/latest").unwrap_err();
    assert!(error.contains("their credentials"), "{error}");
}

#[test]
fn the_limit_holds_whatever_the_server_says() {
    let mut bench = Bench::new();
    bench.most_bytes = 9;
    for head in ["200 OK\ncontent-length: 10", "200 OK"] {
        let server = Server::start("127.0.0.1", vec![answer(head, b"0123456789")]);

        let error = bench.download(&server.url("/a")).unwrap_err();

        assert!(error.contains("larger than 9 bytes"), "{error}");
    }
}

/// A web server that has one content at a time and gives ranges of it, one request a connection.
struct Store {
    address: SocketAddr,
    shared: Arc<Shelf>,
}

struct Shelf {
    on_it: Mutex<(Arc<Vec<u8>>, &'static str)>,
    asked: Mutex<Vec<Asked>>,
    rung: Condvar,
    /// What to do with a request beside giving what it asks for.
    does: Box<Doing>,
}

type Doing = dyn Fn(&Shelf, &Asked) -> Does + Send + Sync;

#[derive(Debug, Clone)]
struct Asked {
    /// From 0.
    number: usize,
    line: String,
    range: Option<(usize, Option<usize>)>,
    if_range: Option<String>,
}

enum Does {
    Give,
    /// Breaks the connection off when so many bytes have gone.
    Break(usize),
    /// Gives so many bytes, and the rest when further requests have come, so many in all.
    Hold(usize, usize),
    Answer(&'static str),
}

impl Store {
    fn start(
        content: Vec<u8>,
        does: impl Fn(&Shelf, &Asked) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shelf {
            on_it: Mutex::new((Arc::new(content), "\"one\"")),
            asked: Mutex::default(),
            rung: Condvar::new(),
            does: Box::new(does),
        });
        let shelf = shared.clone();
        // It ends with the test's process: nobody waits for it.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shelf = shelf.clone();
                thread::spawn(move || shelf.serve(connection));
            }
        });
        Self { address, shared }
    }

    fn place(&self) -> Place {
        Place::of(&format!("http://{}/a.tgz", self.address))
    }

    fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Shelf {
    fn serve(&self, mut connection: TcpStream) {
        let reading = BufReader::new(connection.try_clone().unwrap());
        let head = reading.lines().map_while(Result::ok);
        let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
        let value = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(": "));
            let mut of_name = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            of_name.next().map(|(_, value)| value.to_owned())
        };
        let range = value("range").map(|range| {
            let (from, to) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            (from.parse().unwrap(), to.parse().ok())
        });
        let asked = {
            let mut all = self.asked.lock().unwrap();
            let number = all.len();
            all.push(Asked {
                number,
                line: head.first().cloned().unwrap_or_default(),
                range,
                if_range: value("if-range"),
            });
            self.rung.notify_all();
            all.last().unwrap().clone()
        };
        let does = (self.does)(self, &asked);
        let (content, tag) = self.on_it.lock().unwrap().clone();
        let range = range.filter(|_| asked.if_range.as_deref().is_none_or(|it| it == tag));
        let (status, from, to) = match range {
            None => ("200 OK", 0, content.len()),
            Some((from, to)) => {
                let to = to.map_or(content.len(), |to| to + 1);
                ("206 Partial Content", from, to)
            }
        };
        let head = format!(
            "{status}\netag: {tag}\naccept-ranges: bytes\ncontent-range: bytes {from}-{}/{}\ncontent-length: {}",
            to - 1,
            content.len(),
            to - from
        );
        let _ = match does {
            Does::Answer(text) => connection.write_all(&answer(text, b"")),
            Does::Give => connection
                .write_all(&answer(&head, b""))
                .and_then(|()| connection.write_all(&content[from..to])),
            Does::Break(at) => connection
                .write_all(&answer(&head, b""))
                .and_then(|()| connection.write_all(&content[from..to.min(from + at)])),
            Does::Hold(at, requests) => {
                let begun = connection
                    .write_all(&answer(&head, b""))
                    .and_then(|()| connection.write_all(&content[from..from + at]));
                self.wait_for(requests);
                begun.and_then(|()| connection.write_all(&content[from + at..to]))
            }
        };
    }

    fn wait_for(&self, requests: usize) {
        let asked = self.asked.lock().unwrap();
        let limit = std::time::Duration::from_secs(20);
        let is_short = |asked: &mut Vec<Asked>| asked.len() < requests;
        drop(
            self.rung
                .wait_timeout_while(asked, limit, is_short)
                .unwrap(),
        );
    }
}

const MIB: usize = 1 << 20;

/// Bytes of which no two stretches are the same.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let bytes = (0..length).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(seed);
        (state >> 56) as u8
    });
    bytes.collect()
}

fn roomy() -> Bench {
    Bench {
        most_bytes: 1 << 30,
        ..Bench::new()
    }
}

#[test]
fn several_connections_bring_a_large_archive() {
    let large = content(32 * MIB, 1);
    let store = Store::start(large.clone(), |_, asked| match asked.number {
        0 => Does::Hold(MIB, 4),
        _ => Does::Give,
    });
    let bench = roomy();

    let outcome = bench.bring(&store.place(), None, &[]).unwrap();

    assert_eq!(outcome, Outcome::Here(Some("\"one\"".to_owned())));
    assert!(bench.whole() == large, "it is pieced together as it was");
    let asked = store.asked();
    assert!(asked[0].range.is_none());
    assert!(
        asked[1..4]
            .iter()
            .all(|asked| asked.range.is_some_and(|(_, to)| to.is_some())
                && asked.if_range.as_deref() == Some("\"one\""))
    );
    let last = bench.told.lock().unwrap().last().cloned();
    let whole = Progress::Download {
        url: store.place().url,
        done: large.len() as u64,
        total: Some(large.len() as u64),
    };
    assert_eq!(last, Some(whole));
}

#[test]
fn connections_that_break_off_are_taken_up_each_where_it_broke() {
    let large = content(24 * MIB, 2);
    let store = Store::start(large.clone(), |_, asked| match asked.number {
        0 => Does::Hold(3 * MIB + 5, 4),
        number if number % 2 == 1 => Does::Break(MIB + number),
        _ => Does::Give,
    });
    let bench = roomy();

    bench.bring(&store.place(), None, &[]).unwrap();

    assert!(bench.whole() == large);
}

#[test]
fn a_server_that_wants_one_connection_gets_one() {
    let large = content(20 * MIB, 3);
    let store = Store::start(large.clone(), |_, asked| match asked.range {
        None => Does::Hold(MIB, 4),
        Some(_) => Does::Answer("503 Service Unavailable\ncontent-length: 0"),
    });
    let bench = roomy();

    bench.bring(&store.place(), None, &[]).unwrap();

    assert!(bench.whole() == large);
}

#[test]
fn what_changes_while_many_bring_it_is_brought_anew() {
    let (old, new) = (content(24 * MIB, 4), content(20 * MIB, 5));
    let next = Arc::new(new.clone());
    let store = Store::start(old, move |shelf, asked| {
        if asked.number == 2 {
            *shelf.on_it.lock().unwrap() = (next.clone(), "\"two\"");
        }
        match asked.number {
            0 => Does::Hold(MIB, 3),
            _ => Does::Give,
        }
    });
    let bench = roomy();

    let outcome = bench.bring(&store.place(), None, &[]).unwrap();

    assert_eq!(outcome, Outcome::Here(Some("\"two\"".to_owned())));
    assert!(bench.whole() == new, "nothing of the old is in it");
}

#[test]
fn what_an_earlier_download_left_is_gone_on_with_unless_it_changed() {
    for changes in [false, true] {
        let first = content(3 * MIB, 6);
        let second = if changes {
            content(3 * MIB, 7)
        } else {
            first.clone()
        };
        let store = Store::start(first, |_, asked| match asked.number {
            0 => Does::Break(2 * MIB + 7),
            1 => Does::Answer("403 Forbidden\ncontent-length: 0"),
            _ => Does::Give,
        });
        let bench = roomy();
        bench.bring(&store.place(), None, &[]).unwrap_err();
        assert!(bench.partial().has_some());
        if changes {
            *store.shared.on_it.lock().unwrap() = (Arc::new(second.clone()), "\"two\"");
        }

        bench.bring(&store.place(), None, &[]).unwrap();

        assert!(bench.whole() == second, "changes: {changes}");
        assert_eq!(store.asked()[2].range, Some((2 * MIB + 7, None)));
    }
}

#[test]
fn an_address_that_expires_on_the_way_is_asked_for_anew_and_never_told() {
    let whole = content(2 * MIB, 8);
    let store = Store::start(whole.clone(), |_, asked| {
        match (asked.number, asked.line.contains("sign=second")) {
            (0, _) => Does::Break(MIB),
            (_, false) => Does::Answer("403 Forbidden\ncontent-length: 0"),
            (_, true) => Does::Give,
        }
    });
    let signed = |sign: &str| Place {
        url: format!("{}?sign={sign}", store.place().url),
        expires_at: Some(model::Timestamp(i64::MAX)),
        ..store.place()
    };
    let bench = roomy();
    let renew = || Ok(signed("second"));

    bench.bring(&signed("first"), Some(&renew), &[]).unwrap();

    assert!(bench.whole() == whole);
    assert_eq!(store.asked()[2].range, Some((MIB, None)), "it goes on");
    assert!(
        bench
            .urls_told()
            .iter()
            .all(|url| *url == store.place().url)
    );

    let wrong = || Ok(signed("third"));
    bench.partial().clear().unwrap();
    let error = bench
        .bring(&signed("third"), Some(&wrong), &[])
        .unwrap_err();
    assert!(error.contains("403 Forbidden"), "{error}");
    assert!(!error.contains("sign="), "{error}");
    assert_eq!(store.asked().len(), 5, "fresh from the plugin, once");
}

#[test]
fn an_address_that_is_over_by_the_clock_is_not_asked() {
    let store = Store::start(b"content".to_vec(), |_, _| Does::Give);
    let signed = |sign: &str, at| Place {
        url: format!("{}?sign={sign}", store.place().url),
        expires_at: Some(model::Timestamp(at)),
        ..store.place()
    };
    let renew = || Ok(signed("second", i64::MAX));

    roomy()
        .bring(&signed("first", 1), Some(&renew), &[])
        .unwrap();

    let asked = store.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].line.contains("sign=second"), "{asked:?}");
}

#[test]
fn what_is_here_already_is_not_sent_again() {
    let server = Server::start(
        "127.0.0.1",
        vec![answer("304 Not Modified\netag: \"two\"", b"")],
    );

    let outcome = Bench::new().bring(&Place::of(&server.url("/a")), None, &["\"one\"", "\"two\""]);

    assert_eq!(outcome, Ok(Outcome::Unchanged("\"two\"".to_owned())));
    assert!(server.asked()[0].contains("if-none-match: \"one\", \"two\""));
}

#[test]
fn what_is_not_what_was_looked_up_is_told_of() {
    let server = Server::start(
        "127.0.0.1",
        vec![answer("412 Precondition Failed\ncontent-length: 0", b"")],
    );

    let error = Bench::new().download(&server.url("/a")).unwrap_err();

    assert!(error.contains("does not have what it had"), "{error}");
}

#[test]
fn what_an_object_storage_says_of_a_refusal_is_told() {
    let said = b"<Error><Code>NoSuchKey</Code><Message>There is none</Message><RequestId>17</RequestId></Error>";
    let head = format!("404 Not Found\ncontent-length: {}", said.len());
    let server = Server::start("127.0.0.1", vec![answer(&head, said)]);

    let error = Bench::new().download(&server.url("/a")).unwrap_err();

    let expected =
        "the server answered with 404 Not Found: NoSuchKey: There is none (request id 17)";
    assert!(error.contains(expected), "{error}");
}

/// A proxy that takes one `CONNECT`, and answers the request that comes through it in the server's place.
fn tunnel(answer: Vec<u8>) -> (SocketAddr, JoinHandle<[String; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
        let mut head = || {
            let head = lines.by_ref().map_while(Result::ok);
            let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
            head.join("\n").to_ascii_lowercase()
        };
        let connect = head();
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let asked = head();
        connection.write_all(&answer).unwrap();
        [connect, asked]
    });
    (address, thread)
}

fn through(proxy: String) -> Arc<Network> {
    let proxies = Proxies::from_variables(|name| (name == "http_proxy").then(|| proxy.clone()));
    Arc::new(Network::new(None, proxies))
}

#[test]
fn a_download_goes_through_the_proxy_that_the_environment_names() {
    let (address, proxy) = tunnel(answer("200 OK\ncontent-length: 2", b"ok"));
    let bench = Bench {
        network: through(format!("http://{address}")),
        ..Bench::new()
    };

    // Nobody here knows the name: the proxy does.
    let content = bench.download("http://packages.example/a.tgz").unwrap();

    assert_eq!(content, "ok");
    let [connect, asked] = proxy.join().unwrap();
    assert!(
        connect.starts_with("connect packages.example:80 "),
        "{connect}"
    );
    assert!(!connect.contains("hunter2"), "{connect}");
    assert!(asked.starts_with("get /a.tgz "), "{asked}");
    assert!(asked.contains("x-secret: hunter2"), "{asked}");
}

#[test]
fn what_the_environment_says_wrongly_is_an_error_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("roots.pem");
    std::fs::write(&empty, "").unwrap();
    let roots = format!("read the further roots in `{}`", empty.display());
    for (network, problem) in [
        (
            through("socks5://proxy:1080".to_owned()),
            "the environment variable `http_proxy` names a proxy of another kind than HTTP",
        ),
        (
            Arc::new(Network::new(Some(empty), Proxies::default())),
            roots.as_str(),
        ),
    ] {
        let bench = Bench {
            network,
            ..Bench::new()
        };

        let error = bench.download("http://127.0.0.1:1/a.tgz").unwrap_err();

        assert!(error.contains(problem), "{error}");
        assert!(!error.contains("tries"), "{error}");
    }
}
