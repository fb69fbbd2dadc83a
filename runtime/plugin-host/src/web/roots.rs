//! Whom the host trusts: the roots of the system, and those of a file that the operator names.

use std::io;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// A file of roots that is none.
#[derive(Debug, thiserror::Error)]
#[error("read the further roots in `{}`", path.display())]
pub(super) struct Error {
    path: PathBuf,
    source: io::Error,
}

/// What the system trusts, and a file of the operator's own. Where the system trusts nobody, those of Mozilla.
pub(super) fn trusted(extra: Option<&Path>) -> Result<RootCerts, Error> {
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
        let unreadable = |source| Error {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use http::{Request, Response};

    use crate::address::Reach;
    use crate::web::server::{Authority, Server};
    use crate::web::{Bounds, Client, Error, Network, Proxies};

    fn get(url: &str, roots: Option<&std::path::Path>) -> Result<Response<Vec<u8>>, Error> {
        let bounds = Bounds {
            time: Duration::from_secs(20),
            connect: None,
            response_body: 10,
        };
        let request = Request::get(url).body(Vec::new()).unwrap();
        let network = Network::new(roots.map(Into::into), Proxies::default());
        Client::new(Arc::new(network)).send(request, Reach::Private, bounds)
    }

    const ANSWER: &str = "HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\n\nok";

    #[test]
    fn a_server_is_trusted_when_its_authority_is_among_the_further_roots() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, others) = (Authority::new(), Authority::new());
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let only_ours = write("ours.pem", ours.pem());
        let both = write("both.pem", others.pem() + &ours.pem());
        let only_others = write("others.pem", others.pem());

        for (roots, host, is_trusted) in [
            (Some(&only_ours), "localhost", true),
            (Some(&only_ours), "127.0.0.1", true),
            (Some(&both), "localhost", true),
            (Some(&only_others), "localhost", false),
            (None, "localhost", false),
        ] {
            // The certificate is for `localhost` and for 127.0.0.1.
            let server = Server::trusted_by(&ours, &["localhost", "127.0.0.1"], ANSWER);
            let url = format!("https://{host}:{}/", server.address.port());

            let outcome = get(&url, roots.map(|path| path.as_path()));

            match outcome {
                Ok(response) => assert!(is_trusted && response.body() == b"ok", "{url}"),
                Err(error) => {
                    assert!(
                        !is_trusted && matches!(error, Error::Tls(_)),
                        "{url}: {error:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_certificate_for_another_host_is_not_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, authority.pem()).unwrap();
        let server = Server::trusted_by(&authority, &["other.example"], ANSWER);

        let url = format!("https://localhost:{}/", server.address.port());
        let error = get(&url, Some(&roots)).unwrap_err();

        assert!(matches!(error, Error::Tls(_)), "{error:?}");
    }

    #[test]
    fn a_file_of_roots_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();

        let error = get("http://127.0.0.1:1/", Some(file.path())).unwrap_err();

        assert!(matches!(error, Error::Network(_)), "{error:?}");
    }
}
