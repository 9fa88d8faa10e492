//! Finds out whether the live page runs, to say where the run can be watched.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for each step; the page runs on this machine, or there is no hint.
const LIMIT: Duration = Duration::from_millis(200);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1024;

/// A line for the user if the live page answers at `address`.
pub fn where_to_watch(address: SocketAddr) -> Option<String> {
    let mut client = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    client.set_read_timeout(Some(LIMIT)).ok()?;
    client.set_write_timeout(Some(LIMIT)).ok()?;
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    client.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).ok()?;
    let is_ours = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nthe live page runs\n");
    is_ours.then(|| format!("👀 Watch it at http://{address}/\n"))
}
