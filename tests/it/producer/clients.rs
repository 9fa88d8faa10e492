//! Clients of other languages with their default settings, through the HTTP server of our own and a proxy before it.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::producer::haproxy::HaProxy;
use crate::producer::serve;
use crate::support::kafka::shared;

/// Runs a client with `arguments` and the URL, in a directory of its own with `source` as the file `name`.
fn run(program: &str, arguments: &[&str], (name, source): (&str, &str), address: SocketAddr) -> String {
    let dir = tempfile::tempdir().expect("temporary directory");
    if !name.is_empty() {
        fs::write(dir.path().join(name), source).expect("written");
    }
    let mut command = Command::new(program);
    command.args(arguments).arg(format!("http://{address}/register_event"));
    // Some of them want a directory for their caches.
    command.current_dir(dir.path()).env("HOME", dir.path()).env("GOCACHE", dir.path().join("cache"));
    command.env("GO111MODULE", "off").env("GOFLAGS", "").stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}; install it"));
    // Most of them do not read it.
    let _ = child.stdin.take().expect("piped").write_all(b"{\"by\": \"stdin\"}");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a client that prints one status per request, directly and through HAProxy, and expects its events in the topic.
fn check(program: &str, arguments: &[&str], source: (&str, &str), events: usize) {
    let topic = shared().topic();
    let served = serve(&topic, &[("HTTP_SERVER", "edge")]);
    let proxy = HaProxy::before(served.address);
    for (way, address) in [("directly", served.address), ("through HAProxy", proxy.address)] {
        let before = topic.count();
        let said = run(program, arguments, source, address);
        let statuses: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(statuses, vec!["200"; events], "{program} {arguments:?} {way}");
        assert_eq!(topic.count() - before, events, "{program} {arguments:?} {way}");
    }
}

#[test]
fn curl() {
    let print = ["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}\n"];
    let large = format!("@{}", "large");
    let body = format!("{{\"large\": \"{}\"}}", "x".repeat(100_000));
    for (more, source) in [
        (&["--data", "{}"][..], ("", "")),
        (&["--http2", "--data", "{}"], ("", "")),
        (&["--http1.0", "--data", "{}"], ("", "")),
        (&["--data-binary", &large, "--header", "Expect: 100-continue"], ("large", &body[..])),
        (&["--header", "Transfer-Encoding: chunked", "--data", "{}"], ("", "")),
        (&["--upload-file", "-", "--request", "POST"], ("", "")),
        (&["--header", "cf-ipcity: S\u{e3}o Paulo", "--data", "{}"], ("", "")),
    ] {
        check("curl", &[&print[..], more].concat(), source, 1);
    }
}

#[test]
fn python() {
    let source = r#"
import sys, http.client, urllib.request, urllib.parse
url = urllib.parse.urlparse(sys.argv[1])
connection = http.client.HTTPConnection(url.netloc)
for body in [b"{}", iter([b'{"a":', b"1}"]), b'{"large": "' + b"x" * 100000 + b'"}']:
    connection.request("POST", url.path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    print(answer.status)
print(urllib.request.urlopen(sys.argv[1], b"{}").status)
"#;
    check("python3", &["client.py"], ("client.py", source), 4);
}

#[test]
fn node() {
    let source = r#"
const http = require("http"), { Readable } = require("stream"), url = process.argv[2];
const post = (write) => new Promise((done, fail) => {
  const request = http.request(url, { method: "POST", headers: { "Content-Type": "application/json" } },
    (answer) => { console.log(answer.statusCode); answer.resume(); answer.on("end", done); });
  request.on("error", fail);
  write(request);
});
(async () => {
  await post((request) => request.end("{}"));
  await post((request) => Readable.from(['{"a":', "1}"]).pipe(request));
  const answer = await fetch(url, { method: "POST", body: JSON.stringify({ a: 1 }) });
  console.log(answer.status);
  const stream = new Blob(["{}"]).stream();
  console.log((await fetch(url, { method: "POST", body: stream, duplex: "half" })).status);
})().catch((error) => { console.error(error); process.exit(1); });
"#;
    check("node", &["client.js"], ("client.js", source), 4);
}

#[test]
fn go() {
    let source = r#"package main

import ("fmt"; "io"; "net/http"; "os"; "strings")

func post(body io.Reader) {
	answer, err := http.Post(os.Args[1], "application/json", body)
	if err != nil { panic(err) }
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	fmt.Println(answer.StatusCode)
}

func main() {
	post(strings.NewReader("{}"))
	reader, writer := io.Pipe()
	go func() { io.WriteString(writer, "{\"a\":"); io.WriteString(writer, "1}"); writer.Close() }()
	post(reader)
	os.WriteFile("event", []byte("{}"), 0o600)
	file, err := os.Open("event")
	if err != nil { panic(err) }
	post(file)
}
"#;
    check("go", &["run", "client.go"], ("client.go", source), 3);
}

#[test]
fn java() {
    let source = r#"
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.*;

class Client {
    static void post(HttpClient client, String url, HttpRequest.BodyPublisher body) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url)).header("Content-Type", "application/json").POST(body).build();
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
    }

    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int n = 0; n < 2; n++) post(client, arguments[0], HttpRequest.BodyPublishers.ofString("{}"));
        post(client, arguments[0], HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream("{}".getBytes())));
    }
}
"#;
    check("java", &["Client.java"], ("Client.java", source), 3);
}
