//! One HTTP request on a plugin's behalf, from start to end, in bounds. It blocks its thread.
//!
//! It goes to the address that was checked. What may be asked at all is not decided here.

use std::io::{self, Read as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Timeout};

use super::network::{self, Network};
use crate::address::{Checked, Reach, Refused};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most headers of an answer. It is the library's own bound, named here for those who read what went wrong.
const HEADERS: usize = 128;
/// The most bytes that an answer's status and headers have together.
const HEAD: usize = 64 << 10;

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
    #[error(transparent)]
    Network(network::Error),
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
    #[error("the head of the answer has more than {HEADERS} headers or {HEAD} bytes")]
    LongHead,
    #[error("the connection broke off")]
    Broken(#[source] ureq::Error),
    #[error("the request cannot be sent")]
    Request(#[source] ureq::Error),
}

/// Sends requests for all plugins of a host. Connections are not kept: each goes to an address checked for it.
#[derive(Debug)]
pub(crate) struct Client {
    network: Arc<Network>,
    /// Made at the first request: reading the system's roots takes longer than a call.
    agents: OnceLock<Agents>,
}

#[derive(Debug)]
struct Agents {
    public: Agent,
    private: Agent,
}

impl Client {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        Self {
            network,
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
        let scheme = request.uri().scheme_str().unwrap_or_default();
        let proxy = self.network.proxy(scheme).map_err(Error::Network)?;
        let connect = bounds.connect.unwrap_or(CONNECT_TIMEOUT).min(bounds.time);
        let failed = |error| failed(error, bounds);
        let (parts, body) = request.into_parts();
        // A request without a body says nothing of a body's length.
        let response = if body.is_empty() {
            let request = agent
                .configure_request(Request::from_parts(parts, ()))
                .proxy(proxy)
                .timeout_global(Some(bounds.time))
                .timeout_connect(Some(connect))
                .build();
            agent.run(request)
        } else {
            let request = agent
                .configure_request(Request::from_parts(parts, body))
                .proxy(proxy)
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
        let roots = self.network.roots().map_err(Error::Network)?;
        let tls = TlsConfig::builder().root_certs(roots).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_response_header_size(HEAD)
            // Each request says which one it goes through.
            .proxy(None)
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
        ureq::Error::LargeResponseHeader(..) => Error::LongHead,
        ureq::Error::Protocol(ref why) if why.to_string().contains("too many headers") => {
            Error::LongHead
        }
        ureq::Error::Http(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::RequireHttpsOnly(_)
        | ureq::Error::InvalidProxyUrl => Error::Request(error),
        error => Error::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;
    use crate::web::server::Server;

    const BOUNDS: Bounds = Bounds {
        time: Duration::from_secs(20),
        connect: None,
        response_body: 10,
    };

    fn get(url: &str) -> Request<Vec<u8>> {
        Request::get(url).body(Vec::new()).unwrap()
    }

    fn send(url: &str, reach: Reach, bounds: Bounds) -> Result<Response<Vec<u8>>, Error> {
        Client::new(Arc::default()).send(get(url), reach, bounds)
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

        let response = Client::new(Arc::default())
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
    fn the_head_of_an_answer_is_bounded() {
        for (headers, fits) in [
            ("x-a: 1\n".repeat(100), true),
            ("x-a: 1\n".repeat(HEADERS + 1), false),
            (format!("x-a: {}\n", "1".repeat(HEAD / 2)), true),
            (format!("x-a: {}\n", "1".repeat(HEAD)), false),
        ] {
            let server = Server::answering(&format!(
                "HTTP/1.1 200 OK\n{headers}content-length: 0\nconnection: close\n\n"
            ));

            let url = format!("http://{}/", server.address);
            let outcome = send(&url, Reach::Private, BOUNDS);

            let is_as_expected = match &outcome {
                Ok(_) => fits,
                Err(error) => !fits && matches!(error, Error::LongHead),
            };
            assert!(is_as_expected, "{} bytes: {outcome:?}", headers.len());
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
}
