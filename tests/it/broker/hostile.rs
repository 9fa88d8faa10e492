//! A broker that greets like Kafka and then answers wrongly: an error each time, never a receipt, panic or hang.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use event_pipeline::broker::{BrokerError, Source, open_source};

use super::{config, from_start, plain_sink, send, within};
use crate::support::admin::Body;
use crate::support::kafka::is_on_crate;

const LIMIT: Duration = Duration::from_millis(700);
pub const TOPIC: &str = "events";

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;

/// What the records' requests are answered with, from the frame's size on.
pub type Answer = Arc<dyn Fn(i32) -> Vec<u8> + Send + Sync>;

#[test]
fn a_wrong_answer_to_a_produce_is_never_a_receipt() {
    let confirm = |partition: i32, code: i16, offset: i64| {
        move |correlation| confirms(correlation, TOPIC, &[(partition, code, offset)])
    };
    let twice = |correlation| confirms(correlation, TOPIC, &[(0, 0, 5), (0, 0, 6)]);
    let elsewhere = |correlation| confirms(correlation, "other", &[(0, 0, 5)]);
    let followed = |correlation| [confirms(correlation, TOPIC, &[(0, 0, 5)]), vec![0]].concat();
    let late = |correlation: i32| confirms(correlation - 1, TOPIC, &[(0, 0, 5)]);
    let endless = |correlation: i32| framed(&Body::default().i32(correlation).i32(i32::MAX).into_bytes());
    let nothing = |correlation: i32| framed(&Body::default().i32(correlation).i32(0).into_bytes());
    let mut cases: Vec<(&str, Answer)> = vec![
        ("another partition", Arc::new(confirm(1, 0, 5))),
        ("a negative offset", Arc::new(confirm(0, 0, -1))),
        ("a refusal", Arc::new(confirm(0, 19, -1))),
        ("a code of the future", Arc::new(confirm(0, 999, -1))),
        ("two confirms", Arc::new(twice)),
        ("another topic", Arc::new(elsewhere)),
        ("no confirm", Arc::new(nothing)),
        ("a negative size", Arc::new(|_| (-5i32).to_be_bytes().to_vec())),
        ("an absurd size", Arc::new(|_| i32::MAX.to_be_bytes().to_vec())),
        ("a cut frame", Arc::new(|_| vec![0, 0, 0, 30, 0, 0])),
        ("an empty frame", Arc::new(|_| framed(&[]))),
    ];
    if !is_on_crate() {
        // The kafka crate compares no ids, does not see what follows, and what it allocates for such a count would end
        // the test.
        cases.push(("an absurd count", Arc::new(endless)));
        cases.push(("the answer to the request before", Arc::new(late)));
        cases.push(("the right answer and one byte more", Arc::new(followed)));
    }
    for (what, answer) in cases {
        let address = hostile_broker(answer, 0).to_string();
        let mut sink = plain_sink(&config(&address, TOPIC));
        for _ in 0..2 {
            let outcome = within(LIMIT, || send(&mut sink, &["x"], LIMIT)).remove(0);
            let Err(BrokerError::Retryable(text)) = outcome else { panic!("{what}: {outcome:?}") };
            assert!(text.contains(&address) || text.contains(TOPIC), "{what}: {text}");
        }
    }
    let address = hostile_broker(Arc::new(confirm(0, 0, 5)), 0).to_string();
    let mut sink = plain_sink(&config(&address, TOPIC));
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
        let mut sink = plain_sink(&config(&address, TOPIC));
        let outcome = within(LIMIT, || send(&mut sink, &["x"], LIMIT)).remove(0);
        assert!(outcome.as_ref().is_err_and(BrokerError::is_retryable), "{partition}: {outcome:?}");
    }
}

#[test]
fn a_wrong_answer_to_a_fetch_gives_no_records() {
    let mut cases: Vec<Answer> = vec![
        Arc::new(|_| (-5i32).to_be_bytes().to_vec()),
        Arc::new(|_| framed(&[0; 7])),
        Arc::new(|correlation| framed(&Body::default().i32(correlation).i32(0).into_bytes())),
    ];
    if !is_on_crate() {
        let part = |length: i32, stored: &'static [u8], partition: i32, aborted: i32| -> Answer {
            Arc::new(move |correlation| fetched(correlation, partition, aborted, length, stored))
        };
        cases.push(Arc::new(|correlation| {
            framed(&Body::default().i32(correlation).i32(0).i16(0).i32(0).i32(i32::MAX).into_bytes())
        }));
        cases.push(part(i32::MAX, &[], 0, 0));
        cases.push(part(12, &[0xff; 12], 0, 0));
        cases.push(part(0, &[], 0, i32::MAX));
        cases.push(part(0, &[], 7, 0));
        cases.push(Arc::new(|correlation| twice(&fetched(correlation, 0, 0, 0, &[]))));
        // A batch of absurd length is one that is cut off: nothing to read, nothing wrong.
        let cut = hostile_broker(part(12, b"\0\0\0\0\0\0\0\0\x7f\xff\xff\xff", 0, 0), 0).to_string();
        let pages =
            open_source(&config(&cut, TOPIC)).expect("a thread").fetch(&from_start(1)).expect("answered");
        assert!(pages[0].page.as_ref().is_ok_and(|page| page.is_empty() && page.next_offset == 0));
    }
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
    hostile_leader(answer, partition, 1)
}

/// The same, of as many partitions as `partitions` says.
pub fn hostile_leader(answer: Answer, partition: i32, partitions: i32) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("accept"), answer.clone());
            // An error is a client that has had enough.
            thread::spawn(move || drop(serve(stream, address.port(), &answer, (partition, partitions))));
        }
    });
    address
}

fn serve(
    mut stream: TcpStream,
    port: u16,
    answer: &Answer,
    (partition, partitions): (i32, i32),
) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request)?;
        let word = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let correlation = i32::from_be_bytes(*request[4..].first_chunk().expect("a header"));
        let reply = match (word(0), word(2)) {
            (API_VERSIONS, _) => framed(&versions(correlation)),
            (METADATA, 4) => framed(&metadata(correlation, port, partitions)),
            (METADATA, _) => framed(&old_metadata(correlation, port, partition)),
            (INIT_PRODUCER_ID, _) => {
                framed(&Body::default().i32(correlation).i32(0).i16(0).i64(4000).i16(0).into_bytes())
            }
            (PRODUCE | FETCH, _) => answer(correlation),
            _ => return Ok(()),
        };
        stream.write_all(&reply)?;
    }
}

pub fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes(), bytes].concat()
}

fn versions(correlation: i32) -> Vec<u8> {
    let versions = [(PRODUCE, 11), (FETCH, 17), (8, 9), (INIT_PRODUCER_ID, 5)];
    let body = Body::default().i32(correlation).i16(0).i32(versions.len() as i32);
    versions.iter().fold(body, |body, (key, newest)| body.i16(*key).i16(0).i16(*newest)).into_bytes()
}

/// The answer to a produce: partition, code and offset of each confirm, in the version of the client under test.
fn confirms(correlation: i32, topic: &str, confirms: &[(i32, i16, i64)]) -> Vec<u8> {
    let body = Body::default().i32(correlation).i32(1).string(topic).i32(confirms.len() as i32);
    let body = confirms.iter().fold(body, |body, (partition, code, offset)| {
        let body = body.i32(*partition).i16(*code).i64(*offset);
        // Time, start of the log, no record named, no reason.
        if is_on_crate() { body } else { body.i64(-1).i64(0).i32(0).i16(-1) }
    });
    framed(&if is_on_crate() { body } else { body.i32(0) }.into_bytes())
}

/// A fetch answer of one partition, with that partition told twice.
fn twice(frame: &[u8]) -> Vec<u8> {
    let count = 4 + 4 + 2 + 4 + 4 + 2 + TOPIC.len();
    let (head, part) = frame[4..].split_at(count);
    framed(&[head, &2i32.to_be_bytes(), &part[4..], &part[4..]].concat())
}

/// The fields before the partitions in the answer to a fetch of version 10: no error and no session.
pub fn fetch_head(correlation: i32) -> Body {
    Body::default().i32(correlation).i32(0).i16(0).i32(0).i32(1).string(TOPIC)
}

/// The fields before the batches of a partition.
pub fn fetch_part(partition: i32, end: i64, aborted: i32, length: i32) -> Body {
    Body::default().i32(partition).i16(0).i64(end).i64(end).i64(0).i32(aborted).i32(length)
}

/// The answer to a fetch, with `stored` behind a length that need not be its own.
fn fetched(correlation: i32, partition: i32, aborted: i32, length: i32, stored: &[u8]) -> Vec<u8> {
    let (head, part) = (fetch_head(correlation).i32(1), fetch_part(partition, 9, aborted, length));
    framed(&[head.into_bytes(), part.into_bytes(), stored.to_vec()].concat())
}

fn metadata(correlation: i32, port: u16, partitions: i32) -> Vec<u8> {
    let broker = Body::default().i32(correlation).i32(0).i32(1).i32(1).string("127.0.0.1").i32(port.into());
    let topic = broker.i16(-1).i16(-1).i32(1).i32(1).i16(0).string(TOPIC).i8(0);
    let each = |body: Body, id: i32| body.i16(0).i32(id).i32(1).i32(0).i32(0);
    (0..partitions).fold(topic.i32(partitions), each).into_bytes()
}

fn old_metadata(correlation: i32, port: u16, partition: i32) -> Vec<u8> {
    let broker = Body::default().i32(correlation).i32(1).i32(1).string("127.0.0.1").i32(port.into());
    let topic = broker.i32(1).i16(0).string(TOPIC);
    topic.i32(1).i16(0).i32(partition).i32(1).i32(0).i32(0).into_bytes()
}
