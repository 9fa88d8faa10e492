//! What a source promises: positions, bounds, offsets of a group, siblings of a failing partition.

use event_pipeline::broker::{Bounds, BrokerError, Committed, Page, Position, Source};

use super::{from_start, numbered, read_all, read_on, send_all, sink_to, source_of};
use crate::support::kafka::shared;
use crate::support::wait::{eventually, eventually_some, secs};

#[test]
fn everything_sent_is_read_once_and_in_order() {
    let topic = shared().topic_with(1, &[]);
    let mut sink = sink_to(&topic.brokers(), &topic);
    let values = numbered("event ", 5000);
    for call in values.chunks(700) {
        send_all(&mut sink, call);
    }
    assert_eq!(read_all(&topic), values);
    let (tail, error) = read_on(&mut source_of(&topic), Position { partition: 0, offset: 4990 }, 5000);
    assert_eq!((tail.len(), tail[0].0, error), (10, 4990, None), "from the middle of a batch");
}

#[test]
fn bounds_and_partitions_follow_the_topic() {
    let topic = shared().topic();
    let mut source = source_of(&topic);
    assert_eq!(source.partitions(), Ok(vec![0, 1, 2]));
    topic.kcat(&["-P", "-p", "1"], b"a\nb\n");
    let bounds = source.bounds(&[2, 1]).expect("bounds");
    let expected = [(2, 0, 0), (1, 0, 2)];
    let expected = expected.map(|(partition, earliest, latest)| Ok(Bounds { partition, earliest, latest }));
    assert_eq!(bounds, expected);
    topic.add_partitions(5);
    assert_eq!(source.partitions(), Ok(vec![0, 1, 2, 3, 4]), "seen at once");
    assert_eq!(source.bounds(&[4]).expect("bounds")[0].as_ref().map(|bounds| bounds.latest), Ok(0));
}

#[test]
fn an_idle_fetch_waits_and_answers_for_every_partition() {
    let topic = shared().topic();
    let mut source = source_of(&topic);
    let start = std::time::Instant::now();
    let fetched = source.fetch(&from_start(3)).expect("fetched");
    let mut partitions: Vec<i32> = fetched.iter().map(|answer| answer.partition).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2]);
    assert!(fetched.iter().all(|answer| answer.page.as_ref().is_ok_and(Page::is_empty)));
    assert!(start.elapsed().as_millis() >= 100, "no busy loop");
}

#[test]
fn an_offset_out_of_range_leaves_the_siblings_alone() {
    let topic = shared().topic();
    for partition in ["0", "1", "2"] {
        topic.kcat(&["-P", "-p", partition], b"one\ntwo\n");
    }
    let mut positions = from_start(3);
    positions[1].offset = 77;
    let fetched = source_of(&topic).fetch(&positions).expect("fetched");
    for answer in fetched {
        match answer.page {
            Err(BrokerError::OffsetOutOfRange(text)) => {
                assert!(answer.partition == 1 && text.contains(&format!("{}/1", topic.name)), "{text}");
            }
            Ok(page) => assert!(answer.partition != 1 && page.len() == 2),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_group_keeps_what_was_committed_and_nothing_else() {
    let topic = shared().topic();
    let group = format!("group-{}", topic.name);
    let mut source = source_of(&topic);
    // A new broker first creates its offsets topic, and says so.
    let none =
        eventually_some(secs(60), "the coordinator answers", || source.committed(&group, &[0, 1, 2]).ok());
    assert_eq!(none, [None, None, None]);
    let positions = [Position { partition: 2, offset: 7 }, Position { partition: 0, offset: 0 }];
    source.commit(&group, &positions, "who").expect("committed");
    let at = |offset| Some(Committed { offset, note: "who".into() });
    assert_eq!(source.committed(&group, &[0, 1, 2]), Ok(vec![at(0), None, at(7)]));
    assert_eq!(source_of(&topic).committed(&group, &[2]), Ok(vec![at(7)]), "for another client too");
}

#[test]
fn every_partition_makes_progress_beside_one_with_batches_above_all_shares() {
    let topic = shared().topic_with(3, &[("max.message.bytes", "8000000")]);
    let large = "x".repeat(6_500_000);
    for _ in 0..4 {
        topic.kcat(&["-P", "-p", "1", "-X", "message.max.bytes=8000000"], large.as_bytes());
    }
    // More than many fetches of a share.
    let lines = format!("{}\n", "y".repeat(900_000)).repeat(20);
    for partition in ["0", "2"] {
        topic.kcat(&["-P", "-p", partition], lines.as_bytes());
    }
    let mut source = source_of(&topic);
    let mut positions = from_start(3);
    let ends = [20, 4, 20];
    let mut without_progress = [0; 3];
    while (0..3).any(|index| positions[index].offset < ends[index]) {
        for answer in source.fetch(&positions).expect("fetched") {
            let (index, page) = (answer.partition as usize, answer.page.expect("a page"));
            let stands = page.next_offset == positions[index].offset && page.next_offset < ends[index];
            without_progress[index] = if stands { without_progress[index] + 1 } else { 0 };
            positions[index].offset = page.next_offset;
        }
        // Each is the first of a fetch, and so gets what it needs, in its turn.
        assert!(without_progress.iter().all(|fetches| *fetches < 3), "{without_progress:?} at {positions:?}");
    }
}

#[test]
fn a_fetch_of_many_partitions_reaches_all_of_them() {
    let topic = shared().topic_with(30, &[]);
    let lines: String = numbered("", 300).iter().map(|number| format!("k{number}:v\n")).collect();
    topic.kcat(&["-P", "-K", ":"], lines.as_bytes());
    let mut source = source_of(&topic);
    let mut positions = from_start(30);
    let mut records = 0;
    eventually(secs(60), "all is read", || {
        for answer in source.fetch(&positions).expect("fetched") {
            let page = answer.page.expect("a page");
            records += page.len();
            let at = positions.iter_mut().find(|position| position.partition == answer.partition);
            at.expect("asked").offset = page.next_offset;
        }
        records >= 300
    });
    assert_eq!(records, 300);
}
