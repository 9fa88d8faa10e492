//! Our programs on a Kafka that wants TLS and a password, and where the password must not be seen.

use std::fs;

use event_pipeline::config::SaslMechanism::{ScramSha256, ScramSha512};
use event_pipeline::config::SecurityConfig;
use event_pipeline::config::SecurityProtocol::{SaslPlaintext, SaslSsl};

use crate::support::http;
use crate::support::process::{Program, Running};
use crate::support::secured::{PASSWORD, Port, secured};
use crate::support::wait::{eventually, secs};

/// One of our programs with the settings of `security`; the password is in a file if `file` names one.
pub fn program(program: Program, brokers: &str, topic: &str, security: &SecurityConfig) -> Program {
    let mut program = program
        .env("KAFKA_BROKERS", brokers)
        .env("KAFKA_TOPIC", topic)
        .env("KAFKA_CLIENT", "auto")
        .env("LOG_LEVEL", "debug")
        .env("KAFKA_SECURITY_PROTOCOL", security.protocol.to_string());
    if let Some(mechanism) = security.mechanism {
        program = program.env("KAFKA_SASL_MECHANISM", mechanism.to_string());
    }
    if let Some(username) = &security.username {
        program = program.env("KAFKA_SASL_USERNAME", username);
    }
    if let Some(password) = &security.password {
        program = program.env("KAFKA_SASL_PASSWORD", str::from_utf8(password.reveal()).expect("text"));
    }
    for (name, file) in [
        ("KAFKA_SASL_PASSWORD_FILE", &security.password_file),
        ("KAFKA_TLS_CA", &security.ca),
        ("KAFKA_TLS_CERT", &security.cert),
        ("KAFKA_TLS_KEY", &security.key),
    ] {
        if let Some(file) = file {
            program = program.env(name, file);
        }
    }
    program
}

/// Everything that others can see of a program.
fn visible(running: &Running) -> String {
    let command_line = fs::read(format!("/proc/{}/cmdline", running.pid())).expect("it runs");
    [running.stdout(), running.stderr(), String::from_utf8_lossy(&command_line).into_owned()].concat()
}

#[test]
fn events_pass_both_programs_and_the_password_is_seen_nowhere() {
    let secured = secured();
    let topic = secured.topic();
    let brokers = secured.brokers(Port::SaslSsl);
    let by_environment = secured.config(SaslSsl, ScramSha512);
    let file = secured.write("password", &format!("{PASSWORD}\n"));
    let by_file =
        SecurityConfig { password: None, password_file: Some(file), ..secured.config(SaslSsl, ScramSha256) };
    let mut producer = program(Program::producer(), &brokers, &topic.name, &by_environment).start();
    let mut consumer = program(Program::consumer(), &brokers, &topic.name, &by_file).start();
    let address = producer.address();
    eventually(secs(60), "ready", || http::get(address, "/readyz").is_ok_and(|answer| answer.status == 200));
    for number in 0..100 {
        let answer = http::post_event(address, format!("{{\"n\": {number}}}").as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let log = consumer.dir().join("logs/events.log");
    eventually(secs(60), "all are logged", || {
        fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 100)
    });
    let metrics = http::get(address, "/metrics").expect("metrics").text();
    let mut seen = [visible(&producer), visible(&consumer), metrics].concat();
    assert!(producer.terminate(secs(60)).success() && consumer.terminate(secs(60)).success());
    seen += &[producer.stderr(), consumer.stderr()].concat();
    let connections = producer.stderr().matches("client=Wire").count();
    assert!((1..=2).contains(&connections), "{connections} connections: one is enough, and lasts");
    for argument in ["--help", "--print-config", "--check-config"] {
        let told = program(Program::producer(), &brokers, &topic.name, &by_environment)
            .args(&[argument])
            .run(secs(60));
        assert!(told.status.success(), "{}", told.stderr);
        assert!(
            argument != "--print-config" || told.stdout.contains("KAFKA_SASL_PASSWORD=***"),
            "{}",
            told.stdout
        );
        seen += &(told.stdout + &told.stderr);
    }
    assert!(seen.contains("listening on") && !seen.contains(PASSWORD), "{seen}");
}

#[test]
fn settings_that_cannot_work_end_with_exit_code_2_and_no_flag_takes_the_password() {
    let base =
        || Program::consumer().env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL").env("KAFKA_SASL_USERNAME", "me");
    let with_plain = || base().env("KAFKA_SASL_MECHANISM", "plain").env("KAFKA_SASL_PASSWORD", PASSWORD);
    for (program, word) in [
        (base(), "KAFKA_SASL_MECHANISM"),
        (base().env("KAFKA_SASL_MECHANISM", "GSSAPI"), "SCRAM-SHA-512"),
        (base().env("KAFKA_SASL_MECHANISM", "PLAIN"), "KAFKA_SASL_PASSWORD_FILE"),
        (with_plain().env("KAFKA_SASL_PASSWORD_FILE", "/dev/null"), "both set"),
        (with_plain().env("KAFKA_CLIENT", "crate"), "KAFKA_CLIENT=crate"),
        (with_plain().env("KAFKA_TLS_CERT", "/dev/null"), "KAFKA_TLS_KEY"),
        (Program::producer().env("KAFKA_SASL_PASSWORD", PASSWORD), "no effect"),
        (Program::producer().env("KAFKA_TLS_CA", "/dev/null"), "no effect"),
        (with_plain().args(&["--kafka-sasl-password", PASSWORD]), "unexpected argument"),
        (with_plain().args(&[&format!("--kafka-sasl-password={PASSWORD}")]), "unexpected argument"),
    ] {
        let ended = program.env("LOG_LEVEL", "debug").run(secs(60));
        assert_eq!(ended.status.code(), Some(2), "{word}: {}", ended.stderr);
        assert!(ended.stderr.contains(word) && !ended.stderr.contains(PASSWORD), "{word}: {}", ended.stderr);
    }
    let broken = Program::consumer();
    fs::write(broken.directory().join(".env"), format!("KAFKA_SASL_PASSWORD={PASSWORD}\n")).expect("written");
    let ended = broken.run(secs(60));
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains(".env: a line cannot be parsed"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("7f3a"), "{}", ended.stderr);
}

#[test]
fn a_password_changed_under_a_running_producer_is_told_and_heals() {
    let secured = secured();
    let topic = secured.topic();
    secured.set_password("turn", "first-secret");
    let file = secured.write("turn", "first-secret\n");
    let security = SecurityConfig {
        username: Some("turn".into()),
        password: None,
        password_file: Some(file),
        ..secured.config(SaslPlaintext, ScramSha256)
    };
    let mut producer =
        program(Program::producer(), &secured.brokers(Port::SaslPlaintext), &topic.name, &security).start();
    let address = producer.address();
    let readyz = || http::get(address, "/readyz").expect("an answer");
    eventually(secs(60), "ready", || readyz().status == 200);
    secured.set_password("turn", "second-secret");
    eventually(secs(60), "told", || {
        let answer = readyz();
        answer.status == 503 && answer.text().contains("authentication of user turn failed")
    });
    assert!(http::get(address, "/metrics").expect("metrics").text().contains("kind=\"refused\""));
    // The new one in the file is found without a restart.
    secured.write("turn", "second-secret");
    eventually(secs(60), "ready again", || readyz().status == 200);
    let answer = http::post_event(address, b"{}").expect("an answer");
    assert_eq!((answer.status, topic.count()), (200, 1), "{}", answer.text());
    assert!(producer.terminate(secs(60)).success());
    assert!(!producer.stderr().contains("-secret"), "{}", producer.stderr());
}
