//! The byte stream of one connection, plain or TLS. Each call has a deadline that a trickle of bytes cannot
//! extend.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::transport::deadline::left;

/// A connected socket, with its TLS session if there is one.
pub trait Transport: Send {
    /// Writes all of `parts`, which are used up, one after the other.
    ///
    /// # Errors
    /// Any error of the socket or of TLS; `TimedOut` at `deadline`. [`Refused`] if one side does not accept
    /// the other.
    fn send(&mut self, parts: &mut [IoSlice<'_>], deadline: Instant) -> io::Result<()>;

    /// Reads the bytes that are available, waiting for the first one; returns 0 at the end of the stream.
    ///
    /// # Errors
    /// As for [`Transport::send`].
    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize>;

    /// The underlying socket. No bytes of TLS itself may be pending on it between two calls.
    fn socket(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn send(&mut self, parts: &mut [IoSlice<'_>], deadline: Instant) -> io::Result<()> {
        write_parts(&mut Until { socket: self, deadline }, parts)
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        Until { socket: self, deadline }.read(buffer)
    }

    fn socket(&self) -> &TcpStream {
        self
    }
}

/// Writes all of `parts`, as `write_all` does for one.
///
/// # Errors
/// Any error of `writer`.
pub fn write_parts(writer: &mut impl Write, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Skips empty parts.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match writer.write_vectored(parts)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => IoSlice::advance_slices(&mut parts, count),
        }
    }
    Ok(())
}

/// Why one side does not accept the other: the payload of an `io::Error`. No retry helps until a setting or
/// the server is changed.
#[derive(Debug)]
pub struct Refused(pub String);

impl Refused {
    /// The reason, if `error` has one as its payload.
    pub fn reason(error: &io::Error) -> Option<&str> {
        error.get_ref()?.downcast_ref().map(|Self(why)| why.as_str())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
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
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            self.socket.set_write_timeout(self.limit()?)?;
            match self.socket.write_vectored(parts) {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::control::Watch;

    fn pair() -> (Box<dyn Transport>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (Box::new(near), listener.accept().expect("accept").0)
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
            if let Err(error) = near.receive(&mut [0], deadline) {
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
    fn parts_arrive_in_order_however_little_is_written_at_a_time() {
        struct Slow(Vec<u8>);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend_from_slice(&bytes[..bytes.len().min(3)]);
                Ok(bytes.len().min(3))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut slow, texts) = (Slow(Vec::new()), ["", "a", "bcdefgh", "", "ij", ""]);
        write_parts(&mut slow, &mut texts.map(|text| IoSlice::new(text.as_bytes()))).expect("written");
        assert_eq!(slow.0, texts.concat().as_bytes());
        write_parts(&mut slow, &mut []).expect("nothing to write");
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
        let error = near.send(&mut [IoSlice::new(&vec![0; 64 << 20])], soon()).expect_err("not so fast");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(watch.elapsed() >= Duration::from_millis(200));
        watch.assert_within(Duration::from_millis(1500), "the call");
        drop(near);
        slow.join().expect("ended");
    }
}
