//! Files in the directories that the operator granted, each under the name that the grant gives it.

use crate::Failure;
use crate::bindings::host::cutover::plugin::directories as host;

/// Reads a text file, or nothing where there is none.
///
/// # Errors
/// `denied` when the directory is not granted or the path leaves it, `invalid` when the file is not UTF-8.
///
/// ```no_run
/// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
/// let text = cutover_plugin_sdk::directories::read_text("balancer", "upstreams.txt")?.unwrap_or_default();
/// cutover_plugin_sdk::directories::write_text("balancer", "upstreams.txt", &format!("{text}web-3 10.0.0.3:80 100\n"))?;
/// # Ok(())
/// # }
/// ```
pub fn read_text(directory: &str, path: &str) -> Result<Option<String>, Failure> {
    let Some(bytes) = host::read(directory, path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes).map(Some).map_err(|_| {
        Failure::invalid(
            "file.not-text",
            format!("`{path}` in directory `{directory}` is not UTF-8"),
        )
    })
}

/// Replaces a text file atomically.
///
/// # Errors
/// `denied` when the directory is not granted for writing or the path leaves it.
pub fn write_text(directory: &str, path: &str, text: &str) -> Result<(), Failure> {
    host::write(directory, path, text.as_bytes())
}
