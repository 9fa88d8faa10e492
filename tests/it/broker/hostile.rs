//! A broker that greets like Kafka and then answers wrongly: an error each time, never a receipt, panic or hang.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use event_pipeline::broker::{BrokerError, Source, open_sink, open_source};

use super::{config, from_start, send, within};
use crate::support::admin::Body;

const LIMIT: Duration = Duration::from_millis(700);
const TOPIC: &str = "events";

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// What the records' requests are answered with, from the frame's size on.
type Answer = Arc<dyn Fn(i32) -> Vec<u8> + Send + Sync>;

#[test]
fn a_wrong_answer_to_a_produce_is_never_a_receipt() {
    let confirm = |partition: i32, code: i16, offset: i64| {
        move |correlation: i32| {
            let body = Body::default().i32(correlation).i32(1).string(TOPIC).i32(1);
            framed(&body.i32(partition).i16(code).i64(offset).into_bytes())
        }
    };
    let twice = |correlation: i32| {
        let body = Body::default().i32(correlation).i32(1).string(TOPIC).i32(2);
        framed(&body.i32(0).i16(0).i64(5).i32(0).i16(0).i64(6).into_bytes())
    };
    let elsewhere = |correlation: i32| {
        let body = Body::default().i32(correlation).i32(1).string("other").i32(1);
        framed(&body.i32(0).i16(0).i64(5).into_bytes())
    };
    let nothing = |correlation: i32| framed(&Body::default().i32(correlation).i32(0).into_bytes());
    let cases: [(&str, Answer); 11] = [
        ("another partition", Arc::new(confirm(1, 0, 5))),
        ("a negative offset", Arc::new(confirm(0, 0, -1))),
        ("a refusal", Arc::new(confirm(0, 2, -1))),
        ("a code of the future", Arc::new(confirm(0, 999, -1))),
        ("two confirms", Arc::new(twice)),
        ("another topic", Arc::new(elsewhere)),
        ("no confirm", Arc::new(nothing)),
        ("a negative size", Arc::new(|_| (-5i32).to_be_bytes().to_vec())),
        ("an absurd size", Arc::new(|_| i32::MAX.to_be_bytes().to_vec())),
        ("a cut frame", Arc::new(|_| vec![0, 0, 0, 30, 0, 0])),
        ("an empty frame", Arc::new(|_| framed(&[]))),
    ];
    for (what, answer) in cases {
        let address = hostile_broker(answer, 0).to_string();
        let mut sink = open_sink(&config(&address, TOPIC)).expect("a thread");
        for _ in 0..2 {
            let outcome = within(LIMIT, || send(&mut sink, &["x"], LIMIT)).remove(0);
            let Err(BrokerError::Retryable(text)) = outcome else { panic!("{what}: {outcome:?}") };
            assert!(text.contains(&address) || text.contains(TOPIC), "{what}: {text}");
        }
    }
    let address = hostile_broker(Arc::new(confirm(0, 0, 5)), 0).to_string();
    let mut sink = open_sink(&config(&address, TOPIC)).expect("a thread");
    assert_eq!(
        send(&mut sink, &["x"], LIMIT)[0].as_ref().map(|receipt| receipt.offset),
        Ok(5),
        "the right one is"
    );
}

#[test]
fn metadata_that_makes_no_sense_is_an_error() {
    for partition in [7, -1, i32::MAX] {
        let address = hostile_broker(Arc::new(|_| Vec::new()), partition).to_string();
        let mut sink = open_sink(&config(&address, TOPIC)).expect("a thread");
        let outcome = within(LIMIT, || send(&mut sink, &["x"], LIMIT)).remove(0);
        assert!(outcome.as_ref().is_err_and(BrokerError::is_retryable), "{partition}: {outcome:?}");
    }
}

#[test]
fn a_wrong_answer_to_a_fetch_gives_no_records() {
    let cases: [Answer; 3] = [
        Arc::new(|_| (-5i32).to_be_bytes().to_vec()),
        Arc::new(|_| framed(&[0; 7])),
        Arc::new(|correlation| framed(&Body::default().i32(correlation).i32(0).into_bytes())),
    ];
    for answer in cases {
        let mut source =
            open_source(&config(&hostile_broker(answer, 0).to_string(), TOPIC)).expect("a thread");
        let error = source.fetch(&from_start(1)).expect_err("nothing could be read");
        assert!(error.is_retryable(), "{error}");
    }
}

/// Greets as Kafka 3.9, leads the one partition of the topic, and gives `answer` to records. Its second
/// metadata, for the kafka crate, calls the partition `partition`.
fn hostile_broker(answer: Answer, partition: i32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("accept"), answer.clone());
            // An error is a client that has had enough.
            thread::spawn(move || drop(serve(stream, address.port(), &answer, partition)));
        }
    });
    address
}

fn serve(mut stream: TcpStream, port: u16, answer: &Answer, partition: i32) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request)?;
        let word = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let correlation = i32::from_be_bytes(*request[4..].first_chunk().expect("a header"));
        let reply = match (word(0), word(2)) {
            (API_VERSIONS, _) => framed(&versions(correlation)),
            (METADATA, 4) => framed(&metadata(correlation, port)),
            (METADATA, _) => framed(&old_metadata(correlation, port, partition)),
            (PRODUCE | FETCH, _) => answer(correlation),
            _ => return Ok(()),
        };
        stream.write_all(&reply)?;
    }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes(), bytes].concat()
}

fn versions(correlation: i32) -> Vec<u8> {
    let body = Body::default().i32(correlation).i16(0).i32(2);
    body.i16(FETCH).i16(0).i16(17).i16(8).i16(0).i16(9).into_bytes()
}

fn metadata(correlation: i32, port: u16) -> Vec<u8> {
    let broker = Body::default().i32(correlation).i32(0).i32(1).i32(1).string("127.0.0.1").i32(port.into());
    let topic = broker.i16(-1).i16(-1).i32(1).i32(1).i16(0).string(TOPIC).i8(0);
    topic.i32(1).i16(0).i32(0).i32(1).i32(0).i32(0).into_bytes()
}

fn old_metadata(correlation: i32, port: u16, partition: i32) -> Vec<u8> {
    let broker = Body::default().i32(correlation).i32(1).i32(1).string("127.0.0.1").i32(port.into());
    let topic = broker.i32(1).i16(0).string(TOPIC);
    topic.i32(1).i16(0).i32(partition).i32(1).i32(0).i32(0).into_bytes()
}
