//! What the disk takes to keep something, which explains much of the rest.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use crate::Places;
use crate::figure::{Figure, Sample};

const APPENDS: usize = 500;
const LENGTH: usize = 200;

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(places.folder.join("appends"))?;
    let mut times = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let began = Instant::now();
        file.write_all(&[b'x'; LENGTH])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    figures.push(Figure::microseconds(
        "disk: append and fdatasync",
        &Sample::of_times(&times),
        format!("{LENGTH} bytes, {APPENDS} times, nothing else in between"),
    ));
    Ok(())
}
