//! `cutover:package-source`: from a reference to an immutable one, and to the URLs that the host fetches.

use std::path::Path;

use tokio::sync::mpsc;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre, Resource};

use crate::answer::Answer;
use crate::bindings::exports::cutover::package_source::{source, streaming};
use crate::call::{Effect, OpContext, Request, State, wit_context};
use crate::capabilities::programs::is_variable;
use crate::capabilities::sink::Sink;
use crate::failure::{Attribute, CallError, Failure, FailureClass, code};
use crate::inspect::Provides;
use crate::limits;
use crate::manifest::Access;
use crate::pattern::{Capability, http_host};
use crate::plugin::{Directory, Plugin};
use crate::secret::Secret;

/// A package that a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Immutable reference; what a release records.
    pub pinned: String,
    pub version: Option<String>,
    pub media_type: String,
    pub size: Option<u64>,
    pub digest: Option<Digest>,
    pub attributes: Vec<Attribute>,
}

/// A digest in the provider's algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// For example `sha256`.
    pub algorithm: String,
    /// Lower-case hexadecimal digits.
    pub hex: String,
}

/// How a package comes here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchPlan {
    /// The host fetches one of these, mirrors of each other in order of preference. There is at least one.
    Download(Vec<Download>),
    /// The plugin hands over the bytes: [`Plugin::fetch`].
    Streamed,
    /// The host brings a source and builds it.
    Build(Checkout),
}

/// How a source comes into an empty folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// In order; there is at least one.
    pub commands: Vec<Command>,
    /// For the commands: names and values, fit for an environment.
    pub environment: Vec<(String, String)>,
    /// For the build, likewise.
    pub facts: Vec<(String, String)>,
    /// Names in the folder that are no part of a package.
    pub leave_out: Vec<String>,
}

/// A program to run. Whether it is granted, [`Plugin::may_run`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// One line for people.
    pub title: String,
    pub program: String,
    pub arguments: Vec<String>,
    /// What to do about its failure.
    pub hint: Option<String>,
}

/// One place to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// `http:`, `https:` or `file:` with an absolute path.
    pub url: String,
    /// Names and values, fit for HTTP.
    pub headers: Vec<(String, String)>,
    /// A URL that expires is a credential in itself.
    pub expires_at: Option<model::Timestamp>,
    /// Files that say what digest it has, in order of preference.
    pub checksums: Vec<Checksum>,
}

/// A file that says what SHA-256 a download has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// `http:` or `https:`.
    pub url: String,
    /// As in [`Download`].
    pub headers: Vec<(String, String)>,
    /// The name that its line has.
    pub file_name: String,
    /// Whether there has to be one.
    pub needed: bool,
}

/// Mirrors of one package, and headers of one request.
const MAX_LIST: usize = 64;

/// Where the exported functions are.
pub(crate) struct Exports {
    source: Option<source::GuestIndices>,
    streaming: Option<streaming::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            source: provides
                .package_source
                .then(|| source::GuestIndices::new(pre))
                .transpose()?,
            streaming: provides
                .streaming
                .then(|| streaming::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    pub(crate) fn try_load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        self.source
            .as_ref()
            .map(|source| source.load(&mut *store, instance))
            .transpose()?;
        self.streaming
            .as_ref()
            .map(|streaming| streaming.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

impl Plugin {
    /// Turns a reference that may move into one that does not.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails, breaks off, or answers with something that cannot be used.
    pub async fn resolve(
        &self,
        ctx: &OpContext,
        config: &str,
        reference: &str,
    ) -> Result<Resolved, CallError> {
        let indices = self.provided(
            self.exports.package_source.source.as_ref(),
            "cutover:package-source/source",
        )?;
        let request = self.operation("package-source.resolve", Effect::Read, ctx, config);
        let wit_ctx = self.context(ctx);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_resolve(&mut *store, &wit_ctx, reference).await
            },
            resolved,
        )
        .await
    }

    /// Asks where to fetch a package.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn plan_fetch(
        &self,
        ctx: &OpContext,
        config: &str,
        pinned: &str,
    ) -> Result<FetchPlan, CallError> {
        let indices = self.provided(
            self.exports.package_source.source.as_ref(),
            "cutover:package-source/source",
        )?;
        let request = self.operation("package-source.plan-fetch", Effect::Read, ctx, config);
        let wit_ctx = self.context(ctx);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_plan_fetch(&mut *store, &wit_ctx, pinned).await
            },
            fetch_plan,
        )
        .await
    }

    /// Lets the plugin hand over a package, in chunks of at most 1 MiB. The channel's bound is the back-pressure,
    /// and it closes at the end. Without an `Ok` the chunks are not a whole package.
    ///
    /// # Errors
    /// As [`Self::resolve`]; [`CallError::NotProvided`] where the plugin does not stream.
    pub async fn fetch(
        &self,
        ctx: &OpContext,
        config: &str,
        pinned: &str,
        chunks: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), CallError> {
        let streaming = self.exports.package_source.streaming.as_ref();
        let indices = self.provided(streaming, "cutover:package-source/streaming")?;
        let limit = self.shared.limits.streaming_deadline;
        let function = "package-source.fetch";
        let request = Request {
            function,
            effect: Effect::Read,
            ctx: Some(ctx),
            config,
            limit,
        };
        let wit_ctx = wit_context(ctx, limit);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                let sink = store.data_mut().table.push(Sink { chunks, written: 0 })?;
                guest
                    .call_fetch(
                        &mut *store,
                        &wit_ctx,
                        pinned,
                        Resource::new_borrow(sink.rep()),
                    )
                    .await
            },
            |_, ()| Ok(()),
        )
        .await
    }
}

impl Plugin {
    /// Checks a download that the plugin planned against its grants, and fills the secrets into its headers, which
    /// the plugin can only name, as `{{secret:NAME}}`. What the operator named as the package needs no grant.
    ///
    /// # Errors
    /// A failure of class `denied` with the line that would grant what is missing.
    pub fn authorise(
        &self,
        reference: &str,
        download: &Download,
    ) -> Result<Vec<(String, Secret)>, CallError> {
        let named = reference.split('#').next().unwrap_or(reference);
        if named != download.url {
            self.check_url(&download.url)?;
        }
        self.filled(&download.headers)
    }

    /// As [`Self::authorise`] for a file that says a digest. On the server of its download it needs no grant of its own.
    ///
    /// # Errors
    /// As [`Self::authorise`].
    pub fn authorise_checksum(
        &self,
        download: &Download,
        checksum: &Checksum,
    ) -> Result<Vec<(String, Secret)>, CallError> {
        if http_host(&checksum.url).is_none()
            || http_host(&checksum.url) != http_host(&download.url)
        {
            self.check_url(&checksum.url)?;
        }
        self.filled(&checksum.headers)
    }

    fn filled(&self, headers: &[(String, String)]) -> Result<Vec<(String, Secret)>, CallError> {
        let headers = headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), self.shared.fill(value)?)));
        headers.collect()
    }

    /// Checks that the operator granted the plugin to have a URL fetched.
    ///
    /// # Errors
    /// A failure of class `denied` with the line that would grant it.
    pub fn may_fetch(&self, url: &str) -> Result<(), Failure> {
        self.check_url(url)
    }

    /// Checks that the operator granted the plugin a program.
    ///
    /// # Errors
    /// A failure of class `denied` with the line that would grant it.
    pub fn may_run(&self, program: &str) -> Result<(), Failure> {
        let permissions = &self.shared.permissions;
        permissions.check(&Capability::Program(program.to_owned()))
    }

    fn check_url(&self, url: &str) -> Result<(), Failure> {
        let permissions = &self.shared.permissions;
        if let Some(path) = url.strip_prefix("file://") {
            // A path that has one spelling only: nothing in it is decoded, and it leads nowhere but down.
            let is_plain = !path.contains('%') && !path.split('/').any(|part| part == "..");
            let holds =
                |directory: &Directory| is_plain && Path::new(path).starts_with(&directory.path);
            let directory = self
                .shared
                .directories
                .iter()
                .find(|(_, directory)| holds(directory));
            let Some((name, _)) = directory else {
                let plugin = &self.shared.name;
                let message = format!(
                    "plugin `{plugin}` may not have `{path}` fetched: it is in no granted directory"
                );
                return Err(Failure::host(FailureClass::Denied, code::DENIED, message));
            };
            return permissions.check(&Capability::Directory {
                name: name.clone(),
                access: Access::Read,
            });
        }
        match http_host(url) {
            Some(host) => permissions.check(&host),
            None => {
                let plugin = &self.shared.name;
                Err(Failure::protocol(format!(
                    "plugin `{plugin}` named the URL `{url}`, which has no plain host"
                )))
            }
        }
    }
}

fn resolved(answer: &Answer<'_>, resolved: source::Resolved) -> Result<Resolved, Failure> {
    let pinned = answer.exact("pinned reference", resolved.pinned, limits::VALUE)?;
    if pinned.is_empty() {
        return Err(answer.broken("its pinned reference is empty"));
    }
    Ok(Resolved {
        pinned,
        version: resolved
            .version
            .map(|version| answer.exact("version", version, limits::NAME))
            .transpose()?,
        media_type: answer.exact("media type", resolved.media_type, limits::NAME)?,
        size: resolved.size,
        digest: resolved
            .digest
            .map(|digest| checked_digest(answer, digest))
            .transpose()?,
        attributes: answer.attributes(resolved.attributes),
    })
}

fn checked_digest(answer: &Answer<'_>, digest: source::Digest) -> Result<Digest, Failure> {
    let algorithm = answer
        .exact("digest algorithm", digest.algorithm, limits::NAME)?
        .to_ascii_lowercase();
    let hex = digest.hex.to_ascii_lowercase();
    let length = match algorithm.as_str() {
        "sha256" => Some(64),
        "sha512" => Some(128),
        _ => None,
    };
    let has_length = length.map_or((1..=512).contains(&hex.len()), |length| hex.len() == length);
    if !has_length || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(answer.broken(format_args!(
            "its digest is not one of {algorithm} in hexadecimal"
        )));
    }
    Ok(Digest { algorithm, hex })
}

fn fetch_plan(answer: &Answer<'_>, plan: source::FetchPlan) -> Result<FetchPlan, Failure> {
    let downloads = match plan {
        source::FetchPlan::Streamed => return Ok(FetchPlan::Streamed),
        source::FetchPlan::Build(checkout) => return checked_checkout(answer, checkout),
        source::FetchPlan::Download(downloads) => downloads,
    };
    if downloads.is_empty() || downloads.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it names {} downloads, not 1 to {MAX_LIST}",
            downloads.len()
        )));
    }
    downloads
        .into_iter()
        .map(|download| checked_download(answer, download))
        .collect::<Result<_, _>>()
        .map(FetchPlan::Download)
}

fn checked_checkout(answer: &Answer<'_>, checkout: source::Checkout) -> Result<FetchPlan, Failure> {
    let source::Checkout {
        commands,
        environment,
        facts,
        leave_out,
    } = checkout;
    if commands.is_empty() || commands.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it names {} commands, not 1 to {MAX_LIST}",
            commands.len()
        )));
    }
    let commands = commands
        .into_iter()
        .map(|command| checked_command(answer, command))
        .collect::<Result<_, _>>()?;
    if leave_out.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it leaves out {} names, the limit is {MAX_LIST}",
            leave_out.len()
        )));
    }
    let leave_out = leave_out.into_iter().map(|name| {
        let name = answer.exact("name to leave out", name, limits::NAME)?;
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(answer.broken(format_args!("`{name}` is not a name in a folder")));
        }
        Ok(name)
    });
    Ok(FetchPlan::Build(Checkout {
        commands,
        leave_out: leave_out.collect::<Result<_, _>>()?,
        environment: checked_variables(answer, environment)?,
        facts: checked_variables(answer, facts)?,
    }))
}

fn checked_command(answer: &Answer<'_>, command: source::Command) -> Result<Command, Failure> {
    if command.arguments.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "a command has {} arguments, the limit is {MAX_LIST}",
            command.arguments.len()
        )));
    }
    let arguments = command.arguments.into_iter().map(|argument| {
        let argument = answer.exact("argument of a command", argument, limits::VALUE)?;
        if argument.contains('\0') {
            return Err(answer.broken("an argument of a command holds a NUL byte"));
        }
        Ok(argument)
    });
    Ok(Command {
        title: answer.exact("title of a command", command.title, limits::NAME)?,
        program: answer.exact("program", command.program, limits::NAME)?,
        arguments: arguments.collect::<Result<_, _>>()?,
        hint: command
            .hint
            .map(|hint| answer.exact("hint of a command", hint, limits::MESSAGE))
            .transpose()?,
    })
}

fn checked_variables(
    answer: &Answer<'_>,
    variables: Vec<source::Variable>,
) -> Result<Vec<(String, String)>, Failure> {
    if variables.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it names {} variables, the limit is {MAX_LIST}",
            variables.len()
        )));
    }
    let variables = variables.into_iter().map(|variable| {
        let name = answer.exact("name of a variable", variable.name, limits::NAME)?;
        let value = answer.exact("value of a variable", variable.value, limits::VALUE)?;
        if !is_variable(&name, &value) {
            let name = name.escape_debug();
            return Err(answer.broken(format_args!(
                "the environment variable `{name}` cannot be set"
            )));
        }
        Ok((name, value))
    });
    variables.collect()
}

fn checked_download(answer: &Answer<'_>, download: source::Download) -> Result<Download, Failure> {
    let url = answer.exact("URL", download.url, limits::VALUE)?;
    let is_fetchable =
        url.starts_with("https://") || url.starts_with("http://") || url.starts_with("file:///");
    if !is_fetchable || url.contains(char::is_whitespace) && !url.starts_with("file:") {
        return Err(answer.broken(format_args!("`{url}` is not an http, https or file URL")));
    }
    let headers = checked_headers(answer, download.headers)?;
    if download.checksums.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it names {} files of checksums, the limit is {MAX_LIST}",
            download.checksums.len()
        )));
    }
    let checksums = download
        .checksums
        .into_iter()
        .map(|checksum| checked_checksum(answer, checksum))
        .collect::<Result<_, _>>()?;
    let expires_at = download
        .expires_at
        .map(|at| model::Timestamp(i64::try_from(at).unwrap_or(i64::MAX)));
    Ok(Download {
        url,
        headers,
        expires_at,
        checksums,
    })
}

fn checked_checksum(answer: &Answer<'_>, checksum: source::Checksum) -> Result<Checksum, Failure> {
    let url = answer.exact("URL", checksum.url, limits::VALUE)?;
    let is_fetchable = url.starts_with("https://") || url.starts_with("http://");
    if !is_fetchable || url.contains(char::is_whitespace) {
        return Err(answer.broken(format_args!("`{url}` is not an http or https URL")));
    }
    Ok(Checksum {
        url,
        headers: checked_headers(answer, checksum.headers)?,
        file_name: answer.exact("name of a file", checksum.file_name, limits::VALUE)?,
        needed: checksum.needed,
    })
}

fn checked_headers(
    answer: &Answer<'_>,
    headers: Vec<source::Header>,
) -> Result<Vec<(String, String)>, Failure> {
    if headers.len() > MAX_LIST {
        return Err(answer.broken(format_args!(
            "it names {} headers, the limit is {MAX_LIST}",
            headers.len()
        )));
    }
    let headers = headers.into_iter().map(|header| {
        let name = answer.exact("header name", header.name, limits::NAME)?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(answer.broken(format_args!("`{name}` is not the name of a header")));
        }
        Ok((
            name,
            answer.exact("header value", header.value, limits::VALUE)?,
        ))
    });
    headers.collect()
}
