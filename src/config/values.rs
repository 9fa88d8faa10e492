//! Parses and checks single values: numbers, addresses, lists of brokers, and paths.
//!
//! Each error says what was expected and, if that can be guessed, what to write instead.

use std::fmt::Display;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path};
use std::str::FromStr;

use crate::event::TIMESTAMP;

/// Returns a parser for whole numbers within `range`.
pub fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| match text.trim().parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            Err(format!("expected a whole number from {} to {}, without a unit", range.start(), range.end()))
        }
    }
}

/// Rejects an empty name and one with white space around it, since no event would have that field.
pub fn field_name(value: &str) -> Result<String, String> {
    if value.is_empty() || value.trim() != value {
        return Err("expected the name of a field without white space around it, for example user_id".into());
    }
    Ok(value.to_owned())
}

/// A field name, or nothing: a compose file can only pass an empty variable where none is set.
pub fn added_field(value: &str) -> Result<String, String> {
    match value {
        "" => Ok(String::new()),
        TIMESTAMP => {
            Err("`timestamp` is the time of the event; name another field, for example event_id".into())
        }
        name => field_name(name),
    }
}

/// The name of an [`added_field`], unless it is empty.
pub fn non_empty(field: Option<&String>) -> Option<&str> {
    field.map(String::as_str).filter(|name| !name.is_empty())
}

/// Parses `host:port,host:port`. White space around addresses, a trailing comma and repeated addresses are
/// ignored.
pub fn brokers(list: &str) -> Result<Vec<String>, String> {
    let list = list.trim();
    let mut found: Vec<String> = Vec::new();
    for address in list.strip_suffix(',').unwrap_or(list).split(',') {
        let address = broker(address.trim())?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

fn broker(address: &str) -> Result<String, String> {
    const EXAMPLE: &str = "for example kafka-1:9092,kafka-2:9092";
    if address.is_empty() {
        return Err(format!("an address is missing; write host:port, {EXAMPLE}"));
    }
    if address.contains(|c: char| c == ';' || c.is_whitespace()) {
        return Err(format!("`{address}` is not one address; separate addresses with commas, {EXAMPLE}"));
    }
    if let Some((scheme, rest)) = address.split_once("://") {
        return Err(format!(
            "`{address}` begins with a protocol; write {} without `{scheme}://` (the protocol is set by \
             KAFKA_SECURITY_PROTOCOL)",
            rest.trim_end_matches('/')
        ));
    }
    match host_and_port(address)? {
        (_, Some(_)) => Ok(address.to_owned()),
        (host, None) => Err(format!("`{address}` has no port; write host:port, for example {host}:9092")),
    }
}

/// Splits `host` or `host:port`; an IPv6 address must be in brackets.
pub fn host_and_port(address: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match address.find(']') {
        Some(end) if address.starts_with('[') => (&address[..=end], &address[end + 1..]),
        _ => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    if address.parse::<Ipv6Addr>().is_ok() || port.matches(':').count() > 1 {
        return Err(format!("`{address}`: write an IPv6 address in brackets, for example [::1]:9092"));
    }
    if let Some(inside) = host.strip_prefix('[') {
        if inside.trim_end_matches(']').parse::<Ipv6Addr>().is_err() {
            return Err(format!("`{address}`: the text in brackets is not an IPv6 address"));
        }
    } else if host.is_empty() {
        return Err(format!("`{address}` has no host; write host:port, for example 127.0.0.1:9092"));
    } else if let Some(sign) = host.chars().find(|c| !c.is_ascii_alphanumeric() && !".-_".contains(*c)) {
        return Err(format!("`{address}`: `{sign}` cannot be part of a host name; write host:port"));
    }
    if port.is_empty() {
        return Ok((host, None));
    }
    match port.strip_prefix(':').filter(|digits| digits.chars().all(|c| c.is_ascii_digit())).map(str::parse) {
        Some(Ok(port @ 1..)) => Ok((host, Some(port))),
        _ => Err(format!("`{address}`: the port must be a number from 1 to 65535")),
    }
}

/// Parses an address to listen on. `localhost` is 127.0.0.1; other names are rejected, since they can have
/// several addresses.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!(
            "write IP:PORT without `{scheme}://`, for example {}",
            rest.trim_end_matches('/')
        ));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let Ok(port) = port.parse::<u16>() else {
        return Err("expected IP:PORT, for example 127.0.0.1:5000".into());
    };
    match host {
        "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        "" | "*" => Err(format!(
            "expected IP:PORT; write 127.0.0.1:{port} for this machine only, or 0.0.0.0:{port} for all networks"
        )),
        host if host.contains(':') => {
            Err(format!("write an IPv6 address in brackets, for example [::1]:{port}"))
        }
        host => {
            Err(format!("`{host}` is a name; write the IP address to listen on, for example 0.0.0.0:{port}"))
        }
    }
}

/// A [`listen_address`], or `off`.
pub fn listen_address_or_off(value: &str) -> Result<Option<SocketAddr>, String> {
    if value.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    listen_address(value).map(Some).map_err(|why| format!("{why}; or off"))
}

/// Checks that `path` is a regular file or does not exist yet.
pub fn file(setting: &str, path: &Path) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{setting}={}: {why}", path.display()));
    spelling(setting, path)?;
    if path.to_string_lossy().ends_with('/') || path.file_name().is_none() {
        return refused("this names a directory; add the name of a file");
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => refused("this is a directory; add the name of a file"),
        Ok(found) if !found.is_file() => {
            refused("this is not a regular file (a pipe, a socket or a device); name another file")
        }
        _ => Ok(()),
    }
}

/// Rejects what would not name what its author meant.
fn spelling(setting: &str, path: &Path) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{setting}={}: {why}", path.display()));
    let text = path.to_string_lossy();
    if text.is_empty() {
        return refused("the path is empty");
    }
    if text.trim() != text {
        return refused("remove the white space around the path");
    }
    let mut parts = path.components();
    let is_home = parts.next().is_some_and(|first| match first {
        Component::Normal(name) => {
            name == "~" || (name.to_string_lossy().starts_with('~') && parts.next().is_some())
        }
        _ => false,
    });
    if is_home { refused("only a shell replaces `~`; write the whole path") } else { Ok(()) }
}

/// Checks that `path` is a directory, or can become one.
pub fn directory_to_write(setting: &str, path: &Path) -> Result<(), String> {
    spelling(setting, path)?;
    match path.ancestors().find_map(|dir| Some((dir, fs::metadata(dir).ok()?))) {
        Some((dir, found)) if !found.is_dir() => Err(format!(
            "{setting}={}: {} is not a directory; name another directory",
            path.display(),
            dir.display()
        )),
        _ => Ok(()),
    }
}

/// Checks like [`file()`], and also that the directory of `path` exists or can be created.
pub fn file_to_write(setting: &str, path: &Path) -> Result<(), String> {
    file(setting, path)?;
    match path.ancestors().skip(1).find_map(|dir| Some((dir, fs::metadata(dir).ok()?))) {
        Some((dir, found)) if !found.is_dir() => Err(format!(
            "{setting}={}: {} is not a directory; name a file in another directory",
            path.display(),
            dir.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_brokers_is_read_as_people_write_it() {
        for (text, read) in [
            ("127.0.0.1:9092", &["127.0.0.1:9092"][..]),
            (" kafka-1.local:1 , kafka_2:65535,\n", &["kafka-1.local:1", "kafka_2:65535"]),
            ("[::1]:9092,a:1,[::1]:9092", &["[::1]:9092", "a:1"]),
        ] {
            assert_eq!(
                brokers(text).as_deref(),
                Ok(&read.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn what_cannot_be_a_broker_is_refused_with_what_to_write() {
        for (text, hint) in [
            ("", "missing"),
            ("a:1,,b:1", "missing"),
            (",a:1", "missing"),
            ("kafka", "kafka:9092"),
            ("[::1]", "[::1]:9092"),
            ("::1:9092", "[::1]:9092"),
            ("::1", "[::1]:9092"),
            (":9092", "no host"),
            ("kafka:", "1 to 65535"),
            ("kafka:0", "1 to 65535"),
            ("kafka:+1", "1 to 65535"),
            ("kafka:70000", "1 to 65535"),
            ("[::1]9092", "1 to 65535"),
            ("[::g]:1", "not an IPv6"),
            ("a:1;b:1", "commas"),
            ("a:1 b:1", "commas"),
            ("PLAINTEXT://a:1", "write a:1 without `PLAINTEXT://`"),
            ("\"a:1\"", "`\"` cannot"),
            ("a/b:1", "`/` cannot"),
        ] {
            let reason = brokers(text).expect_err(text);
            assert!(reason.contains(hint), "{text}: {reason}");
        }
    }

    #[test]
    fn an_address_to_listen_on_is_an_ip_address_or_localhost() {
        assert_eq!(listen_address(" localhost:5000"), Ok(([127, 0, 0, 1], 5000).into()));
        assert_eq!(listen_address("[::]:0").map(|address| address.to_string()).as_deref(), Ok("[::]:0"));
        for (text, hint) in [
            ("", "IP:PORT"),
            ("5000", "0.0.0.0:5000"),
            (":5000", "127.0.0.1:5000"),
            ("*:5000", "0.0.0.0:5000"),
            ("127.0.0.1", "IP:PORT"),
            ("::1:5000", "[::1]:5000"),
            ("http://127.0.0.1:5000/", "for example 127.0.0.1:5000"),
            ("example:5000", "`example` is a name"),
        ] {
            let reason = listen_address(text).expect_err(text);
            assert!(reason.contains(hint), "{text}: {reason}");
        }
    }

    #[test]
    fn a_number_is_within_its_range() {
        let read = number::<u16>(1..=256);
        assert_eq!((read("1"), read(" 256\n")), (Ok(1), Ok(256)));
        for bad in ["", "0", "257", "4k", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(
                read(bad),
                Err("expected a whole number from 1 to 256, without a unit".into()),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_path_names_a_regular_file() {
        let dir = tempfile::tempdir().expect("directory");
        let inside = |name: &str| dir.path().join(name);
        fs::write(inside("file"), "x").expect("written");
        for good in [inside("file"), inside("new"), inside("~x"), "~backup".into(), "logs/events.log".into()]
        {
            assert_eq!(file_to_write("F", &good), Ok(()));
        }
        for (path, hint) in [
            ("~/x".into(), "`~`"),
            ("~me/x".into(), "`~`"),
            ("x ".into(), "white space"),
            (inside("x/"), "directory"),
            (dir.path().to_owned(), "directory"),
            ("..".into(), "directory"),
            ("/dev/null".into(), "regular"),
            (inside("file/x/y"), "not a directory"),
        ] {
            let reason = file_to_write("F", &path).expect_err(hint);
            assert!(reason.starts_with("F=") && reason.contains(hint), "{reason}");
        }
        for good in [inside(""), inside("new/er"), "lake".into(), "/".into()] {
            assert_eq!(directory_to_write("D", &good), Ok(()));
        }
        for (path, hint) in [
            ("".into(), "empty"),
            ("~/x".into(), "`~`"),
            (inside("file"), "not a directory"),
            (inside("file/x"), "not"),
        ] {
            let reason = directory_to_write("D", &path).expect_err(hint);
            assert!(reason.starts_with("D=") && reason.contains(hint), "{reason}");
        }
    }
}
