//! Stops the log at every file operation while it drops repeated events: each id must be in it once.

use super::*;
use crate::consumer::log::dedup::{Dedup, Verdict};
use crate::consumer::log::ids::Limits;
use crate::event::one_line;

const FIELD: &str = "event_id";

/// Of one generation there are two ids, so that generations come and go in each run.
const IDS_KEPT: usize = 4;

pub fn settings() -> Settings {
    Settings { field: FIELD.into(), limits: Limits { millis: 3_600_000, ids: IDS_KEPT } }
}

/// Two records of each partition have the same id, so there are four of each.
pub fn event(partition: i32, offset: i64) -> String {
    format!("{{\"p\":{partition},\"n\":{offset},\"event_id\":\"e{}\"}}", offset / 2)
}

fn open_log(
    disk: &SimDisk,
    ids: Option<&Settings>,
    fsync: Fsync,
) -> Result<Recovered<SimDisk>, DestinationError> {
    open_with(disk, &topic(), fsync, BOOT, ids.map(|settings| (settings, &[][..])))
}

/// Simulates one process that logs the rest of the topic. Ends early when the disk crashes.
fn run_with_ids(disk: &SimDisk, fsync: Fsync, moved: Option<(usize, &str)>) {
    let settings = settings();
    let Some(found) = tries(disk, || open_log(disk, Some(&settings), fsync)) else { return };
    log_the_rest(disk, found, RECORDS, fsync, moved);
}

/// Logs the records up to `end`.
pub fn log_the_rest(
    disk: &SimDisk,
    found: Recovered<SimDisk>,
    end: i64,
    fsync: Fsync,
    moved: Option<(usize, &str)>,
) {
    let (mut log, mut dedup) = (found.log, found.dedup.expect("wanted"));
    let mut read = log.covered().clone();
    for number in 0.. {
        if read.offsets.values().all(|&next| next == end) {
            break;
        }
        if let Some((_, name)) = moved.filter(|(before, _)| *before == number) {
            disk.rename_by_others(&Path::new("logs").join(name), Path::new("logs/moved"));
        }
        let cover = fsync == Fsync::Batch || number % 2 == 1;
        if stage_batch(disk, &mut log, &mut dedup, &mut read, end).is_none()
            || tries(disk, || log.settle(cover)).is_none()
        {
            return;
        }
        if log.bytes() > ROTATE_BYTES
            && (tries(disk, || log.settle(true)).is_none() || tries(disk, || log.rotate(0)).is_none())
        {
            return;
        }
    }
    tries(disk, || log.close());
}

/// Returns `None` if the process has died.
fn stage_batch(
    disk: &SimDisk,
    log: &mut EventLog<SimDisk>,
    dedup: &mut Dedup,
    read: &mut Progress,
    end: i64,
) -> Option<()> {
    let mut lines = Lines::default();
    for partition in 0..PARTITIONS {
        for _ in 0..BATCH {
            let offset = read.offsets[&partition];
            if offset == end {
                continue;
            }
            let text = event(partition, offset);
            let id = one_line(text.as_bytes(), Some(FIELD)).expect("valid").id.expect("it has one");
            let mut verdict = dedup.judge(&id, None, 0);
            if verdict == Verdict::Full {
                let (entries, window) = dedup.take();
                log.stage(&mut [lines.take(), &mut Vec::new(), entries], read, 0, Some(window));
                tries(disk, || log.settle(true))?;
                tries(disk, || dedup.begin_generation(log))?;
                verdict = dedup.judge(&id, None, 0);
            }
            if let Verdict::New(fingerprint) = verdict {
                lines.add(0, &text);
                dedup.add(fingerprint, id.checksum);
            }
            read.offsets.insert(partition, offset + 1);
        }
    }
    let (entries, window) = dedup.take();
    log.stage(&mut [lines.take(), &mut Vec::new(), entries], read, 0, Some(window));
    Some(())
}

/// Checks that each id is in some log once, and that no line is torn.
fn audit_ids(disk: &SimDisk, what: &str) {
    let text = logs(disk);
    for id in 0..RECORDS / 2 {
        let count = text.matches(&format!("\"event_id\":\"e{id}\"}}\n")).count();
        assert_eq!(count, 1, "{what}: id e{id}\n{text}");
    }
    assert_eq!(text.lines().count() as i64, RECORDS / 2, "{what}\n{text}");
}

pub fn logs(disk: &SimDisk) -> String {
    let is_log = |name: &str| (name.starts_with("events") && name.ends_with(".log")) || name == "moved";
    // A moved file of ids is not UTF-8.
    String::from_utf8_lossy(&disk.contents(is_log)).into_owned()
}

fn operations_with_ids(fsync: Fsync) -> usize {
    let disk = SimDisk::default();
    run_with_ids(&disk, fsync, None);
    audit_ids(&disk, "without a crash");
    disk.operations()
}

#[test]
fn a_kill_at_any_operation_repeats_no_id() {
    for fsync in [Fsync::Batch, INTERVAL, Fsync::Never] {
        for at in 1..=operations_with_ids(fsync) {
            let disk = SimDisk::default();
            disk.crash_at(at);
            run_with_ids(&disk, fsync, None);
            let next = disk.after_kill();
            run_with_ids(&next, fsync, None);
            audit_ids(&next, &format!("{fsync:?}, killed in operation {at}"));
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_repeats_no_id() {
    for fsync in [Fsync::Batch, INTERVAL] {
        for at in 1..=operations_with_ids(fsync) {
            for seed in 0..6 {
                let disk = SimDisk::default();
                disk.crash_at(at);
                run_with_ids(&disk, fsync, None);
                let next = disk.after_power_cut(&mut Rng::with_seed(seed));
                run_with_ids(&next, fsync, None);
                audit_ids(&next, &format!("{fsync:?}, cut in operation {at}, seed {seed}"));
            }
        }
    }
}

#[test]
fn a_crash_in_the_recovery_from_a_crash_repeats_no_id() {
    for seed in 0..1000 {
        let mut rng = Rng::with_seed(seed);
        let fsync = if rng.bool() { Fsync::Batch } else { INTERVAL };
        let mut disk = SimDisk::default();
        for _ in 0..rng.usize(1..6) {
            disk.crash_at(rng.usize(1..60));
            run_with_ids(&disk, fsync, None);
            disk = if rng.bool() { disk.after_kill() } else { disk.after_power_cut(&mut rng) };
        }
        run_with_ids(&disk, fsync, None);
        audit_ids(&disk, &format!("seed {seed}"));
    }
}

#[test]
fn a_disk_that_fails_for_a_while_repeats_no_id() {
    for fsync in [Fsync::Batch, INTERVAL, Fsync::Never] {
        for from in 1..=operations_with_ids(fsync) {
            for length in [0, 1, 2, 7, 20] {
                let disk = SimDisk::default();
                disk.fail(from, from + length);
                run_with_ids(&disk, fsync, None);
                audit_ids(&disk, &format!("{fsync:?}, {from} failed for {length}"));
            }
        }
    }
}

/// The file of the ids is moved while it is written, and the process is killed at any later operation.
#[test]
fn ids_that_another_program_moves_are_read_from_the_logs_again() {
    for before in 0..4 {
        for generation in 1..=3 {
            let name = format!("events.log.ids-{generation:06}");
            for at in 1..=operations_with_ids(Fsync::Batch) {
                let disk = SimDisk::default();
                disk.crash_at(at);
                run_with_ids(&disk, Fsync::Batch, Some((before, &name)));
                let next = disk.after_kill();
                run_with_ids(&next, Fsync::Batch, None);
                let what = format!("{name} moved before batch {before}, killed in operation {at}");
                let text = logs(&next);
                for id in 0..RECORDS / 2 {
                    let count = text.matches(&format!("\"event_id\":\"e{id}\"}}\n")).count();
                    assert_eq!(count, 1, "{what}: id e{id}\n{text}");
                }
            }
        }
    }
}

/// A disk on which the whole topic was logged.
fn logged() -> SimDisk {
    let disk = SimDisk::default();
    run_with_ids(&disk, Fsync::Batch, None);
    disk.after_kill()
}

fn names_of_ids(disk: &SimDisk) -> Vec<String> {
    let names = disk.names(Path::new("logs")).expect("listed");
    names.into_iter().filter(|name| name.contains(".ids-")).collect()
}

fn knows(dedup: &mut Dedup, id: i64) -> bool {
    let text = event(0, id * 2);
    let id = one_line(text.as_bytes(), Some(FIELD)).expect("valid").id.expect("it has one");
    dedup.judge(&id, None, 0) == Verdict::Repeated
}

#[test]
fn ids_are_remembered_over_a_stop_and_as_many_as_promised() {
    let disk = logged();
    let mut opened = open_log(&disk, Some(&settings()), Fsync::Batch).expect("opened");
    assert_eq!(opened.notes, Vec::<String>::new());
    let dedup = opened.dedup.as_mut().expect("wanted");
    let last = RECORDS / 2;
    assert!((last - IDS_KEPT as i64..last).all(|id| knows(dedup, id)));
    assert!(!knows(dedup, 0), "the first one was forgotten");
    assert_eq!(names_of_ids(&disk).len(), dedup.window().generations().count());
}

type Spoil<'a> = &'a dyn Fn(&SimDisk);

#[test]
fn lost_and_damaged_files_are_made_again_from_the_logs() {
    let first = names_of_ids(&logged())[0].clone();
    let spoils: [(&str, Spoil<'_>); 4] = [
        ("lost", &|disk| disk.remove(&Path::new("logs").join(&first)).expect("removed")),
        ("cut", &|disk| disk.put(&Path::new("logs").join(&first), &[1; 5])),
        ("changed", &|disk| disk.put(&Path::new("logs").join(&first), &[1; 40])),
        ("another field", &|_| {}),
    ];
    for (what, spoil) in spoils {
        let disk = logged();
        spoil(&disk);
        let mut settings = settings();
        if what == "another field" {
            settings.field = "n".into();
        }
        let mut opened = open_log(&disk, Some(&settings), Fsync::Batch).expect("opened");
        assert!(opened.notes.concat().contains("from the logs, because"), "{what}: {:?}", opened.notes);
        let dedup = opened.dedup.as_mut().expect("wanted");
        let last = RECORDS / 2;
        assert!(
            what == "another field" || (last - IDS_KEPT as i64..last).all(|id| knows(dedup, id)),
            "{what}"
        );
        assert_eq!(names_of_ids(&disk).len(), dedup.window().generations().count(), "{what}");
        // What was made is a good start for the next one.
        drop(opened);
        let again = open_log(&disk.after_kill(), Some(&settings), Fsync::Batch).expect("opened");
        assert_eq!(again.notes, Vec::<String>::new(), "{what}");
    }
}

#[test]
fn ids_begin_with_what_a_log_without_them_has_and_end_without_a_trace() {
    let disk = logged();
    drop(open_log(&disk, None, Fsync::Batch).expect("opened"));
    assert_eq!(names_of_ids(&disk), Vec::<String>::new());
    let opened = open_log(&disk.after_kill(), Some(&settings()), Fsync::Batch).expect("opened");
    assert!(opened.notes.concat().contains("they were not remembered before"), "{:?}", opened.notes);
    assert!(knows(&mut opened.dedup.expect("wanted"), RECORDS / 2 - 1));
}

#[test]
fn an_id_with_another_content_is_told_apart_and_a_new_timestamp_is_none() {
    let disk = SimDisk::default();
    let mut dedup = open_log(&disk, Some(&settings()), Fsync::Batch).expect("opened").dedup.expect("wanted");
    let mut judge = |text: &str| {
        let id = one_line(text.as_bytes(), Some(FIELD)).expect("valid").id.expect("it has one");
        let verdict = dedup.judge(&id, Some(5), 10);
        if let Verdict::New(fingerprint) = verdict {
            dedup.add(fingerprint, id.checksum);
        }
        verdict
    };
    assert!(matches!(
        judge(r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-26T00:00:00.000Z"}"#),
        Verdict::New(_)
    ));
    let again = judge(r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-26T00:00:09.000Z"}"#);
    assert_eq!(again, Verdict::Repeated);
    let other = judge(r#"{"a": 2, "event_id": "x", "timestamp": "2026-11-26T00:00:00.000Z"}"#);
    assert_eq!(other, Verdict::Differs);
    assert!(matches!(judge(r#"{"event_id": 7}"#), Verdict::New(_)));
    assert_eq!(judge(r#"{"event_id": "7"}"#), Verdict::Differs, "a number counts as its text");
    for none in [
        r#"{"a": 1}"#,
        r#"{"event_id": null}"#,
        r#"{"event_id": ""}"#,
        r#"{"event_id": true}"#,
        r#"{"event_id": {}}"#,
    ] {
        assert_eq!(one_line(none.as_bytes(), Some(FIELD)).expect("valid").id, None, "{none}");
    }
    let long = format!(r#"{{"event_id": "{}"}}"#, "x".repeat(256));
    assert_eq!(one_line(long.as_bytes(), Some(FIELD)).expect("valid").id, None);
}

/// A sender's clock that is ahead must not end the window for the others, and the time of a stop does not count.
#[test]
fn the_window_moves_with_the_records() {
    let disk = SimDisk::default();
    let mut dedup = open_log(&disk, Some(&settings()), Fsync::Batch).expect("opened").dedup.expect("wanted");
    let id = one_line(br#"{"event_id": "x"}"#, Some(FIELD)).expect("valid").id.expect("it has one");
    dedup.judge(&id, Some(i64::MAX), 1000);
    assert_eq!(dedup.window().time(), 1000, "not after the clock");
    dedup.judge(&id, Some(500), 2000);
    assert_eq!(dedup.window().time(), 1000, "never back");
    dedup.judge(&id, None, 50_000);
    assert_eq!(dedup.window().time(), 1000, "the first record without a time");
    dedup.judge(&id, None, 50_300);
    assert_eq!(dedup.window().time(), 1300, "what has passed since the one before");
}
