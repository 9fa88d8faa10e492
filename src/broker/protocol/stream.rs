//! The byte stream of one connection, plain or TLS. Each call has a deadline that a trickle of bytes cannot
//! extend.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use crate::broker::secure::TlsStream;
use crate::linux;

/// A connected socket, with its TLS session if there is one.
pub enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Any error of the socket or of TLS; `TimedOut` at `deadline`.
    pub fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        match self {
            Self::Plain(socket) => Until { socket, deadline }.write_all(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write_all(bytes, deadline),
        }
    }

    /// Reads the bytes that are available, waiting for the first one; returns 0 at the end of the stream.
    ///
    /// # Errors
    /// Any error of the socket or of TLS; `TimedOut` at `deadline`.
    pub fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => Until { socket, deadline }.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(buffer, deadline),
        }
    }

    /// True if the connection is open and has no unread bytes.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(socket) => linux::is_quiet(socket),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_quiet(),
        }
    }

    /// The underlying socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket(),
        }
    }
}

/// A socket whose reads and writes all fail with `TimedOut` at `deadline`.
pub struct Until<'a> {
    pub socket: &'a TcpStream,
    pub deadline: Instant,
}

impl Until<'_> {
    fn limit(&self) -> io::Result<Option<Duration>> {
        let left = left(self.deadline);
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.set_read_timeout(self.limit()?)?;
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(in_time),
            }
        }
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(self.limit()?)?;
            match self.socket.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome.map_err(in_time),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reports an expired socket timeout as `TimedOut`. The kernel calls it "would block", which TLS would take
/// as a reason to try again.
fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// Time until `deadline`; zero once it has passed.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Resolves the addresses of `host`, giving up on name servers after `limit`.
pub fn resolve(host: &str, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    if let Some((name, port)) = host.rsplit_once(':')
        && let (Ok(ip), Ok(port)) = (name.trim_matches(['[', ']']).parse::<IpAddr>(), port.parse())
    {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (found, answer) = mpsc::sync_channel(1);
    let name = host.to_owned();
    // The system's resolver has no timeout that we could set, so a stuck lookup is left to finish on its own.
    thread::Builder::new()
        .name("kafka-resolve".into())
        .spawn(move || {
            let _ = found.send(name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        })
        .map_err(|error| error.to_string())?;
    match answer.recv_timeout(limit) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("name not resolved within {} ms", limit.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::control::Watch;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (Stream::Plain(near), listener.accept().expect("accept").0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    #[test]
    fn a_peer_that_trickles_bytes_does_not_extend_the_deadline() {
        let (mut near, mut far) = pair();
        let trickle = thread::spawn(move || {
            // Ends when the near side is closed.
            while far.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let (watch, deadline) = (Watch::start(), soon());
        let error = loop {
            if let Err(error) = near.read(&mut [0], deadline) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(watch.elapsed() >= Duration::from_millis(200));
        watch.assert_within(Duration::from_millis(1500), "the call");
        drop(near);
        trickle.join().expect("ended");
    }

    #[test]
    fn a_peer_that_takes_bytes_slowly_does_not_either() {
        let (mut near, mut far) = pair();
        let slow = thread::spawn(move || {
            while far.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let watch = Watch::start();
        let error = near.write_all(&vec![0; 64 << 20], soon()).expect_err("not so fast");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(watch.elapsed() >= Duration::from_millis(200));
        watch.assert_within(Duration::from_millis(1500), "the call");
        drop(near);
        slow.join().expect("ended");
    }
}
