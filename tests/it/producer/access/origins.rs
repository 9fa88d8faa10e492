//! Pages of other origins, as browsers ask for them.

use crate::producer::access::SERVERS;
use crate::producer::serve;
use crate::support::http::Response;
use crate::support::kafka::shared;

const ORIGIN: &str = "https://shop.example";

fn assert_readable(answer: &Response) {
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert!(
        answer.header("access-control-expose-headers").is_some_and(|names| names.contains("retry-after"))
    );
}

#[test]
fn a_page_of_an_allowed_origin_may_ask_post_and_read() {
    for server in SERVERS {
        let topic = shared().topic();
        let origins = format!("https://other.example,{ORIGIN}");
        let served = serve(&topic, &[("HTTP_SERVER", server), ("CORS_ALLOW_ORIGINS", &origins)]);
        let mut client = served.client();
        let asking = [("Origin", ORIGIN), ("Access-Control-Request-Method", "POST")];
        let asked = client.request("OPTIONS", "/register_event", &asking, b"").expect("an answer");
        assert_eq!((asked.status, asked.header("content-length")), (204, None), "{server}");
        assert_readable(&asked);
        assert_eq!(asked.header("access-control-max-age"), Some("7200"));
        assert_eq!(asked.header("access-control-allow-methods"), Some("POST"));
        assert!(
            asked.header("access-control-allow-headers").is_some_and(|names| names.contains("x-api-key"))
        );
        for (body, status) in [("{}", 200), ("{", 400), (&" ".repeat(3000), 400)] {
            let answer = client.request("POST", "/register_event", &[("Origin", ORIGIN)], body.as_bytes());
            let answer = answer.expect("the connection is still good");
            assert_eq!(answer.status, status, "{server}");
            assert_readable(&answer);
        }
        let asking = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")];
        let asked = client.request("OPTIONS", "/register_event", &asking, b"").expect("an answer");
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (403, None));
        for headers in [&[][..], &[("Origin", "https://evil.example")]] {
            let answer = client.request("POST", "/register_event", headers, b"{}").expect("an answer");
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        }
    }
}

#[test]
fn without_origins_nothing_is_said_about_them() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server)]);
        let mut client = served.client();
        let origin = [("Origin", ORIGIN)];
        let answer = client.request("POST", "/register_event", &origin, b"{}").expect("an answer");
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin"), answer.header("vary")),
            (200, None, None)
        );
        assert_eq!(
            client.request("OPTIONS", "/register_event", &origin, b"").expect("an answer").status,
            405
        );
    }
}
