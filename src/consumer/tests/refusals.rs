//! Tests that a checkpoint that does not match the files or the topic is refused with a list of options, and
//! that nothing is truncated, skipped or duplicated.

use super::*;

fn start(disk: &SimDisk, topic: &Topic<'_>, fsync: Fsync, boot: &str) -> Result<Vec<String>, String> {
    open(disk, topic, fsync, boot).map(|(_, notes)| notes).map_err(reason)
}

fn reason(error: DestinationError) -> String {
    match error {
        DestinationError::Refused(reason) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// A disk on which the whole topic has been logged. `in_order` says whether the process shut down cleanly.
fn logged(fsync: Fsync, in_order: bool) -> SimDisk {
    let disk = SimDisk::default();
    if !in_order {
        // Without the first operation of the last checkpoint, the shutdown was not clean.
        let last_checkpoint = if fsync == Fsync::Never { 2 } else { 5 };
        disk.crash_at(operations_of(fsync, None) + 1 - last_checkpoint);
    }
    run(&disk, fsync, None);
    disk.after_kill()
}

fn log_of(disk: &SimDisk) -> Vec<u8> {
    disk.contents(|name| name == "events.log")
}

fn torn(disk: &SimDisk) -> Vec<u8> {
    disk.contents(|name| name.ends_with(".torn"))
}

#[test]
fn a_replaced_cut_or_deleted_log_is_refused() {
    let cases: [fn(&SimDisk); 3] = [
        |disk| disk.put(Path::new(LOG), &[b'x'; 5000]),
        |disk| disk.put(Path::new(LOG), b"short\n"),
        |disk| disk.rename_by_others(Path::new(LOG), Path::new("logs/elsewhere")),
    ];
    for (number, spoil) in cases.iter().enumerate() {
        let disk = logged(Fsync::Batch, false);
        spoil(&disk);
        let before = log_of(&disk);
        let refused = start(&disk, &topic(), Fsync::Batch, BOOT).expect_err("refused");
        assert!(
            refused.contains("does not match its checkpoint") && refused.contains("Options:"),
            "{number}: {refused}"
        );
        assert_eq!(log_of(&disk), before, "{number}: nothing is touched");
    }
}

#[test]
fn a_log_that_was_taken_away_after_an_orderly_stop_is_followed_by_a_new_one() {
    let disk = logged(Fsync::Batch, true);
    disk.rename_by_others(Path::new(LOG), Path::new("logs/elsewhere"));
    let notes = start(&disk, &topic(), Fsync::Batch, BOOT).expect("starts");
    assert!(notes.iter().any(|note| note.contains("moved or deleted")), "{notes:?}");
    assert_eq!(log_of(&disk), b"");
}

#[test]
fn bytes_that_somebody_appended_after_an_orderly_stop_are_kept_beside() {
    let disk = logged(Fsync::Batch, true);
    let ours = log_of(&disk);
    disk.put(Path::new(LOG), &[&ours[..], b"by hand\n"].concat());
    start(&disk, &topic(), Fsync::Batch, BOOT).expect("starts");
    assert_eq!((log_of(&disk), torn(&disk)), (ours, b"by hand\n".to_vec()));
}

#[test]
fn a_torn_tail_that_cannot_be_read_again_is_kept_beside() {
    let disk = logged(Fsync::Batch, false);
    let ours = log_of(&disk);
    disk.put(Path::new(LOG), &[&ours[..], b"2025-07-08 00:1"].concat());
    let mut topic = topic();
    topic.bounds[0] = Bounds { partition: 0, earliest: RECORDS + 5, latest: RECORDS + 9 };
    let refused = start(&disk, &topic, Fsync::Batch, BOOT).expect_err("refused");
    assert!(refused.contains("5 offsets were deleted"), "{refused}");
    topic.reset = OffsetReset::Earliest;
    start(&disk, &topic, Fsync::Batch, BOOT).expect("starts");
    assert_eq!((log_of(&disk), torn(&disk)), (ours, b"2025-07-08 00:1".to_vec()));
}

#[test]
fn an_unreadable_checkpoint_is_refused() {
    let disk = logged(Fsync::Batch, true);
    disk.put(Path::new("logs/events.log.checkpoint"), b"{\"version\":2");
    let refused = start(&disk, &topic(), Fsync::Batch, BOOT).expect_err("refused");
    assert!(refused.contains("cannot be read") && refused.contains("group"), "{refused}");
}

#[test]
fn a_topic_that_was_created_again_is_refused_or_read_from_its_beginning() {
    let disk = logged(Fsync::Batch, true);
    let mut again = Topic { id: Some("second".into()), ..topic() };
    let refused =
        start(&disk, &again, Fsync::Batch, BOOT).expect_err("refused although every offset is in range");
    assert!(refused.contains("deleted and created again") && refused.contains("KAFKA_GROUP"), "{refused}");
    again.reset = OffsetReset::Earliest;
    let (log, _) = open(&disk, &again, Fsync::Batch, BOOT).expect("starts");
    assert_eq!(log.covered().offsets, Offsets::from([(0, 0), (1, 0)]));
    assert_eq!(log.covered().topic_id.as_deref(), Some("second"));
}

#[test]
fn without_fsync_a_power_cut_is_told_from_a_kill() {
    let disk = logged(Fsync::Never, false);
    start(&disk.after_kill(), &topic(), Fsync::Never, BOOT).expect("a kill loses nothing");
    disk.put(Path::new(LOG), b"");
    let refused = start(&disk, &topic(), Fsync::Never, "the next boot").expect_err("refused");
    assert!(refused.contains("LOG_FSYNC=never"), "{refused}");
}

#[test]
fn without_a_checkpoint_the_group_decides_and_an_open_line_is_kept_beside() {
    let disk = SimDisk::default();
    disk.put(Path::new(LOG), b"an old line\nan open li");
    let mut topic = topic();
    topic.committed = Offsets::from([(0, 5)]);
    let (log, _) = open(&disk, &topic, Fsync::Batch, BOOT).expect("starts");
    assert_eq!(log.covered().offsets, Offsets::from([(0, 5), (1, 0)]));
    assert_eq!((log_of(&disk), torn(&disk)), (b"an old line\n".to_vec(), b"an open li".to_vec()));
    assert!(
        disk.stat(Path::new("logs/events.log.checkpoint")).expect("stat").is_some(),
        "written before the first line"
    );
}

/// The archiver, still at work after the closing before, sees the renamed log before the checkpoint says that it is
/// closed.
#[test]
fn a_log_that_was_compressed_while_it_was_closed_is_no_reason_to_stop() {
    let mut compressed = 0;
    for at in 1..=operations_of(Fsync::Batch, None) {
        let disk = SimDisk::default();
        disk.crash_at(at);
        run(&disk, Fsync::Batch, None);
        let disk = disk.after_kill();
        let Ok(Some(checkpoint)) = read_checkpoint(&disk, &Paths::of(Path::new(LOG))) else { continue };
        let Some(to) = checkpoint.files.rotate_to else { continue };
        let closed = Path::new(LOG).with_file_name(&to);
        if disk.stat(&closed).expect("stat").is_some() {
            disk.rename_by_others(&closed, &closed.with_extension("log.gz"));
            disk.put(&closed.with_extension("log.gz"), b"compressed");
            start(&disk, &topic(), Fsync::Batch, BOOT).unwrap_or_else(|reason| panic!("{at}: {reason}"));
            compressed += 1;
        }
    }
    assert!(compressed > 0);
}

/// Kafka may have lost them since, whatever its leaders say; but a crash loop must not fill the disk.
#[test]
fn lines_that_no_checkpoint_covers_are_kept_beside_up_to_a_limit() {
    let disk = logged(Fsync::Batch, false);
    let ours = log_of(&disk);
    for number in 0..12 {
        disk.put(Path::new(LOG), &[&ours[..], format!("cut {number}\n").as_bytes()].concat());
        start(&disk, &topic(), Fsync::Batch, BOOT).expect("starts");
        let kept: Vec<String> =
            (number - 7..=number).filter(|&at| at >= 0).map(|at| format!("cut {at}")).collect();
        let torn = String::from_utf8(torn(&disk)).expect("text");
        let mut found: Vec<&str> = torn.lines().collect();
        found.reverse();
        assert_eq!((log_of(&disk), found), (ours.clone(), kept.iter().map(String::as_str).collect()));
    }
}
