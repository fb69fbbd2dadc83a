//! Downloading one archive over HTTP: hop by hop through redirects, and on from where a connection broke off.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_host::address::{Checked, Reach, Refused};
use ureq::http::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use crate::digests::{Digests, Stated};
use crate::fetch::{FetchError, Place};
use crate::progress::{OnProgress, Progress};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often it is tried again without a byte having come.
const TRIES: u32 = 3;
/// How often it is taken up again in all.
const MOST_RESUMES: u32 = 50;
/// How long to wait before the first further try; twice as long before the next.
const PAUSE: Duration = Duration::from_millis(200);
const MOST_REDIRECTS: usize = 10;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// Whether the operator granted a URL, or else the line that would.
pub(crate) type Grant = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What a download goes by.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) most_bytes: u64,
    pub(crate) grant: Grant,
    pub(crate) progress: OnProgress,
}

/// Brings the archive at a place into a file, and says what it digests to.
pub(crate) fn download(
    place: &Place,
    rules: &Rules,
    stated: &Stated,
    to: &Path,
) -> Result<Digests, FetchError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(to)
        .map_err(|source| stored(place, source))?;
    let mut transfer = Transfer {
        place,
        rules,
        file,
        stated,
        digests: stated.digests(),
        received: 0,
        total: None,
        validator: None,
        until: Instant::now() + WHOLE_TIMEOUT,
        told: None,
    };
    let (mut fruitless, mut resumes) = (0, 0);
    loop {
        let before = transfer.received;
        let error = match transfer.go_on() {
            Ok(()) => return Ok(transfer.digests),
            Err(error) => error,
        };
        fruitless = if transfer.received > before {
            0
        } else {
            fruitless + 1
        };
        resumes += 1;
        if !is_transient(&error) || fruitless >= TRIES || resumes > MOST_RESUMES {
            return Err(error);
        }
        tracing::debug!(
            url = place.url,
            bytes_done = transfer.received,
            %error,
            "a download broke off and is taken up again"
        );
        std::thread::sleep(PAUSE * 2_u32.pow(fruitless));
    }
}

fn stored(place: &Place, source: io::Error) -> FetchError {
    FetchError::Store {
        reference: place.url.clone(),
        source,
    }
}

fn failed(url: &str, source: ureq::Error) -> FetchError {
    FetchError::Download {
        url: url.to_owned(),
        source: Box::new(source),
    }
}

fn is_transient(error: &FetchError) -> bool {
    match error {
        FetchError::BrokenOff { .. } => true,
        FetchError::Download { source, .. } => match &**source {
            ureq::Error::StatusCode(status) => matches!(*status, 408 | 425 | 429 | 500..),
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
            ureq::Error::Protocol(_) | ureq::Error::BodyStalled => true,
            _ => false,
        },
        _ => false,
    }
}

struct Transfer<'a> {
    place: &'a Place,
    rules: &'a Rules,
    file: File,
    stated: &'a Stated,
    /// Of the bytes in the file.
    digests: Digests,
    received: u64,
    total: Option<u64>,
    /// What tells that the rest belongs to the beginning.
    validator: Option<String>,
    until: Instant,
    told: Option<Instant>,
}

impl Transfer<'_> {
    /// Asks for what is missing, and writes what comes.
    fn go_on(&mut self) -> Result<(), FetchError> {
        if self.received > 0 && self.validator.is_none() {
            self.start_again()?;
        }
        let (url, response) = self.request()?;
        let status = response.status();
        let length = response.body().content_length();
        if status == StatusCode::PARTIAL_CONTENT && self.received > 0 {
            if range_start(response.headers()) != Some(self.received) {
                self.validator = None;
                return Err(self.broken_off());
            }
            self.total = self.total.or(length.map(|length| self.received + length));
        } else if status == StatusCode::RANGE_NOT_SATISFIABLE && self.received > 0 {
            self.validator = None;
            return Err(self.broken_off());
        } else if status == StatusCode::OK {
            self.start_again()?;
            self.total = length;
            self.validator = validator(response.headers());
        } else {
            return Err(failed(&url, ureq::Error::StatusCode(status.as_u16())));
        }
        if self
            .total
            .is_some_and(|total| total > self.rules.most_bytes)
        {
            return Err(self.too_large());
        }
        self.take(&url, response)
    }

    fn take(&mut self, url: &str, response: Response<Body>) -> Result<(), FetchError> {
        let body = response.into_body();
        let mut body = body.into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(url, ureq::Error::Io(error))),
            };
            if self.received + read as u64 > self.rules.most_bytes {
                return Err(self.too_large());
            }
            self.file
                .write_all(&buffer[..read])
                .map_err(|source| stored(self.place, source))?;
            self.digests.update(&buffer[..read]);
            self.received += read as u64;
            self.tell();
        }
        match self.total {
            Some(total) if total != self.received => Err(self.broken_off()),
            _ => Ok(()),
        }
    }

    fn tell(&mut self) {
        let at = Instant::now();
        let is_whole = self.total == Some(self.received);
        if !is_whole && self.told.is_some_and(|told| at - told < TELL) {
            return;
        }
        self.told = Some(at);
        tracing::debug!(
            url = self.place.url,
            bytes_done = self.received,
            bytes_total = self.total,
            "downloading"
        );
        (self.rules.progress)(&Progress::Download {
            url: self.place.url.clone(),
            done: self.received,
            total: self.total,
        });
    }

    fn start_again(&mut self) -> Result<(), FetchError> {
        self.received = 0;
        self.total = None;
        self.digests = self.stated.digests();
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map(drop)
            .map_err(|source| stored(self.place, source))
    }

    fn broken_off(&self) -> FetchError {
        FetchError::BrokenOff {
            url: self.place.url.clone(),
            received: self.received,
            expected: self.total.unwrap_or(self.received),
        }
    }

    fn too_large(&self) -> FetchError {
        FetchError::TooLarge {
            url: self.place.url.clone(),
            limit: self.rules.most_bytes,
        }
    }

    /// Sends the request, and the next one where the answer leads elsewhere.
    fn request(&self) -> Result<(String, Response<Body>), FetchError> {
        let mut url = self.place.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(&url)?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok((url, response));
            }
            url = self.next(&url, response.headers())?;
        }
        Err(failed(&self.place.url, ureq::Error::TooManyRedirects))
    }

    /// Where a redirect leads.
    fn next(&self, url: &str, headers: &HeaderMap) -> Result<String, FetchError> {
        let bad = |to: String, problem: &'static str| FetchError::Redirect {
            url: url.to_owned(),
            to,
            problem,
        };
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| bad(String::new(), "it names no address"))?;
        let next = resolve(url, location)
            .ok_or_else(|| bad(location.to_owned(), "that is no http or https address"))?;
        if url.starts_with("https://") && next.starts_with("http://") {
            return Err(bad(next, "that is not encrypted, as the first address is"));
        }
        Ok(next)
    }

    fn ask(&self, url: &str) -> Result<Response<Body>, FetchError> {
        let named = origin(&self.place.url).zip(origin(url));
        let is_same_host = named.is_some_and(|((_, named, _), (_, host, _))| named == host);
        // The first place was typed or granted, or it would not have come here.
        let grant = if is_same_host {
            Ok(())
        } else {
            (self.rules.grant)(url)
        };
        let reach = match grant {
            Ok(()) => Reach::Private,
            Err(_) => Reach::Public,
        };
        let refused = |refused: Refused| FetchError::RefusedAddress {
            url: url.to_owned(),
            grant: grant.clone().err().filter(|_| refused.may_be_granted),
            source: Box::new(refused),
        };
        // An address in the URL is not looked up where a proxy is asked.
        if let Some((host, address)) = literal(url) {
            reach.check(&host, address).map_err(refused)?;
        }
        let left = self.until.saturating_duration_since(Instant::now());
        let config = Agent::config_builder()
            .timeout_global(Some(left))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .timeout_per_read(Some(IDLE_TIMEOUT))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Checked::new(reach));
        let mut request = agent.get(url).header(ACCEPT_ENCODING, "identity");
        // Secrets are for the server that the plugin named, and not for whom that names in turn.
        if origin(url) == origin(&self.place.url) {
            for (name, value) in &self.place.headers {
                request = request.header(name, value.expose());
            }
        }
        if let Some(validator) = self.validator.as_ref().filter(|_| self.received > 0) {
            request = request
                .header(RANGE, format!("bytes={}-", self.received))
                .header(IF_RANGE, validator);
        }
        request.call().map_err(|error| match error {
            ureq::Error::Other(other) => match other.downcast::<Refused>() {
                Ok(found) => refused(*found),
                Err(other) => failed(url, ureq::Error::Other(other)),
            },
            error => failed(url, error),
        })
    }
}

/// What makes a range of bytes belong to an earlier one. A weak tag does not.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = text(ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text(LAST_MODIFIED)).map(str::to_owned)
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.trim().parse().ok()
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The host of a URL where that is an address.
fn literal(url: &str) -> Option<(String, IpAddr)> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?;
    let address = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), address.parse().ok()?))
}

/// An address that is given relative to another.
fn resolve(base: &str, location: &str) -> Option<String> {
    let location = location.trim().split('#').next()?;
    let is_whole = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let scheme_end = base.find("://")? + 3;
    let path_start = base[scheme_end..]
        .find(['/', '?'])
        .map_or(base.len(), |at| scheme_end + at);
    let next = if is_whole(location) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}{rest}", &base[..scheme_end])
    } else if location.starts_with('/') {
        format!("{}{location}", &base[..path_start])
    } else if location.contains("://") || location.is_empty() {
        return None;
    } else {
        let path = base[path_start..].split('?').next()?;
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{}{folder}{location}", &base[..path_start])
    };
    let uri: Uri = next.parse().ok()?;
    let plain = uri.authority().is_some_and(|it| !it.as_str().contains('@'));
    plain.then_some(next)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Mutex;
    use std::thread::{self, JoinHandle};

    use plugin_host::Secret;

    use super::*;
    use crate::plan::chain;

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
    }

    impl Bench {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                granted: None,
                told: Arc::default(),
                most_bytes: 1 << 20,
            }
        }

        fn download(&self, url: &str) -> Result<String, String> {
            let (granted, told) = (self.granted.clone(), self.told.clone());
            let rules = Rules {
                most_bytes: self.most_bytes,
                grant: Arc::new(move |url| match &granted {
                    Some(granted) if url.starts_with(granted) => Ok(()),
                    _ => Err("plugins.x.grants.http: […]".to_owned()),
                }),
                progress: Arc::new(move |progress| told.lock().unwrap().push(progress.clone())),
            };
            let place = Place {
                url: url.to_owned(),
                headers: vec![("x-secret".to_owned(), Secret::new(b"hunter2".to_vec()))],
            };
            let to = self.folder.path().join("archive");
            let stated = Stated::default();
            let digests = download(&place, &rules, &stated, &to).map_err(|error| chain(&error))?;
            let content = std::fs::read_to_string(&to).unwrap();
            let mut expected = stated.digests();
            expected.update(content.as_bytes());
            assert_eq!(
                stated.check("found", &digests).unwrap(),
                stated.check("expected", &expected).unwrap()
            );
            Ok(content)
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

    #[test]
    fn an_address_is_given_relative_to_another() {
        for (base, location, expected) in [
            ("http://h/a/b?q", "c", Some("http://h/a/c")),
            ("http://h/a/b?q", "/c?d#e", Some("http://h/c?d")),
            ("https://h:8/a", "//o/c", Some("https://o/c")),
            ("http://h", "c", Some("http://h/c")),
            ("http://h?x=/", "/c", Some("http://h/c")),
            ("http://h/a", "https://o:1/c", Some("https://o:1/c")),
            ("http://h/a", "ftp://o/c", None),
            ("http://h/a", "", None),
            ("http://h/a", "https://u:p@o/c", None),
        ] {
            let found = resolve(base, location);
            assert_eq!(found.as_deref(), expected, "{base} {location}");
        }
    }
}
