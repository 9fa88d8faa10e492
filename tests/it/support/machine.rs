//! What all tests on this machine share: its ports, and its processors for large clusters.

use std::fs::File;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The ports of a cluster. No test of any process on this machine gets them as long as this one exists, so they stay
/// ours while the cluster's brokers are down.
pub struct Ports {
    pub first: u16,
    _reserved: UnixListener,
}

impl Ports {
    /// Ports below the ephemeral range that are free for a cluster of `count` brokers, at most five.
    pub fn reserve(count: usize) -> Self {
        loop {
            let first = 20_000 + 50 * fastrand::u16(0..240);
            let name =
                SocketAddr::from_abstract_name(format!("event-pipeline-tests-{first}")).expect("a name");
            let Ok(reserved) = UnixListener::bind_addr(&name) else { continue };
            let mut ports =
                (0..count as u16).flat_map(|index| (0..10).map(move |port| first + 10 * index + port));
            if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Self { first, _reserved: reserved };
            }
        }
    }
}

/// Waits until at most one other test on this machine uses a cluster of three: a dozen brokers at once on two cores
/// miss each other's deadlines.
pub fn turn_of_three() -> File {
    loop {
        for place in ["first", "second"] {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-of-three-{place}"));
            let place = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if place.try_lock().is_ok() {
                return place;
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}
