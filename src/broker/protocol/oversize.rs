//! Finds the batch that makes a fetch response too large, from the beginning of that response. Does no I/O.

use crate::broker::error::BrokerError;
use crate::broker::protocol::fetched::FetchedPart;
use crate::broker::protocol::frame::{Malformed, Reader};

/// A batch that is larger than a fetch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    pub partition: i32,
    /// Offset of its first record.
    pub offset: i64,
    /// Size as stored.
    pub bytes: usize,
}

/// Size of the fields in front of each batch: the offset of its first record and the size of the rest.
const PREFIX_BYTES: usize = 12;

/// Finds the batch that is cut off in `r`, the topics of a response of `version` about `topic`.
///
/// # Errors
/// Fails if no batch is cut off, because then the broker sent a false response size.
pub fn find(r: &mut Reader<'_>, topic: &str, version: i16) -> Result<Oversize, Malformed> {
    let topics = r.i32()?;
    if topics != 1 || r.str()? != topic {
        return Err(Malformed);
    }
    for _ in 0..r.i32()? {
        let partition = FetchedPart::head(r, version)?.partition;
        let stored = usize::try_from(r.i32()?).unwrap_or(0);
        if r.slice(stored).is_err() {
            let (offset, rest) = (r.i64()?, r.i32()?);
            let bytes = usize::try_from(rest).map_err(|_| Malformed)?.saturating_add(PREFIX_BYTES);
            r.skip_rest();
            return Ok(Oversize { partition, offset, bytes });
        }
    }
    Err(Malformed)
}

impl Oversize {
    /// The error for reading on in `topic` when batches of up to `max_bytes` are read.
    pub fn error(self, topic: &str, max_bytes: usize) -> BrokerError {
        let Self { partition, offset, bytes } = self;
        BrokerError::Unreadable(format!(
            "{topic}/{partition}: the batch at offset {offset} has {bytes} bytes, more than \
             KAFKA_FETCH_MAX_BYTES={max_bytes}; raise that to at least {bytes}, or delete the records of \
             this partition up to and including that batch (kafka-delete-records.sh) and set \
             KAFKA_AUTO_OFFSET_RESET=earliest"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::protocol::frame::Writer;

    /// A response of `version` about partitions 0 and 4, of which the second one has a batch of `bytes` at offset 7.
    fn answer(bytes: i32, version: i16) -> Vec<u8> {
        let head = Writer::default().i32(1).str("events").i32(2);
        let part = |w: Writer<'static>, id: i32| {
            let w = w.i32(id).i16(0).i64(9).i64(9);
            if version >= 5 { w.i64(0).i32(0) } else { w.i32(0) }
        };
        let body = part(part(head, 0).i32(3).i8(0).i8(0).i8(0), 4).i32(bytes);
        body.i64(7).i32(bytes - 12).i32(0).i8(2).into_bytes()
    }

    #[test]
    fn the_batch_that_is_cut_off_is_named_and_a_lie_is_not_believed() {
        let expected = Oversize { partition: 4, offset: 7, bytes: 70 << 20 };
        for version in [4, 10] {
            let cut = answer(70 << 20, version);
            assert_eq!(find(&mut Reader::new(&cut), "events", version), Ok(expected));
            assert_eq!(find(&mut Reader::new(&cut), "others", version), Err(Malformed));
            assert_eq!(find(&mut Reader::new(&cut[..20]), "events", version), Err(Malformed));
            let whole = answer(17, version);
            assert_eq!(
                find(&mut Reader::new(&whole), "events", version),
                Err(Malformed),
                "nothing is cut off"
            );
        }
        let text = expected.error("events", 64 << 20).to_string();
        for word in ["events/4", "offset 7", "73400320", "KAFKA_FETCH_MAX_BYTES=67108864"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
