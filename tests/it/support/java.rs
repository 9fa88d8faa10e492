//! Apache Kafka's own client (`tests/tools/JavaClient.java`), compiled and run against the jars of the broker.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::support::kafka::version;

/// The client is compiled at each start, which a busy machine may take minutes for.
const LINE_LIMIT: Duration = Duration::from_secs(300);

/// A run of it. Dropping it kills it.
pub struct Java {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Java {
    /// Starts `command` of the Java client.
    pub fn start(arguments: &[&str]) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"])
            .args(["-classpath", &format!("{root}/target/kafka/libs/{}/*", version())])
            .arg(format!("{root}/tests/tools/JavaClient.java"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("java does not start: {error}; install it (Debian, Ubuntu: apt-get install default-jdk-headless)")
        });
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { stdin: child.stdin.take(), child, lines }
    }

    /// Its next line on stdout.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(LINE_LIMIT).expect("a line of the Java client")
    }

    /// Lets it go on where it waits for that.
    pub fn go_on(&mut self) {
        self.stdin.as_mut().expect("open").write_all(b"\n").expect("it reads");
    }

    /// Waits for its end and gives its other lines.
    #[track_caller]
    pub fn finish(mut self) -> Vec<String> {
        drop(self.stdin.take());
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(LINE_LIMIT) {
            lines.push(line);
        }
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "the Java client: {status}; its stderr says why");
        lines
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
