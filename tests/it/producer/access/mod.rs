//! Who may write: keys, their file while it changes, limits of clients, signatures, and pages of other origins.

mod browsers;
mod keys;
mod limits;
mod origins;
mod webhooks;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::producer::{Served, serve};
use crate::support::http::{Client, Response};
use crate::support::process::Program;
use crate::support::topic::Topic;
use crate::support::wait::secs;

/// The two HTTP servers, each of which has to do the same.
pub const SERVERS: [&str; 2] = ["tiny_http", "edge"];

/// A file of keys.
pub struct KeyFile {
    dir: TempDir,
    lines: Vec<String>,
}

impl KeyFile {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), lines: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// Adds a key of `producer --new-key`, and returns it.
    pub fn add(&mut self, client: &str, kind: &str, options: &str) -> String {
        let made = Program::producer().args(&["--new-key", client]).run(secs(60));
        assert!(made.status.success(), "{}", made.stderr);
        let (key, line) = made.stdout.trim().split_once('\n').expect("a key and a line");
        self.lines.push(format!("{} {options}", line.replacen(" secret ", &format!(" {kind} "), 1)));
        self.write();
        key.to_owned()
    }

    /// Puts the lines into the file, all at once.
    fn write(&self) {
        let next = self.dir.path().join("next");
        fs::write(&next, self.lines.join("\n")).expect("written");
        fs::rename(&next, self.path()).expect("renamed");
    }

    pub fn serve(&self, topic: &Topic, server: &str, settings: &[(&str, &str)]) -> Served {
        let path = self.path();
        let own = [("HTTP_SERVER", server), ("AUTH_KEYS_FILE", path.to_str().expect("text"))];
        serve(topic, &[&own[..], settings].concat())
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    Client::connect(address)
        .and_then(|mut client| client.request(method, path, headers, body))
        .expect("an answer")
}

/// Posts an event with headers.
fn post(served: &Served, headers: &[(&str, &str)]) -> Response {
    request(served.address, "POST", "/register_event", headers, br#"{"event": "x"}"#)
}
