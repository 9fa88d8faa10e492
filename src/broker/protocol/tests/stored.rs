//! Stored batches, whole and cut off.

use super::*;
use crate::broker::protocol::frame::Writer;

/// A batch of `count` records with the header's checksum left out.
pub fn batch(base: i64, count: i32, attributes: i16, payload: usize) -> Vec<u8> {
    let length = i32::try_from(49 + payload).expect("small");
    let mut bytes = Writer::default()
        .i64(base)
        .i32(length)
        .i32(0)
        .i8(2)
        .i32(0)
        .i16(attributes)
        .i32((count - 1).max(0))
        .i64(0)
        .i64(0)
        .i64(-1)
        .i16(-1)
        .i32(-1)
        .i32(count)
        .into_bytes();
    bytes.resize(bytes.len() + payload, b'x');
    bytes
}

#[test]
fn a_cut_off_batch_is_left_out_and_garbage_is_refused() {
    let log = [batch(0, 1, 0, 4), batch(1, 1, 0x30, 4)].concat();
    for cut in 66..log.len() {
        let mut stored = &log[..cut];
        assert!(next_batch(&mut stored).expect("well formed").is_some());
        assert_eq!(next_batch(&mut stored), Ok(None), "{cut}");
    }
    let mut stored = &log[65..];
    let (header, whole) = next_batch(&mut stored).expect("well formed").expect("whole");
    assert_eq!((header.base, header.last, header.bytes, whole.len()), (1, 1, 65, 65));
    assert!(header.is_control && header.is_transactional && header.is_current);
    let negative = Writer::default().i64(0).i32(-5).i64(0).into_bytes();
    assert_eq!(next_batch(&mut &negative[..]), Err(Malformed));
    let short = Writer::default().i64(0).i32(3).i8(0).i8(0).i8(0).into_bytes();
    assert_eq!(next_batch(&mut &short[..]), Err(Malformed));
    let mut backwards = batch(i64::MAX, 2, 0, 0);
    assert_eq!(next_batch(&mut &backwards[..]), Err(Malformed), "an offset past the last one");
    backwards[..8].copy_from_slice(&(i64::MAX - 1).to_be_bytes());
    assert_eq!(next_batch(&mut &backwards[..]), Err(Malformed), "no offset could follow");
    backwards[..8].fill(0);
    backwards[23..27].fill(0xff);
    assert_eq!(next_batch(&mut &backwards[..]), Err(Malformed), "a last offset ahead of the first");
}
