//! What is in the files: every event once, its bytes, and typed columns.

use std::fs;

use serde_json::json;

use super::{LakeSite, python};
use crate::consumer::load::event_lines;
use crate::consumer::{lines_of, metric, wait_metric};
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

#[test]
fn closed_logs_become_parquet_files_with_every_event_once() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let mut consumer = lake.site.start_ready(&lake.settings(&[("LOG_ROTATE_BYTES", "100000")]));
    topic.kcat(&["-P"], event_lines(2000, 300).as_bytes());
    lake.site.wait_caught_up();
    lake.audit();
    let closed = metric(&mut consumer, "pipeline_log_rotations_total");
    eventually(secs(30), "the figures follow", || {
        metric(&mut consumer, "pipeline_lake_files_total") >= closed
    });
    let open = lines_of(&lake.site.path("logs/events.log")).len() as f64;
    wait_metric(&mut consumer, "pipeline_lake_rows_total", 2000.0 - open);
    for name in ["pipeline_lake_errors_total", "pipeline_lake_behind_files", "pipeline_lake_rejected_total"] {
        assert_eq!(metric(&mut consumer, name), 0.0, "{name}");
    }
    let rows = lake.query("SELECT count(*), count(DISTINCT event->>'number') FROM lake");
    let rows_in_lake = 2000.0 - open;
    assert_eq!(rows, json!([[rows_in_lake as u64, rows_in_lake as u64]]));
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_quiet_log_is_closed_by_time_and_goes_to_the_lake() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let settings = lake.settings(&[("LOG_ROTATE_SECS", "1")]);
    let mut consumer = lake.site.start_ready(&settings);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    let log = lake.site.path("logs/events.log");
    eventually(secs(60), "the event is in the lake and the log is empty", || {
        metric(&mut consumer, "pipeline_lake_rows_total") == 1.0
            && fs::metadata(&log).is_ok_and(|log| log.len() == 0)
    });
    lake.audit();
    assert!(consumer.terminate(secs(60)).success());
    // A log that was left open by a consumer that stopped is closed as well.
    let mut consumer = lake.site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 2}\n");
    lake.site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    assert_eq!(lines_of(&log).len(), 1);
    let mut consumer = lake.site.start_ready(&settings);
    eventually(secs(60), "that one, too", || metric(&mut consumer, "pipeline_lake_rows_total") == 1.0);
    lake.audit();
    assert_eq!(lake.lines().len(), 2);
}

const COLUMNS: &str = "event:string,user_id:int64,amount:double,is_new:bool,at:timestamp";

/// Prints names, types and nullability of the columns that each file has, and its codec.
const SCHEMA: &str = r#"
import glob, sys
import pyarrow.parquet as pq
for path in glob.glob(sys.argv[1] + "/dt=*/hour=*/*.parquet"):
    file = pq.ParquetFile(path)
    print(", ".join(f"{field.name} {field.type}{'' if field.nullable else ' required'}" for field in file.schema_arrow))
"#;

#[test]
fn chosen_fields_become_typed_columns_and_the_event_keeps_its_bytes() {
    let topic = shared().topic_with(1, &[]);
    let lake = LakeSite::new(&topic);
    let events = [
        r#"{"event":"purchase",  "user_id": 203, "amount": 12.50, "is_new": true, "at": "2025-07-08T02:12:01.781+02:00"}"#,
        r#"{"event": "caf\u00e9 \"x\"", "user_id": -9223372036854775808, "amount": 3, "is_new": false, "at": "2025-07-08T00:12:01Z"}"#,
        r#"{"event": 1, "user_id": "203", "amount": "12.50", "is_new": "true", "at": 1751933521781}"#,
        r#"{"user_id": 1.0, "amount": 1e999, "is_new": null, "at": "yesterday", "é": "\ud83d\ude00"}"#,
        r#"{"user_id": 1, "user_id": {"a": 2}, "amount": [1], "user\u005fid": 7}"#,
        r#"{"user_id": 9223372036854775808, "event": null}"#,
        r"{}",
    ];
    let settings = lake.settings(&[("LOG_ROTATE_SECS", "2"), ("LAKE_COLUMNS", COLUMNS)]);
    let mut consumer = lake.site.start_ready(&settings);
    topic.kcat(&["-P"], events.map(|event| format!("{event}\n")).concat().as_bytes());
    eventually(secs(60), "all rows", || metric(&mut consumer, "pipeline_lake_rows_total") == 7.0);
    lake.wait_moved();
    assert_eq!(lake.lines().iter().map(|line| &line[26..]).collect::<Vec<_>>(), events);
    let dir = lake.dir.to_str().expect("UTF-8");
    let schema = "logged_at timestamp[ms, tz=UTC] required, event string required, event_ string, user_id int64, \
                  amount double, is_new bool, at timestamp[us, tz=UTC]\n";
    assert!(
        python(SCHEMA, &[dir]).lines().all(|line| line == schema.trim_end()),
        "{}",
        python(SCHEMA, &[dir])
    );
    let rows = lake.query(
        r#"SELECT event_, user_id, amount, is_new, epoch_us("at") FROM lake ORDER BY filename, file_row_number"#,
    );
    assert_eq!(
        rows,
        json!([
            ["purchase", 203, 12.5, true, 1_751_933_521_781_000_i64],
            ["café \"x\"", i64::MIN, 3.0, false, 1_751_933_521_000_000_i64],
            [null, null, null, null, null],
            [null, null, null, null, null],
            [null, 7, null, null, null],
            [null, null, null, null, null],
            [null, null, null, null, null],
        ])
    );
    let hours =
        lake.query("SELECT count(*) FROM lake WHERE strftime(logged_at, '%Y-%m-%d %H') = dt || ' ' || hour");
    assert_eq!(hours, json!([[7]]), "the directories are columns, and agree with the time");
}
