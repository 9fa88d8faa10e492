//! Finds the key that a request shows: in `Authorization`, in `X-Api-Key`, or in the query.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest key that is looked at, in bytes; all of ours are shorter.
const MAX_KEY_BYTES: usize = 128;

/// A key as a request shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential<'h> {
    /// The key.
    pub key: Cow<'h, str>,
    /// It is in the target, which proxies and browsers write to their logs.
    pub is_in_query: bool,
}

/// The key of a request: the first of `Authorization: Bearer`, the user of `Authorization: Basic`, `X-Api-Key`, and
/// `key` in the query of `target`. `header` returns the value of a header.
pub fn credential<'h>(target: &'h str, header: impl Fn(&str) -> Option<&'h str>) -> Option<Credential<'h>> {
    let in_header = |key: Cow<'h, str>| Credential { key, is_in_query: false };
    let found = match (header("Authorization"), header("X-Api-Key")) {
        (Some(value), _) => in_header(of_authorization(value)?),
        (None, Some(value)) => in_header(value.trim().into()),
        (None, None) => Credential { key: in_query(target)?.into(), is_in_query: true },
    };
    (found.key.len() <= MAX_KEY_BYTES).then_some(found)
}

fn of_authorization(value: &str) -> Option<Cow<'_, str>> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim_start();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.into());
    }
    if !scheme.eq_ignore_ascii_case("basic") || rest.len() > 2 * MAX_KEY_BYTES {
        return None;
    }
    let mut user = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    user.truncate(user.find(':')?);
    Some(user.into())
}

fn in_query(target: &str) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    // Our keys have no character that would be escaped.
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &'static str, headers: &'static [(&str, &str)]) -> Option<(String, bool)> {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        credential(target, header).map(|found| (found.key.into_owned(), found.is_in_query))
    }

    #[test]
    fn the_key_is_found_wherever_clients_put_it() {
        for headers in [
            &[("Authorization", "Bearer k1")],
            &[("Authorization", "bearer   k1 ")],
            &[("Authorization", "Basic azE6")],
            &[("Authorization", "basic azE6cGFzcw==")],
            &[("X-Api-Key", " k1")],
        ] {
            assert_eq!(of("/register_event?key=k2", headers), Some(("k1".into(), false)), "{headers:?}");
        }
        assert_eq!(of("/register_event?a=b&key=k2", &[]), Some(("k2".into(), true)));
    }

    #[test]
    fn what_is_not_a_key_is_none() {
        for headers in [
            &[("Authorization", "Bearer")],
            &[("Authorization", "Digest k1")],
            &[("Authorization", "Basic azE")],
            &[("Authorization", "Basic azE=")],
        ] {
            assert_eq!(of("/register_event?key=k2", headers), None, "{headers:?}");
        }
        assert_eq!(of("/register_event", &[]), None);
        assert_eq!(of("/register_event?keys=k2", &[]), None);
        let long = format!("Bearer {}", "k".repeat(200));
        assert_eq!(credential("/", |name| (name == "Authorization").then_some(long.as_str())), None);
    }
}
