//! The SHA-256 of a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::hex;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// In hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}
