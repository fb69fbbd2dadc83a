//! `cutover man FOLDER`: one manual page per command.

use clap::CommandFactory;

use crate::args::{Arguments, Man};
use crate::failure::Failure;
use crate::ui::Ui;

pub(crate) fn run(ui: Ui, arguments: &Man) -> Result<(), Failure> {
    let failed = |error| {
        Failure::io(
            format!("write manual pages to `{}`", arguments.folder.display()),
            error,
        )
    };
    std::fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), &arguments.folder).map_err(failed)?;
    ui.answer(&format!("{}\n", arguments.folder.display()));
    Ok(())
}
