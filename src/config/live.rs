//! Settings of the live page: where it is served, for whom, and which programs it shows.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

use super::values::{host_and_port, listen_address};
use super::{CommonConfig, HealthConfig, KafkaConfig, Secret, Settings};

/// Environment variables of the token for the page, and of the key for the producers' metrics.
pub const LIVE_TOKEN_ENV: &str = "LIVE_TOKEN";
/// The same.
pub const LIVE_KEY_ENV: &str = "LIVE_KEY";

/// Most programs that are shown; each has a thread that asks it.
const MAX_PROGRAMS: usize = 32;
/// Length of the token.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// Serves a page that shows the pipeline while it runs: what is received, acknowledged and logged, what is
/// refused and why, and the last events.
#[derive(Parser, Clone, Debug)]
#[command(name = "live", version, max_term_width = 110)]
pub struct LiveConfig {
    /// Settings that every program has.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Asks for health instead.
    #[command(flatten)]
    pub health: HealthConfig,
    /// How Kafka is reached, for the last events.
    #[command(flatten)]
    pub kafka: KafkaConfig,

    /// IP address and port of the page. Beyond a loopback address, LIVE_TOKEN must be set (environment or .env,
    /// there is no flag)
    #[arg(help_heading = "Live page", long = "live-addr", env = "LIVE_ADDR", default_value = "127.0.0.1:5002",
          value_parser = listen_address, value_name = "IP:PORT")]
    pub addr: SocketAddr,

    /// Producers to show, separated by commas: HTTP_ADDR or ADMIN_ADDR of each. If they need a key for /metrics, LIVE_KEY
    /// is one of kind `secret` (environment or .env, there is no flag)
    #[arg(help_heading = "Live page", long = "live-producers", env = "LIVE_PRODUCERS",
          default_value = "127.0.0.1:5000", value_parser = programs, value_name = "HOST:PORT,…")]
    // With the full path, clap takes the type for a single value, so its parser gets the whole list.
    pub producers: std::vec::Vec<String>,

    /// Consumers to show, separated by commas: METRICS_ADDR of each
    #[arg(help_heading = "Live page", long = "live-consumers", env = "LIVE_CONSUMERS",
          default_value = "127.0.0.1:5001", value_parser = programs, value_name = "HOST:PORT,…")]
    pub consumers: std::vec::Vec<String>,

    /// Names in the address bar of browsers, separated by commas, such as live.example, if they are not the address
    /// itself or localhost; a request with another name is refused
    #[arg(help_heading = "Live page", long = "live-hosts", env = "LIVE_HOSTS", value_parser = hosts,
          value_name = "NAME,…")]
    hosts: Option<std::vec::Vec<String>>,

    /// Show the last events of the topic; `off` for private data
    #[arg(
        help_heading = "Live page",
        long = "live-events",
        env = "LIVE_EVENTS",
        default_value = "on",
        value_enum
    )]
    events: ShowEvents,

    /// Token from the environment.
    #[arg(skip = Secret::from_environment(LIVE_TOKEN_ENV))]
    token: Option<Secret>,

    /// Key from the environment.
    #[arg(skip = Secret::from_environment(LIVE_KEY_ENV))]
    key: Option<Secret>,
}

/// Whether events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ShowEvents {
    On,
    Off,
}

impl LiveConfig {
    /// True if the page shows events.
    pub fn shows_events(&self) -> bool {
        self.events == ShowEvents::On
    }

    /// Names under which the page may be asked for, without ports.
    pub fn names(&self) -> Vec<String> {
        let ip = self.addr.ip();
        let mut names: Vec<String> = self.hosts.clone().unwrap_or_default();
        names.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        let own = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        if !ip.is_unspecified() && !names.contains(&own) {
            names.push(own);
        }
        names
    }

    /// What to open in a browser if the page listens on `addr`.
    pub fn url(&self, addr: SocketAddr) -> String {
        let named = self.hosts.iter().flatten().next().filter(|_| !self.addr.ip().is_loopback());
        let shown = match named {
            Some(name) => format!("{name}:{}", addr.port()),
            None if addr.ip().is_unspecified() => format!("localhost:{}", addr.port()),
            None => addr.to_string(),
        };
        format!("http://{shown}/")
    }

    /// The token that visitors must have, if there is one.
    pub fn token(&self) -> Option<String> {
        text_of(self.token.as_ref())
    }

    /// The key for the producers' metrics, if there is one.
    pub fn key(&self) -> Option<String> {
        text_of(self.key.as_ref())
    }

    fn validate_access(&self) -> Result<(), String> {
        let (addr, ip) = (self.addr, self.addr.ip());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        for (name, value) in [(LIVE_TOKEN_ENV, self.token()), (LIVE_KEY_ENV, self.key())] {
            let is_legal = |text: &String| TOKEN_BYTES.contains(&text.len()) && text.bytes().all(is_plain);
            if value.is_some_and(|text| !is_legal(&text)) {
                return Err(format!(
                    "{name}: expected {} to {} characters of A-Z a-z 0-9 - _, for example the output of `openssl rand -hex \
                     16`",
                    TOKEN_BYTES.start(),
                    TOKEN_BYTES.end()
                ));
            }
        }
        if !ip.is_loopback() && self.token().is_none() {
            return Err(format!(
                "LIVE_ADDR={addr} is not a loopback address, so everybody on that network could see the events; set \
                 {LIVE_TOKEN_ENV}, for example to the output of `openssl rand -hex 16`, or listen on 127.0.0.1:{}",
                addr.port()
            ));
        }
        if ip.is_unspecified() && self.hosts.iter().flatten().next().is_none() {
            return Err(format!(
                "LIVE_ADDR={addr} is every address of this machine; set LIVE_HOSTS to the names under which browsers \
                 reach it, for example live.example"
            ));
        }
        Ok(())
    }
}

/// The text of a secret; one that is empty is not set, because a compose file can only pass an empty variable.
fn text_of(secret: Option<&Secret>) -> Option<String> {
    let bytes = secret.map(Secret::reveal).filter(|bytes| !bytes.is_empty())?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// Parses `host:port,host:port`; an empty list is one.
fn programs(list: &str) -> Result<Vec<String>, String> {
    each(list, |address| match host_and_port(address)? {
        (_, Some(_)) => Ok(address.to_owned()),
        (host, None) => Err(format!("`{address}` has no port; write host:port, for example {host}:5000")),
    })
}

/// Parses names of hosts. A port is not part of the rule, so it is dropped.
fn hosts(list: &str) -> Result<Vec<String>, String> {
    each(list, |name| host_and_port(name).map(|(host, _)| host.to_owned()))
}

fn each(list: &str, parse: impl Fn(&str) -> Result<String, String>) -> Result<Vec<String>, String> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| match item.split_once("://") {
            Some((scheme, rest)) => {
                Err(format!("write {} without `{scheme}://`", rest.trim_end_matches('/')))
            }
            None => parse(item),
        })
        .collect()
}

impl Settings for LiveConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn in_force(&self) -> Vec<(&'static str, String)> {
        vec![
            self.kafka.in_force(),
            ("LIVE_ADDR", self.addr.to_string()),
            ("LIVE_PRODUCERS", self.producers.join(",")),
            ("LIVE_CONSUMERS", self.consumers.join(",")),
            ("LIVE_HOSTS", self.hosts.iter().flatten().cloned().collect::<Vec<_>>().join(",")),
        ]
    }

    fn asked_for_health(&self) -> Result<Option<(&'static str, SocketAddr)>, String> {
        self.health.asked("LIVE_ADDR", Some(self.addr))
    }

    fn passwords(&self) -> Vec<(&'static str, &Secret)> {
        let own = [(LIVE_TOKEN_ENV, self.token.as_ref()), (LIVE_KEY_ENV, self.key.as_ref())];
        let own = own.into_iter().filter_map(|(name, secret)| Some((name, secret?)));
        self.kafka.security.given_password().into_iter().chain(own).collect()
    }

    fn validate(&self) -> Result<(), String> {
        self.kafka.validate()?;
        let count = self.producers.len() + self.consumers.len();
        if count == 0 || count > MAX_PROGRAMS {
            return Err(format!(
                "LIVE_PRODUCERS and LIVE_CONSUMERS name {count} programs; expected 1 to {MAX_PROGRAMS} together"
            ));
        }
        self.validate_access()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<LiveConfig, clap::Error> {
        LiveConfig::try_parse_from([&["live"], args].concat())
    }

    fn with_token(args: &[&str], token: &str) -> LiveConfig {
        LiveConfig { token: Some(Secret::new(token)), ..parse(args).expect("parses") }
    }

    #[test]
    fn the_defaults_are_the_programs_of_this_machine() {
        let config = parse(&[]).expect("parses");
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(
            (config.producers.join(","), config.consumers.join(",")),
            ("127.0.0.1:5000".into(), "127.0.0.1:5001".into())
        );
        assert!(config.shows_events() && config.token().is_none());
        assert_eq!(config.names(), ["localhost", "127.0.0.1", "[::1]"]);
        assert_eq!(config.url(config.addr), "http://127.0.0.1:5002/");
    }

    #[test]
    fn programs_are_addresses_and_may_be_none_of_a_kind() {
        let config = parse(&["--live-producers", " a:1, [::1]:2 ,", "--live-consumers", ""]).expect("parses");
        assert_eq!((config.producers.len(), config.consumers.len(), config.validate()), (2, 0, Ok(())));
        let none = parse(&["--live-producers", "", "--live-consumers", ""]).expect("parses");
        assert!(none.validate().is_err_and(|why| why.contains("name 0 programs")));
        let many = "a:1,".repeat(MAX_PROGRAMS);
        assert!(parse(&["--live-producers", &many]).expect("parses").validate().is_err());
        for (bad, hint) in
            [("a", "a:5000"), ("http://a:1/", "write a:1 without"), ("a b:1", "host name"), ("a:x", "65535")]
        {
            let error = parse(&["--live-producers", bad]).expect_err(bad).to_string();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }

    #[test]
    fn beyond_this_machine_there_is_a_token_and_names() {
        let token = "0123456789abcdef";
        let public = ["--live-addr", "0.0.0.0:5002"];
        let named = ["--live-addr", "0.0.0.0:5002", "--live-hosts", "Live.example:8443"];
        assert!(parse(&named).expect("parses").validate().is_err_and(|why| why.contains("set LIVE_TOKEN")));
        assert!(with_token(&public, token).validate().is_err_and(|why| why.contains("LIVE_HOSTS")));
        let config = with_token(&named, token);
        assert_eq!((config.validate(), config.names()[0].as_str()), (Ok(()), "Live.example"));
        assert_eq!(config.url(config.addr), "http://Live.example:5002/");
        assert_eq!(
            with_token(&["--live-addr", "10.0.0.1:1"], token).names().last(),
            Some(&"10.0.0.1".to_owned())
        );
        for bad in ["short", "0123456789abcde ", "0123456789abcde;", &"x".repeat(129)] {
            assert!(with_token(&[], bad).validate().is_err_and(|why| !why.contains(bad)), "{bad}");
        }
        assert_eq!(with_token(&[], "").validate(), Ok(()), "an empty variable is not set");
    }
}
