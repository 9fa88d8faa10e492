//! Derives the outcome of each event of a request from the server's response. Pure.
//!
//! Reads the responses that docs/CONTRACT.md specifies, but leniently: a 2xx status of any server counts as
//! an acknowledgement, receipts are optional, and receipts that do not match the request are reported.

use std::time::Duration;

use serde::Deserialize;

use crate::broker::Receipt;

/// Outcome of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged, with the receipt if the response contained one.
    Acknowledged(Option<Receipt>),
    /// Permanently rejected: it must not be in the log.
    Rejected,
    /// Not acknowledged: it may or may not be in the log.
    Unknown,
}

/// The parts of an HTTP response that determine the outcomes.
#[derive(Debug)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Value of `Retry-After`, if it is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The whole response body.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// True if the same request may succeed later, or if its outcome is unknown and the server does not say
    /// that a retry is useless.
    pub fn is_retryable(&self) -> bool {
        match self.status {
            408 | 429 => true,
            500..=599 => parse(self.body).and_then(|body| body.retryable).unwrap_or(true),
            _ => false,
        }
    }

    /// The server's error message, cut to one line of at most 160 characters; empty if there is none.
    pub fn reason(&self) -> String {
        let body = parse(self.body);
        let first = body.as_ref().and_then(|body| body.errors.first()).and_then(|error| error.error.clone());
        let text = body.and_then(|body| body.message.or(body.error)).or(first);
        let text = text.unwrap_or_else(|| String::from_utf8_lossy(self.body).into_owned());
        text.chars().filter(|c| !c.is_control()).take(160).collect()
    }

    /// Replaces the content of `fates` with the outcome of each of the request's `events` events.
    ///
    /// # Errors
    /// The body does not match the request, and the text says why. The affected events are then `Unknown`.
    pub fn judge(&self, events: usize, fates: &mut Vec<Fate>) -> Result<(), String> {
        fates.clear();
        let success = (200..300).contains(&self.status);
        let rejected = (400..500).contains(&self.status) && !matches!(self.status, 408 | 429);
        let Some(body) = parse(self.body) else {
            fates.resize(events, if success { Fate::Acknowledged(None) } else { refusal(rejected) });
            return Ok(());
        };
        if rejected {
            fates.resize(events, Fate::Rejected);
            return Ok(());
        }
        let places = body.errors.iter().map(|error| (error.index, error.index, Fate::Rejected));
        let open =
            body.unacknowledged.iter().map(|range| (range.first_index, range.last_index, Fate::Unknown));
        fates.resize(events, Fate::Acknowledged(None));
        for (first, last, fate) in places.chain(open) {
            let Some(named) = fates.get_mut(first..=last) else {
                fates.fill(Fate::Unknown);
                return Err(format!("status {}: response refers to event {last} of {events}", self.status));
            };
            named.fill(fate);
        }
        self.hand_out(&body, success, fates)
    }

    /// Assigns the receipts to the events that are still `Acknowledged`.
    fn hand_out(&self, body: &Body, success: bool, fates: &mut [Fate]) -> Result<(), String> {
        let accepted = |fate: &&mut Fate| matches!(**fate, Fate::Acknowledged(_));
        let open = fates.iter_mut().filter(accepted).count();
        let receipts = body.receipts();
        let confirmed: u64 = receipts.iter().map(Range::len).sum();
        if confirmed == open as u64 {
            let mut offsets = receipts.iter().flat_map(Range::receipts);
            fates.iter_mut().filter(accepted).for_each(|fate| *fate = Fate::Acknowledged(offsets.next()));
            return Ok(());
        }
        if success && receipts.is_empty() {
            return Ok(());
        }
        // It is unclear which events the receipts belong to, so none counts as acknowledged.
        fates.iter_mut().filter(accepted).for_each(|fate| *fate = Fate::Unknown);
        if receipts.is_empty() {
            return Ok(());
        }
        Err(format!("status {}: receipts for {confirmed} of {open} accepted events", self.status))
    }
}

fn refusal(rejected: bool) -> Fate {
    if rejected { Fate::Rejected } else { Fate::Unknown }
}

/// Parses a body that starts with `{`. Anything else is not ours: other servers may answer with any content.
fn parse(body: &[u8]) -> Option<Body> {
    if body.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// All members that a response of the producer can have.
#[derive(Deserialize)]
struct Body {
    partition: Option<i32>,
    offset: Option<i64>,
    #[serde(default)]
    receipts: Vec<Range>,
    #[serde(default)]
    errors: Vec<EventError>,
    #[serde(default)]
    unacknowledged: Vec<Indices>,
    retryable: Option<bool>,
    error: Option<String>,
    message: Option<String>,
}

impl Body {
    fn receipts(&self) -> Vec<Range> {
        match (self.partition, self.offset) {
            (Some(partition), Some(offset)) => {
                vec![Range { partition, first_offset: offset, last_offset: offset }]
            }
            _ => self.receipts.clone(),
        }
    }
}

#[derive(Clone, Deserialize)]
struct Range {
    partition: i32,
    first_offset: i64,
    last_offset: i64,
}

impl Range {
    fn len(&self) -> u64 {
        u64::try_from(self.last_offset.saturating_sub(self.first_offset).saturating_add(1)).unwrap_or(0)
    }

    fn receipts(&self) -> impl Iterator<Item = Receipt> + use<> {
        let partition = self.partition;
        (self.first_offset..=self.last_offset).map(move |offset| Receipt { partition, offset })
    }
}

#[derive(Deserialize)]
struct Indices {
    first_index: usize,
    last_index: usize,
}

#[derive(Deserialize)]
struct EventError {
    index: usize,
    error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer<'_> {
        Answer { status, retry_after: None, body: body.as_bytes() }
    }

    fn judge(status: u16, body: &str, events: usize) -> (Vec<Fate>, Result<(), String>) {
        let mut fates = vec![Fate::Rejected; 7];
        let judged = answer(status, body).judge(events, &mut fates);
        (fates, judged)
    }

    fn receipt(partition: i32, offset: i64) -> Fate {
        Fate::Acknowledged(Some(Receipt { partition, offset }))
    }

    #[test]
    fn a_single_event_gets_its_receipt() {
        let (fates, judged) = judge(200, r#"{"status":"ok","topic":"events","partition":2,"offset":42}"#, 1);
        assert_eq!((fates, judged), (vec![receipt(2, 42)], Ok(())));
    }

    #[test]
    fn a_server_without_receipts_is_taken_at_its_word() {
        for body in ["", "ok", "{}", r#"{"status":"ok"}"#, "[1]", "{broken"] {
            assert_eq!(judge(202, body, 1).0, [Fate::Acknowledged(None)], "{body}");
        }
    }

    #[test]
    fn ranges_are_walked_in_the_order_of_the_accepted_events() {
        let body = r#"{"accepted":3,"rejected":1,"errors":[{"index":1,"error":"not_json"}],"receipts":[
            {"partition":0,"first_offset":10,"last_offset":11},{"partition":1,"first_offset":5,"last_offset":5}]}"#;
        let (fates, judged) = judge(207, body, 4);
        assert_eq!(judged, Ok(()));
        assert_eq!(fates, [receipt(0, 10), Fate::Rejected, receipt(0, 11), receipt(1, 5)]);
    }

    #[test]
    fn a_batch_that_is_only_partly_in_says_which_events_are_not() {
        let body = r#"{"accepted":2,"rejected":1,"errors":[{"index":0}],"unacknowledged":[{"first_index":2,"last_index":3}],
            "receipts":[{"partition":0,"first_offset":7,"last_offset":8}],"retryable":true}"#;
        let (fates, judged) = judge(503, body, 5);
        assert_eq!(judged, Ok(()));
        assert_eq!(fates, [Fate::Rejected, receipt(0, 7), Fate::Unknown, Fate::Unknown, receipt(0, 8)]);
        assert_eq!(judge(503, r#"{"error":"queue_full"}"#, 2), (vec![Fate::Unknown; 2], Ok(())));
    }

    #[test]
    fn receipts_that_do_not_add_up_acknowledge_nothing_and_are_told() {
        let body = r#"{"receipts":[{"partition":0,"first_offset":10,"last_offset":10}]}"#;
        let (fates, judged) = judge(200, body, 2);
        assert_eq!(fates, [Fate::Unknown, Fate::Unknown]);
        assert!(judged.unwrap_err().contains("receipts for 1 of 2"));
        assert_eq!(judge(503, body, 2).0, [Fate::Unknown, Fate::Unknown]);
        let reversed = r#"{"unacknowledged":[{"first_index":1,"last_index":0}]}"#;
        assert_eq!(judge(503, reversed, 2).0, [Fate::Unknown, Fate::Unknown]);
        assert!(judge(207, r#"{"errors":[{"index":9}]}"#, 2).1.is_err());
    }

    #[test]
    fn only_a_client_error_is_a_rejection() {
        for (status, fate) in [(400, Fate::Rejected), (413, Fate::Rejected), (429, Fate::Unknown)] {
            assert_eq!(judge(status, r#"{"error":"x"}"#, 1).0, [fate]);
        }
        for (status, fate) in [(404, Fate::Rejected), (408, Fate::Unknown), (500, Fate::Unknown)] {
            assert_eq!(judge(status, "", 1).0, [fate]);
        }
    }

    #[test]
    fn the_server_says_what_may_be_retried_and_why() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(answer(status, "").is_retryable(), "{status}");
        }
        assert!(!answer(503, r#"{"retryable":false}"#).is_retryable());
        assert!(!answer(200, "").is_retryable() && !answer(400, r#"{"retryable":true}"#).is_retryable());
        assert_eq!(answer(503, r#"{"error":"full","message":"queue full"}"#).reason(), "queue full");
        assert_eq!(answer(400, r#"{"errors":[{"index":0,"error":"empty"}]}"#).reason(), "empty");
        assert_eq!(answer(502, "bad\ngateway").reason(), "badgateway");
    }
}
