//! Generates request bodies with events derived from a seed and a sequence number.
//!
//! Pure: the same seed gives the same events.

use std::io::Write;

use crate::config::{BatchFormat, LoadConfig};

const KINDS: [&str; 8] =
    ["login", "logout", "purchase", "page_view", "click", "search", "add_to_cart", "signup"];

/// User ids are in `1..=MAX_USER_ID`.
const MAX_USER_ID: u32 = 1000;

/// Generates the request bodies of one run.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Id of the run, contained in every event.
    pub run: String,
    marker: String,
    seed: u64,
    /// Number of events per request.
    pub batch: u32,
    format: BatchFormat,
    size: usize,
}

impl Workload {
    /// Creates the workload that `config` describes, marked with the id `run`. `seed` is used if none is set.
    pub fn new(config: &LoadConfig, run: String, seed: u64) -> Self {
        Self {
            marker: run_marker(&run),
            run,
            seed: config.seed.unwrap_or(seed),
            batch: config.batch,
            format: config.format,
            size: config.size.unwrap_or(0) as usize,
        }
    }

    /// Content type of every body.
    pub fn content_type(&self) -> &'static str {
        match self.format {
            BatchFormat::Ndjson if self.batch > 1 => "application/x-ndjson",
            _ => "application/json",
        }
    }

    /// Replaces the content of `body` with the events that have the sequence numbers `seqs`.
    pub fn write_body(&self, seqs: &[u32], body: &mut Vec<u8>) {
        body.clear();
        if self.batch == 1 {
            seqs.iter().for_each(|seq| self.write_event(*seq, body));
            return;
        }
        let (open, between, close): (&[u8], &[u8], &[u8]) = match self.format {
            BatchFormat::Array => (b"[", b",", b"]"),
            BatchFormat::Ndjson => (b"", b"\n", b"\n"),
        };
        body.extend_from_slice(open);
        for (index, seq) in seqs.iter().enumerate() {
            if index > 0 {
                body.extend_from_slice(between);
            }
            self.write_event(*seq, body);
        }
        body.extend_from_slice(close);
    }

    fn write_event(&self, seq: u32, body: &mut Vec<u8>) {
        let start = body.len();
        let mut random =
            fastrand::Rng::with_seed(self.seed ^ u64::from(seq).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let kind = KINDS[random.usize(..KINDS.len())];
        let user = random.u32(1..=MAX_USER_ID);
        // Writing to a vector cannot fail.
        let (marker, run) = (&self.marker, &self.run);
        let _ = write!(
            body,
            r#"{{"event": "{kind}", "user_id": {user}, {marker}{seq}, "event_id": "{run}-{seq}""#
        );
        const PAD: &[u8] = br#", "pad": ""#;
        let missing = self.size.saturating_sub(body.len() - start + PAD.len() + 2);
        if missing > 0 {
            body.extend_from_slice(PAD);
            body.resize(body.len() + missing, b'x');
            body.push(b'"');
        }
        body.push(b'}');
    }
}

/// The text that precedes the sequence number in every event of `run`.
pub fn run_marker(run: &str) -> String {
    format!(r#""run": "{run}", "seq": "#)
}

/// Generates a run id of lower-case letters and digits, unique in practice among all runs that share a log.
pub fn new_run_id(random: &mut fastrand::Rng) -> String {
    std::iter::repeat_with(|| random.alphanumeric().to_ascii_lowercase()).take(12).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::Parser;

    use super::*;
    use crate::config::SimulateConfig;

    fn body(args: &[&str], seqs: &[u32]) -> String {
        let config =
            SimulateConfig::try_parse_from([&["simulate", "--seed", "1"], args].concat()).expect("parses");
        let mut body = b"left over".to_vec();
        Workload::new(&config.load, "k3x9".into(), 0).write_body(seqs, &mut body);
        String::from_utf8(body).expect("UTF-8")
    }

    #[test]
    fn an_event_is_written_as_in_the_original_with_run_and_number() {
        let event: serde_json::Value = serde_json::from_str(&body(&[], &[17])).expect("JSON");
        assert_eq!((event["run"].as_str(), event["seq"].as_u64()), (Some("k3x9"), Some(17)));
        assert_eq!(event["event_id"], "k3x9-17");
        assert!(KINDS.contains(&event["event"].as_str().expect("kind")));
        assert!((1..=u64::from(MAX_USER_ID)).contains(&event["user_id"].as_u64().expect("user")));
        assert!(body(&[], &[17]).starts_with(r#"{"event": ""#));
    }

    #[test]
    fn a_seed_gives_the_same_events_and_another_number_other_ones() {
        assert_eq!(body(&[], &[3]), body(&[], &[3]));
        let users: HashSet<_> =
            (0..100).map(|seq| body(&[], &[seq]).split(": ").nth(2).map(str::to_owned)).collect();
        assert!(users.len() > 50, "{users:?}");
    }

    #[test]
    fn a_size_is_met_exactly() {
        for size in [120, 130, 1000] {
            let event = body(&["--size", &size.to_string()], &[5]);
            assert_eq!(event.len(), size);
            serde_json::from_str::<serde_json::Value>(&event).expect("JSON");
        }
        assert!(body(&["--size", "1"], &[5]).len() < 120);
    }

    #[test]
    fn a_batch_is_an_array_or_lines() {
        let array = body(&["--batch", "3", "--format", "array"], &[7, 9]);
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&array).expect("JSON")[1]["seq"], 9);
        let lines = body(&["--batch", "3"], &[7, 8, 9]);
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.ends_with("}\n"));
    }
}
