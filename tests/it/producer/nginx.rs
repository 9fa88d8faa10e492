//! The proxy of `docs/nginx.conf`, as it stands there, in front of a real producer with the server that it names.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::producer::access::KeyFile;
use crate::producer::{Served, at_once, serve};
use crate::support::http::Client;
use crate::support::kafka::shared;
use crate::support::process::{Program, Running};
use crate::support::proxy::Proxy;
use crate::support::wait::{eventually, secs};

/// What the file says about the producer.
const SERVER: (&str, &str) = ("HTTP_SERVER", "edge");

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/nginx.conf");

/// The documented file with other ports and directories. Dropped, nginx ends with its workers.
struct Nginx {
    program: Running,
    address: SocketAddr,
}

impl Nginx {
    fn before(upstream: SocketAddr) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let program = Program::new("nginx", "/usr/sbin/nginx");
        let dir = tempfile::tempdir().expect("directory");
        // The workers are somebody else when the tests run as root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let dir = dir.keep();
        let config = dir.join("nginx.conf");
        fs::write(&config, adapted(&upstream.to_string(), &address.to_string(), &dir)).expect("written");
        let directives = format!("daemon off; pid {}/pid; error_log stderr;", dir.display());
        let config = config.to_str().expect("path");
        let program = program.dir(&dir).args(&["-c", config, "-g", &directives]).start();
        let mut this = Self { program, address };
        eventually(secs(60), "nginx listens", || {
            assert!(this.program.is_alive(), "nginx ended: {}", this.program.stderr());
            Client::connect(this.address).is_ok()
        });
        this
    }

    fn client(&self) -> Client {
        Client::connect(self.address).expect("connects")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.program.is_alive() {
            self.program.signal(libc::SIGTERM);
            eventually(secs(60), "nginx ends", || !self.program.is_alive());
        }
        let _ = fs::remove_dir_all(self.program.dir());
    }
}

/// Only what a second nginx on the same machine cannot share.
fn adapted(producer: &str, address: &str, dir: &Path) -> String {
    let mut config = fs::read_to_string(CONFIG).expect("docs/nginx.conf");
    assert!(config.contains(&format!("{}={}", SERVER.0, SERVER.1)));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
        .collect();
    for (documented, own) in [
        ("server 127.0.0.1:5000;", format!("server {producer};")),
        ("listen 127.0.0.1:8080;", format!("listen {address};")),
        ("http {\n", format!("http {{\naccess_log off;\n{temporary}")),
    ] {
        assert_eq!(config.matches(documented).count(), 1, "{documented} stands once in docs/nginx.conf");
        config = config.replace(documented, &own);
    }
    config
}

#[test]
fn events_pass_on_few_connections_and_keep_their_receipts() {
    let topic = shared().topic();
    let served = serve(&topic, &[SERVER]);
    let counting = Proxy::tcp(served.address);
    let nginx = Nginx::before(counting.address());
    at_once(20, |_| {
        let mut client = nginx.client();
        for _ in 0..20 {
            let answer = client.post_event(br#"{"event": "login"}"#).expect("an answer");
            assert_eq!((answer.status, answer.json()["topic"].as_str()), (200, Some(topic.name.as_str())));
            assert!(answer.header("x-request-id").is_some());
        }
    });
    assert_eq!(topic.count(), 400);
    assert!(counting.accepted() <= 60, "{} connections for 400 requests", counting.accepted());
    for request in [
        // nginx reads it whole and sends its length.
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "cf-ipcity: S\u{e3}o Paulo\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut client = nginx.client();
        let request = format!("POST /register_event HTTP/1.1\r\nHost: x\r\n{request}");
        client.send_raw(request.as_bytes()).expect("sent");
        assert_eq!(client.read_response().expect("an answer").status, 200, "{request}");
    }
    let large = format!("{{\"big\": \"{}\"}}", "x".repeat(400_000));
    assert_eq!(nginx.client().post_event(large.as_bytes()).expect("an answer").status, 200);
    assert_eq!(nginx.client().get("/metrics").expect("an answer").status, 404);
}

#[test]
fn what_no_producer_would_serve_does_not_reach_it() {
    let topic = shared().topic();
    let served = serve(&topic, &[SERVER]);
    let nginx = Nginx::before(served.address);
    served.assert_serves();
    let before = served.program.size();
    let status_of = |request: &[u8]| {
        let mut client = nginx.client();
        client.send_raw(request).expect("sent");
        client.read_response().expect("an answer").status
    };
    for _ in 0..50 {
        assert_eq!(status_of(b"POST /register_event HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
    }
    let length = |length: &str| {
        format!("POST /register_event HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n").into_bytes()
    };
    assert_eq!(status_of(&length("9000000")), 413);
    assert_eq!(status_of(&length("1000000000000000")), 413);
    assert_eq!(status_of(&length("abc")), 400);
    served.assert_serves();
    for refused in ["framing", "max_body_bytes"] {
        assert_eq!(served.metric(&format!("pipeline_http_refused_total{{limit=\"{refused}\"}}")), 0.0);
    }
    eventually(secs(60), &format!("as many descriptors as before 50 `HTTP/2.0` lines: {before:?}"), || {
        served.program.size().open_fds < before.open_fds + 20
    });
}

#[test]
fn a_503_and_its_retry_after_pass_unchanged() {
    let mut program = Program::producer().env(SERVER.0, SERVER.1).env("KAFKA_BROKERS", "127.0.0.1:1").start();
    let address = program.address();
    let served = Served { program, address };
    let nginx = Nginx::before(served.address);
    let answer = nginx.client().post_event(b"{}").expect("an answer");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("kafka_unavailable")));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn keys_and_what_is_said_about_limits_pass_through_it() {
    let topic = shared().topic();
    let mut file = KeyFile::new();
    let key = file.add("shop", "secret", "events/s=1 burst=10");
    let served = file.serve(&topic, SERVER.1, &[("MAX_REQUEST_EVENTS", "10")]);
    let nginx = Nginx::before(served.address);
    let mut client = nginx.client();
    let bearer = format!("Bearer {key}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/x-ndjson")];
    let mut post = |headers: &[(&str, &str)]| {
        client.request("POST", "/register_event", headers, &b"{}\n".repeat(10)).expect("answer")
    };
    assert_eq!(post(&headers).status, 200);
    let refused = post(&headers);
    assert_eq!(refused.status, 429, "{}", refused.text());
    for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(refused.header(name).is_some(), "{name}");
    }
    let unknown = post(&headers[1..]);
    assert_eq!((unknown.status, unknown.header("www-authenticate")), (401, Some("Bearer realm=\"events\"")));
}
