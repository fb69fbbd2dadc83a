//! `cutover schema`.

use crate::args::{Schema, SchemaOf};
use crate::ui::Ui;

pub(crate) fn run(ui: Ui, arguments: &Schema) {
    ui.answer(match arguments.file {
        SchemaOf::Workspace => spec::schema::WORKSPACE,
        SchemaOf::Plan => spec::schema::RELEASE_PLAN,
    });
}
