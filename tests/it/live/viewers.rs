//! What viewers can do to the live page and to each other: nothing.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use tungstenite::Message;

use crate::live::{Live, serve};
use crate::support::wait::{eventually, eventually_some, secs};

/// Most memory of the whole program.
const MAX_BYTES: u64 = 32 << 20;
const MAX_VIEWERS: usize = 64;

fn assert_small(live: &Live) {
    let size = live.program.size();
    assert!(size.resident_bytes < MAX_BYTES, "{size:?}");
}

/// Threads and descriptors, once the connections that end are gone.
fn wait_back_to(live: &Live, threads: u64, files: u64) {
    eventually(secs(120), "threads and descriptors of viewers are given back", || {
        // A visit that has ended is cleared away by the next one.
        let _ = live.ask("/livez", &[]);
        let size = live.program.size();
        size.threads <= threads + 1 && size.open_fds <= files + 2
    });
}

/// A connection whose kernel holds as little as possible for a reader that does not read.
fn connect_small(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2048).expect("set");
    socket.connect(&address.into()).expect("connects");
    socket.into()
}

#[test]
fn the_65th_viewer_is_refused_until_one_leaves_and_all_see_the_same() {
    let live = serve(&[]);
    let mut viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| live.viewer()).collect();
    let refused = || live.try_viewer(TcpStream::connect(live.address).expect("connects")).err();
    assert_eq!(refused(), Some(503));
    assert_eq!(live.ask("/", &[]).status, 200, "the page itself");
    let latest = viewers.iter_mut().map(|viewer| viewer.next()["number"].as_u64().expect("a number")).max();
    for viewer in &mut viewers {
        let mut number = 0;
        while Some(number) < latest {
            number = viewer.next()["number"].as_u64().expect("a number");
        }
    }
    assert_small(&live);
    drop(viewers.pop());
    eventually(secs(60), "the seat is free again", || refused().is_none());
}

#[test]
fn a_viewer_that_never_reads_is_ended_and_the_others_miss_nothing() {
    let live = serve(&[]);
    let before = live.program.size();
    let silent: Vec<_> = (0..8)
        .map(|_| live.try_viewer(connect_small(live.address)).unwrap_or_else(|status| panic!("{status}")))
        .collect();
    let mut viewer = live.viewer();
    let mut number = viewer.next()["number"].as_u64().expect("a number");
    eventually(secs(180), "those that answer no ping are ended", || {
        let next = viewer.next();
        assert_eq!(next["number"].as_u64(), Some(number + 1), "none is missed: {next}");
        number += 1;
        assert_small(&live);
        let _ = live.ask("/livez", &[]);
        // The one that reads is left, and what a visit needs for a moment.
        live.program.size().threads <= before.threads + 2
    });
    drop(silent);
}

#[test]
fn large_and_many_messages_end_their_viewer_only() {
    let live = serve(&[]);
    let mut other = live.viewer();
    other.next();
    let mut large = live.viewer();
    // The other side may end before all of it is sent.
    let _ = large.socket.send(Message::Binary(vec![0_u8; 1 << 20].into()));
    large.wait_ended(secs(60));
    let mut many = live.viewer();
    for _ in 0..10_000 {
        if many.socket.send(Message::Text("hello".into())).is_err() {
            break;
        }
    }
    many.wait_ended(secs(60));
    let mut small = live.viewer();
    small.socket.send(Message::Text("hello".into())).expect("sent");
    small.socket.send(Message::Ping("x".into())).expect("sent");
    for _ in 0..3 {
        small.next();
        other.next();
    }
    assert_small(&live);
}

#[test]
fn a_thousand_reconnects_leave_nothing_behind() {
    let live = serve(&[]);
    let connect = |count: usize| {
        for index in 0..count {
            // Every fourth one leaves without a word, before its first snapshot.
            // Seats of those that left are free within a moment.
            let mut viewer = eventually_some(secs(60), "a seat", || {
                live.try_viewer(TcpStream::connect(live.address).expect("connects")).ok()
            });
            if index % 4 > 0 {
                viewer.next();
                let _ = viewer.socket.close(None);
            }
        }
    };
    let before = live.program.size();
    connect(100);
    wait_back_to(&live, before.threads, before.open_fds);
    let warm = live.program.size();
    connect(1000);
    wait_back_to(&live, before.threads, before.open_fds);
    let after = live.program.size();
    assert!(after.resident_bytes < warm.resident_bytes + (4 << 20), "{warm:?} {after:?}");
    assert_small(&live);
}

#[test]
fn viewers_are_told_when_the_page_stops() {
    let mut live = serve(&[]);
    let mut viewer = live.viewer();
    viewer.next();
    let silent = TcpStream::connect(live.address).expect("connects");
    let status = live.program.terminate(secs(60));
    assert!(status.success(), "{status}");
    viewer.wait_ended(secs(10));
    drop(silent);
}
