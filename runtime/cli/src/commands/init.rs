//! `cutover init`: a first workspace.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::args::Init;
use crate::failure::{Failure, Kind};
use crate::ui::Ui;

pub(crate) fn run(ui: Ui, arguments: &Init) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let absolute = std::path::absolute(folder)
        .map_err(|error| Failure::io(format!("find the folder `{}`", folder.display()), error))?;
    let files = spec::template::files(&absolute.join("instances").display().to_string());
    let present = files
        .iter()
        .map(|file| folder.join(file.path))
        .find(|path| path.exists());
    if let Some(path) = present {
        let failure = Failure::new(
            Kind::Invalid,
            format!("`{}` is there already", path.display()),
        );
        return Err(failure.hint("name another folder: cutover init FOLDER"));
    }
    for file in files {
        let path = folder.join(file.path);
        let failed = |error| Failure::io(format!("write `{}`", path.display()), error);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.mode)
            .open(&path)
            .map_err(failed)?;
        written.write_all(file.text.as_bytes()).map_err(failed)?;
        ui.answer(&format!("{}\n", path.display()));
    }
    let next = match folder.as_os_str().to_str() {
        Some(".") => "check it: cutover check".to_owned(),
        _ => format!("check it: cd {} && cutover check", folder.display()),
    };
    ui.advise(&next);
    Ok(())
}
