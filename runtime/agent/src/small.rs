//! Small files, read with as few system calls as they need.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::buffer::spare_capacity;

use crate::protocol::MAX_LINE;

/// What a small file is seldom longer than, in bytes.
const USUAL: usize = 4 << 10;

/// The content of a file, or as much of it as can be told in one line: more would be damage. Of a small one,
/// [`std::fs::read`] asks how long it is first, and once more at the end.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut content = Vec::with_capacity(USUAL);
    loop {
        let room = content.capacity() - content.len();
        // A file has ended where it gives less than there is room for.
        let length =
            rustix::io::retry_on_intr(|| rustix::io::read(&file, spare_capacity(&mut content)))?;
        if length < room || content.len() >= MAX_LINE {
            return Ok(content);
        }
        content.reserve(USUAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, USUAL - 1, USUAL, USUAL + 1, 5 * USUAL] {
            let content = vec![b'x'; length];
            std::fs::write(&path, &content).unwrap();

            assert_eq!(read(&path).unwrap(), content, "{length} bytes");
        }
    }
}
