//! A real Prometheus reads the real programs under load, and every query of the dashboard has an answer.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use super::dashboard::{panels, queries};
use super::{ALERTS, DASHBOARD, RULES};
use crate::consumer::{program, wait_ready};
use crate::docs::read;
use crate::producer::access::KeyFile;
use crate::support::http;
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::process::{Program, Running};
use crate::support::wait::{eventually, secs};

/// Debian's Prometheus with the documented files, apart from addresses and times.
struct Prometheus {
    address: SocketAddr,
    _program: Running,
}

impl Prometheus {
    /// One that reads a producer, for which it needs `key`, and consumers.
    fn of(producer: SocketAddr, key: &str, consumers: &[SocketAddr]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let listen = format!("--web.listen-address={address}");
        let program = Program::new("prometheus", "prometheus").args(&[
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &listen,
        ]);
        let consumers: Vec<String> = consumers.iter().map(|address| format!("\"{address}\"")).collect();
        let mut config = read("docs/prometheus/prometheus.yml");
        for (documented, own) in [
            ("127.0.0.1:5000", producer.to_string()),
            (
                "# authorization: {credentials_file: /etc/prometheus/event-producer.key}",
                "authorization: {credentials_file: key}".into(),
            ),
            ("\"127.0.0.1:5001\"", consumers.join(", ")),
            // Nothing listens there.
            ("127.0.0.1:9093", "127.0.0.1:1".into()),
            ("_interval: 15s", "_interval: 1s".into()),
        ] {
            assert!(
                config.contains(documented),
                "docs/prometheus/prometheus.yml does not have {documented:?}"
            );
            config = config.replace(documented, &own);
        }
        let own = |name: &str| program.directory().join(name);
        for (path, text) in [
            (own("prometheus.yml"), config),
            (own("rules.yml"), read(RULES)),
            (own("alerts.yml"), read(ALERTS)),
            (own("key"), key.to_owned()),
        ] {
            fs::write(path, text).expect("written");
        }
        let mut program = program.start();
        eventually(secs(60), "Prometheus is ready", || {
            assert!(program.is_alive(), "Prometheus ended: {}", program.stderr());
            http::get(address, "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        Self { address, _program: program }
    }

    /// The numbers in the answer to `query` at this moment.
    fn query(&self, query: &str) -> Vec<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer =
            http::get(self.address, &format!("/api/v1/query?query={encoded}")).expect("an answer").json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let samples = answer["data"]["result"].as_array().expect("samples");
        let values = samples.iter().map(|sample| sample["value"][1].as_str().expect("a value"));
        values.map(|value| value.parse().expect("a number")).filter(|value: &f64| !value.is_nan()).collect()
    }
}

/// With everything that has metrics of its own: keys, event ids, a lake, a database, and the client that knows times.
#[test]
fn every_panel_shows_something_under_load_and_then_every_event_is_accounted_for() {
    const WIRE: (&str, &str) = ("KAFKA_CLIENT", "wire");
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let mut file = KeyFile::new();
    let key = file.add("shop", "secret", "until=2099-12-31");
    let producer = file.serve(&topic, "edge", &[WIRE]);
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let lake = [WIRE, ("EVENT_ID_FIELD", "event_id"), ("LAKE_DIR", "lake"), ("LOG_ROTATE_SECS", "2")];
    let (url, group) = (database.url(), format!("tables-of-{}", topic.name));
    let tables: [(&str, &str); 4] =
        [WIRE, ("KAFKA_GROUP", &group), ("DESTINATION_URL", &url), ("CREATE_TABLES", "run")];
    let mut consumers =
        [program(&topic, dirs[0].path(), &lake).start(), program(&topic, dirs[1].path(), &tables).start()];
    consumers.iter_mut().for_each(wait_ready);
    let events = format!("http://{}/register_event", producer.address);
    let load = ["--url", &events, "--rate", "200", "--threads", "4", "--duration", "1h"];
    let load = Program::simulate().args(&load).env("SIMULATE_KEY", &key).start();

    let addresses = consumers.each_mut().map(Running::address);
    let prometheus = Prometheus::of(producer.address, &key, &addresses);
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    for panel in panels(&dashboard) {
        for query in queries(panel) {
            let query =
                [("$__rate_interval", "10s"), ("$__range", "1m"), ("$job", ".*"), ("$instance", ".*")]
                    .iter()
                    .fold(query.to_owned(), |query, (variable, value)| query.replace(variable, value));
            eventually(secs(120), &format!("{} has an answer to {query}", panel["title"]), || {
                !prometheus.query(&query).is_empty()
            });
        }
    }
    assert!(prometheus.query("sum(pipeline_events_acknowledged_total)")[0] > 100.0);

    drop(load);
    // Of the producer two, and one of each consumer.
    eventually(secs(120), "every event is accounted for", || {
        prometheus.query("instance:pipeline_unaccounted_events:difference") == [0.0; 4]
    });
    assert_eq!(prometheus.query(r#"ALERTS{alertname="PipelineConservationBroken"}"#), [0.0; 0]);
}
