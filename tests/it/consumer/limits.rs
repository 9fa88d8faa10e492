//! Who may write a log, and which part of the topic it takes.

use std::fs;

use event_pipeline::consumer::EXIT_UNDECIDED;

use crate::consumer::load::event_lines;
use crate::consumer::{Site, lines_of, payload, wait_ready};
use crate::support::admin;
use crate::support::kafka::{Cluster, shared};
use crate::support::wait::{eventually, secs};

#[test]
fn a_second_consumer_of_the_same_log_is_refused() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let first = site.start_ready(&[]);
    let second = site.program(&[]).run(secs(60));
    assert_eq!(second.status.code(), Some(1));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let holder = format!("held by process {} on host {}", first.pid(), host.trim());
    assert!(second.stderr.contains(&holder) && second.stderr.contains("CONSUMER_SHARD"), "{}", second.stderr);
}

#[test]
fn a_log_that_can_never_be_opened_ends_the_start_with_the_reason() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let taken = site.path("taken");
    fs::write(&taken, b"a file where a directory should be").expect("written");
    let log = taken.join("events.log");
    let refused = site.program(&[("LOG_FILE", log.to_str().expect("UTF-8"))]).run(secs(60));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("taken is not a directory"), "{}", refused.stderr);
    // No setting can tell that a directory cannot be created there, not even by root.
    let refused = site.program(&[("LOG_FILE", "/proc/taken/events.log")]).run(secs(60));
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("cannot create /proc/taken"), "{}", refused.stderr);
}

#[test]
fn what_is_not_a_file_of_its_own_is_refused_in_the_place_of_one() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    fs::create_dir(site.logs()).expect("create");
    let target = site.path("target");
    for name in ["events.log", "events.rejected", "events.log.checkpoint", "events.log.lock"] {
        let place = site.logs().join(name);
        for dangling in [true, false] {
            let _ = if dangling { fs::remove_file(&target) } else { fs::write(&target, "") };
            std::os::unix::fs::symlink(&target, &place).expect("link");
            let refused = site.program(&[]).run(secs(60));
            assert_eq!(refused.status.code(), Some(2), "{name}: {}", refused.stderr);
            for words in [name, "symbolic link", target.to_str().expect("UTF-8"), "LOG_FILE="] {
                assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
            }
            assert!(fs::read_link(&place).is_ok() && target.exists() != dangling, "nothing is touched");
            fs::remove_file(&place).expect("remove");
        }
        fs::create_dir(&place).expect("create");
        let refused = site.program(&[]).run(secs(60));
        assert_eq!(refused.status.code(), Some(2), "{name}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(name) && refused.stderr.contains("is a directory"),
            "{}",
            refused.stderr
        );
        fs::remove_dir(&place).expect("remove");
    }
    // A link to the directory is where the directory is.
    fs::rename(site.logs(), site.path("elsewhere")).expect("rename");
    std::os::unix::fs::symlink(site.path("elsewhere"), site.logs()).expect("link");
    let mut consumer = site.start_ready(&[("LOG_ROTATE_BYTES", "4096")]);
    topic.kcat(&["-P"], event_lines(100, 100).as_bytes());
    site.wait_caught_up();
    assert!(consumer.terminate(secs(30)).success());
    site.audit();
}

#[test]
fn shards_share_the_topic() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    for partition in ["0", "1", "2"] {
        let input = format!("{{\"partition\": {partition}}}\n");
        topic.kcat(&["-P", "-p", partition], input.as_bytes());
    }
    let _shards = ["0/2", "1/2"].map(|shard| site.start_ready(&[("CONSUMER_SHARD", shard)]));
    let values = |name: &str| {
        let mut values: Vec<String> =
            lines_of(&site.logs().join(name)).iter().map(|line| payload(line).to_owned()).collect();
        values.sort();
        values
    };
    eventually(secs(60), "each shard has its partitions", || {
        values("events-0.log") == ["{\"partition\": 0}", "{\"partition\": 2}"]
            && values("events-1.log") == ["{\"partition\": 1}"]
    });
}

#[test]
fn partitions_that_are_added_are_found() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let _consumer = site.start_ready(&[("KAFKA_METADATA_MAX_AGE_MS", "200")]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    topic.add_partitions(3);
    let input = event_lines(300, 100);
    for (partition, line) in input.lines().enumerate() {
        if partition < 3 {
            topic.kcat(&["-P", "-p", &partition.to_string()], format!("{line}\n").as_bytes());
        }
    }
    site.wait_caught_up();
    site.audit();
}

#[test]
fn a_bad_setting_and_a_taken_address_end_with_code_2() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    for (name, value) in [("LOG_FSYNC", "always"), ("CONSUMER_SHARD", "3/3"), ("METRICS_ADDR", "nowhere")] {
        let refused = site.program(&[(name, value)]).run(secs(60));
        assert_eq!(refused.status.code(), Some(2), "{name}");
        assert!(refused.stderr.contains(value), "{}", refused.stderr);
    }
    let mut first = site.start(&[]);
    wait_ready(&mut first);
    let address = first.address().to_string();
    let other = Site::new(&topic);
    let refused = other.program(&[("METRICS_ADDR", &address)]).run(secs(60));
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("METRICS_ADDR"), "{}", refused.stderr);
}

#[test]
fn what_only_a_human_can_decide_ends_with_a_code_of_its_own() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], event_lines(20, 100).as_bytes());
    site.wait_caught_up();
    // After a stop in order, a log may be moved away.
    consumer.kill();
    let refused = |settings: &[(&str, &str)], words: &str| {
        let log = fs::read(site.path("logs/events.log")).ok();
        let ended = site.program(settings).run(secs(60));
        assert_eq!(ended.status.code(), Some(i32::from(EXIT_UNDECIDED)), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        assert_eq!(fs::read(site.path("logs/events.log")).ok(), log, "{words}: nothing is touched");
    };
    let other = shared().topic_with(1, &[]);
    refused(&[("KAFKA_TOPIC", &other.name)], "belongs to topic");
    let checkpoint = site.path("logs/events.log.checkpoint");
    let good = fs::read(&checkpoint).expect("checkpoint");
    fs::write(&checkpoint, &good[..good.len() / 2]).expect("write");
    refused(&[], "cannot be read");
    fs::write(&checkpoint, &good).expect("write");
    fs::rename(site.path("logs/events.log"), site.path("logs/elsewhere")).expect("rename");
    refused(&[], "does not match its checkpoint");
    fs::rename(site.path("logs/elsewhere"), site.path("logs/events.log")).expect("rename");
    topic.kcat(&["-P"], event_lines(30, 100).as_bytes());
    admin::delete_records(&topic.brokers(), &topic.name, 0, 30);
    refused(&[], "10 offsets were deleted");
    let mut consumer = site.start_ready(&[("KAFKA_AUTO_OFFSET_RESET", "earliest")]);
    site.wait_caught_up();
    assert_eq!(site.lines().len(), 20 + 20);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn kafka_4_ends_it_with_code_2_when_the_crate_is_forced_and_is_served_by_default() {
    let cluster = Cluster::start_with(1, &[("KAFKA_VERSION", "4.3.1")]);
    let topic = cluster.topic();
    let refused = Site::new(&topic).program(&[("KAFKA_CLIENT", "crate")]).run(secs(60));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("KAFKA_CLIENT=auto"), "{}", refused.stderr);
    topic.kcat(&["-P"], b"{}\n");
    let site = Site::new(&topic);
    let mut served = site.start(&[("KAFKA_CLIENT", "auto")]);
    wait_ready(&mut served);
}
