//! A page in Chromium that posts to a producer of another origin in every way that browsers have.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::producer::access::{KeyFile, SERVERS};
use crate::support::kafka::shared;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Posts in five ways and reports what it could read of the answers. A beacon's answer cannot be read.
const PAGE: &str = r#"<!doctype html><script>
const url = "http://PRODUCER/register_event", key = "KEY";
const event = way => JSON.stringify({way});
const json = {"Content-Type": "application/json", "X-Api-Key": key, "X-Request-Id": "page-1"};
const post = async (way, more) => {
  const answer = await fetch(url, {method: "POST", headers: json, body: event(way), ...more});
  const body = await answer.json();
  return `${way} ${answer.status} ${body.topic ? "receipt" : body.error} ${answer.headers.get("X-Request-Id")}`;
};
const xhr = () => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  request.open("POST", url);
  request.setRequestHeader("Content-Type", "application/json");
  request.setRequestHeader("Authorization", "Bearer " + key);
  request.onload = () => resolve(`xhr ${request.status} ${JSON.parse(request.responseText).topic ? "receipt" : ""}`);
  request.onerror = () => reject("xhr failed");
  request.send(event("xhr"));
});
(async () => {
  const said = [];
  for (const attempt of [() => post("fetch", {}), () => post("keepalive", {keepalive: true}), xhr,
      () => post("wrong", {headers: {...json, "X-Api-Key": "wrong"}})]) {
    try { said.push(await attempt()); } catch (error) { said.push(String(error)); }
  }
  const beacons = [navigator.sendBeacon(url + "?key=" + key, event("beacon of a string")),
    navigator.sendBeacon(url + "?key=" + key, new Blob([event("beacon of a blob")], {type: "application/json"}))];
  said.push("beacons " + beacons);
  await fetch("/said", {method: "POST", body: said.join("\n")});
})();
</script>"#;

/// Chromium with a profile of its own; killed when dropped.
struct Browser(Child, #[allow(dead_code, reason = "lives as long")] tempfile::TempDir);

impl Browser {
    fn open(address: SocketAddr) -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let mut chromium = Command::new("chromium");
        chromium.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        chromium
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{address}/"));
        chromium.env("HOME", profile.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(chromium.spawn().expect("chromium starts; scripts/test.sh installs it"), profile)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves `page` until the page posts what it has to say.
fn what_a_page_says(listener: &TcpListener, page: &str) -> String {
    listener.set_nonblocking(true).expect("set");
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < secs(180), "the page says nothing");
        let Ok((mut client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        client.set_nonblocking(false).expect("set");
        client.set_read_timeout(Some(secs(10))).expect("set");
        let mut request = Vec::new();
        let mut block = [0; 4096];
        let whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.to_ascii_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().and_then(|length| length.parse().ok()).expect("a length")
            });
            (body.len() >= length).then(|| (head.to_owned(), body.to_owned()))
        };
        let found = loop {
            if let Some(found) = whole(&request) {
                break Some(found);
            }
            match client.read(&mut block) {
                Ok(0) | Err(_) => break None,
                Ok(count) => request.extend_from_slice(&block[..count]),
            }
        };
        let Some((head, body)) = found else { continue };
        let content = if head.starts_with("GET / ") { page } else { "" };
        let length = content.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
        );
        let _ = client.write_all(answer.as_bytes());
        if head.starts_with("POST /said ") {
            return body;
        }
    }
}

fn ways(topic: &Topic) -> BTreeSet<String> {
    let way = |text: &str| text.split('"').nth(3).expect("the way").to_owned();
    topic.records().iter().map(|record| way(record.text())).collect()
}

#[test]
fn a_page_of_another_origin_posts_and_reads_in_every_way_that_there_is() {
    for server in SERVERS {
        let topic = shared().topic();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let origin = format!("http://{address}");
        let mut file = KeyFile::new();
        let key = file.add("pages", "public", &format!("origins={origin}"));
        let served = file.serve(&topic, server, &[("CORS_ALLOW_ORIGINS", &origin)]);
        let page = PAGE.replace("PRODUCER", &served.address.to_string()).replace("KEY", &key);
        let _browser = Browser::open(address);
        let said = what_a_page_says(&listener, &page);
        let expected = [
            "fetch 200 receipt page-1",
            "keepalive 200 receipt page-1",
            "xhr 200 receipt",
            "wrong 401 unauthorized page-1",
            "beacons true,true",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{server}");
        let all = ["fetch", "keepalive", "xhr", "beacon of a string", "beacon of a blob"];
        let all: BTreeSet<String> = all.into_iter().map(str::to_owned).collect();
        eventually(secs(60), "every event is in the topic", || ways(&topic) == all);
    }
}
