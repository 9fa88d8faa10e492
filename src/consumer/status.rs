//! Serves `/metrics`, `/livez`, `/readyz` and `/version` of the consumer: one thread, one request at a time.
//!
//! Each client gets at most [`CLIENT_LIMIT`], so a silent client cannot block the next one. Uses only std.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::consumer::state::{State, now_seconds};
use crate::metrics::CONTENT_TYPE;
use crate::readiness::not_ready;
use crate::thread::spawn;

/// Longest time for one client, from accept to the last byte.
const CLIENT_LIMIT: Duration = Duration::from_millis(500);
/// Longest request head.
const HEAD_MAX_BYTES: usize = 8192;
/// Wait after a failed accept, for example with too many open files, because it would fail again at once.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
const JSON: &str = "application/json";

/// The running server. Dropping it ends the thread.
pub struct StatusPage {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StatusPage {
    /// Starts serving on `listener`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(listener: TcpListener, state: Arc<State>) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let thread = spawn("status", move || {
            while !flag.load(Ordering::SeqCst) {
                match listener.accept() {
                    // Errors of a client, such as a disconnect or a malformed request, are ignored.
                    Ok((client, _)) => drop(serve(client, &state)),
                    Err(_) => thread::sleep(ACCEPT_WAIT),
                }
            }
        })?;
        Ok(Self { addr, ended, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for StatusPage {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let mut wake = self.addr;
        if wake.ip().is_unspecified() {
            wake.set_ip(if wake.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() });
        }
        let woken = TcpStream::connect_timeout(&wake, CLIENT_LIMIT);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn serve(mut client: TcpStream, state: &State) -> io::Result<()> {
    let deadline = Instant::now() + CLIENT_LIMIT;
    client.set_write_timeout(Some(CLIENT_LIMIT))?;
    let head = read_head(&mut client, deadline)?;
    let (status, content_type, body) = answer(&head, state);
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

fn answer(head: &str, state: &State) -> (&'static str, &'static str, String) {
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return (
            "405 Method Not Allowed\r\nAllow: GET, HEAD",
            JSON,
            json!({"error": "method_not_allowed"}).to_string(),
        );
    }
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => {
            let metrics = &state.metrics;
            let covered_at = metrics.checkpoint_time.get();
            metrics.checkpoint_age.set(if covered_at > 0.0 { now_seconds() - covered_at } else { 0.0 });
            ("200 OK", CONTENT_TYPE, metrics.registry.render())
        }
        "/livez" | "/health" => ("200 OK", JSON, json!({"status": "ok"}).to_string()),
        "/readyz" | "/ready" | "/healthz" => {
            let problems = state.problems();
            if problems.is_empty() {
                ("200 OK", JSON, json!({"status": "ok"}).to_string())
            } else {
                let listed = problems.iter().map(|(what, message)| (what.as_str(), message.as_str()));
                ("503 Service Unavailable\r\nRetry-After: 1", JSON, not_ready(listed))
            }
        }
        "/version" => {
            let body = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
            ("200 OK", JSON, body.to_string())
        }
        _ => ("404 Not Found", JSON, json!({"error": "not_found"}).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Watch;

    fn get(addr: SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(addr).expect("connect");
        client.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answer");
        answer
    }

    fn page() -> (StatusPage, Arc<State>) {
        let state = Arc::new(State::new());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        (StatusPage::start(listener, state.clone()).expect("started"), state)
    }

    #[test]
    fn ready_follows_the_problems_and_live_does_not() {
        let (page, state) = page();
        assert!(get(page.addr(), "GET /readyz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
        state.problem("log", "No space left on device");
        let answer = get(page.addr(), "GET /readyz HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("No space left"), "{answer}");
        for path in ["/livez", "/health"] {
            let answer = get(page.addr(), &format!("GET {path} HTTP/1.1\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "a supervisor must not restart us: {answer}");
        }
        assert!(
            get(page.addr(), "GET /metrics HTTP/1.1\r\n\r\n").contains("pipeline_consumer_records_total 0")
        );
        assert!(get(page.addr(), "GET /nothing HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(get(page.addr(), "POST /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn silent_clients_and_nonsense_do_not_stop_the_next() {
        let (page, _) = page();
        let _silent = TcpStream::connect(page.addr()).expect("connect");
        let mut huge = TcpStream::connect(page.addr()).expect("connect");
        let _ = huge.write_all(&[b'x'; 20_000]);
        let watch = Watch::start();
        assert!(get(page.addr(), "GET /livez HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        watch.assert_within(CLIENT_LIMIT * 4, "an answer");
    }
}
