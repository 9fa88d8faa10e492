//! One TCP connection to one broker: sends requests and reads responses within time and size limits.
//!
//! It handles frames and correlation ids, but neither the content of requests nor encryption. After an error
//! the connection is unusable, and its owner drops it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::client::transfer_time;
use crate::broker::error::BrokerError;
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
pub use crate::broker::protocol::stream::left;
use crate::broker::protocol::stream::{Stream, resolve};

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

/// Size limit of a response.
#[derive(Clone, Copy)]
struct AnswerLimit {
    bytes: usize,
    /// How much to read of a longer response; `None` rejects it.
    head: Option<usize>,
}

/// An open connection.
pub struct Connection {
    stream: Stream,
    host: String,
    correlation: i32,
    /// Until when the broker reads nothing more on this connection, because a quota is exceeded. Since Kafka
    /// 2.0 (KIP-219) it responds at once, whatever the version of the request, and says how long it will mute
    /// the connection; earlier versions delayed the response itself.
    muted_until: Option<Instant>,
    /// This broker's responses say how long it mutes the connection.
    mutes: bool,
    /// The response to [`Connection::ask_quota`] has not been read yet.
    asked: bool,
    /// When the broker is about to require authentication again.
    ends: Option<Instant>,
}

/// A broker's response to plaintext bytes on a TLS port.
#[derive(Debug)]
struct SpeaksTls;

impl fmt::Display for SpeaksTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it speaks TLS on this port; set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL, or use its \
             port without TLS",
        )
    }
}

impl std::error::Error for SpeaksTls {}

impl Connection {
    /// Connects to `host` (host:port), trying its addresses in turn for at most `connect_timeout` each.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`], which names the host and the cause.
    pub fn open(host: &str, connect_timeout: Duration, deadline: Instant) -> Result<Self, BrokerError> {
        let failed = |why: String| BrokerError::Retryable(format!("cannot connect to broker {host}: {why}"));
        let mut why = "the name has no address".to_owned();
        for address in resolve(host, left(deadline).min(connect_timeout)).map_err(failed)? {
            let limit = left(deadline).min(connect_timeout);
            match TcpStream::connect_timeout(&address, limit.max(Duration::from_millis(1))) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
                    return Ok(Self::over(Stream::Plain(stream), host));
                }
                // The kafka crate tries the same addresses with the kernel's own timeout of minutes. A silent
                // address ahead of a good one would block it, so it makes the host unusable.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(failed(format!("no answer from {address} within {} ms", limit.as_millis())));
                }
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(failed(why))
    }

    /// Wraps `stream`, an unused connection to `host`.
    pub fn over(stream: Stream, host: &str) -> Self {
        Self {
            stream,
            host: host.to_owned(),
            correlation: 0,
            muted_until: None,
            mutes: false,
            asked: false,
            ends: None,
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
    pub fn check_quota(&self) -> Result<(), BrokerError> {
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
    /// [`Connection::take_asked`], reads the response. For a client on the same broker that gets no quota
    /// information itself.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn ask_quota(&mut self, api: Api, body: Writer, deadline: Instant) -> Result<(), BrokerError> {
        self.take_asked(deadline)?;
        self.check_quota()?;
        let request = self.request(api, body);
        self.stream.write_all(&request, deadline).map_err(|error| self.failed(api.name, &error))?;
        self.asked = true;
        Ok(())
    }

    /// Reads the response to [`Connection::ask_quota`], if one is outstanding.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn take_asked(&mut self, deadline: Instant) -> Result<(), BrokerError> {
        if !self.asked {
            return Ok(());
        }
        let limit = AnswerLimit { bytes: MAX_ANSWER_BYTES, head: None };
        let (answer, _) = self.receive(limit, deadline).map_err(|error| self.failed("quota", &error))?;
        self.asked = false;
        self.read(&answer, |r| {
            // A Produce response: no topics, then the throttle time.
            r.array(|_| Err::<(), Malformed>(Malformed))?;
            r.throttle()
        })
    }

    /// Makes the connection count as unusable from `end` on.
    #[cfg(feature = "tls")]
    pub fn end_at(&mut self, end: Instant) {
        self.ends = Some(end);
    }

    /// Returns the underlying stream, to be encrypted before the first call.
    #[cfg(feature = "tls")]
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// host:port as the caller requested it.
    #[cfg(feature = "tls")]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// Retryable if the kernel no longer knows it.
    pub fn peer(&self) -> Result<SocketAddr, BrokerError> {
        self.stream.socket().peer_addr().map_err(|error| self.failed("peer address", &error))
    }

    /// True if the connection is open, has no unexpected data, and the broker does not require authentication
    /// again.
    pub fn is_usable(&self) -> bool {
        self.ends.is_none_or(|end| Instant::now() < end) && (self.asked || self.stream.is_quiet())
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
        body: Writer,
        deadline: Instant,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, BrokerError> {
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
        body: Writer,
        (max_bytes, deadline): (usize, Instant),
        read: impl FnOnce(&mut Reader<'_>, bool) -> Result<T, Malformed>,
    ) -> Result<T, BrokerError> {
        let limit = AnswerLimit { bytes: max_bytes, head: Some(HEAD_BYTES) };
        self.ask(api, body, (limit, deadline), read)
    }

    fn ask<T>(
        &mut self,
        api: Api,
        body: Writer,
        (limit, deadline): (AnswerLimit, Instant),
        read: impl FnOnce(&mut Reader<'_>, bool) -> Result<T, Malformed>,
    ) -> Result<T, BrokerError> {
        self.take_asked(deadline)?;
        if let Some(until) = self.muted_until() {
            if until >= deadline {
                self.check_quota()?;
            }
            thread::sleep(left(until));
        }
        let request = self.request(api, body);
        let (answer, is_cut) =
            self.exchange(&request, limit, deadline).map_err(|error| self.failed(api.name, &error))?;
        self.read(&answer, |r| read(r, is_cut))
    }

    fn request(&mut self, api: Api, body: Writer) -> Vec<u8> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = Writer::default().i16(api.key).i16(api.version).i32(self.correlation).str(CLIENT_ID);
        let (header, body) = (header.into_bytes(), body.into_bytes());
        let length = i32::try_from(header.len() + body.len()).expect("a control request is small");
        [&length.to_be_bytes()[..], &header, &body].concat()
    }

    fn read<T>(
        &mut self,
        answer: &[u8],
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, BrokerError> {
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

    /// Returns the response, or the beginning of one that is too long and `true`.
    fn exchange(
        &mut self,
        request: &[u8],
        limit: AnswerLimit,
        deadline: Instant,
    ) -> io::Result<(Vec<u8>, bool)> {
        self.stream.write_all(request, deadline)?;
        self.receive(limit, deadline)
    }

    fn receive(&mut self, limit: AnswerLimit, deadline: Instant) -> io::Result<(Vec<u8>, bool)> {
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        if is_tls_alert(length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, SpeaksTls));
        }
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let is_cut = length > limit.bytes;
        let length = match limit.head {
            _ if !is_cut => length,
            Some(head) if length <= i32::MAX as usize => {
                self.ends = Some(Instant::now());
                head
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a response of {length} bytes"),
                ));
            }
        };
        // Grown as bytes arrive, so that a false length costs no memory.
        let mut answer = Vec::new();
        while answer.len() < length {
            let start = answer.len();
            let end = (start + (64 << 10)).min(length);
            if end > answer.capacity() {
                answer.reserve_exact((2 * start).clamp(end, length) - start);
            }
            answer.resize(end, 0);
            // A broker that has already sent a lot may take longer for the rest.
            self.fill(&mut answer[start..], deadline + transfer_time(start))?;
        }
        Ok((answer, is_cut))
    }

    fn fill(&mut self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.stream.read(buffer, deadline)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    /// Turns an `error` that occurred during `what` on this connection into a class that callers act on.
    pub fn failed(&self, what: &str, error: &io::Error) -> BrokerError {
        use io::ErrorKind::{InvalidData, TimedOut, UnexpectedEof};
        let host = &self.host;
        if let Some(why) = refusal(error) {
            return BrokerError::Refused(format!("broker {host}: {what}: {why}"));
        }
        let cause = match error.kind() {
            TimedOut => "it did not answer in time".to_owned(),
            // The second request, after ApiVersions, is the one for the topic.
            UnexpectedEof if self.correlation == 2 => {
                "it closed the connection; does it require a password (KAFKA_SECURITY_PROTOCOL)?".to_owned()
            }
            UnexpectedEof => "it closed the connection".to_owned(),
            InvalidData => format!("{error}: is it a Kafka broker?"),
            _ => error.to_string(),
        };
        BrokerError::Retryable(format!("broker {host}: {what}: {cause}"))
    }

    fn malformed(&self, what: &str) -> BrokerError {
        BrokerError::Retryable(format!("broker {}: {what}: is it a Kafka broker?", self.host))
    }
}

/// True for a TLS alert, which says why the other side gives up; as a length it would be 352 MB.
fn is_tls_alert([kind, major, minor, _]: [u8; 4]) -> bool {
    kind == 0x15 && major == 3 && minor <= 4
}

/// Why one side does not accept the other; `None` for errors that may go away.
fn refusal(error: &io::Error) -> Option<String> {
    let cause = error.get_ref()?;
    #[cfg(feature = "tls")]
    if let Some(why) = crate::broker::secure::refusal(cause) {
        return Some(why);
    }
    cause.downcast_ref::<SpeaksTls>().map(ToString::to_string)
}
