//! Compresses the records of a batch in the formats that Kafka's own clients write. Does no I/O.

use std::io::{Cursor, Write};
use std::mem;

use flate2::{Compress, Crc, FlushCompress, Status};
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use ruzstd::encoding::{CompressionLevel, FrameCompressor, MatchGeneratorDriver};
use snap::raw::{self, max_compress_len};

use crate::broker::wire::codec::XERIAL_MAGIC;
use crate::config::Compression;

/// The level that Kafka's own clients use by default.
const GZIP_LEVEL: u32 = 6;

/// Deflate, without flags, time and origin.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What follows the magic number of snappy's framing: its version, and the oldest version that can read it.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// Largest block of that framing, as Kafka's own clients write it.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Magic number, the flag for a size of four bytes, and a window of 128 KiB. The size follows; librdkafka guesses it
/// where it is missing, and some decoders require it.
const ZSTD_HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x80, 7 << 3];

/// Bytes in front of the first block of a frame that the encoder writes.
const ZSTD_ENCODER_HEADER_BYTES: usize = 6;

/// One byte less than the largest block, so that the encoder ends its frame with this block.
const ZSTD_BLOCK_BYTES: usize = (128 << 10) - 1;

/// Flag in the first byte of a zstd block: it is the last one of its frame.
const ZSTD_LAST_BLOCK: u8 = 1;

/// Compresses one batch after the other, and keeps the memory that this takes.
pub struct Compressor(Method);

enum Method {
    Gzip(Compress),
    Snappy(Box<raw::Encoder>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(Box<FrameCompressor<Cursor<Vec<u8>>, Vec<u8>, MatchGeneratorDriver>>),
}

impl Compressor {
    /// A compressor for what the settings ask for; `None` if that is no compression.
    pub fn new(compression: Compression) -> Option<Self> {
        Some(Self(match compression {
            Compression::None => return None,
            Compression::Gzip => Method::Gzip(Compress::new(flate2::Compression::new(GZIP_LEVEL), false)),
            Compression::Snappy => Method::Snappy(Box::new(raw::Encoder::new())),
            Compression::Lz4 => {
                // Kafka's own clients read independent blocks only, and write blocks of this size.
                let info = FrameInfo::new().block_size(BlockSize::Max64KB);
                Method::Lz4(Box::new(FrameEncoder::with_frame_info(info, Vec::new())))
            }
            Compression::Zstd => Method::Zstd(Box::new(FrameCompressor::new(CompressionLevel::Fastest))),
        }))
    }

    /// Number of the compression in the attributes of a batch.
    pub fn codec(&self) -> u8 {
        match self.0 {
            Method::Gzip(_) => 1,
            Method::Snappy(_) => 2,
            Method::Lz4(_) => 3,
            Method::Zstd(_) => 4,
        }
    }

    /// Appends `plain` to `out`, compressed. Returns false, and appends nothing, if that is not smaller.
    pub fn append(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let is_whole = match &mut self.0 {
            Method::Gzip(deflate) => gzip(deflate, plain, out),
            Method::Snappy(encoder) => snappy(encoder, plain, out),
            Method::Lz4(encoder) => lz4(encoder, plain, out),
            Method::Zstd(encoder) => zstd(encoder, plain, out),
        };
        let is_smaller = is_whole && out.len() - start < plain.len();
        if !is_smaller {
            out.truncate(start);
        }
        is_smaller
    }
}

/// Returns false if the result is larger than `plain`; it is incomplete then.
fn gzip(deflate: &mut Compress, plain: &[u8], out: &mut Vec<u8>) -> bool {
    deflate.reset();
    out.extend_from_slice(&GZIP_HEADER);
    out.reserve(plain.len().saturating_sub(GZIP_HEADER.len()));
    // Fills the room that there is, and never asks for more.
    if !matches!(deflate.compress_vec(plain, out, FlushCompress::Finish), Ok(Status::StreamEnd)) {
        return false;
    }
    let mut checksum = Crc::new();
    checksum.update(plain);
    out.extend_from_slice(&checksum.sum().to_le_bytes());
    out.extend_from_slice(&checksum.amount().to_le_bytes());
    true
}

fn snappy(encoder: &mut raw::Encoder, plain: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    for part in plain.chunks(XERIAL_BLOCK_BYTES) {
        let length_at = out.len();
        let block_at = length_at + 4;
        out.resize(block_at + max_compress_len(part.len()), 0);
        let length = encoder.compress(part, &mut out[block_at..]).expect("room for the worst case");
        out[length_at..block_at].copy_from_slice(&(length as u32).to_be_bytes());
        out.truncate(block_at + length);
    }
    true
}

fn lz4(encoder: &mut FrameEncoder<Vec<u8>>, plain: &[u8], out: &mut Vec<u8>) -> bool {
    *encoder.get_mut() = mem::take(out);
    encoder.write_all(plain).expect("memory does not fail");
    encoder.try_finish().expect("memory does not fail");
    *out = mem::take(encoder.get_mut());
    true
}

/// Writes one frame whose blocks do not depend on each other. The encoder writes each block as a frame of its own,
/// because it may reuse a table of a block that it has then stored uncompressed, which no decoder could read.
fn zstd(
    encoder: &mut FrameCompressor<Cursor<Vec<u8>>, Vec<u8>, MatchGeneratorDriver>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    out.extend_from_slice(&ZSTD_HEADER);
    out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    let mut parts = plain.chunks(ZSTD_BLOCK_BYTES).peekable();
    while let Some(part) = parts.next() {
        let mut source = encoder.take_source().unwrap_or_default().into_inner();
        source.clear();
        source.extend_from_slice(part);
        let mut frame = encoder.take_drain().unwrap_or_default();
        frame.clear();
        encoder.set_source(Cursor::new(source));
        encoder.set_drain(frame);
        encoder.compress();
        let block_at = out.len();
        out.extend_from_slice(&encoder.drain().expect("set above")[ZSTD_ENCODER_HEADER_BYTES..]);
        if parts.peek().is_some() {
            out[block_at] &= !ZSTD_LAST_BLOCK;
        }
    }
    true
}

#[cfg(test)]
#[path = "tests/compress.rs"]
pub mod tests;
