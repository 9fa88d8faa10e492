//! Parses the URL of a PostgreSQL database: `postgres://user@host:port,host/database?sslmode=verify-full`. Pure.
//!
//! The errors do not repeat the URL, because somebody may have put a password into it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::values::host_and_port;

const DEFAULT_PORT: u16 = 5432;
const EXAMPLE: &str = "for example postgres://writer@db.example.com/app?sslmode=verify-full";

/// A database and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl {
    /// The user to log in as.
    pub user: String,
    /// The servers, host:port each; the first one that accepts writes is used.
    pub hosts: Vec<String>,
    /// The database's name.
    pub database: String,
    /// How connections are encrypted.
    pub tls: TlsMode,
    /// Authorities that must have signed the server's certificate.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How connections are encrypted, by the names of `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// Encrypted, but with any server.
    Require,
    /// Encrypted, with a server whose certificate is trusted and of its host.
    VerifyFull,
}

impl PostgresUrl {
    /// Checks what this build supports.
    ///
    /// # Errors
    /// The end of a sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        if self.tls != TlsMode::Disable && !cfg!(feature = "tls") {
            return Err(format!(
                "sslmode={} needs TLS, and this program was built without it; build it with `cargo build --release \
                 --features postgres,tls`, or add sslmode=disable (the password is then safe only with SCRAM, and the \
                 events are not)",
                self.tls
            ));
        }
        let without_use = [("sslrootcert", self.ca.is_some()), ("sslcert", self.identity.is_some())];
        match without_use.iter().find(|(_, is_set)| *is_set && self.tls == TlsMode::Disable) {
            Some((name, _)) => Err(format!("{name} has no effect with sslmode=disable")),
            None if self.ca.is_some() && self.tls == TlsMode::Require => {
                Err("sslrootcert has no effect with sslmode=require; use sslmode=verify-full".into())
            }
            None => Ok(()),
        }
    }

    /// Where the events are, for people: without the user.
    pub fn place(&self) -> String {
        format!("postgres://{}/{}", self.hosts.join(","), self.database)
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        })
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| format!("expected a URL that begins with postgres://, {EXAMPLE}"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err("it contains a password, which every user of this machine can read; put that into the file of \
                        DESTINATION_PASSWORD_FILE, or into the environment as DESTINATION_PASSWORD"
                .into());
        }
        if user.is_empty() || database.is_empty() {
            let missing = if user.is_empty() { "user" } else { "database" };
            return Err(format!("it names no {missing}; write postgres://USER@HOST/DATABASE, {EXAMPLE}"));
        }
        let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
        let mut parsed = Self {
            user: decoded(user)?,
            tls: if hosts.iter().all(|host| is_this_machine(host)) {
                TlsMode::Disable
            } else {
                TlsMode::VerifyFull
            },
            hosts,
            database: decoded(database)?,
            ca: None,
            identity: None,
        };
        parsed.read_query(query)?;
        Ok(parsed)
    }
}

impl PostgresUrl {
    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let (mut cert, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "sslmode" => self.tls = tls_mode(&value)?,
                "sslrootcert" => self.ca = Some(value.into()),
                "sslcert" => cert = Some(value.into()),
                "sslkey" => key = Some(value.into()),
                "target_session_attrs" if value == "read-write" || value == "primary" => {}
                _ => {
                    return Err(format!(
                        "the parameter {} is not supported; there are sslmode, sslrootcert, sslcert and sslkey",
                        name.chars().take(40).collect::<String>()
                    ));
                }
            }
        }
        self.identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("sslcert and sslkey belong together; set both, or neither".into()),
        };
        Ok(())
    }
}

fn tls_mode(value: &str) -> Result<TlsMode, String> {
    match value {
        "disable" => Ok(TlsMode::Disable),
        "require" => Ok(TlsMode::Require),
        "verify-full" => Ok(TlsMode::VerifyFull),
        "allow" | "prefer" => {
            Err("sslmode allow and prefer protect nothing, because anyone in between can choose no encryption; use \
                 verify-full, require or disable"
                .into())
        }
        _ => Err("sslmode is disable, require or verify-full".into()),
    }
}

fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('%') || text.starts_with('/') {
        return Err(format!(
            "a host is missing (a Unix socket is not supported: write 127.0.0.1); write postgres://USER@HOST/DATABASE, \
             {EXAMPLE}"
        ));
    }
    let (host, port) = host_and_port(text)?;
    Ok(format!("{host}:{}", port.unwrap_or(DEFAULT_PORT)))
}

fn is_this_machine(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost"
        || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || name.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Replaces `%41` and the like.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        rest = match (first, after.split_at_checked(2)) {
            (b'%', Some((digits, after))) => {
                bytes.push(hex(digits).ok_or("% must be followed by two hexadecimal digits")?);
                after
            }
            (b'%', None) => return Err("% must be followed by two hexadecimal digits".into()),
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(|| "it is not text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, String> {
        url.parse()
    }

    #[test]
    fn a_url_has_a_user_hosts_and_a_database() {
        let url = parse("postgres://a%40b@db1,[::1]:6000/my%20app?sslmode=verify-full&sslrootcert=/ca.pem")
            .expect("fine");
        assert_eq!((url.user.as_str(), url.database.as_str()), ("a@b", "my app"));
        assert_eq!(url.hosts, ["db1:5432", "[::1]:6000"]);
        assert_eq!((url.tls, url.ca), (TlsMode::VerifyFull, Some("/ca.pem".into())));
    }

    #[test]
    fn only_this_machine_is_reached_without_tls_unless_that_is_said() {
        for (hosts, tls) in [
            ("127.0.0.1", TlsMode::Disable),
            ("localhost:1,[::1]", TlsMode::Disable),
            ("127.0.0.1,db", TlsMode::VerifyFull),
            ("10.0.0.1", TlsMode::VerifyFull),
        ] {
            assert_eq!(parse(&format!("postgresql://me@{hosts}/app")).expect(hosts).tls, tls, "{hosts}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        for (url, hint) in [
            ("mysql://me@db/app", "postgres://"),
            ("postgres://db/app", "no user"),
            ("postgres://me@db", "no database"),
            ("postgres://me@db/", "no database"),
            ("postgres://me:hush@db/app", "DESTINATION_PASSWORD_FILE"),
            ("postgres://me@/app", "Unix socket"),
            ("postgres://me@%2Frun/app", "Unix socket"),
            ("postgres://me@db:0/app", "1 to 65535"),
            ("postgres://me@db/app?sslmode=prefer", "verify-full"),
            ("postgres://me@db/app?sslmode=x", "disable, require"),
            ("postgres://me@db/app?password=hush", "not supported"),
            ("postgres://me@db/app?sslcert=/c", "both"),
            ("postgres://me@db/a%2", "hexadecimal"),
            ("postgres://me@db/a%00", "text"),
        ] {
            let reason = parse(url).expect_err(url);
            assert!(reason.contains(hint) && !reason.contains("hush"), "{url}: {reason}");
        }
        let url = parse("postgres://me@127.0.0.1/app?sslrootcert=/ca").expect("parses");
        assert!(url.validate().unwrap_err().contains("no effect"));
    }
}
