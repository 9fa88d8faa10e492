//! Opens a TCP connection, bounded in time, name resolution included.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::transport::deadline::left;

/// Connects to `host` (host:port), trying its addresses in turn for at most `connect_timeout` each. One that does not
/// answer makes the host unusable, unless `passes_silent`: then all of them share the time.
///
/// # Errors
/// The cause, without the host.
pub fn connect(
    host: &str,
    connect_timeout: Duration,
    deadline: Instant,
    passes_silent: bool,
) -> Result<TcpStream, String> {
    let addresses = resolve(host, left(deadline).min(connect_timeout))?;
    connect_to(&addresses, connect_timeout, deadline, passes_silent)
}

fn connect_to(
    addresses: &[SocketAddr],
    connect_timeout: Duration,
    deadline: Instant,
    passes_silent: bool,
) -> Result<TcpStream, String> {
    let mut why = "the name has no address".to_owned();
    for (at, address) in addresses.iter().enumerate() {
        let mut limit = left(deadline).min(connect_timeout);
        if passes_silent {
            limit /= u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        }
        match TcpStream::connect_timeout(address, limit.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                why = format!("no answer from {address} within {} ms", limit.as_millis());
                if !passes_silent {
                    return Err(why);
                }
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A port whose queue of connections is full, so that the kernel does not answer.
    fn silent() -> (Socket, Vec<TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        socket.listen(0).expect("listen");
        let address = socket.local_addr().expect("address").as_socket().expect("an IP address");
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
        let waiting = (0..100).map_while(connect).collect();
        (socket, waiting, address)
    }

    #[test]
    fn a_silent_address_is_passed_over_if_the_caller_wants_that() {
        let (_socket, _waiting, silent) = silent();
        let good = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addresses = [silent, good.local_addr().expect("address")];
        let limit = Duration::from_secs(2);
        let connect = |passes_silent| connect_to(&addresses, limit, Instant::now() + limit, passes_silent);
        assert!(connect(false).is_err_and(|why| why.starts_with("no answer from")));
        let connected = connect(true).expect("the other one answers").peer_addr().expect("address");
        assert_eq!(connected, addresses[1]);
    }
}
