//! The kafka crate alone: batches of events with acks=all, one call after the other, each to the next partition.
//! `kafka-bare BROKER TOPIC BATCH s:SECONDS|n:EVENTS`; prints what was acknowledged as JSON.

use std::env;
use std::time::{Duration, Instant};

use kafka::client::{KafkaClient, ProduceMessage, RequiredAcks};
use kafka::error::KafkaCode;

/// When to stop.
#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Sent(usize),
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [broker, topic, batch, until] = &arguments[..] else {
        panic!("usage: kafka-bare BROKER TOPIC BATCH s:SECONDS|n:EVENTS");
    };
    let batch: usize = batch.parse().expect("BATCH is a number");
    let until = match until.split_at(2) {
        ("s:", seconds) => Until::Elapsed(Duration::from_secs_f64(seconds.parse().expect("SECONDS"))),
        ("n:", events) => Until::Sent(events.parse().expect("EVENTS is a number")),
        _ => panic!("{until}: expected s:SECONDS or n:EVENTS"),
    };
    let (mut client, partitions) = connect(broker, topic);
    let ready = values(0, batch);
    let (began, mut sent, mut calls) = (Instant::now(), 0, 0);
    loop {
        let count = match until {
            Until::Elapsed(limit) if began.elapsed() >= limit => break,
            Until::Elapsed(_) => batch,
            Until::Sent(events) if sent >= events => break,
            Until::Sent(events) => batch.min(events - sent),
        };
        let partition = partitions[calls % partitions.len()];
        match until {
            // Against the clock nothing but the crate is measured.
            Until::Elapsed(_) => produce(&mut client, topic, partition, &ready),
            Until::Sent(_) => produce(&mut client, topic, partition, &values(sent, count)),
        }
        (sent, calls) = (sent + count, calls + 1);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(r#"{{"events": {sent}, "calls": {calls}, "seconds": {seconds:.6}}}"#);
}

fn connect(broker: &str, topic: &str) -> (KafkaClient, Vec<i32>) {
    let mut client = KafkaClient::new(vec![broker.to_owned()]);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The first one creates the topic.
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

/// As long as the event that the load tool posts, once stamped; each one different.
fn values(first: usize, count: usize) -> Vec<String> {
    (first..first + count)
        .map(|n| {
            format!(r#"{{"event": "purchase", "user_id": {n:>3}, "timestamp": "2025-07-08T00:12:01.781Z"}}"#)
        })
        .collect()
}

fn produce(client: &mut KafkaClient, topic: &str, partition: i32, values: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let messages =
            values.iter().map(|value| ProduceMessage::new(topic, partition, None, Some(value.as_bytes())));
        let confirms = client
            .produce_messages(RequiredAcks::All, Duration::from_secs(10), messages)
            .expect("the broker answers");
        let answers: Vec<_> = confirms.iter().flat_map(|confirm| &confirm.partition_confirms).collect();
        match answers[..] {
            [one] if one.offset.is_ok() => return,
            // The leader of a topic that was just created does not know it yet, and has written nothing.
            [one] if one.offset == Err(KafkaCode::NotLeaderForPartition) && Instant::now() < deadline => {}
            _ => panic!("not acknowledged: {answers:?}"),
        }
    }
}
