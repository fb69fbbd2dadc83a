//! `wasi:http/outgoing-handler`: requests to granted hosts. The request is checked and its secrets are filled in here; the
//! answer is read whole, within bounds, before the plugin sees any of it.
//!
//! `cutover:plugin/http` tells the plugin why a request failed, in words that its operator can act on: the error codes
//! of `wasi:http` have no room for them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::Instant;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::bindings::cutover::plugin::http as wit;
use crate::bindings::cutover::plugin::types;
use crate::call::{Effect, State};
use crate::capabilities::logging::TARGET;
use crate::failure::{Failure, FailureClass, code};
use crate::limits::Limits;
use crate::pattern::{Capability, http_host};
use crate::plugin::Shared;
use crate::web::{self, Bounds};

/// What the requests of one call share.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

/// The last failure, until a request succeeds.
type Trouble = Arc<Mutex<Option<Failure>>>;

struct Hooks {
    plugin: Arc<Shared>,
    function: &'static str,
    effect: Effect,
    deadline: Instant,
    trouble: Trouble,
}

impl Http {
    pub(crate) fn new(
        plugin: &Arc<Shared>,
        function: &'static str,
        effect: Effect,
        deadline: Instant,
    ) -> Self {
        Self {
            ctx: WasiHttpCtx::new(),
            hooks: Hooks {
                plugin: Arc::clone(plugin),
                function,
                effect,
                deadline,
                trouble: Arc::default(),
            },
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let (http, table) = self.http_and_table();
        WasiHttpCtxView {
            hooks: &mut http.hooks,
            table,
            ctx: &mut http.ctx,
        }
    }
}

impl wit::Host for State {
    fn last_failure(&mut self) -> wasmtime::Result<Option<types::Failure>> {
        let trouble = Arc::clone(&self.http_and_table().0.hooks.trouble);
        let failure = trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(failure.map(|failure| self.fail(failure)))
    }
}

type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Hooks {
    /// The client says which host it means by the address.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let asked = Asked {
            plugin: Arc::clone(&self.plugin),
            function: self.function,
            method: request.method().to_string(),
            host: request
                .uri()
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            path: request.uri().path().to_owned(),
            since: Instant::now(),
        };
        let allowed = self.allow(&request);
        let (deadline, trouble) = (self.deadline, Arc::clone(&self.trouble));
        Box::new(async move {
            let outcome = match allowed {
                Ok(reach) => asked.send(request, reach, options, deadline).await,
                Err(denial) => Err((Error::HttpRequestDenied, denial)),
            };
            asked.log(&outcome);
            let mut trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(response) => {
                    *trouble = None;
                    let body = |bytes: Vec<u8>| {
                        Full::new(Bytes::from(bytes))
                            .map_err(|never| match never {})
                            .boxed_unsync()
                    };
                    Ok((response.map(body), Box::new(async { Ok(()) }) as Box<_>))
                }
                Err((error, failure)) => {
                    *trouble = Some(failure);
                    Err(error)
                }
            }
        })
    }
}

impl Hooks {
    /// Checks the host, and how far the grant lets the request go.
    fn allow(&self, request: &Request<WasiBody>) -> Result<crate::address::Reach, Failure> {
        let uri = request.uri();
        let host = http_host(&format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |authority| authority.as_str())
        ));
        let Some(host) = host else {
            let plugin = &self.plugin.name;
            let message = format!("plugin `{plugin}` asked a URL that has no plain host");
            return Err(Failure::host(FailureClass::Invalid, code::INVALID, message));
        };
        self.plugin
            .check(self.effect, self.function, &host)
            .inspect_err(|_| {
                tracing::warn!(plugin = %self.plugin.name, capability = %host, "capability was denied");
            })?;
        Ok(self.plugin.permissions.reach(&host))
    }
}

/// What is told and logged of a request: never its headers, nor what stands behind the path.
struct Asked {
    plugin: Arc<Shared>,
    function: &'static str,
    method: String,
    host: String,
    path: String,
    since: Instant,
}

type Outcome = Result<Response<Vec<u8>>, (Error, Failure)>;

impl Asked {
    async fn send(
        &self,
        request: Request<WasiBody>,
        reach: crate::address::Reach,
        options: Option<RequestOptions>,
        deadline: Instant,
    ) -> Outcome {
        let limits = &self.plugin.limits;
        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
        let (mut parts, body) = request.into_parts();
        for value in parts.headers.values_mut() {
            if let Some(filled) = self
                .fill(value)
                .map_err(|f| (Error::HttpRequestDenied, f))?
            {
                *value = filled;
            }
        }
        self.check_headers(&scheme, &parts.headers)?;
        let limit = limits.http_request_body;
        let body = match Limited::new(body, limit).collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(error) if error.is::<LengthLimitError>() => {
                let message = format!(
                    "{}: its body has more than {limit} bytes",
                    self.text(&scheme)
                );
                let size = u64::try_from(limit).unwrap_or(u64::MAX);
                let failure = Failure::host(FailureClass::Invalid, code::INVALID, message);
                return Err((Error::HttpRequestBodySize(Some(size)), failure));
            }
            Err(error) => {
                let message = format!("{}: its body ended early: {error}", self.text(&scheme));
                let failure = Failure::host(FailureClass::Permanent, code::INVALID, message);
                return Err((Error::HttpProtocolError, failure));
            }
        };
        let Ok(turn) = Arc::clone(&self.plugin.http_turns).acquire_owned().await else {
            unreachable!("the turns are never closed")
        };
        // A plugin that waits for an answer can say more about it than one that is ended at its deadline.
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.saturating_sub(left / 10);
        let options = options.unwrap_or_default();
        let bounds = Bounds {
            // All of the answer is there when the plugin gets its first byte.
            time: options.first_byte_timeout.unwrap_or(left).min(left),
            connect: options.connect_timeout,
            response_body: limits.http_response_body,
        };
        let client = Arc::clone(&self.plugin.web);
        let request = Request::from_parts(parts, body);
        // The thread is bounded by the time of the request, also when nobody waits for it any more.
        let sent = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            client.send(request, reach, bounds)
        });
        match sent.await {
            Ok(Ok(response)) => Ok(self.redacted(response)),
            Ok(Err(error)) => Err(self.failed(&scheme, error)),
            Err(_) => {
                let message = format!("{}: the thread broke off", self.text(&scheme));
                let failure = Failure::host(self.class_when_sent(), code::IO, message);
                Err((Error::InternalError(None), failure))
            }
        }
    }

    fn check_headers(&self, scheme: &str, headers: &HeaderMap) -> Result<(), (Error, Failure)> {
        let Limits {
            http_headers: count,
            http_header_bytes: bytes,
            ..
        } = self.plugin.limits;
        let lengths = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        if headers.len() <= count && lengths.sum::<usize>() <= bytes {
            return Ok(());
        }
        let message = format!(
            "{}: it has more than {count} headers, or {bytes} bytes of them",
            self.text(scheme)
        );
        let failure = Failure::host(FailureClass::Invalid, code::INVALID, message);
        Err((Error::HttpRequestHeaderSectionSize(None), failure))
    }

    /// The value of a header with its secrets, which are never logged.
    fn fill(&self, value: &HeaderValue) -> Result<Option<HeaderValue>, Failure> {
        let invalid =
            |message: String| Failure::host(FailureClass::Invalid, code::INVALID, message);
        let has_secret = value.as_bytes().windows(9).any(|part| part == b"{{secret:");
        if !has_secret {
            return Ok(None);
        }
        let plugin = &self.plugin.name;
        let template = value.to_str().map_err(|_| {
            invalid(format!(
                "plugin `{plugin}` put a secret into a header that is not plain text"
            ))
        })?;
        let filled = self.plugin.fill(template)?;
        let mut filled = HeaderValue::from_bytes(filled.expose()).map_err(|_| {
            invalid(format!(
                "a secret of plugin `{plugin}` does not fit in a header"
            ))
        })?;
        filled.set_sensitive(true);
        Ok(Some(filled))
    }

    /// An answer without the secrets that the server sends back, so that no echo brings them into the plugin's memory: AWS,
    /// for one, says of a wrong signature what it should have been made of, session token and all.
    fn redacted(&self, mut response: Response<Vec<u8>>) -> Response<Vec<u8>> {
        let secrets = &self.plugin.secrets;
        for value in response.headers_mut().values_mut() {
            if let Some(redacted) = secrets.redact_echo(value.as_bytes())
                && let Ok(redacted) = HeaderValue::from_bytes(&redacted)
            {
                *value = redacted;
            }
        }
        if let Some(redacted) = secrets.redact_echo(response.body()) {
            let length = HeaderValue::from(redacted.len());
            *response.body_mut() = redacted;
            if let Some(told) = response.headers_mut().get_mut(CONTENT_LENGTH) {
                *told = length;
            }
        }
        response
    }

    fn text(&self, scheme: &str) -> String {
        format!("{} `{scheme}://{}{}`", self.method, self.host, self.path)
    }

    /// What is known of a request that went out and has no answer.
    fn class_when_sent(&self) -> FailureClass {
        match self.method.as_str() {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => FailureClass::Transient,
            _ => FailureClass::UnknownOutcome,
        }
    }

    /// What is known of a request whose answer cannot be taken: asking again brings no other, and what it was to change has
    /// probably been changed.
    fn class_when_answered(&self) -> FailureClass {
        match self.class_when_sent() {
            FailureClass::UnknownOutcome => FailureClass::UnknownOutcome,
            _ => FailureClass::Permanent,
        }
    }

    fn failed(&self, scheme: &str, error: web::Error) -> (Error, Failure) {
        let size = |limit: usize| Some(u64::try_from(limit).unwrap_or(u64::MAX));
        let (error_code, class, code) = match &error {
            web::Error::Address(_) => (
                Error::DestinationIpProhibited,
                FailureClass::Denied,
                code::DENIED,
            ),
            web::Error::Network(_) => (
                Error::ConfigurationError,
                FailureClass::Invalid,
                code::INVALID,
            ),
            web::Error::UnknownHost => (
                Error::DnsError {
                    rcode: None,
                    info_code: None,
                },
                FailureClass::Transient,
                code::IO,
            ),
            web::Error::Connect(_) => (Error::ConnectionRefused, FailureClass::Transient, code::IO),
            web::Error::Tls(_) => (
                Error::TlsCertificateError,
                FailureClass::Permanent,
                code::IO,
            ),
            web::Error::Timeout(_) => {
                (Error::HttpResponseTimeout, self.class_when_sent(), code::IO)
            }
            web::Error::TooLarge { limit } => (
                Error::HttpResponseBodySize(size(*limit)),
                self.class_when_answered(),
                code::IO,
            ),
            web::Error::LongHead => (
                Error::HttpResponseHeaderSectionSize(None),
                self.class_when_answered(),
                code::IO,
            ),
            web::Error::Broken(_) => (
                Error::ConnectionTerminated,
                self.class_when_sent(),
                code::IO,
            ),
            web::Error::Request(_) => (
                Error::HttpRequestUriInvalid,
                FailureClass::Invalid,
                code::INVALID,
            ),
        };
        let mut message = format!("{}: {error}", self.text(scheme));
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        let message = self.plugin.secrets.redact(&message);
        let mut failure = Failure::host(class, code, message);
        if let web::Error::Address(refused) = &error
            && refused.may_be_granted
        {
            let host = Capability::Http(format!("{scheme}://{}", self.host));
            failure = failure.with_hint(host.grant_line(&self.plugin.name));
        }
        (error_code, failure)
    }

    fn log(&self, outcome: &Outcome) {
        let (plugin, function) = (&self.plugin.name, self.function);
        let Self {
            method, host, path, ..
        } = self;
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        match outcome {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::info!(target: TARGET, %plugin, function, method, host, path, status, elapsed_ms, "HTTP request");
            }
            Err((error, _)) => {
                tracing::info!(target: TARGET, %plugin, function, method, host, path, %error, elapsed_ms, "HTTP request failed");
            }
        }
    }
}
