//! One TCP connection to one broker: sends requests and reads responses within time and size limits.
//!
//! It handles frames and correlation ids, but neither the content of requests nor encryption. After an error
//! the connection is unusable, and its owner drops it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::answer::{self, AnswerLimit};
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::linux;
use crate::transport::{Refused, Transport, left};

/// Identifies us in the broker's logs, metrics and quotas.
pub const CLIENT_ID: &str = "event-pipeline";

/// Maximum bytes of a response with a reason for each record of a rejected request.
const MAX_REASONS_BYTES: usize = 32 << 20;

/// Maximum bytes of any other response: metadata of some 20,000 partitions with their replicas.
const MAX_ANSWER_BYTES: usize = 2 << 20;

/// API key of Produce, whose responses may hold reasons.
pub const PRODUCE_KEY: i16 = 0;
/// First version of Produce whose brokers mute a connection instead of delaying the response when a quota is
/// exceeded (KIP-219, Kafka 2.0).
pub const MUTING_PRODUCE: i16 = 6;

/// First version of Produce that says which records the broker rejects, and why (KIP-467, Kafka 2.4).
pub const REASONS_PRODUCE: i16 = 8;

/// How much of an overlong response is read to find out why it is too long.
const HEAD_BYTES: usize = 64 << 10;

/// A request and the version of it that we use.
#[derive(Clone, Copy)]
pub struct Api {
    pub name: &'static str,
    pub key: i16,
    pub version: i16,
}

impl Api {
    /// Limits responses because they take a multiple of their size in memory. For responses with records the
    /// caller sets the limit, see [`Connection::call_up_to`].
    fn max_answer_bytes(self) -> usize {
        if self.key == PRODUCE_KEY { MAX_REASONS_BYTES } else { MAX_ANSWER_BYTES }
    }
}

/// An open connection.
pub struct Connection {
    stream: Box<dyn Transport>,
    host: String,
    correlation: i32,
    /// Until when the broker reads nothing more on this connection, because a quota is exceeded. Since Kafka
    /// 2.0 (KIP-219) it responds at once, whatever the version of the request, and says how long it will mute
    /// the connection; earlier versions delayed the response itself.
    muted_until: Option<Instant>,
    /// This broker's responses say how long it mutes the connection.
    mutes: bool,
    /// The response to [`Connection::ask_quota`] has not been read yet.
    is_quota_asked: bool,
    /// When the broker is about to require authentication again.
    expires: Option<Instant>,
}

impl Connection {
    /// Wraps `stream`, an unused connection to `host`.
    pub fn over(stream: Box<dyn Transport>, host: &str) -> Self {
        Self {
            stream,
            host: host.to_owned(),
            correlation: 0,
            muted_until: None,
            mutes: false,
            is_quota_asked: false,
            expires: None,
        }
    }

    /// From now on, the connection stays quiet for as long as the broker's responses say.
    pub fn obey_quotas(&mut self) {
        self.mutes = true;
    }

    /// Until when the broker reads nothing on this connection, if it is muted.
    pub fn muted_until(&self) -> Option<Instant> {
        self.muted_until.filter(|until| Instant::now() < *until)
    }

    /// Fails while the broker reads nothing on this connection.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Throttled`].
    pub fn check_quota(&self) -> Result<()> {
        let Some(until) = self.muted_until() else { return Ok(()) };
        Err(BrokerError::Throttled(
            until,
            format!(
                "broker {}: a quota for client id {CLIENT_ID} is exceeded; it reads again in {:.1} s",
                self.host,
                left(until).as_secs_f64()
            ),
        ))
    }

    /// Asks for the quota state of `api` with a request that holds nothing but `body`. The next call, or
    /// [`Connection::take_quota_answer`], reads the response. For a client on the same broker that gets no quota
    /// information itself.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn ask_quota(&mut self, api: Api, body: Writer<'_>, deadline: Instant) -> Result<()> {
        self.take_quota_answer(deadline)?;
        self.check_quota()?;
        self.send(api, &body, deadline).map_err(|error| self.failed(api.name, &error))?;
        self.is_quota_asked = true;
        Ok(())
    }

    /// Reads the response to [`Connection::ask_quota`], if one is outstanding.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn take_quota_answer(&mut self, deadline: Instant) -> Result<()> {
        if !self.is_quota_asked {
            return Ok(());
        }
        let limit = AnswerLimit { bytes: MAX_ANSWER_BYTES, head: None };
        let (answer, _) = self.receive(limit, deadline).map_err(|error| self.failed("quota", &error))?;
        self.is_quota_asked = false;
        self.read(&answer, |r| {
            // A Produce response: no topics, then the throttle time.
            r.array(|_| Err::<(), Malformed>(Malformed))?;
            r.throttle()
        })
    }

    /// Makes the connection count as unusable from `end` on.
    #[cfg(feature = "tls")]
    pub fn expire_at(&mut self, end: Instant) {
        self.expires = Some(end);
    }

    /// host:port as the caller requested it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// Retryable if the kernel no longer knows it.
    pub fn peer(&self) -> Result<SocketAddr> {
        self.stream.socket().peer_addr().map_err(|error| self.failed("peer address", &error))
    }

    /// True if the connection is open, has no unexpected data, and the broker does not require authentication
    /// again.
    pub fn is_usable(&self) -> bool {
        self.expires.is_none_or(|end| Instant::now() < end)
            && (self.is_quota_asked || linux::is_quiet(self.stream.socket()))
    }

    /// Sends a request and returns what `read` makes of the whole response after the correlation id. If the
    /// broker reads nothing on this connection, this waits, provided that ends before `deadline`.
    ///
    /// # Errors
    /// Retryable if the connection was cut, `deadline` passed or the response is malformed. Throttled while a
    /// quota is exceeded. Refused if one side does not accept the other.
    pub fn call<T>(
        &mut self,
        api: Api,
        body: Writer<'_>,
        deadline: Instant,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        let limit = AnswerLimit { bytes: api.max_answer_bytes(), head: None };
        self.ask(api, body, (limit, deadline), |r, _| read(r))
    }

    /// The same for a response of up to `max_bytes`. For a longer one, `read` gets the beginning and `true`,
    /// and the connection is unusable afterwards.
    ///
    /// # Errors
    /// As for [`Connection::call`].
    pub fn call_up_to<T>(
        &mut self,
        api: Api,
        body: Writer<'_>,
        (max_bytes, deadline): (usize, Instant),
        read: impl FnOnce(&mut Reader<'_>, bool) -> Result<T, Malformed>,
    ) -> Result<T> {
        let limit = AnswerLimit { bytes: max_bytes, head: Some(HEAD_BYTES) };
        self.ask(api, body, (limit, deadline), read)
    }

    fn ask<T>(
        &mut self,
        api: Api,
        body: Writer<'_>,
        (limit, deadline): (AnswerLimit, Instant),
        read: impl FnOnce(&mut Reader<'_>, bool) -> Result<T, Malformed>,
    ) -> Result<T> {
        self.take_quota_answer(deadline)?;
        if let Some(until) = self.muted_until() {
            if until >= deadline {
                self.check_quota()?;
            }
            thread::sleep(left(until));
        }
        let answer = self.send(api, &body, deadline).and_then(|()| self.receive(limit, deadline));
        let (answer, is_cut) = answer.map_err(|error| self.failed(api.name, &error))?;
        self.read(&answer, |r| read(r, is_cut))
    }

    fn send(&mut self, api: Api, body: &Writer<'_>, deadline: Instant) -> io::Result<()> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = Writer::default().i16(api.key).i16(api.version).i32(self.correlation).str(CLIENT_ID);
        let (header, body) = (header.parts().concat(), body.parts());
        let length = header.len() + body.iter().map(|part| part.len()).sum::<usize>();
        let length = i32::try_from(length).expect("a request is far smaller than 2 GiB");
        let head = [&length.to_be_bytes()[..], &header].concat();
        let parts = std::iter::once(&head[..]).chain(body);
        self.stream.send(&mut parts.map(IoSlice::new).collect::<Vec<_>>(), deadline)
    }

    fn read<T>(
        &mut self,
        answer: &[u8],
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        let mut reader = Reader::new(answer);
        if reader.i32() != Ok(self.correlation) {
            return Err(self.malformed("the response is to another request"));
        }
        let answer = read(&mut reader).map_err(|Malformed| self.malformed("malformed response"))?;
        let throttle = Duration::from_millis(reader.throttle_ms());
        if self.mutes && !throttle.is_zero() {
            self.muted_until = Some(Instant::now() + throttle);
        }
        if reader.is_at_end() {
            Ok(answer)
        } else {
            Err(self.malformed("the response is longer than it should be"))
        }
    }

    fn receive(&mut self, limit: AnswerLimit, deadline: Instant) -> io::Result<(Vec<u8>, bool)> {
        let (answer, is_cut) = answer::receive(&mut *self.stream, limit, deadline)?;
        if is_cut {
            self.expires = Some(Instant::now());
        }
        Ok((answer, is_cut))
    }

    fn failed(&self, what: &str, error: &io::Error) -> BrokerError {
        // The second request, after ApiVersions, is the one for the topic.
        if error.kind() == io::ErrorKind::UnexpectedEof && self.correlation == 2 {
            let host = &self.host;
            return BrokerError::Retryable(format!(
                "broker {host}: {what}: it closed the connection; does it require a password \
                 (KAFKA_SECURITY_PROTOCOL)?"
            ));
        }
        failure(&self.host, what, error)
    }

    fn malformed(&self, what: &str) -> BrokerError {
        BrokerError::Retryable(format!("broker {}: {what}: is it a Kafka broker?", self.host))
    }
}

/// Turns an `error` that occurred during `what` on a connection to `host` into a class that callers act on.
pub fn failure(host: &str, what: &str, error: &io::Error) -> BrokerError {
    use io::ErrorKind::{InvalidData, TimedOut, UnexpectedEof};
    if let Some(why) = Refused::reason(error) {
        return BrokerError::Refused(format!("broker {host}: {what}: {why}"));
    }
    let cause = match error.kind() {
        TimedOut => "it did not answer in time".to_owned(),
        UnexpectedEof => "it closed the connection".to_owned(),
        InvalidData => format!("{error}: is it a Kafka broker?"),
        _ => error.to_string(),
    };
    BrokerError::Retryable(format!("broker {host}: {what}: {cause}"))
}
