//! Decompresses records, never using more memory than a given limit. Does no I/O.

use std::io::{ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

/// Why compressed records cannot be read; the text is for humans.
#[derive(Debug, PartialEq, Eq)]
pub struct Undecodable(pub String);

/// Java writes a header in front of snappy blocks: a magic number and two versions.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

/// Initial buffer size, which grows by a factor of two as long as there are more bytes.
const FIRST_BYTES: usize = 64 << 10;

/// The lz4 format from before it had frames, which Kafka never writes; each of its blocks may be 8 MiB.
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const LZ4_ROOM_PER_COST: usize = 16;

/// Flag in a zstd frame's descriptor: all of its content is kept, and there is no window byte.
const SINGLE_SEGMENT: u8 = 0x20;

/// Decompresses `bytes`, written with Kafka's codec number `codec`, into at most `limit` bytes.
///
/// # Errors
/// Fails if the data is corrupt, uses an unknown codec, or is larger than `limit`.
pub fn decompress(codec: u8, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    match codec {
        1 => read_up_to(limit, "gzip", MultiGzDecoder::new(bytes)),
        2 => snappy(bytes, limit),
        3 => lz4(bytes, limit),
        4 => zstd(bytes, limit),
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
    read_up_to(limit, "lz4", FrameDecoder::new(bytes))
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

fn read_up_to(limit: usize, codec: &str, mut reader: impl Read) -> Result<Vec<u8>, Undecodable> {
    let mut out = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            // One extra byte shows whether there is more.
            let grown = (out.len() * 2).max(FIRST_BYTES).min(limit + 1);
            grow(&mut out, grown, limit + 1);
        }
        match reader.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(codec, &error)),
        }
        if filled > limit {
            return Err(too_large(codec, limit));
        }
    }
    out.truncate(filled);
    Ok(out)
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

fn zstd(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Undecodable> {
    let cut_off = || broken("zstd", &"its header is cut off");
    let (magic_and_descriptor, rest) = bytes.split_first_chunk::<5>().ok_or_else(cut_off)?;
    let descriptor = magic_and_descriptor[4];
    // The decoder reserves as much history as the frame asks for.
    if descriptor & SINGLE_SEGMENT != 0 {
        let content = content_bytes(descriptor, rest).ok_or_else(cut_off)?;
        if content > limit as u64 {
            return Err(too_large("zstd", limit));
        }
        return zstd_frames(bytes, limit);
    }
    // High compression levels ask for far more than a batch holds. Nothing beyond the limit is ever looked
    // back at.
    let (&window, rest) = rest.split_first().ok_or_else(cut_off)?;
    let most = (0..=u8::MAX).rev().find(|window| window_bytes(*window) <= limit as u64).unwrap_or(0);
    let header = [&magic_and_descriptor[..], &[window.min(most)]].concat();
    zstd_frames(header.chain(rest), limit)
}

fn zstd_frames(frame: impl Read, limit: usize) -> Result<Vec<u8>, Undecodable> {
    let decoder = StreamingDecoder::new(frame).map_err(|error| broken("zstd", &error))?;
    read_up_to(limit, "zstd", decoder)
}

/// Window size for a window byte; greater bytes mean larger windows.
fn window_bytes(window: u8) -> u64 {
    let base = 1u64 << (10 + (window >> 3));
    base + base / 8 * u64::from(window & 7)
}

/// Content size of a single segment; it comes after the dictionary id.
fn content_bytes(descriptor: u8, rest: &[u8]) -> Option<u64> {
    let content = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let size = |bytes: usize| {
        content.get(..bytes).map(|size| size.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => size(1),
        1 => size(2).map(|size| size + 256),
        2 => size(4),
        _ => size(8),
    }
}

#[cfg(test)]
#[path = "tests/codec.rs"]
mod tests;
