//! Serves the pages of a program that has no HTTP server of its own: one thread, one request at a time.
//!
//! Each client gets at most 500 ms, so a silent client cannot block the next one. Uses only std.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::acceptor::Acceptor;

/// Longest time for one client, from accept to the last byte.
const CLIENT_LIMIT: Duration = Duration::from_millis(500);
/// Longest request head.
const HEAD_MAX_BYTES: usize = 8192;

/// The answer to a request.
#[derive(Debug)]
pub struct Page {
    /// Status code and reason; headers of its own may follow, each after a line break.
    pub status: &'static str,
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// The content, left out for `HEAD`.
    pub body: String,
}

impl Page {
    /// A page of JSON.
    pub fn json(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type: "application/json", body: body.into() }
    }
}

/// The running server. Dropping it ends the thread.
pub struct StatusPage {
    acceptor: Acceptor,
}

impl StatusPage {
    /// Starts serving on `listener` what `page` returns for the path of a `GET` or `HEAD`; `None` is answered 404.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        listener: TcpListener,
        page: impl Fn(&str) -> Option<Page> + Send + 'static,
    ) -> io::Result<Self> {
        // Errors of a client, such as a disconnect or a malformed request, are ignored.
        let serve = move |client| drop(serve(client, &page));
        Ok(Self { acceptor: Acceptor::start("status", listener, serve)? })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.acceptor.addr()
    }
}

fn serve(mut client: TcpStream, page: impl Fn(&str) -> Option<Page>) -> io::Result<()> {
    let deadline = Instant::now() + CLIENT_LIMIT;
    client.set_write_timeout(Some(CLIENT_LIMIT))?;
    let head = read_head(&mut client, deadline)?;
    let Page { status, content_type, body } = answer(&head, page);
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let body = if head.starts_with("HEAD ") { "" } else { &body };
    let mut unsent = &*[text.as_bytes(), body.as_bytes()].concat();
    while !unsent.is_empty() {
        client.set_write_timeout(Some(left(deadline)?))?;
        let sent = client.write(unsent)?;
        unsent = &unsent[sent..];
    }
    client.shutdown(Shutdown::Write)
}

fn read_head(client: &mut TcpStream, deadline: Instant) -> io::Result<String> {
    let mut head = Vec::new();
    let mut block = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        client.set_read_timeout(Some(left(deadline)?))?;
        match client.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&block[..n]),
        }
        if head.len() > HEAD_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn answer(head: &str, page: impl Fn(&str) -> Option<Page>) -> Page {
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        let status = "405 Method Not Allowed\r\nAllow: GET, HEAD";
        return Page::json(status, r#"{"error":"method_not_allowed"}"#);
    }
    page(target.split('?').next().unwrap_or_default())
        .unwrap_or_else(|| Page::json("404 Not Found", r#"{"error":"not_found"}"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Watch;

    fn get(page: &StatusPage, request: &str) -> String {
        let mut client = TcpStream::connect(page.addr()).expect("connect");
        client.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answer");
        answer
    }

    fn started() -> StatusPage {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let page = |path: &str| (path == "/livez").then(|| Page::json("200 OK", "{}"));
        StatusPage::start(listener, page).expect("started")
    }

    #[test]
    fn only_get_and_head_of_known_paths_are_answered() {
        let page = started();
        let answer = get(&page, "GET /livez?verbose HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n{}"), "{answer}");
        let head = get(&page, "HEAD /livez HTTP/1.1\r\n\r\n");
        assert_eq!(head, answer.strip_suffix("{}").expect("the same without the body"));
        assert!(get(&page, "GET /nothing HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(get(&page, "POST /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn silent_clients_and_nonsense_do_not_stop_the_next() {
        let page = started();
        let _silent = TcpStream::connect(page.addr()).expect("connect");
        let mut huge = TcpStream::connect(page.addr()).expect("connect");
        let _ = huge.write_all(&[b'x'; 20_000]);
        let watch = Watch::start();
        assert!(get(&page, "GET /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        watch.assert_within(CLIENT_LIMIT * 4, "an answer");
    }
}
