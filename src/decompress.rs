//! Decompresses data within a limit, and asks before memory grows. Does no I/O.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Initial size of the result, which grows by a factor of two as long as there are more bytes.
const FIRST_BYTES: usize = 64 << 10;

/// Starts a frame of zstd.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Starts a frame that a zstd decoder has to skip; the last four bits are free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;

/// Flag in a zstd frame's descriptor: all of its content is kept, and there is no window byte.
const SINGLE_SEGMENT: u8 = 0x20;

/// Largest block of a zstd frame, which a window must hold.
const BLOCK_BYTES: usize = 128 << 10;

/// Why data cannot be decompressed.
#[derive(Debug)]
pub enum Failure {
    /// It is larger than the limit.
    TooLarge,
    /// Memory may not grow.
    NoRoom,
    /// It is damaged or cut off; the text is for people.
    Corrupt(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// Reads a decoder to its end, as [`gzip`] does.
///
/// # Errors
/// See [`Failure`].
pub fn read(
    mut decoder: impl Read,
    limit: usize,
    mut grow: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, Failure> {
    let mut output = Output::new(limit);
    output.fill(|room| Ok(decoder.read(room)?), &mut grow)?;
    Ok(output.finish())
}

/// Decompresses gzip data of one or more members into at most `limit` bytes. `grow` is called before memory grows to
/// the given size, and may refuse that.
///
/// # Errors
/// See [`Failure`].
pub fn gzip(bytes: &[u8], limit: usize, grow: impl FnMut(usize) -> bool) -> Result<Vec<u8>, Failure> {
    read(MultiGzDecoder::new(bytes), limit, grow)
}

/// Decompresses zstd data of one or more frames into at most `limit` bytes. `grow` is called as for [`gzip`]; the
/// result and the history of the decoder may each be as large as it says.
///
/// # Errors
/// See [`Failure`].
pub fn zstd(bytes: &[u8], limit: usize, mut grow: impl FnMut(usize) -> bool) -> Result<Vec<u8>, Failure> {
    let mut output = Output::new(limit);
    let mut frames = Frames { rest: bytes, decoder: FrameDecoder::new(), history: 0, left: limit };
    loop {
        let start = output.filled;
        if !frames.begin(limit - start, |history| grow(start.saturating_add(history)))? {
            return Ok(output.finish());
        }
        output.fill(|room| frames.read(room), &mut grow)?;
    }
}

/// The decompressed bytes so far.
struct Output {
    /// Filled up to `filled`, zero behind it.
    bytes: Vec<u8>,
    filled: usize,
    limit: usize,
}

impl Output {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), filled: 0, limit }
    }

    /// Appends what `read` returns until it returns nothing.
    fn fill(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, Failure>,
        grow: &mut impl FnMut(usize) -> bool,
    ) -> Result<(), Failure> {
        loop {
            if self.filled == self.bytes.len() {
                // One extra byte shows whether there is more.
                let length = (2 * self.filled).max(FIRST_BYTES).min(self.limit.saturating_add(1));
                if !grow(length) {
                    return Err(Failure::NoRoom);
                }
                self.bytes.reserve_exact(length - self.filled);
                self.bytes.resize(length, 0);
            }
            match read(&mut self.bytes[self.filled..])? {
                0 => return Ok(()),
                read => self.filled += read,
            }
            if self.filled > self.limit {
                return Err(Failure::TooLarge);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.truncate(self.filled);
        self.bytes
    }
}

/// Decodes zstd frames one after the other.
struct Frames<'a> {
    /// What follows the bytes that the decoder has read.
    rest: &'a [u8],
    decoder: FrameDecoder,
    /// Bytes of the current frame that the decoder keeps to refer to.
    history: usize,
    /// Most bytes that the current frame may still add.
    left: usize,
}

impl Frames<'_> {
    /// Begins the next frame, of at most `limit` bytes, and returns whether there is one. `grow` gets the size of its
    /// history.
    fn begin(&mut self, limit: usize, grow: impl FnOnce(usize) -> bool) -> Result<bool, Failure> {
        self.skip()?;
        if self.rest.is_empty() {
            return Ok(false);
        }
        if !self.rest.starts_with(&ZSTD_MAGIC) {
            return Err(Failure::Corrupt("a frame does not start as one of zstd".into()));
        }
        let cut_off = || Failure::Corrupt("a header is cut off".into());
        let (start, rest) = self.rest.split_first_chunk::<5>().ok_or_else(cut_off)?;
        let descriptor = start[4];
        let (history, window) = if descriptor & SINGLE_SEGMENT != 0 {
            let content = content_bytes(descriptor, rest).ok_or_else(cut_off)?;
            (usize::try_from(content).ok().filter(|bytes| *bytes <= limit).ok_or(Failure::TooLarge)?, None)
        } else {
            // High compression levels ask for far more than a body or a batch holds, although nothing beyond the
            // limit is ever looked back at.
            let most = window_byte(limit.max(BLOCK_BYTES) as u64);
            let window = most.min(*rest.first().ok_or_else(cut_off)?);
            (window_bytes(window) as usize, Some(window))
        };
        if !grow(history) {
            return Err(Failure::NoRoom);
        }
        self.rest = &rest[usize::from(window.is_some())..];
        (self.history, self.left) = (history, limit);
        self.decoder.set_max_window_size(history as u64);
        self.decoder.init(start[..].chain(window.as_slice()).chain(&mut self.rest)).map_err(broken)?;
        Ok(true)
    }

    /// Skips frames without content.
    fn skip(&mut self) -> Result<(), Failure> {
        while let Some(([magic, length], rest)) = words(self.rest)
            && magic & !0xf == SKIPPABLE_MAGIC
        {
            let rest = rest.get(length as usize..);
            self.rest = rest.ok_or_else(|| Failure::Corrupt("a skippable frame is cut off".into()))?;
        }
        Ok(())
    }

    /// Reads from the current frame into `room`; returns 0 at its end.
    fn read(&mut self, room: &mut [u8]) -> Result<usize, Failure> {
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            self.decoder
                .decode_blocks(&mut self.rest, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(broken)?;
        }
        let held = if self.decoder.is_finished() { 0 } else { self.history };
        if held.saturating_add(self.decoder.can_collect()) > self.left {
            return Err(Failure::TooLarge);
        }
        let read = self.decoder.read(room)?;
        self.left -= read;
        Ok(read)
    }
}

fn broken(error: FrameDecoderError) -> Failure {
    Failure::Corrupt(error.to_string())
}

fn words(bytes: &[u8]) -> Option<([u32; 2], &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    let (second, rest) = rest.split_first_chunk()?;
    Some(([u32::from_le_bytes(*first), u32::from_le_bytes(*second)], rest))
}

/// Window size for a window byte; greater bytes mean larger windows.
fn window_bytes(window: u8) -> u64 {
    let base = 1u64 << (10 + (window >> 3));
    base + base / 8 * u64::from(window & 7)
}

/// Window byte of the smallest window that holds `bytes`.
fn window_byte(bytes: u64) -> u8 {
    (0..=u8::MAX).find(|window| window_bytes(*window) >= bytes).unwrap_or(u8::MAX)
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
mod tests {
    use super::*;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn frame(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    fn skippable(content: &[u8]) -> Vec<u8> {
        [&0x184d_2a57u32.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), content].concat()
    }

    #[test]
    fn frames_follow_each_other_and_skippable_ones_are_skipped() {
        let bytes =
            [skippable(b"x"), frame(b"ab"), frame(b""), skippable(b""), frame(b"c"), skippable(b"yz")];
        let read = |bytes: &[u8]| zstd(bytes, 3, |_| true);
        assert_eq!(read(&bytes.concat()).expect("three bytes"), b"abc");
        assert_eq!(read(b"").expect("no frame"), b"");
        assert!(matches!(read(&[frame(b"ab"), frame(b"cd")].concat()), Err(Failure::TooLarge)));
        for broken in
            [&b"nonsense"[..], b"{}", &[frame(b"a"), b"{}".to_vec()].concat(), &skippable(b"xyz")[..9]]
        {
            assert!(matches!(read(broken), Err(Failure::Corrupt(_))), "{broken:?}");
        }
    }

    #[test]
    fn the_largest_limit_is_none() {
        assert_eq!(zstd(&frame(b"ab"), usize::MAX, |_| true).expect("two bytes"), b"ab");
        // A frame that claims to have as many bytes as can be counted.
        let claim = [&ZSTD_MAGIC[..], &[0xe0], &[0xff; 8]].concat();
        assert!(zstd(&claim, usize::MAX, |bytes| bytes < 1 << 30).is_err());
    }

    /// A frame with a window byte, of `blocks` blocks of 128 KiB.
    fn windowed(window: u8, blocks: usize) -> Vec<u8> {
        let block = |last: u32| [&(1u32 << 20 | 1 << 1 | last).to_le_bytes()[..3], b" "].concat();
        [&ZSTD_MAGIC[..], &[0, window], &block(0).repeat(blocks - 1), &block(1)].concat()
    }

    #[test]
    fn a_window_that_is_larger_than_the_limit_is_cut() {
        let mut asked = Vec::new();
        let mut read = |window, blocks| {
            let grow = |size| {
                asked.push(size);
                true
            };
            zstd(&windowed(window, blocks), 4 * BLOCK_BYTES, grow).map(|content| content.len())
        };
        for window in [56, 72, 136, 255] {
            for blocks in [1, 4] {
                assert_eq!(read(window, blocks).expect("fits"), blocks * BLOCK_BYTES, "{window}");
            }
            for blocks in [5, 100] {
                assert!(matches!(read(window, blocks), Err(Failure::TooLarge)), "{window}");
            }
        }
        assert_eq!(asked.iter().max(), Some(&(4 * BLOCK_BYTES + 1)));
        let tiny = zstd(&windowed(255, 1), 1, |size| size <= BLOCK_BYTES);
        assert!(matches!(tiny, Err(Failure::TooLarge)));
        assert!(matches!(zstd(&windowed(255, 1), 1 << 20, |size| size < 1 << 20), Err(Failure::NoRoom)));
    }
}
