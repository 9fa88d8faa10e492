//! A small HTTP/1.1 client over a raw socket, so that tests decide each byte on the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Only against a test that hangs; what answers in time is judged by the tests.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The HTTP server that the tests use, as in `HTTP_SERVER`.
const GIVEN_SERVER: &str = "HTTP_SERVER_FOR_TESTS";

/// `HTTP_SERVER` for programs under test, if they shall not choose themselves.
pub fn given_server() -> Option<String> {
    std::env::var(GIVEN_SERVER).ok()
}

/// True if the server of our own is under test, not tiny_http.
pub fn is_on_edge() -> bool {
    given_server().is_some_and(|server| server == "edge")
}

/// One answer. Header names are lower case.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: status {}, body {:?}", self.status, self.text()))
    }
}

/// One kept-alive connection. Requests may be written ahead of reading the answers (pipelining).
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, TIMEOUT)?)
    }

    /// Connects from an address of ours, which may just have been used for another connection made this way; port 0
    /// takes a free one.
    pub fn connect_from(local: SocketAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The socket itself, for shutdown and odd timeouts.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Writes `bytes` as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Writes one request without reading its answer.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        self.send_raw(&request_bytes(method, path, headers, body))
    }

    /// Writes one request and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        self.send(method, path, headers, body)?;
        self.read_response()
    }

    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// Posts `body` as JSON to `/register_event`.
    pub fn post_event(&mut self, body: &[u8]) -> io::Result<Response> {
        self.request("POST", "/register_event", &[("Content-Type", "application/json")], body)
    }

    /// Reads one answer with a `Content-Length` or a chunked body; an interim one (100) is returned as it is.
    pub fn read_response(&mut self) -> io::Result<Response> {
        let line = self.read_line()?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut response = Response { status, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| io::Error::other("header without colon"))?;
            response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let has_body = status >= 200 && !matches!(status, 204 | 304);
        if has_body && response.header("transfer-encoding").is_some_and(|value| value == "chunked") {
            response.body = self.read_chunks()?;
        } else if has_body && let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            response.body = vec![0; length];
            self.reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads to the end of the stream: what came, if anything, before the server closed the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The same, but an error (a reset, or silence for too long) only ends it.
    pub fn read_what_comes(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.reader.read_exact(&mut body[start..])?;
            self.read_line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

/// The bytes of one request, with `Host` and, where there is a body or a POST, `Content-Length`.
pub fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    Client::connect(address)?.get(path)
}

/// One event on a connection of its own.
pub fn post_event(address: SocketAddr, body: &[u8]) -> io::Result<Response> {
    Client::connect(address)?.post_event(body)
}
