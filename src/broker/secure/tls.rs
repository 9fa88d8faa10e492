//! TLS 1.2 and 1.3 with rustls: trusted authorities, our own certificate, the handshake, and why it failed.
//!
//! All files are read at each handshake, so certificates can be renewed while the program runs. Each
//! handshake is a full one, so a certificate counts only as long as it is valid.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::broker::error::BrokerError;
use crate::broker::protocol::connection::Connection;
use crate::broker::protocol::stream::{Stream, Until};
use crate::config::SecurityConfig;
use crate::linux;

/// An encrypted connection.
pub struct TlsStream {
    session: ClientConnection,
    socket: TcpStream,
}

/// Why a connection was not encrypted.
pub enum Failure {
    /// The other side closed it without giving a reason.
    Closed(BrokerError),
    Known(BrokerError),
}

/// Encrypts a new `connection` and verifies who is at its other end.
///
/// # Errors
/// Refused if one of our files cannot be used, or the broker is not trusted or does not speak TLS. Otherwise
/// retryable.
pub fn encrypt(
    config: &SecurityConfig,
    connection: Connection,
    deadline: Instant,
) -> Result<Connection, Failure> {
    let refused = |why: String| Failure::Known(BrokerError::Refused(why));
    let host = connection.host().to_owned();
    let client = client_config(config).map_err(refused)?;
    let name = server_name(&host).map_err(refused)?;
    let session = ClientConnection::new(client, name).map_err(|error| refused(error.to_string()))?;
    let Stream::Plain(socket) = connection.into_stream() else {
        return Err(refused(format!("broker {host}: the connection is already encrypted")));
    };
    let mut stream = TlsStream { session, socket };
    let outcome = stream.handshake(deadline);
    let encrypted = Connection::over(Stream::Tls(Box::new(stream)), &host);
    match outcome {
        Ok(()) => Ok(encrypted),
        Err(error) => {
            let failed = encrypted.failed("TLS handshake", &error);
            Err(if is_closed(&error) { Failure::Closed(failed) } else { Failure::Known(failed) })
        }
    }
}

impl TlsStream {
    fn handshake(&mut self, deadline: Instant) -> io::Result<()> {
        let mut socket = Until { socket: &self.socket, deadline };
        while self.session.is_handshaking() {
            self.session.complete_io(&mut socket)?;
        }
        // Our final handshake messages, which `complete_io` may have left.
        while self.session.wants_write() {
            self.session.write_tls(&mut socket)?;
        }
        Ok(())
    }

    pub fn write_all(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut socket = Until { socket: &self.socket, deadline };
        let mut stream = rustls::Stream::new(&mut self.session, &mut socket);
        match stream.write_all(bytes).and_then(|()| stream.flush()) {
            // With TLS 1.3 a broker that rejects our certificate says so, and closes, only after the
            // handshake.
            Err(error) if is_closed(&error) => match stream.read(&mut [0]) {
                Err(said) if refusal_of(&said).is_some() => Err(said),
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut socket = Until { socket: &self.socket, deadline };
        rustls::Stream::new(&mut self.session, &mut socket).read(buffer)
    }

    /// Session tickets arrive before the first response, so no bytes of TLS itself are pending between two
    /// calls.
    pub fn is_quiet(&self) -> bool {
        linux::is_quiet(&self.socket)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// The name that the certificate must match: the host that we connect to, from KAFKA_BROKERS or advertised.
fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("broker {host}: {name} is not a host name, so no certificate can match it"))
}

fn client_config(config: &SecurityConfig) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of both versions")
        .with_root_certificates(authorities(config)?);
    let mut client = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("KAFKA_TLS_CERT", cert)?, private_key(key)?)
            .map_err(|error| {
                let (cert, key) = (cert.display(), key.display());
                format!("KAFKA_TLS_KEY={key} does not match KAFKA_TLS_CERT={cert}: {error}")
            })?,
        _ => builder.with_no_client_auth(),
    };
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

fn authorities(config: &SecurityConfig) -> Result<RootCertStore, String> {
    let (name, path) = config.authorities();
    let mut roots = RootCertStore::empty();
    // A system's list may hold a certificate that is out of use; in the user's own file every one must be
    // usable.
    let (_, unusable) = roots.add_parsable_certificates(certificates(name, &path)?);
    if roots.is_empty() || config.ca.is_some() && unusable > 0 {
        return Err(format!("{name}={}: {unusable} certificates in it cannot be used", path.display()));
    }
    Ok(roots)
}

/// Reads the certificates in a file, of which there must be at least one.
fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |why: String| format!("{name}={}: {why}", path.display());
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| unusable(what_of_pem(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("no certificate in it; it must be PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let why = match error {
            pem::Error::NoItemsFound => "no unencrypted PEM private key in it; \
                 `openssl pkey -in FILE -out FILE.plain` decrypts one"
                .to_owned(),
            error => what_of_pem(&error),
        };
        format!("KAFKA_TLS_KEY={}: {why}", path.display())
    })
}

/// Describes a PEM error without the text of the file, which may be a key.
fn what_of_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::MissingSectionEnd { .. } => "one of its sections has no end".into(),
        _ => "it is not PEM".into(),
    }
}

fn refusal_of(error: &io::Error) -> Option<String> {
    refusal(error.get_ref()?)
}

/// Why one side does not trust the other; `None` for errors that may go away.
pub fn refusal(cause: &(dyn Error + Send + Sync + 'static)) -> Option<String> {
    match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(distrust(why)),
        rustls::Error::AlertReceived(alert) => distrusted(*alert),
        rustls::Error::PeerIncompatible(why) => {
            Some(format!("it supports neither TLS 1.3 nor 1.2 in a way that is considered safe ({why:?})"))
        }
        rustls::Error::InvalidMessage(_) => {
            Some("its response is not TLS; check the port and KAFKA_SECURITY_PROTOCOL".into())
        }
        _ => None,
    }
}

fn distrust(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => {
            "its certificate is from an authority that we do not trust; put that authority's certificate \
             into the file of KAFKA_TLS_CA"
                .into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {} but for {}; use one of those names in KAFKA_BROKERS and in the \
             broker's advertised.listeners, or give the broker another certificate",
            expected.to_str(),
            presented.join(", ")
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it (or correct this machine's clock)".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; correct the clocks".into()
        }
        other => format!("its certificate cannot be trusted: {other}"),
    }
}

fn distrusted(alert: Alert) -> Option<String> {
    match alert {
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::CertificateRequired
        | Alert::UnknownCA
        | Alert::AccessDenied => Some(format!(
            "it requires another client certificate ({alert:?}); check KAFKA_TLS_CERT and KAFKA_TLS_KEY"
        )),
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => Some(format!(
            "it has nothing in common with us ({alert:?}): use TLS 1.2 or 1.3 with a modern cipher, and a \
             client certificate (KAFKA_TLS_CERT) if the broker asks for one"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_host_without_its_port_and_may_be_an_address() {
        let name = |host| server_name(host).map(|name| name.to_str().into_owned());
        assert_eq!(name("kafka-1.example.com:9093").as_deref(), Ok("kafka-1.example.com"));
        assert_eq!(name("127.0.0.1:9093").as_deref(), Ok("127.0.0.1"));
        assert_eq!(name("[::1]:9093").as_deref(), Ok("::1"));
        assert_eq!(name("::1:9093").as_deref(), Ok("::1"));
        assert!(name("not a name:1").is_err_and(|reason| reason.contains("not a name")));
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_named_and_its_text_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVzaA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (path, word) in [
            (file("empty", ""), "no certificate"),
            (file("text", "hush"), "no certificate"),
            (file("cut", "-----BEGIN CERTIFICATE-----\nhush"), "no end"),
            (file("base64", "-----BEGIN CERTIFICATE-----\nhush!\n-----END CERTIFICATE-----\n"), "not PEM"),
            (dir.path().join("none"), "No such file"),
        ] {
            let reason = certificates("KAFKA_TLS_CA", &path).expect_err(word);
            let named = format!("KAFKA_TLS_CA={}", path.display());
            assert!(reason.contains(word) && reason.contains(&named) && !reason.contains("hush"), "{reason}");
        }
        let reason = private_key(&file("key", encrypted)).expect_err("encrypted");
        assert!(reason.contains("openssl pkey") && !reason.contains("aHVz"), "{reason}");
    }

    #[test]
    fn what_may_pass_is_no_refusal() {
        let refusal_of =
            |error: rustls::Error| refusal_of(&io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(refusal_of(rustls::Error::AlertReceived(Alert::InternalError)), None);
        assert_eq!(refusal_of(rustls::Error::DecryptError), None);
        assert!(refusal_of(rustls::Error::AlertReceived(Alert::CertificateRequired)).is_some());
        assert!(refusal_of(CertificateError::UnknownIssuer.into()).is_some());
    }
}
