//! Every way to be refused: told why, in time, with exit code 2 at the start, and without the secret.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use event_pipeline::broker::{BrokerError, Sink, Source, open_source};
use event_pipeline::config::SaslMechanism::{Plain, ScramSha256, ScramSha512};
use event_pipeline::config::SecurityProtocol::{Plaintext, SaslPlaintext, SaslSsl, Ssl};
use event_pipeline::config::{KafkaConfig, Secret, SecurityConfig};

use super::super::{LATE, plain_sink, within};
use super::programs::program;
use super::{config, sink};
use crate::support::control::Watch;
use crate::support::process::Program;
use crate::support::secured::{PASSWORD, Port, Secured, USER, secured};
use crate::support::wait::{eventually_some, secs};

/// A way to be refused: its port, what is set, and words of the message.
type Case = (&'static str, Port, SecurityConfig, &'static [&'static str]);

fn refusals(secured: &Secured) -> Vec<Case> {
    [wrong_passwords(secured), wrong_certificates(secured), wrong_ports(secured)]
        .into_iter()
        .flatten()
        .collect()
}

fn wrong_passwords(secured: &Secured) -> Vec<Case> {
    let wrong = |mechanism| SecurityConfig {
        password: Some(Secret::new("wrong-secret")),
        ..secured.config(SaslSsl, mechanism)
    };
    let unknown = SecurityConfig { username: Some("nobody".into()), ..secured.config(SaslSsl, ScramSha256) };
    let not_offered = secured.config(SaslPlaintext, ScramSha512);
    vec![
        ("PLAIN", Port::SaslSsl, wrong(Plain), &[USER, "failed (PLAIN)", "KAFKA_SASL_USERNAME"]),
        ("SHA-256", Port::SaslSsl, wrong(ScramSha256), &[USER, "failed (SCRAM-SHA-256)"]),
        ("SHA-512", Port::SaslSsl, wrong(ScramSha512), &[USER, "failed (SCRAM-SHA-512)"]),
        ("unknown user", Port::SaslSsl, unknown, &["nobody", "authentication of user"]),
        ("mechanism", Port::SaslPlaintext, not_offered, &["SCRAM-SHA-512", "it supports PLAIN"]),
    ]
}

fn wrong_certificates(secured: &Secured) -> Vec<Case> {
    let tls = || secured.config(Ssl, Plain);
    let ca = |file| SecurityConfig { ca: Some(file), ..tls() };
    let ours =
        |key| SecurityConfig { cert: Some(secured.stranger.certificate.clone()), key: Some(key), ..tls() };
    let (strange_ca, no_pem) = (secured.other_authority.file(), secured.write("no.pem", "wrong-secret"));
    let (its_key, other_key) = (secured.stranger.key.clone(), secured.client.key.clone());
    let named: &[&str] = &["not for 127.0.0.1", "kafka.example.com", "advertised.listeners"];
    vec![
        ("unknown CA", Port::Ssl, ca(strange_ca), &["an authority that we do not trust", "KAFKA_TLS_CA"]),
        ("host name", Port::OtherName, tls(), named),
        ("expired", Port::Expired, tls(), &["has expired", "renew"]),
        ("no certificate of ours", Port::Mutual, tls(), &["KAFKA_TLS_CERT"]),
        ("strange certificate", Port::Mutual, ours(its_key), &["KAFKA_TLS_CERT"]),
        ("another's key", Port::Mutual, ours(other_key), &["KAFKA_TLS_KEY", "does not match"]),
        ("no PEM", Port::Ssl, ca(no_pem), &["KAFKA_TLS_CA", "no certificate in it"]),
    ]
}

fn wrong_ports(secured: &Secured) -> Vec<Case> {
    let base = |protocol| secured.config(protocol, Plain);
    vec![
        ("plain to TLS", Port::Ssl, base(Plaintext), &["speaks TLS", "KAFKA_SECURITY_PROTOCOL"]),
        ("TLS to plain", Port::Plaintext, base(Ssl), &["does not speak TLS", "PLAINTEXT"]),
        ("SASL_SSL to plain", Port::SaslPlaintext, base(SaslSsl), &["does not speak TLS", "SASL_PLAINTEXT"]),
        ("SASL_PLAINTEXT to TLS", Port::SaslSsl, base(SaslPlaintext), &["speaks TLS"]),
        ("a password nobody wants", Port::Ssl, base(SaslSsl), &["does not use SASL"]),
    ]
}

#[test]
fn whoever_is_refused_is_told_why_in_time_and_without_the_secret() {
    let secured = secured();
    let topic = secured.topic();
    for (what, port, security, words) in refusals(secured) {
        let address = secured.brokers(port);
        let config = KafkaConfig { connect_timeout_ms: 1000, ..config(&address, &topic.name, security) };
        let refused = eventually_some(secs(60), what, || {
            let watch = Watch::start();
            let probed = plain_sink(&config).probe(secs(5));
            let listed = open_source(&config).expect("a thread").partitions();
            watch.assert_within(secs(2) + LATE, what);
            // A busy broker may be late, and then has not refused yet.
            let is_late = |error: &BrokerError| error.is_retryable() && error.to_string().contains("in time");
            let both = [probed, listed.map(drop)];
            (!both.iter().any(|outcome| outcome.as_ref().is_err_and(is_late))).then_some(both)
        });
        for refused in refused {
            let Err(BrokerError::Refused(text)) = refused else { panic!("{what}: {refused:?}") };
            let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
            assert!(missing.is_empty(), "{what}: {text:?} lacks {missing:?}");
            assert!(text.contains(&address) || text.contains("KAFKA_TLS_"), "{what}: {text}");
            assert!(!text.contains(PASSWORD) && !text.contains("wrong-secret"), "{what}: {text}");
        }
    }
}

/// It cannot be told from a broker that goes down, so it is tried again.
#[test]
fn a_broker_that_wants_a_password_from_one_without_is_hinted_at() {
    let secured = secured();
    let topic = secured.topic();
    let mut sink = sink(secured, Port::SaslPlaintext, &topic, SecurityConfig::default());
    let Err(BrokerError::Retryable(text)) = sink.probe(secs(2)) else { panic!("let in") };
    assert!(text.contains("KAFKA_SECURITY_PROTOCOL"), "{text}");
}

#[test]
fn a_handshake_that_stalls_or_trickles_ends_in_time_and_is_tried_again() {
    // What a broker may do instead of a handshake: nothing at all, or an endless begin.
    for trickle in [None, Some(b"\x16\x03\x03\x40\x00\x02")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || match trickle {
                    None => thread::sleep(secs(60)),
                    Some(begin) => {
                        let endless = begin.iter().chain(std::iter::repeat(&0));
                        for byte in endless {
                            if stream.write_all(&[*byte]).is_err() {
                                break;
                            }
                            thread::sleep(Duration::from_millis(20));
                        }
                    }
                });
            }
        });
        let security = SecurityConfig { protocol: Ssl, ..SecurityConfig::default() };
        let config = KafkaConfig { connect_timeout_ms: 300, ..config(&address, "events", security) };
        let mut sink = plain_sink(&config);
        let error = within(Duration::from_millis(300), || sink.probe(secs(5))).expect_err("no broker");
        assert!(
            error.is_retryable() && error.to_string().contains("TLS handshake: it did not answer"),
            "{error}"
        );
    }
}

#[test]
fn both_programs_refused_at_the_start_end_with_exit_code_2() {
    let secured = secured();
    let topic = secured.topic();
    for (what, port, security, words) in refusals(secured) {
        for binary in [Program::producer(), Program::consumer()] {
            let ended = program(binary, &secured.brokers(port), &topic.name, &security).run(secs(60));
            assert_eq!(ended.status.code(), Some(2), "{what}: {}", ended.stderr);
            let missing: Vec<_> = words.iter().filter(|word| !ended.stderr.contains(**word)).collect();
            assert!(missing.is_empty(), "{what}: {} lacks {missing:?}", ended.stderr);
            let all = ended.stderr + &ended.stdout;
            assert!(!all.contains(PASSWORD) && !all.contains("wrong-secret"), "{what}: {all}");
        }
    }
}
