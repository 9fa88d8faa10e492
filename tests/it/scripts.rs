//! `scripts/kafka.sh` and `scripts/run_all.sh` where docker only half works, and when they are interrupted; and
//! `scripts/alert-check.sh` and `scripts/docker-check.sh`.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::machine::Ports;
use crate::support::process::{Finished, Program};
use crate::support::wait::{eventually, secs};

/// A project of its own: our scripts, and commands that come before those of this machine.
struct Project {
    root: TempDir,
    ports: Ports,
}

/// A docker engine. It has compose, its images and room for Kafka only as far as files of these names are missing:
/// `no-compose`, `no-images`, `no-up`. Its Kafka is a real one on the JVM.
const DOCKER: &str = r#"
here=${0%/bin/*}
echo "$*" >>"$here/docker-calls"
case "$*" in
  info) ;;
  "compose version") [[ ! -f $here/no-compose ]] ;;
  "image inspect"*) [[ ! -f $here/no-images ]] ;;
  pull*) echo "lookup registry: no such host" >&2; exit 1 ;;
  ps* | volume*) [[ ! -d $here/container ]] || echo 1a2b3c ;;
  *" up "*)
    [[ ! -f $here/no-up ]] || { echo "ERROR: no such network" >&2; exit 1; }
    KAFKA_DIR=$here/container KAFKA_RUNTIME=jvm KAFKA_OWNER_PID= "$here/scripts/kafka.sh" start ;;
  *" down"*) KAFKA_DIR=$here/container "$here/scripts/kafka.sh" wipe ;;
  *) exit 1 ;;
esac
"#;

/// The commands of a machine without compose of the first version.
const NOT_FOUND: &str = "exit 127";

impl Project {
    fn new(missing: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
        let project = Self { ports: Ports::reserve(1), root };
        for shared in ["scripts", "docs", "docker-compose.yml"] {
            symlink(ours.join(shared), project.path(shared)).expect("linked");
        }
        fs::create_dir_all(ours.join("target/kafka/libs")).expect("made");
        fs::create_dir_all(project.path("target/kafka")).expect("made");
        symlink(ours.join("target/kafka/libs"), project.path("target/kafka/libs")).expect("linked");
        fs::create_dir(project.path("bin")).expect("made");
        project.command("docker", DOCKER);
        project.command("docker-compose", NOT_FOUND);
        for name in missing {
            fs::write(project.path(name), "").expect("written");
        }
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts a bash script in front of the command of this name.
    fn command(&self, name: &str, script: &str) {
        let mut options = fs::OpenOptions::new();
        let file =
            options.create(true).truncate(true).write(true).mode(0o755).open(self.path("bin").join(name));
        write!(file.expect("opened"), "#!/bin/bash\n{script}").expect("written");
    }

    fn program(&self, name: &'static str, arguments: &[&str]) -> Program {
        let path = std::env::var("PATH").expect("a path");
        let program = Program::new(name, self.path("scripts").join(name).to_str().expect("UTF-8"));
        let program = program.args(arguments).env("PATH", format!("{}:{path}", self.path("bin").display()));
        program.dir(self.root.path()).env("KAFKA_PORT", self.ports.first.to_string())
    }

    /// Runs `kafka.sh` to its end.
    #[track_caller]
    fn kafka(&self, arguments: &[&str]) -> Finished {
        self.program("kafka.sh", arguments).run(secs(180))
    }

    /// Stops and wipes, and proves that this worked and left nothing.
    #[track_caller]
    fn assert_ends_clean(&self) {
        for command in ["stop", "wipe"] {
            let ended = self.kafka(&[command]);
            assert_eq!(ended.status.code(), Some(0), "{command}: {}", ended.stderr);
            assert!(!answers(self.ports.first), "after {command}: {}", ended.stderr);
        }
        let left = fs::read_dir(self.path("target/kafka")).expect("read").flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["libs"]);
    }

    fn docker_calls(&self) -> String {
        fs::read_to_string(self.path("docker-calls")).unwrap_or_default()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        for name in ["target/kafka", "container"] {
            let mut wipe = Command::new(self.path("scripts/kafka.sh"));
            let _ = wipe.arg("wipe").env("KAFKA_DIR", self.path(name)).output();
        }
    }
}

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The start succeeds on the JVM, and one line says that docker was not used and why.
#[track_caller]
fn assert_falls_back(missing: &str, reason: &str) {
    let project = Project::new(&[missing]);
    let started = project.kafka(&["start"]);
    assert_eq!(started.status.code(), Some(0), "{}", started.stderr);
    assert!(started.stderr.contains("(JVM, kraft"), "{}", started.stderr);
    let lines: Vec<_> = started.stderr.lines().filter(|line| line.contains("docker is not used")).collect();
    assert!(lines.len() == 1 && lines[0].contains(reason), "{}", started.stderr);
    assert!(!project.path("target/kafka/docker").exists());
    project.assert_ends_clean();
}

#[test]
fn an_engine_without_compose_leaves_kafka_to_the_jvm() {
    assert_falls_back("no-compose", "neither 'docker compose' nor 'docker-compose' is installed");
}

#[test]
fn images_that_cannot_be_pulled_leave_kafka_to_the_jvm() {
    assert_falls_back("no-images", "image zookeeper:3.8.4 is not here and cannot be pulled: lookup registry");
}

#[test]
fn containers_that_cannot_start_are_removed_and_leave_kafka_to_the_jvm() {
    assert_falls_back("no-up", "ERROR: no such network");
}

#[test]
fn docker_that_was_asked_for_and_cannot_work_is_an_error() {
    for (missing, reason) in [
        ("no-compose", "neither 'docker compose' nor 'docker-compose' is installed"),
        ("no-images", "cannot be pulled"),
        ("no-up", "no such network"),
    ] {
        let project = Project::new(&[missing]);
        let started = project.program("kafka.sh", &["start"]).env("KAFKA_RUNTIME", "docker").run(secs(60));
        assert_eq!(started.status.code(), Some(1), "{}", started.stderr);
        let last = started.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("KAFKA_RUNTIME=docker: ") && last.contains(reason), "{}", started.stderr);
        assert!(project.docker_calls().contains(" down --volumes") == (missing == "no-up"));
        project.assert_ends_clean();
    }
}

#[test]
fn the_check_of_containers_says_that_there_is_no_engine_and_fails_only_if_one_is_required() {
    let project = Project::new(&[]);
    project.command("docker", "exit 1");
    project.command("dockerd", "echo 'level=fatal msg=\"no room\"' >&2; exit 1");
    for (arguments, code, word) in [(&[][..], 0, "skipped: "), (&["--required"][..], 1, "failed while ")] {
        let ended =
            project.program("docker-check.sh", arguments).env("RUN_DIR", project.path("run")).run(secs(120));
        let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains(word)).collect();
        assert_eq!((ended.status.code(), said.len()), (Some(code), 1), "{ended:?}");
        assert!(said[0].contains("no docker engine responds") || said[0].contains("no room"), "{said:?}");
    }
}

#[test]
fn a_marker_of_a_start_that_failed_does_not_keep_the_jvm_running() {
    let project = Project::new(&["no-compose"]);
    let jvm = project.program("kafka.sh", &["start"]).env("KAFKA_RUNTIME", "jvm").run(secs(180));
    assert!(jvm.status.success(), "{}", jvm.stderr);
    // As earlier versions left it.
    fs::write(project.path("target/kafka/docker"), "").expect("written");
    project.assert_ends_clean();
}

#[test]
fn kafka_in_docker_ends_with_its_owner_and_its_wipe_warns_about_checkpoints() {
    let project = Project::new(&[]);
    fs::create_dir(project.path("logs")).expect("made");
    fs::write(project.path("logs/events.log.checkpoint"), "").expect("written");
    let mut owner = Command::new("sleep").arg("1000").spawn().expect("sleeps");
    let start = |owner: &str| {
        let program = project.program("kafka.sh", &["start"]).env("KAFKA_OWNER_PID", owner);
        let started = program.run(secs(180));
        assert!(started.stderr.contains("(docker, ZooKeeper)"), "{}", started.stderr);
        assert!(answers(project.ports.first));
    };
    start("");
    let marker = fs::read_to_string(project.path("target/kafka/docker")).expect("a marker");
    assert_eq!(marker.trim(), project.ports.first.to_string());
    let wiped = project.kafka(&["wipe"]);
    assert!(wiped.status.success() && wiped.stderr.contains("logs/ remembers them"), "{}", wiped.stderr);
    assert!(!wiped.stderr.contains("0 broker(s)"), "{}", wiped.stderr);
    assert!(!answers(project.ports.first));

    start(&owner.id().to_string());
    owner.kill().and_then(|()| owner.wait()).expect("killed");
    eventually(secs(120), "Kafka ends with its owner", || {
        !answers(project.ports.first) && !project.path("target/kafka/docker").exists()
    });
    assert!(project.docker_calls().ends_with("down --volumes\n"), "{}", project.docker_calls());
}

impl Project {
    /// A script that builds the programs, with programs that are built already.
    fn with_programs(&self, script: &'static str, arguments: &[&str]) -> Program {
        self.command("cargo", "echo \"$*\" >\"${0%/bin/*}/cargo-calls\"");
        fs::create_dir_all(self.path("built/release")).expect("made");
        for program in [
            env!("CARGO_BIN_EXE_producer"),
            env!("CARGO_BIN_EXE_consumer"),
            env!("CARGO_BIN_EXE_simulate"),
            #[cfg(feature = "live")]
            env!("CARGO_BIN_EXE_live"),
        ] {
            let name = Path::new(program).file_name().expect("a name");
            symlink(program, self.path("built/release").join(name)).expect("linked");
        }
        self.program(script, arguments)
            .env("KAFKA_RUNTIME", "jvm")
            .env("CARGO_TARGET_DIR", self.path("built"))
            .env("RUN_DIR", self.path("run"))
    }

    /// `run_all.sh`, and the addresses of its programs.
    fn run_all(&self, arguments: &[&str]) -> (Program, [u16; 3]) {
        let [live, http, metrics] = [7, 8, 9].map(|port| self.ports.first + port);
        let program = self
            .with_programs("run_all.sh", arguments)
            .env("HTTP_ADDR", format!("127.0.0.1:{http}"))
            .env("METRICS_ADDR", format!("127.0.0.1:{metrics}"))
            .env("LIVE_ADDR", format!("127.0.0.1:{live}"))
            .env("THREADS", "2");
        (program, [http, metrics, live])
    }
}

#[test]
#[cfg(feature = "lake")]
fn run_all_with_a_lake_audits_the_lake() {
    let project = Project::new(&["no-compose"]);
    let (program, _) = project.run_all(&["--lake"]);
    let finished = program.env("REQUESTS", "300").env("LAKE_DIR", "built/lake").run(secs(300));
    assert!(finished.status.success(), "{finished:?}");
    assert!(
        finished.stdout.contains("300 sent, 300 acknowledged, 300 logged, 0 lost, 0 duplicated"),
        "{finished:?}"
    );
    let built = fs::read_to_string(project.path("cargo-calls")).expect("called");
    assert!(built.contains("--features lake"), "{built}");
    let days = fs::read_dir(project.path("built/lake")).expect("a lake").flatten();
    assert!(days.into_iter().any(|day| day.file_name().to_string_lossy().starts_with("dt=")));
    assert_eq!(fs::metadata(project.path("logs/events.log")).expect("a log").len(), 0);
}

#[test]
#[cfg(feature = "live")]
fn run_all_ends_soon_after_sigterm_and_stops_what_it_started() {
    let project = Project::new(&["no-compose"]);
    // With the live page, which is left running only after a whole run.
    let (program, ports) = project.run_all(&["--keep"]);
    let mut run = program
        // Hours of load: what ends it is the signal.
        .env("REQUESTS", "50000000")
        .start();
    eventually(secs(240), "the load runs", || run.stdout().contains("Sending 50000000"));
    let ports = [&ports[..], &[project.ports.first]].concat();
    assert!(ports.iter().copied().all(answers));
    let live = format!("127.0.0.1:{}", ports[2]);
    assert!(run.stderr().contains(&format!("watch it at http://{live}/")), "{}", run.stderr());
    eventually(secs(60), "the simulator says it too", || {
        run.stdout().contains(&format!("👀 Watch it at http://{live}/"))
    });
    let status = run.terminate(secs(120));
    assert_eq!(status.code(), Some(143), "{}", run.stderr());
    let left: Vec<_> = ports.into_iter().filter(|&port| answers(port)).collect();
    assert!(left.is_empty(), "{left:?} still answer: {}", run.stderr());
}

/// With a real Prometheus and a real Alertmanager.
#[test]
fn an_alert_about_kafka_becomes_an_event_in_the_log_once_kafka_is_back() {
    let project = Project::new(&[]);
    let program = project.with_programs("alert-check.sh", &[]);
    let finished = program.env("CHECK_PORT", project.ports.first.to_string()).run(secs(300));
    assert!(finished.status.success(), "{finished:?}");
    let log = fs::read_to_string(project.path("run/logs/events.log")).expect("a log");
    let alerts = log.lines().map(|line| line.split_once(" - ").expect("a time").1);
    let alerts: Vec<Value> = alerts.map(|event| serde_json::from_str(event).expect("JSON")).collect();
    for job in ["event-producer", "event-consumer"] {
        let labels = json!({"alertname": "PipelineKafkaUnavailable", "job": job});
        let alert = alerts.iter().find(|alert| alert["groupLabels"] == labels);
        let alert = alert.unwrap_or_else(|| panic!("{job} is not in {log}"));
        assert_eq!((&alert["status"], alert["version"].as_str()), (&json!("firing"), Some("4")), "{alert}");
        let alert = &alert["alerts"][0];
        assert_eq!(alert["labels"]["severity"], "critical", "{alert}");
        let runbook = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        assert!(runbook.ends_with("docs/OPERATION.md#pipelinekafkaunavailable"), "{alert}");
    }
    let order =
        ["no alert fires", "Kafka is stopped", "fires for", "503", "Kafka is started", "in logs/events.log"];
    let places: Vec<_> = order.iter().map(|words| finished.stdout.find(words)).collect();
    assert!(places.is_sorted() && !places.contains(&None), "{}", finished.stdout);
}
