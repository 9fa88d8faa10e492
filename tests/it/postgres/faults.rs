//! The consumer and the server are killed, the server is restarted, its disk is full, another server takes over.

use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::consumer::faults::Tmpfs;
use crate::consumer::load::Load;
use crate::consumer::{wait_problem, wait_ready};
use crate::postgres::{Tables, rounds};
use crate::support::kafka::shared;
use crate::support::postgres::{self, Database, Postgres};
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{eventually, secs};

/// At any moment: start, transaction, commit.
fn a_moment() {
    thread::sleep(Duration::from_millis(fastrand::u64(0..500)));
}

#[test]
fn a_killed_consumer_loses_and_repeats_nothing() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let load = Load::start(&topic);
    for round in 0..rounds() {
        let mut consumer = tables.start(&[]);
        if round % 2 == 0 {
            eventually(secs(60), "there are tables", || database.has_tables());
            tables.wait_progress(tables.covered());
        }
        a_moment();
        consumer.kill();
    }
    let mut consumer = tables.start_ready(&[]);
    load.finish();
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

#[test]
fn a_killed_server_loses_and_repeats_nothing() {
    let topic = shared().topic();
    let mut server = Postgres::start(&[]);
    let name = server.database().name;
    let url = format!("postgres://{}@{}/{name}", postgres::OWNER, server.address());
    let mut consumer = crate::support::process::Program::consumer()
        .env("KAFKA_BROKERS", topic.brokers())
        .env("KAFKA_TOPIC", &topic.name)
        .env("DESTINATION_URL", url)
        .env("CREATE_TABLES", "run")
        .start();
    wait_ready(&mut consumer);
    let load = Load::start(&topic);
    let covered = |server: &Postgres| {
        let sql = "SELECT coalesce(sum(next_offset), 0) FROM event_offsets";
        server.try_sql(&name, sql).ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or_default()
    };
    for round in 0..rounds() {
        let before = covered(&server);
        eventually(secs(120), "the consumer makes progress", || covered(&server) > before);
        a_moment();
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        if round == 0 {
            wait_problem(&mut consumer, "postgres");
        }
        server.run();
    }
    load.finish();
    let count = topic.count();
    eventually(secs(300), "all is covered", || covered(&server) == count);
    assert!(consumer.terminate(secs(60)).success());
    let database = Database { server: &server, name };
    Tables::new(&topic, &database).audit();
}

/// The session stays open and says nothing: the deadline ends it.
#[test]
fn a_silent_server_is_left_and_found_again() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let proxy = Proxy::tcp(database.server.address());
    let tables = Tables::through(&topic, &database, &proxy.address().to_string());
    let limits = [("DESTINATION_TIMEOUT_MS", "500"), ("DESTINATION_CONNECT_TIMEOUT_MS", "1000")];
    let mut consumer = tables.start_ready(&limits);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    proxy.set(Mode::Blackhole);
    topic.kcat(&["-P"], b"{\"a\": 2}\n");
    wait_problem(&mut consumer, "did not answer in time");
    proxy.set(Mode::Forward);
    proxy.cut();
    tables.wait_caught_up();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// Rows that do not get through in time are sent again in smaller parts, even if it is not the server that says so.
#[test]
fn rows_that_a_network_swallows_are_sent_in_smaller_parts() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let proxy = Proxy::tcp(database.server.address());
    let tables = Tables::through(&topic, &database, &proxy.address().to_string());
    let mut consumer = tables.start_ready(&[("DESTINATION_TIMEOUT_MS", "1000")]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    proxy.set(Mode::Stall);
    topic.kcat(&["-P"], b"{\"a\": 2}\n{\"a\": 3}\n");
    let took = consumer.stderr_after("rows took too long: ");
    assert!(took.contains("it did not answer in time"), "{took}");
    proxy.set(Mode::Forward);
    tables.wait_caught_up();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// Fewer rows would not help.
#[test]
fn a_locked_table_is_not_taken_for_too_many_rows() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[("DESTINATION_TIMEOUT_MS", "2000")]);
    let lock = database.hold("BEGIN;\nLOCK TABLE events IN ACCESS EXCLUSIVE MODE;");
    let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'events'::regclass";
    eventually(secs(60), "the table is locked", || database.number(locks) == 1);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    wait_problem(&mut consumer, "55P03");
    drop(lock);
    tables.wait_caught_up();
    assert!(!consumer.stderr().contains("took too long"), "{}", consumer.stderr());
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

#[test]
fn a_full_disk_of_the_database_is_said_and_waited_for() {
    let topic = shared().topic();
    let server = Postgres::start(&[]);
    let dir = tempfile::tempdir().expect("directory");
    let tmpfs = Tmpfs::mount(&dir.path().join("small"), "12m");
    postgres::give(dir.path());
    postgres::give(&tmpfs.0);
    let database = server.database();
    database.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", tmpfs.0.display()));
    database.sql(&format!("ALTER DATABASE {} SET default_tablespace = small", database.name));
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    let padding = "x".repeat(1500);
    let lines: String = (0..8000)
        .map(|number| format!("{{\"n\": {number}, \"padding\": \"{padding}{number}\"}}\n"))
        .collect();
    topic.kcat(&["-P"], lines.as_bytes());
    wait_problem(&mut consumer, "No space left on device");
    let grown =
        Command::new("mount").args(["-o", "remount,size=256m"]).arg(&tmpfs.0).status().expect("mount");
    assert!(grown.success());
    tables.wait_caught_up();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
    drop(server);
}

/// The standby is named first and is passed over; once it is the primary, it gets the events.
#[test]
fn another_host_of_the_url_takes_over() {
    let topic = shared().topic();
    let mut primary = Postgres::start(&[]);
    let name = primary.database().name;
    let standby = primary.standby();
    // From now on the standby has whatever is committed.
    for statement in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "ALTER SYSTEM SET synchronous_commit = remote_apply",
        "SELECT pg_reload_conf()",
    ] {
        primary.try_sql(postgres::OWNER, statement).expect("set");
    }
    let database = Database { server: &standby, name };
    let hosts = format!("{},{}", standby.address(), primary.address());
    let tables = Tables::through(&topic, &database, &hosts);
    let mut consumer = tables.start_ready(&[]);
    let load = Load::start(&topic);
    tables.wait_progress(500);
    primary.kill();
    wait_problem(&mut consumer, "it is a standby");
    standby.try_sql(postgres::OWNER, "SELECT pg_promote()").expect("promoted");
    tables.wait_progress(tables.covered());
    load.finish();
    tables.wait_caught_up();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// A standby that lags behind takes over: the database has lost events that it had confirmed. The consumer ends, and the
/// next start reads them again.
#[test]
fn a_server_that_lost_transactions_gets_them_again() {
    let topic = shared().topic();
    let mut primary = Postgres::start(&[]);
    let name = primary.database().name;
    let mut standby = primary.standby();
    let hosts = format!("{},{}", primary.address(), standby.address());
    let on_primary = Database { server: &primary, name: name.clone() };
    let tables = Tables::through(&topic, &on_primary, &hosts);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n{\"a\": 2}\n");
    tables.wait_caught_up();
    let count = |server: &Postgres| server.try_sql(&name, "SELECT count(*) FROM events").unwrap_or_default();
    eventually(secs(60), "the standby has them", || count(&standby) == "2");
    standby.stop();
    topic.kcat(&["-P"], b"{\"a\": 3}\n{\"a\": 4}\n");
    tables.wait_caught_up();
    drop(tables);
    primary.kill();
    standby.run();
    standby.try_sql(postgres::OWNER, "SELECT pg_promote()").expect("promoted");
    let ended = consumer.wait(secs(120));
    assert_eq!(ended.code(), Some(1), "{}", consumer.stderr());
    assert!(consumer.stderr().contains("has lost transactions"), "{}", consumer.stderr());
    let database = Database { server: &standby, name: name.clone() };
    let tables = Tables::through(&topic, &database, &hosts);
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}
