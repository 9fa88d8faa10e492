//! Tests exactly-once logging by stopping the log at every single file operation, with a kill or a power cut.
//! After the restart, the log must hold every record once.

mod cut;
mod destination;
mod ownership;
mod parted;
mod recalled;
mod refusals;
mod repeats;
mod sim_disk;
mod start;

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;

use crate::broker::Bounds;
use crate::config::{Fsync, OffsetReset};
use crate::consumer::destination::{DestinationError, Recalled};
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::ids::Settings;
use crate::consumer::log::lines::Lines;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::recovery::{Recovered, read_checkpoint, recover};
use crate::consumer::log::storage::Storage;
use crate::consumer::progress::{Offsets, Progress};
use crate::consumer::start::{Topic, resume};
use sim_disk::SimDisk;

const PARTITIONS: i32 = 2;
const RECORDS: i64 = 14;
const BATCH: i64 = 3;
/// The log is closed when it exceeds this size.
const ROTATE_BYTES: u64 = 300;
/// Attempts of one step before a test gives up: more than any injected failure lasts.
const TRIES: usize = 60;
const LOG: &str = "logs/events.log";
const BOOT: &str = "boot";

/// Every third record is not a valid event.
fn is_rejected(offset: i64) -> bool {
    offset % 3 == 2
}

fn value(partition: i32, offset: i64) -> String {
    format!("{{\"p\":{partition},\"n\":{offset}}}")
}

/// The number of the batch before which another program renames the log.
type MovedBefore = Option<usize>;

fn topic() -> Topic<'static> {
    let bound = |partition| Bounds { partition, earliest: 0, latest: RECORDS };
    Topic {
        name: "events",
        id: Some("first".into()),
        shard: "0/1".into(),
        log_id: "log".into(),
        claim: 1,
        bounds: (0..PARTITIONS).map(bound).collect(),
        unread: Vec::new(),
        committed: Offsets::new(),
        taken_over: Offsets::new(),
        compared: Vec::new(),
        reset: OffsetReset::None,
    }
}

/// Opens the log as a start does, and returns the notes for the operator.
fn open(
    disk: &SimDisk,
    topic: &Topic<'_>,
    fsync: Fsync,
    boot: &str,
) -> Result<(EventLog<SimDisk>, Vec<String>), DestinationError> {
    open_with(disk, topic, fsync, boot, None).map(|opened| (opened.log, opened.notes))
}

/// The same, and drops repeated events if there are settings for it, also those of the recalled ones.
fn open_with(
    disk: &SimDisk,
    topic: &Topic<'_>,
    fsync: Fsync,
    boot: &str,
    ids: Option<(&Settings, &[Recalled])>,
) -> Result<Recovered<SimDisk>, DestinationError> {
    let paths = Paths::of(Path::new(LOG));
    let checkpoint = read_checkpoint(disk, &paths)?;
    let (stored, marks) = checkpoint.map(|found| (found.progress, found.files)).unzip();
    let (progress, _) = resume(stored, topic).map_err(DestinationError::Refused)?;
    recover(disk.clone(), &paths, marks, progress, fsync, boot, ids)
}

/// Simulates one process: recovers and logs the rest of the topic. Ends early when the disk crashes.
fn run(disk: &SimDisk, fsync: Fsync, moved_before: MovedBefore) {
    let Some((mut log, _)) = tries(disk, || open(disk, &topic(), fsync, BOOT)) else { return };
    let mut log = &mut log;
    let mut read = log.covered().clone();
    for number in 0.. {
        if read.offsets.values().all(|&next| next == RECORDS) {
            break;
        }
        if moved_before == Some(number) {
            disk.rename_by_others(Path::new(LOG), Path::new("logs/events.log.1"));
        }
        stage(log, &mut read);
        let cover = fsync == Fsync::Batch || number % 2 == 1;
        let done = steps(disk, log, |log| log.settle(cover))
            .and_then(|log| {
                if log.bytes() > ROTATE_BYTES { steps(disk, log, |log| log.settle(true)) } else { Some(log) }
            })
            .and_then(|log| {
                if log.bytes() > ROTATE_BYTES { steps(disk, log, |log| log.rotate(0)) } else { Some(log) }
            });
        let Some(next) = done else { return };
        log = next;
    }
    steps(disk, log, EventLog::close);
}

fn stage(log: &mut EventLog<SimDisk>, read: &mut Progress) {
    let (mut lines, mut rejected) = (Lines::default(), Lines::default());
    for (&partition, next) in &mut read.offsets {
        for offset in *next..(*next + BATCH).min(RECORDS) {
            let to = if is_rejected(offset) { &mut rejected } else { &mut lines };
            to.add(0, &value(partition, offset));
            *next = offset + 1;
        }
    }
    log.stage(&mut [lines.take(), rejected.take()], read, 0, None);
}

fn steps<'a>(
    disk: &SimDisk,
    log: &'a mut EventLog<SimDisk>,
    mut step: impl FnMut(&mut EventLog<SimDisk>) -> Result<(), DestinationError>,
) -> Option<&'a mut EventLog<SimDisk>> {
    tries(disk, || step(log))?;
    Some(log)
}

/// Retries until it succeeds. Returns `None` if the process has died.
fn tries<T>(disk: &SimDisk, mut step: impl FnMut() -> Result<T, DestinationError>) -> Option<T> {
    for number in 0.. {
        match step() {
            _ if disk.crashed() => return None,
            Ok(value) => return Some(value),
            Err(error) => assert!(number < TRIES, "still failing after {TRIES} attempts: {error:?}"),
        }
    }
    None
}

/// Checks that every record was written once, complete, and in the order of its partition.
fn audit(disk: &SimDisk, what: &str) {
    let text = |wanted: fn(&str) -> bool| String::from_utf8(disk.contents(wanted)).expect("text");
    let logs = text(|name| {
        name.starts_with("events") && [".log", ".log.1", ".log.1.gz"].iter().any(|end| name.ends_with(end))
    });
    let rejected = text(|name| name.ends_with(".rejected"));
    for (text, is_in) in [(logs, false), (rejected, true)] {
        for partition in 0..PARTITIONS {
            let wanted: Vec<String> = (0..RECORDS)
                .filter(|&offset| is_rejected(offset) == is_in)
                .map(|offset| format!("1970-01-01 00:00:00,000 - {}", value(partition, offset)))
                .collect();
            let mine = format!("{{\"p\":{partition},");
            let mut found: Vec<&str> = text.lines().filter(|line| line.contains(&mine)).collect();
            // Closed logs, the open log and a renamed log do not sort by age, so sort by record number.
            found.sort_by_key(|line| wanted.iter().position(|other| other == line));
            assert_eq!(found, wanted, "{what}, partition {partition}, rejected {is_in}\n{text}");
        }
        assert!(text.is_empty() || text.ends_with('\n'), "{what}: torn end");
        let all = text.lines().count();
        let whole = text.lines().filter(|line| line.starts_with("1970-01-01 00:00:00,000 - {")).count();
        assert_eq!(all, whole, "{what}: foreign or torn lines\n{text}");
    }
}

/// Checks that every event is in some log at least once.
fn audit_nothing_lost(disk: &SimDisk, what: &str) {
    let text = String::from_utf8(disk.contents(|_| true)).expect("text");
    for (partition, offset) in (0..PARTITIONS).flat_map(|partition| (0..RECORDS).map(move |n| (partition, n)))
    {
        let line = format!("1970-01-01 00:00:00,000 - {}\n", value(partition, offset));
        assert!(text.contains(&line), "{what}: partition {partition} offset {offset} is lost\n{text}");
    }
}

fn operations_of(fsync: Fsync, moved_before: MovedBefore) -> usize {
    let disk = SimDisk::default();
    run(&disk, fsync, moved_before);
    audit(&disk, "without a crash");
    disk.operations()
}

const INTERVAL: Fsync = Fsync::Interval(Duration::from_millis(10));
const MOVES: [MovedBefore; 4] = [None, Some(0), Some(1), Some(3)];

#[test]
fn a_kill_at_any_operation_loses_and_repeats_nothing() {
    for fsync in [Fsync::Batch, INTERVAL, Fsync::Never] {
        for moved in MOVES {
            for at in 1..=operations_of(fsync, moved) {
                let disk = SimDisk::default();
                disk.crash_at(at);
                run(&disk, fsync, moved);
                let next = disk.after_kill();
                run(&next, fsync, None);
                audit(&next, &format!("{fsync:?}, moved {moved:?}, killed in operation {at}"));
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_and_repeats_nothing() {
    for fsync in [Fsync::Batch, INTERVAL] {
        for moved in MOVES {
            for at in 1..=operations_of(fsync, moved) {
                for seed in 0..16 {
                    let disk = SimDisk::default();
                    disk.crash_at(at);
                    run(&disk, fsync, moved);
                    let next = disk.after_power_cut(&mut Rng::with_seed(seed));
                    run(&next, fsync, None);
                    audit(&next, &format!("{fsync:?}, moved {moved:?}, cut in operation {at}, seed {seed}"));
                }
            }
        }
    }
}

#[test]
fn a_crash_in_the_recovery_from_a_crash_loses_and_repeats_nothing() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let fsync = if rng.bool() { Fsync::Batch } else { INTERVAL };
        let mut disk = SimDisk::default();
        for _ in 0..rng.usize(1..6) {
            disk.crash_at(rng.usize(1..40));
            run(&disk, fsync, None);
            disk = if rng.bool() { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
        }
        run(&disk, fsync, None);
        audit(&disk, &format!("seed {seed}"));
    }
}

#[test]
fn a_disk_that_fails_for_a_while_loses_and_repeats_nothing() {
    for fsync in [Fsync::Batch, INTERVAL, Fsync::Never] {
        for moved in MOVES {
            for from in 1..=operations_of(fsync, moved) {
                for length in [0, 1, 2, 7, 20] {
                    let disk = SimDisk::default();
                    disk.fail(from, from + length);
                    run(&disk, fsync, moved);
                    audit(&disk, &format!("{fsync:?}, moved {moved:?}, {from} failed for {length}"));
                }
            }
        }
    }
}

/// `compress` of logrotate reads the file to its end and deletes it, so what it has read must not be written
/// again.
#[test]
fn a_log_compressed_by_others_before_any_operation_loses_and_repeats_nothing() {
    let (log, packed) = (Path::new(LOG), Path::new("logs/events.log.1.gz"));
    for fsync in [Fsync::Batch, INTERVAL, Fsync::Never] {
        for at in 1..=operations_of(fsync, None) {
            let disk = SimDisk::default();
            disk.compress_at(at, log, packed);
            run(&disk, fsync, None);
            audit(&disk, &format!("{fsync:?}, compressed before operation {at}"));
            for fails_at in 1..at {
                let disk = SimDisk::default();
                disk.compress_at(at, log, packed);
                disk.fail(fails_at, fails_at);
                run(&disk, fsync, None);
                audit_nothing_lost(&disk, &format!("{fsync:?}, {fails_at} failed, compressed before {at}"));
            }
        }
    }
}

#[test]
fn a_power_cut_while_the_disk_fails_loses_and_repeats_nothing() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let fsync = if rng.bool() { Fsync::Batch } else { INTERVAL };
        let disk = SimDisk::default();
        let from = rng.usize(1..60);
        disk.fail(from, from + rng.usize(0..15));
        disk.crash_at(rng.usize(from..from + 40));
        run(&disk, fsync, None);
        let next = disk.after_power_cut(&mut rng);
        run(&next, fsync, None);
        audit(&next, &format!("seed {seed}"));
    }
}
