//! Logs that were closed before the lake was switched on: plain, compressed, of several hours, damaged.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::{LakeSite, tree};
use crate::consumer::{metric, wait_metric, wait_problem, wait_ready};
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

const SETTINGS: [(&str, &str); 1] = [("LOG_ROTATE_BYTES", "1000000")];

fn line(time: &str, number: usize) -> String {
    format!("{time} - {{\"number\": {number}}}\n")
}

fn write(path: &Path, text: &str) {
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let bytes = if packed { gzip(text) } else { text.as_bytes().to_vec() };
    fs::write(path, bytes).expect("written");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).expect("packed");
    packed.finish().expect("packed")
}

#[test]
fn old_closed_logs_go_to_the_lake_in_their_hours_and_what_is_not_a_line_is_kept() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    fs::create_dir(lake.site.logs()).expect("created");
    let (first, second) = ("2025-07-08 00:59:59,999", "2025-07-08 01:00:00,000");
    let earlier =
        [line(first, 0), line(second, 1), line(first, 2), line("2025-07-08 01:59:59,999", 3)].concat();
    let odd =
        "no line of ours\n2025-07-08 01:00:00,000 - {\"cut\": \n2025-07-08 01:00:00,000 - {\"number\": 9";
    let plain = format!("{}{odd}", line(second, 4));
    let logs = [
        ("events-20250708T020000000Z-000.log", line(first, 5)),
        ("events-seq000000000007-20250708T020000000Z.log.gz", earlier),
        ("events-seq000000000008-20250708T020000000Z.log", plain),
        // A crash while it was compressed.
        ("events-seq000000000009-20250708T020000000Z.log.gz", line(second, 7)),
        ("events-seq000000000009-20250708T020000000Z.log", line(second, 7)),
        ("events-seq000000000010-20250708T020000000Z.log", String::new()),
        // Of another shard, and of logrotate.
        ("events-0-seq000000000001-20250708T020000000Z.log", line(first, 8)),
        ("events.log.1", line(first, 8)),
    ];
    for (name, text) in &logs {
        write(&lake.site.logs().join(name), text);
    }
    // Interrupted attempts, of a log of ours that is gone, and of another consumer.
    fs::create_dir_all(lake.dir.join("_part")).expect("created");
    let parts = ["events-seq000000000001", "events-0-seq000000000001"]
        .map(|name| format!("_part/{name}-20250708T020000000Z.log.parquet.part"));
    parts.iter().for_each(|part| fs::write(lake.dir.join(part), "half").expect("written"));
    let mut consumer = lake.site.start_ready(&lake.settings(&SETTINGS));
    eventually(secs(60), "all logs are in the lake", || {
        metric(&mut consumer, "pipeline_lake_rows_total") == 7.0 && lake.closed().len() == 2
    });
    assert_eq!(lake.parts(), parts[1..]);
    fs::remove_file(lake.dir.join(&parts[1])).expect("removed");
    let expected = [line(first, 5), line(first, 0), line(first, 2), line(second, 1)].concat()
        + &line("2025-07-08 01:59:59,999", 3)
        + &line(second, 4)
        + &line(second, 7);
    assert_eq!(lake.lines(), expected.lines().collect::<Vec<_>>());
    let rejected = lake.dir.join("_rejected/events-seq000000000008-20250708T020000000Z.log");
    assert_eq!(fs::read_to_string(rejected).expect("kept"), odd);
    wait_metric(&mut consumer, "pipeline_lake_rejected_total", 3.0);
    consumer.stderr_after("3 lines of logs/events-seq000000000008");
    let files = tree(&lake.dir);
    let of_seventh: Vec<&String> = files.keys().filter(|path| path.contains("seq000000000007")).collect();
    let name = "events-seq000000000007-20250708T020000000Z.log";
    let expected = [
        format!("_manifest/{name}.json"),
        format!("dt=2025-07-08/hour=00/{name}.parquet"),
        format!("dt=2025-07-08/hour=01/{name}.parquet"),
    ];
    assert_eq!(of_seventh, expected.iter().collect::<Vec<_>>());
    let manifest: Value = serde_json::from_slice(&files[&expected[0]]).expect("JSON");
    assert_eq!((&manifest["lines"], &manifest["rejected"]), (&4.into(), &0.into()));
    let entry = &manifest["files"][1];
    assert_eq!(
        (&entry["rows"], &entry["first_logged_at"], &entry["last_logged_at"]),
        (&2.into(), &"2025-07-08T01:00:00.000Z".into(), &"2025-07-08T01:59:59.999Z".into())
    );
    lake.check_manifests();
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_damaged_log_stays_and_is_reported_while_the_others_go_on() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    fs::create_dir(lake.site.logs()).expect("created");
    let text: String = (0..1000).map(|number| line("2025-07-08 00:00:00,000", number)).collect();
    let damaged = lake.site.logs().join("events-seq000000000001-20250708T020000000Z.log.gz");
    let whole = gzip(&text);
    fs::write(&damaged, &whole[..whole.len() / 2]).expect("written");
    write(
        &lake.site.logs().join("events-seq000000000002-20250708T020000000Z.log"),
        &text.replace("00,0", "00,1"),
    );
    let mut consumer = lake.site.start(&lake.settings(&SETTINGS));
    wait_problem(&mut consumer, "events-seq000000000001-20250708T020000000Z.log");
    wait_problem(&mut consumer, "is damaged: put a good copy there");
    eventually(secs(60), "the other one is in the lake", || {
        metric(&mut consumer, "pipeline_lake_rows_total") == 1000.0
            && metric(&mut consumer, "pipeline_lake_behind_files") == 1.0
    });
    assert!(metric(&mut consumer, "pipeline_lake_errors_total") >= 1.0);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    lake.site.wait_caught_up();
    assert!(lake.closed() == std::slice::from_ref(&damaged), "nothing of it is lost");
    fs::write(&damaged, &whole).expect("written");
    lake.wait_moved();
    wait_ready(&mut consumer);
    assert_eq!(lake.lines().len(), 2000);
}

#[test]
fn a_log_that_somebody_is_decompressing_waits_until_both_forms_agree() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    fs::create_dir(lake.site.logs()).expect("created");
    let text: String = (0..1000).map(|number| line("2025-07-08 00:00:00,000", number)).collect();
    let plain = lake.site.logs().join("events-seq000000000001-20250708T020000000Z.log");
    fs::write(&plain, &text[..text.len() / 2]).expect("written");
    fs::write(plain.with_added_extension("gz"), gzip(&text)).expect("written");
    let mut consumer = lake.site.start(&lake.settings(&SETTINGS));
    wait_problem(&mut consumer, "remove the one that is not complete");
    assert_eq!((lake.closed().len(), lake.lines().len()), (2, 0));
    fs::write(&plain, &text).expect("written");
    lake.wait_moved();
    wait_ready(&mut consumer);
    assert_eq!(lake.lines().len(), 1000);
    assert!(consumer.terminate(secs(60)).success());
}
