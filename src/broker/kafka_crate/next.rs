//! Decides from batch headers how the kafka crate can continue, when it reads nothing or too little. Does no
//! I/O.
//!
//! The crate drops plain records ahead of a compressed batch, cannot name a codec that it does not know, and
//! shows neither control markers nor the gaps left by compaction. The headers show which of these it is.

use crate::broker::protocol::BatchHeader;

/// How to continue from an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is stored there yet.
    Wait,
    /// There are no records before this offset.
    Skip(i64),
    /// Reading exactly `bytes` bytes returns only one kind of batch. The first batch goes from `first` to
    /// `last` and holds records.
    Read { bytes: usize, first: i64, last: i64 },
    /// Compressed with a codec that the crate does not read.
    Unreadable(&'static str),
}

/// True for a transaction marker or a batch emptied by compaction: neither holds records.
fn is_empty(header: &BatchHeader) -> bool {
    header.is_control || header.count == 0
}

/// How the crate can continue from the first of `headers`.
pub fn next(headers: &[BatchHeader]) -> Next {
    let Some(first) = headers.first() else { return Next::Wait };
    if is_empty(first) {
        let empty = headers.iter().take_while(|header| is_empty(header));
        return Next::Skip(empty.last().map_or(first.last, |header| header.last) + 1);
    }
    let (base, last) = (first.base, first.last);
    match first.codec {
        0 => {
            let plain = headers.iter().take_while(|header| header.codec == 0);
            Next::Read { bytes: plain.map(|header| header.bytes).sum(), first: base, last }
        }
        // The crate reads one compressed batch and drops what follows it.
        1 | 2 => Next::Read { bytes: first.bytes, first: base, last },
        3 => Next::Unreadable("lz4"),
        4 => Next::Unreadable("zstd"),
        _ => Next::Unreadable("an unknown codec"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::protocol::headers;
    use crate::broker::protocol::stored::tests::batch;

    fn kinds(batches: &[Vec<u8>], offset: i64) -> Next {
        next(&headers(&batches.concat(), offset).expect("well formed"))
    }

    #[test]
    fn plain_batches_are_read_up_to_the_first_compressed_one() {
        let log = [batch(0, 5, 0, 10), batch(5, 5, 0, 20), batch(10, 5, 1, 30)];
        assert_eq!(kinds(&log, 0), Next::Read { bytes: 61 + 10 + 61 + 20, first: 0, last: 4 });
        assert_eq!(kinds(&log, 7), Next::Read { bytes: 61 + 20, first: 5, last: 9 });
        assert_eq!(kinds(&log, 10), Next::Read { bytes: 61 + 30, first: 10, last: 14 });
        assert_eq!(kinds(&log, 15), Next::Wait);
    }

    #[test]
    fn markers_and_emptied_batches_are_stepped_over() {
        let log = [batch(0, 1, 0x20, 4), batch(1, 0, 0, 0), batch(2, 1, 0, 4)];
        assert_eq!(kinds(&log, 0), Next::Skip(2));
        assert_eq!(kinds(&log, 2), Next::Read { bytes: 65, first: 2, last: 2 });
    }

    #[test]
    fn foreign_codecs_have_names() {
        assert_eq!(kinds(&[batch(0, 1, 3, 4)], 0), Next::Unreadable("lz4"));
        assert_eq!(kinds(&[batch(0, 1, 4, 4)], 0), Next::Unreadable("zstd"));
    }
}
