//! Somebody who pretends to be a broker: learns no more than it must, is found out, and holds nobody up.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use event_pipeline::broker::{BrokerError, Sink};
use event_pipeline::config::SaslMechanism::{Plain, ScramSha256};
use event_pipeline::config::SecurityProtocol::SaslPlaintext;
use event_pipeline::config::{KafkaConfig, SaslMechanism, Secret, SecurityConfig};

use super::super::{plain_sink, within};
use super::config;
use crate::support::admin::Body;
use crate::support::secured::{PASSWORD, USER};
use crate::support::wait::secs;

const API_VERSIONS: i16 = 18;
const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;

/// What it does once it is told something.
#[derive(Clone, Copy)]
enum Trick {
    /// Refuses, and repeats what it was told.
    Echo,
    /// Goes through SCRAM without knowing the password.
    Guess,
    /// Says nothing.
    Stall,
}

fn impostor(trick: Trick) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // An error is a client that has had enough.
            thread::spawn(move || drop(serve(stream, trick)));
        }
    });
    address
}

fn serve(mut stream: TcpStream, trick: Trick) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request)?;
        let key = i16::from_be_bytes([request[0], request[1]]);
        let answer = Body::default().i32(i32::from_be_bytes(*request[4..].first_chunk().expect("a header")));
        let answer = match key {
            API_VERSIONS => {
                let served =
                    [(0, 11), (1, 17), (3, 12), (SASL_HANDSHAKE, 1), (22, 5), (SASL_AUTHENTICATE, 2)];
                let answer = answer.i16(0).i32(served.len() as i32);
                served.iter().fold(answer, |answer, (key, newest)| answer.i16(*key).i16(0).i16(*newest))
            }
            SASL_HANDSHAKE => answer.i16(0).i32(0),
            _ => match reply(&request, trick, answer) {
                Some(answer) => answer,
                None => continue,
            },
        };
        let answer = answer.into_bytes();
        stream.write_all(&[&(answer.len() as i32).to_be_bytes()[..], &answer].concat())?;
    }
}

fn reply(request: &[u8], trick: Trick, answer: Body) -> Option<Body> {
    let name = usize::from(u16::from_be_bytes([request[8], request[9]]));
    let told = String::from_utf8_lossy(&request[10 + name + 4..]).into_owned();
    let say = |answer: Body, text: &str| {
        let answer = answer.i16(0).i16(-1).i32(text.len() as i32);
        text.bytes().fold(answer, |answer, byte| answer.i8(byte.cast_signed())).i64(0)
    };
    match (trick, told.split_once(",r=")) {
        (Trick::Stall, _) => None,
        (Trick::Echo, _) => Some(answer.i16(58).string(&told).i32(0).i64(0)),
        (Trick::Guess, Some((first, nonce))) if first.starts_with("n,,") => {
            Some(say(answer, &format!("r={nonce}more,s=AAAA,i=4096")))
        }
        (Trick::Guess, _) => Some(say(answer, &format!("v={}=", "A".repeat(43)))),
    }
}

fn probe(mechanism: SaslMechanism, trick: Trick) -> BrokerError {
    let security = SecurityConfig {
        protocol: SaslPlaintext,
        mechanism: Some(mechanism),
        username: Some(USER.into()),
        password: Some(Secret::new(PASSWORD)),
        ..SecurityConfig::default()
    };
    // Only silence has to be waited for.
    let connect_timeout_ms = if matches!(trick, Trick::Stall) { 400 } else { 5000 };
    let config = KafkaConfig { connect_timeout_ms, ..config(&impostor(trick), "events", security) };
    let mut sink = plain_sink(&config);
    within(Duration::from_millis(400), || sink.probe(secs(5))).expect_err("no broker")
}

#[test]
fn a_password_that_is_sent_back_is_not_told() {
    let error = probe(Plain, Trick::Echo);
    let text = error.to_string();
    assert!(matches!(error, BrokerError::Refused(_)) && text.contains("***"), "{error:?}");
    assert!(text.contains(USER) && !text.contains(PASSWORD), "{text}");
}

#[test]
fn who_does_not_know_the_password_is_no_broker_of_ours() {
    let error = probe(ScramSha256, Trick::Guess);
    assert!(matches!(error, BrokerError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("does not prove that it knows the password"), "{error}");
}

#[test]
fn silence_after_the_password_ends_in_time_and_is_tried_again() {
    let error = probe(Plain, Trick::Stall);
    assert!(error.is_retryable() && error.to_string().contains("SaslAuthenticate: it did not"), "{error}");
}
