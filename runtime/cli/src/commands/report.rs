//! `cutover report`: everything about a release, as text, as JSON, or as a page.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::args::{Output, Report};
use crate::commands::show;
use crate::failure::{Failure, Kind};
use crate::ui::Ui;

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Report) -> Result<(), Failure> {
    if arguments.html.is_some() && ui.output == Output::Json {
        let failure = Failure::new(Kind::Usage, "`--html` and `--output json` are two answers");
        return Err(failure.hint("leave one of them out"));
    }
    let document = show::found(ui, config, &arguments.id)?;
    match (&arguments.html, ui.output) {
        (Some(file), _) if file.as_os_str() == "-" => {
            ui.answer_bytes(report::html::render(&document).as_bytes());
        }
        (Some(file), _) => {
            write(file, &report::html::render(&document))?;
            ui.answer(&format!("{}\n", file.display()));
        }
        (None, Output::Json) => ui.answer_json(&document),
        (None, Output::Text) => ui.answer(&report::render(&document)),
    }
    Ok(())
}

/// Writes the page, in the place of an older report if there is one.
fn write(file: &Path, page: &str) -> Result<(), Failure> {
    let failed = |error| Failure::io(format!("write `{}`", file.display()), error);
    match fs::metadata(file) {
        Ok(there) if there.is_file() => {
            if !is_report(file).map_err(failed)? {
                let text = format!("`{}` is there already, and no report", file.display());
                return Err(
                    Failure::new(Kind::Invalid, text).hint("remove it, or name another file")
                );
            }
            // What stands behind a link is replaced, not the link.
            let file = fs::canonicalize(file).map_err(failed)?;
            put(&file, page).map_err(failed)
        }
        // A pipe or a device takes what it is given.
        Ok(_) => fs::write(file, page).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => put(file, page).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn is_report(file: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(file)?
        .take(report::html::BEGINNING.len() as u64)
        .read_to_end(&mut beginning)?;
    Ok(beginning == report::html::BEGINNING.as_bytes())
}

/// Puts the page in its place as a whole, so that nobody reads half of it.
fn put(file: &Path, page: &str) -> io::Result<()> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let mut written = tempfile::Builder::new()
        .prefix(".report-")
        // Less what the umask takes away, as of any file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    written.write_all(page.as_bytes())?;
    written.persist(file)?;
    Ok(())
}
