//! A log of Kafka that loses records and gives their offsets to others: said, and nothing acknowledged later is missed.

mod uncovered;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use event_pipeline::consumer::EXIT_UNDECIDED;

use crate::consumer::{CATCH_UP, Site, metric, payload, wait_ready};
use crate::producer::{Served, serve};
use crate::support::admin;
use crate::support::kafka::{Cluster, is_on_crate};
use crate::support::process::Running;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, eventually_some, secs};

const NONE: (&str, &str) = ("KAFKA_AUTO_OFFSET_RESET", "none");
const DIVERGENCE: (&str, &str) = ("KAFKA_AUTO_OFFSET_RESET", "divergence");
const EARLIEST: (&str, &str) = ("KAFKA_AUTO_OFFSET_RESET", "earliest");

/// Both programs on a topic of one partition, and which events were acknowledged.
struct Scene<'a> {
    cluster: &'a Cluster,
    topic: &'a Topic,
    site: Site<'a>,
    served: Served,
    client: (&'static str, &'static str),
    next: usize,
    acknowledged: Vec<usize>,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster, topic: &'a Topic, client: &'static str) -> Self {
        let client = ("KAFKA_CLIENT", client);
        let served = serve(topic, &[client, ("DELIVERY_TIMEOUT_MS", "5000")]);
        Self { cluster, topic, site: Site::new(topic), served, client, next: 0, acknowledged: Vec::new() }
    }

    fn consumer(&self, reset: (&'static str, &'static str)) -> Running {
        self.site.start_ready(&[self.client, reset])
    }

    /// Acknowledged events, each with a number of its own.
    fn post(&mut self, count: usize) {
        let until = self.acknowledged.len() + count;
        eventually(secs(90), "events are acknowledged", || {
            let numbers = self.next..self.next + count.min(10);
            self.next = numbers.end;
            let events: Vec<String> = numbers.clone().map(|number| format!("{{\"n\":{number}}}")).collect();
            if self.served.post(&format!("[{}]", events.join(","))).status == 200 {
                self.acknowledged.extend(numbers);
            }
            self.acknowledged.len() >= until
        });
    }

    /// How often each event stands in the log.
    fn logged(&self) -> BTreeMap<usize, usize> {
        count(self.site.lines().iter().map(|line| payload(line)))
    }

    fn in_topic(&self) -> BTreeMap<usize, usize> {
        count(self.topic.records().iter().map(|record| record.text()))
    }

    fn wait_all_logged(&self) {
        self.topic.wait_given_out();
        let lost = |logged: &BTreeMap<usize, usize>| {
            self.acknowledged.iter().filter(|number| !logged.contains_key(number)).count()
        };
        eventually(CATCH_UP, "every acknowledged event is logged", || lost(&self.logged()) == 0);
    }

    /// What the topic has stands in the log as often as there, what it lost stands there once, and `repeated` records
    /// of the topic stand in the log once more.
    #[track_caller]
    fn assert_followed(&self, lost_by_kafka: usize, repeated: usize) {
        self.wait_all_logged();
        let (logged, in_topic) = (self.logged(), self.in_topic());
        let lost = self.acknowledged.iter().filter(|number| !in_topic.contains_key(number)).count();
        assert_eq!(lost, lost_by_kafka, "acknowledged events that Kafka lost");
        let mut more = 0;
        for (number, times) in &logged {
            let expected = in_topic.get(number).copied().unwrap_or(1);
            assert!(*times >= expected, "event {number} of {}: {times} times", self.next);
            more += times - expected;
        }
        assert_eq!(more, repeated, "records that are logged once more: {logged:?}");
        assert!(in_topic.keys().all(|number| logged.contains_key(number)));
    }

    #[track_caller]
    fn assert_undecided(&self, consumer: &mut Running, from: usize) {
        let status = consumer.wait(secs(120));
        let said = consumer.stderr();
        assert_eq!(status.code(), Some(i32::from(EXIT_UNDECIDED)), "{said}");
        for words in [&format!("from offset {from} up to"), "partition 0", "divergence", "earliest"] {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        // Nothing is decided by starting it again, and nothing is written.
        let before = self.site.lines();
        let again = self.site.program(&[self.client, NONE]).run(secs(120));
        assert_eq!(again.status.code(), Some(i32::from(EXIT_UNDECIDED)), "{}", again.stderr);
        assert_eq!(self.site.lines(), before);
        // Another log does not take over: how much of this one is still in Kafka is undecided.
        let other = Site::new(self.topic).program(&[self.client, NONE]).run(secs(120));
        assert_eq!(other.status.code(), Some(i32::from(EXIT_UNDECIDED)), "{}", other.stderr);
        assert!(other.stderr.contains("CONSUMER_TAKE_OVER"), "{}", other.stderr);
    }
}

fn count<'t>(events: impl Iterator<Item = &'t str>) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    for event in events {
        let number = event.strip_prefix("{\"n\":").and_then(|rest| rest.split([',', '}']).next());
        let number = number.and_then(|number| number.parse().ok());
        *found.entry(number.unwrap_or_else(|| panic!("not of this test: {event}"))).or_default() += 1;
    }
    found
}

/// A broker that no other test gets afterwards: it forgets what was done since its data were copied.
fn alone() -> Cluster {
    Cluster::start_on(1, |_| Vec::new())
}

/// A copy of a broker's data.
struct Copy {
    data: PathBuf,
    copy: PathBuf,
}

impl Copy {
    fn of(cluster: &Cluster) -> Self {
        let data = cluster.data(1);
        let copy = data.with_file_name("copy");
        clone(&data, &copy);
        Self { data, copy }
    }

    fn restore(self) {
        fs::remove_dir_all(&self.data).expect("removed");
        clone(&self.copy, &self.data);
    }
}

fn clone(from: &PathBuf, to: &PathBuf) {
    let status = Command::new("cp").arg("--archive").args([from, to]).status().expect("cp runs");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// The offset at which a consumer says that it goes on, which it does once it has asked the broker.
fn continued_at(consumer: &Running) -> usize {
    eventually_some(secs(120), "it says where it goes on", || {
        consumer.stderr().split("continuing at offset ").nth(1)?.split_whitespace().next()?.parse().ok()
    })
}

/// A leader that had taken events alone is replaced by a copy that does not have them.
fn an_unclean_election(client: &'static str) {
    let cluster = Cluster::start(3);
    let topic = cluster.topic_on(&[&[1, 2]]);
    topic.alter("min.insync.replicas", "1");
    topic.alter("unclean.leader.election.enable", "true");
    let mut scene = Scene::new(&cluster, &topic, client);
    let mut consumer = scene.consumer(NONE);
    scene.post(40);
    scene.wait_all_logged();
    scene.cluster.kill(2);
    eventually(secs(60), "the leader is alone", || topic.metadata().partitions[0].in_sync == [1]);
    let common = topic.count();
    scene.post(100);
    scene.wait_all_logged();
    scene.cluster.kill(1);
    scene.cluster.restart(2);
    eventually(secs(90), "the other copy leads", || topic.metadata().partitions[0].leader == 2);
    scene.post(150);
    scene.assert_undecided(&mut consumer, common);
    let mut consumer = scene.consumer(DIVERGENCE);
    scene.post(20);
    scene.assert_followed(100, 0);
    scene.cluster.restart(1);
    eventually(secs(90), "both are in sync", || topic.metadata().partitions[0].in_sync.len() == 2);
    admin::elect_preferred(cluster.address(1), &topic.name, &[0]);
    eventually(secs(60), "it leads again", || topic.metadata().partitions[0].leader == 1);
    scene.post(20);
    scene.assert_followed(100, 0);
    assert!(consumer.terminate(secs(30)).success());
}

#[test]
fn after_an_unclean_election_it_stops_or_goes_on_where_the_logs_part() {
    an_unclean_election("auto");
}

#[test]
fn after_an_unclean_election_our_own_client_does_so_too() {
    if is_on_crate() {
        an_unclean_election("wire");
    }
}

/// The copy was made of a stopped broker, so the epochs of what was lost are used again for other records.
fn restored_from_a_cold_copy(client: &'static str) {
    let cluster = alone();
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, client);
    let mut consumer = scene.consumer(NONE);
    scene.post(50);
    scene.wait_all_logged();
    let common = topic.count();
    cluster.stop(1);
    let copy = Copy::of(&cluster);
    cluster.restart(1);
    scene.post(100);
    scene.wait_all_logged();
    cluster.stop(1);
    copy.restore();
    cluster.restart(1);
    // As many as were lost, and more.
    scene.post(150);
    scene.assert_undecided(&mut consumer, common);
    let mut consumer = scene.consumer(DIVERGENCE);
    scene.post(20);
    scene.assert_followed(100, 0);
    assert!(consumer.terminate(secs(30)).success());
    // What is decided once is not repeated by later starts.
    let _consumer = scene.consumer(NONE);
    scene.post(10);
    scene.assert_followed(100, 0);
}

#[test]
fn after_a_cold_copy_was_restored_it_stops_or_goes_on_where_the_logs_part() {
    restored_from_a_cold_copy("auto");
}

#[test]
fn after_a_cold_copy_was_restored_our_own_client_does_so_too() {
    if is_on_crate() {
        restored_from_a_cold_copy("wire");
    }
}

/// The copy was made of a running broker, which then dies: what it had written since then is gone, as in a power cut.
fn restored_from_a_warm_copy(client: &'static str) {
    let cluster = alone();
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, client);
    let mut consumer = scene.consumer(DIVERGENCE);
    scene.post(50);
    let copy = Copy::of(&cluster);
    scene.post(100);
    scene.wait_all_logged();
    cluster.kill(1);
    copy.restore();
    cluster.restart(1);
    // Going back needs a checkpoint first, which a start writes.
    let status = consumer.wait(secs(120));
    let said = consumer.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    let offset = continued_at(&consumer);
    assert!(offset <= 50, "{said}");
    let mut consumer = scene.consumer(DIVERGENCE);
    scene.post(30);
    scene.assert_followed(100, 50 - offset);
    consumer.kill();
    let before = scene.site.lines().len();
    // The log is shorter than what was read, and is read from its beginning where that is decided.
    let copy = Copy { copy: cluster.data(1).with_file_name("copy"), data: cluster.data(1) };
    cluster.kill(1);
    copy.restore();
    cluster.restart(1);
    wait_ready(&mut scene.site.start(&[scene.client, EARLIEST]));
    let _consumer = scene.consumer(EARLIEST);
    eventually(CATCH_UP, "it is read again", || scene.site.lines().len() == before + 50);
}

#[test]
fn after_a_warm_copy_was_restored_it_goes_on_where_the_logs_part() {
    restored_from_a_warm_copy("auto");
}

#[test]
fn after_a_warm_copy_was_restored_our_own_client_does_so_too() {
    if is_on_crate() {
        restored_from_a_warm_copy("wire");
    }
}

/// The broker leads on in the epoch in which it lost its end, and writes `more` events before the consumer looks.
fn grown_again_in_the_same_epoch(client: &'static str, more: usize) {
    let cluster = alone();
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, client);
    let mut consumer = scene.consumer(DIVERGENCE);
    scene.post(50);
    let copy = Copy::of(&cluster);
    scene.post(100);
    scene.wait_all_logged();
    assert!(consumer.terminate(secs(30)).success());
    cluster.kill(1);
    copy.restore();
    cluster.restart(1);
    scene.post(more);
    let refused = scene.site.program(&[scene.client, NONE]).run(secs(120));
    assert_eq!(refused.status.code(), Some(i32::from(EXIT_UNDECIDED)), "{}", refused.stderr);
    let consumer = scene.consumer(DIVERGENCE);
    let offset = continued_at(&consumer);
    assert!(offset <= 50, "{}", consumer.stderr());
    assert!(refused.stderr.contains(&format!("from offset {offset} up to")), "{}", refused.stderr);
    scene.assert_followed(100, 50 - offset);
}

#[test]
fn a_log_that_has_grown_again_in_the_same_epoch_is_followed_from_where_it_was_cut() {
    grown_again_in_the_same_epoch("auto", 60);
}

#[test]
fn a_log_that_has_grown_further_in_the_same_epoch_is_followed_from_where_it_was_cut() {
    grown_again_in_the_same_epoch("auto", 150);
}

#[test]
fn a_log_that_has_grown_again_in_the_same_epoch_is_followed_by_our_own_client() {
    if is_on_crate() {
        grown_again_in_the_same_epoch("wire", 60);
    }
}

/// Leaders that move in good order have all that was read.
fn leaders_that_move(client: &'static str) {
    let cluster = Cluster::start(3);
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, client);
    let mut consumer = scene.consumer(NONE);
    scene.post(30);
    let first = topic.metadata().partitions[0].leader;
    for _ in 0..2 {
        cluster.stop(first as usize);
        scene.post(30);
        cluster.restart(first as usize);
        eventually(secs(60), "in sync", || topic.metadata().partitions[0].in_sync.len() == 3);
        admin::elect_preferred(cluster.address(first as usize), &topic.name, &[0]);
        eventually(secs(60), "it leads again", || topic.metadata().partitions[0].leader == first);
        scene.post(30);
        scene.wait_all_logged();
    }
    wait_ready(&mut consumer);
    assert_eq!(metric(&mut consumer, "pipeline_kafka_errors_total{kind=\"parted\"}"), 0.0);
    consumer.kill();
    let _consumer = scene.consumer(NONE);
    scene.post(10);
    scene.assert_followed(0, 0);
}

#[test]
fn leaders_that_move_in_order_are_followed() {
    leaders_that_move("auto");
}

#[test]
fn leaders_that_move_in_order_are_followed_by_our_own_client() {
    if is_on_crate() {
        leaders_that_move("wire");
    }
}

/// A checkpoint of an older version has offsets only; it is read, and knows epochs from then on.
#[test]
fn a_checkpoint_without_epochs_is_read_on() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic_with(1, &[]);
    let mut scene = Scene::new(&cluster, &topic, "auto");
    let mut consumer = scene.consumer(NONE);
    scene.post(20);
    scene.wait_all_logged();
    assert!(consumer.terminate(secs(30)).success());
    let path = scene.site.path("logs/events.log.checkpoint");
    let text = fs::read(&path).expect("checkpoint");
    let mut old: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let members = old.as_object_mut().expect("an object");
    assert!(members["trails"]["0"]["epochs"][0][0].as_i64().is_some_and(|epoch| epoch >= 0), "{members:?}");
    members.retain(|name, _| name != "trails" && name != "sequence" && name != "ids");
    members.insert("version".into(), 1.into());
    fs::write(&path, old.to_string()).expect("written");
    let mut consumer = scene.consumer(NONE);
    scene.post(20);
    scene.assert_followed(0, 0);
    assert!(consumer.terminate(secs(30)).success());
    let now = scene.site.checkpoint("events.log.checkpoint").expect("checkpoint");
    assert_eq!(now["version"], 3);
    assert!(now["trails"]["0"]["epochs"][0][1] == 20, "{now}");
}
