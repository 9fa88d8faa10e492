//! Chooses which events the publisher sends next, and finds the requests that are done.
//!
//! It turns jobs into records, and results back into settled jobs. It is pure: `now` is passed in.

use std::sync::Arc;
use std::time::Instant;

use crate::broker::{BrokerError, Receipt, Record};
use crate::producer::job::{Job, Outcome};

/// Jobs with at least one event that has no outcome yet, oldest first.
#[derive(Debug)]
pub struct Batch<T> {
    jobs: Vec<Box<Job<T>>>,
    open_events: usize,
    open_bytes: usize,
}

/// The job and event index of each record that was sent, in order.
pub type Sent = Vec<(u32, u32)>;

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { jobs: Vec::new(), open_events: 0, open_bytes: 0 }
    }
}

impl<T> Batch<T> {
    /// Adds a job; its events are sent after those already in the batch.
    pub fn push(&mut self, job: Box<Job<T>>) {
        self.open_events += job.lines.len();
        self.open_bytes += (0..job.lines.len()).map(|index| job.lines.record_bytes(index)).sum::<usize>();
        self.jobs.push(job);
    }

    /// True if there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Number of events without an outcome.
    pub fn open_events(&self) -> usize {
        self.open_events
    }

    /// Total size of those events and of their headers, in bytes.
    pub fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// The earliest deadline of all jobs.
    pub fn earliest_deadline(&self) -> Option<Instant> {
        self.jobs.iter().map(|job| job.deadline).min()
    }

    /// Returns the events without an outcome, oldest first, up to `max_events` and `max_bytes` but at least
    /// one.
    pub fn records(&self, max_events: usize, max_bytes: usize) -> (Sent, Vec<Record<'_>>) {
        let room = self.open_events.min(max_events);
        let (mut sent, mut records) = (Sent::with_capacity(room), Vec::with_capacity(room));
        let mut bytes = 0;
        for (job_index, job) in self.jobs.iter().enumerate() {
            for event_index in 0..job.lines.len() {
                if job.outcomes[event_index] != Outcome::Open {
                    continue;
                }
                let record = job.lines.record(event_index);
                bytes += job.lines.record_bytes(event_index);
                if !records.is_empty() && (records.len() == max_events || bytes > max_bytes) {
                    return (sent, records);
                }
                sent.push((job_index as u32, event_index as u32));
                records.push(record);
            }
        }
        (sent, records)
    }

    /// Stores the results of the records from [`Batch::records`]. An event whose failure may be temporary
    /// stays open. Returns the last such failure: a [`BrokerError::Waiting`] only if there is no other, and a
    /// [`BrokerError::Throttled`] only if there is neither.
    pub fn note(
        &mut self,
        sent: &[(u32, u32)],
        results: Vec<Result<Receipt, BrokerError>>,
    ) -> Option<BrokerError> {
        let mut failure = None;
        for (&(job, event), result) in sent.iter().zip(results) {
            let job = &mut self.jobs[job as usize];
            let outcome = match result {
                Ok(receipt) => Outcome::Acknowledged(receipt),
                Err(BrokerError::TooLarge(text)) => Outcome::TooLarge(text.into()),
                Err(BrokerError::Rejected(text)) => Outcome::Rejected(text.into()),
                Err(error) => {
                    if failure.as_ref().is_none_or(|failure| weight(&error) >= weight(failure)) {
                        failure = Some(error);
                    }
                    continue;
                }
            };
            job.outcomes[event as usize] = outcome;
            self.open_events -= 1;
            self.open_bytes -= job.lines.record_bytes(event as usize);
        }
        failure
    }

    /// Removes the jobs that are done, and those whose deadline has passed (their open events fail with
    /// `reason`).
    pub fn take_settled(&mut self, now: Instant, reason: &Arc<str>) -> Vec<Box<Job<T>>> {
        let (mut settled, mut open) = (Vec::with_capacity(self.jobs.len()), Vec::new());
        (self.open_events, self.open_bytes) = (0, 0);
        for mut job in self.jobs.drain(..) {
            if job.deadline <= now {
                job.give_up(reason);
            }
            if job.is_settled() {
                settled.push(job);
                continue;
            }
            for (event, outcome) in job.outcomes.iter().enumerate() {
                if *outcome == Outcome::Open {
                    self.open_events += 1;
                    self.open_bytes += job.lines.record_bytes(event);
                }
            }
            open.push(job);
        }
        self.jobs = open;
        settled
    }

    /// Ends every job with `reason` for its open events, and returns all of them.
    pub fn give_up(&mut self, reason: &Arc<str>) -> Vec<Box<Job<T>>> {
        for job in &mut self.jobs {
            job.give_up(reason);
        }
        (self.open_events, self.open_bytes) = (0, 0);
        std::mem::take(&mut self.jobs)
    }
}

/// How much a failure says about the state of Kafka.
fn weight(error: &BrokerError) -> u8 {
    match error {
        BrokerError::Throttled(..) => 0,
        BrokerError::Waiting(_) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::Headers;
    use crate::producer::job::tests::job;

    fn receipt(offset: i64) -> Result<Receipt, BrokerError> {
        Ok(Receipt { partition: 0, offset })
    }

    fn retryable() -> Result<Receipt, BrokerError> {
        Err(BrokerError::Retryable("leader moving".into()))
    }

    fn values<'a>(records: &[Record<'a>]) -> Vec<&'a [u8]> {
        records.iter().map(|record| record.value).collect()
    }

    #[test]
    fn a_failed_event_is_sent_again_before_newer_ones() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(9));
        let mut batch = Batch::default();
        batch.push(Box::new(job(&["a", "b"], later, 1)));
        let (sent, _) = batch.records(10, 100);
        assert_eq!(batch.note(&sent, vec![receipt(5), retryable()]), retryable().err());
        assert!(batch.take_settled(now, &"late".into()).is_empty());
        batch.push(Box::new(job(&["c"], later, 2)));
        let (sent, records) = batch.records(10, 100);
        assert_eq!(values(&records), [b"b", b"c"]);
        assert_eq!(batch.note(&sent, vec![receipt(6), receipt(7)]), None);
        let tickets: Vec<i32> =
            batch.take_settled(now, &"late".into()).iter().map(|job| job.ticket).collect();
        assert_eq!(tickets, [1, 2]);
        assert_eq!((batch.open_events(), batch.open_bytes(), batch.is_empty()), (0, 0, true));
    }

    #[test]
    fn limits_split_a_batch_but_never_to_nothing() {
        let later = Instant::now() + Duration::from_secs(9);
        let mut batch = Batch::default();
        batch.push(Box::new(job(&["aaaa", "bbbb", "cccc"], later, ())));
        assert_eq!(batch.records(2, 100).1.len(), 2);
        assert_eq!(batch.records(10, 8).1.len(), 2);
        assert_eq!(batch.records(10, 1).1.len(), 1);
        assert_eq!((batch.open_events(), batch.open_bytes()), (3, 12));
    }

    #[test]
    fn headers_count_for_the_limit_of_a_batch() {
        let mut headers = Headers::default();
        headers.push("client", b"a-name-of-a-client");
        let bytes = headers.as_bytes().len();
        let mut batch = Batch::default();
        let mut job = job(&["aaaa", "bbbb", "cccc"], Instant::now() + Duration::from_secs(9), ());
        job.lines.set_headers(headers);
        batch.push(Box::new(job));
        assert_eq!(batch.open_bytes(), 3 * (4 + bytes));
        assert_eq!(batch.records(10, 2 * (4 + bytes)).1.len(), 2);
        let (sent, records) = batch.records(10, 3 * (4 + bytes) - 1);
        assert_eq!(records.len(), 2);
        batch.note(&sent, vec![receipt(5), retryable()]);
        assert_eq!(batch.open_bytes(), 2 * (4 + bytes));
        batch.take_settled(Instant::now(), &"late".into());
        assert_eq!(batch.open_bytes(), 2 * (4 + bytes));
    }

    #[test]
    fn past_its_deadline_a_job_is_handed_out_with_what_it_has() {
        let now = Instant::now();
        let mut batch = Batch::default();
        batch.push(Box::new(job(&["a", "b"], now, "old")));
        batch.push(Box::new(job(&["c"], now + Duration::from_secs(1), "new")));
        let (sent, _) = batch.records(1, 100);
        batch.note(&sent, vec![receipt(5)]);
        let settled = batch.take_settled(now, &"no answer".into());
        assert_eq!(settled.len(), 1);
        assert_eq!(settled[0].ticket, "old");
        assert_eq!(settled[0].outcomes[1], Outcome::Unacknowledged("no answer".into()));
        assert_eq!((batch.open_events(), batch.open_bytes()), (1, 1));
        assert_eq!(batch.give_up(&"stopping".into()).len(), 1);
        assert!(batch.is_empty());
    }

    #[test]
    fn an_event_that_the_topic_refuses_is_settled_alone() {
        let mut batch = Batch::default();
        batch.push(Box::new(job(&["big", "small"], Instant::now() + Duration::from_secs(9), ())));
        let (sent, _) = batch.records(10, 100);
        batch.note(&sent, vec![Err(BrokerError::TooLarge("too big".into())), receipt(1)]);
        let settled = batch.take_settled(Instant::now(), &"late".into());
        assert_eq!(settled[0].outcomes[0], Outcome::TooLarge("too big".into()));
        assert_eq!(settled[0].acknowledged(), 1);
    }
}
