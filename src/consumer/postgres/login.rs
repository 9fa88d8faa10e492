//! Opens a connection to one server: TCP, TLS, and the password.
//!
//! A method that shows the password to the server is used only if the server's certificate was verified. Without that, a
//! server must prove with SCRAM that it knows the password, if there is one: an impostor would confirm events and drop them.

use std::time::Instant;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::config::{PostgresUrl, Secret, TlsMode};
use crate::consumer::postgres::connection::Connection;
use crate::consumer::postgres::error::{PgError, SqlError};

/// Fewest iterations of hashing that a server may ask for, PostgreSQL's own number: with fewer, an impostor could guess
/// the password from our proof.
const ITERATIONS_MIN: u32 = 4096;

/// Who logs in.
pub struct Login<'a> {
    /// The database.
    pub url: &'a PostgresUrl,
    /// The password, if there is one.
    pub password: Option<&'a Secret>,
    /// Shown to others in `pg_stat_activity`.
    pub application: &'a str,
}

impl Login<'_> {
    /// Authenticates on a new `connection`; `certificate` is the hash of the server's, if there is one.
    ///
    /// # Errors
    /// See [`PgError`].
    pub fn run(
        &self,
        connection: &mut Connection,
        certificate: Option<Vec<u8>>,
        deadline: Instant,
    ) -> Result<(), PgError> {
        let parameters = [
            ("user", self.url.user.as_str()),
            ("database", self.url.database.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", self.application),
        ];
        let startup = message(|buffer| frontend::startup_message(parameters, buffer))?;
        connection.send(&startup, deadline)?;
        self.authenticate(connection, certificate, deadline)?;
        loop {
            match connection.receive(deadline)? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(_) => {}
                message => return Err(unexpected(connection, message)),
            }
        }
    }

    fn authenticate(
        &self,
        connection: &mut Connection,
        certificate: Option<Vec<u8>>,
        deadline: Instant,
    ) -> Result<(), PgError> {
        match connection.receive(deadline)? {
            Message::AuthenticationOk => return self.accepted_without_password(connection),
            Message::AuthenticationSasl(body) => self.scram(connection, &body, certificate, deadline)?,
            Message::AuthenticationCleartextPassword => {
                let password = self.shown_password(connection, "cleartext")?;
                let answer = message(|buffer| frontend::password_message(password.reveal(), buffer))?;
                connection.send(&answer, deadline)?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = self.shown_password(connection, "md5")?;
                let hash = md5_hash(self.url.user.as_bytes(), password.reveal(), body.salt());
                let answer = message(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
                connection.send(&answer, deadline)?;
            }
            message => return Err(unexpected(connection, message)),
        }
        match connection.receive(deadline)? {
            Message::AuthenticationOk => Ok(()),
            message => Err(unexpected(connection, message)),
        }
    }

    fn scram(
        &self,
        connection: &mut Connection,
        offered: &AuthenticationSaslBody,
        certificate: Option<Vec<u8>>,
        deadline: Instant,
    ) -> Result<(), PgError> {
        let host = connection.host().to_owned();
        let refused = |why: String| PgError::Refused(format!("{host}: {why}"));
        let offered: Vec<&str> =
            offered.mechanisms().collect().map_err(|error| PgError::Lost(format!("{host}: {error}")))?;
        let (mechanism, binding) = match certificate {
            Some(hash) if offered.contains(&SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))
            }
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if !offered.contains(&mechanism) {
            return Err(refused("it does not offer SCRAM-SHA-256".into()));
        }
        let password = self.needed_password(&host)?;
        let mut scram = ScramSha256::new(password.reveal(), binding);
        let first = message(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
        connection.send(&first, deadline)?;
        match connection.receive(deadline)? {
            Message::AuthenticationSaslContinue(body) => {
                check_iterations(body.data()).map_err(&refused)?;
                scram.update(body.data()).map_err(|error| refused(error.to_string()))?;
            }
            message => return Err(unexpected(connection, message)),
        }
        let proof = message(|buffer| frontend::sasl_response(scram.message(), buffer))?;
        connection.send(&proof, deadline)?;
        match connection.receive(deadline)? {
            Message::AuthenticationSaslFinal(body) => scram
                .finish(body.data())
                .map_err(|_| refused("it does not know the password itself: is it an impostor?".into())),
            message => Err(unexpected(connection, message)),
        }
    }

    fn accepted_without_password(&self, connection: &Connection) -> Result<(), PgError> {
        if self.password.is_none() || self.url.tls == TlsMode::VerifyFull {
            return Ok(());
        }
        Err(PgError::Refused(format!(
            "{}: it does not ask for the password, so it may be an impostor that does not know it; use scram-sha-256 in \
             pg_hba.conf, or sslmode=verify-full, or unset the password",
            connection.host()
        )))
    }

    /// The password for a method that shows it to the server.
    fn shown_password(&self, connection: &Connection, method: &str) -> Result<&Secret, PgError> {
        let host = connection.host();
        if self.url.tls != TlsMode::VerifyFull {
            return Err(PgError::Refused(format!(
                "{host}: it asks for the password by the method {method}, which shows it to an impostor; use \
                 scram-sha-256 in pg_hba.conf (and set the password again), or sslmode=verify-full"
            )));
        }
        self.needed_password(host)
    }

    fn needed_password(&self, host: &str) -> Result<&Secret, PgError> {
        self.password.ok_or_else(|| {
            PgError::Refused(format!(
                "{host}: user {} needs a password; set DESTINATION_PASSWORD_FILE, or DESTINATION_PASSWORD in the \
                 environment",
                self.url.user
            ))
        })
    }
}

fn check_iterations(message: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(message).unwrap_or_default();
    let count = text.split(',').find_map(|part| part.strip_prefix("i=")?.parse::<u32>().ok());
    match count {
        Some(ITERATIONS_MIN..) => Ok(()),
        _ => Err(format!("it asks for fewer than {ITERATIONS_MIN} iterations of SCRAM: is it an impostor?")),
    }
}

fn unexpected(connection: &Connection, message: Message) -> PgError {
    match message {
        Message::ErrorResponse(body) => PgError::Sql(SqlError::read(body.fields())),
        Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
            PgError::Refused(format!(
                "{}: it asks for Kerberos, which is not supported; use scram-sha-256 in pg_hba.conf",
                connection.host()
            ))
        }
        _ => PgError::Lost(format!("{}: an unexpected message: is it PostgreSQL?", connection.host())),
    }
}

fn message(write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<BytesMut, PgError> {
    let mut buffer = BytesMut::new();
    // Only a zero byte in a name can fail, and the settings refuse those.
    write(&mut buffer).map_err(|error| PgError::Refused(error.to_string()))?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_wants_few_iterations_is_refused() {
        assert!(check_iterations(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096").is_ok());
        for few in ["r=abc,s=QSXCR+Q6sek8bf92,i=1", "r=abc,s=QSXCR+Q6sek8bf92", "", "i=x"] {
            assert!(check_iterations(few.as_bytes()).is_err(), "{few}");
        }
    }
}
