//! Decompresses records, never using more memory than a given limit. Does no I/O.

use lz4_flex::frame::FrameDecoder;

use crate::decompress::{self, Failure};

/// Why compressed records cannot be read; the text is for humans.
#[derive(Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

/// Java writes a header in front of snappy blocks: a magic number and two versions.
pub const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// The lz4 format from before it had frames, which Kafka never writes; each of its blocks may be 8 MiB.
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_ROOM_PER_COST: usize = 16;

/// Decompresses `bytes`, written with Kafka's codec number `codec`, into at most `limit` bytes.
///
/// # Errors
/// Fails if the data is corrupt, uses an unknown codec, or is larger than `limit`.
pub fn decompress(codec: u8, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    match codec {
        1 => decompress::gzip(bytes, limit, |_| true).map_err(|failure| undecodable("gzip", limit, failure)),
        2 => snappy(bytes, limit),
        3 => lz4(bytes, limit),
        4 => decompress::zstd(bytes, limit, |_| true).map_err(|failure| undecodable("zstd", limit, failure)),
        unknown => Err(Undecodable(format!("compressed with the unknown codec {unknown}"))),
    }
}

/// Cost of decompressing `bytes` into `decompressed` bytes: at least that number. Before each block, the lz4
/// decoder fills memory for a full one, however little the block holds. Filling is sixteen times as fast as
/// decoding.
pub fn cost(codec: u8, bytes: &[u8], decompressed: usize) -> usize {
    if codec == 3 { decompressed.max(lz4_room(bytes) / LZ4_ROOM_PER_COST) } else { decompressed }
}

fn lz4(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    if bytes.starts_with(&LZ4_LEGACY_MAGIC) {
        return Err(Undecodable("compressed with lz4 in its legacy format".into()));
    }
    if lz4_room(bytes) / LZ4_ROOM_PER_COST > limit {
        return Err(too_large("lz4", limit));
    }
    let read = decompress::read(FrameDecoder::new(bytes), limit, |_| true);
    read.map_err(|failure| undecodable("lz4", limit, failure))
}

/// Total bytes of a frame's blocks if each were full. The format is described in
/// <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>; 0 for bytes that do not follow it.
fn lz4_room(bytes: &[u8]) -> usize {
    let Some(&[flags, block, ..]) = bytes.get(4..) else { return 0 };
    let block_bytes = 1 << (8 + 2 * (block >> 4 & 7));
    let flag = |bit: u8, bytes: usize| if flags & bit != 0 { bytes } else { 0 };
    let header = 7 + flag(0x08, 8) + flag(0x01, 4);
    let mut rest = bytes.get(header..).unwrap_or_default();
    let mut blocks = 0;
    while let Some((size, behind)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            break;
        }
        blocks += 1;
        rest = behind.get((size & 0x7fff_ffff) as usize + flag(0x10, 4)..).unwrap_or_default();
    }
    blocks * block_bytes
}

/// The error for records that are corrupt or larger than `limit`.
fn undecodable(codec: &str, limit: usize, failure: Failure) -> Undecodable {
    match failure {
        Failure::Corrupt(why) => broken(codec, &why),
        Failure::TooLarge | Failure::NoRoom => too_large(codec, limit),
    }
}

/// Resizes `out` to `length` bytes. As in a vector, the capacity grows by a factor of two, but not beyond
/// `limit`.
fn grow(out: &mut Vec<u8>, length: usize, limit: usize) {
    if length > out.capacity() {
        out.reserve_exact((2 * out.capacity()).clamp(length, limit.max(length)) - out.len());
    }
    out.resize(length, 0);
}

fn broken(codec: &str, why: &dyn std::fmt::Display) -> Undecodable {
    Undecodable(format!("compressed with {codec}, but corrupt ({why})"))
}

fn too_large(codec: &str, limit: usize) -> Undecodable {
    Undecodable(format!(
        "compressed with {codec} in a batch of more than {limit} bytes (KAFKA_FETCH_MAX_BYTES)"
    ))
}

/// Decompresses raw snappy blocks. librdkafka writes one; Java writes several after a header, each after its
/// length.
fn snappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        push_snappy(&mut out, bytes, limit)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    while let Some((length, blocks)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (block, behind) =
            blocks.split_at_checked(length).ok_or_else(|| broken("snappy", &"a block is cut off"))?;
        push_snappy(&mut out, block, limit)?;
        rest = behind;
    }
    Ok(out)
}

fn push_snappy(out: &mut Vec<u8>, block: &[u8], limit: usize) -> Result<(), Undecodable> {
    let start = out.len();
    let length = snap::raw::decompress_len(block).map_err(|error| broken("snappy", &error))?;
    if start + length > limit {
        return Err(too_large("snappy", limit));
    }
    grow(out, start + length, limit);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]);
    out.truncate(start + written.map_err(|error| broken("snappy", &error))?);
    Ok(())
}

#[cfg(test)]
#[path = "tests/codec.rs"]
mod tests;
