//! SIGKILL of the consumer while it makes Parquet files, and how much memory that takes.
//!
//! `CONSUMER_KILL_ROUNDS` sets the rounds; a handful is enough for every day, a release takes 50.

use std::fs;
use std::thread;
use std::time::Duration;

use super::LakeSite;
use crate::consumer::kills::rounds;
use crate::consumer::load::{Load, event_lines};
use crate::consumer::wait_ready;
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

/// Kills the consumer `rounds` times under load: when a file is being written, when one has its name, and at any moment.
pub fn kill_rounds(lake: &LakeSite<'_>, settings: &[(&str, &str)]) {
    let settings = lake.settings(settings);
    let load = Load::start(lake.site.topic);
    let manifests = || fs::read_dir(lake.dir.join("_manifest")).map_or(0, Iterator::count);
    let mut interrupted = 0;
    for round in 0..rounds() {
        let before = manifests();
        let mut consumer = lake.site.start(&settings);
        match round % 3 {
            0 => eventually(secs(120), "a file is being written", || !lake.parts().is_empty()),
            1 => eventually(secs(120), "a log is in the lake", || manifests() > before),
            _ => thread::sleep(Duration::from_millis(fastrand::u64(0..800))),
        }
        consumer.kill();
        interrupted += usize::from(!lake.parts().is_empty());
    }
    let mut consumer = lake.site.start_ready(&settings);
    load.finish();
    lake.site.wait_caught_up();
    lake.audit();
    assert!(consumer.terminate(secs(60)).success());
    assert!(interrupted > 0, "no kill came while a file was being written");
}

#[test]
fn kills_while_files_are_made_lose_and_repeat_nothing() {
    let topic = shared().topic_with(3, &[]);
    kill_rounds(&LakeSite::new(&topic), &[("LOG_ROTATE_BYTES", "400000")]);
}

#[test]
fn kills_with_columns_and_rotation_by_time_lose_and_repeat_nothing() {
    let topic = shared().topic_with(3, &[]);
    let settings =
        [("LOG_ROTATE_SECS", "1"), ("LAKE_COLUMNS", "user_id:int64,event:string"), ("LOG_FSYNC", "never")];
    kill_rounds(&LakeSite::new(&topic), &settings);
}

/// `LAKE_LOG_MIB` sets the size of the log.
#[test]
fn memory_stays_bounded_however_long_the_log_is() {
    const LIMIT_BYTES: usize = 128 << 20;
    let mib: usize =
        std::env::var("LAKE_LOG_MIB").map_or(128, |text| text.parse().expect("LAKE_LOG_MIB is a number"));
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    fs::create_dir(lake.site.logs()).expect("created");
    let event = event_lines(1, 160);
    let lines: String = (0..(mib << 20) / (event.len() + 26))
        .map(|number| format!("2025-07-08 00:00:00,000 - {}", event.replacen('0', &number.to_string(), 1)))
        .collect();
    let count = lines.lines().count();
    fs::write(lake.site.logs().join("events-seq000000000001-20250708T020000000Z.log"), lines)
        .expect("written");
    let settings = [("LOG_ROTATE_BYTES", "1000000"), ("LAKE_COLUMNS", "number:int64,padding:string")];
    let mut consumer = lake.site.start(&lake.settings(&settings));
    wait_ready(&mut consumer);
    eventually(secs(1800), "the log is in the lake", || lake.closed().is_empty());
    let peak = consumer.peak_bytes();
    assert!(peak <= LIMIT_BYTES, "{} MiB for a log of {mib} MiB", peak >> 20);
    assert_eq!(
        lake.query("SELECT count(*), count(DISTINCT number) FROM lake"),
        serde_json::json!([[count, count]])
    );
    assert!(consumer.terminate(secs(60)).success());
}
