//! The page: HTML, style and script of this directory in one answer, under a policy that allows nothing else.

use std::sync::LazyLock;

use crate::hex;
use crate::live::exchange::Reply;

/// The whole page, but for the nonce of each answer.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("page/index.html")
        .replace("/*style*/", include_str!("page/page.css"))
        .replace("/*chart.js*/", include_str!("page/chart.js"))
        .replace("/*words.js*/", include_str!("page/words.js"))
        .replace("/*page.js*/", include_str!("page/page.js"))
});

/// Placeholder of the nonce.
const NONCE: &str = "{{nonce}}";

/// The page as it is served at `host`, which the rules have accepted.
pub fn page(host: &str) -> Reply {
    let Some(nonce) = nonce() else { return without_random_bytes() };
    // `self` covers the WebSocket in current browsers; older ones need it by name.
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    html("200 OK", PAGE.replace(NONCE, &nonce), policy)
}

/// Asks for the token.
pub fn sign_in() -> Reply {
    let Some(nonce) = nonce() else { return without_random_bytes() };
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    html("401 Unauthorized", include_str!("page/token.html").replace(NONCE, &nonce), policy)
}

/// Goes on to the page. Not a redirect: after a link from another site, the browser would not send the new cookie.
pub fn signed_in(cookie: String) -> Reply {
    let body = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=\"0;url=/\"><title>event-pipeline</title>";
    html("200 OK", body.into(), "default-src 'none'; frame-ancestors 'none'".into())
        .with("Set-Cookie", cookie)
}

fn html(status: &'static str, body: String, policy: String) -> Reply {
    let headers = vec![
        ("Content-Security-Policy", policy),
        ("Cross-Origin-Opener-Policy", "same-origin".into()),
        ("X-Frame-Options", "DENY".into()),
    ];
    Reply { status, content_type: "text/html; charset=utf-8", headers, body }
}

/// A new random value for each answer.
fn nonce() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex::encode(&bytes))
}

fn without_random_bytes() -> Reply {
    Reply::text(
        "500 Internal Server Error",
        "the system has no random bytes, without which the page is not safe",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_no_other_server() {
        let page = page("localhost:5002");
        for left in ["/*style*/", ".js*/", NONCE] {
            assert!(!page.body.contains(left), "{left}");
        }
        for foreign in
            ["src=\"http", "href=\"http", "@import", "url(http", "innerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!page.body.contains(foreign), "{foreign}");
        }
        let policy = &page.headers[0].1;
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
        assert!(nonce.len() == 32 && page.body.contains(&format!("<script nonce=\"{nonce}\">")));
        assert!(policy.contains("connect-src 'self' ws://localhost:5002 "), "{policy}");
        assert_ne!(self::page("localhost:5002").headers[0].1, *policy, "a nonce is used once");
    }
}
