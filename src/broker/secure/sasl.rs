//! Authenticates to a broker: SaslHandshake, then SaslAuthenticate with the messages of the mechanism.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{Api, Code, Connection, Malformed, Reader, Versions, Writer};
use crate::broker::secure::scram::{Hash, Scram};
use crate::config::{SaslMechanism, Secret, SecurityConfig};

const SASL_HANDSHAKE: Api = Api { name: "SaslHandshake", key: 17, version: 1 };
/// From version 1 on (Kafka 2.2) the broker says when it requires authentication again.
const SASL_AUTHENTICATE: [Api; 2] = [
    Api { name: "SaslAuthenticate", key: 36, version: 1 },
    Api { name: "SaslAuthenticate", key: 36, version: 0 },
];

const NONCE_BYTES: usize = 24;

/// Maximum characters of a broker's own text in a message.
const BROKER_TEXT_MAX: usize = 200;

/// How long to use a session. A broker closes a connection that outlives its session at the next request, so
/// we stop using it before that.
fn usable_part(session: Duration) -> Duration {
    session / 20 * 17
}

/// Authenticates on `on`, which has completed the version handshake; `versions` is what its broker supports.
///
/// # Errors
/// Refused, with what to change. Retryable for failures that may go away. Unsupported before Kafka 1.0.
pub fn authenticate(
    on: &mut Connection,
    config: &SecurityConfig,
    versions: &Versions,
    deadline: Instant,
) -> Result<()> {
    let host = on.host().to_owned();
    let authenticate = SASL_AUTHENTICATE.into_iter().find(|api| versions.serves(api.key, api.version));
    let Some(api) = authenticate else {
        return Err(BrokerError::Unsupported(format!(
            "broker {host} does not serve SaslAuthenticate; authentication needs Kafka 1.0 or newer"
        )));
    };
    let (Some(mechanism), Some(username)) = (config.mechanism, config.username.as_deref()) else {
        return Err(BrokerError::Refused("KAFKA_SASL_MECHANISM and KAFKA_SASL_USERNAME are not set".into()));
    };
    let password = config.password().map_err(BrokerError::Refused)?;
    let began = Instant::now();
    handshake(on, mechanism, deadline)?;
    let mut dialogue = Dialogue { on, api, host, username, mechanism, password: &password, deadline };
    let session = match mechanism {
        SaslMechanism::Plain => dialogue.plain(),
        SaslMechanism::ScramSha256 => dialogue.scram(Hash::Sha256),
        SaslMechanism::ScramSha512 => dialogue.scram(Hash::Sha512),
    }?;
    if let Some(session) = session {
        on.expire_at(began + usable_part(session));
    }
    Ok(())
}

fn handshake(on: &mut Connection, mechanism: SaslMechanism, deadline: Instant) -> Result<()> {
    let host = on.host().to_owned();
    let body = Writer::default().str(&mechanism.to_string());
    let (code, offered) = on.call(SASL_HANDSHAKE, body, deadline, |r| {
        Ok((Code(r.i16()?), r.array(|r| r.str().map(str::to_owned))?))
    })?;
    match code {
        Code::NONE => Ok(()),
        Code::UNSUPPORTED_SASL_MECHANISM => Err(BrokerError::Refused(format!(
            "broker {host}: it does not support KAFKA_SASL_MECHANISM={mechanism}; it supports {}",
            printable(&offered.join(", "))
        ))),
        Code::ILLEGAL_SASL_STATE => Err(BrokerError::Refused(format!(
            "broker {host}: it does not use SASL on this port; use its port with SASL, or set \
             KAFKA_SECURITY_PROTOCOL to one without"
        ))),
        code => Err(BrokerError::Retryable(format!("broker {host}: SaslHandshake: {code}"))),
    }
}

struct Dialogue<'a> {
    on: &'a mut Connection,
    api: Api,
    host: String,
    username: &'a str,
    mechanism: SaslMechanism,
    password: &'a Secret,
    deadline: Instant,
}

/// The broker's response to a message, and how long the session then lasts.
type Answer = (Vec<u8>, Option<Duration>);

impl Dialogue<'_> {
    /// The PLAIN mechanism, RFC 4616.
    fn plain(&mut self) -> Result<Option<Duration>> {
        let message = [b"\0", self.username.as_bytes(), b"\0", self.password.reveal()].concat();
        self.say(&message).map(|(_, session)| session)
    }

    fn scram(&mut self, hash: Hash) -> Result<Option<Duration>> {
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| BrokerError::Retryable("the system cannot generate random numbers".into()))?;
        let scram = Scram::new(hash, self.username, self.password.reveal(), STANDARD.encode(nonce));
        let (first, _) = self.say(scram.first().as_bytes())?;
        let (answer, expected) = scram.answer(&first).map_err(|why| self.refused(&why))?;
        let (last, session) = self.say(answer.as_bytes())?;
        expected.check(&last).map_err(|why| self.refused(&why))?;
        Ok(session)
    }

    fn say(&mut self, message: &[u8]) -> Result<Answer> {
        let version = self.api.version;
        let body = Writer::default().bytes(message);
        let (code, why, answer) = self.on.call(self.api, body, self.deadline, |r| read(r, version))?;
        match code {
            Code::NONE => Ok(answer),
            Code::SASL_AUTHENTICATION_FAILED => Err(self.refused(&why)),
            code => Err(BrokerError::Retryable(format!("broker {}: SaslAuthenticate: {code}", self.host))),
        }
    }

    fn refused(&self, why: &str) -> BrokerError {
        let (host, username, mechanism) = (&self.host, self.username, self.mechanism);
        let why = printable(&without(why, self.password));
        BrokerError::Refused(format!(
            "broker {host}: authentication of user {username} failed ({mechanism}): {why}; check \
             KAFKA_SASL_USERNAME, its password and KAFKA_SASL_MECHANISM"
        ))
    }
}

fn read(r: &mut Reader<'_>, version: i16) -> Result<(Code, String, Answer), Malformed> {
    let (code, why, message) = (Code(r.i16()?), r.str()?.to_owned(), r.bytes()?.to_vec());
    let session_ms = if version == 0 { 0 } else { r.i64()? };
    let session = u64::try_from(session_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
    Ok((code, why, (message, session)))
}

/// Removes the password from `text`: an impostor could send back what it received.
fn without(text: &str, secret: &Secret) -> String {
    let secret = String::from_utf8_lossy(secret.reveal());
    if secret.is_empty() { text.to_owned() } else { text.replace(&*secret, "***") }
}

/// Puts a broker's text on one line of bounded length.
fn printable(text: &str) -> String {
    text.chars().take(BROKER_TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_left_before_its_session_ends() {
        assert_eq!(usable_part(Duration::from_secs(60)), Duration::from_secs(51));
    }

    #[test]
    fn a_session_without_end_has_no_length() {
        let answer = |session_ms: i64| {
            let bytes = Writer::default().i16(0).i16(-1).bytes(b"v=x").i64(session_ms).into_bytes();
            read(&mut Reader::new(&bytes), 1).expect("well formed").2
        };
        assert_eq!(answer(1500), (b"v=x".to_vec(), Some(Duration::from_millis(1500))));
        assert_eq!([answer(0).1, answer(-1).1], [None, None]);
    }

    #[test]
    fn a_secret_that_comes_back_is_not_told() {
        let shown = printable(&without("no hush for you\r\n", &Secret::new("hush")));
        assert_eq!(shown, "no *** for you  ");
        assert_eq!(printable(&"x".repeat(9000)).len(), BROKER_TEXT_MAX);
    }
}
