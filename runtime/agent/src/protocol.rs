//! The agent's protocol: JSON lines, one message a line, [`Request`]s in and [`Answer`]s out.
//!
//! Every line is an object with `"v":1` and a `type`. Requests are answered in any order: an attempt's answers carry
//! its id, an answer to a question carries the question's number. A request with an unknown field is refused, because
//! an agent that does half of what it was told is worse than one that does nothing; answers may gain fields.
//!
//! ```text
//! > {"v":1,"type":"run","attempt":"r1-1.web-1.ApplicationStart.1","rootdir":"/srv/web-1","log_from":0,
//!    "work":{"kind":"hooks","cache":"app-shop/group-web/deploy-r1-1","scripts":[{"run":{"location":"bin/start.sh"},
//!    "timeout_ms":10000,"runas":null}],"env":[["PORT","8081"]]}}
//! < {"v":1,"type":"log","attempt":"r1-1.web-1.ApplicationStart.1","offset":0,"text":"==> bin/start.sh\n"}
//! < {"v":1,"type":"ended","attempt":"r1-1.web-1.ApplicationStart.1","outcome":{"status":"succeeded","exit_code":0,
//!    "log":"/srv/web-1/.cutover/attempts/r1-1.web-1.ApplicationStart.1/log","note":null}}
//! ```
//!
//! These are boundary types: they say what the line says and hold no behaviour.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the protocol, and of the files that the agent keeps.
pub const VERSION: u64 = 1;

/// The longest line that either side accepts, in bytes.
pub const MAX_LINE: usize = 8 << 20;

/// A line that is not a message.
#[derive(Debug, thiserror::Error)]
pub enum Garbage {
    /// The line is not a JSON object with a number `v`.
    #[error("the line is not a message of the agent's protocol: {reason}")]
    NotAMessage {
        /// What is wrong with it.
        reason: String,
    },
    /// The other side speaks another version.
    #[error("version {version} of the agent's protocol is not supported, only {VERSION} is")]
    Version {
        /// What the line says.
        version: u64,
    },
}

/// What is asked of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Request {
    /// Carries out an attempt, or follows the one that is already there under the same id. Answered by any number of
    /// [`Answer::Log`] and then [`Answer::Ended`], or by [`Answer::Unbegun`] or [`Answer::Refused`].
    Run(Run),
    /// Asks which package folders are complete. Answered by [`Answer::Cached`].
    Cached(Cached),
    /// Asks which deployment an application's group has installed. Answered by [`Answer::Installed`].
    Installed(Installed),
    /// Asks what an application's group has installed, and whether somebody has changed it since the last attempt ended.
    /// Answered by [`Answer::Inspected`].
    Inspect(Inspect),
    /// Asks whether the agent is at work. Answered by [`Answer::Pong`], after whatever waits to be said.
    Ping(Ping),
}

/// The operands of [`Request::Run`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The attempt's id, a file name of letters, digits, `-`, `_` and `.`. It is never executed twice.
    pub attempt: String,
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// How many bytes of the attempt's log the asker already has.
    #[serde(default)]
    pub log_from: u64,
    /// What is to be done.
    pub work: Work,
    /// Whether it is asked for for the first time. One that is not, and has left nothing, may have been begun before the host
    /// went down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Whether it is only to be joined: where it has not begun it does not, and [`Answer::Unbegun`] says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub join: bool,
    /// The attempt that begins as soon as this one has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Box<Then>>,
    /// In whose turn the attempt is given. One that is given in an earlier turn than another before is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
}

/// The turn of a conductor, among all that act on an application's group by way of one journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// The journal's id. Turns of different journals have no order.
    pub journal: String,
    /// Later turns have larger numbers.
    pub number: u64,
    /// The release that the turn is for.
    pub release: String,
}

/// An attempt that begins as soon as another one has succeeded, while whoever gave the two is connected, nothing else has
/// been asked for and the turn is not over. A [`Request::Run`] that asks for it joins it, or begins it where it has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then {
    /// As [`Run::attempt`].
    pub attempt: String,
    /// As [`Run::work`].
    pub work: Work,
}

/// What an attempt does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Puts a package into the instance's package cache.
    Fetch(Fetch),
    /// Runs the scripts of a hook.
    Hooks(Hooks),
    /// Lays down the files of a package.
    Install(Install),
    /// Does one thing that a plugin asks for.
    Errand(Errand),
}

/// The operands of [`Work::Fetch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The package folder, `app-A/group-G/deploy-D` below `rootdir`.
    pub cache: String,
    /// Absolute path of the unpacked package on this machine.
    pub source: String,
    /// What [`crate::tree::digest`] says of the source.
    pub digest: String,
    /// Package folders that must stay.
    #[serde(default)]
    pub keep: Vec<String>,
    /// How many of the group's other package folders stay, the newest ones.
    #[serde(default)]
    pub keep_others: u32,
    /// The installation that is to follow. What stands in its way is found when the package is there, before anything
    /// else on the instance changes.
    #[serde(default)]
    pub install: Option<Box<Install>>,
}

/// The operands of [`Work::Hooks`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// The package folder, `app-A/group-G/deploy-D` below `rootdir`; the scripts' working directory.
    pub cache: String,
    /// The scripts in order; the first failure ends the hook.
    pub scripts: Vec<Script>,
    /// Environment over the agent's clean base, in order; a later entry wins.
    #[serde(default)]
    pub env: Vec<(String, String)>,
}

/// One script of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// What runs.
    pub run: ScriptRun,
    /// The longest it may take.
    pub timeout_ms: u64,
    /// The account that it runs as; the agent's own when absent.
    #[serde(default)]
    pub runas: Option<String>,
}

/// What a script is, `{"location":"bin/start.sh"}` or `{"command":"systemctl restart shop"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptRun {
    /// A file in the package.
    Location(String),
    /// A command line for `/bin/sh`. One that only names a file of the package runs as that file.
    Command(String),
}

/// The operands of [`Work::Install`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The application, a name as in the package folder.
    pub application: String,
    /// The group, a name as in the package folder.
    pub group: String,
    /// The package folder, `app-A/group-G/deploy-D` below `rootdir`.
    pub cache: String,
    /// The deployment that the instance has installed afterwards.
    pub deployment: String,
    /// What goes where.
    pub files: Vec<FileMapping>,
    /// Owners and modes, in order; a later entry wins.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// What happens to files that this application's group did not install.
    #[serde(default)]
    pub on_existing: OnExisting,
}

/// The operands of [`Work::Errand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errand {
    /// The package folder, `app-A/group-G/deploy-D` below `rootdir`.
    pub cache: String,
    /// What is to be done.
    #[serde(rename = "do")]
    pub deed: Deed,
}

/// The most bytes of a file, of a program's input and of each of its output streams that an errand moves.
pub const MAX_CONTENT: usize = 1 << 20;

/// What an errand does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Deed {
    /// Runs a program and waits for it.
    Exec(Exec),
    /// Looks what is at a place.
    Stat {
        /// The place.
        at: Spot,
    },
    /// Reads a whole file.
    Read {
        /// The file.
        at: Spot,
        /// The most bytes that it may have.
        max: u32,
    },
    /// Replaces a file atomically. Folders on the way are made.
    Write {
        /// The file.
        at: Spot,
        /// Its content.
        #[serde(with = "hex")]
        data: Vec<u8>,
        /// Its permission bits, 0 to 0o777.
        mode: u32,
    },
    /// Copies a file or folder of the package.
    Place {
        /// The path in the package; `.` is all of it.
        artifact: String,
        /// Where to.
        at: Spot,
    },
    /// Points a link at something that is there, atomically.
    SwapLink {
        /// The link.
        link: Spot,
        /// What it points at.
        to: Spot,
    },
    /// Removes a file, a link, or a folder with all that is in it. Nothing there is fine.
    Remove {
        /// What is removed.
        at: Spot,
    },
}

/// A path below a folder, which it does not lead out of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// The folder, absolute or relative to `rootdir`.
    pub folder: String,
    /// The path below it; empty for the folder itself.
    pub path: String,
}

/// The operands of [`Deed::Exec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments. A program without `/` is looked for on the search path, one with a `/` in the
    /// middle is in the package.
    pub words: Vec<String>,
    /// The working directory; the package when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<Spot>,
    /// Environment over the agent's clean base, in order; a later entry wins.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// What it reads.
    #[serde(default, with = "hex")]
    pub stdin: Vec<u8>,
    /// The longest it may take.
    pub timeout_ms: u64,
    /// The most bytes that are kept of each output stream.
    pub max_output: u32,
}

/// One pair of an appspec's `files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMapping {
    /// A file or folder of the package; `/` is everything.
    pub source: String,
    /// A folder on the instance; relative to `rootdir` when not absolute.
    pub destination: String,
}

/// What happens when a foreign file is where one of the package's is to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExisting {
    /// The installation fails before anything changes.
    #[default]
    Disallow,
    /// It is replaced, and comes back when a later version leaves the file out.
    Overwrite,
    /// It stays, and the package's own is left out.
    Retain,
}

/// One entry of an appspec's `permissions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// A file or folder on the instance; relative to `rootdir` when not absolute.
    pub object: String,
    /// `**` for everything below a folder, or a pattern with `*` for the names directly in it.
    pub pattern: String,
    /// Patterns of what is left out.
    #[serde(default)]
    pub except: Vec<String>,
    /// What the entry applies to.
    #[serde(default)]
    pub kinds: Kinds,
    /// Name of the owner.
    #[serde(default)]
    pub owner: Option<String>,
    /// Name of the owning group.
    #[serde(default)]
    pub group: Option<String>,
    /// Permission bits as a number, 0 to 0o7777.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Entries of an access control list, as `setfacl` takes them.
    #[serde(default)]
    pub acls: Vec<String>,
    /// The SELinux context.
    #[serde(default)]
    pub context: Option<Context>,
}

/// An SELinux context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The SELinux user.
    #[serde(default)]
    pub user: Option<String>,
    /// The SELinux type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The range, `sN[-sM][:cA[.cB],…]`.
    #[serde(default)]
    pub range: Option<String>,
}

/// What a permission applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kinds {
    /// Files only.
    Files,
    /// Folders only.
    Directories,
    /// Files and folders.
    #[default]
    Both,
}

/// The operands of [`Request::Cached`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cached {
    /// Number that the answer carries.
    pub ask: u64,
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// The package folders in question.
    pub caches: Vec<String>,
}

/// The operands of [`Request::Installed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Number that the answer carries.
    pub ask: u64,
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// The application.
    pub application: String,
    /// The group.
    pub group: String,
}

/// The operands of [`Request::Inspect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspect {
    /// Number that the answer carries.
    pub ask: u64,
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// The application.
    pub application: String,
    /// The group.
    pub group: String,
    /// The instance, as the ids of its attempts name it: `DEPLOYMENT.INSTANCE.EVENT.NUMBER`.
    pub instance: String,
}

/// The operands of [`Request::Ping`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    /// Number that the answer carries.
    pub ask: u64,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Answer {
    /// More of an attempt's log.
    Log {
        /// The attempt.
        attempt: String,
        /// Position of the first byte in the attempt's log.
        offset: u64,
        /// The bytes. Logs are UTF-8: what a script wrote that is not is replaced before it is kept.
        text: String,
    },
    /// An attempt has not begun, and why.
    Waiting {
        /// The attempt.
        attempt: String,
        /// What it waits for.
        what: String,
    },
    /// An attempt that was only to be joined has not begun.
    Unbegun {
        /// The attempt.
        attempt: String,
    },
    /// An attempt ended. Its whole log has been sent.
    Ended {
        /// The attempt.
        attempt: String,
        /// How.
        outcome: Outcome,
    },
    /// The complete ones of the package folders asked for.
    Cached {
        /// Number of the question.
        ask: u64,
        /// Package folders, in the order of the question.
        caches: Vec<String>,
    },
    /// The installed deployment.
    Installed {
        /// Number of the question.
        ask: u64,
        /// None when nothing is installed.
        deployment: Option<String>,
    },
    /// What is installed, and what of it was changed.
    Inspected(Inspected),
    /// The agent is at work.
    Pong {
        /// Number of the question.
        ask: u64,
    },
    /// A request that was not carried out. Nothing has happened.
    Refused {
        /// The attempt, for a [`Request::Run`].
        #[serde(default)]
        attempt: Option<String>,
        /// The question's number, for a question.
        #[serde(default)]
        ask: Option<u64>,
        /// Why.
        reason: String,
    },
}

/// The content of [`Answer::Inspected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Number of the question.
    pub ask: u64,
    /// None when nothing is installed.
    pub deployment: Option<String>,
    /// Whether an attempt is under way or an installation was interrupted, so that files cannot be compared.
    pub is_at_work: bool,
    /// Files and folders that somebody has changed or removed, the first of them.
    pub changed: Vec<Changed>,
    /// How many more there are.
    pub more: u64,
}

/// A file or folder that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its absolute path; what is not UTF-8 is replaced.
    pub path: String,
    /// What became of it.
    pub what: What,
}

/// What became of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It has another content, or is something else.
    Changed,
    /// It is not there.
    Removed,
}

/// How an attempt ended. Stored as `outcome.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it was told.
    Succeeded {
        /// Exit code of the last script, where scripts ran.
        exit_code: Option<i32>,
        /// Path of the captured output on the instance.
        log: Option<String>,
        /// What is worth telling.
        note: Option<String>,
    },
    /// It failed.
    Failed {
        /// Why, as a stable code.
        cause: Cause,
        /// Why, for people.
        reason: String,
        /// The script that failed, where one did: its location, or the beginning of its command.
        #[serde(default)]
        script: Option<String>,
        /// Exit code of the script that failed, where it ended by itself.
        exit_code: Option<i32>,
        /// Path of the captured output on the instance.
        log: Option<String>,
    },
    /// An errand is over, done or not.
    Answered {
        /// What it led to.
        answer: ErrandAnswer,
        /// Path of the captured output on the instance.
        log: Option<String>,
    },
    /// It began and nobody knows how it ended.
    Lost {
        /// How that is known.
        reason: String,
    },
}

/// What an errand led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrandAnswer {
    /// It was done, and there is nothing to tell.
    Done,
    /// The program ended.
    Exited {
        /// Its exit code; -1 where a signal ended it.
        exit_code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The beginning of what it wrote.
        #[serde(with = "hex")]
        stdout: Vec<u8>,
        /// As `stdout`.
        #[serde(with = "hex")]
        stderr: Vec<u8>,
        /// Whether it wrote more.
        truncated: bool,
    },
    /// What is there.
    Stat {
        /// None where nothing is.
        stat: Option<FileStat>,
    },
    /// The content of a file.
    Content {
        /// All of it.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// It was not done.
    Undone {
        /// What may be done about it.
        why: Why,
        /// Why, for people.
        reason: String,
    },
}

/// What is at a place, links not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The text of a link; what is not UTF-8 is replaced.
    pub link: Option<String>,
}

/// Why an errand was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// What it is about is not there.
    NotFound,
    /// The agent may not, or it leads out of its folder.
    Denied,
    /// It makes no sense.
    Invalid,
    /// The program took too long, and was ended.
    TimedOut,
    /// The instance failed at it.
    Failed,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The script is not in the package.
    ScriptMissing,
    /// The script cannot be executed.
    NotExecutable,
    /// The script took longer than it may.
    TimedOut,
    /// The script exited with another code than 0, or was killed.
    ScriptFailed,
    /// The script ended, but something that it started still holds its output.
    OutputsLeftOpen,
    /// What was asked for makes no sense on this instance; nothing was changed.
    Invalid,
    /// The package could not be put into the cache.
    FetchFailed,
    /// The files could not be laid down.
    InstallFailed,
}

impl Cause {
    /// The code as it is written.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Cause::ScriptMissing => "script-missing",
            Cause::NotExecutable => "not-executable",
            Cause::TimedOut => "timed-out",
            Cause::ScriptFailed => "script-failed",
            Cause::OutputsLeftOpen => "outputs-left-open",
            Cause::Invalid => "invalid",
            Cause::FetchFailed => "fetch-failed",
            Cause::InstallFailed => "install-failed",
        }
    }
}

impl Garbage {
    /// The error for whoever wrote the line, with the side that is too old, where one is.
    #[must_use]
    pub fn told(&self, writer: &str, reader: &str) -> String {
        let older = match self {
            Garbage::NotAMessage { reason } => ["unknown field", "unknown variant"]
                .iter()
                .any(|sign| reason.contains(sign))
                .then_some(reader),
            Garbage::Version { version } if *version > VERSION => Some(reader),
            Garbage::Version { .. } => Some(writer),
        };
        match older {
            Some(older) => format!("{self}; the {older} is too old for the other side"),
            None => self.to_string(),
        }
    }
}

/// Bytes as two digits each, for JSON has no bytes.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let [high, low] = pair else { return None };
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
        };
        let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
        bytes.ok_or_else(|| D::Error::custom("bytes are pairs of hexadecimal digits"))
    }
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u64,
    #[serde(flatten)]
    body: &'a T,
}

/// How a message of this version with something in it begins.
const USUAL_BEGINNING: &[u8] = b"{\"v\":1,";

/// Writes a message as one line, with its line feed.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // These types hold nothing that JSON cannot say, so there is no error to hand on.
    let mut line = serde_json::to_vec(&Versioned {
        v: VERSION,
        body: message,
    })
    .unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads a message from one line.
///
/// # Errors
/// [`Garbage`] when the line is not a message of this version.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, Garbage> {
    // As `encode` writes it. Whatever cannot be read so is looked at more closely.
    if let Some(body) = line.strip_prefix(USUAL_BEGINNING)
        && let Ok(message) = serde_json::from_slice(&[b"{", body].concat())
    {
        return Ok(message);
    }
    let garbage = |error: serde_json::Error| Garbage::NotAMessage {
        reason: error.to_string(),
    };
    let mut value: serde_json::Value = serde_json::from_slice(line).map_err(garbage)?;
    let version = value
        .as_object_mut()
        .and_then(|object| object.remove("v"))
        .and_then(|version| version.as_u64())
        .ok_or_else(|| Garbage::NotAMessage {
            reason: "it is not an object with a number `v`".to_owned(),
        })?;
    if version != VERSION {
        return Err(Garbage::Version { version });
    }
    serde_json::from_value(value).map_err(garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        match decode::<Request>(line.as_bytes()) {
            Ok(request) => panic!("accepted as {request:?}"),
            Err(error) => assert!(
                error.to_string().contains(expected),
                "`{error}` does not say `{expected}`"
            ),
        }
    }

    #[test]
    fn refuses_garbage_by_name() {
        check("", "EOF");
        check("hello", "expected value");
        check("[1]", "a number `v`");
        check(r#"{"type":"cached"}"#, "a number `v`");
        check(r#"{"v":2,"type":"new"}"#, "version 2");
        check(r#"{"v":1,"type":"dance"}"#, "unknown variant `dance`");
        check(
            r#"{"v":1,"type":"cached","ask":1,"rootdir":"/","caches":[],"x":1}"#,
            "unknown field `x`",
        );
        check(
            r#"{"v":1,"type":"run","attempt":"a","rootdir":"/","work":{"kind":"hooks","cache":"c","scripts":[],"nice":1}}"#,
            "unknown field `nice`",
        );
        check(
            r#"{"v":1,"type":"run","attempt":"a","rootdir":"/","work":{"kind":"hooks","cache":"c","scripts":[{"run":{"shell":"x"},"timeout_ms":1}]}}"#,
            "unknown variant `shell`",
        );
    }

    #[test]
    fn a_line_of_another_version_is_refused_with_the_side_that_is_too_old() {
        let told = |line: &str| {
            let garbage = decode::<Request>(line.as_bytes()).unwrap_err();
            garbage.told("conductor", "agent")
        };

        for (line, older) in [
            (r#"{"v":2,"type":"run"}"#, "agent"),
            (r#"{"v":0,"type":"run"}"#, "conductor"),
            (r#"{"v":1,"type":"dance"}"#, "agent"),
            (r#"{"v":1,"type":"ping","ask":1,"x":1}"#, "agent"),
        ] {
            let told = told(line);
            let ending = format!("; the {older} is too old for the other side");
            assert!(told.ends_with(&ending), "{told}");
        }
        assert!(!told("hello").contains("too old"));
    }

    #[test]
    fn a_message_survives_its_line() {
        let request = Request::Run(Run {
            attempt: "r1-1.web-1.ApplicationStart.1".to_owned(),
            rootdir: "/srv/web 1".to_owned(),
            log_from: 7,
            work: Work::Hooks(Hooks {
                cache: "app-a/group-g/deploy-d".to_owned(),
                scripts: vec![Script {
                    run: ScriptRun::Location("bin/ü.sh".to_owned()),
                    timeout_ms: 10_000,
                    runas: Some("nobody".to_owned()),
                }],
                env: vec![("A".to_owned(), "1\n2".to_owned())],
            }),
            fresh: true,
            join: false,
            then: Some(Box::new(Then {
                attempt: "r1-1.web-1.ValidateService.1".to_owned(),
                work: Work::Hooks(Hooks {
                    cache: "app-a/group-g/deploy-d".to_owned(),
                    scripts: Vec::new(),
                    env: Vec::new(),
                }),
            })),
            fence: Some(Fence {
                journal: "j1".to_owned(),
                number: 7,
                release: "r1".to_owned(),
            }),
        });

        let line = encode(&request);

        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(decode::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn codes_are_what_is_written() {
        let all = [
            Cause::ScriptMissing,
            Cause::NotExecutable,
            Cause::TimedOut,
            Cause::ScriptFailed,
            Cause::OutputsLeftOpen,
            Cause::Invalid,
            Cause::FetchFailed,
            Cause::InstallFailed,
        ];
        for cause in all {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.code());
        }
    }
}
