//! The agent as a program of its own.
//!
//! ```text
//! cutover-agent [serve [WORD]]       answers requests on stdin until it ends, in place of the agent with the same WORD
//! cutover-agent receive              takes a package from stdin
//! cutover-agent digest               prints the SHA-256 of its own file
//! cutover-agent adopt DIGEST DRAFT   gives its own file, DRAFT, the name DIGEST
//! cutover-agent version              prints its version
//! ```
//!
//! With the feature `confine` there is `cutover-agent confine` as well, which carries out a job from stdin.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str =
    "usage: cutover-agent [serve [WORD] | receive | digest | adopt DIGEST DRAFT | version]";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments
        .iter()
        .map(|word| word.to_str().unwrap_or_default())
        .collect();
    let done: Result<(), Box<dyn Error>> = match words.as_slice() {
        [] | ["serve"] => agent::serve(std::io::stdin(), std::io::stdout()).map_err(Into::into),
        ["serve", word] => succeed(word),
        ["receive"] => {
            agent::receive::receive(std::io::stdin().lock(), std::io::stdout()).map_err(Into::into)
        }
        ["digest"] => agent::own::digest()
            .map_err(Into::into)
            .and_then(|digest| say(&digest)),
        ["adopt", digest, _] => {
            agent::own::adopt(Path::new(&arguments[2]), digest).map_err(Into::into)
        }
        #[cfg(feature = "confine")]
        ["confine"] => agent::confine::serve().map_err(Into::into),
        ["version" | "--version" | "-V"] => say(env!("CARGO_PKG_VERSION")),
        ["help" | "--help" | "-h"] => say(USAGE),
        _ => Err(USAGE.into()),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    let mut text = format!("cutover-agent: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.push('\n');
    // Nobody is left to tell when stderr is gone as well.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// Serves in place of the agent that came with the same word before.
fn succeed(word: &str) -> Result<(), Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let charge = agent::succession::succeed(own.parent().unwrap_or(Path::new("/")), word);
    if let Err(error) = &charge {
        // It serves all the same: the other one only makes some things wait.
        let text = format!("cutover-agent: take over from the agent before: {error}\n");
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    agent::serve(std::io::stdin(), std::io::stdout())?;
    Ok(())
}

fn say(line: &str) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
