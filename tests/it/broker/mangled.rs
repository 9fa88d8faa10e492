//! A real Kafka whose answers are cut, stretched, swapped and falsified on their way: never a panic or a hang, and no
//! more memory than the largest answer may take.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_pipeline::broker::{KafkaSink, KafkaSource, Sink, Source, open_source};
use fastrand::Rng;

use super::{config, from_start, plain_sink, send, send_all, sink_to, wire, within};
use crate::support::kafka::shared;
use crate::support::memory::{Taken, taken_by};
use crate::support::proxy::Proxy;
use crate::support::wait::{eventually, secs};

const LIMIT: Duration = Duration::from_millis(500);

/// Ways to harm a frame. After the first five it is never what was asked for.
const HARMS: [&str; 8] =
    ["cut off", "cut short", "stretched", "swapped", "other id", "falsified", "absurd", "absurd size"];
const SURE: usize = 5;

/// All calls of ours.
const CALLS: [&str; 8] =
    ["send", "probe", "partitions", "topic id", "bounds", "committed", "commit", "fetch"];

/// More than the largest answer and what it becomes.
const MOST_BYTES: usize = 80 << 20;

/// Harms `frame` (with its size in front); `before` is the answer before it.
fn harm(kind: &str, frame: &[u8], before: &[u8], rng: &mut Rng) -> Vec<u8> {
    let sized = |body: &[u8]| [&(body.len() as i32).to_be_bytes(), body].concat();
    let mut bytes = frame.to_vec();
    let at = rng.usize(8..bytes.len().max(9));
    let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8]| {
        let end = (at + value.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&value[..end - at]);
    };
    match kind {
        "cut off" => bytes.truncate(rng.usize(..bytes.len())),
        "cut short" => bytes = sized(&frame[4..rng.usize(4..frame.len())]),
        "stretched" => bytes = sized(&[&frame[4..], &vec![rng.u8(..); rng.usize(1..40)]].concat()),
        "swapped" => bytes = before.to_vec(),
        "other id" => put(&mut bytes, 4, &rng.i32(..).to_be_bytes()),
        "falsified" => (0..rng.usize(1..8)).for_each(|_| {
            let at = rng.usize(8..frame.len().max(9));
            put(&mut bytes, at, &[rng.u8(..)]);
        }),
        "absurd" => put(&mut bytes, at, &[i32::MAX, i32::MIN, -1, 1 << 24][rng.usize(..4)].to_be_bytes()),
        "absurd size" => {
            put(&mut bytes, 0, &[32 << 20, i32::MAX, 32 << 20, -1][rng.usize(..4)].to_be_bytes())
        }
        other => panic!("no such harm: {other}"),
    }
    bytes
}

/// Makes one call; false if it failed.
fn call(name: &str, sink: &mut KafkaSink, source: &mut KafkaSource, group: &str) -> bool {
    match name {
        "send" => send(sink, &["value"], LIMIT)[0].is_ok(),
        "probe" => sink.probe(LIMIT).is_ok(),
        "partitions" => source.partitions().is_ok(),
        "topic id" => source.topic_id().is_ok(),
        "bounds" => source.bounds(&[0, 1]).is_ok(),
        "committed" => source.committed(group, &[0, 1]).is_ok(),
        "commit" => source.commit(group, &from_start(2), "note").is_ok(),
        "fetch" => source.fetch(&from_start(2)).is_ok_and(|answers| answers.iter().all(|a| a.page.is_ok())),
        other => panic!("no such call: {other}"),
    }
}

#[test]
fn answers_that_were_harmed_are_errors_within_time_and_memory() {
    let topic = shared().topic_with(2, &[]);
    let group = format!("group-{}", topic.name);
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let address = proxy.address().to_string();
    send_all(&mut sink_to(&shared().brokers(), &topic), &["a record"; 200]);
    let mut source = open_source(&config(&shared().brokers(), &topic.name)).expect("a thread");
    eventually(secs(60), "the coordinator is there", || source.committed(&group, &[0]).is_ok());
    let seed = fastrand::u64(..);
    let mut rng = Rng::with_seed(seed);
    for round in 0..CALLS.len() * HARMS.len() * 2 {
        let name = CALLS[round % CALLS.len()];
        let kind = HARMS[round / CALLS.len() % HARMS.len()];
        // The first answers are harmed too: greeting, leaders, producer id.
        let mut passed = rng.usize(..4);
        let harmed = Arc::new(Mutex::new(false));
        let (told, mut before, mut dice) = (harmed.clone(), Vec::new(), rng.fork());
        proxy.mangle(move |frame| {
            let was = std::mem::replace(&mut before, frame.to_vec());
            let is_due = passed == 0 && (kind != "swapped" || !was.is_empty());
            passed = passed.saturating_sub(1);
            let mut told = told.lock().expect("no panic holds it");
            if *told || !is_due {
                return frame.to_vec();
            }
            *told = true;
            harm(kind, frame, &was, &mut dice)
        });
        let mut config = wire(config(&address, &topic.name));
        config.request_timeout_ms = LIMIT.as_millis() as u64;
        let mut sink = plain_sink(&config);
        let mut source = open_source(&config).expect("a thread");
        let case = format!("{name}, {kind}, seed {seed}, round {round}");
        let (worked, Taken { most, largest }) =
            taken_by(|| within(LIMIT * 4, || (0..2).all(|_| call(name, &mut sink, &mut source, &group))));
        assert!(most < MOST_BYTES && largest < MOST_BYTES / 2, "{case}: {most} bytes, {largest} at once");
        let was_harmed = *harmed.lock().expect("no panic holds it");
        // Of that answer the end is not looked at.
        let is_sure = HARMS[..SURE].contains(&kind)
            && !(name == "topic id" && ["cut short", "stretched"].contains(&kind));
        assert!(!(worked && was_harmed && is_sure), "{case}: taken for an answer");
        proxy.cut();
    }
    proxy.mangle(|frame| frame.to_vec());
    send_all(&mut sink_to(&address, &topic), &["all is well again"]);
}
