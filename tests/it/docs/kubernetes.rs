//! Decodes docs/kubernetes/ into the types of the APIs, and compares it with the programs that it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use clap::CommandFactory;
use event_pipeline::config::{ConsumerConfig, ProducerConfig};
use serde_json::Value;

use crate::support::process::Program;
use crate::support::wait::secs;
use crate::tidy::root;

const DIRECTORY: &str = "docs/kubernetes";

/// Every object of the kustomization.
fn objects() -> &'static [Value] {
    static OBJECTS: OnceLock<Vec<Value>> = OnceLock::new();
    OBJECTS.get_or_init(decoded)
}

/// They are strictly decoded by `tests/tools/kubernetes`.
fn decoded() -> Vec<Value> {
    let tool = root().join("tests/tools/kubernetes");
    let mut command = Command::new("go");
    command.args(["run", "."]).arg(root().join(DIRECTORY)).current_dir(tool).env("GOFLAGS", "-mod=readonly");
    let output = command.output().expect("go runs");
    assert!(output.status.success(), "{DIRECTORY}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// The elements of a list that may be missing.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn find(kind: &str, name: &str) -> &'static Value {
    let mut found =
        objects().iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// What one of the programs gets from its files.
struct Workload {
    spec: &'static Value,
    pod: &'static Value,
    container: &'static Value,
    settings: BTreeMap<&'static str, &'static str>,
}

impl Workload {
    fn of(kind: &str, name: &str) -> Self {
        let spec = &find(kind, name)["spec"];
        let pod = &spec["template"]["spec"];
        let container = &pod["containers"][0];
        let shared = find("ConfigMap", text(&container["envFrom"][0]["configMapRef"]["name"]));
        let shared = shared["data"].as_object().expect("data");
        let mut settings: BTreeMap<&str, &str> =
            shared.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let own = list(&container["env"]).filter(|setting| setting["value"].is_string());
        settings.extend(own.map(|setting| (text(&setting["name"]), text(&setting["value"]))));
        Self { spec, pod, container, settings }
    }

    /// The container's port of this name.
    fn port(&self, name: &Value) -> u64 {
        let port = list(&self.container["ports"]).find(|port| port["name"] == *name);
        port.and_then(|port| port["containerPort"].as_u64()).unwrap_or_else(|| panic!("no port {name}"))
    }

    /// The port of an address among the settings.
    fn port_of(&self, setting: &str) -> u64 {
        let port = self.settings[setting].strip_prefix("0.0.0.0:").and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("{setting}={} is not on all addresses", self.settings[setting]))
    }

    /// Labels of the pods.
    fn labels(&self) -> &'static Value {
        &self.spec["template"]["metadata"]["labels"]
    }
}

fn producer() -> Workload {
    Workload::of("Deployment", "event-producer")
}

fn consumer() -> Workload {
    Workload::of("StatefulSet", "event-consumer")
}

/// The real program accepts the settings.
fn check(program: Program, settings: &BTreeMap<&str, &str>, index: &str) {
    let program = settings
        .iter()
        .fold(program, |program, (name, value)| program.env(name, value.replace("$(POD_INDEX)", index)));
    let end = program.args(&["--check-config"]).run(secs(60));
    assert!(end.status.success(), "pod {index}: {}", end.stderr);
}

#[test]
fn every_object_is_of_its_type_and_of_our_namespace() {
    let mut kinds = BTreeMap::new();
    for object in objects() {
        *kinds.entry(text(&object["kind"])).or_insert(0) += 1;
        let namespace = &object["metadata"]["namespace"];
        assert!(object["kind"] == "Namespace" || namespace == "event-pipeline", "{object}");
    }
    let expected = [
        ("ConfigMap", 1),
        ("Deployment", 1),
        ("HorizontalPodAutoscaler", 1),
        ("Namespace", 1),
        ("NetworkPolicy", 2),
        ("PodDisruptionBudget", 2),
        ("Service", 2),
        ("ServiceMonitor", 2),
        ("StatefulSet", 1),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
}

#[test]
fn the_programs_know_their_settings() {
    let (producer, consumer) = (producer(), consumer());
    for (workload, command) in
        [(&producer, ProducerConfig::command()), (&consumer, ConsumerConfig::command())]
    {
        let known: BTreeSet<_> =
            command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy())).collect();
        for name in workload.settings.keys() {
            assert!(known.contains(*name), "{DIRECTORY}: {name} is not a setting of {}", command.get_name());
        }
    }
    check(Program::producer(), &producer.settings, "0");
    let replicas = consumer.spec["replicas"].as_u64().expect("replicas");
    // The volume is not mounted here.
    let mut settings = consumer.settings.clone();
    settings.insert("LOG_FILE", "events.log");
    for index in 0..replicas {
        check(Program::consumer(), &settings, &index.to_string());
    }
    assert_eq!(consumer.settings["CONSUMER_SHARD"], format!("$(POD_INDEX)/{replicas}"));
    let index = list(&consumer.container["env"]).next().expect("the index comes before its use");
    assert_eq!(index["name"], "POD_INDEX");
    let label = &index["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(label, "metadata.labels['apps.kubernetes.io/pod-index']");
}

#[test]
fn ports_and_paths_are_those_of_the_programs() {
    let (producer, consumer) = (producer(), consumer());
    assert_eq!(producer.port(&"http".into()), producer.port_of("HTTP_ADDR"));
    assert_eq!(producer.port(&"admin".into()), producer.port_of("ADMIN_ADDR"));
    assert_eq!(consumer.port(&"metrics".into()), consumer.port_of("METRICS_ADDR"));
    let known: Vec<&str> = event_pipeline::producer::routes().into_iter().map(|(path, _)| path).collect();
    for (workload, name, pages) in
        [(&producer, "event-producer", "admin"), (&consumer, "event-consumer", "metrics")]
    {
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let get = &workload.container[probe]["httpGet"];
            assert_eq!((text(&get["path"]), text(&get["port"])), (path, pages), "{name}");
            assert!(known.contains(&path));
        }
        let service = find("Service", name);
        for port in list(&service["spec"]["ports"]) {
            assert_eq!(port["port"], workload.port(&port["targetPort"]), "{name}");
        }
        let monitor = find("ServiceMonitor", name);
        assert_eq!(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"], "{name}");
        let label = text(&monitor["spec"]["jobLabel"]);
        assert_eq!(service["metadata"]["labels"][label], name, "the job that alerts.yml expects");
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!((text(&endpoint["port"]), text(&endpoint["path"])), (pages, "/metrics"), "{name}");
        let rules = list(&find("NetworkPolicy", name)["spec"]["ingress"]);
        rules.for_each(|rule| assert!(workload.port(&rule["ports"][0]["port"]) > 0));
    }
    let pages = &find("HorizontalPodAutoscaler", "event-producer")["spec"];
    assert_eq!(pages["scaleTargetRef"]["name"], "event-producer");
    let metric = text(&pages["metrics"][0]["pods"]["metric"]["name"]).to_owned();
    assert!(event_pipeline::producer::metric_descriptions().iter().any(|known| known.name == metric));
}

#[test]
fn selectors_find_their_pods() {
    for (workload, name) in [(producer(), "event-producer"), (consumer(), "event-consumer")] {
        let labels = workload.labels();
        assert_eq!(&workload.spec["selector"]["matchLabels"], labels);
        assert_eq!(&find("Service", name)["spec"]["selector"], labels);
        assert_eq!(&find("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(&find("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"], labels);
        let spread = &workload.pod["topologySpreadConstraints"][0];
        assert_eq!(&spread["labelSelector"]["matchLabels"], labels);
    }
    let consumer = consumer();
    let service = find("Service", text(&consumer.spec["serviceName"]));
    assert_eq!(service["spec"]["clusterIP"], "None");
    let mount = &consumer.container["volumeMounts"][0];
    assert_eq!(mount["name"], consumer.spec["volumeClaimTemplates"][0]["metadata"]["name"]);
    let log = consumer.settings["LOG_FILE"];
    assert!(log.starts_with(&format!("{}/", text(&mount["mountPath"]))), "{log}");
}

/// The kubelet kills what has not ended by then.
#[test]
fn programs_have_time_to_drain() {
    let producer = producer();
    let grace = |workload: &Workload| workload.pod["terminationGracePeriodSeconds"].as_u64().expect("set");
    let sleep = producer.container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("seconds");
    let drain: u64 = producer.settings["SHUTDOWN_TIMEOUT_SECS"].parse().expect("seconds");
    assert!(sleep > 0 && grace(&producer) > sleep + drain, "{sleep} s and {drain} s");
    // As in docs/systemd/event-consumer.service.
    assert!(grace(&consumer()) >= 40);
}

#[test]
fn pods_have_no_privilege() {
    for workload in [producer(), consumer()] {
        let pod = &workload.pod["securityContext"];
        assert_eq!((&pod["runAsNonRoot"], &pod["runAsUser"]), (&true.into(), &65532.into()));
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(workload.pod["automountServiceAccountToken"], false);
        let container = &workload.container["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
    }
}
