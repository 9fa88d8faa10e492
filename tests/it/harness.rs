//! The tests' own tools, tested: a tool that cannot see a fault would make every other test worthless.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::admin;
use crate::support::http::{Client, request_bytes};
use crate::support::kafka::{Cluster, shared};
use crate::support::process::{Program, died_of};
use crate::support::proxy::{Direction, Mode, Proxy};
use crate::support::wait::{eventually, secs};

#[test]
fn kcat_reads_back_what_it_wrote_byte_by_byte() {
    let topic = shared().topic();
    topic.kcat(&["-P", "-p", "2", "-K", ":", "-Z"], b"key:a\nb\nempty-becomes-null:\n");
    let records = topic.records();
    assert_eq!(records.len(), 3);
    assert!(records.iter().enumerate().all(|(index, record)| record.offset == index as i64));
    assert!(records.iter().all(|record| record.partition == 2 && record.timestamp_ms > 1_600_000_000_000));
    assert_eq!((records[0].key.as_deref(), records[0].text()), (Some(&b"key"[..]), "a"));
    assert_eq!((&records[1].key, records[1].text()), (&None, "b"));
    assert_eq!(records[2].value, None);
    assert_eq!((topic.end_offset(2), topic.end_offset(0), topic.count()), (3, 0, 3));
}

#[test]
fn a_topic_can_be_limited_widened_and_deleted() {
    let topic = shared().topic_with(1, &[("max.message.bytes", "1000")]);
    let refuses = |bytes: usize| {
        let arguments = ["-P", "-X", "message.timeout.ms=3000"];
        std::panic::catch_unwind(|| topic.kcat(&arguments, &vec![b'x'; bytes])).is_err()
    };
    assert!(refuses(2000));
    topic.alter("max.message.bytes", "10000");
    eventually(secs(60), "the setting is in force", || !refuses(2000));
    topic.add_partitions(4);
    assert_eq!(topic.metadata().partitions.len(), 4);
    topic.delete();
}

#[test]
fn one_broker_of_three_can_die_and_come_back() {
    let cluster = Cluster::start(3);
    let topic = cluster.topic();
    topic.kcat(&["-P"], b"before\n");
    let leader = topic.metadata().partitions[0].leader;
    cluster.kill(leader as usize);
    assert!(admin::metadata(cluster.address(leader as usize), &topic.name).is_err());
    eventually(secs(60), "another leader", || {
        let now = topic.metadata().partitions[0].leader;
        now >= 0 && now != leader
    });
    cluster.restart(leader as usize);
    eventually(secs(60), "in sync again", || topic.metadata().partitions[0].in_sync.len() == 3);
    assert_eq!(topic.records().len(), 1);
}

#[test]
fn a_paused_broker_is_silent_and_goes_on() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    cluster.pause(1);
    let mut stream = TcpStream::connect(cluster.address(1)).expect("the kernel still accepts");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).expect("write");
    assert!(stream.read(&mut [0; 1]).is_err(), "a paused broker answered");
    cluster.resume(1);
    assert_eq!(topic.count(), 0);
    cluster.stop(1);
    assert!(admin::metadata(cluster.address(1), &topic.name).is_err());
}

#[test]
fn clients_stay_behind_the_proxies_of_a_cluster() {
    let topic = shared().topic();
    let proxies = Proxy::kafka(&topic.brokers());
    let behind = proxies[0].address().to_string();
    topic.kcat(&["-P", "-b", &behind], b"event\n");
    let metadata = admin::metadata(&behind, &topic.name).expect("metadata");
    let told: Vec<&String> = metadata.brokers.values().collect();
    assert!(told.contains(&&behind), "{told:?}");
    assert!(told.iter().all(|address| !topic.brokers().contains(*address)));
}

#[test]
fn a_lost_reply_was_still_written() {
    let topic = shared().topic_with(1, &[]);
    let proxies = Proxy::kafka(&topic.brokers());
    proxies[0].lose_replies(admin::PRODUCE, 1);
    // Without another broker to turn to, kcat gives up at the cut.
    let behind = proxies[0].address().to_string();
    let outcome =
        std::panic::catch_unwind(|| topic.kcat(&["-P", "-b", &behind, "-X", "acks=all"], b"event\n"));
    assert!(outcome.is_err(), "the reply arrived");
    assert_eq!(proxies[0].replies_to_lose(), 0);
    assert_eq!(topic.records()[0].text(), "event");
}

/// Sends every byte back.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut back = stream.try_clone().expect("clone");
                std::io::copy(&mut stream, &mut back)
            });
        }
    });
    address
}

fn behind(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("connect");
    stream.set_read_timeout(Some(secs(60))).expect("timeout");
    stream
}

/// Nothing of `bytes` comes back for a while.
fn is_silent_for(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    stream.write_all(bytes).expect("write");
    let silent = stream.read(&mut [0; 4]).is_err();
    stream.set_read_timeout(Some(secs(60))).expect("timeout");
    silent
}

#[test]
fn the_proxy_stalls_slows_swallows_and_refuses() {
    let proxy = Proxy::tcp(echo_server());
    let mut stream = behind(&proxy);
    let echoed = |stream: &mut TcpStream, bytes: &[u8; 4]| {
        let mut back = [0; 4];
        stream.write_all(bytes).is_ok() && stream.read_exact(&mut back).is_ok() && back == *bytes
    };
    assert!(echoed(&mut stream, b"open"));
    proxy.set(Mode::Delay(Duration::from_millis(60)));
    let start = Instant::now();
    assert!(echoed(&mut stream, b"slow"));
    assert!(start.elapsed() >= Duration::from_millis(120), "both directions wait");
    proxy.set(Mode::Throttle(40));
    let start = Instant::now();
    assert!(echoed(&mut stream, b"slow"));
    assert!(start.elapsed() >= Duration::from_millis(200), "four bytes at 40 a second, twice");
    proxy.set(Mode::Blackhole);
    assert!(is_silent_for(&mut stream, b"gone"));
    proxy.set(Mode::Stall);
    assert!(is_silent_for(&mut stream, b"held"));
    proxy.set(Mode::Forward);
    let mut back = [0; 4];
    stream.read_exact(&mut back).expect("what was held comes");
    assert_eq!(&back, b"held");
    proxy.set(Mode::Refuse);
    assert_eq!(behind(&proxy).read(&mut back).expect("end"), 0);
    proxy.cut();
    assert!(matches!(stream.read(&mut back), Ok(0) | Err(_)));
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn the_proxy_cuts_at_the_byte_it_was_told() {
    for direction in [Direction::Request, Direction::Reply] {
        let proxy = Proxy::tcp(echo_server());
        let mut stream = behind(&proxy);
        proxy.cut_after(direction, 5);
        stream.write_all(b"0123456789").expect("write");
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back);
        // Cut on its way to the server, the echo of what arrived may still be lost with the connection.
        assert!(b"01234".starts_with(&back[..]), "{direction:?}: {back:?}");
        assert!(direction == Direction::Request || back == b"01234");
        let mut again = behind(&proxy);
        again.write_all(b"0123456789").expect("write");
        again.read_exact(&mut [0; 10]).expect("it cuts once");
    }
}

#[test]
fn the_client_reads_pipelined_answers_of_every_framing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let expected = request_bytes("POST", "/x", &[("A", "b")], b"{}").len() * 2;
    let server = thread::spawn(move || {
        let mut stream = listener.accept().expect("accept").0;
        let mut got = vec![0; expected];
        stream.read_exact(&mut got).expect("requests");
        let answers = "HTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A:  b \r\n\r\nok\
            HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        stream.write_all(answers.as_bytes()).expect("answers");
        String::from_utf8(got).expect("text")
    });
    let mut client = Client::connect(address).expect("connect");
    for _ in 0..2 {
        client.send("POST", "/x", &[("A", "b")], b"{}").expect("send");
    }
    assert_eq!(client.read_response().expect("interim").status, 100);
    let first = client.read_response().expect("first");
    assert_eq!((first.status, first.header("x-a"), first.text().as_str()), (200, Some("b"), "ok"));
    let second = client.read_response().expect("second");
    assert_eq!((second.status, second.text().as_str()), (503, "abcde"));
    assert!(client.read_to_end().expect("end").is_empty());
    let got = server.join().expect("server");
    assert!(
        got.starts_with("POST /x HTTP/1.1\r\nHost: test\r\nA: b\r\nContent-Length: 2\r\n\r\n{}POST"),
        "{got}"
    );
}

#[test]
fn a_program_runs_apart_is_followed_and_ends_with_its_guard() {
    let script = "echo out; echo \"listening on 127.0.0.1:81 $A $HOME\" >&2; pwd; exec sleep 1000";
    let mut shell = Program::new("sh", "/bin/sh").args(&["-c", script]).env("A", "b").start();
    assert_eq!(shell.address().to_string(), "127.0.0.1:81");
    assert_eq!(shell.stderr_after("127.0.0.1:81 "), "b ");
    eventually(secs(60), "its directory", || shell.stdout().contains(&*shell.dir().to_string_lossy()));
    assert!(shell.is_alive() && shell.size().threads == 1);
    assert!(died_of(shell.terminate(secs(60)), libc::SIGTERM));
    let finished = Program::new("sh", "/bin/sh").args(&["-c", "echo lost >&2; exit 3"]).run(secs(60));
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(3), "lost\n"));
    assert!(finished.stdout.is_empty());
    let pid = Program::new("sleep", "/bin/sleep").args(&["1000"]).start().pid();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
