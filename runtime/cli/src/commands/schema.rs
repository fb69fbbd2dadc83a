//! `cutover schema`.

use crate::ui::Ui;

pub(crate) fn run(ui: Ui) {
    ui.answer(spec::schema::WORKSPACE);
}
