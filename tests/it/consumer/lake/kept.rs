//! Logs that are kept beside the lake, and what is made of them again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{LakeSite, tree};
use crate::consumer::load::event_lines;
use crate::consumer::{audit, lines_of, metric, wait_problem, wait_ready};
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

const SETTINGS: [(&str, &str); 3] =
    [("LOG_ROTATE_BYTES", "100000"), ("LAKE_KEEP_LOGS", "true"), ("LAKE_COLUMNS", "number:int64")];

/// A lake with the logs that it is made of, whose consumer has stopped.
fn filled<'a>(lake: LakeSite<'a>) -> LakeSite<'a> {
    let mut consumer = lake.site.start_ready(&lake.settings(&SETTINGS));
    lake.site.topic.kcat(&["-P"], event_lines(2000, 300).as_bytes());
    lake.site.wait_caught_up();
    eventually(secs(60), "all closed logs are in the lake", || {
        metric(&mut consumer, "pipeline_lake_files_total") as usize >= lake.closed().len()
    });
    assert!(consumer.terminate(secs(60)).success());
    assert!(lake.closed().len() >= 5, "they are kept");
    lake.site.audit();
    lake
}

fn inodes(lake: &LakeSite<'_>) -> BTreeMap<String, u64> {
    let inode = |path: &String| fs::metadata(lake.dir.join(path)).expect("there").ino();
    tree(&lake.dir).into_keys().map(|path| (path.clone(), inode(&path))).collect()
}

#[test]
fn the_same_log_becomes_the_same_bytes_at_every_try() {
    let topic = shared().topic();
    let lake = filled(LakeSite::new(&topic));
    let (files, places) = (tree(&lake.dir), inodes(&lake));
    // As after a crash right before the manifest: the files are made again, and those with their names stay.
    fs::remove_dir_all(lake.dir.join("_manifest")).expect("removed");
    let other = lake.site.path("other");
    for dir in [&lake.dir, &other] {
        let settings = [&SETTINGS[..], &[("LAKE_DIR", dir.to_str().expect("UTF-8"))]].concat();
        let mut consumer = lake.site.start_ready(&settings);
        eventually(secs(60), "all closed logs are in the lake", || {
            metric(&mut consumer, "pipeline_lake_files_total") as usize >= lake.closed().len()
        });
        assert!(consumer.terminate(secs(60)).success());
        assert_eq!(tree(dir), files);
    }
    let kept = |places: BTreeMap<String, u64>| -> BTreeMap<String, u64> {
        places.into_iter().filter(|(path, _)| path.ends_with(".parquet")).collect()
    };
    assert_eq!(kept(inodes(&lake)), kept(places));
    assert_eq!(lake.lines().len() + lines_of_open(&lake), 2000);
}

fn lines_of_open(lake: &LakeSite<'_>) -> usize {
    lines_of(&lake.site.path("logs/events.log")).len()
}

#[test]
fn columns_that_change_after_a_crash_replace_the_files_of_the_unfinished_log() {
    let topic = shared().topic();
    let lake = filled(LakeSite::new(&topic));
    fs::remove_dir_all(lake.dir.join("_manifest")).expect("removed");
    let settings = [("LOG_ROTATE_BYTES", "100000"), ("LAKE_COLUMNS", "padding:string")];
    let _consumer = lake.site.start_ready(&lake.settings(&settings));
    lake.audit();
    let open = lines_of_open(&lake) as u64;
    assert_eq!(lake.query("SELECT count(padding) FROM lake"), serde_json::json!([[2000 - open]]));
}

#[test]
fn a_file_of_others_under_the_name_is_never_replaced() {
    let topic = shared().topic();
    let lake = filled(LakeSite::new(&topic));
    let files = tree(&lake.dir);
    let victim = files.keys().find(|path| path.ends_with(".parquet")).expect("a file");
    fs::write(lake.dir.join(victim), "of others").expect("written");
    fs::remove_dir_all(lake.dir.join("_manifest")).expect("removed");
    let mut consumer = lake.site.start(&lake.settings(&SETTINGS[..1]));
    wait_problem(&mut consumer, "exists and has other content");
    eventually(secs(60), "all other logs have gone", || lake.closed().len() == 1);
    assert_eq!(fs::read_to_string(lake.dir.join(victim)).expect("there"), "of others");
    // The way out that the message names.
    fs::rename(lake.dir.join(victim), lake.site.path("moved")).expect("moved");
    lake.audit();
}

#[test]
fn another_log_of_a_name_that_the_lake_has_stays() {
    let topic = shared().topic();
    let lake = filled(LakeSite::new(&topic));
    let logs = lake.closed();
    // Of another consumer that shares the lake: one has another length, and one only other bytes.
    fs::write(&logs[0], "2025-07-08 00:00:00,000 - {}\n").expect("written");
    let text = fs::read_to_string(&logs[1]).expect("read");
    fs::write(&logs[1], text.replacen("number", "numbed", 1)).expect("written");
    let mut consumer = lake.site.start(&lake.settings(&SETTINGS[..1]));
    wait_problem(&mut consumer, "is the manifest of another log than");
    eventually(secs(60), "the others are removed", || lake.closed() == logs[..2]);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn kept_logs_are_compressed_and_only_those_in_the_lake_are_removed() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let packed = || {
        let is_packed = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "gz");
        lake.closed().iter().filter(is_packed).count()
    };
    // The lake cannot be used: all logs have to stay as they are.
    fs::create_dir(&lake.dir).expect("created");
    let blocker = lake.dir.join("_part");
    fs::write(&blocker, "").expect("written");
    let settings = [&SETTINGS[..], &[("LOG_ROTATE_KEEP", "2"), ("LOG_ROTATE_GZIP", "true")]].concat();
    let mut consumer = lake.site.start(&lake.settings(&settings));
    topic.kcat(&["-P"], event_lines(2000, 300).as_bytes());
    lake.site.wait_caught_up();
    wait_problem(&mut consumer, "_part");
    assert!(lake.closed().len() >= 5 && packed() == 0, "{:?}", lake.closed());
    fs::remove_file(&blocker).expect("removed");
    eventually(secs(120), "two logs are kept, compressed", || packed() == 2 && lake.closed().len() == 2);
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    let mut lines = lake.lines();
    lines.extend(lines_of(&lake.site.path("logs/events.log")));
    audit(&topic.records(), &lines, &[]);
}
