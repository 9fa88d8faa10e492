//! Turns a request body into lines for Kafka, or into the reason why it is refused.

use crate::config::RecordHeader;
use crate::event::{self, ErrorKind, EventError, Format, Limits, Stamp};
use crate::producer::additions::{Fields, Named, Reject, Sender, Stamped, WriteEvent};
use crate::producer::answer::Answer;
use crate::producer::head::Head;
use crate::producer::ids;
use crate::producer::job::Lines;
use crate::producer::media::{INSTEAD_OF_A_FORM, MediaType};
use crate::producer::receipts::Rejected;
use crate::producer::status::ErrorTag;

/// Memory of a batch that is not asked for beyond twice its body, in bytes.
const UNASKED_BYTES: usize = 4 << 10;

/// How events are read from bodies.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Limits on one event.
    pub limits: Limits,
    /// Most events per request.
    pub max_request_events: usize,
    /// Field whose value becomes the key of the record.
    pub key_field: Option<String>,
    /// What is added to events in addition to their timestamp.
    pub fields: Fields,
    /// What a request passes on to its records in Kafka as headers.
    pub headers: Vec<RecordHeader>,
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
    /// event per line, if each line is valid. `grow` is called before a batch holds much more than its body, and may
    /// refuse that: what is added to small events is many times their size.
    ///
    /// # Errors
    /// A single event is invalid, an array is not valid JSON as a whole, there are too many events, or no room for them.
    pub fn parse(
        &self,
        body: &[u8],
        media_type: MediaType,
        stamp: &Stamp,
        sender: Sender<'_>,
        grow: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Events, Refusal> {
        let mut stamped = Stamped { limits: self.limits, stamp, key_field: self.key_field.as_deref() };
        let Fields { id, client } = &self.fields;
        if id.is_none() && client.is_none() {
            return self.parse_as(body, media_type, &mut stamped, grow);
        }
        if let (Some(_), Some(message)) = (id, sender.webhook_id) {
            ids::check_header(ids::WEBHOOK_ID, message).map_err(Refusal::Unusable)?;
        }
        let mut named = Named::new(stamped, &self.fields, sender, media_type);
        self.parse_as(body, media_type, &mut named, grow)
    }

    fn parse_as<'a, const N: usize>(
        &self,
        body: &'a [u8],
        media_type: MediaType,
        writer: &mut impl WriteEvent<'a, N>,
        grow: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Events, Refusal> {
        match media_type.format(body) {
            Format::Object => match event::read_event(body, &self.limits, &writer.names()) {
                Ok(event) => {
                    let mut lines = Lines::with_capacity(body.len() + 48);
                    writer.write(&event, None, &mut lines)?;
                    Ok(Events::Single(lines))
                }
                Err(error) => self.parse_otherwise(body, media_type, writer, grow, error),
            },
            format => self.parse_batch(body, format, writer, grow),
        }
    }

    /// Parses a body that is not an event: clients send lines as JSON, and forms.
    #[cold]
    fn parse_otherwise<'a, const N: usize>(
        &self,
        body: &'a [u8],
        media_type: MediaType,
        writer: &mut impl WriteEvent<'a, N>,
        grow: &mut dyn FnMut(usize) -> bool,
        mut error: EventError,
    ) -> Result<Events, Refusal> {
        if looks_like_lines(body) {
            match self.parse_batch(body, Format::Ndjson, writer, grow) {
                Ok(Events::Batch { lines, rejected }) if rejected.is_empty() => {
                    return Ok(Events::Batch { lines, rejected });
                }
                Err(refusal @ (Refusal::TooMuch(..) | Refusal::NoRoom)) => return Err(refusal),
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
        grow: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Events, Refusal> {
        let mut lines = Lines::with_capacity(body.len() + body.len() / 2);
        let (mut rejected, mut rejected_bytes) = (Vec::new(), 0);
        let mut room = 2 * body.len() + UNASKED_BYTES;
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
                let reject = Rejected { index, error: reject.tag.as_str(), message: reject.message };
                rejected_bytes += reject.held_bytes();
                rejected.push(reject);
            }
            let held = lines.held_bytes() + rejected_bytes;
            if held > room {
                if !grow(held) {
                    return Err(Refusal::NoRoom);
                }
                room = held;
            }
            index += 1;
        }
        if lines.is_empty() && rejected.is_empty() {
            let message = "no event in the body; send one JSON object, an array of them, or one per line";
            return Err(Refusal::Invalid(ErrorTag::Empty, Answer::error(ErrorTag::Empty, message)));
        }
        Ok(Events::Batch { lines, rejected })
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
    use super::*;
    use crate::producer::additions::Field;

    fn intake() -> Intake {
        Intake {
            limits: Limits { max_event_bytes: 1000, max_depth: Limits::DEFAULT_MAX_DEPTH },
            max_request_events: 3,
            key_field: Some("user".into()),
            fields: Fields::default(),
            headers: Vec::new(),
        }
    }

    fn stamp() -> Stamp {
        Stamp::from_unix_millis(0)
    }

    fn parse(intake: &Intake, body: &[u8], media_type: MediaType) -> Result<Events, Refusal> {
        intake.parse(body, media_type, &stamp(), Sender::default(), &mut |_| true)
    }

    #[test]
    fn a_single_event_gets_its_stamp_and_key() {
        let Ok(Events::Single(lines)) = parse(&intake(), br#"{"user": "ann"}"#, MediaType::Json) else {
            panic!("single")
        };
        assert_eq!(lines.line(0), br#"{"user": "ann", "timestamp": "1970-01-01T00:00:00.000Z"}"#);
        assert_eq!(lines.record(0).key, Some(&b"ann"[..]));
    }

    #[test]
    fn an_added_timestamp_can_be_the_key() {
        let intake = Intake { key_field: Some("timestamp".into()), ..intake() };
        let body = br#"[{}, {"timestamp": "mine"}, {"timestamp": null}]"#;
        let Ok(Events::Batch { lines, .. }) = parse(&intake, body, MediaType::Json) else { panic!("batch") };
        let keys = [0, 1, 2].map(|index| lines.record(index).key);
        assert_eq!(keys, [Some(stamp().as_bytes()), Some(b"mine"), None]);
    }

    #[test]
    fn a_broken_array_is_refused_as_such_even_with_too_many_events() {
        for (body, expected) in [("[1,2,3,4]", ErrorTag::TooManyEvents), ("[1,2,3,4", ErrorTag::NotJson)] {
            let refusal = parse(&intake(), body.as_bytes(), MediaType::Json).expect_err(body);
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
        let Ok(Events::Batch { lines, rejected }) = parse(&intake(), body, MediaType::Ndjson) else {
            panic!("batch")
        };
        assert_eq!((lines.len(), lines.line(1)), (2, &b"{\"timestamp\":0}"[..]));
        assert_eq!((rejected.len(), rejected[0].index, rejected[0].error), (1, 1, "not_json"));
    }

    #[test]
    fn nothing_and_too_much_are_refused_whole() {
        for (body, status) in [("[]", 400), ("[{},{},{},{}]", 413), ("[{}", 400), ("", 400), ("7", 400)] {
            let refusal = parse(&intake(), body.as_bytes(), MediaType::Json).expect_err(body);
            let (Refusal::Invalid(_, answer) | Refusal::TooMuch(_, answer)) = refusal else {
                panic!("{body}: {refusal:?}")
            };
            assert_eq!(answer.status.code(), status, "{body}");
        }
    }

    #[test]
    fn lines_as_json_are_taken_if_all_are_events_and_other_bodies_get_a_hint() {
        let parse = |body: &str, media_type| match parse(&intake(), body.as_bytes(), media_type) {
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
    fn a_batch_asks_before_it_holds_much_more_than_its_body() {
        let fields = Fields { id: Some(Field::new("event_id")), client: None };
        let intake = Intake { max_request_events: 9000, fields, ..intake() };
        let sender = Sender { idempotency_key: Some(&"k".repeat(248)), ..Sender::default() };
        let parse = |body: &str, media_type, most: usize| {
            let mut asked = 0;
            let mut grow = |bytes| {
                asked = bytes;
                bytes <= most
            };
            let parsed = intake.parse(body.as_bytes(), media_type, &stamp(), sender, &mut grow);
            (parsed, asked)
        };
        for media_type in [MediaType::Ndjson, MediaType::Json] {
            for event in ["{}\n", "{\"event_id\": 0}\n"] {
                let (parsed, asked) = parse(&event.repeat(9000), media_type, usize::MAX);
                let Ok(Events::Batch { lines, .. }) = parsed else { panic!("{event}") };
                assert_eq!(asked, lines.held_bytes(), "{event}");
            }
            let (parsed, asked) = parse(&"{}\n".repeat(9000), media_type, 200_000);
            assert!(matches!(parsed, Err(Refusal::NoRoom)) && asked < 1_000_000, "{asked}");
        }
        let (parsed, asked) = parse(&"x\n".repeat(9000), MediaType::Ndjson, 200_000);
        assert!(matches!(parsed, Err(Refusal::NoRoom)) && asked < 201_000, "{asked}");
    }
}
