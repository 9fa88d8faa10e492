//! Stops the log at every file operation of a start that continues after another log: no event of either is repeated.

use super::repeats::{event, log_the_rest, logs, settings};
use super::*;
use crate::event::one_line;

/// Where the other log ends and ours goes on, between two records with the same id.
const TAKEN_AT: i64 = 7;

/// The events with an id in `offsets` of both partitions, as they are read back from the topic.
fn recalled(offsets: std::ops::Range<i64>) -> Vec<Recalled> {
    let texts = offsets.flat_map(|offset| [event(0, offset), event(1, offset)]);
    let recall = |text: String| {
        let id = one_line(text.as_bytes(), Some(&settings().field)).expect("valid").id.expect("it has one");
        Recalled { time: 0, id: id.text.as_ref().into(), checksum: id.checksum }
    };
    texts.map(recall).collect()
}

/// One process, which goes on at [`TAKEN_AT`] after another log that has everything from `own_end` on.
fn take_over(disk: &SimDisk, own_end: i64, fsync: Fsync) {
    let taken: Offsets = (0..PARTITIONS).map(|partition| (partition, TAKEN_AT)).collect();
    let opened = tries(disk, || {
        let stored = read_checkpoint(disk, &Paths::of(Path::new(LOG)))?.map(|checkpoint| checkpoint.progress);
        // As in a start: the checkpoint decides once it is as far as the group.
        let is_ahead = stored.is_some_and(|stored| stored.offsets.values().all(|&next| next >= TAKEN_AT));
        let events = if is_ahead { Vec::new() } else { recalled(own_end..TAKEN_AT) };
        open_at(disk, &taken, is_ahead, &events, fsync)
    });
    let Some(found) = opened else { return };
    log_the_rest(disk, found, RECORDS, fsync, None);
}

fn open_at(
    disk: &SimDisk,
    taken: &Offsets,
    is_ahead: bool,
    events: &[Recalled],
    fsync: Fsync,
) -> Result<Recovered<SimDisk>, DestinationError> {
    let paths = Paths::of(Path::new(LOG));
    let checkpoint = read_checkpoint(disk, &paths)?;
    let (mut stored, marks) = checkpoint.map(|found| (found.progress, found.files)).unzip();
    if let Some(stored) = stored.as_mut().filter(|_| !is_ahead) {
        stored.offsets.clear();
        stored.trails.clear();
    }
    let topic = Topic { committed: taken.clone(), ..topic() };
    let (progress, _) = resume(stored, &topic).map_err(DestinationError::Refused)?;
    recover(disk.clone(), &paths, marks, progress, fsync, BOOT, Some((&settings(), events)))
}

/// The log of a share that was given up at `own_end`, or none.
fn before(own_end: i64, fsync: Fsync) -> SimDisk {
    let disk = SimDisk::default();
    if own_end > 0 {
        let wanted = settings();
        let found = open_with(&disk, &topic(), fsync, BOOT, Some((&wanted, &[][..]))).expect("opened");
        log_the_rest(&disk, found, own_end, fsync, None);
    }
    disk
}

/// Our log has what came before `own_end` and after [`TAKEN_AT`], but not the repeat of what the other one has.
fn audit_taken(disk: &SimDisk, own_end: i64, what: &str) {
    let text = logs(disk);
    for id in 0..RECORDS / 2 {
        let is_ours = id * 2 < own_end || id * 2 >= TAKEN_AT;
        let count = text.matches(&format!("\"event_id\":\"e{id}\"}}\n")).count();
        assert_eq!(count, usize::from(is_ours), "{what}: id e{id}\n{text}");
    }
}

#[test]
fn a_kill_at_any_operation_of_a_takeover_repeats_no_id() {
    // Without a log of our own, and with one that was given up before.
    for (own_end, fsync) in
        [0, 4].into_iter().flat_map(|own_end| [(own_end, Fsync::Batch), (own_end, Fsync::Never)])
    {
        let disk = before(own_end, fsync);
        let first = disk.operations();
        take_over(&disk, own_end, fsync);
        audit_taken(&disk, own_end, "without a crash");
        let last = disk.operations();
        assert!(last > first + 10, "{first} to {last}");
        for at in first + 1..=last {
            let disk = before(own_end, fsync);
            disk.crash_at(at);
            take_over(&disk, own_end, fsync);
            let next = disk.after_kill();
            take_over(&next, own_end, fsync);
            audit_taken(&next, own_end, &format!("{own_end}, {fsync:?}, killed in operation {at}"));
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_of_a_takeover_repeats_no_id() {
    for own_end in [0, 4] {
        let disk = before(own_end, Fsync::Batch);
        let first = disk.operations();
        take_over(&disk, own_end, Fsync::Batch);
        for at in first + 1..=disk.operations() {
            for seed in 0..6 {
                let disk = before(own_end, Fsync::Batch);
                disk.crash_at(at);
                take_over(&disk, own_end, Fsync::Batch);
                let next = disk.after_power_cut(&mut Rng::with_seed(seed));
                take_over(&next, own_end, Fsync::Batch);
                audit_taken(&next, own_end, &format!("{own_end}, cut in operation {at}, seed {seed}"));
            }
        }
    }
}
