//! Decides who may see the page. Pure.
//!
//! A page of another site can make a browser ask us: with a name of its own that points to our address (DNS rebinding),
//! or through a WebSocket, which browsers open to every origin. So the name must be one of ours, and the origin of a
//! WebSocket the same as the page's.

use subtle::ConstantTimeEq;

/// Cookie with the token.
const COOKIE: &str = "live_token";

/// Names under which the page may be asked for, and the token.
#[derive(Debug)]
pub struct Rules {
    names: Vec<String>,
    token: Option<Token>,
}

/// Must not be printed.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No `Host`, or several.
    HostMissing,
    /// A name that is not ours.
    Host,
    /// A page of another site, or nothing that says which page it is.
    Origin,
    /// No token, or a wrong one.
    Token,
}

impl Rules {
    /// Rules for pages with one of `names`, such as `localhost` or `[::1]`, for those who have `token` if there is one.
    pub fn new(names: impl IntoIterator<Item = String>, token: Option<String>) -> Self {
        Self {
            names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            token: token.map(Token),
        }
    }

    /// Checks the values of `Host`, and returns the only one. Its port does not matter: what another site cannot have is
    /// the name.
    ///
    /// # Errors
    /// [`Refused::HostMissing`] or [`Refused::Host`].
    pub fn host<'h>(&self, values: &[&'h str]) -> Result<&'h str, Refused> {
        let [host] = values else { return Err(Refused::HostMissing) };
        let is_ours =
            name_of(host).is_some_and(|name| self.names.iter().any(|known| known.eq_ignore_ascii_case(name)));
        if is_ours { Ok(host) } else { Err(Refused::Host) }
    }

    /// Checks the token in the values of `Cookie`.
    ///
    /// # Errors
    /// [`Refused::Token`].
    pub fn cookie(&self, values: &[&str]) -> Result<(), Refused> {
        let cookies = values.iter().flat_map(|value| value.split(';')).map(str::trim);
        let mut shown = cookies.filter_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('='));
        if self.token.is_none() || shown.any(|shown| self.is_token(shown)) {
            Ok(())
        } else {
            Err(Refused::Token)
        }
    }

    /// The header `Set-Cookie` for a request whose query has the token.
    pub fn set_cookie(&self, query: Option<&str>) -> Option<String> {
        let shown = query?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        self.is_token(shown)
            .then(|| format!("{COOKIE}={shown}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000"))
    }

    /// Checks the values of `Origin` of a WebSocket that was asked for at `host`. A program that is not a browser sends
    /// none; it may watch if it has shown a token.
    ///
    /// # Errors
    /// [`Refused::Origin`].
    pub fn origin(&self, host: &str, values: &[&str]) -> Result<(), Refused> {
        let is_same = match values {
            [] => self.token.is_some(),
            [origin] => ["http://", "https://"].iter().any(|scheme| {
                origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
            }),
            _ => false,
        };
        if is_same { Ok(()) } else { Err(Refused::Origin) }
    }

    /// Compares in constant time, so that an answer's time says nothing about the token except its length.
    fn is_token(&self, shown: &str) -> bool {
        self.token.as_ref().is_some_and(|token| token.0.as_bytes().ct_eq(shown.as_bytes()).into())
    }
}

/// The host without its port. `None` if it cannot be one; what is allowed here is later part of a header.
fn name_of(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    let is_port = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(token: Option<&str>) -> Rules {
        let names = ["localhost", "127.0.0.1", "[::1]", "Live.example"];
        Rules::new(names.map(str::to_owned), token.map(str::to_owned))
    }

    #[test]
    fn only_our_names_are_served_whatever_the_port() {
        let rules = rules(None);
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:5002", "[::1]:5002", "[::1]", "live.example"] {
            assert_eq!(rules.host(&[host]), Ok(host));
        }
        for host in [
            "",
            "evil.example",
            "evil.example:5002",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "localhost:",
            "localhost:50x",
            "localhost:1; script-src *",
            "[::1",
            "[::1]x",
            "::1",
            "127.0.0.2",
        ] {
            assert_eq!(rules.host(&[host]), Err(Refused::Host), "{host}");
        }
        assert_eq!(rules.host(&[]), Err(Refused::HostMissing));
        assert_eq!(rules.host(&["localhost", "localhost"]), Err(Refused::HostMissing));
    }

    #[test]
    fn a_socket_is_opened_by_our_own_page_only() {
        let (open, closed) = (rules(None), rules(Some("0123456789abcdef")));
        for (host, origin) in [
            ("localhost:5002", "http://localhost:5002"),
            ("live.example", "https://LIVE.example"),
            ("[::1]:5002", "http://[::1]:5002"),
        ] {
            assert_eq!(open.origin(host, &[origin]), Ok(()), "{origin}");
        }
        for origin in [
            "http://evil.example",
            "http://localhost:8080",
            "http://localhost",
            "http://localhost:5002.evil.example",
            "http://127.0.0.1:5002",
            "ftp://localhost:5002",
            "localhost:5002",
            "null",
            "",
        ] {
            assert_eq!(open.origin("localhost:5002", &[origin]), Err(Refused::Origin), "{origin}");
            assert_eq!(closed.origin("localhost:5002", &[origin]), Err(Refused::Origin), "{origin}");
        }
        let twice = ["http://localhost:5002", "http://localhost:5002"];
        assert_eq!(open.origin("localhost:5002", &twice), Err(Refused::Origin));
        assert_eq!(open.origin("localhost:5002", &[]), Err(Refused::Origin), "any program of this machine");
        assert_eq!(closed.origin("localhost:5002", &[]), Ok(()), "it has shown the token");
    }

    #[test]
    fn the_token_is_in_a_cookie() {
        let token = "0123456789abcdef";
        let closed = rules(Some(token));
        let cookie = format!("a=b; live_token={token}; c=d");
        assert_eq!(closed.cookie(&[&cookie]), Ok(()));
        assert_eq!(closed.cookie(&["a=b", &cookie]), Ok(()));
        for wrong in
            ["", "live_token", "live_token=", "live_token=0123456789abcdeX", "xlive_token=0123456789abcdef"]
        {
            assert_eq!(closed.cookie(&[wrong]), Err(Refused::Token), "{wrong}");
        }
        assert_eq!(closed.cookie(&[]), Err(Refused::Token));
        assert_eq!(rules(None).cookie(&[]), Ok(()));
        assert!(!format!("{closed:?}").contains(token));
    }

    #[test]
    fn a_query_with_the_token_sets_a_cookie_that_other_sites_cannot_use() {
        let closed = rules(Some("0123456789abcdef"));
        let set = closed.set_cookie(Some("x=y&token=0123456789abcdef")).expect("the token");
        assert!(set.starts_with("live_token=0123456789abcdef;"), "{set}");
        assert!(set.contains("SameSite=Strict") && set.contains("HttpOnly"), "{set}");
        for wrong in
            [None, Some(""), Some("token="), Some("token=0123456789abcdeX"), Some("xtoken=0123456789abcdef")]
        {
            assert_eq!(closed.set_cookie(wrong), None, "{wrong:?}");
        }
        assert_eq!(rules(None).set_cookie(Some("token=0123456789abcdef")), None, "no token is set");
    }
}
