//! A consumer whose quota in Kafka is exceeded waits: it reads on when it may, and is ready all the time.

use std::thread;
use std::time::{Duration, Instant};

use crate::consumer::{Site, ready_status};
use crate::support::admin::alter_quota;
use crate::support::kafka::{Cluster, clients};

#[test]
fn a_quota_that_is_exceeded_slows_the_consumer_and_does_not_make_it_unready() {
    // Of its own: a quota outlives the test.
    let cluster = Cluster::start_on(1, |_| Vec::new());
    alter_quota(cluster.address(1), "consumer_byte_rate", Some(40_000.0));
    for client in clients() {
        let topic = cluster.topic();
        // Small batches, as a broker gives out none that is larger than what a quota takes in ten seconds.
        for part in 0..25 {
            let lines =
                (0..100).map(|n| format!("{{\"n\": {}, \"p\": \"{}\"}}\n", part * 100 + n, "x".repeat(370)));
            topic.kcat(&["-P"], lines.collect::<String>().as_bytes());
        }
        let site = Site::new(&topic);
        let mut consumer = site.start_ready(&[("KAFKA_CLIENT", client)]);
        let (mut covered, deadline) = (0, Instant::now() + Duration::from_secs(180));
        let mut is_slowed = false;
        while covered < 2500 {
            assert!(Instant::now() < deadline, "{client}: {covered} of 2500 are covered");
            let (status, text) = ready_status(&mut consumer);
            assert_eq!(status, 200, "{client}: not ready while a quota is exceeded: {text}");
            thread::sleep(Duration::from_millis(100));
            let before = std::mem::replace(&mut covered, site.covered());
            is_slowed |= before > 0 && before == covered && covered < 2500;
        }
        assert!(is_slowed, "{client}: the quota was never exceeded");
        assert!(consumer.terminate(Duration::from_secs(60)).success());
        site.audit();
    }
}
