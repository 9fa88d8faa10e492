//! Connects to the first host of the URL that accepts writes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::config::{DestinationConfig, PostgresUrl, TlsMode};
use crate::consumer::postgres::connection::Connection;
#[cfg(feature = "tls")]
use crate::consumer::postgres::endpoint;
use crate::consumer::postgres::error::{Kind, PgError};
use crate::consumer::postgres::login::Login;
use crate::linux;
use crate::transport::tcp;
#[cfg(feature = "tls")]
use crate::transport::{Refused, tls};

/// Longest name of an application that PostgreSQL keeps, in bytes.
const APPLICATION_MAX: usize = 63;

#[cfg(feature = "tls")]
static NAMES: tls::Names = tls::Names {
    server: "database server",
    ca: "sslrootcert",
    cert: "sslcert",
    key: "sslkey",
    hosts: "DESTINATION_URL",
    mode: "sslmode",
};

/// Connects to a server that accepts writes, trying the hosts in turn.
///
/// # Errors
/// If none of them serves us: what the first one says that does not accept us. Lost if there is no such one.
pub fn connect(config: &DestinationConfig, url: &PostgresUrl) -> Result<Connection, PgError> {
    let (mut reasons, mut refusal) = (Vec::new(), None);
    for host in &url.hosts {
        let refused = match connect_to(config, url, host) {
            Ok(connection) => {
                refusal.iter().for_each(|why: &String| log::warn!("{why}; using {host}"));
                return Ok(connection);
            }
            // One that is starting, stopping or full may let the next one serve us.
            Err(PgError::Sql(error)) if error.kind() != Kind::Settings => {
                reasons.push(format!("{host}: {error}"));
                continue;
            }
            Err(PgError::Lost(why) | PgError::TimedOut(why)) => {
                reasons.push(why);
                continue;
            }
            Err(PgError::Refused(why)) => why,
            Err(PgError::Sql(error)) => explain(url, host, &error.to_string(), &error.code),
        };
        refusal.get_or_insert(refused);
    }
    Err(refusal.map_or_else(|| PgError::Lost(reasons.join("; ")), PgError::Refused))
}

fn explain(url: &PostgresUrl, host: &str, error: &str, code: &str) -> String {
    let way_out = match code {
        "28P01" => "check DESTINATION_PASSWORD_FILE or DESTINATION_PASSWORD, and the user in DESTINATION_URL"
            .to_owned(),
        "28000" => "check the user in DESTINATION_URL, sslmode, and pg_hba.conf of the server".to_owned(),
        "3D000" => format!(
            "create the database (CREATE DATABASE {}), or name another one in DESTINATION_URL",
            url.database
        ),
        _ => "check DESTINATION_URL and the rights of its user".to_owned(),
    };
    format!("{host}: {error}; {way_out}")
}

fn connect_to(config: &DestinationConfig, url: &PostgresUrl, host: &str) -> Result<Connection, PgError> {
    let limit = config.connect_timeout();
    let deadline = Instant::now() + limit;
    let socket = tcp::connect(host, limit, deadline, true)
        .map_err(|why| PgError::Lost(format!("cannot connect to {host}: {why}")))?;
    let (mut connection, certificate) = secure(url, socket, host, deadline)?;
    // The file may have been replaced since the last connection.
    let password = config.password().map_err(PgError::Refused)?;
    let mut application = format!("event-consumer on {}", linux::host_name());
    application
        .truncate((0..=APPLICATION_MAX).rev().find(|&at| application.is_char_boundary(at)).unwrap_or(0));
    let login = Login { url, password: password.as_ref(), application: &application };
    login.run(&mut connection, certificate, deadline)?;
    prepare(&mut connection, config.timeout(), deadline)?;
    Ok(connection)
}

#[cfg(not(feature = "tls"))]
fn secure(
    url: &PostgresUrl,
    socket: TcpStream,
    host: &str,
    _: Instant,
) -> Result<(Connection, Option<Vec<u8>>), PgError> {
    debug_assert_eq!(url.tls, TlsMode::Disable, "the settings refuse the others");
    Ok((Connection::over(Box::new(socket), host), None))
}

/// Encrypts the connection if the URL says so, and returns what binds a proof of the password to it.
#[cfg(feature = "tls")]
fn secure(
    url: &PostgresUrl,
    mut socket: TcpStream,
    host: &str,
    deadline: Instant,
) -> Result<(Connection, Option<Vec<u8>>), PgError> {
    if url.tls == TlsMode::Disable {
        return Ok((Connection::over(Box::new(socket), host), None));
    }
    request_tls(&mut socket, host, url.tls, deadline)?;
    let authorities = (url.tls == TlsMode::VerifyFull).then(|| {
        let (name, path) =
            url.ca.as_ref().map_or_else(crate::config::system_authorities, |ca| ("sslrootcert", ca.clone()));
        tls::Authorities { name, path, is_chosen: url.ca.is_some() }
    });
    let identity = url.identity.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let settings = tls::Settings { names: &NAMES, authorities, identity };
    let stream = tls::encrypt(&settings, socket, host, deadline).map_err(|failure| match failure {
        tls::Failure::Files(why) => PgError::Refused(why),
        tls::Failure::Handshake(error) => match Refused::reason(&error) {
            Some(why) => PgError::Refused(format!("{host}: TLS handshake: {why}")),
            None => PgError::Lost(format!("{host}: TLS handshake: {error}")),
        },
    })?;
    let hash = stream.certificate().and_then(endpoint::hash);
    Ok((Connection::over(Box::new(stream), host), hash))
}

/// Asks the server to encrypt the connection. Exactly one byte of the answer is read: more would be bytes that somebody
/// in between has added before the encryption.
#[cfg(feature = "tls")]
fn request_tls(socket: &mut TcpStream, host: &str, mode: TlsMode, deadline: Instant) -> Result<(), PgError> {
    use std::io::IoSlice;

    use crate::transport::Transport;

    let lost = |error: std::io::Error| PgError::Lost(format!("{host}: {error}"));
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    socket.send(&mut [IoSlice::new(&request)], deadline).map_err(lost)?;
    let mut answer = [0];
    match (socket.receive(&mut answer, deadline).map_err(lost)?, answer[0]) {
        (1, b'S') => Ok(()),
        (1, b'N') => Err(PgError::Refused(format!(
            "{host}: it does not support TLS, but sslmode={mode}; set ssl = on on the server, or sslmode=disable in \
             DESTINATION_URL (the events can then be read on the network)"
        ))),
        (0, _) => Err(PgError::Lost(format!("{host}: it closed the connection"))),
        _ => Err(PgError::Lost(format!("{host}: an unexpected answer: is it PostgreSQL?"))),
    }
}

/// Sets the limits of a session, so that the server ends it soon if we are gone, and checks that it accepts writes. A lock
/// is waited for only half as long as a statement may take, so that a lock is not taken for too many rows.
fn prepare(connection: &mut Connection, timeout: Duration, deadline: Instant) -> Result<(), PgError> {
    let millis = timeout.as_millis();
    let answer = connection.query(
        &format!(
            "SET client_min_messages = error; SET idle_in_transaction_session_timeout = {idle}; \
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
             SELECT set_config('statement_timeout', '{millis}', false) FROM pg_settings \
             WHERE name = 'statement_timeout' AND (setting::bigint = 0 OR setting::bigint > {millis}); \
             SELECT set_config('lock_timeout', greatest(setting::bigint / 2, 1)::text, false) FROM pg_settings \
             WHERE name = 'statement_timeout'; \
             SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), current_setting('server_encoding')",
            idle = 2 * millis,
        ),
        deadline,
    )?;
    let host = connection.host();
    let state = answer.rows.last().cloned().unwrap_or_default();
    let is = |at: usize, value: &str| state.get(at).is_some_and(|text| text.as_deref() == Some(value));
    if is(0, "t") {
        return Err(PgError::Lost(format!("{host}: it is a standby, which accepts no writes")));
    }
    if is(1, "on") {
        return Err(PgError::Lost(format!("{host}: it accepts no writes (transaction_read_only)")));
    }
    if !is(2, "UTF8") {
        return Err(PgError::Refused(format!(
            "{host}: the encoding of the database is {}, which does not have every character of an event; create one with \
             CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            state.get(2).and_then(Option::as_deref).unwrap_or("unknown")
        )));
    }
    Ok(())
}
