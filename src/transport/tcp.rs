//! Opens a TCP connection, bounded in time, name resolution included.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::transport::deadline::left;

/// Connects to `host` (host:port), trying its addresses in turn for at most `connect_timeout` each.
///
/// # Errors
/// The cause, without the host.
pub fn connect(host: &str, connect_timeout: Duration, deadline: Instant) -> Result<TcpStream, String> {
    let mut why = "the name has no address".to_owned();
    for address in resolve(host, left(deadline).min(connect_timeout))? {
        let limit = left(deadline).min(connect_timeout);
        match TcpStream::connect_timeout(&address, limit.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            // The kafka crate tries the same addresses with the kernel's own timeout of minutes. A silent
            // address ahead of a good one would block it, so it makes the host unusable.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(format!("no answer from {address} within {} ms", limit.as_millis()));
            }
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

/// Resolves the addresses of `host`, giving up on name servers after `limit`.
fn resolve(host: &str, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    if let Some((name, port)) = host.rsplit_once(':')
        && let (Ok(ip), Ok(port)) = (name.trim_matches(['[', ']']).parse::<IpAddr>(), port.parse())
    {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (found, answer) = mpsc::sync_channel(1);
    let name = host.to_owned();
    // The system's resolver has no timeout that we could set, so a stuck lookup is left to finish on its own.
    thread::Builder::new()
        .name("resolve".into())
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
