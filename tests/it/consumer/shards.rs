//! The number of shards changes, logs move, consumers are copied: each event is in one log, or the start is refused.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use event_pipeline::broker::{Position, Source};
use event_pipeline::consumer::EXIT_UNDECIDED;

use crate::consumer::load::Load;
use crate::consumer::{CATCH_UP, Site, lines_of, log_files, payload, source_of};
use crate::support::kafka::shared;
use crate::support::process::{Finished, Running};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const WHOLE: (&str, &str) = ("CONSUMER_SHARD", "0/1");
const HALVES: [(&str, &str); 2] = [("CONSUMER_SHARD", "0/2"), ("CONSUMER_SHARD", "1/2")];
/// Added partitions and lost ones are looked for often.
const WATCHFUL: (&str, &str) = ("KAFKA_METADATA_MAX_AGE_MS", "200");

/// Sends one event to each of the three partitions; `phase` makes them unlike all others.
fn send(topic: &Topic, phase: &str) {
    for partition in ["0", "1", "2"] {
        let event = format!("{{\"phase\": \"{phase}\", \"partition\": {partition}}}\n");
        topic.kcat(&["-P", "-p", partition], event.as_bytes());
    }
}

fn events_of(dirs: &[&Path]) -> Vec<String> {
    let files = dirs.iter().flat_map(|dir| log_files(dir));
    files.flat_map(|file| lines_of(&file)).map(|line| payload(&line).to_owned()).collect()
}

/// Waits until the logs of `dirs` together hold the whole topic, and then no event twice.
#[track_caller]
fn wait_exact(topic: &Topic, dirs: &[&Path]) {
    let count = topic.count();
    eventually(CATCH_UP, &format!("all {count} events are logged"), || events_of(dirs).len() >= count);
    audit(topic, dirs);
}

#[track_caller]
fn audit(topic: &Topic, dirs: &[&Path]) {
    let mut found: HashMap<String, usize> = HashMap::new();
    events_of(dirs).into_iter().for_each(|event| *found.entry(event).or_default() += 1);
    for record in topic.records() {
        assert_eq!(found.remove(record.text()), Some(1), "{}", record.text());
    }
    assert!(found.is_empty(), "{found:?}");
}

#[track_caller]
fn stop(consumers: impl IntoIterator<Item = Running>) {
    for mut consumer in consumers {
        assert!(consumer.terminate(secs(60)).success());
    }
}

#[track_caller]
fn refused(site: &Site<'_>, settings: &[(&str, &str)], words: &[&str]) -> Finished {
    let ended = site.program(settings).run(secs(60));
    assert_eq!(ended.status.code(), Some(i32::from(EXIT_UNDECIDED)), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
    ended
}

#[test]
fn after_orderly_stops_another_number_of_shards_goes_on_exactly_there_and_back_again() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    for round in 0..2 {
        let whole = site.start_ready(&[WHOLE]);
        send(&topic, &format!("one shard, round {round}"));
        wait_exact(&topic, &[&site.logs()]);
        stop([whole]);
        send(&topic, &format!("nobody reads, round {round}"));
        let halves = HALVES.map(|shard| site.start_ready(&[shard]));
        send(&topic, &format!("two shards, round {round}"));
        wait_exact(&topic, &[&site.logs()]);
        stop(halves);
        send(&topic, &format!("nobody reads either, round {round}"));
    }
    let mut whole = site.start_ready(&[WHOLE]);
    wait_exact(&topic, &[&site.logs()]);
    assert!(whole.stderr_after("partition 1 is taken over at offset").contains("CONSUMER_SHARD=1/2"));
}

#[test]
fn a_killed_shard_is_not_followed_before_it_was_started_and_stopped_once_more() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let load = Load::start(&topic);
    let mut whole = site.start_ready(&[WHOLE]);
    eventually(secs(60), "something is logged", || site.covered() > 1000);
    whole.kill();
    load.finish();
    for shard in HALVES {
        let words = ["did not shut down cleanly", "CONSUMER_SHARD=0/1", "SIGTERM", "CONSUMER_TAKE_OVER="];
        refused(&site, &[shard], &words);
    }
    assert!(log_files(&site.logs()).len() == 1, "a refused shard begins no log");
    stop([site.start_ready(&[WHOLE])]);
    let halves = HALVES.map(|shard| site.start_ready(&[shard]));
    wait_exact(&topic, &[&site.logs()]);
    stop(halves);
    audit(&topic, &[&site.logs()]);
}

#[test]
fn another_number_of_shards_does_not_run_beside_the_old_one() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut whole = site.start_ready(&[WHOLE]);
    send(&topic, "one shard");
    wait_exact(&topic, &[&site.logs()]);
    refused(&site, &[HALVES[0]], &["it is still running, was killed", "number of shards"]);
    send(&topic, "still one shard");
    wait_exact(&topic, &[&site.logs()]);
    assert!(whole.is_alive());
    stop([whole]);
    let first_half = site.start_ready(&[HALVES[0]]);
    refused(&site, &[WHOLE], &["it is still running, was killed", "CONSUMER_SHARD=0/2"]);
    stop([first_half]);
}

#[test]
fn a_second_log_of_the_same_share_waits_for_the_end_of_the_first_and_follows_it_exactly() {
    let topic = shared().topic();
    let (here, there) = (Site::new(&topic), Site::new(&topic));
    let both = [here.logs(), there.logs()];
    let both = [both[0].as_path(), both[1].as_path()];
    let first = here.start_ready(&[]);
    send(&topic, "first log");
    wait_exact(&topic, &[&here.logs()]);
    refused(&there, &[], &["same shard", "KAFKA_GROUP", here.logs().to_str().expect("UTF-8")]);
    stop([first]);
    let second = there.start_ready(&[]);
    send(&topic, "second log");
    wait_exact(&topic, &both);
    refused(&here, &[], &["same shard"]);
    stop([second]);
    let first = here.start_ready(&[]);
    send(&topic, "first log again");
    wait_exact(&topic, &both);
    stop([first]);
}

#[test]
fn a_lost_log_is_followed_when_it_is_named() {
    let topic = shared().topic();
    let (lost, next) = (Site::new(&topic), Site::new(&topic));
    let mut consumer = lost.start_ready(&[]);
    send(&topic, "lost");
    wait_exact(&topic, &[&lost.logs()]);
    consumer.kill();
    drop(lost);
    let said = refused(&next, &[], &["If that log is lost"]).stderr;
    let id = said.split("CONSUMER_TAKE_OVER=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
    refused(&next, &[("CONSUMER_TAKE_OVER", "0123456789abcdef")], &["If that log is lost"]);
    let first = next.start_ready(&[("CONSUMER_TAKE_OVER", id)]);
    send(&topic, "next");
    eventually(CATCH_UP, "the next log goes on", || {
        let events = events_of(&[&next.logs()]);
        (0..3)
            .all(|partition| events.contains(&format!("{{\"phase\": \"next\", \"partition\": {partition}}}")))
    });
    stop([first]);
    // Now they are its own.
    stop([next.start_ready(&[])]);
}

#[test]
fn two_lost_logs_are_followed_when_both_are_named_as_the_refusal_says() {
    let topic = shared().topic();
    let (lost, next) = (Site::new(&topic), Site::new(&topic));
    let halves = HALVES.map(|shard| lost.start_ready(&[shard]));
    send(&topic, "lost");
    wait_exact(&topic, &[&lost.logs()]);
    halves.into_iter().for_each(|mut half| half.kill());
    drop(lost);
    let said = refused(&next, &[WHOLE], &["partitions 0, 2 belong", "partitions 1 belong"]).stderr;
    let ids = said.split("CONSUMER_TAKE_OVER=").nth(1).and_then(|rest| rest.split(' ').next()).expect("ids");
    let whole = next.start_ready(&[WHOLE, ("CONSUMER_TAKE_OVER", ids)]);
    send(&topic, "next");
    eventually(CATCH_UP, "the next log goes on", || {
        events_of(&[&next.logs()]).iter().filter(|event| event.contains("\"next\"")).count() == 3
    });
    stop([whole]);
}

#[test]
fn a_log_that_is_put_back_continues_where_the_one_that_replaced_it_stopped() {
    const THIRD: (&str, &str) = ("CONSUMER_SHARD", "0/3");
    let topic = shared().topic();
    let site = Site::new(&topic);
    let half = site.start_ready(&[HALVES[0]]);
    topic.kcat(&["-P", "-p", "0"], b"{\"log\": \"first\"}\n");
    wait_exact(&topic, &[&site.logs()]);
    stop([half]);
    let pair = ["events-0.log", "events-0.log.checkpoint"];
    let first = site.path("first");
    let second = site.path("second");
    [&first, &second].iter().for_each(|dir| fs::create_dir_all(dir).expect("created"));
    for (dir, shard) in [(&first, THIRD), (&second, HALVES[0])] {
        pair.iter().for_each(|name| fs::rename(site.logs().join(name), dir.join(name)).expect("moved away"));
        if shard == HALVES[0] {
            pair.iter().for_each(|name| {
                fs::rename(first.join(name), site.logs().join(name)).expect("put back");
            });
        }
        let consumer = site.start_ready(&[shard]);
        let event = format!("{{\"log\": \"of {}\"}}\n", shard.1);
        topic.kcat(&["-P", "-p", "0"], event.as_bytes());
        wait_exact(&topic, &[&site.logs(), &first, &second]);
        stop([consumer]);
    }
}

#[test]
fn an_old_copy_of_a_log_does_not_start_beside_it_unless_it_is_named() {
    let topic = shared().topic();
    let (site, copy) = (Site::new(&topic), Site::new(&topic));
    let first = site.start_ready(&[WATCHFUL]);
    send(&topic, "before the copy");
    wait_exact(&topic, &[&site.logs()]);
    stop([first]);
    let copied = Command::new("cp").arg("-r").arg(site.logs()).arg(copy.logs()).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let mut first = site.start_ready(&[WATCHFUL]);
    send(&topic, "after the copy");
    wait_exact(&topic, &[&site.logs()]);
    let said = refused(&copy, &[], &["older than what the same log committed", "KAFKA_GROUP"]).stderr;
    assert!(first.is_alive());
    first.kill();
    // The newer one is lost.
    let id = said.split("CONSUMER_TAKE_OVER=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
    let restored = copy.start_ready(&[("CONSUMER_TAKE_OVER", id)]);
    wait_exact(&topic, &[&copy.logs()]);
    stop([restored]);
    stop([copy.start_ready(&[])]);
    audit(&topic, &[&copy.logs()]);
}

#[test]
fn a_consumer_whose_files_were_copied_and_started_elsewhere_ends_and_says_so() {
    let topic = shared().topic();
    let (site, copy) = (Site::new(&topic), Site::new(&topic));
    let mut first = site.start_ready(&[WATCHFUL]);
    send(&topic, "before the copy");
    wait_exact(&topic, &[&site.logs()]);
    let copied = Command::new("cp").arg("-r").arg(site.logs()).arg(copy.logs()).status();
    assert!(copied.is_ok_and(|status| status.success()));
    let second = copy.start_ready(&[]);
    assert_eq!(first.wait(secs(60)).code(), Some(i32::from(EXIT_UNDECIDED)), "{}", first.stderr());
    assert!(first.stderr().contains("copy of this log's checkpoint"), "{}", first.stderr());
    send(&topic, "after the copy");
    wait_exact(&topic, &[&copy.logs()]);
    stop([second]);
}

/// What the messages of the log's own refusals say must work, whatever ended the consumer.
#[test]
fn after_a_kill_log_and_checkpoint_may_be_moved_away_and_the_group_decides() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    send(&topic, "first log");
    wait_exact(&topic, &[&site.logs()]);
    consumer.kill();
    for name in ["events.log", "events.log.checkpoint"] {
        fs::rename(site.logs().join(name), site.path(name)).expect("moved away");
    }
    let mut consumer = site.start_ready(&[]);
    send(&topic, "second log");
    let last = "{\"phase\": \"second log\", \"partition\": 2}".to_owned();
    eventually(CATCH_UP, "the new log goes on", || events_of(&[&site.logs()]).contains(&last));
    assert!(consumer.stderr_after("is taken over at offset").contains("logged again"));
    // Another share may not: what the killed one logged past its commit is in a file that was moved away.
    consumer.kill();
    for name in ["events.log", "events.log.checkpoint"] {
        fs::remove_file(site.logs().join(name)).expect("removed");
    }
    refused(&site, &[HALVES[0]], &["number of shards"]);
}

#[test]
fn offsets_that_an_earlier_version_or_a_tool_committed_are_followed_as_before() {
    let topic = shared().topic();
    send(&topic, "skipped by a tool");
    send(&topic, "read");
    let mut source = source_of(&topic);
    let group = format!("group-of-{}", topic.name);
    let positions = [0, 1, 2].map(|partition| Position { partition, offset: 1 });
    eventually(secs(60), "a tool commits", || source.commit(&group, &positions, "").is_ok());
    let site = Site::new(&topic);
    let consumer = site.start_ready(&[]);
    eventually(CATCH_UP, "the rest is logged", || events_of(&[&site.logs()]).len() == 3);
    assert!(events_of(&[&site.logs()]).iter().all(|event| event.contains("\"read\"")));
    stop([consumer]);
    // With a checkpoint, the checkpoint decides.
    source.commit(&group, &positions, "").expect("reset by a tool");
    send(&topic, "later");
    let consumer = site.start_ready(&[]);
    eventually(CATCH_UP, "the later ones are logged", || events_of(&[&site.logs()]).len() >= 6);
    assert_eq!(events_of(&[&site.logs()]).len(), 6);
    stop([consumer]);
}
