//! A stand-in for producer and consumer together: answers as a handler says and writes log lines.
//!
//! One thread a connection, so that nothing but the handler makes a client wait.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// What the handler answers.
pub enum Reply {
    /// Status, further header lines (each with its CRLF), body.
    Answer(u16, &'static str, String),
    /// The connection is cut in the middle of the answer, a 200.
    Cut,
    /// The connection is closed without an answer.
    Close,
}

/// A small HTTP server on a free port.
pub struct Double {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Double {
    /// Answers every request as `handler` says; it is given the body.
    pub fn start(handler: impl Fn(&[u8]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let (connections, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (handler, counter, stopped) = (Arc::new(handler), connections.clone(), stop.clone());
        let accepting = thread::spawn(move || {
            let mut serving = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let handler = handler.clone();
                serving.push(thread::spawn(move || serve(stream, &*handler)));
            }
            serving.into_iter().for_each(|thread| thread.join().expect("a handler panicked"));
        });
        Self { address, connections, stop, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/register_event", self.address)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let ended = self.accepting.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "a handler panicked");
    }
}

fn serve(stream: TcpStream, handler: &dyn Fn(&[u8]) -> Reply) {
    stream.set_nodelay(true).expect("nodelay");
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    while let Some(body) = read_request(&mut reader) {
        let (text, cut) = match handler(&body) {
            Reply::Answer(status, headers, body) => (
                format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()),
                false,
            ),
            Reply::Cut => ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"part".to_owned(), true),
            Reply::Close => (String::new(), true),
        };
        if (&stream).write_all(text.as_bytes()).is_err() || cut {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((_, value)) =
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// The event log as the consumer writes it, and the receipts as the producer gives them: one partition.
pub struct Log {
    file: Arc<Mutex<File>>,
    next_offset: AtomicI64,
}

impl Log {
    pub fn create(path: &Path) -> Arc<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path).expect("log");
        Arc::new(Self { file: Arc::new(Mutex::new(file)), next_offset: AtomicI64::new(0) })
    }

    /// Appends one event as its line and returns the answer with its receipt.
    pub fn append(&self, event: &[u8]) -> Reply {
        let mut file = self.file.lock().expect("log");
        file.write_all(log_line(event).as_bytes()).expect("append");
        self.receipt()
    }

    /// An answer with a receipt, for an event that is not written.
    pub fn receipt(&self) -> Reply {
        let offset = self.next_offset.fetch_add(1, Ordering::SeqCst);
        Reply::Answer(
            200,
            "",
            format!(r#"{{"status":"ok","topic":"events","partition":0,"offset":{offset}}}"#),
        )
    }

    /// Appends `bytes` when `delay` has passed.
    pub fn finish_later(&self, bytes: &'static [u8], delay: Duration) {
        let file = self.file.clone();
        thread::spawn(move || {
            thread::sleep(delay);
            file.lock().expect("log").write_all(bytes).expect("append");
        });
    }

    /// Appends bytes as they are.
    pub fn append_raw(&self, bytes: &[u8]) {
        self.file.lock().expect("log").write_all(bytes).expect("append");
    }
}

pub fn log_line(event: &[u8]) -> String {
    format!("2026-11-24 10:00:00,000 - {}\n", String::from_utf8_lossy(event))
}

/// The sequence number of an event.
pub fn seq_of(event: &[u8]) -> u64 {
    serde_json::from_slice::<Value>(event).expect("an event")["seq"].as_u64().expect("a number")
}
