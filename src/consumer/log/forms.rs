//! Compares the two forms of a closed log, plain and compressed, where both are there.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::consumer::log::storage::beside;

/// Checks that a log which is there with and without `.gz`, as after a crash while it was compressed, has the same content
/// in both forms. Somebody may be compressing or decompressing it.
///
/// # Errors
/// It has not. The text is one sentence with the way out.
pub fn check(log: &Path) -> Result<(), String> {
    let packed = beside(log, ".gz");
    let (Ok(plain), Ok(of_packed)) = (File::open(log), File::open(&packed)) else { return Ok(()) };
    let unpacked = MultiGzDecoder::new(BufReader::new(of_packed));
    match is_same(BufReader::new(plain), BufReader::new(unpacked)) {
        Ok(true) => Ok(()),
        outcome => {
            let why =
                outcome.err().map_or("differ".to_owned(), |error| format!("cannot be compared: {error}"));
            Err(format!(
                "{} and {} {why}; unless a program is working on them, remove the one that is not complete",
                log.display(),
                packed.display()
            ))
        }
    }
}

/// True if both have the same content.
fn is_same(mut one: impl BufRead, mut other: impl BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).expect("packed");
        packed.finish().expect("packed")
    }

    #[test]
    fn a_form_that_is_not_complete_is_found() {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("events.log");
        let text = "2025-07-08 00:00:00,000 - {}\n".repeat(10_000);
        let whole = gzip(text.as_bytes());
        let check = |plain: Option<&str>, packed: Option<&[u8]>| {
            let (_, _) = (fs::remove_file(&log), fs::remove_file(beside(&log, ".gz")));
            plain.iter().for_each(|plain| fs::write(&log, plain).expect("written"));
            packed.iter().for_each(|packed| fs::write(beside(&log, ".gz"), packed).expect("written"));
            super::check(&log)
        };
        assert_eq!(check(Some(&text), Some(&whole)), Ok(()));
        assert_eq!(check(Some(&text), None), Ok(()));
        assert_eq!(check(None, Some(&whole)), Ok(()));
        for (plain, packed) in [
            (&text[..text.len() - 1], &whole[..]),
            ("", &whole),
            (&text, &whole[..whole.len() / 2]),
            (&text, &gzip(b"")),
            (&text.replace("00,0", "00,1"), &whole),
        ] {
            let reason = check(Some(plain), Some(packed)).expect_err("not the same");
            assert!(reason.contains("events.log.gz") && reason.contains("remove the one"), "{reason}");
        }
    }
}
