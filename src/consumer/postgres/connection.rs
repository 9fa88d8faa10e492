//! One connection to a server: sends statements and rows, reads the answers, each within a deadline.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Header, Message};
use postgres_protocol::message::frontend;

use crate::consumer::postgres::error::{PgError, SqlError};
use crate::transport::{Refused, Transport};

/// Largest message of the server that is read: answers are rows of `event_offsets`.
const MESSAGE_MAX: usize = 16 << 20;
/// Largest answer in memory, all of its rows together. A row of `event_offsets` has less than a kilobyte.
const ANSWER_MAX: usize = 64 << 20;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// Rows are sent in messages of about this size, so that the server works while more are on their way.
const COPY_BYTES: usize = 128 << 10;
/// How long the last words of a server are waited for when it does not take our bytes any more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// An open connection. After an error that ends it, its owner drops it.
pub struct Connection {
    stream: Box<dyn Transport>,
    host: String,
    inbox: BytesMut,
}

/// A row of an answer, as text.
pub type Row = Vec<Option<String>>;

/// What statements returned.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows of all of them.
    pub rows: Vec<Row>,
    /// What was done, for example `UPDATE 3`, one for each statement.
    pub tags: Vec<String>,
}

impl Answer {
    /// Number of rows that the first statement of this name affected.
    pub fn affected(&self, name: &str) -> u64 {
        let count = |tag: &String| tag.strip_prefix(name)?.rsplit(' ').next()?.parse().ok();
        self.tags.iter().find_map(count).unwrap_or_default()
    }
}

impl Connection {
    /// Wraps `stream`, an unused connection to `host`.
    pub fn over(stream: Box<dyn Transport>, host: &str) -> Self {
        Self { stream, host: host.to_owned(), inbox: BytesMut::new() }
    }

    /// host:port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends `bytes`.
    ///
    /// # Errors
    /// As for [`PgError::Lost`].
    pub fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), PgError> {
        self.send_parts(&mut [IoSlice::new(bytes)], deadline)
    }

    fn send_parts(&mut self, parts: &mut [IoSlice<'_>], deadline: Instant) -> Result<(), PgError> {
        self.stream.send(parts, deadline).map_err(|error| {
            // A server that ends says why.
            let limit = deadline.min(Instant::now() + LAST_WORDS);
            let said = if is_gone(&error) { self.last_words(limit) } else { None };
            said.unwrap_or_else(|| self.failed(&error))
        })
    }

    fn last_words(&mut self, deadline: Instant) -> Option<PgError> {
        loop {
            match self.receive(deadline).ok()? {
                Message::ErrorResponse(body) => return Some(PgError::Sql(SqlError::read(body.fields()))),
                _ => continue,
            }
        }
    }

    /// Reads the next message that is not only information.
    ///
    /// # Errors
    /// As for [`PgError::Lost`].
    pub fn receive(&mut self, deadline: Instant) -> Result<Message, PgError> {
        loop {
            self.fill(deadline)?;
            let message = Message::parse(&mut self.inbox).map_err(|error| self.failed(&error))?;
            match message.expect("a whole message is there") {
                Message::NoticeResponse(_)
                | Message::ParameterStatus(_)
                | Message::NotificationResponse(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Reads until the inbox has a whole message.
    fn fill(&mut self, deadline: Instant) -> Result<(), PgError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let header = Header::parse(&self.inbox).map_err(|error| self.failed(&error))?;
            let needed = header
                .map_or(5, |header| usize::try_from(header.len()).unwrap_or(usize::MAX).saturating_add(1));
            if needed > MESSAGE_MAX {
                return Err(PgError::Lost(format!(
                    "{}: a message is too long: is it PostgreSQL?",
                    self.host
                )));
            }
            if header.is_some() && self.inbox.len() >= needed {
                return Ok(());
            }
            match self.stream.receive(&mut buffer, deadline) {
                Ok(0) => return Err(self.failed(&io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.inbox.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// Runs statements and returns what all of them returned.
    ///
    /// # Errors
    /// The first error of the server, or [`PgError::Lost`].
    pub fn query(&mut self, sql: &str, deadline: Instant) -> Result<Answer, PgError> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|error| self.failed(&error))?;
        self.send(&message, deadline)?;
        self.answer(deadline)
    }

    /// The same for statements of which the last one is a COPY from us; `parts` are its bytes, one after the other.
    /// They are sent without waiting for the server, which ignores them if a statement before fails.
    ///
    /// # Errors
    /// As for [`Connection::query`].
    pub fn copy(&mut self, sql: &str, parts: &[&[u8]], deadline: Instant) -> Result<Answer, PgError> {
        let mut first = BytesMut::new();
        frontend::query(sql, &mut first).map_err(|error| self.failed(&error))?;
        let chunks: Vec<&[u8]> = parts.iter().flat_map(|part| part.chunks(COPY_BYTES)).collect();
        let heads: Vec<[u8; 5]> = chunks.iter().map(|chunk| copy_head(chunk.len())).collect();
        let mut last = BytesMut::new();
        frontend::copy_done(&mut last);
        let mut slices = vec![IoSlice::new(&first)];
        for (head, chunk) in heads.iter().zip(&chunks) {
            slices.extend([IoSlice::new(head), IoSlice::new(chunk)]);
        }
        slices.push(IoSlice::new(&last));
        self.send_parts(&mut slices, deadline)?;
        self.answer(deadline)
    }

    /// Reads answers until the server is ready for more.
    fn answer(&mut self, deadline: Instant) -> Result<Answer, PgError> {
        let (mut answer, mut failed, mut bytes) = (Answer::default(), None, 0);
        loop {
            match self.receive(deadline)? {
                Message::DataRow(row) => {
                    let fields = read_row(&row).map_err(|error| self.failed(&error))?;
                    bytes += row.buffer().len() + size_of_val(fields.as_slice());
                    answer.rows.push(fields);
                }
                Message::CommandComplete(done) => {
                    let tag = done.tag().map_err(|error| self.failed(&error))?.to_owned();
                    bytes += tag.len() + size_of::<String>();
                    answer.tags.push(tag);
                }
                Message::ErrorResponse(body) => {
                    let error = SqlError::read(body.fields());
                    if error.is_fatal {
                        return Err(PgError::Sql(error));
                    }
                    failed.get_or_insert(error);
                }
                Message::ReadyForQuery(_) => {
                    return failed.map_or(Ok(answer), |error| Err(PgError::Sql(error)));
                }
                Message::RowDescription(_) | Message::CopyInResponse(_) | Message::EmptyQueryResponse => {}
                _ => {
                    return Err(PgError::Lost(format!(
                        "{}: an unexpected message: is it PostgreSQL?",
                        self.host
                    )));
                }
            }
            if bytes > ANSWER_MAX {
                return Err(PgError::Lost(format!(
                    "{}: its answer is longer than {} MiB: is it PostgreSQL?",
                    self.host,
                    ANSWER_MAX >> 20
                )));
            }
        }
    }

    fn failed(&self, error: &io::Error) -> PgError {
        use io::ErrorKind::{TimedOut, UnexpectedEof};
        let host = &self.host;
        if let Some(why) = Refused::reason(error) {
            return PgError::Refused(format!("{host}: {why}"));
        }
        PgError::Lost(match error.kind() {
            TimedOut => return PgError::TimedOut(format!("{host}: it did not answer in time")),
            UnexpectedEof => format!("{host}: it closed the connection"),
            _ => format!("{host}: {error}"),
        })
    }
}

/// The beginning of a message with so many bytes of a COPY.
fn copy_head(length: usize) -> [u8; 5] {
    let length = u32::try_from(length + 4).expect("a chunk is short").to_be_bytes();
    [b'd', length[0], length[1], length[2], length[3]]
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn read_row(body: &DataRowBody) -> io::Result<Row> {
    let mut row = Row::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next()? {
        row.push(range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned()));
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_without_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let mut far = listener.accept().expect("accept").0;
        let server = thread::spawn(move || {
            let value = vec![b'x'; 1 << 20];
            let length = |bytes: usize| u32::try_from(bytes).expect("small").to_be_bytes();
            let row =
                [&b"D"[..], &length(4 + 2 + 4 + value.len()), &[0, 1], &length(value.len()), &value].concat();
            // Ends when the near side is closed.
            (0..1000).take_while(|_| far.write_all(&row).is_ok()).count()
        });
        let mut connection = Connection::over(Box::new(near), "db:1");
        let error =
            connection.query("SELECT 1", Instant::now() + Duration::from_secs(300)).expect_err("given up");
        assert_eq!(error.to_string(), "db:1: its answer is longer than 64 MiB: is it PostgreSQL?");
        drop(connection);
        assert!(server.join().expect("ended") < 1000);
    }
}
