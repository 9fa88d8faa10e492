//! Turns a request body into lines for Kafka, or into the reason why it is refused.

use crate::decompress::{self, Failure};
use crate::event::{self, ErrorKind, EventError, Format, Limits, Stamp};
use crate::producer::additions::{Fields, Named, Reject, Sender, Stamped, WriteEvent};
use crate::producer::answer::Answer;
use crate::producer::head::Head;
use crate::producer::ids;
use crate::producer::job::Lines;
use crate::producer::media::{Coding, INSTEAD_OF_A_FORM, MediaType};
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
    /// What is added to events in addition to their timestamp.
    pub fields: Fields,
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
    Invalid(ErrorTag, Answer),
    /// It exceeds a limit, named as in the metrics.
    TooMuch(&'static str, Answer),
    /// Its events cannot be known: it is damaged, not compressed as announced, not signed, or has an id that cannot be
    /// used.
    Unusable(Answer),
    /// The queue has no room for it.
    NoRoom,
}

impl From<Reject> for Refusal {
    fn from(Reject { tag, message }: Reject) -> Self {
        Self::Invalid(tag, Answer::error(tag, &message))
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Self {
        Reject::from(error).into()
    }
}

impl Intake {
    /// The `Idempotency-Key` of a request, if events get ids.
    ///
    /// # Errors
    /// The answer if it cannot be used.
    pub fn idempotency_key(&self, head: &Head<'_>) -> Result<Option<Box<str>>, Answer> {
        if self.fields.id.is_none() {
            return Ok(None);
        }
        head.others.value(ids::IDEMPOTENCY_KEY).map(ids::of_idempotency_key).transpose()
    }

    /// Returns the events of `body`, with what is added to them. A body that is not one JSON text may also have one
    /// event per line, if each line is valid.
    ///
    /// # Errors
    /// A single event is invalid, an array is not valid JSON as a whole, or there are too many events.
    pub fn parse(
        &self,
        body: &[u8],
        media_type: MediaType,
        stamp: &Stamp,
        sender: Sender<'_>,
    ) -> Result<Events, Refusal> {
        let mut stamped = Stamped { limits: self.limits, stamp, key_field: self.key_field.as_deref() };
        let Fields { id, client } = &self.fields;
        if id.is_none() && client.is_none() {
            return self.parse_as(body, media_type, &mut stamped);
        }
        if let (Some(_), Some(message)) = (id, sender.webhook_id) {
            ids::check_header(ids::WEBHOOK_ID, message).map_err(Refusal::Unusable)?;
        }
        self.parse_as(body, media_type, &mut Named::new(stamped, &self.fields, sender, media_type))
    }

    fn parse_as<'a, const N: usize>(
        &self,
        body: &'a [u8],
        media_type: MediaType,
        writer: &mut impl WriteEvent<'a, N>,
    ) -> Result<Events, Refusal> {
        match media_type.format(body) {
            Format::Object => match event::read_event(body, &self.limits, &writer.names()) {
                Ok(event) => {
                    let mut lines = Lines::with_capacity(body.len() + 48);
                    writer.write(&event, None, &mut lines)?;
                    Ok(Events::Single(lines))
                }
                Err(error) => self.parse_otherwise(body, media_type, writer, error),
            },
            format => self.parse_batch(body, format, writer),
        }
    }

    /// Parses a body that is not an event: clients send lines as JSON, and forms.
    #[cold]
    fn parse_otherwise<'a, const N: usize>(
        &self,
        body: &'a [u8],
        media_type: MediaType,
        writer: &mut impl WriteEvent<'a, N>,
        mut error: EventError,
    ) -> Result<Events, Refusal> {
        if looks_like_lines(body) {
            match self.parse_batch(body, Format::Ndjson, writer) {
                Ok(Events::Batch { lines, rejected }) if rejected.is_empty() => {
                    return Ok(Events::Batch { lines, rejected });
                }
                Err(refusal @ Refusal::TooMuch(..)) => return Err(refusal),
                _ => error.message += "; to send one event per line, use Content-Type: application/x-ndjson",
            }
        } else if media_type == MediaType::Form
            && error.kind == ErrorKind::NotJson
            && !body.trim_ascii_start().starts_with(b"{")
        {
            error.message = format!("{}; {INSTEAD_OF_A_FORM}", error.message);
        }
        Err(error.into())
    }

    fn parse_batch<'a, const N: usize>(
        &self,
        body: &'a [u8],
        format: Format,
        writer: &mut impl WriteEvent<'a, N>,
    ) -> Result<Events, Refusal> {
        let mut lines = Lines::with_capacity(body.len() + body.len() / 2);
        let mut rejected = Vec::new();
        let mut events = event::Events::new(body, format, self.limits, writer.names());
        let mut index = 0;
        while let Some(event) = events.next_event()? {
            if index == self.max_request_events {
                events.check_rest()?;
                let message = format!("more than {index} events in one request; split it into several");
                let answer = Answer::error(ErrorTag::TooManyEvents, &message);
                return Err(Refusal::TooMuch("max_request_events", answer));
            }
            let event = event.map_err(Reject::from);
            if let Err(reject) = event.and_then(|event| writer.write(&event, Some(index), &mut lines)) {
                rejected.push(Rejected { index, error: reject.tag.as_str(), message: reject.message });
            }
            index += 1;
        }
        if lines.is_empty() && rejected.is_empty() {
            let message = "no event in the body; send one JSON object, an array of them, or one per line";
            return Err(Refusal::Invalid(ErrorTag::Empty, Answer::error(ErrorTag::Empty, message)));
        }
        Ok(Events::Batch { lines, rejected })
    }

    /// Decompresses a body. `grow` is called before memory grows to the given size, and may refuse that.
    ///
    /// # Errors
    /// The body is damaged, is larger than the limit once decompressed, or there is no room for it.
    pub fn decompress(
        &self,
        coding: Coding,
        compressed: &[u8],
        grow: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, Refusal> {
        let limit = self.max_body_bytes;
        let (tag, body) = match coding {
            Coding::Gzip => (ErrorTag::NotGzip, decompress::gzip(compressed, limit, grow)),
            Coding::Zstd => (ErrorTag::NotZstd, decompress::zstd(compressed, limit, grow)),
        };
        body.map_err(|failure| match failure {
            Failure::NoRoom => Refusal::NoRoom,
            Failure::TooLarge => {
                Refusal::TooMuch("max_body_bytes", Answer::too_large("decompressed body", limit as u64))
            }
            Failure::Corrupt(why) => {
                let name = coding.name();
                let message =
                    format!("Content-Encoding says {name}, but the body is not complete {name} data ({why})");
                Refusal::Unusable(Answer::error(tag, &message))
            }
        })
    }
}

/// True if `body` has several lines and the first could be an object.
fn looks_like_lines(body: &[u8]) -> bool {
    let mut lines = event::lines(body);
    let first = lines.next().map(<[u8]>::trim_ascii).unwrap_or_default();
    first.starts_with(b"{") && first.ends_with(b"}") && lines.next().is_some()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn intake() -> Intake {
        Intake {
            limits: Limits { max_event_bytes: 1000, max_depth: Limits::DEFAULT_MAX_DEPTH },
            max_request_events: 3,
            max_body_bytes: 1000,
            key_field: Some("user".into()),
            fields: Fields::default(),
        }
    }

    fn stamp() -> Stamp {
        Stamp::from_unix_millis(0)
    }

    #[test]
    fn a_single_event_gets_its_stamp_and_key() {
        let Ok(Events::Single(lines)) =
            intake().parse(br#"{"user": "ann"}"#, MediaType::Json, &stamp(), Sender::default())
        else {
            panic!("single")
        };
        assert_eq!(lines.line(0), br#"{"user": "ann", "timestamp": "1970-01-01T00:00:00.000Z"}"#);
        assert_eq!(lines.record(0).key, Some(&b"ann"[..]));
    }

    #[test]
    fn an_added_timestamp_can_be_the_key() {
        let intake = Intake { key_field: Some("timestamp".into()), ..intake() };
        let body = br#"[{}, {"timestamp": "mine"}, {"timestamp": null}]"#;
        let Ok(Events::Batch { lines, .. }) =
            intake.parse(body, MediaType::Json, &stamp(), Sender::default())
        else {
            panic!("batch")
        };
        let keys = [0, 1, 2].map(|index| lines.record(index).key);
        assert_eq!(keys, [Some(stamp().as_bytes()), Some(b"mine"), None]);
    }

    #[test]
    fn a_broken_array_is_refused_as_such_even_with_too_many_events() {
        for (body, expected) in [("[1,2,3,4]", ErrorTag::TooManyEvents), ("[1,2,3,4", ErrorTag::NotJson)] {
            let refusal = intake()
                .parse(body.as_bytes(), MediaType::Json, &stamp(), Sender::default())
                .expect_err(body);
            let (Refusal::Invalid(_, answer) | Refusal::TooMuch(_, answer)) = refusal else {
                panic!("{body}")
            };
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(text.contains(&format!("\"{}\"", expected.as_str())), "{text}");
        }
    }

    #[test]
    fn a_batch_keeps_the_valid_and_names_the_others() {
        let body = b"{\"user\":1}\nnonsense\n{\"timestamp\":0}\n";
        let Ok(Events::Batch { lines, rejected }) =
            intake().parse(body, MediaType::Ndjson, &stamp(), Sender::default())
        else {
            panic!("batch")
        };
        assert_eq!((lines.len(), lines.line(1)), (2, &b"{\"timestamp\":0}"[..]));
        assert_eq!((rejected.len(), rejected[0].index, rejected[0].error), (1, 1, "not_json"));
    }

    #[test]
    fn nothing_and_too_much_are_refused_whole() {
        for (body, status) in [("[]", 400), ("[{},{},{},{}]", 413), ("[{}", 400), ("", 400), ("7", 400)] {
            let refusal = intake()
                .parse(body.as_bytes(), MediaType::Json, &stamp(), Sender::default())
                .expect_err(body);
            let (Refusal::Invalid(_, answer) | Refusal::TooMuch(_, answer)) = refusal else {
                panic!("{body}: {refusal:?}")
            };
            assert_eq!(answer.status.code(), status, "{body}");
        }
    }

    #[test]
    fn lines_as_json_are_taken_if_all_are_events_and_other_bodies_get_a_hint() {
        let parse = |body: &str, media_type| match intake().parse(
            body.as_bytes(),
            media_type,
            &stamp(),
            Sender::default(),
        ) {
            Ok(Events::Single(_)) => "one".to_owned(),
            Ok(Events::Batch { lines, rejected }) => format!("{} and {} bad", lines.len(), rejected.len()),
            Err(Refusal::Invalid(_, answer) | Refusal::TooMuch(_, answer)) => {
                String::from_utf8(answer.body.into_owned()).expect("text")
            }
            Err(refusal) => panic!("{body}: {refusal:?}"),
        };
        let long = "x".repeat(600);
        let (json, form, ndjson) = (MediaType::Json, MediaType::Form, "application/x-ndjson");
        for (body, media_type, expected) in [
            ("{}\n{}", json, "2 and 0 bad"),
            ("\r\n{\"a\":1}\r\n\r\n {\"a\":2} \r\n", form, "2 and 0 bad"),
            (&format!("{{\"a\":\"{long}\"}}\n{{\"a\":\"{long}\"}}"), json, "2 and 0 bad"),
            ("{}\n", json, "one"),
            ("{\n\"a\": {}\n}\n", form, "one"),
            ("{}\n{}\n{}\n{}\n", json, "too_many_events"),
            ("{}\nnonsense\n{}", json, ndjson),
            ("{}\n7", json, ndjson),
            ("{a}\n{}", json, ndjson),
            ("payload=%7B%7D", form, "-H 'Content-Type: application/json'"),
            ("a=1\n&b=2", form, "-H 'Content-Type: application/json'"),
        ] {
            let said = parse(body, media_type);
            assert!(said.contains(expected), "{body:.40}: {said}");
        }
        for (body, media_type) in [
            ("nonsense\n{}", json),
            ("payload=%7B%7D", json),
            ("{\n\"a\": {}\n]", form),
            ("{} {}", form),
            (" ", form),
            ("7", form),
        ] {
            let said = parse(body, media_type);
            assert!(said.contains("\"error\"") && !said.contains("application/"), "{body}: {said}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_at_the_room() {
        for (coding, tag) in [(Coding::Gzip, "not_gzip"), (Coding::Zstd, "not_zstd")] {
            let compress = |bytes: &[u8]| {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                match coding {
                    Coding::Gzip => encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory"),
                    Coding::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
                }
            };
            let whole = compress(b"{}");
            let fits = |body: &[u8]| intake().decompress(coding, body, |_| true);
            let is_bomb = |body: &[u8]| matches!(fits(body), Err(Refusal::TooMuch("max_body_bytes", _)));
            assert!(matches!(fits(&compress(&[b' '; 1000])), Ok(body) if body.len() == 1000));
            assert!(matches!(fits(&whole.repeat(2)), Ok(body) if body == b"{}{}"), "members, frames");
            assert!(is_bomb(&compress(&[b' '; 1001])));
            assert!(is_bomb(&compress(&[b' '; 501]).repeat(2)));
            assert!(is_bomb(&compress(&vec![b' '; 10 << 20])));
            let room = intake().decompress(coding, &whole, |_| false);
            assert!(matches!(room, Err(Refusal::NoRoom)));
            for broken in [&b"nonsense"[..], b"{}", &whole[..whole.len() - 3]] {
                let Err(Refusal::Unusable(answer)) = fits(broken) else { panic!("{coding:?}") };
                assert!(String::from_utf8_lossy(&answer.body).contains(tag), "{answer:?}");
            }
        }
    }
}
