//! Servers for the tests of requests: one that answers once, in plain text or over TLS, and a proxy that tunnels once.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Answers one request with bytes as they are, and gives back the request's head.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    thread: JoinHandle<String>,
}

impl Server {
    pub(super) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::start(move |mut connection| converse(&mut connection, &answer, None))
    }

    /// Begins an answer and does not end it before it is told to.
    pub(super) fn stalling(answer: &str, until: mpsc::Receiver<()>) -> Self {
        let answer = answer.to_owned();
        Self::start(move |mut connection| converse(&mut connection, &answer, Some(&until)))
    }

    /// Answers over TLS, with a certificate of an authority for these hosts.
    pub(super) fn trusted_by(authority: &Authority, hosts: &[&str], answer: &str) -> Self {
        let (config, answer) = (authority.server(hosts), answer.to_owned());
        Self::start(move |connection| {
            let tls = ServerConnection::new(config).unwrap();
            converse(&mut StreamOwned::new(tls, connection), &answer, None)
        })
    }

    fn start(serve: impl FnOnce(TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (connection, _) = listener.accept().unwrap();
            serve(connection)
        });
        Self { address, thread }
    }

    /// The head of the request, in lower case.
    pub(super) fn asked(self) -> String {
        self.thread.join().unwrap()
    }
}

/// The head comes to nothing where the client does not trust the server.
fn converse(
    connection: &mut (impl Read + Write),
    answer: &str,
    until: Option<&mpsc::Receiver<()>>,
) -> String {
    let head = head(connection);
    let _ = connection.write_all(answer.replace('\n', "\r\n").as_bytes());
    if let Some(until) = until {
        let _ = until.recv();
    }
    head
}

fn head(connection: &mut impl Read) -> String {
    // Byte by byte, so that nothing behind the head is taken from whoever reads on.
    let lines = BufReader::with_capacity(1, connection).lines();
    let head = lines.map_while(Result::ok);
    let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
    head.join("\n").to_ascii_lowercase()
}

/// A proxy: takes one `CONNECT`, whatever to, and joins it with a server.
pub(super) struct Tunnel {
    pub(super) address: SocketAddr,
    thread: JoinHandle<String>,
}

impl Tunnel {
    pub(super) fn to(server: SocketAddr) -> Self {
        let Server { address, thread } = Server::start(move |mut client| {
            let asked = head(&mut client);
            let mut server = TcpStream::connect(server).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let answers = thread::spawn(move || {
                let _ = std::io::copy(&mut back.0, &mut back.1);
                let _ = back.1.shutdown(std::net::Shutdown::Both);
            });
            let _ = std::io::copy(&mut client, &mut server);
            let _ = server.shutdown(std::net::Shutdown::Both);
            answers.join().unwrap();
            asked
        });
        Self { address, thread }
    }

    /// The head of the `CONNECT`, in lower case.
    pub(super) fn asked(self) -> String {
        self.thread.join().unwrap()
    }
}

/// Somebody who vouches for servers.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The certificate that others trust.
    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    fn server(&self, hosts: &[&str]) -> Arc<ServerConfig> {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(hosts).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
