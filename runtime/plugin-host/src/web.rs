//! One HTTP request on a plugin's behalf, from start to end, in bounds. It blocks its thread.
//!
//! The host trusts the roots of the system and those of a further file, goes through the proxy that the environment
//! names, and connects to the address that it has checked. What may be asked at all is not decided here.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Timeout};

use crate::address::{Checked, Reach, Refused};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request may use up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// From the look-up of the name to the last byte of the answer.
    pub(crate) time: Duration,
    pub(crate) connect: Option<Duration>,
    pub(crate) response_body: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Address(Refused),
    #[error("read the further roots in `{}`", path.display())]
    Roots { path: PathBuf, source: io::Error },
    #[error("nothing is known by the name of the host")]
    UnknownHost,
    #[error("no connection came about")]
    Connect(#[source] ureq::Error),
    #[error("the connection is not to be trusted: {0}")]
    Tls(String),
    #[error("no whole answer came within {0:?}")]
    Timeout(Duration),
    #[error("the answer has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the connection broke off")]
    Broken(#[source] ureq::Error),
    #[error("the request cannot be sent")]
    Request(#[source] ureq::Error),
}

/// Sends requests for all plugins of a host. Connections are not kept: each goes to an address checked for it.
#[derive(Debug)]
pub(crate) struct Client {
    extra_roots: Option<PathBuf>,
    /// Made at the first request: reading the system's roots takes longer than a call.
    agents: OnceLock<Agents>,
}

#[derive(Debug)]
struct Agents {
    public: Agent,
    private: Agent,
}

impl Client {
    pub(crate) fn new(extra_roots: Option<PathBuf>) -> Self {
        Self {
            extra_roots,
            agents: OnceLock::new(),
        }
    }

    /// Asks once. A redirect is an answer like any other.
    pub(crate) fn send(
        &self,
        request: Request<Vec<u8>>,
        reach: Reach,
        bounds: Bounds,
    ) -> Result<Response<Vec<u8>>, Error> {
        // An address in the URL is not looked up where a proxy is asked.
        reach.check_literal(request.uri()).map_err(Error::Address)?;
        let agents = self.agents()?;
        let agent = match reach {
            Reach::Public => &agents.public,
            Reach::Private => &agents.private,
        };
        let connect = bounds.connect.unwrap_or(CONNECT_TIMEOUT).min(bounds.time);
        let failed = |error| failed(error, bounds);
        let (parts, body) = request.into_parts();
        // A request without a body says nothing of a body's length.
        let response = if body.is_empty() {
            let request = agent
                .configure_request(Request::from_parts(parts, ()))
                .timeout_global(Some(bounds.time))
                .timeout_connect(Some(connect))
                .build();
            agent.run(request)
        } else {
            let request = agent
                .configure_request(Request::from_parts(parts, body))
                .timeout_global(Some(bounds.time))
                .timeout_connect(Some(connect))
                .build();
            agent.run(request)
        };
        let (parts, body) = response.map_err(failed)?.into_parts();
        // One byte more than allowed tells a body that is too long from one that just fits.
        let limit = bounds.response_body;
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        let body = body.into_with_config().limit(u64::MAX).reader();
        body.take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(ureq::Error::from(error)))?;
        if bytes.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        Ok(Response::from_parts(parts, bytes))
    }

    fn agents(&self) -> Result<&Agents, Error> {
        if let Some(agents) = self.agents.get() {
            return Ok(agents);
        }
        let roots = roots(self.extra_roots.as_deref())?;
        let tls = TlsConfig::builder().root_certs(roots).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = |reach| {
            Agent::with_parts(
                config.clone(),
                DefaultConnector::default(),
                Checked::new(reach),
            )
        };
        Ok(self.agents.get_or_init(|| Agents {
            public: agent(Reach::Public),
            private: agent(Reach::Private),
        }))
    }
}

/// What the system trusts, and a file of the operator's own. Where the system trusts nobody, those of Mozilla.
fn roots(extra: Option<&Path>) -> Result<RootCerts, Error> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a root certificate of the system was passed over");
    }
    let mut roots: Vec<_> = found
        .certs
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect();
    if let Some(path) = extra {
        let unreadable = |source| Error::Roots {
            path: path.to_owned(),
            source,
        };
        let pem = std::fs::read(path).map_err(unreadable)?;
        let before = roots.len();
        for item in parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(unreadable(io::Error::other(error))),
            }
        }
        if roots.len() == before {
            let none = io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it");
            return Err(unreadable(none));
        }
    }
    if roots.is_empty() {
        tracing::debug!("the system has no root certificates");
        return Ok(RootCerts::WebPki);
    }
    Ok(RootCerts::from(roots.into_iter()))
}

fn failed(error: ureq::Error, bounds: Bounds) -> Error {
    match error {
        ureq::Error::Other(other) => match other.downcast::<Refused>() {
            Ok(refused) => Error::Address(*refused),
            Err(other) => Error::Broken(ureq::Error::Other(other)),
        },
        ureq::Error::HostNotFound => Error::UnknownHost,
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => Error::Connect(error),
        ureq::Error::Timeout(_) => Error::Timeout(bounds.time),
        ureq::Error::Tls(what) => Error::Tls(what.to_owned()),
        ureq::Error::Rustls(error) => Error::Tls(error.to_string()),
        // How the TLS library tells of a certificate that it does not accept.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Error::Tls(error.to_string())
        }
        ureq::Error::Io(ref source)
            if matches!(
                source.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
            ) =>
        {
            Error::Connect(error)
        }
        ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => Error::Connect(error),
        ureq::Error::Http(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::RequireHttpsOnly(_)
        | ureq::Error::InvalidProxyUrl => Error::Request(error),
        error => Error::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// Answers one request with bytes as they are, and gives back the request's head.
    struct Server {
        address: SocketAddr,
        thread: JoinHandle<String>,
    }

    impl Server {
        fn answering(answer: &str) -> Self {
            Self::start(answer.to_owned(), None)
        }

        /// Begins an answer and does not end it before it is told to.
        fn stalling(answer: &str, until: mpsc::Receiver<()>) -> Self {
            Self::start(answer.to_owned(), Some(until))
        }

        fn start(answer: String, until: Option<mpsc::Receiver<()>>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let thread = thread::spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                let lines = BufReader::new(connection.try_clone().unwrap()).lines();
                let head = lines.map_while(Result::ok);
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                let _ = connection.write_all(answer.replace('\n', "\r\n").as_bytes());
                if let Some(until) = until {
                    let _ = until.recv();
                }
                head.join("\n").to_ascii_lowercase()
            });
            Self { address, thread }
        }

        fn asked(self) -> String {
            self.thread.join().unwrap()
        }
    }

    const BOUNDS: Bounds = Bounds {
        time: Duration::from_secs(20),
        connect: None,
        response_body: 10,
    };

    fn get(url: &str) -> Request<Vec<u8>> {
        Request::get(url).body(Vec::new()).unwrap()
    }

    fn send(url: &str, reach: Reach, bounds: Bounds) -> Result<Response<Vec<u8>>, Error> {
        Client::new(None).send(get(url), reach, bounds)
    }

    #[test]
    fn a_redirect_is_an_answer_and_not_followed() {
        let server = Server::answering(
            "HTTP/1.1 302 Found\nlocation: http://127.0.0.1:1/other\ncontent-length: 0\nconnection: close\n\n",
        );

        let url = format!("http://{}/a?b=c", server.address);
        let response = send(&url, Reach::Private, BOUNDS).unwrap();

        assert_eq!(response.status(), 302);
        assert_eq!(response.headers()["location"], "http://127.0.0.1:1/other");
        assert!(server.asked().starts_with("get /a?b=c http/1.1"));
    }

    #[test]
    fn a_body_goes_out_with_its_length_and_the_host_is_the_urls() {
        let server = Server::answering("HTTP/1.1 500 No\ncontent-length: 2\n\nno");
        let request = Request::post(format!("http://{}/", server.address))
            .body(b"x=1".to_vec())
            .unwrap();
        let host = format!("host: {}", server.address);

        let response = Client::new(None)
            .send(request, Reach::Private, BOUNDS)
            .unwrap();

        assert_eq!(
            (response.status().as_u16(), &**response.body()),
            (500, &b"no"[..])
        );
        let asked = server.asked();
        assert!(asked.contains("content-length: 3"), "{asked}");
        assert_eq!(asked.matches("host: ").count(), 1, "{asked}");
        assert!(asked.contains(&host), "{asked}");
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_taken() {
        for (head, body, fits) in [
            ("content-length: 10\n", "0123456789", true),
            ("connection: close\n", "0123456789", true),
            ("content-length: 11\n", "0123456789a", false),
            ("connection: close\n", "0123456789a", false),
        ] {
            let server = Server::answering(&format!("HTTP/1.1 200 OK\n{head}\n{body}"));

            let url = format!("http://{}/", server.address);
            let outcome = send(&url, Reach::Private, BOUNDS);

            match outcome {
                Ok(response) => assert!(fits && response.body() == body.as_bytes(), "{head}"),
                Err(error) => assert!(
                    !fits && matches!(error, Error::TooLarge { limit: 10 }),
                    "{head}: {error}"
                ),
            }
        }
    }

    #[test]
    fn a_server_that_stops_in_its_answer_is_left_in_time() {
        let (end, until) = mpsc::channel();
        let server = Server::stalling("HTTP/1.1 200 OK\ncontent-length: 5\n\nab", until);
        let bounds = Bounds {
            time: Duration::from_millis(200),
            ..BOUNDS
        };

        let url = format!("http://{}/", server.address);
        let error = send(&url, Reach::Private, bounds).unwrap_err();

        assert!(matches!(error, Error::Timeout(_)), "{error:?}");
        drop(end);
        server.asked();
    }

    #[test]
    fn private_addresses_need_to_be_named_and_credentials_are_never_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let error = send(&format!("http://{host}:{port}/"), Reach::Public, BOUNDS).unwrap_err();
            let Error::Address(refused) = error else {
                panic!("{host}: {error:?}")
            };
            assert!(refused.may_be_granted, "{host}");
        }
        for host in [
            "169.254.169.254",
            "[fd00:ec2::254]",
            "169.254.1.1",
            "0.0.0.0",
        ] {
            let error = send(&format!("http://{host}/"), Reach::Private, BOUNDS).unwrap_err();
            let Error::Address(refused) = error else {
                panic!("{host}: {error:?}")
            };
            assert!(!refused.may_be_granted, "{host}");
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }

    #[test]
    fn nobody_at_an_address_is_told_from_an_answer_that_breaks_off() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = send(&format!("http://{port}/"), Reach::Private, BOUNDS).unwrap_err();
        assert!(matches!(error, Error::Connect(_)), "{error:?}");

        let server = Server::answering("HTTP/1.1 200 OK\ncontent-length: 5\n\nab");
        let url = format!("http://{}/", server.address);
        let error = send(&url, Reach::Private, BOUNDS).unwrap_err();
        assert!(matches!(error, Error::Broken(_)), "{error:?}");
    }

    #[test]
    fn a_file_of_roots_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let client = Client::new(Some(file.path().to_owned()));

        let error = client
            .send(get("http://127.0.0.1:1/"), Reach::Private, BOUNDS)
            .unwrap_err();

        assert!(matches!(error, Error::Roots { .. }), "{error:?}");
    }
}
