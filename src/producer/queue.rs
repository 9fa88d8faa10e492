//! Passes jobs from the HTTP side to the publisher through a bounded queue, and refuses those that do not
//! fit.
//!
//! Its limits cover everything between acceptance and acknowledgement, so a batch on the wire counts like one
//! that is waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use crate::access::share::Share;

/// What can wake the publisher, other than time.
pub enum Input<J> {
    /// Something to publish.
    Job(J),
    /// No more jobs follow: settle the remaining ones and end.
    Close,
}

/// The limits and the sending end.
pub struct Queue<J> {
    sender: Sender<Input<J>>,
    /// Kept so that no job is left waiting when the publisher dies: any thread that finds it dead empties the
    /// channel.
    spare: Receiver<Input<J>>,
    dead: AtomicBool,
    usage: Arc<Usage>,
}

/// How much is inside now, and how fast it leaves.
#[derive(Debug)]
pub struct Usage {
    max_events: usize,
    max_bytes: usize,
    events: AtomicUsize,
    bytes: AtomicUsize,
    /// Known clients with something inside.
    sharers: AtomicUsize,
    settled_per_second: AtomicU64,
}

/// A part of the limits; dropping it returns the part.
#[derive(Debug)]
pub struct Reservation {
    usage: Arc<Usage>,
    events: usize,
    bytes: usize,
    /// That of the client, if it is known.
    share: Option<Arc<Share>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.give_back(self.events, self.bytes, self.share.as_deref());
        if self.share.as_ref().is_some_and(|share| share.leave()) {
            self.usage.sharers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Reservation {
    /// Changes the part to `events` and `bytes`. Returns false, and changes nothing, if that does not fit.
    pub fn resize(&mut self, events: usize, bytes: usize) -> bool {
        let more_events = events.saturating_sub(self.events);
        let more_bytes = bytes.saturating_sub(self.bytes);
        let share = self.share.as_deref();
        if (more_events > 0 || more_bytes > 0) && !self.usage.take(more_events, more_bytes, share) {
            return false;
        }
        let (less_events, less_bytes) =
            (self.events.saturating_sub(events), self.bytes.saturating_sub(bytes));
        self.usage.give_back(less_events, less_bytes, share);
        (self.events, self.bytes) = (events, bytes);
        true
    }
}

impl Usage {
    /// Number of events inside now.
    pub fn events(&self) -> usize {
        self.events.load(Ordering::Acquire)
    }

    /// Number of bytes inside now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Most events allowed inside.
    pub fn max_events(&self) -> usize {
        self.max_events
    }

    /// Most bytes allowed inside.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Sets how many events per second have left recently.
    pub fn set_rate(&self, settled_per_second: u64) {
        self.settled_per_second.store(settled_per_second, Ordering::Relaxed);
    }

    /// How long a refused client should wait: the time to drain what is inside, from 1 to 30 seconds.
    pub fn retry_after(&self) -> Duration {
        let rate = self.settled_per_second.load(Ordering::Relaxed).max(1);
        Duration::from_secs((self.events() as u64).div_ceil(rate).clamp(1, 30))
    }

    fn take(&self, events: usize, bytes: usize, share: Option<&Share>) -> bool {
        let all_events = self.events.fetch_add(events, Ordering::AcqRel) + events;
        let all_bytes = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let is_fair = share.is_none_or(|share| {
            let (own_events, own_bytes) = share.add(events, bytes);
            let sharers = self.sharers.load(Ordering::Acquire).max(1);
            // The first half goes to those who come first; past it, a client has at most an equal part.
            (2 * all_events <= self.max_events || own_events <= self.max_events / sharers)
                && (2 * all_bytes <= self.max_bytes || own_bytes <= self.max_bytes / sharers)
        });
        let fits = is_fair && all_events <= self.max_events && all_bytes <= self.max_bytes;
        if !fits {
            self.give_back(events, bytes, share);
        }
        fits
    }

    fn give_back(&self, events: usize, bytes: usize, share: Option<&Share>) {
        self.events.fetch_sub(events, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if let Some(share) = share {
            share.remove(events, bytes);
        }
    }
}

impl<J> Queue<J> {
    /// Creates a queue of at most `max_jobs` jobs, `max_events` events and `max_bytes` bytes, with its
    /// receiving end.
    pub fn new(max_jobs: usize, max_events: usize, max_bytes: usize) -> (Self, Receiver<Input<J>>) {
        let (sender, receiver) = bounded(max_jobs);
        let usage = Usage {
            max_events,
            max_bytes,
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            settled_per_second: AtomicU64::new(0),
        };
        let spare = receiver.clone();
        (Self { sender, spare, dead: AtomicBool::new(false), usage: Arc::new(usage) }, receiver)
    }

    /// How much is inside now.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Reserves a part of the limits; returns `None` if it does not fit. A client with a `share` gets at most an
    /// equal part of the queue while more than half of it is in use.
    pub fn reserve(&self, events: usize, bytes: usize, share: Option<Arc<Share>>) -> Option<Reservation> {
        if share.as_ref().is_some_and(|share| share.enter()) {
            self.usage.sharers.fetch_add(1, Ordering::AcqRel);
        }
        let mut reservation = Reservation { usage: self.usage.clone(), events: 0, bytes: 0, share };
        reservation.resize(events, bytes).then_some(reservation)
    }

    /// Hands `job` to the publisher.
    ///
    /// # Errors
    /// The queue is full or the publisher is gone; the job is returned.
    pub fn submit(&self, job: J) -> Result<(), J> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(job);
        }
        match self.sender.try_send(Input::Job(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Input::Job(job)) | TrySendError::Disconnected(Input::Job(job))) => {
                Err(job)
            }
            Err(_) => unreachable!("only a job was sent"),
        }
    }

    /// Signals the publisher that no more jobs follow.
    pub fn close(&self) {
        let _ = self.sender.send_timeout(Input::Close, Duration::from_secs(1));
    }

    /// Marks the publisher as dead; from now on every job is returned.
    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// True once the publisher is dead.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Removes a job that a dead publisher left in the queue.
    pub fn take_orphan(&self) -> Option<J> {
        loop {
            match self.spare.try_recv().ok()? {
                Input::Job(job) => return Some(job),
                Input::Close => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_for_events_and_bytes_and_come_back() {
        let (queue, _receiver) = Queue::<()>::new(10, 3, 100);
        let mut first = queue.reserve(2, 50, None).expect("fits");
        assert!(queue.reserve(2, 10, None).is_none(), "events");
        assert!(queue.reserve(1, 51, None).is_none(), "bytes");
        assert_eq!((queue.usage().events(), queue.usage().bytes()), (2, 50));
        assert!(first.resize(1, 100) && !first.resize(4, 100) && !first.resize(1, 101));
        assert_eq!((queue.usage().events(), queue.usage().bytes()), (1, 100));
        drop(first);
        assert_eq!((queue.usage().events(), queue.usage().bytes()), (0, 0));
    }

    #[test]
    fn past_half_of_the_queue_a_client_gets_an_equal_part() {
        let (queue, _receiver) = Queue::<()>::new(10, 100, 1000);
        let [noisy, quiet] = [(); 2].map(|()| Arc::new(Share::default()));
        let reserve = |events, share: &Arc<Share>| queue.reserve(events, 0, Some(share.clone()));
        let first = reserve(80, &noisy).expect("alone it may have everything");
        let second = reserve(15, &quiet).expect("an equal part is 50");
        assert!(reserve(1, &noisy).is_none(), "it holds more than an equal part");
        drop(first);
        let first = reserve(30, &noisy).expect("the first half is for everybody");
        let third = reserve(20, &noisy).expect("still an equal part");
        assert!(reserve(1, &noisy).is_none());
        drop(second);
        assert!(reserve(1, &noisy).is_some(), "the other one is gone");
        assert!(queue.reserve(10, 0, None).is_some(), "without keys there are no shares");
        drop((first, third));
        assert_eq!(queue.usage().events(), 0);
        assert_eq!(queue.usage().sharers.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let (queue, receiver) = Queue::new(1, 10, 10);
        assert_eq!(queue.submit(1), Ok(()));
        assert_eq!(queue.submit(2), Err(2));
        assert!(matches!(receiver.recv(), Ok(Input::Job(1))));
    }

    #[test]
    fn a_dead_publisher_leaves_no_job_waiting() {
        let (queue, receiver) = Queue::new(4, 10, 10);
        assert_eq!(queue.submit(1), Ok(()));
        drop(receiver);
        queue.mark_dead();
        assert_eq!(queue.submit(2), Err(2));
        assert_eq!((queue.take_orphan(), queue.take_orphan()), (Some(1), None));
    }

    #[test]
    fn retry_after_is_the_time_to_drain() {
        let (queue, _receiver) = Queue::<()>::new(10, 1000, 100);
        let _inside = queue.reserve(250, 1, None);
        queue.usage().set_rate(100);
        assert_eq!(queue.usage().retry_after(), Duration::from_secs(3));
        queue.usage().set_rate(1_000_000);
        assert_eq!(queue.usage().retry_after(), Duration::from_secs(1));
        queue.usage().set_rate(0);
        assert_eq!(queue.usage().retry_after(), Duration::from_secs(30));
    }
}
