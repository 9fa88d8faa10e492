//! The copy of the lake in a real S3 server: kills, faults of the network and of the server, keys, and other objects.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::kills::kill_rounds;
use super::{LakeSite, files, tree};
use crate::consumer::faults::Tmpfs;
use crate::consumer::load::{Load, event_halves, event_lines};
use crate::consumer::{ready_status, wait_metric, wait_problem};
use crate::support::certificates::Authority;
use crate::support::kafka::shared;
use crate::support::process::Running;
use crate::support::proxy::{Direction, Mode, Proxy};
use crate::support::s3::{self, Bucket, KEY, S3, SECRET};
use crate::support::wait::{eventually, secs};

pub const ROTATE_BYTES: &str = "1000000";

/// Checksum of the text `not ours`.
const NOT_OURS: &str =
    "x-amz-content-sha256: 93e6edebae4ee2dfe60465a77f0f67920d2c140078e172a7677e0f3ef867b5f5";

/// Settings for a bucket that is reached at `endpoint`.
pub struct At {
    url: String,
    endpoint: String,
}

impl At {
    pub fn new(bucket: &Bucket, address: SocketAddr) -> Self {
        Self { url: bucket.url(), endpoint: format!("http://{address}") }
    }

    pub fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let ours = [
            ("LAKE_S3_URL", self.url.as_str()),
            ("AWS_ENDPOINT_URL_S3", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("LAKE_S3_TIMEOUT_MS", "5000"),
            ("LOG_ROTATE_BYTES", ROTATE_BYTES),
        ];
        [&ours, more].concat()
    }
}

/// Each event is in the bucket or in the open log once, and the files that are there have left the lake.
#[track_caller]
pub fn audit_copy(lake: &mut LakeSite<'_>, bucket: &Bucket) {
    lake.wait_moved();
    assert_eq!(
        files(&lake.dir).into_iter().filter(|path| path.starts_with("dt=")).count(),
        0,
        "no file stays"
    );
    assert_eq!(lake.parts(), [""; 0]);
    // The manifests stay: they say which logs are there.
    let manifests =
        |dir: &Path| files(dir).into_iter().filter(|path| path.starts_with("_manifest/")).collect();
    let here: Vec<String> = manifests(&lake.dir);
    let copy = lake.dir.with_extension("copy");
    bucket.download(&copy);
    assert_eq!(here, manifests(&copy));
    let own = std::mem::replace(&mut lake.dir, copy);
    lake.audit();
    lake.dir = own;
}

/// Waits for the next attempt after a fault, which may be a minute away.
#[track_caller]
pub fn wait_healed(consumer: &mut Running) {
    eventually(secs(300), "the consumer is ready again", || ready_status(consumer).0 == 200);
}

/// Runs a consumer under load while `harm` is done, and audits the copy.
fn survives(at: &At, bucket: &Bucket, more: &[(&str, &str)], harm: impl FnOnce()) {
    let topic = shared().topic_with(3, &[]);
    let mut lake = LakeSite::new(&topic);
    let mut consumer = lake.site.start(&lake.settings(&at.settings(more)));
    let load = Load::start(&topic);
    eventually(secs(120), "the first objects are there", || !bucket.keys().is_empty());
    harm();
    load.finish();
    lake.site.wait_caught_up();
    wait_healed(&mut consumer);
    lake.wait_moved();
    audit_copy(&mut lake, bucket);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn kills_while_files_are_uploaded_lose_and_repeat_nothing_and_objects_equal_the_files() {
    let (topic, bucket) = (shared().topic_with(3, &[]), s3::shared().bucket());
    let lake = LakeSite::new(&topic);
    let at = At::new(&bucket, s3::shared().address());
    kill_rounds(&lake, &at.settings(&[("LAKE_S3_KEEP_FILES", "true")]));
    assert_eq!(bucket.objects(), tree(&lake.dir));
    assert_eq!(bucket.uploads(), [""; 0]);
}

#[test]
fn files_leave_the_lake_once_their_objects_are_there() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let lake = LakeSite::new(&topic);
    let at = At { url: format!("{}/a/b/", bucket.url()), ..At::new(&bucket, s3::shared().address()) };
    let mut consumer = lake.site.start_ready(&lake.settings(&at.settings(&[])));
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    lake.site.wait_caught_up();
    lake.wait_moved();
    let keys = bucket.keys();
    assert!(keys.iter().all(|key| key.starts_with("a/b/")), "{keys:?}");
    wait_metric(&mut consumer, "pipeline_lake_uploads_total", keys.len() as f64);
    let bytes: usize = bucket.objects().values().map(Vec::len).sum();
    wait_metric(&mut consumer, "pipeline_lake_upload_bytes_total", bytes as f64);
    assert!(!files(&lake.dir).iter().any(|path| path.starts_with("dt=")));
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_killed_server_is_waited_for() {
    let mut server = S3::start();
    let bucket = server.bucket();
    let at = At::new(&bucket, server.address());
    let topic = shared().topic_with(3, &[]);
    let mut lake = LakeSite::new(&topic);
    let mut consumer = lake.site.start(&lake.settings(&at.settings(&[])));
    let load = Load::start(&topic);
    for _ in 0..3 {
        let before = bucket.keys().len();
        eventually(secs(120), "more objects are there", || bucket.keys().len() > before);
        server.kill();
        wait_problem(&mut consumer, "a request to S3");
        server.run();
        wait_healed(&mut consumer);
    }
    load.finish();
    lake.site.wait_caught_up();
    audit_copy(&mut lake, &bucket);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn connections_that_are_cut_and_answers_that_are_lost_repeat_nothing() {
    let bucket = s3::shared().bucket();
    let proxy = Proxy::tcp(s3::shared().address());
    let at = At::new(&bucket, proxy.address());
    survives(&at, &bucket, &[], || {
        for round in 0..12 {
            // The request arrives or not; its answer never does.
            proxy.cut_at([&b"PUT /"[..], b"HEAD /"][round / 2 % 2], round % 2 == 0);
            eventually(secs(120), "a request is cut", || !proxy.is_to_cut());
        }
        for bytes in [0, 100, 10_000, 100_000] {
            proxy.cut_after(Direction::Request, bytes);
            proxy.cut_after(Direction::Reply, bytes / 100);
        }
    });
}

#[test]
fn a_silent_server_is_given_up_in_time_and_asked_again() {
    let bucket = s3::shared().bucket();
    let proxy = Proxy::tcp(s3::shared().address());
    let at = At::new(&bucket, proxy.address());
    let topic = shared().topic_with(3, &[]);
    let mut lake = LakeSite::new(&topic);
    let settings = at.settings(&[("LAKE_S3_TIMEOUT_MS", "500")]);
    let mut consumer = lake.site.start_ready(&lake.settings(&settings));
    proxy.set(Mode::Stall);
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    wait_problem(&mut consumer, "timeout");
    // The log does not wait.
    lake.site.wait_caught_up();
    proxy.set(Mode::Forward);
    wait_healed(&mut consumer);
    lake.wait_moved();
    audit_copy(&mut lake, &bucket);
    assert!(consumer.terminate(secs(60)).success());
}

/// Answers the first requests with 503, and passes all other connections on.
fn busy_server(upstream: SocketAddr, refusals: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (address, count) = (listener.local_addr().expect("address"), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            if counted.load(Ordering::SeqCst) < refusals {
                let _ = client.read(&mut [0; 64 << 10]);
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = client
                    .write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                continue;
            }
            let server = TcpStream::connect(upstream).expect("the server is there");
            for (mut from, mut to) in [
                (client.try_clone().expect("a clone"), server.try_clone().expect("a clone")),
                (server, client),
            ] {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (address, count)
}

#[test]
fn a_busy_server_is_asked_again() {
    let bucket = s3::shared().bucket();
    let (address, refused) = busy_server(s3::shared().address(), 10);
    survives(&At::new(&bucket, address), &bucket, &[], || {
        assert_eq!(refused.load(Ordering::SeqCst), 10);
    });
}

#[test]
fn a_full_server_is_waited_for() {
    let mut server = S3::start();
    server.kill();
    let tmpfs = Tmpfs::mount(&server.data(), "200m");
    server.run();
    let bucket = server.bucket();
    let ballast = server.data().join("ballast");
    let (topic, at) = (shared().topic(), At::new(&bucket, server.address()));
    let mut lake = LakeSite::new(&topic);
    let mut consumer = lake.site.start_ready(&lake.settings(&at.settings(&[])));
    let [first, second] = event_halves(20_000, 300);
    topic.kcat(&["-P"], first.as_bytes());
    eventually(secs(120), "the first objects are there", || !bucket.keys().is_empty());
    // As large as the file system is.
    let mut file = fs::File::create(&ballast).expect("created");
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    topic.kcat(&["-P"], second.as_bytes());
    wait_problem(&mut consumer, "lake");
    lake.site.wait_caught_up();
    drop(file);
    fs::remove_file(&ballast).expect("removed");
    wait_healed(&mut consumer);
    lake.wait_moved();
    audit_copy(&mut lake, &bucket);
    assert!(consumer.terminate(secs(60)).success());
    drop(server);
    drop(tmpfs);
}

#[test]
fn an_object_of_somebody_else_is_never_replaced_and_holds_up_no_other_log() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let lake = LakeSite::new(&topic);
    let at = At::new(&bucket, s3::shared().address());
    fs::create_dir(lake.site.logs()).expect("created");
    for number in [1, 2] {
        let line = format!("2025-07-08 00:00:00,000 - {{\"number\": {number}}}\n");
        let name = format!("events-seq00000000000{number}-20250708T020000000Z.log");
        fs::write(lake.site.logs().join(name), line).expect("written");
    }
    let key = |number: u32| {
        format!("dt=2025-07-08/hour=00/events-seq00000000000{number}-20250708T020000000Z.log.parquet")
    };
    // curl signs a path as it is given, and S3 escapes every `=`.
    let path = format!("/{}", key(1).replace('=', "%3D"));
    bucket.curl(&["--request", "PUT", "--header", NOT_OURS, "--data", "not ours"], &path).expect("stored");
    let mut consumer = lake.site.start(&lake.settings(&at.settings(&[])));
    wait_problem(&mut consumer, "exists and has other content");
    eventually(secs(60), "the other log is there", || bucket.keys().contains(&key(2)));
    assert_eq!(lake.closed().len(), 1);
    assert_eq!(bucket.objects()[&key(1)], b"not ours");
    bucket.curl(&["--request", "DELETE"], &path).expect("removed");
    wait_healed(&mut consumer);
    lake.wait_moved();
    assert!(bucket.keys().contains(&key(1)));
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn objects_of_an_attempt_with_other_columns_are_replaced() {
    let (topic, bucket) = (shared().topic(), s3::shared().bucket());
    let lake = LakeSite::new(&topic);
    let at = At::new(&bucket, s3::shared().address());
    let run = |columns: &str| {
        let more = [("LAKE_KEEP_LOGS", "true"), ("LAKE_S3_KEEP_FILES", "true"), ("LAKE_COLUMNS", columns)];
        let mut consumer = lake.site.start_ready(&lake.settings(&at.settings(&more)));
        lake.site.wait_caught_up();
        eventually(secs(120), "all closed logs are there", || {
            let manifests = files(&lake.dir).iter().filter(|path| path.starts_with("_manifest/")).count();
            manifests > 0 && manifests == lake.closed().len()
        });
        assert!(consumer.terminate(secs(60)).success());
    };
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    run("padding:string");
    let first = bucket.objects();
    // As if the consumer had been killed before the manifests had their names.
    fs::remove_dir_all(lake.dir.join("_manifest")).expect("removed");
    run("number:int64");
    let second = bucket.objects();
    assert_eq!(second, tree(&lake.dir));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    assert!(first.iter().zip(&second).all(|(one, other)| one != other), "all objects are new");
}

#[test]
fn the_server_is_verified_and_a_missing_bucket_is_said() {
    let dir = tempfile::tempdir().expect("directory");
    let (ours, foreign) = (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "foreign"));
    let certificate = ours.certify("server", "IP:127.0.0.1", 2);
    let server = S3::start_with(Some((certificate.certificate, certificate.key)));
    let (topic, bucket) = (shared().topic(), server.bucket());
    let mut lake = LakeSite::new(&topic);
    let mut at =
        At { endpoint: format!("https://{}", server.tls_address()), ..At::new(&bucket, server.address()) };
    topic.kcat(&["-P"], event_lines(10_000, 300).as_bytes());
    let text = |path: std::path::PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (foreign, ours) = (text(foreign.file()), text(ours.file()));
    let mut consumer = lake.site.start(&lake.settings(&at.settings(&[("AWS_CA_BUNDLE", &foreign)])));
    wait_problem(&mut consumer, "UnknownIssuer");
    assert!(consumer.terminate(secs(60)).success());
    let url = std::mem::replace(&mut at.url, "s3://no-such-bucket".into());
    let mut consumer = lake.site.start(&lake.settings(&at.settings(&[("AWS_CA_BUNDLE", &ours)])));
    wait_problem(&mut consumer, "create the bucket");
    assert!(consumer.terminate(secs(60)).success());
    at.url = url;
    let mut consumer = lake.site.start_ready(&lake.settings(&at.settings(&[("AWS_CA_BUNDLE", &ours)])));
    lake.site.wait_caught_up();
    audit_copy(&mut lake, &bucket);
    assert!(consumer.terminate(secs(60)).success());
}
