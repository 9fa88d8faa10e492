//! `--health`: a program asks the one that runs with the same settings, as the health check of a container does.

use std::net::{SocketAddr, TcpListener};

use crate::consumer;
use crate::producer;
use crate::support::control::Watch;
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

/// Exit code and stderr of `--health` with these settings.
#[track_caller]
fn health(program: Program, settings: &[(&str, &str)]) -> (i32, String) {
    let program = settings.iter().fold(program, |program, (name, value)| program.env(name, value));
    let end = program.args(&["--health"]).run(secs(60));
    assert_eq!(end.stdout, "", "stdout is for events");
    assert!(end.stderr.lines().count() <= 1, "{}", end.stderr);
    (end.status.code().expect("an exit code"), end.stderr)
}

fn every_address(of: SocketAddr) -> String {
    format!("0.0.0.0:{}", of.port())
}

#[test]
fn a_program_that_is_ready_is_healthy() {
    let topic = shared().topic();
    let ready = (0, String::new());
    for server in ["tiny_http", "edge"] {
        let served = producer::serve(&topic, &[("HTTP_SERVER", server), ("HTTP_ADDR", "0.0.0.0:0")]);
        let at = every_address(served.address);
        assert_eq!(health(Program::producer(), &[("HTTP_ADDR", &at)]), ready, "{server}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut logging = consumer::program(&topic, dir.path(), &[]).start();
    consumer::wait_ready(&mut logging);
    let at = every_address(logging.address());
    assert_eq!(health(Program::consumer(), &[("METRICS_ADDR", &at)]), ready);
    // What a start would refuse does not matter, such as a file that is being replaced.
    let settings = [("METRICS_ADDR", &*at), ("LOG_FILE", "logs/")];
    assert_eq!(health(Program::consumer(), &settings), ready);
    #[cfg(feature = "live")]
    {
        let live = crate::live::serve(&[("LIVE_TOKEN", "a-token_of-24-characters")]);
        assert_eq!(health(Program::live(), &[("LIVE_ADDR", &live.address.to_string())]), ready);
    }
}

#[test]
fn a_program_that_is_not_ready_says_why_also_at_the_operators_port() {
    let mut waiting =
        Program::producer().env("KAFKA_BROKERS", "127.0.0.1:1").env("ADMIN_ADDR", "127.0.0.1:0").start();
    let operators = waiting.stderr_after("pages for operators at ");
    let settings = [("ADMIN_ADDR", &*operators), ("HTTP_ADDR", "127.0.0.1:1")];
    eventually(secs(60), "the reason is Kafka's", || {
        let (code, said) = health(Program::producer(), &settings);
        assert_eq!(code, 1, "{said}");
        said.starts_with(&format!("error: {operators} is not ready: 503 kafka: "))
            && said.contains("127.0.0.1:1")
    });
}

#[test]
fn what_cannot_be_asked_is_not_healthy() {
    // A client's port: free, and given to no server.
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").to_string();
    let (code, said) = health(Program::producer(), &[("HTTP_ADDR", &closed)]);
    assert!(code == 1 && said.contains("refused"), "{said}");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = silent.local_addr().expect("address").to_string();
    let watch = Watch::start();
    let (code, said) = health(Program::consumer(), &[("METRICS_ADDR", &at)]);
    assert_eq!((code, said), (1, format!("error: {at} did not answer within 2 s\n")));
    watch.assert_within(secs(4), "the check");
    for (setting, value) in [("METRICS_ADDR", "off"), ("METRICS_ADDR", "127.0.0.1:0")] {
        let (code, said) = health(Program::consumer(), &[(setting, value)]);
        assert!(code == 1 && said.starts_with(&format!("error: {setting}={value}")), "{said}");
    }
}
