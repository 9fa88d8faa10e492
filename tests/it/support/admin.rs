//! The few Kafka requests that a test sends itself, byte by byte: quick, and independent of the code under test.
//!
//! Request versions are ones that both 3.9 and 4.x serve.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const CREATE_TOPICS: i16 = 19;
pub const DELETE_TOPICS: i16 = 20;
pub const DELETE_RECORDS: i16 = 21;
pub const CREATE_PARTITIONS: i16 = 37;
pub const ELECT_LEADERS: i16 = 43;
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
pub const ALTER_CLIENT_QUOTAS: i16 = 49;

/// The body of a request under construction.
#[derive(Default)]
pub struct Body(Vec<u8>);

impl Body {
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn i8(mut self, value: i8) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i16(mut self, value: i16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn string(mut self, text: &str) -> Self {
        self = self.i16(text.len() as i16);
        self.0.extend(text.bytes());
        self
    }
}

/// An answer's body, read from the front.
pub struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.bytes[self.at..self.at + N].try_into().expect("N bytes");
        self.at += N;
        taken
    }

    pub fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.take())
    }

    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }

    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }

    /// A string; a null one reads as empty.
    pub fn string(&mut self) -> String {
        let length = self.i16().max(0) as usize;
        let text = String::from_utf8_lossy(&self.bytes[self.at..self.at + length]).into_owned();
        self.at += length;
        text
    }

    /// Reads as many items as the array's length says.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.i32().max(0);
        (0..length).map(|_| item(self)).collect()
    }
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// When nobody answers at `address`.
pub fn call(address: &str, key: i16, version: i16, body: Body) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let header = Body::default().i16(key).i16(version).i32(7).string("test");
    let size = header.0.len() + body.0.len();
    stream.write_all(&[&(size as i32).to_be_bytes(), &header.0[..], &body.0[..]].concat())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut bytes = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(Answer { bytes, at: 4 })
}

/// One partition as a broker sees it.
#[derive(Clone, Debug)]
pub struct PartitionInfo {
    pub partition: i32,
    /// Node id of the leader, -1 without one.
    pub leader: i32,
    pub in_sync: Vec<i32>,
}

/// A topic in the eyes of one broker.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Address by node id, of the brokers that are alive.
    pub brokers: HashMap<i32, String>,
    /// Sorted; empty while the broker does not know the topic.
    pub partitions: Vec<PartitionInfo>,
}

/// Asks the broker at `address` for the cluster and `topic`.
///
/// # Errors
/// When nobody answers at `address`.
pub fn metadata(address: &str, topic: &str) -> io::Result<Metadata> {
    // Version 4 is the first that can ask without creating the topic.
    let mut answer = call(address, METADATA, 4, Body::default().i32(1).string(topic).i8(0))?;
    answer.i32();
    let brokers = answer.array(|a| {
        let broker = (a.i32(), format!("{}:{}", a.string(), a.i32()));
        a.string();
        broker
    });
    answer.string();
    answer.i32();
    let mut topics = answer.array(|a| {
        a.i16();
        a.string();
        a.i8();
        a.array(|a| {
            a.i16();
            let (partition, leader) = (a.i32(), a.i32());
            a.array(Answer::i32);
            PartitionInfo { partition, leader, in_sync: a.array(Answer::i32) }
        })
    });
    let mut partitions = topics.pop().unwrap_or_default();
    partitions.sort_by_key(|info| info.partition);
    Ok(Metadata { brokers: brokers.into_iter().collect(), partitions })
}

/// Creates a topic with `configs`; panics with the broker's reason when it refuses.
pub fn create_topic(address: &str, topic: &str, partitions: i32, copies: i16, configs: &[(&str, &str)]) {
    let mut body = Body::default().i32(1).string(topic).i32(partitions).i16(copies).i32(0);
    body = body.i32(configs.len() as i32);
    for (name, value) in configs {
        body = body.string(name).string(value);
    }
    create(address, body);
}

/// Creates a topic with a partition for each of `copies`, on the brokers that it names; the first one leads.
pub fn create_topic_on(address: &str, topic: &str, copies: &[&[i32]]) {
    let mut body = Body::default().i32(1).string(topic).i32(-1).i16(-1).i32(copies.len() as i32);
    for (partition, brokers) in copies.iter().enumerate() {
        body = body.i32(partition as i32).i32(brokers.len() as i32);
        body = brokers.iter().fold(body, |body, broker| body.i32(*broker));
    }
    create(address, body.i32(0));
}

fn create(address: &str, topics: Body) {
    let answer = call(address, CREATE_TOPICS, 2, topics.i32(15_000).i8(0));
    let mut answer = answer.unwrap_or_else(|error| panic!("create a topic at {address}: {error}"));
    answer.i32();
    for (name, code, reason) in answer.array(|a| (a.string(), a.i16(), a.string())) {
        assert_eq!(code, 0, "create {name}: {reason}");
    }
}

/// Deletes a topic with its data.
pub fn delete_topic(address: &str, topic: &str) {
    let body = Body::default().i32(1).string(topic).i32(15_000);
    let mut answer = call(address, DELETE_TOPICS, 1, body).expect("delete");
    answer.i32();
    for (name, code) in answer.array(|a| (a.string(), a.i16())) {
        assert_eq!(code, 0, "delete {name}");
    }
}

/// Deletes the records of a partition before `offset`, as retention does; `leader` is its leader's address.
pub fn delete_records(leader: &str, topic: &str, partition: i32, offset: i64) {
    let body = Body::default().i32(1).string(topic).i32(1).i32(partition).i64(offset).i32(15_000);
    let mut answer = call(leader, DELETE_RECORDS, 0, body).expect("delete records");
    answer.i32();
    let outcomes = answer.array(|a| {
        a.string();
        a.array(|a| (a.i32(), a.i64(), a.i16()))
    });
    for (partition, _, code) in outcomes.into_iter().flatten() {
        assert_eq!(code, 0, "delete records of {topic}/{partition}");
    }
}

/// Raises the number of partitions to `total`.
pub fn create_partitions(address: &str, topic: &str, total: i32) {
    let body = Body::default().i32(1).string(topic).i32(total).i32(-1).i32(15_000).i8(0);
    let mut answer = call(address, CREATE_PARTITIONS, 0, body).expect("create partitions");
    answer.i32();
    for (name, code, reason) in answer.array(|a| (a.string(), a.i16(), a.string())) {
        assert_eq!(code, 0, "partitions of {name}: {reason}");
    }
}

/// Sets one setting of a topic.
pub fn alter_topic(address: &str, topic: &str, name: &str, value: &str) {
    const TOPIC: i8 = 2;
    const SET: i8 = 0;
    let body = Body::default().i32(1).i8(TOPIC).string(topic).i32(1).string(name).i8(SET).string(value);
    let mut answer = call(address, INCREMENTAL_ALTER_CONFIGS, 0, body.i8(0)).expect("alter");
    answer.i32();
    for (code, reason, ..) in answer.array(|a| (a.i16(), a.string(), a.i8(), a.string())) {
        assert_eq!(code, 0, "{topic} {name}={value}: {reason}");
    }
}

/// Sets a quota of our programs, for example `producer_byte_rate`; `None` removes it.
pub fn alter_quota(address: &str, name: &str, value: Option<f64>) {
    let rate = value.unwrap_or_default().to_bits().cast_signed();
    let body = Body::default().i32(1).i32(1).string("client-id").string("event-pipeline");
    let body = body.i32(1).string(name).i64(rate).i8(value.is_none().into()).i8(0);
    let mut answer = call(address, ALTER_CLIENT_QUOTAS, 0, body).expect("alter a quota");
    answer.i32();
    let outcomes = answer.array(|a| {
        let outcome = (a.i16(), a.string());
        a.array(|a| (a.string(), a.string()));
        outcome
    });
    for (code, reason) in outcomes {
        assert_eq!(code, 0, "{name}={value:?}: {reason}");
    }
}

/// Gives each of `partitions` back to its preferred leader; one that leads already is left as it is.
pub fn elect_preferred(address: &str, topic: &str, partitions: &[i32]) {
    const PREFERRED: i8 = 0;
    const ELECTION_NOT_NEEDED: i16 = 84;
    let mut body = Body::default().i8(PREFERRED).i32(1).string(topic).i32(partitions.len() as i32);
    for partition in partitions {
        body = body.i32(*partition);
    }
    let mut answer = call(address, ELECT_LEADERS, 1, body.i32(15_000)).expect("elect");
    answer.i32();
    assert_eq!(answer.i16(), 0, "elect leaders of {topic}");
    let outcomes = answer.array(|a| {
        a.string();
        a.array(|a| (a.i32(), a.i16(), a.string()))
    });
    for (partition, code, reason) in outcomes.into_iter().flatten() {
        assert!(matches!(code, 0 | ELECTION_NOT_NEEDED), "{topic}/{partition}: {code} {reason}");
    }
}

/// Number of the compression of each batch that a partition begins with; `leader` is its leader's address.
///
/// # Errors
/// When nobody answers there, or it does not give them out.
pub fn codecs(leader: &str, topic: &str, partition: i32) -> io::Result<Vec<i16>> {
    const ALL: i32 = 64 << 20;
    // Outside of sessions, whatever the epoch is, as no follower.
    let body = Body::default().i32(-1).i32(0).i32(0).i32(ALL).i8(0).i32(0).i32(-1).i32(1).string(topic);
    let body = body.i32(1).i32(partition).i32(-1).i64(0).i64(-1).i32(ALL).i32(0);
    // The oldest version that brokers answer for every compression.
    let mut answer = call(leader, FETCH, 10, body)?;
    let _throttle_code_session = (answer.i32(), answer.i16(), answer.i32());
    let _topics_name_partitions = (answer.i32(), answer.string(), answer.i32());
    let (_partition, code, _ends) = (answer.i32(), answer.i16(), (answer.i64(), answer.i64(), answer.i64()));
    if code != 0 {
        return Err(io::Error::other(format!("fetch of {topic}/{partition}: {code}")));
    }
    let _aborted = answer.array(|a| (a.i64(), a.i64()));
    let end = answer.i32() as usize + answer.at;
    let mut codecs = Vec::new();
    while answer.at < end {
        let (_offset, length) = (answer.i64(), answer.i32() as usize);
        let next = answer.at + length;
        let _epoch_magic_checksum = (answer.i32(), answer.i8(), answer.i32());
        codecs.push(answer.i16() & 7);
        answer.at = next;
    }
    Ok(codecs)
}

/// Up to where the records of a partition are given out; `leader` is its leader's address.
///
/// # Errors
/// When nobody answers there.
pub fn end_offset(leader: &str, topic: &str, partition: i32) -> io::Result<i64> {
    const CONSUMER: i32 = -1;
    latest_offset(leader, topic, partition, CONSUMER)
}

/// The offset that the next record of a partition will get: past [`end_offset`] while replicas are waited for.
///
/// # Errors
/// When nobody answers there.
pub fn log_end_offset(leader: &str, topic: &str, partition: i32) -> io::Result<i64> {
    const DEBUGGER: i32 = -2;
    latest_offset(leader, topic, partition, DEBUGGER)
}

fn latest_offset(leader: &str, topic: &str, partition: i32, asker: i32) -> io::Result<i64> {
    const LATEST: i64 = -1;
    let body = Body::default().i32(asker).i32(1).string(topic).i32(1).i32(partition).i64(LATEST);
    let mut answer = call(leader, LIST_OFFSETS, 1, body)?;
    let mut found = answer.array(|a| {
        a.string();
        a.array(|a| (a.i32(), a.i16(), a.i64(), a.i64()))
    });
    match found.pop().and_then(|mut partitions| partitions.pop()) {
        Some((_, 0, _, offset)) => Ok(offset),
        other => Err(io::Error::other(format!("offsets of {topic}/{partition}: {other:?}"))),
    }
}
