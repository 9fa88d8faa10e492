//! Which keys open what, and the file of keys while it changes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::producer::access::{KeyFile, SERVERS, post, request};
use crate::support::http::{self, Client};
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

fn base64(text: &str) -> String {
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("base64").arg("--wrap=0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().expect("base64 runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("written");
    let mut encoded = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut encoded).expect("text");
    child.wait().expect("it ends");
    encoded
}

#[test]
fn a_key_is_taken_wherever_clients_put_it_and_everything_else_is_refused_alike() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let key = file.add("shop", "secret", "");
        let public = file.add("pages", "public", "origins=https://shop.example");
        let old = file.add("shop", "secret", "until=2020-01-01");
        let served = file.serve(&topic, server, &[]);
        let bearer = format!("Bearer {key}");
        let basic = format!("Basic {}", base64(&format!("{key}:")));
        for headers in
            [[("authorization", bearer.as_str())], [("Authorization", &basic)], [("x-api-key", &key)]]
        {
            let answer = post(&served, &headers);
            assert_eq!(answer.status, 200, "{server}: {}", answer.text());
        }
        let in_query = format!("/register_event?key={public}");
        let origin = [("Origin", "https://shop.example")];
        assert_eq!(request(served.address, "POST", &in_query, &origin, b"{}").status, 200);
        assert_eq!(topic.count(), 4);
        let mistyped =
            format!("{}{}", &bearer[..bearer.len() - 1], if bearer.ends_with('x') { 'y' } else { 'x' });
        let unknown = Program::producer().args(&["--new-key", "shop"]).run(secs(60)).stdout;
        let unknown = unknown.lines().next().expect("a key");
        let in_query = format!("/register_event?key={key}");
        let refused = [
            post(&served, &[]),
            post(&served, &[("Authorization", &mistyped)]),
            post(&served, &[("X-Api-Key", unknown)]),
            post(&served, &[("X-Api-Key", &old)]),
            request(served.address, "POST", &in_query, &[], b"{}"),
        ];
        for answer in &refused {
            assert_eq!(
                (answer.status, answer.text()),
                (401, refused[0].text()),
                "missing and wrong look alike"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"events\""));
        }
        let elsewhere = post(&served, &[("X-Api-Key", &public), ("Origin", "https://other.example")]);
        assert_eq!((elsewhere.status, elsewhere.json()["error"].as_str()), (403, Some("origin_not_allowed")));
        assert_eq!(topic.count(), 4, "nothing of what was refused is in Kafka");
    }
}

#[test]
fn metrics_need_a_key_unless_they_are_elsewhere() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let key = file.add("ops", "secret", "until=2099-12-31");
        let public = file.add("pages", "public", "origins=https://shop.example");
        let served = file.serve(&topic, server, &[]);
        let get = |path: &str, headers: &[(&str, &str)]| request(served.address, "GET", path, headers, b"");
        assert_eq!(get("/metrics", &[]).status, 401);
        assert_eq!(get("/metrics", &[("X-Api-Key", &public)]).status, 401);
        assert_eq!(post(&served, &[("X-Api-Key", &key)]).status, 200);
        let text = get("/metrics", &[("X-Api-Key", &key)]).text();
        assert!(text.contains("pipeline_client_events_total{client=\"ops\"} 1\n"), "{text}");
        let id = key.split('_').nth(1).expect("an id");
        let used = format!("pipeline_key_last_used_timestamp_seconds{{client=\"ops\",key=\"{id}\"}} 1");
        assert!(text.contains(&used), "{text}");
        let expiry = "pipeline_key_expiry_timestamp_seconds{client=\"";
        assert!(text.contains(&format!("{expiry}ops\",key=\"{id}\"}} 4102444800\n")), "{text}");
        assert_eq!(text.matches(expiry).count(), 1, "the other key has no end: {text}");
        assert_eq!((get("/livez", &[]).status, get("/readyz", &[]).status), (200, 200));

        let mut program = Program::producer()
            .env("HTTP_SERVER", server)
            .env("AUTH_KEYS_FILE", file.path())
            .env("ADMIN_ADDR", "127.0.0.1:0")
            .env("KAFKA_BROKERS", topic.brokers())
            .env("KAFKA_TOPIC", &topic.name)
            .start();
        let address = program.address();
        let pages = program.stderr_after("pages for operators at ");
        let pages = pages.lines().next().and_then(|line| line.trim().parse().ok()).expect("an address");
        let status = |path: &str| http::get(pages, path).map_or(0, |page| page.status);
        eventually(secs(60), "it is ready", || status("/readyz") == 200);
        assert_eq!(http::get(pages, "/register_event").expect("an answer").status, 404);
        for path in ["/metrics", "/livez", "/readyz", "/version"] {
            assert_eq!(status(path), 200, "{path}");
            assert_eq!(http::get(address, path).expect("an answer").status, 404, "{path}");
        }
    }
}

/// How often the file changes, twice each; `KEY_FILE_ROUNDS` sets it, and a release takes 50.
fn rounds() -> usize {
    std::env::var("KEY_FILE_ROUNDS").map_or(5, |text| text.parse().expect("KEY_FILE_ROUNDS is a number"))
}

#[test]
fn a_file_that_changes_under_load_refuses_no_valid_key_and_takes_no_removed_one() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let stays = file.add("shop", "secret", "");
        let mut served = file.serve(&topic, server, &[]);
        let (bearer, address) = (format!("Bearer {stays}"), served.address);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let load: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = Client::connect(address).expect("connects");
                        let mut posted = 0;
                        while !done.load(Ordering::Relaxed) {
                            let headers = [("Authorization", bearer.as_str())];
                            let answer =
                                client.request("POST", "/register_event", &headers, b"{}").expect("answer");
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            posted += 1;
                        }
                        posted
                    })
                })
                .collect();
            for _ in 0..rounds() {
                let goes = file.add("guest", "secret", "");
                let headers = [("X-Api-Key", goes.as_str())];
                let status = || request(address, "POST", "/register_event", &headers, b"{}").status;
                eventually(secs(30), "the new key is in force", || status() == 200);
                file.lines.pop();
                // A bad file changes nothing.
                file.lines.push("shop secret".into());
                file.write();
                served.program.stderr_after("the keys from before stay in force");
                assert_eq!(status(), 200);
                file.lines.pop();
                file.write();
                eventually(secs(30), "the removed key is refused", || status() == 401);
            }
            done.store(true, Ordering::Relaxed);
            let posted: usize = load.into_iter().map(|load| load.join().expect("no panic")).sum();
            assert!(posted > 100, "{posted}");
        });
        let said = served.program.stderr();
        assert!(said.contains("keys: line 2: expected client, kind"), "{said}");
    }
}

#[test]
fn a_bad_file_is_named_before_anything_starts() {
    let mut file = KeyFile::new();
    file.add("shop", "secret", "burst=5");
    for (path, words) in [(file.path(), "burst= needs events/s="), (file.path().join("gone"), "gone")] {
        let ended = Program::producer().env("AUTH_KEYS_FILE", &path).run(secs(60));
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains("AUTH_KEYS_FILE=") && ended.stderr.contains(words), "{}", ended.stderr);
    }
}

/// Everything that the programs write is searched for everything that must stay secret.
#[test]
fn no_secret_is_written_anywhere() {
    let topic = shared().topic();
    let mut file = KeyFile::new();
    let key = file.add("shop", "secret", "");
    let signing = "a signing secret of a webhook";
    fs::write(file.path().with_file_name("signing"), signing).expect("written");
    let hook = file.add("hook", "webhook", "secret-file=signing");
    for server in SERVERS {
        let mut served = file.serve(&topic, server, &[("LOG_LEVEL", "debug")]);
        let mut seen = Vec::new();
        let bearer = format!("Bearer {key}");
        for headers in
            [[("Authorization", bearer.as_str())], [("X-Api-Key", &hook)], [("X-Api-Key", &hook[1..])]]
        {
            seen.push(post(&served, &headers).text());
        }
        let target = format!("/register_event?key={hook}");
        for (method, body) in [("POST", &b"{"[..]), ("PUT", b""), ("POST", b"{}")] {
            seen.push(request(served.address, method, &target, &[], body).text());
        }
        seen.push(request(served.address, "GET", "/metrics", &[("X-Api-Key", &key)], b"").text());
        file.lines.push(format!("shop secret {key} {key}"));
        file.write();
        served.program.stderr_after("the keys from before stay in force");
        file.lines.pop();
        file.write();
        served.program.terminate(secs(30));
        seen.push(served.program.stderr());
        seen.push(served.program.stdout());
        let path = file.path();
        let shown = Program::producer().env("AUTH_KEYS_FILE", &path).args(&["--print-config"]).run(secs(60));
        let simulate = Program::simulate().env("SIMULATE_KEY", &key).args(&["--print-config"]).run(secs(60));
        seen.extend([shown.stdout, shown.stderr, simulate.stdout, simulate.stderr]);
        for secret in [&key, &hook, signing, &key["ep_12345678_".len()..]] {
            for text in &seen {
                assert!(!text.contains(secret), "{server}: {text}");
            }
        }
    }
}
