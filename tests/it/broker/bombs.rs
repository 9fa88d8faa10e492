//! Answers that are small on the wire and huge once taken apart: refused, or read bit by bit, in bounded memory.

use std::io::Write;
use std::sync::Arc;

use event_pipeline::broker::{BrokerError, Fetched, Source, open_source};
use event_pipeline::config::KafkaConfig;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::hostile::{Answer, TOPIC, fetch_head, fetch_part, framed, hostile_leader};
use super::{config, from_start, wire};
use crate::support::admin::Body;
use crate::support::control::Watch;
use crate::support::memory::{Taken, taken_by};
use crate::support::wait::secs;

/// Most that a batch may hold once it is taken apart, and what its decoder may round its buffer up to.
const BATCH_MAX_BYTES: usize = 30 << 20;
const BUFFER_MAX_BYTES: usize = 32 << 20;

const PARTITIONS: i32 = 12;

/// A batch of `count` records that `packed` is said to hold, with a checksum that is right.
fn batch(codec: i16, count: i32, packed: &[u8]) -> Vec<u8> {
    let covered = Body::default().i16(codec).i32(count - 1).i64(0).i64(0).i64(-1).i16(-1).i32(-1).i32(count);
    let covered = [covered.into_bytes(), packed.to_vec()].concat();
    let crc = crc32c::crc32c(&covered);
    let length = covered.len() as i32 + 9;
    let head = Body::default().i64(0).i32(length).i32(0).i8(2).i32(crc as i32).into_bytes();
    [head, covered].concat()
}

/// What a broker answers that has `stored` in each partition.
fn fetch_answer(stored: Vec<u8>, partitions: i32) -> Answer {
    Arc::new(move |correlation| {
        let head = fetch_head(correlation).i32(partitions);
        let part =
            |id: i32| [fetch_part(id, 1 << 30, 0, stored.len() as i32).into_bytes(), stored.clone()].concat();
        framed(&[head.into_bytes(), (0..partitions).flat_map(part).collect()].concat())
    })
}

fn fetch(answer: Answer, partitions: i32) -> (Vec<Fetched>, Taken) {
    let address = hostile_leader(answer, 0, partitions).to_string();
    // Taking it apart counts as part of the call, and a debug build on a busy machine takes its time.
    let config = KafkaConfig { request_timeout_ms: 60_000, ..wire(config(&address, TOPIC)) };
    let source = open_source(&config).expect("a thread");
    let mut source = source.with_fetch_max_bytes(BATCH_MAX_BYTES);
    let (fetched, taken) = taken_by(|| source.fetch(&from_start(partitions)));
    (fetched.expect("the answer is whole"), taken)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A gigabyte of zeros each; 40 MiB of lz4, which reads one frame, and of snappy, which packs less.
fn bombs() -> Vec<(i16, Vec<u8>)> {
    const TIMES: usize = 1024;
    let zeros = vec![0; 1 << 20];
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    // Blocks of one byte that is repeated 2^17 times, none of which is the last.
    let blocks = [(1u32 << 20 | 1 << 1).to_le_bytes()[..3].to_vec(), vec![0]].concat();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    (0..40).for_each(|_| lz4.write_all(&zeros).expect("memory"));
    let lz4 = lz4.finish().expect("memory");
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros).expect("memory");
    let block = [&(snappy.len() as u32).to_be_bytes()[..], &snappy].concat();
    let xerial = [b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec(), block.repeat(40)].concat();
    vec![
        (1, gzip(&zeros).repeat(TIMES)),
        (2, xerial),
        (3, lz4),
        (4, [frame.to_vec(), blocks.repeat(8 * TIMES)].concat()),
    ]
}

#[test]
fn what_becomes_too_large_is_unreadable_and_takes_no_more_than_the_limit() {
    for (codec, packed) in bombs() {
        let sent = packed.len();
        let (fetched, taken) = fetch(fetch_answer(batch(codec, 1000, &packed), 1), 1);
        let Err(BrokerError::Unreadable(text)) = &fetched[0].page else { panic!("{codec}: {fetched:?}") };
        assert!(text.contains(&BATCH_MAX_BYTES.to_string()), "{codec}: {text}");
        assert!(taken.largest <= BUFFER_MAX_BYTES.max(2 * sent), "{codec}: {taken:?}");
        assert!(taken.most <= 3 * BUFFER_MAX_BYTES + 2 * sent, "{codec}: {taken:?}");
    }
}

/// Batches of one record each that is next to nothing in a page, and 29 MiB on the way there.
#[test]
fn batches_that_take_long_to_take_apart_do_not_add_up_either() {
    const BATCHES: i64 = 2000;
    let rest = 29u64 << 20;
    let mut length = vec![];
    let mut zigzag = rest << 1;
    while zigzag > 0x7f {
        length.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    length.push(zigzag as u8);
    let raw = [&((length.len() as u32) << 3).to_le_bytes()[..3], &length].concat();
    let blocks = [&(1u32 << 20 | 1 << 1).to_le_bytes()[..3], &[0]].concat().repeat(29 * 8);
    let end = [1, 0, 0];
    let packed = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58][..], &raw, &blocks, &end].concat();
    let one = batch(4, 1, &packed);
    let at = |base: i64| [&base.to_be_bytes(), &one[8..]].concat();
    let watch = Watch::start();
    let (fetched, _) = fetch(fetch_answer((0..BATCHES).flat_map(at).collect(), 1), 1);
    let page = fetched[0].page.as_ref().expect("readable");
    assert!((1..10).contains(&page.next_offset) && page.len() as i64 == page.next_offset, "{page:?}");
    watch.assert_within(secs(30), "the fetch");
}

/// 400,000 records without a value are 3 MB, packed 20 kB, and 6 MB in a page.
#[test]
fn small_batches_that_become_large_pages_do_not_add_up() {
    const RECORDS: i32 = 400_000;
    let mut plain = Vec::new();
    for index in 0..RECORDS as u64 {
        let mut delta = vec![];
        let mut rest = index << 1;
        while rest > 0x7f {
            delta.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        delta.push(rest as u8);
        plain.extend([((delta.len() as u8 + 5) << 1), 0, 0]);
        plain.extend(delta);
        plain.extend([1, 0, 0]);
    }
    let stored = batch(1, RECORDS, &gzip(&plain));
    let (fetched, taken) = fetch(fetch_answer(stored, PARTITIONS), PARTITIONS);
    let lengths: Vec<usize> =
        fetched.iter().map(|answer| answer.page.as_ref().expect("readable").len()).collect();
    assert_eq!(lengths[0], RECORDS as usize, "the first is read whole");
    assert_eq!(lengths[11], 0, "another one's turn comes later: {lengths:?}");
    let held: usize = fetched.iter().map(|answer| answer.page.as_ref().map_or(0, |p| p.held_bytes())).sum();
    assert!(held <= BUFFER_MAX_BYTES + 64, "{held}");
    assert!(taken.most <= 3 * BUFFER_MAX_BYTES, "{taken:?}");
}
