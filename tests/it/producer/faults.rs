//! One broker that breaks: what the client sees, what stands in the topic, and that all heals by itself.
//!
//! In each: every receipt names the place of its event, nothing waits past its limit, `/readyz` tells the truth
//! within two seconds.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::producer::load::{Asked, HONEST_GAP, Load};
use crate::producer::{Served, at_once, serve, serve_via};
use crate::support::admin;
use crate::support::control::Watch;
use crate::support::kafka::{Cluster, is_on_crate, shared};
use crate::support::proxy::{Direction, Mode, Proxy};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs, within};

/// Short, so that a fault can outlast them all. A broker on a busy machine may too: such tests allow for a 503.
pub const TIMEOUTS: [(&str, &str); 3] = [
    ("KAFKA_CONNECT_TIMEOUT_MS", "500"),
    ("KAFKA_REQUEST_TIMEOUT_MS", "1000"),
    ("DELIVERY_TIMEOUT_MS", "3000"),
];

/// The delivery timeout of [`TIMEOUTS`], and what an answer takes.
pub const ANSWERED_WITHIN: Duration = Duration::from_millis(3500);

/// Longer than a broker on a busy machine takes, where nothing but 200 is expected.
pub const PATIENT: [(&str, &str); 3] = [
    ("KAFKA_CONNECT_TIMEOUT_MS", "5000"),
    ("KAFKA_REQUEST_TIMEOUT_MS", "10000"),
    ("DELIVERY_TIMEOUT_MS", "30000"),
];
pub const PATIENT_WITHIN: Duration = Duration::from_millis(30_500);

/// `/readyz` follows Kafka within this.
const READY_LAG: Duration = secs(2);

/// Waits for `/readyz` to follow what was just done to Kafka; `eventually` judges beside the control.
#[track_caller]
pub fn readyz_turns(served: &Served, status: u16) {
    eventually(READY_LAG, &format!("/readyz turns {status}"), || served.readyz() == status);
}

/// A producer of its own brokers, which eight clients post to.
pub struct UnderLoad {
    pub load: Load,
    pub served: Served,
    pub topic: Topic,
    pub cluster: Cluster,
}

impl UnderLoad {
    /// Some events are acknowledged already.
    #[track_caller]
    pub fn start(brokers: usize) -> Self {
        Self::with(brokers, &TIMEOUTS)
    }

    /// The same with other timeouts.
    #[track_caller]
    pub fn with(brokers: usize, timeouts: &[(&str, &str)]) -> Self {
        let cluster = Cluster::start(brokers);
        let topic = cluster.topic();
        let served = serve_via(&cluster.brokers(), &topic, timeouts);
        let load = Load::start(served.address, 8);
        load.wait_acknowledged(200);
        Self { cluster, topic, served, load }
    }

    /// Kafka has healed, so the producer does; and no answer was late or wrong.
    #[track_caller]
    pub fn heals(self) {
        self.topic.wait_given_out();
        readyz_turns(&self.served, 200);
        self.load.wait_acknowledged(200);
        let ledger = self.load.finish();
        ledger.assert_answers(ANSWERED_WITHIN);
        ledger.assert_kept(&self.topic);
    }
}

/// An event posted now is refused at once, with a reason.
#[track_caller]
fn assert_refused_at_once(served: &Served) {
    let answer = within(secs(1), "a refusal", || served.post("{}"));
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("kafka_unavailable")));
}

#[test]
fn a_broker_killed_under_load_and_started_again() {
    let scene = UnderLoad::start(1);
    scene.cluster.kill(1);
    readyz_turns(&scene.served, 503);
    assert_refused_at_once(&scene.served);
    scene.load.wait_refused(50);
    scene.cluster.restart(1);
    scene.heals();
}

#[test]
fn a_broker_silent_for_longer_than_every_timeout() {
    let scene = UnderLoad::start(1);
    scene.cluster.pause(1);
    let paused = Instant::now();
    readyz_turns(&scene.served, 503);
    while paused.elapsed() < secs(8) {
        assert_refused_at_once(&scene.served);
        assert_eq!(scene.served.readyz(), 503, "after {:?}", paused.elapsed());
        thread::sleep(Duration::from_millis(100));
    }
    scene.cluster.resume(1);
    scene.heals();
}

#[test]
fn a_silence_without_any_load_is_noticed_too() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let served = serve_via(&cluster.brokers(), &topic, &[]);
    for _ in 0..3 {
        cluster.pause(1);
        readyz_turns(&served, 503);
        cluster.resume(1);
        readyz_turns(&served, 200);
    }
    served.assert_serves();
}

#[test]
fn a_connection_cut_in_a_request_or_a_reply_costs_no_client_anything() {
    let topic = shared().topic();
    let proxies = Proxy::kafka(&topic.brokers());
    let proxy = &proxies[0];
    let served = serve_via(&proxy.address().to_string(), &topic, &PATIENT);
    let asked = Asked::start(&topic);
    let load = Load::start(served.address, 8);
    load.wait_acknowledged(100);
    for direction in [Direction::Request, Direction::Reply] {
        for bytes in [0, 1, 4, 13, 40, 300] {
            let before = proxy.accepted();
            proxy.cut_after(direction, bytes);
            eventually(secs(60), "it connects again", || proxy.accepted() > before);
            load.wait_acknowledged(20);
        }
    }
    let ledger = load.finish();
    ledger.assert_answers(PATIENT_WITHIN);
    ledger.assert_acknowledged(asked.longest_gap());
    ledger.assert_kept(&topic);
    served.wait_ready();
}

#[test]
fn a_lost_reply_may_double_an_event_and_never_loses_one() {
    let topic = shared().topic();
    let proxies = Proxy::kafka(&topic.brokers());
    let served = serve_via(&proxies[0].address().to_string(), &topic, &PATIENT);
    let asked = Asked::start(&topic);
    let load = Load::start(served.address, 8);
    load.wait_acknowledged(100);
    for _ in 0..5 {
        // Not the reply to a question about quotas or readiness, which repeats no event.
        proxies[0].lose_replies_to(admin::PRODUCE, b"{\"load\":", 1);
        eventually(secs(60), "a reply is lost", || proxies[0].replies_to_lose() == 0);
        load.wait_acknowledged(50);
    }
    let ledger = load.finish();
    ledger.assert_answers(PATIENT_WITHIN);
    ledger.assert_acknowledged(asked.longest_gap());
    let doubled = ledger.assert_kept(&topic);
    if is_on_crate() {
        assert!(doubled >= 5, "the lost replies were to events that stand twice now: {doubled}");
    } else {
        assert_eq!(doubled, 0, "the broker knew them again");
    }
}

#[test]
fn a_topic_that_was_deleted_is_created_again_where_the_broker_does_so() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let mut served = serve_via(&cluster.brokers(), &topic, &TIMEOUTS);
    let before = Load::start(served.address, 4);
    before.wait_acknowledged(200);
    let ledger = before.finish();
    ledger.assert_kept(&topic);
    let across = Load::start(served.address, 4);
    across.wait_acknowledged(100);
    admin::delete_topic(cluster.address(1), &topic.name);
    served.program.stderr_after(&format!("topic {} does not exist", topic.name));
    across.wait_acknowledged(200);
    across.finish().assert_answers(ANSWERED_WITHIN);
    let after = Load::start(served.address, 4);
    after.wait_acknowledged(200);
    let ledger = after.finish();
    ledger.assert_answers(ANSWERED_WITHIN);
    ledger.assert_kept(&topic);
    assert_eq!((topic.metadata().partitions.len(), served.readyz()), (3, 200));
}

#[test]
fn a_topic_that_was_deleted_for_good_is_named_and_its_return_heals() {
    let cluster = Cluster::with_properties(1, "auto.create.topics.enable=false\n");
    let topic = cluster.topic();
    let served = serve_via(&cluster.brokers(), &topic, &TIMEOUTS);
    let load = Load::start(served.address, 4);
    load.wait_acknowledged(100);
    topic.delete();
    readyz_turns(&served, 503);
    assert_refused_at_once(&served);
    eventually(secs(60), "the reason and the way out", || {
        let reason = served.post("{}").text();
        reason.contains(&topic.name) && reason.contains("auto.create.topics.enable")
    });
    load.finish().assert_answers(ANSWERED_WITHIN);
    admin::create_topic(cluster.address(1), &topic.name, 3, 1, &[]);
    readyz_turns(&served, 200);
    let load = Load::start(served.address, 4);
    load.wait_acknowledged(100);
    load.finish().assert_kept(&topic);
}

/// An address that takes no connection and refuses none: the queue of its listener is full.
fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    SockRef::from(&listener).listen(0).expect("listen");
    let address = listener.local_addr().expect("address");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let queued: Vec<TcpStream> = std::iter::from_fn(connect).take(64).collect();
    assert!(queued.len() < 64, "the queue never fills");
    (address, queued, listener)
}

#[test]
fn a_black_hole_before_the_good_address_is_passed_over() {
    let topic = shared().topic();
    let (hole, _queued, _listener) = black_hole();
    let silent = Proxy::tcp(topic.brokers());
    silent.set(Mode::Blackhole);
    for dead in [hole, silent.address()] {
        let brokers = format!("{dead},{}", topic.brokers());
        let served = within(secs(5), "the start", || serve_via(&brokers, &topic, &[]));
        let asked = Asked::start(&topic);
        let load = Load::start(served.address, 4);
        load.wait_acknowledged(200);
        let ledger = load.finish();
        ledger.assert_acknowledged(asked.longest_gap());
        ledger.assert_kept(&topic);
        served.wait_ready();
    }
}

#[test]
fn retries_back_off_with_jitter_whether_a_batch_waits_or_not() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&topic.brokers()).remove(0);
    // A batch of one event is full, which must not make retries hot.
    let settings = [("BATCH_MAX_EVENTS", "1"), ("DELIVERY_TIMEOUT_MS", "3000")];
    let served = serve_via(&proxy.address().to_string(), &topic, &settings);
    let load = Load::start(served.address, 8);
    load.wait_acknowledged(50);
    proxy.set(Mode::Refuse);
    proxy.cut();
    // Twelve tries, of which the last five come once the wait no longer grows, with a batch and without one.
    let (mut tries, mut last, mut before) = (Vec::new(), Watch::start(), proxy.accepted());
    while tries.len() < 12 {
        let accepted = proxy.accepted();
        if accepted > before {
            tries.push(last);
            (last, before) = (Watch::start(), accepted);
        }
        last.assert_within(Duration::from_millis(1500), "the next try");
        thread::sleep(Duration::from_millis(1));
    }
    tries.push(last);
    let waits: Vec<Duration> = tries.windows(2).map(|pair| pair[1].since(&pair[0])).collect();
    let late = &waits[waits.len() - 5..];
    // What the machine held up seems to come sooner after what it held up before.
    let hot = |wait: &&Duration| **wait + tries[0].late() < Duration::from_millis(450);
    assert_eq!(late.iter().find(hot), None, "{waits:?}");
    let spread = *late.iter().max().expect("five") - *late.iter().min().expect("five");
    assert!(spread > Duration::from_millis(10), "in step: {waits:?}");
    proxy.set(Mode::Forward);
    readyz_turns(&served, 200);
    load.wait_acknowledged(50);
    let ledger = load.finish();
    ledger.assert_answers(ANSWERED_WITHIN);
    ledger.assert_kept(&topic);
}

#[test]
fn a_broker_too_slow_for_all_is_still_used_for_some() {
    let topic = shared().topic();
    let proxy = Proxy::kafka(&topic.brokers()).remove(0);
    let settings = [("BATCH_MAX_EVENTS", "2"), ("DELIVERY_TIMEOUT_MS", "3000")];
    let served = serve_via(&proxy.address().to_string(), &topic, &settings);
    let load = Load::start(served.address, 40);
    load.wait_acknowledged(100);
    // Two events each 0.2 s: most of the forty clients wait too long.
    proxy.set(Mode::Delay(Duration::from_millis(100)));
    load.wait_refused(40);
    within(secs(60), "40 events", || load.wait_acknowledged(40));
    proxy.set(Mode::Forward);
    let ledger = load.finish();
    ledger.assert_answers(ANSWERED_WITHIN);
    let (extra, acknowledged) = (ledger.assert_kept(&topic), ledger.count(200));
    assert!(extra * 10 < acknowledged, "calls were cut short and repeated: {extra} beside {acknowledged}");
}

#[test]
fn a_topic_just_created_does_not_make_it_unready() {
    at_once(5, |_| {
        let topic = shared().topic();
        let served = serve(&topic, &[]);
        let (asked, began) = (Asked::start(&topic), Instant::now());
        while began.elapsed() < secs(1) {
            let is_ready = served.readyz() == 200;
            assert!(is_ready || asked.longest_gap() > HONEST_GAP, "{}", served.program.stderr());
            thread::sleep(Duration::from_millis(5));
        }
    });
}
