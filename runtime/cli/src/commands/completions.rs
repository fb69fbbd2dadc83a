//! `cutover completions SHELL`.

use clap::CommandFactory;

use crate::args::{Arguments, Completions};
use crate::ui::Ui;

pub(crate) fn run(ui: Ui, arguments: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "cutover",
        &mut script,
    );
    ui.answer_bytes(&script);
}
