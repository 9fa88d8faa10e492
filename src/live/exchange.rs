//! Reads the head of a request, and writes an answer that ends the connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::Request;

use crate::transport::Until;

/// Longest request head.
const MAX_HEAD_BYTES: usize = 8192;
/// Longest time to write an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Longest time, and most blocks, for what a client still sends after its answer.
const REST_LIMIT: Duration = Duration::from_millis(500);
const MAX_REST_BLOCKS: usize = 64;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Code and reason.
    pub status: &'static str,
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    /// A sentence for people.
    pub fn text(status: &'static str, sentence: &str) -> Self {
        let body = format!("{sentence}\n");
        Self { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body }
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes it, and ends the connection. What fails is the client's loss.
    pub fn send(&self, client: &TcpStream) {
        if self.write(client, WRITE_LIMIT).is_err() || client.shutdown(Shutdown::Write).is_err() {
            return;
        }
        // The system would drop an answer that was not read yet if there were still bytes of the client.
        let mut until = Until { socket: client, deadline: Instant::now() + REST_LIMIT };
        let mut block = [0; 4096];
        for _ in 0..MAX_REST_BLOCKS {
            if !until.read(&mut block).is_ok_and(|count| count > 0) {
                break;
            }
        }
    }

    /// Writes it within `limit`.
    ///
    /// # Errors
    /// Any error of the socket; `TimedOut` after `limit`.
    pub fn write(&self, client: &TcpStream, limit: Duration) -> io::Result<()> {
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text += &self.body;
        Until { socket: client, deadline: Instant::now() + limit }.write_all(text.as_bytes())
    }
}

/// Reads a request without a body until `deadline`.
///
/// # Errors
/// The answer to what is not such a request; `None` if the client is gone or silent.
pub fn read_request(client: &TcpStream, deadline: Instant) -> Result<Request, Option<Reply>> {
    let mut until = Until { socket: client, deadline };
    let (mut head, mut block) = (Vec::new(), [0; 2048]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match until.read(&mut block) {
            Ok(count @ 1..) => head.extend_from_slice(&block[..count]),
            Ok(0) | Err(_) => return Err(None),
        }
        if head.len() > MAX_HEAD_BYTES {
            return Err(Some(Reply::text(
                "431 Request Header Fields Too Large",
                "the request head is too long",
            )));
        }
    }
    parse(&head).map_err(Some)
}

fn parse(head: &[u8]) -> Result<Request, Reply> {
    match Request::try_parse(head) {
        Ok(Some((length, request))) if length == head.len() => Ok(request),
        Ok(Some(_)) => Err(Reply::text("400 Bad Request", "there is something after the request head")),
        Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => {
            Err(Reply::text("405 Method Not Allowed", "only GET is served").with("Allow", "GET"))
        }
        Err(Error::Protocol(ProtocolError::WrongHttpVersion)) => {
            Err(Reply::text("505 HTTP Version Not Supported", "only HTTP/1.1 is served"))
        }
        Ok(None) | Err(_) => Err(Reply::text("400 Bad Request", "this is not an HTTP request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_without_a_body_is_a_request() {
        let request = parse(b"GET /ws?a=b HTTP/1.1\r\nHost: localhost:5002\r\n\r\n").expect("a request");
        assert_eq!((request.uri().path(), request.uri().query()), ("/ws", Some("a=b")));
        assert_eq!(request.headers()["host"], "localhost:5002");
        for (head, status) in [
            (&b"POST / HTTP/1.1\r\n\r\n"[..], "405"),
            (b"GET / HTTP/1.0\r\n\r\n", "505"),
            (b"GET / HTTP/1.1\r\n\r\nmore", "400"),
            (b"nonsense\r\n\r\n", "400"),
            (b"\x16\x03\x01\r\n\r\n", "400"),
        ] {
            let refused = parse(head).expect_err(status);
            assert!(refused.status.starts_with(status), "{refused:?}");
        }
    }
}
