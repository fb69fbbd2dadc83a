//! The proxy that a request goes through, as the environment names it.
//!
//! `https_proxy` is for requests to `https://`, `http_proxy` for those to `http://`, and `all_proxy` for both where they have
//! none of their own; each in capitals as well. `no_proxy` lists hosts that are asked directly. A proxy is asked for a tunnel
//! (`CONNECT`), so that it sees neither the headers nor the body of a request to `https://`.

use ureq::{Proxy, ProxyProtocol};

/// What the environment says of proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Named>,
    http: Option<Named>,
    /// Hosts that are asked directly.
    direct: Vec<String>,
}

/// The value of a variable.
#[derive(Clone, PartialEq, Eq)]
struct Named {
    variable: &'static str,
    value: String,
}

/// It may hold a password.
impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.variable)
    }
}

/// A proxy that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the environment variable `{variable}` names no proxy: write `http://HOST:PORT`")]
    NoProxy { variable: &'static str },
    #[error(
        "the environment variable `{variable}` names a proxy of another kind than HTTP: write `http://HOST:PORT`"
    )]
    Kind { variable: &'static str },
}

impl Proxies {
    /// Reads the environment of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables of an environment.
    #[must_use]
    pub fn from_variables(value: impl Fn(&str) -> Option<String>) -> Self {
        let first = |variables: [&'static str; 4]| {
            variables.into_iter().find_map(|variable| {
                let value = value(variable).filter(|value| !value.trim().is_empty())?;
                Some(Named { variable, value })
            })
        };
        let direct = value("no_proxy").or_else(|| value("NO_PROXY"));
        let direct = direct.unwrap_or_default();
        Self {
            https: first(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            http: first(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            direct: direct
                .split(',')
                .map(|host| host.trim().to_owned())
                .filter(|host| !host.is_empty())
                .collect(),
        }
    }

    /// The proxy for a scheme, where there is one.
    pub(super) fn of(&self, scheme: &str) -> Result<Option<Proxy>, Error> {
        let named = match scheme {
            "https" => &self.https,
            _ => &self.http,
        };
        let Some(Named { variable, value }) = named else {
            return Ok(None);
        };
        let no_proxy = |_| Error::NoProxy { variable };
        let named = Proxy::new(value.trim()).map_err(no_proxy)?;
        if !matches!(named.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
            return Err(Error::Kind { variable });
        }
        let mut proxy = Proxy::builder(named.protocol())
            .host(named.host())
            .port(named.port());
        if let Some(user) = named.username() {
            proxy = proxy.username(user);
        }
        if let Some(password) = named.password() {
            proxy = proxy.password(password);
        }
        for host in &self.direct {
            proxy = proxy.no_proxy(host);
        }
        proxy.build().map(Some).map_err(no_proxy)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::{Request, Response};

    use super::*;
    use crate::address::Reach;
    use crate::web::server::{Authority, Server, Tunnel};
    use crate::web::{self, Bounds, Client, Network};

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name)?;
            Some(found.1.to_owned())
        })
    }

    fn get(
        url: &str,
        roots: Option<&std::path::Path>,
        reach: Reach,
        proxies: Proxies,
    ) -> Result<Response<Vec<u8>>, web::Error> {
        let bounds = Bounds {
            time: Duration::from_secs(20),
            connect: None,
            response_body: 10,
        };
        let request = Request::get(url)
            .header("authorization", "Bearer hunter2")
            .body(Vec::new())
            .unwrap();
        let network = Network::new(roots.map(Into::into), proxies);
        Client::new(Arc::new(network)).send(request, reach, bounds)
    }

    const ANSWER: &str = "HTTP/1.1 200 OK\ncontent-length: 2\nconnection: close\n\nok";

    #[test]
    fn a_request_goes_through_a_tunnel_that_the_proxy_cannot_look_into() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, authority.pem()).unwrap();
        let server = Server::trusted_by(&authority, &["pools.example"], ANSWER);
        // Nobody here knows the name: the proxy finds the server.
        let tunnel = Tunnel::to(server.address);
        let named = format!("http://ann:p%40ss@{}", tunnel.address);

        let response = get(
            "https://pools.example/v1?name=shop",
            Some(&roots),
            Reach::Public,
            proxies(&[("HTTPS_PROXY", &named)]),
        )
        .unwrap();

        assert_eq!(response.body(), b"ok");
        let asked = tunnel.asked();
        assert!(
            asked.starts_with("connect pools.example:443 http/1.1"),
            "{asked}"
        );
        // `ann:p@ss`, in lower case as all of it.
        assert!(
            asked.contains("proxy-authorization: basic yw5uonbac3m="),
            "{asked}"
        );
        assert!(
            !asked.contains("hunter2") && !asked.contains("shop"),
            "{asked}"
        );
        assert!(server.asked().contains("authorization: bearer hunter2"));
    }

    #[test]
    fn hosts_that_are_asked_directly_are() {
        let server = Server::answering(ANSWER);
        let variables = [
            ("http_proxy", "http://127.0.0.1:1"),
            ("no_proxy", "other.example, 127.0.0.1"),
        ];

        let url = format!("http://{}/", server.address);
        let direct = get(&url, None, Reach::Private, proxies(&variables)).unwrap();
        let through = get(&url, None, Reach::Private, proxies(&variables[..1])).unwrap_err();

        assert_eq!(direct.body(), b"ok");
        assert!(matches!(through, web::Error::Connect(_)), "{through:?}");
    }

    #[test]
    fn an_address_that_may_not_be_reached_is_not_asked_of_the_proxy_either() {
        for (host, reach) in [
            ("169.254.169.254", Reach::Private),
            ("127.0.0.1", Reach::Public),
            ("[fd00:ec2::254]", Reach::Private),
        ] {
            let url = format!("http://{host}/");
            let proxies = proxies(&[("all_proxy", "http://127.0.0.1:1")]);
            let error = get(&url, None, reach, proxies).unwrap_err();
            assert!(matches!(error, web::Error::Address(_)), "{host}: {error:?}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_a_wrong_one_is_named_without_its_password() {
        let of = |variables: &[(&str, &str)], scheme: &str| {
            let proxy = proxies(variables).of(scheme);
            proxy.map(|proxy| proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())))
        };
        let both = [
            ("HTTPS_PROXY", "http://secure:3128"),
            ("https_proxy", ""),
            ("ALL_PROXY", "plain"),
        ];

        assert_eq!(of(&both, "https"), Ok(Some("secure:3128".to_owned())));
        assert_eq!(of(&both, "http"), Ok(Some("plain:80".to_owned())));
        assert_eq!(of(&both[..1], "http"), Ok(None));
        for (value, error) in [
            (
                "http://ann:hunter2@",
                Error::NoProxy {
                    variable: "https_proxy",
                },
            ),
            (
                "ftp://proxy",
                Error::NoProxy {
                    variable: "https_proxy",
                },
            ),
            (
                "socks5://ann:hunter2@proxy",
                Error::Kind {
                    variable: "https_proxy",
                },
            ),
        ] {
            let variables = [("https_proxy", value)];
            assert!(!error.to_string().contains("hunter2"));
            assert!(!format!("{:?}", proxies(&variables)).contains("hunter2"));
            assert_eq!(of(&variables, "https"), Err(error), "{value}");
        }
    }
}
