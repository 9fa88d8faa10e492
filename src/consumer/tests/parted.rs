//! Tests a topic that loses its end and reuses the offsets for other records: logged lines stay, and each new
//! record is logged once, no matter at which file operation the process is killed or the power is cut.

use std::collections::BTreeMap;

use super::*;
use crate::broker::{BrokerError, Compared, First, Found, LeaderLog, Page};

/// Number of records that both logs have.
const COMMON: i64 = 5;
/// Number of records in the old log when its end was lost.
const LOST_AT: i64 = 11;

/// A partition's log in the topic, with the epoch and value of each record.
struct Log {
    partition: i32,
    is_new: bool,
    len: i64,
}

impl Log {
    fn epoch(&self, offset: i64) -> i32 {
        if offset < COMMON { 1 } else { 2 }
    }

    /// That of its leader: it changes with the log.
    fn term(&self) -> Option<i32> {
        Some(if self.is_new { 3 } else { 2 })
    }

    /// The epoch is used again, as after a copy was restored.
    fn value(&self, offset: i64) -> String {
        let kind = if self.is_new && offset >= COMMON { "new" } else { "old" };
        format!("{{\"p\":{},\"n\":{offset},\"{kind}\":1}}", self.partition)
    }

    fn page(&self, from: i64) -> Page {
        let mut page = Page::new(from, self.len);
        for offset in from..(from + BATCH).min(self.len) {
            page.push(offset, None, self.value(offset).as_bytes());
            page.mark_epoch(self.epoch(offset), offset + 1);
        }
        page.set_term(self.term());
        page
    }
}

impl LeaderLog for Log {
    fn current_epoch(&self) -> i32 {
        if self.is_new { 3 } else { 2 }
    }

    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError> {
        Ok((epoch, if epoch == 1 { COMMON } else { self.len }))
    }

    fn first_in(&mut self, offset: i64, _: i64) -> Result<First, BrokerError> {
        let mut crc = flate2::Crc::new();
        crc.update(self.value(offset).as_bytes());
        Ok(if offset < self.len { First::Record(offset, crc.sum()) } else { First::Unknown })
    }
}

fn logs(is_new: bool) -> Vec<Log> {
    let len = if is_new { RECORDS } else { LOST_AT };
    (0..PARTITIONS).map(|partition| Log { partition, is_new, len }).collect()
}

/// Simulates one process that reads the old or the new log to its end. Ends early when the disk crashes.
fn run(disk: &SimDisk, is_new: bool) {
    let paths = Paths::of(Path::new(LOG));
    let mut logs = logs(is_new);
    let opened = tries(disk, || {
        let trails = read_checkpoint(disk, &paths)?.map(|found| found.progress.trails).unwrap_or_default();
        let mut topic = Topic { reset: OffsetReset::Divergence, ..topic() };
        topic.bounds.iter_mut().zip(&logs).for_each(|(bounds, log)| bounds.latest = log.len);
        for (log, partition) in logs.iter_mut().zip(0..) {
            let trail = trails.get(&partition).cloned().unwrap_or_default();
            let parting = trail.parting(log).expect("the leader answers");
            topic.compared.push(Compared { partition, found: parting.map_or(Found::Same, Found::Parted) });
        }
        open(disk, &topic, Fsync::Batch, BOOT)
    });
    let Some((mut log, _)) = opened else { return };
    let mut log = &mut log;
    let mut read = log.covered().clone();
    // As the writer does: the checkpoint names the term before lines of it follow.
    logs.iter().for_each(|log| _ = read.trails.entry(log.partition).or_default().enter(log.term()));
    log.stage(&mut [], &read, 0, None);
    let Some(next) = steps(disk, log, |log| log.settle(true)) else { return };
    log = next;
    while logs.iter().any(|log| read.offsets[&log.partition] < log.len) {
        let mut lines = Lines::default();
        for log in &logs {
            let page = log.page(read.offsets[&log.partition]);
            for (_, value) in page.records() {
                lines.add(0, std::str::from_utf8(value).expect("text"));
            }
            read.trails.entry(log.partition).or_default().cover(&page, page.next_offset);
            read.offsets.insert(log.partition, page.next_offset);
        }
        log.stage(&mut [lines.take()], &read, 0, None);
        let Some(next) = steps(disk, log, |log| log.settle(true)) else { return };
        log = next;
    }
    steps(disk, log, EventLog::close);
}

fn count(text: Vec<u8>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in String::from_utf8(text).expect("text").lines() {
        *found.entry(line.to_owned()).or_default() += 1;
    }
    found
}

/// Checks the logged lines. `before` is the content of the log when the topic lost its end.
fn audit(disk: &SimDisk, before: &BTreeMap<String, usize>, what: &str) {
    let logged = count(disk.contents(|name| name == "events.log"));
    let torn = String::from_utf8(disk.contents(|name| name.ends_with(".torn"))).expect("text");
    for log in logs(true) {
        for offset in 0..log.len {
            let line = format!("1970-01-01 00:00:00,000 - {}", log.value(offset));
            assert_eq!(logged.get(&line), Some(&1), "{what}: {line}");
        }
    }
    assert!(logged.values().all(|times| *times == 1), "{what}: {logged:?}");
    for line in before.keys().filter(|line| line.ends_with('}')) {
        assert!(logged.contains_key(line) || torn.contains(line), "{what}: {line} is gone");
    }
}

/// Counts the file operations of a complete run on `disk`.
fn operations(disk: &SimDisk, is_new: bool) -> usize {
    run(disk, is_new);
    disk.operations()
}

fn after(disk: &SimDisk, power: bool, seed: u64) -> SimDisk {
    if power { disk.after_power_cut(&mut Rng::with_seed(seed)) } else { disk.after_kill() }
}

#[test]
fn going_back_loses_and_repeats_nothing_wherever_it_was_cut() {
    for first in 1..=operations(&SimDisk::default(), false) + 1 {
        let disk = SimDisk::default();
        disk.crash_at(first);
        run(&disk, false);
        for (power, seed) in [(false, 0), (true, 1), (true, 2)] {
            let disk = after(&disk, power, seed);
            let before = count(disk.contents(|name| name == "events.log"));
            let what = format!("cut in operation {first}, power {power} {seed}");
            for second in 1..=operations(&disk.after_kill(), true) {
                let disk = disk.after_kill();
                disk.crash_at(second);
                run(&disk, true);
                let disk = after(&disk, power, seed + 7);
                run(&disk, true);
                audit(&disk, &before, &format!("{what}, then in operation {second}"));
            }
        }
    }
}
