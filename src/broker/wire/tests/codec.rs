//! Decompressing what other producers write, and what an attacker might.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;

use super::*;

fn text() -> Vec<u8> {
    b"one and the same text, ".repeat(40_000)
}

fn compressed(text: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text).expect("memory");
    let mut lz4 = FrameEncoder::new(Vec::new());
    lz4.write_all(text).expect("memory");
    let raw = |part: &[u8]| snap::raw::Encoder::new().compress_vec(part).expect("memory");
    let mut xerial = [XERIAL_MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
    for part in text.chunks(32 << 10) {
        let block = raw(part);
        xerial.extend((block.len() as u32).to_be_bytes());
        xerial.extend(block);
    }
    let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
    vec![
        (1, gzip.finish().expect("memory")),
        (2, raw(text)),
        (2, xerial),
        (3, lz4.finish().expect("memory")),
        (4, zstd),
    ]
}

#[test]
fn every_codec_and_both_framings_are_read() {
    for (codec, bytes) in compressed(&text()) {
        assert_eq!(decompress(codec, &bytes, 1 << 20).as_ref(), Ok(&text()), "{codec}");
        assert!(bytes.len() < text().len() / 5);
    }
    let zstd = compressed(&text()).pop().expect("zstd").1;
    assert_eq!(decompress(4, &zstd.repeat(2), 2 << 20), Ok(text().repeat(2)), "two frames");
}

#[test]
fn more_than_the_limit_is_refused() {
    let limit = text().len() - 1;
    for (codec, bytes) in compressed(&text()) {
        let Undecodable(why) = decompress(codec, &bytes, limit).expect_err("too large");
        assert!(why.contains(&limit.to_string()), "{codec}: {why}");
        assert!(decompress(codec, &bytes, limit + 1).is_ok(), "{codec}");
    }
}

#[test]
fn absurd_sizes_reserve_nothing() {
    // A window of terabytes, a content size of 2^60, a snappy block of 4 GiB.
    assert_eq!(
        decompress(4, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0], 1 << 20),
        Ok(vec![]),
        "no more history is reserved than the limit"
    );
    assert!(
        decompress(4, &[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0], 1 << 20).is_err()
    );
    assert!(decompress(2, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 1 << 20).is_err());
    assert!(decompress(2, &[XERIAL_MAGIC, &[0; 8], &[0xff; 4]].concat(), 1 << 20).is_err());
    assert_eq!(decompress(7, &[], 1), Err(Undecodable("compressed with the unknown codec 7".into())));
}

#[test]
fn many_blocks_of_next_to_nothing_are_refused_and_few_cost_something() {
    let frame = |blocks: usize| {
        // Blocks of up to 4 MiB, each of one byte.
        let header = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73];
        [&header[..], &[2, 0, 0, 0, 0x10, b'x'].repeat(blocks), &[0; 4]].concat()
    };
    assert_eq!(decompress(3, &frame(3), 1 << 20), Ok(b"xxx".to_vec()), "the frame is right");
    assert_eq!((cost(3, &frame(3), 3), cost(3, &frame(3), 1 << 30)), (3 << 18, 1 << 30));
    assert!(decompress(3, &frame(4), 1 << 20).is_ok());
    assert!(decompress(3, &frame(5), 1 << 20).is_err());
    let legacy = [&LZ4_LEGACY_MAGIC[..], &[2, 0, 0, 0, 0x10, b'x']].concat();
    assert!(decompress(3, &legacy, 1 << 20).is_err());
}

#[test]
fn what_other_producers_write_costs_what_it_holds() {
    for (codec, bytes) in compressed(&text()) {
        let cost = cost(codec, &bytes, text().len());
        assert_eq!(cost, text().len(), "{codec}");
    }
}

#[test]
fn whatever_is_broken_is_an_error_or_other_bytes_but_no_panic() {
    for (codec, bytes) in compressed(&text()) {
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _ = decompress(codec, &broken, 1 << 20);
            let _ = decompress(codec, &bytes[..at], 1 << 20);
        }
    }
}
