//! What a producer without events leaves in the broker's figures: nothing that an operator would be woken for.

use std::collections::BTreeMap;
use std::thread;

use crate::producer::serve;
use crate::support::java::Java;
use crate::support::kafka::{Cluster, clients};
use crate::support::wait::secs;

/// Counters of errors by name.
type Figures = BTreeMap<String, u64>;

fn figures(java: &mut Java) -> Figures {
    java.go_on();
    let lines = std::iter::from_fn(|| Some(java.line()).filter(|line| line != "end"));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a count"))
        })
        .collect()
}

/// What counts more now than `before`.
fn risen(before: &Figures, now: &Figures) -> Figures {
    let risen = now.iter().filter(|(name, count)| **count > before.get(*name).copied().unwrap_or(0));
    risen.map(|(name, count)| (name.clone(), *count)).collect()
}

#[test]
fn the_proof_that_kafka_acknowledges_counts_no_error_in_the_broker() {
    let jmx = |port: u16| {
        let port = port + 5;
        let with = |name: &str, value: &str| format!("-Dcom.sun.management.jmxremote.{name}={value}");
        let options = [
            "-Xmx512m -Xms128m -XX:TieredStopAtLevel=1 -Djava.rmi.server.hostname=127.0.0.1".to_owned(),
            with("host", "127.0.0.1"),
            with("port", &port.to_string()),
            with("rmi.port", &port.to_string()),
            with("authenticate", "false"),
            with("ssl", "false"),
        ];
        vec![("KAFKA_JVM_OPTS".to_owned(), options.join(" "))]
    };
    let cluster = Cluster::start_on(1, jmx);
    let mut java = Java::start(&["figures", &format!("127.0.0.1:{}", cluster.port(1) + 5)]);
    for client in clients() {
        for settings in [&[][..], &[("cleanup.policy", "compact")]] {
            let topic = cluster.topic_with(3, settings);
            let before = figures(&mut java);
            let mut served = serve(&topic, &[("KAFKA_CLIENT", client)]);
            // Each look at the readiness may be a proof.
            for _ in 0..20 {
                assert_eq!(served.readyz(), 200);
                thread::sleep(secs(1) / 4);
            }
            assert!(served.program.terminate(secs(20)).success());
            let risen = risen(&before, &figures(&mut java));
            assert!(risen.is_empty(), "{client}, {settings:?}: {risen:#?}");
            assert_eq!(topic.count(), 0, "a proof writes nothing");
        }
    }
}
