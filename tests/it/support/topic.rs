//! A topic of one test: made fresh, read back by `kcat`, which shares no code with us.

use std::io::{self, Write};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::admin::{self, Metadata};
use crate::support::wait::{eventually, eventually_some, secs};

/// A topic and the brokers that have it.
#[derive(Clone)]
pub struct Topic {
    pub name: String,
    brokers: Vec<String>,
}

/// One record as Kafka keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl Stored {
    /// The value as text; panics on a null one.
    #[track_caller]
    pub fn text(&self) -> &str {
        str::from_utf8(self.value.as_deref().expect("a value")).expect("UTF-8")
    }
}

impl Topic {
    /// Creates a topic under a name of its own and waits until every broker knows all its leaders.
    pub fn create(brokers: Vec<String>, partitions: i32, settings: &[(&str, &str)]) -> Self {
        Self::create_named(brokers, new_name(), partitions, settings)
    }

    /// Creates a topic whose partitions have copies on the brokers of these ids, and waits as [`Topic::create`] does.
    pub fn create_on(brokers: Vec<String>, copies: &[&[i32]]) -> Self {
        let topic = Self { name: new_name(), brokers };
        admin::create_topic_on(topic.any_broker(), &topic.name, copies);
        topic.wait_for_partitions(copies.len() as i32);
        topic
    }

    /// Creates the topic `name`, which no broker knows, and waits as [`Topic::create`] does.
    pub fn create_named(
        brokers: Vec<String>,
        name: String,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Self {
        let topic = Self { name, brokers };
        let copies = topic.brokers.len().min(3) as i16;
        admin::create_topic(topic.any_broker(), &topic.name, partitions, copies, settings);
        topic.wait_for_partitions(partitions);
        topic
    }

    /// `KAFKA_BROKERS` for this topic.
    pub fn brokers(&self) -> String {
        self.brokers.join(",")
    }

    /// The topic in the eyes of the first broker that answers.
    pub fn metadata(&self) -> Metadata {
        eventually_some(secs(60), "a broker tells about the topic", || {
            self.brokers.iter().find_map(|address| admin::metadata(address, &self.name).ok())
        })
    }

    /// Sets one setting of the topic.
    pub fn alter(&self, setting: &str, value: &str) {
        admin::alter_topic(self.any_broker(), &self.name, setting, value);
    }

    /// Raises the number of partitions to `total`.
    pub fn add_partitions(&self, total: i32) {
        admin::create_partitions(self.any_broker(), &self.name, total);
        self.wait_for_partitions(total);
    }

    /// Deletes the topic with its data and waits until no broker knows it.
    pub fn delete(&self) {
        admin::delete_topic(self.any_broker(), &self.name);
        eventually(secs(60), "the topic is gone", || self.metadata().partitions.is_empty());
    }

    /// Up to where the records of `partition` are given out.
    pub fn end_offset(&self, partition: i32) -> i64 {
        eventually_some(secs(60), "the leader tells its end offset", || {
            self.ask_leader(partition, admin::end_offset)
        })
    }

    /// Waits until all that is written is given out too. For a moment (0.3 s was seen) a new leader holds back what
    /// the one before it had acknowledged, until its replicas have asked it for more (KIP-207).
    pub fn wait_given_out(&self) {
        let is_given_out = |partition| {
            let end = self.ask_leader(partition, admin::log_end_offset);
            end.is_some() && end == self.ask_leader(partition, admin::end_offset)
        };
        let partitions = 0..self.metadata().partitions.len() as i32;
        eventually(secs(60), "all records are given out", || partitions.clone().all(is_given_out));
    }

    /// Number of the compression of each batch in `partition`, as its leader stores them.
    pub fn codecs(&self, partition: i32) -> Vec<i16> {
        eventually_some(secs(60), "the leader gives out its batches", || {
            self.ask_leader(partition, admin::codecs)
        })
    }

    fn ask_leader<T>(&self, partition: i32, ask: impl Fn(&str, &str, i32) -> io::Result<T>) -> Option<T> {
        let metadata = self.metadata();
        let leader = metadata.partitions.get(partition as usize)?.leader;
        ask(metadata.brokers.get(&leader)?, &self.name, partition).ok()
    }

    /// True if the leader of each partition answers as one now.
    pub fn is_led(&self) -> bool {
        let metadata = self.brokers.iter().find_map(|address| admin::metadata(address, &self.name).ok());
        metadata.is_some_and(|metadata| {
            metadata.partitions.iter().all(|info| {
                let leader = metadata.brokers.get(&info.leader);
                leader.is_some_and(|leader| admin::end_offset(leader, &self.name, info.partition).is_ok())
            })
        })
    }

    /// Records in the topic, none of them having been deleted.
    pub fn count(&self) -> usize {
        let partitions = 0..self.metadata().partitions.len() as i32;
        partitions.map(|partition| self.end_offset(partition) as usize).sum()
    }

    /// All records, by partition and offset, as `kcat` reads them.
    pub fn records(&self) -> Vec<Stored> {
        const FORMAT: &str = r"%p %o %T %K %S\n%k%s\n";
        let arguments = ["-C", "-o", "beginning", "-e", "-q", "-X", "check.crcs=true", "-f", FORMAT];
        let mut records = parse(&self.kcat(&arguments, b""));
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Runs `kcat` on this topic with `input` on stdin and returns its stdout; panics when it fails.
    pub fn kcat(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.brokers(), "-t", &self.name]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("kcat does not start: {error}; install it (Debian, Ubuntu: apt-get install kcat)")
        });
        let mut stdin = child.stdin.take().expect("piped");
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // kcat may end without reading all of it; its status tells whether that was wrong.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("kcat ends")
        });
        assert!(output.status.success(), "kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A broker that answers; creation and settings may go to any.
    fn any_broker(&self) -> &str {
        let found = self.brokers.iter().find(|address| admin::metadata(address, &self.name).is_ok());
        found.unwrap_or_else(|| panic!("none of {:?} answers", self.brokers))
    }

    fn wait_for_partitions(&self, expected: i32) {
        let ready = |address: &String| match admin::metadata(address, &self.name) {
            Ok(found) => {
                found.partitions.len() == expected as usize
                    && found.partitions.iter().all(|partition| partition.leader >= 0)
            }
            // A broker that a test has stopped need not know.
            Err(_) => true,
        };
        eventually(secs(60), "all brokers know the topic", || self.brokers.iter().all(ready));
        // A leader may be told to clients before it has taken the role itself.
        for partition in 0..expected {
            self.end_offset(partition);
        }
    }
}

fn new_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}-{:08x}", process::id(), fastrand::u32(..))
}

/// Reads what `records` asked kcat to print: a line of figures, then key and value as they are.
fn parse(mut bytes: &[u8]) -> Vec<Stored> {
    let mut records = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let figures: Vec<i64> = String::from_utf8_lossy(&bytes[..end])
            .split(' ')
            .map(|figure| figure.parse().expect("a figure of kcat"))
            .collect();
        let [partition, offset, timestamp_ms, key_length, value_length] = figures[..] else {
            panic!("five figures of kcat, not {figures:?}")
        };
        bytes = &bytes[end + 1..];
        let mut take = |length: i64| {
            let (taken, rest) = bytes.split_at(length.max(0) as usize);
            bytes = rest;
            (length >= 0).then(|| taken.to_vec())
        };
        let (key, value) = (take(key_length), take(value_length));
        take(1);
        records.push(Stored { partition: partition as i32, offset, timestamp_ms, key, value });
    }
    records
}
