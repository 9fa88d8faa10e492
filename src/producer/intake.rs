//! Turns a request body into lines for Kafka, or into the reason why it is refused.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::event::{self, ErrorKind, EventError, Format, Limits, Stamp};
use crate::producer::answer::Answer;
use crate::producer::job::Lines;
use crate::producer::receipts::Rejected;
use crate::producer::status::ErrorTag;

/// How events are read from bodies.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Limits on one event.
    pub limits: Limits,
    /// Most events per request.
    pub max_request_events: usize,
    /// Most bytes per body, after decompression.
    pub max_body_bytes: usize,
    /// Field whose value becomes the key of the record.
    pub key_field: Option<String>,
}

/// What a body contains.
#[derive(Debug)]
pub enum Events {
    /// One event, posted on its own.
    Single(Lines),
    /// Several events, some of which may be rejected; `lines` may be empty.
    Batch {
        /// The valid events.
        lines: Lines,
        /// The rejected events.
        rejected: Vec<Rejected>,
    },
}

/// Why nothing is accepted from a body.
#[derive(Debug)]
pub enum Refusal {
    /// It is not an event.
    Invalid(ErrorKind, Answer),
    /// It exceeds a limit, named as in the metrics.
    TooMuch(&'static str, Answer),
    /// It is damaged, or not gzip at all.
    NotGzip(Answer),
    /// The queue has no room for it.
    NoRoom,
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        Self::Invalid(error.kind, Answer::error(error.kind.into(), &error.message))
    }
}

impl Intake {
    /// Returns the events of `body`, with timestamps added.
    ///
    /// # Errors
    /// A single event is invalid, an array is not valid JSON as a whole, or there are too many events.
    pub fn parse(&self, body: &[u8], format: Option<Format>, stamp: &Stamp) -> Result<Events, Refusal> {
        match format.unwrap_or_else(|| event::detect(body)) {
            Format::Object => {
                let mut lines = Lines::with_capacity(body.len() + 48);
                self.add(body, stamp, &mut lines)?;
                Ok(Events::Single(lines))
            }
            format => self.parse_batch(body, format, stamp),
        }
    }

    fn parse_batch(&self, body: &[u8], format: Format, stamp: &Stamp) -> Result<Events, Refusal> {
        let mut lines = Lines::with_capacity(body.len() + body.len() / 2);
        let mut rejected = Vec::new();
        for (index, raw) in event::split(body, format)?.enumerate() {
            if index == self.max_request_events {
                let message = format!("more than {index} events in one request; split it into several");
                let answer = Answer::error(ErrorTag::TooManyEvents, &message);
                return Err(Refusal::TooMuch("max_request_events", answer));
            }
            if let Err(error) = self.add(raw, stamp, &mut lines) {
                rejected.push(Rejected { index, error: error.kind.as_str(), message: error.message });
            }
        }
        if lines.is_empty() && rejected.is_empty() {
            let message = "no event in the body; send one JSON object, an array of them, or one per line";
            return Err(Refusal::Invalid(ErrorKind::Empty, Answer::error(ErrorTag::Empty, message)));
        }
        Ok(Events::Batch { lines, rejected })
    }

    fn add(&self, raw: &[u8], stamp: &Stamp, lines: &mut Lines) -> Result<(), EventError> {
        event::prepare(raw, stamp, &self.limits, lines.buffer())?;
        lines.end_line();
        if let Some(field) = &self.key_field {
            let key = event::key_of(lines.last_line(), field).map(|key| key.into_owned());
            lines.set_key(key.as_deref());
        }
        Ok(())
    }

    /// Decompresses a gzip body. `grow` is called before memory grows to the given size, and may refuse that.
    ///
    /// # Errors
    /// The body is not gzip, is larger than the limit once decompressed, or there is no room for it.
    pub fn decompress(
        &self,
        compressed: &[u8],
        mut grow: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, Refusal> {
        const STEP: usize = 64 << 10;
        let mut reader = MultiGzDecoder::new(compressed);
        let mut body = Vec::new();
        loop {
            let start = body.len();
            if !grow(start + STEP) {
                return Err(Refusal::NoRoom);
            }
            let room = (self.max_body_bytes + 1 - start).min(STEP) as u64;
            let Ok(read) = reader.by_ref().take(room).read_to_end(&mut body) else {
                let message = "Content-Encoding says gzip, but the body is not complete gzip data";
                return Err(Refusal::NotGzip(Answer::error(ErrorTag::NotGzip, message)));
            };
            if body.len() > self.max_body_bytes {
                let answer = Answer::too_large("decompressed body", self.max_body_bytes as u64);
                return Err(Refusal::TooMuch("max_body_bytes", answer));
            }
            if read == 0 {
                return Ok(body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn intake() -> Intake {
        Intake {
            limits: Limits { max_event_bytes: 1000, max_depth: Limits::DEFAULT_MAX_DEPTH },
            max_request_events: 3,
            max_body_bytes: 1000,
            key_field: Some("user".into()),
        }
    }

    fn stamp() -> Stamp {
        Stamp::from_unix_millis(0)
    }

    #[test]
    fn a_single_event_gets_its_stamp_and_key() {
        let Ok(Events::Single(lines)) = intake().parse(br#"{"user": "ann"}"#, None, &stamp()) else {
            panic!("single")
        };
        assert_eq!(lines.line(0), br#"{"user": "ann", "timestamp": "1970-01-01T00:00:00.000Z"}"#);
        assert_eq!(lines.record(0).key, Some(&b"ann"[..]));
    }

    #[test]
    fn a_batch_keeps_the_valid_and_names_the_others() {
        let body = b"{\"user\":1}\nnonsense\n{\"timestamp\":0}\n";
        let Ok(Events::Batch { lines, rejected }) = intake().parse(body, Some(Format::Ndjson), &stamp())
        else {
            panic!("batch")
        };
        assert_eq!((lines.len(), lines.line(1)), (2, &b"{\"timestamp\":0}"[..]));
        assert_eq!((rejected.len(), rejected[0].index, rejected[0].error), (1, 1, "not_json"));
    }

    #[test]
    fn nothing_and_too_much_are_refused_whole() {
        for (body, status) in [("[]", 400), ("[{},{},{},{}]", 413), ("[{}", 400), ("", 400), ("7", 400)] {
            let refusal = intake().parse(body.as_bytes(), None, &stamp()).expect_err(body);
            let (Refusal::Invalid(_, answer) | Refusal::TooMuch(_, answer)) = refusal else {
                panic!("{body}: {refusal:?}")
            };
            assert_eq!(answer.status.code(), status, "{body}");
        }
    }

    #[test]
    fn a_gzip_bomb_is_stopped_at_the_limit_and_at_the_room() {
        let compress = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compress")
        };
        let whole = compress(b"{}");
        let fits = |body: &[u8]| intake().decompress(body, |_| true);
        assert!(matches!(fits(&compress(&[b' '; 1000])), Ok(body) if body.len() == 1000));
        assert!(matches!(fits(&compress(&[b' '; 1001])), Err(Refusal::TooMuch("max_body_bytes", _))));
        assert!(matches!(fits(&compress(&vec![b' '; 10 << 20])), Err(Refusal::TooMuch("max_body_bytes", _))));
        assert!(matches!(intake().decompress(&whole, |_| false), Err(Refusal::NoRoom)));
        assert!(matches!(fits(b"nonsense"), Err(Refusal::NotGzip(_))));
        assert!(matches!(fits(&whole[..whole.len() - 3]), Err(Refusal::NotGzip(_))), "cut off");
    }
}
