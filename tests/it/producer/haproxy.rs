//! The proxy of `docs/haproxy.cfg`, as it stands there, in front of a real producer.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use tempfile::TempDir;

use crate::producer::serve;
use crate::support::http::Client;
use crate::support::kafka::shared;
use crate::support::process::{Program, Running};
use crate::support::wait::{eventually, secs};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/haproxy.cfg");

/// The documented file with other ports. Dropped, HAProxy is killed.
pub struct HaProxy {
    program: Running,
    pub address: SocketAddr,
    _dir: TempDir,
}

impl HaProxy {
    pub fn before(upstream: SocketAddr) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut config = fs::read_to_string(CONFIG).expect("docs/haproxy.cfg");
        assert!(config.contains("HTTP_SERVER=edge"));
        for (documented, own) in [
            ("producer-1 127.0.0.1:5000 ", format!("producer-1 {upstream} ")),
            ("bind 127.0.0.1:8080", format!("bind {address}")),
        ] {
            assert_eq!(config.matches(documented).count(), 1, "{documented} stands once in docs/haproxy.cfg");
            config = config.replace(documented, &own);
        }
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("haproxy.cfg");
        fs::write(&path, config).expect("written");
        // In the foreground.
        let arguments = ["-db", "-f", path.to_str().expect("UTF-8")];
        let program = Program::new("haproxy", "/usr/sbin/haproxy").args(&arguments).start();
        let mut this = Self { program, address, _dir: dir };
        eventually(secs(60), "HAProxy listens", || {
            assert!(this.program.is_alive(), "HAProxy ended: {}", this.program.stderr());
            Client::connect(this.address).is_ok()
        });
        this
    }
}

#[test]
fn only_events_pass_and_answers_are_unchanged() {
    let topic = shared().topic();
    let served = serve(&topic, &[("HTTP_SERVER", "edge")]);
    let proxy = HaProxy::before(served.address);
    let mut client = Client::connect(proxy.address).expect("connects");
    for _ in 0..20 {
        let answer = client.post_event(br#"{"event": "login"}"#).expect("an answer");
        assert_eq!((answer.status, answer.json()["topic"].as_str()), (200, Some(topic.name.as_str())));
        assert!(answer.header("x-request-id").is_some());
    }
    let large = format!("{{\"big\": \"{}\"}}", "x".repeat(400_000));
    assert_eq!(client.post_event(large.as_bytes()).expect("an answer").status, 200);
    let refused = client.post_event(b"no JSON").expect("an answer");
    assert_eq!((refused.status, refused.json()["error"].as_str()), (400, Some("not_json")));
    for path in ["/metrics", "/livez", "/readyz"] {
        let mut client = Client::connect(proxy.address).expect("connects");
        assert_eq!(client.get(path).expect("an answer").status, 404, "{path}");
    }
    assert_eq!(topic.count(), 21);
}
