//! `cutover resume`.

use std::path::Path;

use crate::args::Resume;
use crate::commands::drive;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Resume) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let found = conductor.journal().find(&arguments.id)?;
    drive::to_the_end(ui, conductor.resume(&found.release).await?).await
}
