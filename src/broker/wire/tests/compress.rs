//! Compressing batches, read back by our own decoder.

use proptest::prelude::*;

use super::*;
use crate::broker::wire::codec::decompress;

/// Every compression that there is.
pub const ALL: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// More than any of these tests compresses.
const LIMIT: usize = 2 << 20;

pub fn compressor(compression: Compression) -> Compressor {
    Compressor::new(compression).expect("not none")
}

/// Events like those of the load tool.
fn events(count: usize) -> Vec<u8> {
    let event = |number| format!("{{\"event\": \"purchase\", \"user_id\": {number}}}");
    (0..count).map(event).collect::<String>().into_bytes()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| random.u8(..)).collect()
}

/// Compresses after `out`, and returns what was appended.
fn compressed(compressor: &mut Compressor, plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"head".to_vec();
    let is_smaller = compressor.append(plain, &mut out);
    let appended = out.strip_prefix(b"head").expect("kept").to_vec();
    if !is_smaller {
        assert!(appended.is_empty());
        return None;
    }
    assert!(appended.len() < plain.len());
    Some(appended)
}

#[test]
fn one_compressor_compresses_batch_after_batch_and_all_are_read_back() {
    for compression in ALL {
        let mut compressor = compressor(compression);
        let codec = compressor.codec();
        for plain in [events(20_000), events(5), vec![0; 1 << 20], noise(1000), events(300), events(20_000)] {
            match compressed(&mut compressor, &plain) {
                Some(bytes) => assert!(decompress(codec, &bytes, LIMIT) == Ok(plain), "{compression}"),
                None => assert!(plain == noise(1000), "{compression}: {} bytes", plain.len()),
            }
        }
        let ratio =
            events(20_000).len() / compressed(&mut compressor, &events(20_000)).expect("smaller").len();
        assert!(ratio >= 3, "{compression}: {ratio}");
    }
}

#[test]
fn what_would_not_get_smaller_is_left_as_it_is() {
    for compression in ALL {
        let mut compressor = compressor(compression);
        for plain in [&b"x"[..], b"{}", &noise(10), &noise(200_000)] {
            assert_eq!(compressed(&mut compressor, plain), None, "{compression}");
        }
        assert!(compressed(&mut compressor, &events(100)).is_some(), "{compression}: it still works");
    }
    assert!(Compressor::new(Compression::None).is_none());
}

#[test]
fn the_formats_are_those_of_kafkas_own_clients() {
    let start = |compression, bytes: usize| {
        let whole = compressed(&mut compressor(compression), &events(20_000)).expect("smaller");
        whole[..bytes].to_vec()
    };
    assert_eq!(start(Compression::Gzip, 4), [0x1f, 0x8b, 8, 0]);
    assert_eq!(start(Compression::Snappy, 16), *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    // Version 1, independent blocks of 64 KiB, without checksums and size.
    assert_eq!(start(Compression::Lz4, 6), [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40]);
    // One frame with its size.
    let size = (events(20_000).len() as u32).to_le_bytes();
    assert_eq!(start(Compression::Zstd, 10), [&[0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x38], &size[..]].concat());
}

#[test]
fn zstd_is_read_back_where_some_blocks_are_stored_as_they_are() {
    // Each block is nearly as large as before, so that some are compressed, and some are not.
    let mut random = fastrand::Rng::with_seed(1);
    for most in [240, 250, 253, 255] {
        let plain: Vec<u8> =
            (0..3 << 17).map(|at: usize| random.u8(..=most) & !((at / 70_000 % 2) as u8)).collect();
        if let Some(bytes) = compressed(&mut compressor(Compression::Zstd), &plain) {
            assert!(decompress(4, &bytes, LIMIT) == Ok(plain), "{most}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_compressed_is_read_back(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), 1usize..300), 1..8),
    ) {
        let plain: Vec<u8> = pieces.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect();
        for compression in ALL {
            let mut compressor = compressor(compression);
            // The second time with what it has kept of the first.
            for _ in 0..2 {
                if let Some(bytes) = compressed(&mut compressor, &plain) {
                    prop_assert!(decompress(compressor.codec(), &bytes, LIMIT).as_ref() == Ok(&plain));
                }
            }
        }
    }
}
