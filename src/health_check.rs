//! Asks a program that runs on this machine whether it is ready, for `--health`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::transport::{Until, left};

/// Longest time for the whole check.
const LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 16 << 10;
/// Every name that a program of ours checks includes this one.
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks `/readyz` of the program that listens on `listening`, the value of the setting `name`.
///
/// # Errors
/// One line that says why it is not ready, or why that cannot be known.
pub fn ask(name: &str, listening: SocketAddr) -> Result<(), String> {
    if listening.port() == 0 {
        return Err(format!("{name}={listening} is a different port in each process; set one to ask for"));
    }
    let address = reachable(listening);
    let answer = exchange(address).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            format!("{address} did not answer within {} s", LIMIT.as_secs())
        } else {
            format!("{address}: {error}")
        }
    })?;
    judge(&answer).map_err(|reason| format!("{address} is not ready: {reason}"))
}

/// Where a program that listens on `listening` can be reached from its own machine.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        named => named,
    };
    SocketAddr::new(loopback, listening.port())
}

/// The answer as far as it arrives in time; an error only if there is no status line.
fn exchange(address: SocketAddr) -> io::Result<String> {
    let deadline = Instant::now() + LIMIT;
    let stream = TcpStream::connect_timeout(&address, left(deadline))?;
    Until { socket: &stream, deadline }.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let read = Until { socket: &stream, deadline }.take(MAX_ANSWER_BYTES).read_to_end(&mut answer);
    match read {
        Err(error) if !answer.contains(&b'\n') => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Accepts an answer with status 200; otherwise says in one line what it was.
fn judge(answer: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct NotReady {
        message: String,
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let line = head.lines().next().unwrap_or_default();
    match line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()) {
        Some("200") => Ok(()),
        Some(status) => {
            let said = serde_json::from_str(body).map(|NotReady { message }| message);
            let said = said.unwrap_or_else(|_| body.to_owned());
            Err(format!("{status} {}", said.split_whitespace().collect::<Vec<_>>().join(" "))
                .trim()
                .to_owned())
        }
        None => Err("the answer is not HTTP/1.1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_the_machine_is_asked_over_loopback() {
        for (listening, asked) in [
            ("0.0.0.0:5000", "127.0.0.1:5000"),
            ("[::]:5000", "[::1]:5000"),
            ("10.0.0.7:5000", "10.0.0.7:5000"),
            ("127.0.0.1:5001", "127.0.0.1:5001"),
        ] {
            assert_eq!(reachable(listening.parse().expect("an address")).to_string(), asked);
        }
    }

    #[test]
    fn only_200_is_ready_and_the_reason_is_one_line() {
        let answer =
            |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\n{body}");
        assert_eq!(judge(&answer("200 OK", "ok\n")), Ok(()));
        assert_eq!(judge("HTTP/1.1 200 OK\r\nConte"), Ok(()), "the status has arrived");
        let body = crate::readiness::not_ready([("kafka", "timed\nout"), ("log", "disk full")]);
        let refused = judge(&answer("503 Service Unavailable", &body));
        assert_eq!(refused, Err("503 kafka: timed out; log: disk full".into()));
        assert_eq!(judge(&answer("404 Not Found", "")), Err("404".into()));
        assert_eq!(judge(&answer("403 Forbidden", "not\r\nhere\n")), Err("403 not here".into()));
        for nonsense in ["", "SSH-2.0-x\r\n", "HTTP/1.1\r\n\r\n"] {
            assert_eq!(judge(nonsense), Err("the answer is not HTTP/1.1".into()), "{nonsense:?}");
        }
    }
}
