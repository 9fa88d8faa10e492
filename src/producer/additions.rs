//! Writes the lines of events, with the members that the producer adds: an id, the name of the client, and the time.

use std::borrow::Cow;

use crate::event::{Event, EventError, Limits, Stamp, TIMESTAMP, Value};
use crate::producer::ids;
use crate::producer::job::Lines;
use crate::producer::media::MediaType;
use crate::producer::status::ErrorTag;

/// The members that are added in addition to the timestamp.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// Gets the id of the event.
    pub id: Option<Field>,
    /// Gets the name of the client.
    pub client: Option<Field>,
}

/// The name of a member.
#[derive(Clone, Debug)]
pub struct Field {
    name: String,
    /// The name as JSON, and what comes between it and the value.
    start: Vec<u8>,
}

impl Field {
    /// A member called `name`.
    pub fn new(name: &str) -> Self {
        let start = format!("{}: ", serde_json::Value::from(name)).into_bytes();
        Self { name: name.to_owned(), start }
    }

    /// Makes `member` this one with a string as its value.
    fn fill(&self, value: &str, member: &mut Vec<u8>) {
        member.clear();
        member.extend_from_slice(&self.start);
        serde_json::to_writer(member, value).expect("memory does not fail");
    }
}

/// What is known of the sender of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'r> {
    /// The id of a webhook's message whose signature was verified.
    pub webhook_id: Option<&'r str>,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<&'r str>,
    /// The name of the client whose key was used.
    pub client: Option<&'r str>,
}

/// Why an event is rejected.
#[derive(Debug)]
pub struct Reject {
    /// The stable word.
    pub tag: ErrorTag,
    /// What is wrong, for people.
    pub message: String,
}

impl From<EventError> for Reject {
    fn from(error: EventError) -> Self {
        Self { tag: error.kind.into(), message: error.message }
    }
}

/// Writes the events of one request, of which it has to know `N` members. Each event is read only once, so what is not
/// needed by the settings in force is not searched for either.
pub trait WriteEvent<'a, const N: usize> {
    /// The members to look for in events.
    fn names(&self) -> [&'a str; N];

    /// Adds the line of an event, and its key if a field for that is set. `index` is its place in the request; an event
    /// posted on its own has none.
    ///
    /// # Errors
    /// It must not have one of its members, or is too large.
    fn write(&mut self, event: &Event<'_, N>, index: Option<usize>, lines: &mut Lines) -> Result<(), Reject>;
}

/// Adds only the timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Stamped<'a> {
    /// Limits on one event.
    pub limits: Limits,
    /// The time.
    pub stamp: &'a Stamp,
    /// Field whose value becomes the key of the record.
    pub key_field: Option<&'a str>,
}

impl<'a> WriteEvent<'a, 2> for Stamped<'a> {
    fn names(&self) -> [&'a str; 2] {
        [TIMESTAMP, self.key_field.unwrap_or(TIMESTAMP)]
    }

    fn write(&mut self, event: &Event<'_, 2>, _: Option<usize>, lines: &mut Lines) -> Result<(), Reject> {
        let [timestamp, key] = event.members;
        let added = timestamp.is_none().then(|| self.stamp.member());
        event.write(added.as_slice(), &self.limits, lines.buffer())?;
        lines.end_line();
        if let Some(field) = self.key_field {
            let key = match added {
                Some(_) if field == TIMESTAMP => Some(Cow::Borrowed(self.stamp.as_bytes())),
                _ => key.and_then(Value::text),
            };
            lines.set_key(key.as_deref());
        }
        Ok(())
    }
}

/// Adds ids and names of clients too.
#[derive(Debug)]
pub struct Named<'a> {
    stamped: Stamped<'a>,
    fields: &'a Fields,
    sender: Sender<'a>,
    are_cloud_events: bool,
    id_member: Vec<u8>,
    client_member: Vec<u8>,
}

/// A member that is added to an event.
struct Added<'m> {
    name: &'m str,
    text: &'m [u8],
    member: &'m [u8],
}

impl<'a> Named<'a> {
    /// Adds `fields` to the events of a request.
    pub fn new(stamped: Stamped<'a>, fields: &'a Fields, sender: Sender<'a>, media_type: MediaType) -> Self {
        let mut client_member = Vec::new();
        if let (Some(field), Some(client)) = (&fields.client, sender.client) {
            field.fill(client, &mut client_member);
        }
        let are_cloud_events = media_type == MediaType::CloudEvents;
        Self { stamped, fields, sender, are_cloud_events, id_member: Vec::new(), client_member }
    }

    /// The id to add to an event, if there is one.
    fn id(
        &self,
        members: &[Option<Value<'_>>; 7],
        index: Option<usize>,
    ) -> Result<Option<Cow<'a, str>>, Reject> {
        let &[_, _, own, _, version, source, id] = members;
        let Some(field) = &self.fields.id else { return Ok(None) };
        let bad = |what: &str, reason: &str| Reject {
            tag: ErrorTag::BadEventId,
            message: format!("{what} {reason}; the id of an event is a string or a number of 1 to 255 bytes"),
        };
        if let Some(own) = own {
            let checked = own.id().map(drop).map_err(|reason| bad(&format!("`{}`", field.name), &reason));
            return checked.map(|()| None);
        }
        if self.are_cloud_events || matches!(version, Some(Value::Text(_))) {
            let found = ids::of_cloud_event(source, id);
            if let Some(id) = found.map_err(|reason| bad("`source` with `id`", &reason))? {
                return Ok(Some(id.into()));
            }
        }
        let key = self.sender.webhook_id.or(self.sender.idempotency_key);
        Ok(key.map(|key| match index {
            None => key.into(),
            Some(index) => format!("{key}/{index}").into(),
        }))
    }
}

impl<'a> WriteEvent<'a, 7> for Named<'a> {
    fn names(&self) -> [&'a str; 7] {
        let [timestamp, key] = self.stamped.names();
        let name = |field: &'a Option<Field>| field.as_ref().map_or(TIMESTAMP, |field| &field.name);
        let Fields { id, client } = self.fields;
        [timestamp, key, name(id), name(client), "specversion", "source", "id"]
    }

    fn write(&mut self, event: &Event<'_, 7>, index: Option<usize>, lines: &mut Lines) -> Result<(), Reject> {
        let [timestamp, key, _, client, ..] = event.members;
        if let (Some(field), Some(_)) = (&self.fields.client, client) {
            let message = format!("`{}` is added by the producer; leave it out", field.name);
            return Err(Reject { tag: ErrorTag::ReservedField, message });
        }
        let id = self.id(&event.members, index)?;
        let Self { stamped, fields, sender, id_member, client_member, .. } = self;
        let id = fields.id.as_ref().zip(id.as_deref()).map(|(field, id)| {
            field.fill(id, id_member);
            Added { name: &field.name, text: id.as_bytes(), member: id_member }
        });
        let client = fields.client.as_ref().zip(sender.client).map(|(field, client)| Added {
            name: &field.name,
            text: client.as_bytes(),
            member: client_member,
        });
        let time = timestamp.is_none().then(|| Added {
            name: TIMESTAMP,
            text: stamped.stamp.as_bytes(),
            member: stamped.stamp.member(),
        });
        let added = [id, client, time];
        let mut members = [&b""[..]; 3];
        let mut count = 0;
        for added in added.iter().flatten() {
            members[count] = added.member;
            count += 1;
        }
        event.write(&members[..count], &stamped.limits, lines.buffer())?;
        lines.end_line();
        if let Some(field) = stamped.key_field {
            let added = added.iter().flatten().find(|added| added.name == field);
            let key = added.map(|added| Cow::Borrowed(added.text)).or_else(|| key.and_then(Value::text));
            lines.set_key(key.as_deref());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::read_event;

    const LIMITS: Limits = Limits { max_event_bytes: 1000, max_depth: 9 };
    const CLOUD_EVENT: &str = r#"{"specversion": "1.0", "source": "/s", "id": "1"}"#;

    fn fields() -> Fields {
        Fields { id: Some(Field::new("event_id")), client: Some(Field::new("client")) }
    }

    /// What is added before the timestamp, and the key of the record.
    fn written(
        fields: &Fields,
        (event, index): (&str, Option<usize>),
        sender: Sender<'_>,
        media_type: MediaType,
        key_field: &str,
    ) -> Result<(String, Option<String>), Reject> {
        let stamp = Stamp::from_unix_millis(0);
        let stamped = Stamped { limits: LIMITS, stamp: &stamp, key_field: Some(key_field) };
        let mut named = Named::new(stamped, fields, sender, media_type);
        let mut lines = Lines::default();
        let read = read_event(event.as_bytes(), &LIMITS, &named.names()).expect("valid");
        named.write(&read, index, &mut lines)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let line = text(lines.line(0));
        let start = &event[..event.len() - 1];
        let added = line.strip_prefix(start).and_then(|rest| rest.strip_suffix('}')).expect("kept");
        let added = added.strip_suffix(&text(stamp.member())).expect("stamped");
        Ok((added.trim_matches([',', ' ']).to_owned(), lines.record(0).key.map(text)))
    }

    #[test]
    fn an_id_comes_from_the_event_the_cloud_event_the_webhook_or_the_key() {
        let ids = Fields { client: None, ..fields() };
        let key = Sender { idempotency_key: Some("k\"1"), ..Sender::default() };
        let hook = Sender { webhook_id: Some("msg_1"), ..key };
        let (json, cloud) = (MediaType::Json, MediaType::CloudEvents);
        let no_version = r#"{"source": "/s", "id": "1"}"#;
        let own = r#"{"\u0065vent_id": 7, "specversion": "1.0", "source": "/s", "id": "1"}"#;
        for (event, index, sender, media_type, id) in [
            ("{}", None, key, json, Some(r#""k\"1""#)),
            (r#"{"a": 1}"#, Some(0), key, json, Some(r#""k\"1/0""#)),
            ("{}", Some(12), key, MediaType::Ndjson, Some(r#""k\"1/12""#)),
            ("{}", None, hook, json, Some(r#""msg_1""#)),
            ("{}", Some(3), hook, json, Some(r#""msg_1/3""#)),
            (CLOUD_EVENT, Some(3), hook, json, Some(r#""/s 1""#)),
            (no_version, None, Sender::default(), cloud, Some(r#""/s 1""#)),
            (no_version, None, key, json, Some(r#""k\"1""#)),
            (r#"{"specversion": 1, "source": "/s", "id": "1"}"#, None, Sender::default(), json, None),
            (r#"{"source": "/s"}"#, None, hook, cloud, Some(r#""msg_1""#)),
            (own, None, hook, cloud, None),
            (r#"{"event_id": null}"#, None, hook, json, None),
            (r#"{"a": {"event_id": 1}}"#, None, Sender::default(), json, None),
        ] {
            let (added, _) = written(&ids, (event, index), sender, media_type, "a").expect("written");
            let expected = id.map_or(String::new(), |id| format!("\"event_id\": {id}"));
            assert_eq!(added, expected, "{event} {index:?} {sender:?}");
        }
    }

    #[test]
    fn the_name_of_the_client_comes_after_the_id_and_only_from_us() {
        let sender = Sender { idempotency_key: Some("k"), client: Some("shop"), webhook_id: None };
        let written = |fields: &Fields, event| written(fields, (event, None), sender, MediaType::Json, "a");
        let (added, _) = written(&fields(), "{}").expect("written");
        assert_eq!(added, r#""event_id": "k", "client": "shop""#);
        let no_ids = Fields { id: None, ..fields() };
        let (added, _) = written(&no_ids, r#"{"event_id": true}"#).expect("written");
        assert_eq!(added, r#""client": "shop""#);
        for event in [r#"{"client": "shop"}"#, r#"{"client": null}"#, r#"{"\u0063lient": {}}"#] {
            let reject = written(&no_ids, event).expect_err("refused");
            assert_eq!(reject.tag, ErrorTag::ReservedField, "{event}");
            assert!(reject.message.contains("`client`"), "{}", reject.message);
        }
    }

    #[test]
    fn a_bad_id_is_named_and_everything_that_is_added_counts() {
        let sender = Sender { idempotency_key: Some("k"), ..Sender::default() };
        let id = "x".repeat(255);
        let cloud = format!(r#"{{"specversion": "1.0", "source": "/s", "id": "{id}"}}"#);
        // The longest event that fits with its timestamp.
        let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(1000 - 41 - 9));
        for (event, tag, words) in [
            (r#"{"event_id": false}"#, ErrorTag::BadEventId, "`event_id` is not a string or a number"),
            (r#"{"event_id": ""}"#, ErrorTag::BadEventId, "`event_id` is empty"),
            (&cloud, ErrorTag::BadEventId, "`source` with `id` has 258 bytes"),
            (&long, ErrorTag::TooLarge, "has 1017 bytes"),
        ] {
            let reject =
                written(&fields(), (event, None), sender, MediaType::Json, "a").expect_err("refused");
            assert_eq!(reject.tag, tag, "{event:.40}");
            assert!(reject.message.contains(words), "{}", reject.message);
        }
        let none = Sender::default();
        written(&fields(), (&long, None), none, MediaType::Json, "a").expect("fits without an id");
    }

    #[test]
    fn what_is_added_can_be_the_key() {
        let sender = Sender { idempotency_key: Some("k"), client: Some("shop"), webhook_id: None };
        for (key_field, event, key) in [
            ("event_id", "{}", Some("k/4")),
            ("event_id", r#"{"event_id": "\u0041"}"#, Some("A")),
            ("event_id", r#"{"event_id": 1.0}"#, Some("1.0")),
            ("event_id", r#"{"event_id": null}"#, None),
            ("client", "{}", Some("shop")),
            ("timestamp", "{}", Some("1970-01-01T00:00:00.000Z")),
            ("a", r#"{"a": "b"}"#, Some("b")),
            ("a", "{}", None),
        ] {
            let found =
                written(&fields(), (event, Some(4)), sender, MediaType::Json, key_field).expect("written");
            assert_eq!(found.1.as_deref(), key, "{key_field} {event}");
        }
    }

    #[test]
    fn the_name_of_a_field_is_written_as_json() {
        let ids = Fields { id: Some(Field::new("a\"b")), client: None };
        let sender = Sender { idempotency_key: Some("k"), ..Sender::default() };
        let (added, _) = written(&ids, ("{}", None), sender, MediaType::Json, "a").expect("written");
        assert_eq!(added, r#""a\"b": "k""#);
    }
}
