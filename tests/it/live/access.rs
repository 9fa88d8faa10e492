//! Who may see the page, over real sockets: names, origins and the token.

use crate::live::serve;
use crate::support::http::Client;

/// What a browser sends to open a WebSocket.
const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const TOKEN: &str = "a-token_of-24-characters";

#[test]
fn another_name_and_another_origin_are_refused() {
    let live = serve(&[("LIVE_HOSTS", "live.example")]);
    let (port, host) = (live.address.port(), live.host());
    let ours = [host.clone(), format!("127.0.0.1:{port}"), "live.example".into(), "LIVE.example:8443".into()];
    let foreign = ["evil.example", "localhost.evil.example", "10.0.0.1", ""];
    for name in ours.iter().map(String::as_str) {
        assert_eq!(live.ask("/", &[("Host", name)]).status, 200, "{name}");
        let origin = format!("https://{name}");
        let socket = [&UPGRADE[..], &[("Host", name), ("Origin", &*origin)]].concat();
        assert_eq!(live.ask("/ws", &socket).status, 101, "{name}");
    }
    for name in foreign {
        for path in ["/", "/ws", "/livez", "/nothing"] {
            assert_eq!(live.ask(path, &[("Host", name)]).status, 403, "{name} {path}");
        }
    }
    assert_eq!(live.ask("/", &[("Host", &*host), ("Host", &*host)]).status, 400, "two names");
    let same = format!("http://{host}");
    for origin in ["http://evil.example", "null", "", "http://localhost", "http://localhost:1"] {
        let socket = [&UPGRADE[..], &[("Origin", origin)]].concat();
        assert_eq!(live.ask("/ws", &socket).status, 403, "{origin}");
    }
    assert_eq!(live.ask("/ws", &UPGRADE).status, 403, "no origin");
    let twice = [&UPGRADE[..], &[("Origin", &*same), ("Origin", "http://evil.example")]].concat();
    assert_eq!(live.ask("/ws", &twice).status, 403, "two origins");
    assert_eq!(live.ask("/ws", &[("Origin", &*same)]).status, 426, "no WebSocket");
}

#[test]
fn with_a_token_nothing_is_shown_without_it() {
    let live = serve(&[("LIVE_TOKEN", TOKEN)]);
    let origin = format!("http://{}", live.host());
    let socket = |cookie: &str| {
        let headers = [&UPGRADE[..], &[("Origin", &*origin), ("Cookie", cookie)]].concat();
        live.ask("/ws", &headers).status
    };
    let form = live.ask("/", &[]);
    assert!(form.status == 401 && form.text().contains("name=\"token\""), "{form:?}");
    assert_eq!((live.ask("/ws", &UPGRADE).status, live.ask("/nothing", &[]).status), (401, 401));
    assert_eq!(live.ask("/?token=wrong-token-of-24-chars.", &[]).status, 401);
    let entered = live.ask(&format!("/?token={TOKEN}"), &[]);
    let cookie = entered.header("set-cookie").expect("a cookie").to_owned();
    assert!(entered.status == 200 && entered.text().contains("url=/"), "{entered:?}");
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let pair = cookie.split(';').next().expect("the pair");
    let page = live.ask("/", &[("Cookie", pair)]);
    assert!(page.status == 200 && page.text().contains("id=\"event-list\""), "{page:?}");
    assert_eq!((socket(pair), socket("live_token=wrong"), socket("")), (101, 401, 401));
    let by_program = [&UPGRADE[..], &[("Cookie", pair)]].concat();
    assert_eq!(live.ask("/ws", &by_program).status, 101, "a program with the token has no origin");
    let evil = [&UPGRADE[..], &[("Cookie", pair), ("Origin", "http://evil.example")]].concat();
    assert_eq!(live.ask("/ws", &evil).status, 403);
    assert!(!live.program.stderr().contains(TOKEN));
}

#[test]
fn the_page_allows_nothing_but_itself() {
    let live = serve(&[]);
    let page = live.ask("/", &[]);
    let header = |name: &str| page.header(name).unwrap_or_else(|| panic!("no {name}: {page:?}")).to_owned();
    let policy = header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'nonce-", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_ne!(
        live.ask("/", &[]).header("content-security-policy"),
        Some(&*policy),
        "a nonce for each answer"
    );
    assert_eq!(
        (header("x-content-type-options"), header("referrer-policy")),
        ("nosniff".into(), "no-referrer".into())
    );
    assert_eq!(header("cache-control"), "no-store");
}

#[test]
fn what_is_not_a_request_for_a_page_is_answered_or_ended() {
    let live = serve(&[]);
    let raw = |bytes: &[u8]| {
        let mut client = Client::connect(live.address).expect("connects");
        let _ = client.send_raw(bytes);
        client.read_response().map_or(0, |response| response.status)
    };
    let host = live.host();
    let request = |method: &str| format!("{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    for method in ["POST", "HEAD", "PUT", "OPTIONS"] {
        assert_eq!(raw(request(method).as_bytes()), 405, "{method}");
    }
    assert_eq!(raw(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()), 505);
    assert_eq!(raw(b"nonsense\r\n\r\n"), 400);
    assert_eq!(
        raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "x".repeat(9000)).as_bytes()),
        431
    );
    assert_eq!(live.ask("/nothing", &[]).status, 404);
    assert_eq!(live.ask("/livez", &[]).status, 200);
    // One that says nothing delays no other one, and is ended.
    let mut silent = Client::connect(live.address).expect("connects");
    assert_eq!(live.ask("/", &[]).status, 200);
    assert!(silent.read_to_end().is_ok_and(|rest| rest.is_empty()), "ended without an answer");
}
