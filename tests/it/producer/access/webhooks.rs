//! Webhooks, signed by the Python package of Standard Webhooks and, as GitHub does it, by Python's own HMAC.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::producer::Served;
use crate::producer::access::{KeyFile, SERVERS, request};
use crate::producer::ids::ids;
use crate::support::kafka::shared;

const STANDARD: &str = "
import datetime, sys
from standardwebhooks.webhooks import Webhook
secret, identifier, at, body = sys.argv[1:]
at = datetime.datetime.fromtimestamp(int(at), tz=datetime.timezone.utc)
print(Webhook(secret).sign(identifier, at, body), end='')
";

const GITHUB: &str = "
import hashlib, hmac, sys
secret, body = sys.argv[1:]
print('sha256=' + hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest(), end='')
";

/// Where scripts/test.sh installs Python packages.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"event": "paid", "sum": 12}"#;

fn sign(script: &str, arguments: &[&str]) -> String {
    let mut python = Command::new("python3");
    let output = python.args(["-c", script]).args(arguments).env("PYTHONPATH", PACKAGES).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn status(served: &Served, key: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let target = format!("/register_event?key={key}");
    request(served.address, "POST", &target, headers, body.as_bytes()).status
}

#[test]
fn a_message_of_standard_webhooks_is_taken_if_it_is_signed_and_new() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        fs::write(file.path().with_file_name("signing"), format!("{OLD}\n{SECRET}\n")).expect("ok");
        let key = file.add("billing", "webhook", "secret-file=signing");
        let served = file.serve(&topic, server, &[]);
        let send = |secret: &str, at: u64, body: &str| {
            let at = at.to_string();
            let signature = sign(STANDARD, &[secret, "msg_1", &at, BODY]);
            let headers = [
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", at.as_str()),
                ("webhook-signature", &signature),
            ];
            status(&served, &key, &headers, body)
        };
        assert_eq!(send(SECRET, now(), BODY), 200);
        assert_eq!(send(OLD, now(), BODY), 200, "while secrets are rotated");
        assert_eq!(send(SECRET, now(), r#"{"event": "paid", "sum": 13}"#), 401, "tampered");
        assert_eq!(send(SECRET, now() - 400, BODY), 401, "old");
        assert_eq!(send("whsec_AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSw", now(), BODY), 401);
        assert_eq!(status(&served, &key, &[], BODY), 401, "the key alone is not enough");
        assert_eq!(topic.count(), 2);
    }
}

/// The id was signed, so it is better than a header that anybody can add.
#[test]
fn the_id_of_a_message_becomes_the_id_of_its_events() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        fs::write(file.path().with_file_name("signing"), SECRET).expect("written");
        let key = file.add("billing", "webhook", "secret-file=signing");
        let plain = file.add("shop", "secret", "");
        let served = file.serve(&topic, server, &[("EVENT_ID_FIELD", "event_id")]);
        let send = |id: &str, body: &str| {
            let at = now().to_string();
            let signature = sign(STANDARD, &[SECRET, id, &at, body]);
            let headers = [
                ("webhook-id", id),
                ("webhook-timestamp", at.as_str()),
                ("webhook-signature", &signature),
                ("Idempotency-Key", "other"),
            ];
            status(&served, &key, &headers, body)
        };
        assert_eq!(send("msg_1", r#"{"n": 1}"#), 200);
        assert_eq!(send("msg_1", r#"{"n": 1}"#), 200, "a repeated message");
        assert_eq!(send("msg_2", r#"[{"n": 2}, {"n": 3, "event_id": "own"}]"#), 200);
        assert_eq!(send(&"x".repeat(249), r#"{"n": 4}"#), 400, "too long");
        let unsigned = [("webhook-id", "msg_3"), ("X-Api-Key", plain.as_str())];
        assert_eq!(request(served.address, "POST", "/register_event", &unsigned, br#"{"n": 5}"#).status, 200);
        let found = ids(&topic);
        let expected = [(1, "msg_1"), (1, "msg_1"), (2, "msg_2/0"), (3, "own"), (5, "")];
        assert_eq!(found, expected.map(|(number, id)| (number, id.to_owned())), "{server}");
    }
}

#[test]
fn a_delivery_signed_as_github_does_it_is_taken() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        fs::write(file.path().with_file_name("signing"), "It's a Secret to Everybody").expect("written");
        let options = "secret-file=signing header=X-Hub-Signature-256 prefix=sha256=";
        let key = file.add("github", "webhook", options);
        let served = file.serve(&topic, server, &[]);
        let signed = |secret: &str| sign(GITHUB, &[secret, BODY]);
        let good = signed("It's a Secret to Everybody");
        let header = |value| [("x-hub-signature-256", value), ("Content-Type", "application/json")];
        assert_eq!(status(&served, &key, &header(good.as_str()), BODY), 200);
        assert_eq!(status(&served, &key, &header(&good), "{}"), 401);
        assert_eq!(status(&served, &key, &header(&signed("another secret of theirs")), BODY), 401);
        assert_eq!(topic.count(), 1);
    }
}
