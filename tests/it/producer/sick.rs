//! The producer while something inside it is broken: one request, the accept loop, or its descriptors.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::producer::Served;
use crate::support::control::Watch;
use crate::support::http::{self, Client};
use crate::support::kafka::shared;
use crate::support::preload::Preload;
use crate::support::process::Program;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, eventually_some, secs};

fn serve_with(preload: &Preload, topic: &Topic) -> Served {
    let program = Program::producer().env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name);
    let mut program = preload.attach(program).start();
    let address = program.address();
    let served = Served { program, address };
    served.wait_ready();
    served
}

#[test]
fn a_panic_ends_one_request_and_leaves_no_turn_taken() {
    let topic = shared().topic();
    let preload = Preload::build();
    let served = serve_with(&preload, &topic);
    // Large enough for a body thread of either server.
    let body = format!("{{\"a\": \"{}\"}}", "x".repeat(5000));
    let mut client = Client::connect_from(([127, 0, 0, 1], 0).into(), served.address).expect("connects");
    let local = client.stream().local_addr().expect("an address");
    assert_eq!(client.post_event(body.as_bytes()).expect("an answer").status, 200);
    preload.on("clock");
    let answer = client.post_event(body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(client.read_to_end().expect("the connection ends, and nobody waits on it").len(), 0);
    assert_eq!((answer.header("connection"), &answer.json()["error"]), (Some("close"), &"internal".into()));
    assert!(!preload.is_on("clock") && served.metric("pipeline_thread_panics_total") >= 1.0);
    drop(client);
    let mut again =
        eventually_some(secs(30), "the address is free", || Client::connect_from(local, served.address).ok());
    assert_eq!(again.post_event(body.as_bytes()).expect("an answer").status, 200);
    assert_eq!(topic.count(), 2);
    assert_eq!(served.metric("pipeline_http_requests_total{code=\"500\",route=\"/register_event\"}"), 1.0);
}

const ROUNDS: usize = 6;
const DROPPED: usize = 20;

/// A producer with a connection to ask it by and others that are dropped round by round.
struct Watched {
    served: Served,
    asks: Client,
    idle: Vec<TcpStream>,
}

impl Watched {
    fn start(preload: &Preload, topic: &Topic) -> Self {
        let served = serve_with(preload, topic);
        let asks = served.client();
        let idle: Vec<TcpStream> =
            (0..ROUNDS * DROPPED).map(|_| TcpStream::connect(served.address).expect("connects")).collect();
        let mut watched = Self { served, asks, idle };
        let all = watched.idle.len();
        eventually(secs(30), "all are known", || watched.known() >= all);
        watched
    }

    /// Connections that the guard has seen at its last look.
    fn known(&mut self) -> usize {
        let text = self.asks.get("/metrics").expect("metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix("pipeline_http_connections "));
        value.expect("a sample").parse().expect("a number")
    }

    /// Drops some connections; returns how long it takes until the guard has noticed.
    fn notice(&mut self) -> Duration {
        let left = self.idle.len() - DROPPED;
        self.idle.truncate(left);
        let began = Instant::now();
        eventually(secs(60), "the guard looks", || self.known() < left + DROPPED / 2);
        began.elapsed()
    }
}

#[test]
fn limits_hold_at_the_same_pace_while_the_accept_loop_hangs() {
    let topic = shared().topic();
    let (preload, healthy) = (Preload::build(), Preload::build());
    let (mut sick, mut well) = (Watched::start(&preload, &topic), Watched::start(&healthy, &topic));
    preload.on("accept");
    let watch = Watch::start();
    let notice_all = |watched: &mut Watched| (0..ROUNDS).map(|_| watched.notice()).sum::<Duration>();
    let (at_sick, at_well) = thread::scope(|scope| {
        let at_sick = scope.spawn(|| notice_all(&mut sick));
        let at_well = notice_all(&mut well);
        (at_sick.join().expect("no panic"), at_well)
    });
    // An event loop notices within milliseconds, so one pause of a busy machine would be a multiple of that.
    assert!(
        at_sick < watch.allows(at_well * 5 / 2),
        "{at_sick:?} for {ROUNDS} looks, where a healthy one takes {at_well:?}"
    );
    preload.off("accept");
    eventually(secs(60), "it serves new connections again", || {
        http::post_event(sick.served.address, b"{}").is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn idle_clients_that_took_the_last_descriptor_are_cut_in_time() {
    let topic = shared().topic();
    let script = format!("ulimit -n 120 && exec {}", env!("CARGO_BIN_EXE_producer"));
    let program = Program::new("producer", "/usr/bin/env").args(&["bash", "-c", &script]);
    let program = program.env("HTTP_ADDR", "127.0.0.1:0").env("HTTP_IDLE_TIMEOUT_SECS", "3");
    let mut program = program.env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name).start();
    let address = program.address();
    let served = Served { program, address };
    served.wait_ready();
    let greedy: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(address).ok()).collect();
    eventually(secs(60), "others are served though none of them leaves", || {
        http::post_event(address, b"{}").is_ok_and(|answer| answer.status == 200)
    });
    drop(greedy);
}
