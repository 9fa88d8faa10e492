//! The SHA-256 of a file, or of anything that is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::hex;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Reads `source` to its end, and returns the number of bytes with their SHA-256.
///
/// # Errors
/// It cannot be read.
pub fn of(mut source: impl Read) -> io::Result<(u64, [u8; 32])> {
    let (mut digest, mut buffer, mut bytes) = (Sha256::new(), vec![0; BUFFER_BYTES], 0);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((bytes, digest.finalize().into())),
            Ok(read) => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// That of a file, in hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(path: &Path) -> io::Result<String> {
    of(File::open(path)?).map(|(_, digest)| hex::encode(&digest))
}
