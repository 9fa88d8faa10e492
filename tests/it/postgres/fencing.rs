//! Two consumers and one set of tables: one of them writes, and one that was replaced cannot.

use crate::consumer::load::Load;
use crate::consumer::{wait_problem, wait_ready};
use crate::postgres::Tables;
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::wait::{eventually, secs};

#[test]
fn a_second_consumer_waits_and_takes_over_when_the_first_is_killed() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let (first, second) = (Tables::new(&topic, &database), Tables::new(&topic, &database));
    let mut running = first.start_ready(&[]);
    let load = Load::start(&topic);
    let mut waiting = second.start(&[]);
    wait_problem(&mut waiting, "is written by another session");
    first.wait_progress(first.covered());
    running.kill();
    wait_ready(&mut waiting);
    second.wait_progress(second.covered());
    load.finish();
    second.wait_caught_up();
    assert!(waiting.terminate(secs(60)).success());
    second.audit();
}

/// The groups differ, so nothing but the database keeps the two apart.
#[test]
fn a_consumer_that_was_replaced_while_it_was_stopped_writes_nothing_more() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let (first, second) = (Tables::new(&topic, &database), Tables::new(&topic, &database));
    let mut stale = first.start_ready(&[("KAFKA_GROUP", "one")]);
    let load = Load::start(&topic);
    first.wait_progress(0);
    stale.signal(libc::SIGSTOP);
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE \
         'event-consumer%'",
        database.name
    );
    database.sql(&terminate);
    let mut owner = second.start_ready(&[("KAFKA_GROUP", "two")]);
    second.wait_progress(second.covered());
    stale.signal(libc::SIGCONT);
    let ended = stale.wait(secs(120));
    assert_eq!(ended.code(), Some(65), "{}", stale.stderr());
    assert!(stale.stderr().contains("another consumer writes partition"), "{}", stale.stderr());
    load.finish();
    second.wait_caught_up();
    assert!(owner.terminate(secs(60)).success());
    second.audit();
}

/// Without a lost connection: the check in the transaction itself keeps it out.
#[test]
fn a_transaction_whose_offsets_are_not_ours_any_more_is_rolled_back() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    database.sql("UPDATE event_offsets SET claim = claim + 1, writer = 'another'");
    topic.kcat(&["-P"], b"{\"a\": 2}\n");
    assert_eq!(consumer.wait(secs(120)).code(), Some(65), "{}", consumer.stderr());
    assert_eq!(database.number("SELECT count(*) FROM events"), 1);
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

#[test]
fn offsets_that_were_changed_by_hand_are_noticed() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n{\"a\": 2}\nnot json\n");
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    database.sql("UPDATE event_offsets SET next_offset = 2");
    let (code, said) = tables.fails(&[]);
    assert!(
        code == Some(65) && said.contains("event_rejects\" has offset 2 of partition 0"),
        "{code:?} {said}"
    );
    assert!(said.contains("put next_offset = 3"), "{said}");
    database.sql("DELETE FROM event_offsets; DELETE FROM events");
    let another = [("KAFKA_GROUP", "another")];
    let (code, said) = tables.fails(&another);
    assert!(
        code == Some(65) && said.contains("Options: restore all three tables together; or empty all"),
        "{said}"
    );
    // As it says.
    database.sql("TRUNCATE events, event_rejects, event_offsets");
    let mut consumer = tables.start_ready(&another);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// While it runs: what is to be done then is for a start to decide.
#[test]
fn a_row_of_offsets_that_is_gone_is_a_reason_to_start_again() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    database.sql("DELETE FROM event_offsets");
    assert_eq!(consumer.wait(secs(120)).code(), Some(1), "{}", consumer.stderr());
    assert!(consumer.stderr().contains("has no row for partition 0"), "{}", consumer.stderr());
}

/// If each of two that wait kept what is free, they would wait for each other.
#[test]
fn a_consumer_that_waits_for_one_partition_keeps_the_others_free() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    let locks = "FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE \
                 datname = current_database())";
    let class = database.number(&format!("SELECT DISTINCT classid::bigint::bit(32)::int {locks}"));
    assert!(consumer.terminate(secs(60)).success());
    let locked = || database.number(&format!("SELECT count(*) {locks}"));
    eventually(secs(60), "its locks are gone", || locked() == 0);
    let last = database.hold(&format!("SELECT pg_advisory_lock({class}, 2);"));
    eventually(secs(60), "the last partition is locked", || locked() == 1);
    let mut waiting = tables.start(&[]);
    wait_problem(&mut waiting, "partition 2 is written by another session");
    // It looks again and again, and has the others for a moment only.
    eventually(secs(60), "the others are free", || locked() == 1);
    drop(last);
    wait_ready(&mut waiting);
    assert!(waiting.terminate(secs(60)).success());
}

/// Partitions move between consumers: each continues where the table says, whoever wrote it.
#[test]
fn shards_share_the_tables_and_can_be_changed() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let load = Load::start(&topic);
    for (round, shards) in
        [&["0/2", "1/2"][..], &["0/1"], &["0/3", "1/3", "2/3"], &["0/2", "1/2"]].iter().enumerate()
    {
        let mut running: Vec<_> =
            shards.iter().map(|shard| tables.start(&[("CONSUMER_SHARD", shard)])).collect();
        running.iter_mut().for_each(wait_ready);
        for partition in 0..3 {
            let next = format!(
                "SELECT coalesce(sum(next_offset), 0) FROM event_offsets WHERE partition = {partition}"
            );
            let before = database.number(&next);
            eventually(secs(120), "each partition goes on", || database.number(&next) > before);
        }
        // The last one of each round is killed: the table knows where it was.
        let last = running.len() - 1;
        for (at, consumer) in running.iter_mut().enumerate() {
            if at == last && round % 2 == 0 {
                consumer.kill();
            } else {
                assert!(consumer.terminate(secs(60)).success());
            }
        }
    }
    load.finish();
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}
