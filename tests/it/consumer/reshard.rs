//! The number of shards changes while clients repeat events: each event is in one log, whatever is killed when.
//!
//! Each layout has its own directory, as docs/OPERATION.md says, so no file of another one is ever moved.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::consumer::load::Load;
use crate::consumer::repeats::{IDS, count, repeating};
use crate::consumer::{CATCH_UP, Site, lines_of, log_files, payload, wait_ready};
use crate::support::kafka::shared;
use crate::support::process::{Program, Running};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const PARTITIONS: i32 = 3;

/// The consumers of a topic, in layouts of one to three shards.
struct Shards<'a> {
    site: Site<'a>,
}

impl<'a> Shards<'a> {
    fn new(topic: &'a Topic) -> Self {
        Self { site: Site::new(topic) }
    }

    fn dir(&self, count: i32) -> PathBuf {
        self.site.logs().join(format!("of-{count}"))
    }

    fn program(&self, index: i32, count: i32) -> Program {
        let settings = [IDS, ("LOG_ROTATE_BYTES", "100000"), ("LOG_ROTATE_GZIP", "true")];
        let log = format!("logs/of-{count}/events.log");
        let program = self.site.program(&settings).env("LOG_FILE", log);
        program.env("CONSUMER_SHARD", format!("{index}/{count}"))
    }

    /// Starts all consumers of a layout.
    fn start(&self, count: i32) -> Vec<Running> {
        let mut started: Vec<Running> = (0..count).map(|index| self.program(index, count).start()).collect();
        started.iter_mut().for_each(wait_ready);
        started
    }

    /// Offsets covered by the checkpoints of a layout, all partitions together.
    fn covered(&self, count: i32) -> usize {
        let names = (0..count).map(|index| match count {
            1 => "of-1/events.log.checkpoint".to_owned(),
            _ => format!("of-{count}/events-{index}.log.checkpoint"),
        });
        let checkpoints = names.filter_map(|name| self.site.checkpoint(&name));
        let sum = |checkpoint: serde_json::Value| -> u64 {
            let offsets = checkpoint["offsets"].as_object().expect("offsets");
            offsets.values().map(|offset| offset.as_u64().expect("an offset")).sum()
        };
        checkpoints.map(sum).sum::<u64>() as usize
    }

    #[track_caller]
    fn wait_caught_up(&self, count: i32) {
        let records = self.site.topic.count();
        eventually(CATCH_UP, &format!("all {records} records are covered"), || {
            self.covered(count) == records
        });
    }

    /// Each id of the topic is in one of all logs once, and the topic had some more often.
    #[track_caller]
    fn assert_once(&self) {
        let files = (1..=PARTITIONS).flat_map(|count| log_files(&self.dir(count)));
        let lines: Vec<String> = files.flat_map(|file| lines_of(&file)).collect();
        let logged = count(lines.iter().map(|line| payload(line)));
        let records = self.site.topic.records();
        let sent = count(records.iter().map(|record| record.text()));
        let wrong: Vec<_> = logged.iter().filter(|(_, times)| **times != 1).take(5).collect();
        assert!(wrong.is_empty(), "logged more than once: {wrong:?}");
        let lost: Vec<_> = sent.keys().filter(|id| !logged.contains_key(*id)).take(5).collect();
        assert!(lost.is_empty() && logged.len() == sent.len(), "lost: {lost:?}");
        assert!(records.len() > sent.len(), "nothing was repeated");
    }
}

#[track_caller]
fn stop(consumers: Vec<Running>) -> Vec<String> {
    let stopped = consumers.into_iter().map(|mut consumer| {
        assert!(consumer.terminate(secs(60)).success(), "{}", consumer.stderr());
        consumer.stderr()
    });
    stopped.collect()
}

/// Sends a new event of this round to each partition, and repeats those of the rounds before.
fn send(topic: &Topic, rounds: &mut usize) {
    *rounds += 1;
    for partition in 0..PARTITIONS {
        let event = |round| format!("{{\"event_id\": \"{partition}-{round}\"}}\n");
        let lines: String = (1..=*rounds).map(event).collect();
        topic.kcat(&["-P", "-p", &partition.to_string()], lines.as_bytes());
    }
}

#[test]
fn a_repeat_is_dropped_by_whichever_shard_reads_the_partition_now() {
    let topic = shared().topic();
    let shards = Shards::new(&topic);
    let mut rounds = 0;
    for count in [1, 3, 1, 2, 3, 2, 1] {
        let consumers = shards.start(count);
        send(&topic, &mut rounds);
        shards.wait_caught_up(count);
        let said = stop(consumers);
        let reads = said.iter().filter(|said| said.contains("events that other logs have from the topic"));
        assert_eq!(reads.count(), if rounds == 1 { 0 } else { count as usize }, "{said:?}");
        // Nobody reads these before the next layout.
        send(&topic, &mut rounds);
    }
    let consumers = shards.start(3);
    shards.wait_caught_up(3);
    stop(consumers);
    shards.assert_once();
}

#[test]
fn without_a_change_of_shards_nothing_is_read_back() {
    let topic = shared().topic();
    let shards = Shards::new(&topic);
    let mut rounds = 0;
    for _ in 0..2 {
        let consumers = shards.start(2);
        send(&topic, &mut rounds);
        shards.wait_caught_up(2);
        let said = stop(consumers);
        assert!(!said.iter().any(|said| said.contains("other logs have")), "{said:?}");
    }
    shards.assert_once();
}

/// Kills each of the consumers, and starts it once more as it was until one stop is orderly, which is killed at first.
fn kill_and_end(shards: &Shards<'_>, consumers: Vec<Running>) {
    let layout = consumers.len() as i32;
    for (index, mut consumer) in (0..).zip(consumers) {
        thread::sleep(Duration::from_millis(fastrand::u64(0..300)));
        consumer.kill();
        let mut stopping = shards.program(index, layout).start();
        wait_ready(&mut stopping);
        stopping.signal(libc::SIGTERM);
        thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
        // It may have ended already.
        stopping.kill();
        let mut last = shards.program(index, layout).start();
        wait_ready(&mut last);
        assert!(last.terminate(secs(60)).success(), "{}", last.stderr());
    }
}

/// Kills the new consumers while they start, then starts them for good.
fn kill_starts(shards: &Shards<'_>, count: i32) -> Vec<Running> {
    for _ in 0..3 {
        let started: Vec<Running> = (0..count).map(|index| shards.program(index, count).start()).collect();
        for mut consumer in started {
            thread::sleep(Duration::from_millis(fastrand::u64(0..250)));
            consumer.kill();
        }
    }
    shards.start(count)
}

#[test]
fn kills_at_any_step_of_a_change_of_shards_lose_and_repeat_nothing() {
    let topic = shared().topic();
    let shards = Shards::new(&topic);
    let load = Load::keyed(&topic, repeating);
    let mut consumers = shards.start(1);
    for count in [3, 2, 3, 1] {
        let before = shards.covered(consumers.len() as i32);
        eventually(secs(60), "the consumers make progress", || {
            shards.covered(consumers.len() as i32) > before + 1000
        });
        kill_and_end(&shards, consumers);
        consumers = kill_starts(&shards, count);
    }
    assert!(load.finish() > 1000);
    shards.wait_caught_up(1);
    stop(consumers);
    shards.assert_once();
    assert!(fs::read_dir(shards.dir(2)).expect("made").count() > 2);
}
