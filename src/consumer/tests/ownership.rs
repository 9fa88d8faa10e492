//! The decisions about who owns a partition, row by row.

use crate::broker::Committed;
use crate::config::Shard;
use crate::consumer::mark::Mark;
use crate::consumer::ownership::{Claimant, Known, Ownership, decide};
use crate::consumer::progress::Offsets;

const PLACE: &str = "host:/logs/events.log";

const US: Claimant<'static> = Claimant {
    group: "g",
    topic: "t",
    topic_id: Some("topic"),
    log: "ours",
    predecessor: None,
    place: PLACE,
    shard: Shard { index: 0, count: 2 },
    take_over: &[],
};

/// A log that is begun where another one was moved away.
const NEXT: Claimant<'static> = Claimant { log: "new", predecessor: Some("ours"), ..US };

/// What the group has at `offset`, from the start with claim 4.
fn at(offset: i64, log: &str, shard: &str, stopped: bool) -> Option<Committed> {
    edited(offset, log, shard, stopped, |_| {})
}

fn edited(offset: i64, log: &str, shard: &str, stopped: bool, edit: fn(&mut Mark)) -> Option<Committed> {
    let share = Shard { index: 0, count: 1 };
    let mut mark = Mark { shard: shard.into(), stopped, ..Mark::new(log, share, PLACE, US.topic_id, 4) };
    edit(&mut mark);
    Some(Committed { offset, note: mark.encode() })
}

/// The decision about partition 0 alone, which is ours; the checkpoint has a claim and an offset.
fn about(
    committed: Option<Committed>,
    checkpoint: Option<(u64, i64)>,
    us: &Claimant<'_>,
) -> Result<Ownership, String> {
    let offsets = checkpoint.map(|(_, offset)| Offsets::from([(0, offset)])).unwrap_or_default();
    let claim = checkpoint.map(|(claim, _)| claim);
    let known = checkpoint.map(|_| Known { offsets: &offsets, claim, may_be_old: false });
    decide(us, &[0], &[committed], known)
}

#[track_caller]
fn refused(decided: Result<Ownership, String>, words: &[&str]) {
    let reason = decided.expect_err("refused");
    for word in words {
        assert!(reason.contains(word), "no {word:?} in {reason}");
    }
}

#[test]
fn offsets_without_a_mark_and_no_offsets_leave_the_decision_to_the_checkpoint() {
    for committed in [None, Some(Committed { offset: 9, note: String::new() })] {
        let ownership = about(committed, Some((1, 5)), &US).expect("free");
        assert_eq!((ownership.taken_over.len(), ownership.claim, ownership.contested), (0, 2, true));
        assert!(!ownership.follows);
    }
}

#[test]
fn a_group_that_cannot_be_asked_does_not_make_our_marks_older_than_those_that_it_has() {
    assert_eq!(about(None, Some((7, 5)), &US).expect("free").claim, 8);
}

#[test]
fn our_own_mark_leaves_the_decision_to_our_latest_checkpoint() {
    // The offset may be smaller only after a start that was ordered to go back and had not committed yet.
    for (stopped, checkpoint) in [(true, (4, 12)), (false, (4, 12)), (false, (4, 9)), (false, (5, 3))] {
        let ownership = about(at(9, "ours", "0/2", stopped), Some(checkpoint), &US).expect("ours");
        assert!(ownership.taken_over.is_empty() && ownership.claim > 4 && !ownership.follows);
        assert_eq!(ownership.contested, stopped, "others may follow one that has stopped");
    }
}

#[test]
fn an_old_copy_of_our_checkpoint_is_refused_unless_our_own_log_is_named() {
    for checkpoint in [(4, 8), (3, 9), (3, 12)] {
        for stopped in [true, false] {
            let found = at(9, "ours", "0/2", stopped);
            refused(
                about(found.clone(), Some(checkpoint), &US),
                &["older than what the same log committed", PLACE, "CONSUMER_TAKE_OVER=ours "],
            );
            let named = about(found, Some(checkpoint), &Claimant { take_over: &["ours".into()], ..US });
            let named = named.expect("from a backup");
            assert_eq!((named.taken_over.len(), named.claim), (0, 5));
        }
    }
}

#[test]
fn a_checkpoint_without_a_claim_or_from_before_a_power_cut_may_still_decide() {
    let offsets = Offsets::from([(0, 8)]);
    let known = |claim, may_be_old| Some(Known { offsets: &offsets, claim, may_be_old });
    let found = |offset| [at(offset, "ours", "0/2", false)];
    decide(&US, &[0], &found(8), known(None, false)).expect("of an earlier version");
    refused(decide(&US, &[0], &found(9), known(None, false)), &["older"]);
    decide(&US, &[0], &found(9), known(Some(3), true)).expect("LOG_FSYNC=never");
    let elsewhere = Claimant { place: "other:/logs/events.log", ..US };
    refused(decide(&elsewhere, &[0], &found(9), known(Some(3), true)), &["older"]);
    let nothing = Offsets::new();
    let added = Known { offsets: &nothing, claim: Some(4), may_be_old: false };
    let added = decide(&US, &[0], &found(9), Some(added)).expect("claimed, and nothing of it was read");
    assert_eq!(added.committed, [(0, 9)].into());
}

#[test]
fn a_new_log_follows_the_one_that_was_moved_away_from_its_place() {
    let exact = about(at(9, "ours", "0/3", true), None, &NEXT).expect("stopped");
    assert_eq!((exact.taken_over, exact.follows), ([(0, 9)].into(), true));
    let killed = about(at(9, "ours", "0/2", false), None, &NEXT).expect("killed");
    assert!(killed.notes[0].contains("logged again"), "{killed:?}");
    about(at(9, "ours", "0/2", false), Some((5, 9)), &NEXT).expect("killed again before it was claimed");
    let words = ["Put the log that was here and its checkpoint back", "CONSUMER_SHARD=0/3"];
    refused(about(at(9, "ours", "0/3", false), None, &NEXT), &words);
    let elsewhere = Claimant { place: "other:/logs/events.log", ..NEXT };
    refused(about(at(9, "ours", "0/2", false), None, &elsewhere), &["same shard"]);
}

#[test]
fn an_old_log_that_is_put_back_continues_where_the_one_after_it_stopped_and_is_refused_if_it_did_not() {
    let back = Claimant { predecessor: Some("new"), ..US };
    let after = |stopped| edited(200, "new", "0/3", stopped, |mark| mark.claim = 6);
    let stopped = about(after(true), Some((4, 100)), &back).expect("stopped");
    assert_eq!(stopped.taken_over, [(0, 200)].into());
    refused(about(after(false), Some((4, 100)), &back), &["CONSUMER_TAKE_OVER=new "]);
}

#[test]
fn a_log_that_stopped_is_followed_exactly_and_what_we_have_is_left_to_the_comparison() {
    let other = || at(20, "other", "0/1", true);
    for checkpoint in [None, Some((1, 7))] {
        let ownership = about(other(), checkpoint, &US).expect("followed");
        assert_eq!((ownership.taken_over, ownership.claim), ([(0, 20)].into(), 5));
        assert!(ownership.contested && ownership.follows);
    }
    // Kafka has lost records, and the other one went on in what was left: our offset and our trail find where.
    for offset in [20, 33] {
        let ownership = about(other(), Some((1, offset)), &US).expect("followed");
        assert_eq!((ownership.taken_over, ownership.contested), (Offsets::new(), true));
    }
}

#[test]
fn a_log_that_runs_or_was_killed_is_not_followed_unless_it_is_named() {
    for (shard, word) in [("0/1", "number of shards"), ("0/2", "same shard")] {
        for checkpoint in [None, Some((1, 7))] {
            let found = at(20, "other", shard, false);
            refused(about(found, checkpoint, &US), &[word, "SIGTERM", "CONSUMER_TAKE_OVER=other ", PLACE]);
        }
    }
    let ids = ["other".to_owned()];
    let named = Claimant { take_over: &ids, ..US };
    let forced = about(at(20, "other", "0/1", false), None, &named).expect("said so");
    assert_eq!(forced.taken_over, [(0, 20)].into());
    assert!(forced.notes[0].contains("logged again"));
    let found = at(20, "third", "0/1", false);
    refused(about(found, None, &named), &["CONSUMER_TAKE_OVER=other,third "]);
}

#[test]
fn all_lost_logs_are_named_at_once_and_may_be_taken_over_together() {
    let whole = Shard { index: 0, count: 1 };
    let us = Claimant { shard: whole, ..US };
    let found = [at(5, "a", "0/2", false), at(6, "b", "1/2", false), at(7, "a", "0/2", false)];
    let words = ["partitions 0, 2 belong", "partitions 1 belong", "CONSUMER_TAKE_OVER=a,b "];
    refused(decide(&us, &[0, 1, 2], &found, None), &words);
    let ids = ["a".to_owned(), "b".to_owned()];
    let both = decide(&Claimant { take_over: &ids, ..us }, &[0, 1, 2], &found, None).expect("both");
    assert_eq!(both.taken_over, [(0, 5), (1, 6), (2, 7)].into());
}

#[test]
fn offsets_of_another_topic_of_the_same_name_count_for_nothing() {
    for stopped in [true, false] {
        let old = edited(50, "other", "0/1", stopped, |mark| mark.topic_id = Some("before".into()));
        let ownership = about(old, None, &US).expect("free");
        assert_eq!((ownership.taken_over, ownership.committed), (Offsets::new(), Offsets::new()));
        assert_eq!((ownership.claim, ownership.contested), (5, true));
    }
    // Our checkpoint is of the topic before: what the other one has read of this one is right.
    let nothing = Offsets::new();
    let known = Known { offsets: &nothing, claim: Some(1), may_be_old: false };
    let ownership = decide(&US, &[0], &[at(20, "other", "0/1", true)], Some(known)).expect("followed");
    assert_eq!(ownership.taken_over, [(0, 20)].into());
}

#[test]
fn partitions_of_other_shards_are_left_alone() {
    let committed = [at(1, "ours", "0/2", false), at(2, "other", "1/2", false)];
    let offsets = Offsets::from([(0, 1)]);
    let known = Known { offsets: &offsets, claim: Some(4), may_be_old: false };
    let same = decide(&US, &[0, 1], &committed, Some(known)).expect("a sibling runs");
    let ours = Offsets::from([(0, 1)]);
    assert_eq!(same, Ownership { claim: 5, committed: ours, ..Ownership::default() });
}

/// A checkpoint that an earlier one replaced in a power cut does not know a partition that was added since.
#[test]
fn an_older_checkpoint_does_not_skip_what_was_read_of_a_partition_added_since() {
    let offsets = Offsets::from([(0, 8)]);
    let us = Claimant { shard: Shard { index: 0, count: 1 }, ..US };
    let both = [at(9, "ours", "0/1", false), at(300, "ours", "0/1", false)];
    let cut = Known { offsets: &offsets, claim: Some(4), may_be_old: true };
    let decided = decide(&us, &[0, 1], &both, Some(cut)).expect("LOG_FSYNC=never");
    assert_eq!(decided.committed.get(&1), None, "0..300 were cut off the log with the rest");
    assert!(decided.notes[0].contains("partition 1 begins at its earliest"), "{:?}", decided.notes);
    let backup = Known { offsets: &offsets, claim: Some(3), may_be_old: false };
    let named = Claimant { take_over: &["ours".into()], ..us };
    let decided = decide(&named, &[0, 1], &both, Some(backup)).expect("a backup");
    assert_eq!(decided.committed.get(&1), None, "the backup does not have 0..300");
    let latest = Known { offsets: &Offsets::from([(0, 9)]), claim: Some(4), may_be_old: false };
    let decided = decide(&us, &[0, 1], &both, Some(latest)).expect("ours");
    assert_eq!(decided.committed.get(&1), Some(&300), "it was claimed there and not read yet");
}
