//! The agent as a program of its own: JSON lines on stdin and stdout until stdin ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    match agent::serve(std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("cutover-agent: {error}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            text.push('\n');
            // Nobody is left to tell when stderr is gone as well.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            ExitCode::FAILURE
        }
    }
}
