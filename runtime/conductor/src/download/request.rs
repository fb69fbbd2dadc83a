//! One request: to where the operator lets it go, hop by hop through redirects.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use plugin_host::Secret;
use plugin_host::address::{Checked, Reach, Refused};
use ureq::http::header::{ACCEPT_ENCODING, HeaderName, LOCATION};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::Rules;
use crate::fetch::FetchError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) const MOST_REDIRECTS: usize = 10;

/// Where a request goes.
pub(super) struct To<'a> {
    pub(super) url: &'a str,
    /// As messages name it.
    pub(super) shown: &'a str,
    /// For this server alone.
    pub(super) headers: &'a [(String, Secret)],
}

/// Sends requests, and keeps their connections for the next.
pub(super) struct Asker<'a> {
    rules: &'a Rules,
    until: Instant,
    /// For what the operator granted, and for all else.
    agents: [Option<Agent>; 2],
}

impl<'a> Asker<'a> {
    pub(super) fn new(rules: &'a Rules, until: Instant) -> Self {
        Self {
            rules,
            until,
            agents: [None, None],
        }
    }

    /// Sends the request, and the next one where the answer leads elsewhere. Any other status is an answer.
    pub(super) fn send(
        &mut self,
        to: &To<'_>,
        more: &[(HeaderName, String)],
    ) -> Result<Response<Body>, FetchError> {
        let mut hop = to.url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(to, &hop, more)?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok(response);
            }
            hop = next(to, &hop, response.headers())?;
        }
        Err(failed(to.shown, ureq::Error::TooManyRedirects))
    }

    fn ask(
        &mut self,
        to: &To<'_>,
        hop: &str,
        more: &[(HeaderName, String)],
    ) -> Result<Response<Body>, FetchError> {
        let named = origin(to.url).zip(origin(hop));
        let is_same_host = named.is_some_and(|((_, named, _), (_, host, _))| named == host);
        // The first place was typed or granted, or it would not have come here.
        let grant = if is_same_host {
            Ok(())
        } else {
            (self.rules.grant)(hop)
        };
        let reach = match grant {
            Ok(()) => Reach::Private,
            Err(_) => Reach::Public,
        };
        let shown = shown(to, hop);
        let refused = |refused: Refused| FetchError::RefusedAddress {
            url: shown.clone(),
            grant: grant.clone().err().filter(|_| refused.may_be_granted),
            source: Box::new(refused),
        };
        // An address in the URL is not looked up where a proxy is asked.
        if let Some((host, address)) = literal(hop) {
            reach.check(&host, address).map_err(refused)?;
        }
        let network = &self.rules.network;
        let unusable = |source| FetchError::Network {
            url: shown.clone(),
            source,
        };
        let slot = &mut self.agents[usize::from(grant.is_err())];
        let agent = match slot {
            Some(agent) => agent,
            None => slot.insert(agent(reach, network.roots().map_err(unusable)?)),
        };
        let scheme = hop.split_once("://").map_or("", |(scheme, _)| scheme);
        let proxy = network.proxy(scheme).map_err(unusable)?;
        let left = self.until.saturating_duration_since(Instant::now());
        let mut request = agent
            .get(hop)
            .config()
            .timeout_global(Some(left))
            .proxy(proxy)
            .build()
            .header(ACCEPT_ENCODING, "identity");
        // Secrets are for the server that the plugin named, and not for whom that names in turn.
        if origin(hop) == origin(to.url) {
            for (name, value) in to.headers {
                request = request.header(name, value.expose());
            }
        }
        for (name, value) in more {
            request = request.header(name, value);
        }
        request.call().map_err(|error| match error {
            ureq::Error::Other(other) => match other.downcast::<Refused>() {
                Ok(found) => refused(*found),
                Err(other) => failed(&shown, ureq::Error::Other(other)),
            },
            error => failed(&shown, error),
        })
    }
}

fn agent(reach: Reach, roots: RootCerts) -> Agent {
    let config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        // Each request says which one it goes through.
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .timeout_per_read(Some(IDLE_TIMEOUT))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Checked::new(reach))
}

/// An error of the client's, without a URL that is a credential.
pub(super) fn failed(shown: &str, source: ureq::Error) -> FetchError {
    let source = match source {
        ureq::Error::BadUri(_) => ureq::Error::BadUri(shown.to_owned()),
        source => source,
    };
    FetchError::Download {
        url: shown.to_owned(),
        source: Box::new(source),
    }
}

/// As messages name a hop. What a server redirects to is often signed.
fn shown(to: &To<'_>, hop: &str) -> String {
    if hop == to.url {
        to.shown.to_owned()
    } else {
        without_query(hop).to_owned()
    }
}

pub(crate) fn without_query(url: &str) -> &str {
    &url[..url.find(['?', '#']).unwrap_or(url.len())]
}

/// Where a redirect leads.
fn next(to: &To<'_>, hop: &str, headers: &HeaderMap) -> Result<String, FetchError> {
    let bad = |location: &str, problem: &'static str| FetchError::Redirect {
        url: shown(to, hop),
        to: without_query(location).to_owned(),
        problem,
    };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| bad("", "it names no address"))?;
    let next =
        resolve(hop, location).ok_or_else(|| bad(location, "that is no http or https address"))?;
    if hop.starts_with("https://") && next.starts_with("http://") {
        return Err(bad(&next, "that is not encrypted, as the first address is"));
    }
    Ok(next)
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
    use super::*;

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
