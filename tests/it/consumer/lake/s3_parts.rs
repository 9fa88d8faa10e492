//! Large files of the lake, which go to a real S3 server in parts.

use std::fs;

use super::s3::At;
use super::{LakeSite, tree};
use crate::support::kafka::shared;
use crate::support::proxy::{Mode, Proxy};
use crate::support::s3;
use crate::support::wait::{eventually, secs};

/// The least that S3 takes.
const PART_BYTES: &str = "5242880";

/// Lines that become a file of several parts, since gzip cannot make them small.
fn large_log() -> String {
    let random = || (0..8).map(|_| format!("{:032x}", fastrand::u128(..))).collect::<String>();
    (0..90_000)
        .map(|n| format!("2025-07-08 00:00:00,000 - {{\"number\": {n}, \"random\": \"{}\"}}\n", random()))
        .collect()
}

#[test]
fn large_files_go_in_parts_of_which_no_kill_and_no_cut_leaves_any() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let lake = LakeSite::new(&topic);
    let proxy = Proxy::tcp(s3::shared().address());
    let at = At::new(&bucket, proxy.address());
    fs::create_dir(lake.site.logs()).expect("created");
    let name = "events-seq000000000001-20250708T020000000Z.log";
    fs::write(lake.site.logs().join(name), large_log()).expect("written");
    let settings = at.settings(&[("LAKE_S3_KEEP_FILES", "true"), ("LAKE_S3_PART_BYTES", PART_BYTES)]);
    proxy.set(Mode::Throttle(8 << 20));
    for _ in 0..3 {
        let mut consumer = lake.site.start(&lake.settings(&settings));
        let before = bucket.uploads().len();
        eventually(secs(120), "parts are uploaded", || bucket.uploads().len() > before);
        consumer.kill();
    }
    assert_eq!(bucket.uploads().len(), 3, "those of the kills");
    let mut consumer = lake.site.start(&lake.settings(&settings));
    for text in [&b"uploads="[..], b"partNumber=2", b"partNumber=3", b"CompleteMultipartUpload xmlns"] {
        for is_delivered in [false, true] {
            proxy.cut_at(text, is_delivered);
            eventually(secs(120), "a request is cut", || !proxy.is_to_cut() || lake.closed().is_empty());
        }
    }
    lake.wait_moved();
    assert_eq!(bucket.uploads(), [""; 0]);
    assert_eq!((bucket.objects(), lake.parts()), (tree(&lake.dir), Vec::new()));
    assert_eq!(lake.lines().len(), 90_000);
    assert!(consumer.terminate(secs(60)).success());
}
