//! Real Kafka brokers through `scripts/kafka.sh`: one shared by all tests, and private clusters to be harmed.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use event_pipeline::config::KafkaClient;

use crate::support::admin;
use crate::support::machine::{Ports, turn_of_three};
use crate::support::process::send_signal;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Names a Kafka that the tests shall use instead of starting one.
const GIVEN_BROKERS: &str = "KAFKA_BROKERS_FOR_TESTS";

/// The client that the tests use, as in `KAFKA_CLIENT`, and the Kafka that they run on, as in `KAFKA_VERSION`.
const GIVEN_CLIENT: &str = "KAFKA_CLIENT_FOR_TESTS";
const GIVEN_VERSION: &str = "KAFKA_VERSION_FOR_TESTS";

/// `KAFKA_CLIENT` for programs under test, if they shall not choose themselves.
pub fn given_client() -> Option<String> {
    std::env::var(GIVEN_CLIENT).ok()
}

/// The client under test.
pub fn client() -> KafkaClient {
    let name = given_client().unwrap_or_else(|| "auto".into());
    KafkaClient::from_str(&name, false).unwrap_or_else(|error| panic!("{GIVEN_CLIENT}={name}: {error}"))
}

/// The Kafka that the tests run on.
pub fn version() -> String {
    std::env::var(GIVEN_VERSION).unwrap_or_else(|_| "3.9.2".into())
}

/// True if the tests run on Kafka 4.x.
pub fn is_kafka_4() -> bool {
    version().starts_with("4.")
}

/// `KAFKA_CLIENT` of each client that serves the Kafka under test, for tests that try both by themselves.
pub fn clients() -> &'static [&'static str] {
    if is_kafka_4() { &["wire"] } else { &["crate", "wire"] }
}

/// True if the kafka crate is under test, not our own client.
pub fn is_on_crate() -> bool {
    client() == KafkaClient::Crate || client() == KafkaClient::Auto && !is_kafka_4()
}

/// A cluster that `kafka.sh` started for tests, or the shared one. A private one belongs to one test at a time; once
/// dropped, the next test that wants the same kind gets it if it is whole. Otherwise it is killed and wiped.
pub struct Cluster {
    addresses: Vec<String>,
    /// `None` when the cluster was given to us and is not ours to harm.
    dir: Option<PathBuf>,
    /// How it was started; `None` if no other test may have it.
    kind: Option<String>,
    /// `None` when the cluster was given to us.
    ports: Option<Ports>,
    /// Held as long as a test uses a cluster of three.
    turn: Option<File>,
}

/// Whole clusters that no test uses now, the one dropped last at the end.
static IDLE: Mutex<Vec<Cluster>> = Mutex::new(Vec::new());

/// Most brokers that wait for a test.
const MAX_IDLE_BROKERS: usize = 6;

/// The broker that tests share which do no harm to it. Ends with the test process.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let given = std::env::var(GIVEN_BROKERS).ok().filter(|brokers| !brokers.is_empty());
    SHARED.get_or_init(|| match given {
        Some(brokers) => Cluster {
            addresses: brokers.split(',').map(str::to_owned).collect(),
            dir: None,
            kind: None,
            ports: None,
            turn: None,
        },
        None => Cluster::start(1),
    })
}

impl Cluster {
    /// A private cluster of `count` brokers, of the version under test.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// A private cluster with settings for `kafka.sh`, for example `("KAFKA_VERSION", "4.3.1")`.
    pub fn start_with(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::of_kind(count, &format!("{settings:?}"), || {
            Self::start_on(count, |_| {
                settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
            })
        })
    }

    /// An idle cluster of this kind, or a new one.
    fn of_kind(count: usize, settings: &str, start: impl FnOnce() -> Self) -> Self {
        let kind = format!("{count} {settings}");
        let turn = (count >= 3).then(turn_of_three);
        let mut idle = IDLE.lock().expect("no panic holds it");
        let found = idle.iter().rposition(|cluster| cluster.kind.as_ref() == Some(&kind));
        let found = found.map(|index| idle.remove(index));
        drop(idle);
        let mut cluster = found.unwrap_or_else(start);
        cluster.kind = Some(kind);
        cluster.turn = turn;
        cluster
    }

    /// The same with further lines for each broker's `server.properties`.
    pub fn with_properties(count: usize, properties: &str) -> Self {
        Self::of_kind(count, properties, || {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(properties.as_bytes()).expect("written");
            let path = file.path().to_string_lossy().into_owned();
            Self::start_on(count, |_| vec![("KAFKA_PROPERTIES".into(), path.clone())])
        })
    }

    /// The same with settings that depend on the first port; the nine after it are free too.
    pub fn start_on(count: usize, settings: impl Fn(u16) -> Vec<(String, String)>) -> Self {
        for _ in 0..3 {
            let ports = Ports::reserve(count);
            let port = ports.first;
            // What cleans up after an earlier test process may still be at work, and must not find this one.
            let name = format!("kafka-{port}-{:08x}", fastrand::u32(..));
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            let addresses =
                (0..count).map(|index| format!("127.0.0.1:{}", port + 10 * index as u16)).collect();
            let cluster = Self { addresses, dir: Some(dir), kind: None, ports: Some(ports), turn: None };
            let mut script = cluster.script(&["start", &count.to_string()]);
            script
                .env("KAFKA_PORT", port.to_string())
                .env("KAFKA_RUNTIME", "jvm")
                .envs(std::env::var(GIVEN_VERSION).map(|version| ("KAFKA_VERSION", version)))
                .envs(settings(port));
            let output = script.output().expect("bash runs");
            if output.status.success() {
                return cluster;
            }
            // Another program may have taken a port between the look and the start.
            let text = String::from_utf8_lossy(&output.stderr);
            let taken = text.contains("taken") || text.contains("Address already in use");
            assert!(taken, "kafka.sh start: {text}");
        }
        panic!("no free ports for a cluster of {count}, three times");
    }

    /// `KAFKA_BROKERS` for this cluster.
    pub fn brokers(&self) -> String {
        self.addresses.join(",")
    }

    /// Address of broker `id`, counted from 1 like its node id.
    pub fn address(&self, id: usize) -> &str {
        &self.addresses[id - 1]
    }

    /// Port of broker `id`.
    pub fn port(&self, id: usize) -> u16 {
        self.address(id).rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port")
    }

    /// A fresh topic of three partitions, on three brokers where there are so many.
    pub fn topic(&self) -> Topic {
        self.topic_with(3, &[])
    }

    /// A fresh topic with settings, for example `("max.message.bytes", "1000")`.
    pub fn topic_with(&self, partitions: i32, settings: &[(&str, &str)]) -> Topic {
        Topic::create(self.addresses.clone(), partitions, settings)
    }

    /// A fresh topic whose partitions have copies on the brokers of these ids, the first of which leads.
    pub fn topic_on(&self, copies: &[&[i32]]) -> Topic {
        Topic::create_on(self.addresses.clone(), copies)
    }

    /// A topic of that name, which was deleted before.
    pub fn topic_named(&self, name: &str, partitions: i32) -> Topic {
        Topic::create_named(self.addresses.clone(), name.to_owned(), partitions, &[])
    }

    /// Where broker `id` keeps its data.
    pub fn data(&self, id: usize) -> PathBuf {
        self.dir().join(format!("broker-{id}/data"))
    }

    /// Process id of broker `id`, dead or alive.
    pub fn pid(&self, id: usize) -> u32 {
        let file = self.dir().join(format!("broker-{id}/pid"));
        fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_else(|| panic!("no pid in {}", file.display()))
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&self, id: usize) {
        let pid = self.pid(id);
        send_signal(pid, libc::SIGKILL);
        let command_line = format!("/proc/{pid}/cmdline");
        // A zombie that nobody reaps has an empty command line.
        eventually(secs(60), "the broker is gone", || {
            fs::read(&command_line).map_or(true, |line| line.is_empty())
        });
        // Its threads die one by one, and the last one closes the sockets.
        eventually(secs(60), "its port is free", || TcpStream::connect(self.address(id)).is_err());
    }

    /// SIGSTOP: the broker keeps its sockets and says nothing.
    pub fn pause(&self, id: usize) {
        let pid = self.pid(id);
        send_signal(pid, libc::SIGSTOP);
        // Its threads stop one after another, and one that still runs may answer.
        eventually(secs(60), "every thread of the broker has stopped", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a live broker");
            tasks.flatten().all(|task| {
                fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
            })
        });
    }

    /// SIGCONT after [`Cluster::pause`].
    pub fn resume(&self, id: usize) {
        // SAFETY: `kill` takes two integers and touches no memory of ours; one that is dead stays so.
        unsafe { libc::kill(self.pid(id) as i32, libc::SIGCONT) };
    }

    /// Starts broker `id` again on its data and waits until it answers.
    pub fn restart(&self, id: usize) {
        self.run(&["start-broker", &id.to_string()]);
    }

    /// Ends broker `id` in good order (SIGTERM).
    pub fn stop(&self, id: usize) {
        self.run(&["stop-broker", &id.to_string()]);
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.script(arguments).output().expect("bash runs");
        assert!(
            output.status.success(),
            "kafka.sh {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn dir(&self) -> &Path {
        self.dir.as_deref().unwrap_or_else(|| panic!("the Kafka of {GIVEN_BROKERS} is not ours to harm"))
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka.sh"));
        for name in ["KAFKA_BROKERS", "KAFKA_MODE", "KAFKA_VERSION", "KAFKA_PORT", "KAFKA_RUNTIME"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("KAFKA_DIR", self.dir())
            .env("KAFKA_OWNER_PID", process::id().to_string());
        command
    }
}

impl Cluster {
    /// True once every broker runs and knows all the others.
    fn is_whole(&self) -> bool {
        let brokers = |address: &String| {
            admin::metadata(address, "any").map(|metadata| metadata.brokers.len()).unwrap_or_default()
        };
        let ids = 1..=self.addresses.len();
        ids.filter(|id| self.dir().join(format!("broker-{id}/pid")).exists()).for_each(|id| self.resume(id));
        // A broker that was silent a moment ago is still to be known again; one that is dead is not waited for.
        let began = Instant::now();
        while began.elapsed() < secs(30) {
            let counts: Vec<usize> = self.addresses.iter().map(brokers).collect();
            if counts.contains(&0) || counts.iter().all(|count| *count == self.addresses.len()) {
                return !counts.contains(&0);
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.dir.is_none() {
            return;
        }
        if self.kind.is_some() && !thread::panicking() && self.is_whole() {
            let whole = Self {
                addresses: self.addresses.clone(),
                dir: self.dir.take(),
                kind: self.kind.take(),
                ports: self.ports.take(),
                turn: None,
            };
            let mut idle = IDLE.lock().expect("no panic holds it");
            idle.push(whole);
            let brokers: usize = idle.iter().map(|cluster| cluster.addresses.len()).sum();
            let oldest = (brokers > MAX_IDLE_BROKERS).then(|| idle.remove(0));
            drop(idle);
            if let Some(mut oldest) = oldest {
                oldest.kind = None;
            }
        } else {
            let _ = self.script(&["wipe"]).output();
        }
    }
}
