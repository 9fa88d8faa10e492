//! Skips the rest of a line that is too long to hold in memory.

use std::io::{self, BufRead};

/// Skips past the next line ending and returns the byte before it, if there was one. Returns `None` at the
/// end of the input without a line ending.
pub fn skip_line(reader: &mut impl BufRead) -> io::Result<Option<Option<u8>>> {
    let mut last = None;
    loop {
        let block = reader.fill_buf()?;
        let Some(&end) = block.last() else { return Ok(None) };
        let line_end = block.iter().position(|byte| *byte == b'\n');
        let (read, before) = match line_end {
            Some(at) => (at + 1, at.checked_sub(1).map(|at| block[at])),
            None => (block.len(), Some(end)),
        };
        last = before.or(last);
        reader.consume(read);
        if line_end.is_some() {
            return Ok(Some(last));
        }
    }
}
