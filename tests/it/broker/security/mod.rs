//! TLS and passwords against a real Kafka: every way in.

mod impostor;
mod programs;
mod refused;

use std::thread;
use std::time::{Duration, Instant};

use event_pipeline::broker::{KafkaSink, Source, open_source};
use event_pipeline::config::SaslMechanism::{Plain, ScramSha256, ScramSha512};
use event_pipeline::config::SecurityProtocol::{SaslPlaintext, SaslSsl, Ssl};
use event_pipeline::config::{
    KafkaClient, KafkaConfig, SaslMechanism, Secret, SecurityConfig, SecurityProtocol,
};

use super::{from_start, numbered, plain_sink, send, send_all};
use crate::support::kafka::is_kafka_4;
use crate::support::secured::{PASSWORD, Port, SESSION_MS, Secured, USER, secured};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

fn config(brokers: &str, topic: &str, security: SecurityConfig) -> KafkaConfig {
    // A handshake with a busy broker takes its time.
    let base = super::config(brokers, topic);
    KafkaConfig { client: KafkaClient::Auto, security, connect_timeout_ms: 10_000, ..base }
}

fn sink(secured: &Secured, port: Port, topic: &Topic, security: SecurityConfig) -> KafkaSink {
    plain_sink(&config(&secured.brokers(port), &topic.name, security))
}

/// Protocol, mechanism (where it counts) and port of every way in.
const WAYS_IN: [(SecurityProtocol, SaslMechanism, Port); 7] = [
    (Ssl, Plain, Port::Ssl),
    (Ssl, Plain, Port::Mutual),
    (SaslSsl, Plain, Port::SaslSsl),
    (SaslSsl, ScramSha256, Port::SaslSsl),
    (SaslSsl, ScramSha512, Port::SaslSsl),
    (SaslPlaintext, Plain, Port::SaslPlaintext),
    (SaslPlaintext, ScramSha256, Port::SaslPlaintext),
];

#[test]
fn every_way_in_carries_events_there_and_back() {
    let secured = secured();
    for (protocol, mechanism, port) in WAYS_IN {
        let topic = secured.topic();
        let mut security = secured.config(protocol, mechanism);
        if port == Port::Mutual {
            security.cert = Some(secured.client.certificate.clone());
            security.key = Some(secured.client.key.clone());
        }
        let values = numbered("event-", 2000);
        send_all(&mut sink(secured, port, &topic, security.clone()), &values);
        let config = config(&secured.brokers(port), &topic.name, security);
        let mut source = open_source(&config).expect("a thread");
        let mut read = Vec::new();
        let mut position = from_start(1)[0];
        let start = Instant::now();
        while read.len() < values.len() {
            assert!(start.elapsed() < secs(120), "{port:?}: {} of {}", read.len(), values.len());
            let page = source.fetch(&[position]).expect("answered").remove(0).page.expect("a page");
            read.extend(page.records().map(|(_, value)| String::from_utf8_lossy(value).into_owned()));
            position.offset = page.next_offset;
        }
        assert_eq!(read, values, "{protocol} {mechanism} {port:?}");
        // The first group of a cluster waits for the topic that keeps the offsets.
        eventually(secs(60), "committed", || source.commit("security", &[position], "").is_ok());
        assert_eq!(topic.count(), values.len());
    }
}

/// kcat derives its proof from the password by its own code. Up to librdkafka 2.6.0 its SCRAM repeats the nonce in a
/// way that Kafka 4 refuses.
#[test]
fn a_batch_of_megabytes_passes_tls_and_kcat_gets_in_with_the_same_password() {
    let secured = secured();
    let topic = secured.topic();
    let mut sink = sink(secured, Port::SaslSsl, &topic, secured.config(SaslSsl, ScramSha512));
    let values: Vec<String> = (0..80).map(|number| format!("{number:0>60000}")).collect();
    send_all(&mut sink, &values);
    let ca = format!("ssl.ca.location={}", secured.authority.file().display());
    let (brokers, password) = (secured.brokers(Port::SaslSsl), format!("sasl.password={PASSWORD}"));
    let user = format!("sasl.username={USER}");
    let mechanism = if is_kafka_4() { "sasl.mechanism=PLAIN" } else { "sasl.mechanism=SCRAM-SHA-512" };
    let mut arguments = vec!["-C", "-o", "beginning", "-e", "-q", "-b", &brokers];
    for setting in ["security.protocol=SASL_SSL", mechanism, &ca, &user, &password] {
        arguments.extend(["-X", setting]);
    }
    let read = topic.kcat(&arguments, b"");
    assert_eq!(String::from_utf8_lossy(&read).lines().collect::<Vec<_>>(), values);
}

#[test]
fn a_name_and_a_password_of_odd_signs_get_in_with_scram() {
    let secured = secured();
    let topic = secured.topic();
    let (name, password) = ("a=b,c=2C", "p\u{e9}=,\"\\ x");
    secured.set_password(name, password);
    for mechanism in [ScramSha256, ScramSha512] {
        let security = SecurityConfig {
            username: Some(name.into()),
            password: Some(Secret::new(password)),
            ..secured.config(SaslSsl, mechanism)
        };
        send_all(&mut sink(secured, Port::SaslSsl, &topic, security), &["x"]);
    }
}

#[test]
fn a_session_that_ends_costs_no_event_a_second_try() {
    let secured = secured();
    let topic = secured.topic();
    for mechanism in [Plain, ScramSha256] {
        let mut sink = sink(secured, Port::SaslPlaintext, &topic, secured.config(SaslPlaintext, mechanism));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2 * SESSION_MS + 500) {
            let asked = Instant::now();
            let outcome = send(&mut sink, &["x"], secs(5)).remove(0);
            // A session may end under way on a machine that stands still for as long as a session is left early.
            let is_late = asked.elapsed() > Duration::from_millis(SESSION_MS / 10);
            assert!(outcome.is_ok() || is_late, "acknowledged at once: {outcome:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
