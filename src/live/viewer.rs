//! Sends snapshots to one viewer over a WebSocket, until it leaves, falls behind or breaks a limit.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::error::CapacityError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

use crate::live::board::{Board, Next};
use crate::transport::Until;

/// Longest time to write one message; a viewer that takes longer is ended.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Longest wait for a snapshot before the viewer's own messages are read.
const READ_EVERY: Duration = Duration::from_secs(2);
/// How often a viewer is asked whether it is still there, and how long it may be silent.
const PING_EVERY: Duration = Duration::from_secs(15);
const MAX_SILENCE: Duration = Duration::from_secs(45);
/// Largest message of a viewer, in bytes. Our page sends none.
const MAX_MESSAGE_BYTES: usize = 1024;
/// Most messages of a viewer that are read after one snapshot.
const MAX_MESSAGES: usize = 16;
/// Largest message to a viewer, in bytes; the buffer for it is the only one that grows with what we send.
const MAX_WRITE_BYTES: usize = 1 << 20;
/// Size of the kernel's buffer for each viewer, so that one that does not read is noticed soon.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Serves the viewer at `client`, whose handshake is done.
pub fn serve(client: &TcpStream, board: &Board) {
    if let Err(error) = Viewer::new(client).and_then(|mut viewer| viewer.run(board)) {
        log::debug!("a viewer has ended: {error}");
    }
}

struct Viewer<'c> {
    socket: WebSocket<Line<'c>>,
    /// Number of the snapshot that it has.
    seen: u64,
    heard: Instant,
    pinged: Instant,
}

impl<'c> Viewer<'c> {
    fn new(client: &'c TcpStream) -> Result<Self, Error> {
        socket2::SockRef::from(client).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        client.set_nodelay(true)?;
        // The defaults are 64 MiB for what is read, and no limit at all for what is written.
        let limits = WebSocketConfig::default()
            .read_buffer_size(MAX_MESSAGE_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WRITE_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let now = Instant::now();
        let socket = WebSocket::from_raw_socket(Line { client, deadline: now }, Role::Server, Some(limits));
        Ok(Self { socket, seen: 0, heard: now, pinged: now })
    }

    fn run(&mut self, board: &Board) -> Result<(), Error> {
        loop {
            match board.next(self.seen, READ_EVERY) {
                Next::Ended => return self.close(CloseCode::Away, "the live page stops"),
                Next::Nothing => {}
                Next::Snapshot(snapshot) => {
                    let is_next = self.seen + 1 == snapshot.number;
                    self.seen = snapshot.number;
                    let text = if is_next { &snapshot.change } else { &snapshot.whole };
                    self.send(Message::Text(text.clone()))?;
                }
            }
            self.read()?;
            let now = Instant::now();
            if now - self.heard > MAX_SILENCE {
                return self.close(CloseCode::Policy, "no answer to pings");
            }
            if now - self.pinged > PING_EVERY {
                self.pinged = now;
                self.send(Message::Ping(Bytes::new()))?;
            }
        }
    }

    fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.get_mut().deadline = Instant::now() + WRITE_LIMIT;
        self.socket.send(message)
    }

    fn close(&mut self, code: CloseCode, reason: &'static str) -> Result<(), Error> {
        self.socket.get_mut().deadline = Instant::now() + WRITE_LIMIT;
        self.socket.close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }))
    }

    /// Reads what has arrived. Pings and the end are answered on the way; anything else is ignored.
    fn read(&mut self) -> Result<(), Error> {
        self.socket.get_mut().deadline = Instant::now() + WRITE_LIMIT;
        for _ in 0..MAX_MESSAGES {
            match self.socket.read() {
                Ok(_) => self.heard = Instant::now(),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    self.close(CloseCode::Size, "messages of viewers have at most 1024 bytes")?;
                    return Err(Error::ConnectionClosed);
                }
                Err(error) => return Err(error),
            }
        }
        self.close(CloseCode::Policy, "too many messages")?;
        Err(Error::ConnectionClosed)
    }
}

/// The connection: reads what is there without waiting, and writes until the deadline.
#[derive(Debug)]
struct Line<'c> {
    client: &'c TcpStream,
    deadline: Instant,
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.client.set_nonblocking(true)?;
        let outcome = self.client.read(buffer);
        self.client.set_nonblocking(false)?;
        outcome
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Until { socket: self.client, deadline: self.deadline }.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::control::Watch;
    use crate::live::board::Snapshot;

    #[test]
    fn a_viewer_that_does_not_read_is_ended_after_its_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let far = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        socket2::SockRef::from(&far).set_recv_buffer_size(4096).expect("set");
        let (near, _) = listener.accept().expect("accept");
        let board = Board::default();
        let text: Utf8Bytes = "x".repeat(MAX_WRITE_BYTES / 2).into();
        thread::scope(|scope| {
            let viewer = scope.spawn(|| {
                let watch = Watch::start();
                serve(&near, &board);
                watch.assert_within(WRITE_LIMIT * 10, "the end");
            });
            // More than the kernel holds for it.
            for number in 1.. {
                board.publish(Snapshot { number, whole: text.clone(), change: text.clone() });
                if viewer.is_finished() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        drop(far);
    }
}
