//! One broker, harmed: killed, stopped, cut off, silent, or not Kafka at all. Limits hold and no receipt lies.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use event_pipeline::broker::{BrokerError, Receipt, Sink, Source, open_source};

use super::{
    assert_all_retryable, config, from_start, numbered, plain_sink, send, send_all, sink_to, source_of,
    within,
};
use crate::support::kafka::{Cluster, shared};
use crate::support::proxy::{Direction, Mode, Proxy};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const PRODUCE: i16 = 0;
const LIMIT: Duration = Duration::from_secs(1);

/// Each receipt's place holds its value.
#[track_caller]
fn assert_true(topic: &Topic, acknowledged: &[(String, Receipt)]) {
    let stored: HashMap<(i32, i64), String> = topic
        .records()
        .into_iter()
        .map(|record| ((record.partition, record.offset), record.text().to_owned()))
        .collect();
    for (value, receipt) in acknowledged {
        assert_eq!(stored.get(&(receipt.partition, receipt.offset)), Some(value), "{receipt:?}");
    }
}

#[test]
fn a_broker_killed_stopped_and_continued_costs_no_acknowledged_record() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let mut sink = sink_to(&cluster.brokers(), &topic);
    let mut source = source_of(&topic);
    let mut acknowledged = Vec::new();
    // A broker that was away for longer than its session is not the leader at once.
    let mut deliver = |sink: &mut _, prefix: &str| {
        let mut open = numbered(prefix, 50);
        eventually(secs(60), "all are acknowledged", || {
            let outcomes = send(sink, &open, secs(10));
            let (done, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut open).into_iter().zip(outcomes).partition(|(_, outcome)| outcome.is_ok());
            acknowledged.extend(done.into_iter().map(|(value, outcome)| (value, outcome.expect("receipt"))));
            open = left.into_iter().map(|(value, _)| value).collect();
            open.is_empty()
        });
    };
    deliver(&mut sink, "before ");
    source.fetch(&from_start(3)).expect("fetched");

    cluster.pause(1);
    for _ in 0..2 {
        assert_all_retryable(&within(LIMIT, || send(&mut sink, &["paused"], LIMIT)));
        let error = within(LIMIT, || sink.probe(LIMIT)).expect_err("paused");
        assert!(error.is_retryable() && error.to_string().contains(cluster.address(1)), "{error}");
    }
    let error = within(secs(5) + LIMIT, || source.fetch(&from_start(3))).expect_err("paused");
    assert!(error.is_retryable(), "{error}");
    cluster.resume(1);
    eventually(secs(2), "ready again after SIGCONT", || sink.probe(LIMIT).is_ok());
    deliver(&mut sink, "continued ");

    cluster.kill(1);
    assert_all_retryable(&within(LIMIT, || send(&mut sink, &["dead"], LIMIT)));
    let error = within(LIMIT, || sink.probe(LIMIT)).expect_err("dead");
    assert!(error.is_retryable() && error.to_string().contains(cluster.address(1)), "{error}");
    assert!(source.fetch(&from_start(3)).is_err_and(|error| error.is_retryable()));
    cluster.restart(1);
    eventually(secs(60), "ready again after a restart", || sink.probe(LIMIT).is_ok());
    // Keyless records need one leader only, so the others may still be taking their role.
    topic.count();
    deliver(&mut sink, "restarted ");

    assert_true(&topic, &acknowledged);
    let mut read = 0;
    let mut positions = from_start(3);
    eventually(secs(60), "all is read", || {
        for answer in source.fetch(&positions).into_iter().flatten() {
            let page = answer.page.expect("a page");
            read += page.len();
            positions[answer.partition as usize].offset = page.next_offset;
        }
        read >= topic.count()
    });
    assert_eq!(read, topic.count());
}

#[test]
fn a_restart_while_nothing_is_sent_is_not_even_noticed() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let mut sink = sink_to(&cluster.brokers(), &topic);
    send_all(&mut sink, &["before"]);
    cluster.stop(1);
    cluster.restart(1);
    assert_eq!(topic.count(), 1, "its leaders are back");
    send_all(&mut sink, &["after"]);
    assert_eq!(topic.count(), 2, "no retry, so nothing twice");
}

#[test]
fn a_connection_cut_in_a_request_or_a_reply_gives_no_false_receipt() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let mut sink = sink_to(&proxy.address().to_string(), &topic);
    let mut acknowledged = Vec::new();
    for round in 0..10 {
        let values = numbered(&format!("round {round} "), 200);
        match round % 5 {
            1 => proxy.cut_after(Direction::Request, 1000),
            2 => proxy.cut_after(Direction::Reply, 6),
            3 => proxy.lose_replies(PRODUCE, 1),
            4 => proxy.cut(),
            _ => {}
        }
        let outcomes = within(LIMIT, || send(&mut sink, &values, LIMIT));
        if (1..4).contains(&(round % 5)) {
            assert_all_retryable(&outcomes);
        }
        acknowledged.extend(values.into_iter().zip(outcomes).filter_map(|(value, o)| Some((value, o.ok()?))));
    }
    assert_eq!(acknowledged.len(), 4 * 200, "whole rounds, and a cut between two is healed before the next");
    assert_true(&topic, &acknowledged);
}

#[test]
fn a_stalled_connection_keeps_the_limit_and_its_late_reply_is_not_taken_for_another() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let mut sink = sink_to(&proxy.address().to_string(), &topic);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let first = format!("first of round {round}");
        acknowledged.push((first.clone(), send_all(&mut sink, &[first])[0]));
        proxy.set(Mode::Stall);
        let large = vec![vec![b'x'; 100_000]; 80];
        assert_all_retryable(&within(LIMIT, || send(&mut sink, &large, LIMIT)));
        assert!(within(LIMIT, || sink.probe(LIMIT)).is_err());
        proxy.set(Mode::Forward);
        let second = format!("second of round {round}");
        acknowledged.push((second.clone(), send_all(&mut sink, &[second])[0]));
    }
    assert_true(&topic, &acknowledged);
}

#[test]
fn a_network_that_swallows_everything_keeps_the_limit() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let address = proxy.address().to_string();
    let mut sink = sink_to(&address, &topic);
    let mut source = open_source(&config(&address, &topic.name)).expect("a thread");
    send_all(&mut sink, &["before"]);
    source.fetch(&from_start(3)).expect("fetched");
    proxy.set(Mode::Blackhole);
    let short = Duration::from_millis(300);
    for _ in 0..3 {
        assert_all_retryable(&within(short, || send(&mut sink, &["lost"], short)));
        assert!(within(short, || sink.probe(short)).is_err());
    }
    within(secs(6), || source.fetch(&from_start(3))).expect_err("blackholed");
    within(secs(6), || source.commit("group", &from_start(3), "")).expect_err("blackholed");
    proxy.cut();
    proxy.set(Mode::Forward);
    send_all(&mut sink, &["after"]);
    source.fetch(&from_start(3)).expect("fetched");
}

#[test]
fn hosts_are_tried_in_turn_past_a_refusing_a_silent_and_an_unreachable_one() {
    let topic = shared().topic();
    let refusing = free_address();
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (unreachable, _full) = full_listener();
    let silent = silent.local_addr().expect("address");
    let brokers = format!("{refusing},{silent},{unreachable},nowhere.invalid:9092,{}", shared().brokers());
    let mut sink = sink_to(&brokers, &topic);
    send_all(&mut sink, &["found"]);
    assert_eq!(topic.count(), 1);
}

#[test]
fn an_unreachable_address_keeps_the_limit_and_is_named() {
    let (address, _full) = full_listener();
    let mut sink = plain_sink(&config(&address.to_string(), "events"));
    let error = within(LIMIT, || sink.probe(LIMIT)).expect_err("unreachable");
    assert!(error.is_retryable() && error.to_string().contains(&address.to_string()), "{error}");
    let error = within(LIMIT, || send(&mut sink, &["x"], LIMIT)).remove(0).expect_err("unreachable");
    assert!(error.to_string().contains("no answer from"), "{error}");
}

#[test]
fn what_is_not_kafka_is_an_error_and_never_a_panic() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x00\x00\x04\x00\x00\x00\x63",
        b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x7f\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"",
    ] {
        let address = serve(garbage);
        let mut sink = plain_sink(&config(&address.to_string(), "events"));
        let error = within(LIMIT, || sink.probe(LIMIT)).expect_err("garbage");
        let text = error.to_string();
        assert!(matches!(error, BrokerError::Retryable(_)) && text.contains(&address.to_string()), "{text}");
        assert!(!text.contains("failed to fill whole buffer"), "{text}");
    }
}

#[test]
fn threads_and_sockets_end_with_their_owner() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let address = proxy.address();
    let ours = || {
        let mut locals = HashSet::new();
        event_pipeline::sockets::for_each_connection(|_, local, peer| {
            if peer == address {
                locals.insert(local);
            }
        });
        locals.len()
    };
    for _ in 0..20 {
        let mut sink = sink_to(&address.to_string(), &topic);
        send_all(&mut sink, &["x"]);
        proxy.cut();
        send_all(&mut sink, &["y"]);
        assert!(ours() <= 2, "one for records, one for the rest");
    }
    assert_eq!(ours(), 0);
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address")
}

/// An address whose SYNs are dropped: its queue of connections is full.
fn full_listener() -> (SocketAddr, Vec<socket2::Socket>) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("address").as_socket().expect("IPv4");
    let mut keep = vec![listener];
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < secs(60), "the queue is never full");
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        if socket.connect_timeout(&address.into(), Duration::from_millis(200)).is_err() {
            return (address, keep);
        }
        keep.push(socket);
    }
}

/// Answers every connection with `bytes` and closes it.
fn serve(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.expect("accept");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

/// The reader looks at a shutdown only between calls.
#[test]
fn a_silent_broker_holds_up_a_follow_no_longer_than_a_fetch() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic_with(24, &[]);
    let mut source = source_of(&topic);
    let trails = event_pipeline::broker::Trails::new();
    source.follow(&from_start(24), &trails).expect("followed");
    cluster.pause(1);
    let mut took = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        source.fetch(&from_start(24)).expect_err("paused");
        took.push(("fetch", began.elapsed()));
    }
    for _ in 0..2 {
        let began = Instant::now();
        source.follow(&from_start(24), &trails).expect_err("paused");
        took.push(("follow", began.elapsed()));
    }
    cluster.resume(1);
    assert!(took.iter().all(|(_, took)| *took < secs(8)), "{took:?}");
}
