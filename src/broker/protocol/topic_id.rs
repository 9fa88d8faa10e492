//! Asks for the id of a topic, which changes when the topic is deleted and recreated under the same name.
//!
//! Only newer versions of Metadata report it (from Kafka 2.8 on), in the compact encoding that no other
//! request here needs.

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::Call;
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::hex;

const METADATA: Api = Api { name: "Metadata", key: 3, version: 11 };
const ID_BYTES: usize = 16;

/// Returns the id of the topic as hexadecimal digits; `None` if the broker is too old to have one.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code for the topic.
pub fn topic_id(on: &mut Call<'_>) -> Result<Result<Option<String>, Code>> {
    if !on.versions.serves(METADATA.key, METADATA.version) {
        return Ok(Ok(None));
    }
    on.ask(METADATA, request(on.topic), read)
}

fn request(topic: &str) -> Writer<'static> {
    const NO_TAGS: i8 = 0;
    let one_topic = 1 + 1;
    let header_end = Writer::default().i8(NO_TAGS);
    let unknown_id = (0..ID_BYTES).fold(header_end.i8(one_topic), |writer, _| writer.i8(0));
    let named = topic.bytes().fold(length(unknown_id, topic.len() + 1), |writer, byte| writer.i8(byte as i8));
    let (create, authorized_operations) = (0, 0);
    named.i8(NO_TAGS).i8(create).i8(authorized_operations).i8(NO_TAGS)
}

/// Writes a length in groups of seven bits, lowest first.
fn length(writer: Writer<'static>, value: usize) -> Writer<'static> {
    let low = (value & 0x7f) as u8;
    if value > 0x7f { length(writer.i8((low | 0x80) as i8), value >> 7) } else { writer.i8(low as i8) }
}

fn read(r: &mut Reader<'_>) -> Result<Result<Option<String>, Code>, Malformed> {
    skip_tags(r)?;
    r.throttle()?;
    for _ in 1..read_length(r)? {
        let _node = r.i32()?;
        skip_text(r)?;
        let _port = r.i32()?;
        skip_text(r)?;
        skip_tags(r)?;
    }
    skip_text(r)?;
    let _controller = r.i32()?;
    if read_length(r)? != 1 + 1 {
        return Err(Malformed);
    }
    let code = Code(r.i16()?);
    skip_text(r)?;
    let id = r.slice(ID_BYTES)?;
    r.skip_rest();
    let known = id.iter().any(|byte| *byte != 0);
    let text = known.then(|| hex::encode(id));
    Ok(code.check().map(|()| text))
}

fn read_length(r: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(r.unsigned_varint()?).map_err(|_| Malformed)
}

/// Skips a text. Its encoded length is one more than its size in bytes, because 0 means null.
fn skip_text(r: &mut Reader<'_>) -> Result<(), Malformed> {
    let bytes = read_length(r)?.saturating_sub(1);
    r.slice(bytes).map(drop)
}

fn skip_tags(r: &mut Reader<'_>) -> Result<(), Malformed> {
    for _ in 0..read_length(r)? {
        let _tag = read_length(r)?;
        let bytes = read_length(r)?;
        r.slice(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u8, id: [u8; 16]) -> Vec<u8> {
        let brokers = [&[2, 0, 0, 0, 1, 5][..], b"host", &[0, 0, 35, 132, 0, 0]].concat();
        let topic = [&[2, 0, code, 2, b't'][..], &id, &[0]].concat();
        [&[0, 0, 0, 0, 0][..], &brokers, &[0, 0, 0, 0, 1], &topic].concat()
    }

    #[test]
    fn the_id_is_read_and_none_is_none() {
        let read = |bytes: &[u8]| super::read(&mut Reader::new(bytes));
        assert_eq!(read(&answer(0, [0xab; 16])), Ok(Ok(Some("ab".repeat(16)))));
        assert_eq!(read(&answer(0, [0; 16])), Ok(Ok(None)));
        assert_eq!(read(&answer(3, [0; 16])), Ok(Err(Code::UNKNOWN_TOPIC_OR_PARTITION)));
    }

    #[test]
    fn a_cut_or_absurd_answer_is_malformed() {
        let whole = answer(0, [1; 16]);
        for len in 0..whole.len() - 1 {
            assert_eq!(read(&mut Reader::new(&whole[..len])), Err(Malformed), "{len}");
        }
        assert_eq!(read(&mut Reader::new(&[0xff; 40])), Err(Malformed));
    }

    #[test]
    fn a_long_name_has_a_length_of_two_bytes() {
        let body = request(&"x".repeat(249)).into_bytes();
        assert_eq!(body[18..20], [0xfa, 0x01]);
        assert_eq!(body.len(), 1 + 1 + 16 + 2 + 249 + 4);
    }
}
