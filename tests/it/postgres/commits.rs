//! Connections cut inside COMMIT and COPY: the outcome is unknown, and each event is in the table once.

use std::thread;
use std::time::Duration;

use crate::consumer::load::Load;
use crate::consumer::metric;
use crate::postgres::{Tables, rounds};
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::{eventually, secs};

#[test]
fn a_connection_cut_inside_a_commit_loses_and_repeats_nothing() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let proxy = Proxy::tcp(database.server.address());
    let tables = Tables::through(&topic, &database, &proxy.address().to_string());
    let mut consumer = tables.start_ready(&[("DESTINATION_COMMIT_MS", "0")]);
    let load = Load::start(&topic);
    for round in 0..rounds() {
        let before = tables.covered();
        proxy.cut_at(b"COMMIT", round % 3 != 0);
        eventually(secs(120), "a connection was cut", || !proxy.is_to_cut());
        tables.wait_progress(before);
    }
    let acknowledged = load.finish();
    tables.wait_caught_up();
    let mut doubts = |outcome: &str| {
        metric(&mut consumer, &format!("pipeline_postgres_doubtful_commits_total{{outcome=\"{outcome}\"}}"))
    };
    let (committed, rolled_back) = (doubts("committed"), doubts("rolled_back"));
    assert_eq!((committed + rolled_back) as usize, rounds(), "{committed} {rolled_back}");
    assert!(committed > 0.0 && rolled_back > 0.0, "{committed} {rolled_back}");
    assert!(acknowledged > 0 && consumer.terminate(secs(60)).success());
    tables.audit();
}

#[test]
fn a_connection_cut_inside_the_rows_loses_and_repeats_nothing() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let proxy = Proxy::tcp(database.server.address());
    let tables = Tables::through(&topic, &database, &proxy.address().to_string());
    let mut consumer =
        tables.start_ready(&[("DESTINATION_COMMIT_MS", "0"), ("DESTINATION_TIMEOUT_MS", "3000")]);
    let load = Load::start(&topic);
    for round in 0..rounds() {
        let before = tables.covered();
        let direction = if round % 2 == 0 { Direction::Request } else { Direction::Reply };
        let most = if round % 2 == 0 { 100_000 } else { 300 };
        proxy.cut_after(direction, fastrand::usize(0..most));
        eventually(secs(120), "a connection was cut", || !proxy.is_to_cut());
        tables.wait_progress(before);
        thread::sleep(Duration::from_millis(fastrand::u64(0..100)));
    }
    load.finish();
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}
