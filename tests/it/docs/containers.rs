//! The files for containers, compared with what they repeat: versions, addresses, and when a program is started again.

use super::read;

const COMPOSE: [&str; 2] = ["docker-compose.yml", "docker-compose.full.yml"];
const FULL: &str = COMPOSE[1];

/// Each service of a compose file with its lines.
fn services(text: &str) -> Vec<(&str, &str)> {
    let (_, text) = text.split_once("\nservices:\n").expect("services");
    let text = text.split("\nvolumes:\n").next().expect("the services");
    let is_name = |line: &str| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  #");
    let starts: Vec<usize> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            *at += line.len();
            Some((*at - line.len(), line))
        })
        .filter_map(|(at, line)| is_name(line).then_some(at))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let (name, lines) = text[start..end].split_once(':').expect("a name");
            (name.trim(), lines)
        })
        .collect()
}

#[test]
fn ports_are_published_for_this_machine_only() {
    for file in COMPOSE {
        let text = read(file);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let ports: Vec<&&str> = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| *index > 0 && lines[index - 1] == "ports:")
            .map(|(_, line)| line)
            .collect();
        assert_eq!(
            ports.len(),
            lines.iter().filter(|line| line.contains("ports:")).count(),
            "{file}: one per list"
        );
        for port in ports {
            assert!(port.starts_with("- \"127.0.0.1:${"), "{file}: {port}");
        }
    }
}

/// Exit codes 2 and 65 mean that another start ends the same way.
#[test]
fn programs_that_cannot_start_are_not_started_without_end() {
    let text = read(FULL);
    let all = services(&text);
    assert_eq!(
        all.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["kafka", "producer", "consumer", "live", "prometheus", "grafana"]
    );
    for (name, lines) in all {
        let is_ours = lines.contains("\n    build: {context: ., target: ");
        let inherits = lines.contains("\n    <<: *program\n") && !lines.contains("\n    restart:");
        assert_eq!(is_ours, lines.contains("\n    restart: on-failure:5\n") || inherits, "{name}");
        assert!(lines.contains("\n    healthcheck:"), "{name}");
        if is_ours {
            let check = format!("test: [CMD, {name}, --health]\n");
            let built =
                format!("\n    image: event-pipeline-{name}\n    build: {{context: ., target: {name}}}\n");
            assert!(lines.contains(&check) && lines.contains(&built), "{name}: {lines}");
        }
    }
}

#[test]
fn the_image_is_built_with_the_compiler_and_the_files_of_the_manifest() {
    let (manifest, dockerfile) = (read("Cargo.toml"), read("Dockerfile"));
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    let image = format!("ARG RUST_IMAGE=rust:{}-slim-", version.trim_matches('"'));
    assert!(dockerfile.contains(&image), "Dockerfile: {image}");
    let ignored = read(".dockerignore");
    let kept: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut named: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("path = ")).collect();
    named.extend([
        "Cargo.toml",
        "Cargo.lock",
        "src/lib.rs",
        "benches/micro",
        "scripts/static.sh",
        "scripts/lib.sh",
    ]);
    for path in named.into_iter().map(|path| path.trim_matches('"')) {
        assert!(kept.iter().any(|kept| path.starts_with(kept)), ".dockerignore leaves out {path}");
    }
}

/// Among the containers, only the addresses differ.
#[test]
fn prometheus_and_grafana_have_the_same_settings_as_outside() {
    let ours = |text: String, from: &str| text[text.find(from).expect(from)..].to_owned();
    let outside = read("docs/prometheus/prometheus.yml");
    let (before, alerting) = outside.split_once("alerting:\n").expect("alerting");
    let (_, after) = alerting.split_once("\n\n").expect("the end of alerting");
    let without = format!("{before}{after}")
        .replace("127.0.0.1:5000", "producer:5000")
        .replace("127.0.0.1:5001", "consumer:5001");
    let without: String = without
        .split_inclusive('\n')
        .filter(|line| !line.contains("AUTH_KEYS_FILE") && !line.contains("# authorization"))
        .collect();
    assert_eq!(ours(read("docs/prometheus/docker.yml"), "global:"), ours(without, "global:"));
    let source = read("docs/grafana/provisioning/datasources/prometheus.yml")
        .replace("127.0.0.1:9090", "prometheus:9090");
    assert_eq!(ours(read("docs/grafana/docker.yml"), "apiVersion"), ours(source, "apiVersion"));
}
