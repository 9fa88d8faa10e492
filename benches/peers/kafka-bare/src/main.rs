//! Calls the kafka crate in a loop: sends batches of events with acks=all, each to the next partition, or
//! reads a whole topic. Usage: `kafka-bare BROKER TOPIC produce BATCH SECONDS | fetch EVENTS`. Prints the
//! counts as JSON.

use std::env;
use std::time::{Duration, Instant};

use kafka::client::{FetchPartition, KafkaClient, ProduceMessage, RequiredAcks};
use kafka::error::KafkaCode;

/// As long as the load tool's event with its timestamp.
const VALUE: &[u8] = br#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;
const STALLED: Duration = Duration::from_secs(20);
/// Most bytes per partition in one fetch; the crate was fastest with this value.
const FETCH_BYTES: i32 = 2 << 20;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [broker, topic, work @ ..] = &arguments[..] else { usage() };
    let began = Instant::now();
    let (client, partitions) = connect(broker, topic);
    let (events, calls) = match work.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["produce", batch, seconds] => {
            let duration = Duration::from_secs_f64(seconds.parse().expect("SECONDS"));
            produce(client, topic, &partitions, batch.parse().expect("BATCH"), duration)
        }
        ["fetch", events] => fetch(client, topic, &partitions, events.parse().expect("EVENTS")),
        _ => usage(),
    };
    let seconds = began.elapsed().as_secs_f64();
    println!(r#"{{"events": {events}, "calls": {calls}, "seconds": {seconds:.6}}}"#);
}

fn usage() -> ! {
    panic!("usage: kafka-bare BROKER TOPIC produce BATCH SECONDS | fetch EVENTS")
}

fn connect(broker: &str, topic: &str) -> (KafkaClient, Vec<i32>) {
    let mut client = KafkaClient::new(vec![broker.to_owned()]);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The first call creates the topic.
        let loaded = client.load_metadata(&[topic]);
        let partitions: Vec<i32> = (client.topics().partitions(topic))
            .map(|partitions| partitions.iter().filter(|p| p.is_available()).map(|p| p.id()).collect())
            .unwrap_or_default();
        if !partitions.is_empty() {
            return (client, partitions);
        }
        assert!(Instant::now() < deadline, "{topic} has no leader: {loaded:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn produce(
    mut client: KafkaClient,
    topic: &str,
    partitions: &[i32],
    batch: usize,
    duration: Duration,
) -> (usize, usize) {
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < duration {
        send(&mut client, topic, partitions[calls % partitions.len()], batch);
        calls += 1;
    }
    (calls * batch, calls)
}

fn send(client: &mut KafkaClient, topic: &str, partition: i32, batch: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let messages = (0..batch).map(|_| ProduceMessage::new(topic, partition, None, Some(VALUE)));
        let confirms = client
            .produce_messages(RequiredAcks::All, Duration::from_secs(10), messages)
            .expect("the broker answers");
        let answers: Vec<_> = confirms.iter().flat_map(|confirm| &confirm.partition_confirms).collect();
        match answers[..] {
            [one] if one.offset.is_ok() => return,
            // The leader does not know the new topic yet, and has written nothing.
            [one] if one.offset == Err(KafkaCode::NotLeaderForPartition) && Instant::now() < deadline => {}
            _ => panic!("not acknowledged: {answers:?}"),
        }
    }
}

/// Fetches all partitions in one request, repeatedly, until `wanted` records have been read.
fn fetch(mut client: KafkaClient, topic: &str, partitions: &[i32], wanted: usize) -> (usize, usize) {
    client.set_fetch_crc_validation(false);
    let mut offsets: Vec<(i32, i64)> = partitions.iter().map(|partition| (*partition, 0)).collect();
    let (mut read, mut calls, mut last) = (0, 0, Instant::now());
    while read < wanted {
        let asked = offsets.iter().map(|(partition, offset)| {
            FetchPartition::new(topic, *partition, *offset).with_max_bytes(FETCH_BYTES)
        });
        let answers = client.fetch_messages(asked).expect("the broker answers");
        for partition in
            answers.iter().flat_map(|answer| answer.topics()).flat_map(|topic| topic.partitions())
        {
            let messages = partition.data().expect("readable").messages();
            let (_, offset) =
                offsets.iter_mut().find(|(id, _)| *id == partition.partition()).expect("asked for");
            if let Some(message) = messages.last() {
                (*offset, last) = (message.offset + 1, Instant::now());
            }
            read += messages.iter().filter(|message| !message.value.is_empty()).count();
        }
        calls += 1;
        assert!(last.elapsed() < STALLED, "{read} of {wanted} records, then nothing for {STALLED:?}");
    }
    (read, calls)
}
