//! Three brokers, of which some are lost, silent, or too few.

use std::time::Duration;

use event_pipeline::broker::{BrokerError, Record, Sink, Source};

use super::{assert_all_retryable, from_start, numbered, send, send_all, sink_to, source_of, within};
use crate::support::kafka::Cluster;
use crate::support::proxy::{Mode, Proxy};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const LIMIT: Duration = Duration::from_secs(2);

/// One cluster for all of it: three JVMs take their time.
#[test]
fn three_brokers_with_one_lost_silent_or_too_few() {
    let cluster = Cluster::start(3);
    one_silent_broker_does_not_stop_the_others(&cluster, &cluster.topic_with(6, &[]));
    leaders_move_when_a_broker_dies(&cluster, &cluster.topic_with(6, &[]));
    too_few_replicas_are_seen_before_and_in_a_send(&cluster);
}

/// Only our connections to it are silent; the brokers see each other.
fn one_silent_broker_does_not_stop_the_others(cluster: &Cluster, topic: &Topic) {
    let proxies = Proxy::kafka(&cluster.brokers());
    let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let mut sink = sink_to(&addresses.join(","), topic);
    for _ in 0..6 {
        send_all(&mut sink, &["all brokers are used"]);
    }
    sink.probe(LIMIT).expect("all lead and acknowledge");
    proxies[1].set(Mode::Blackhole);
    within(LIMIT, || sink.probe(LIMIT)).expect("records without a key go to those that answer");
    for number in 0..12 {
        let outcomes = within(LIMIT, || send(&mut sink, &[format!("keyless {number}")], LIMIT));
        assert!(outcomes[0].is_ok(), "goes to those that answer: {outcomes:?}");
    }
    let keys = numbered("key ", 60);
    let records: Vec<Record<'_>> = keys.iter().map(|key| Record::new(Some(key.as_bytes()), b"")).collect();
    let metadata = topic.metadata();
    for _ in 0..3 {
        let outcomes = within(LIMIT, || sink.send(&records, LIMIT));
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(failed > 0 && failed < 60, "only those of the silent broker fail: {failed}");
        for receipt in outcomes.iter().flatten() {
            let leader = metadata.partitions[receipt.partition as usize].leader;
            assert_ne!(metadata.brokers[&leader], cluster.address(2));
        }
    }
    let error = within(LIMIT, || sink.probe(LIMIT)).expect_err("keys also lead to the silent one");
    assert!(error.to_string().contains(&addresses[1]), "{error}");
    proxies[1].cut();
    proxies[1].set(Mode::Forward);
    eventually(secs(5), "all acknowledge again", || sink.probe(LIMIT).is_ok());
    let outcomes = sink.send(&records, secs(20));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

fn leaders_move_when_a_broker_dies(cluster: &Cluster, topic: &Topic) {
    let mut sink = sink_to(&cluster.brokers(), topic);
    let mut source = source_of(topic);
    let keys = numbered("key ", 60);
    let records: Vec<Record<'_>> = keys.iter().map(|key| Record::new(Some(key.as_bytes()), b"v")).collect();
    let outcomes = sink.send(&records, secs(20));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let mut acknowledged = outcomes.len();
    assert_eq!(source.partitions().expect("partitions").len(), 6);
    cluster.kill(1);
    let outcomes = within(LIMIT, || sink.send(&records, LIMIT));
    acknowledged += outcomes.iter().flatten().count();
    eventually(secs(60), "every partition has a new leader", || sink.probe(LIMIT).is_ok());
    let outcomes = sink.send(&records, secs(20));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    acknowledged += outcomes.len();
    let mut positions = from_start(6);
    let mut read = 0;
    eventually(secs(60), "all is read from the new leaders", || {
        for answer in source.fetch(&positions).into_iter().flatten() {
            let Ok(page) = answer.page else { continue };
            read += page.len();
            positions[answer.partition as usize].offset = page.next_offset;
        }
        read >= acknowledged
    });
    assert!(topic.count() >= acknowledged);
    cluster.restart(1);
}

fn too_few_replicas_are_seen_before_and_in_a_send(cluster: &Cluster) {
    let topic = cluster.topic_with(3, &[("min.insync.replicas", "3")]);
    let mut sink = sink_to(&cluster.brokers(), &topic);
    eventually(secs(60), "three replicas are in sync", || sink.probe(LIMIT).is_ok());
    send_all(&mut sink, &["enough"]);
    cluster.stop(3);
    eventually(secs(60), "a probe names the missing replicas", || {
        sink.probe(LIMIT).is_err_and(|error| error.to_string().contains("NOT_ENOUGH_REPLICAS"))
    });
    eventually(secs(60), "two replicas are left everywhere", || {
        topic.metadata().partitions.iter().all(|partition| partition.in_sync.len() == 2)
    });
    let outcomes = within(LIMIT, || send(&mut sink, &["too few"], LIMIT));
    assert_all_retryable(&outcomes);
    let Err(BrokerError::Retryable(text)) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(text.contains("NOT_ENOUGH_REPLICAS") && text.contains(&topic.name), "{text}");
    for _ in 0..3 {
        assert!(sink.probe(LIMIT).is_err());
    }
    cluster.restart(3);
    eventually(secs(60), "acknowledges again", || sink.probe(LIMIT).is_ok());
    send_all(&mut sink, &["enough again"]);
    assert_eq!(topic.count(), 2, "neither a probe nor a refused record was written");
}
