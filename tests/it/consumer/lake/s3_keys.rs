//! Keys for a real S3 server: wrong, replaced, narrow, missing.

use std::fs;

use super::LakeSite;
use super::s3::{At, ROTATE_BYTES, audit_copy, wait_healed};
use crate::consumer::load::event_lines;
use crate::consumer::wait_problem;
use crate::support::kafka::shared;
use crate::support::s3::{self, KEY, SECRET};
use crate::support::wait::secs;

#[test]
fn wrong_keys_are_said_and_new_ones_are_read_from_the_file() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let mut lake = LakeSite::new(&topic);
    let at = At::new(&bucket, s3::shared().address());
    let file = lake.site.path("credentials");
    let write = |secret: &str| {
        let text = format!("[lake]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        fs::write(lake.site.path("new"), text).expect("written");
        fs::rename(lake.site.path("new"), &file).expect("renamed");
    };
    write("wrong");
    let mut settings = at.settings(&[
        ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("UTF-8")),
        ("AWS_PROFILE", "lake"),
        ("LOG_LEVEL", "debug"),
    ]);
    settings.retain(|(name, _)| !["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(name));
    let mut consumer = lake.site.start(&lake.settings(&settings));
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    wait_problem(&mut consumer, "SignatureDoesNotMatch");
    lake.site.wait_caught_up();
    write(SECRET);
    wait_healed(&mut consumer);
    lake.wait_moved();
    audit_copy(&mut lake, &bucket);
    assert!(!consumer.stderr().contains("Signature="), "{}", consumer.stderr());
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn keys_that_may_not_list_are_enough() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let mut lake = LakeSite::new(&topic);
    let at = At::new(&bucket, s3::shared().address());
    let narrow = [("AWS_ACCESS_KEY_ID", "narrowkey"), ("AWS_SECRET_ACCESS_KEY", "narrowsecret")];
    let mut consumer = lake.site.start_ready(&lake.settings(&at.settings(&narrow)));
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    lake.site.wait_caught_up();
    audit_copy(&mut lake, &bucket);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_start_that_cannot_work_is_refused() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let refused = |settings: &[(&str, &str)]| {
        let end = lake.site.program(&lake.settings(settings)).run(secs(60));
        assert_eq!(end.status.code(), Some(2), "{}", end.stderr);
        end.stderr
    };
    let url = ("LAKE_S3_URL", "s3://events");
    let rotation = ("LOG_ROTATE_BYTES", ROTATE_BYTES);
    let home = ("HOME", "/nonexistent");
    assert!(refused(&[url, rotation, home]).contains("there are no keys"));
    let half = ("AWS_ACCESS_KEY_ID", KEY);
    assert!(refused(&[url, rotation, half]).contains("AWS_SECRET_ACCESS_KEY belong together"));
    let keys = [url, rotation, half, ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let endpoint = ("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000");
    assert!(refused(&[&keys[..], &[endpoint]].concat()).contains("http://HOST:PORT"));
    let shown = lake.site.program(&lake.settings(&keys)).args(&["--print-config"]).run(secs(60)).stdout;
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY=***") && !shown.contains(SECRET), "{shown}");
}
