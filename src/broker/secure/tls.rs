//! TLS 1.2 and 1.3 with rustls: trusted authorities, our own certificate, the handshake, and why it failed.
//!
//! All files are read at each handshake, so certificates can be renewed while the program runs. Each
//! handshake is a full one, so a certificate counts only as long as it is valid.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::broker::protocol::{Refused, Transport, Until, write_parts};
use crate::config::SecurityConfig;

/// An encrypted connection.
pub struct TlsStream {
    session: ClientConnection,
    socket: TcpStream,
}

/// Why a connection was not encrypted.
pub enum Failure {
    /// One of our files, or the broker's name, cannot be used.
    Files(String),
    /// The handshake failed; [`Refused`] if one side does not trust the other.
    Handshake(io::Error),
}

/// Encrypts `socket`, a new connection to `host` (host:port), and verifies who is at its other end.
///
/// # Errors
/// See [`Failure`].
pub fn encrypt(
    config: &SecurityConfig,
    socket: TcpStream,
    host: &str,
    deadline: Instant,
) -> Result<TlsStream, Failure> {
    let client = client_config(config).map_err(Failure::Files)?;
    let name = server_name(host).map_err(Failure::Files)?;
    let session = ClientConnection::new(client, name).map_err(|error| Failure::Files(error.to_string()))?;
    let mut stream = TlsStream { session, socket };
    stream.handshake(deadline).map_err(|error| Failure::Handshake(typed(error)))?;
    Ok(stream)
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
}

impl Transport for TlsStream {
    fn send(&mut self, parts: &mut [IoSlice<'_>], deadline: Instant) -> io::Result<()> {
        let mut socket = Until { socket: &self.socket, deadline };
        let mut stream = rustls::Stream::new(&mut self.session, &mut socket);
        write_parts(&mut stream, parts).and_then(|()| stream.flush()).map_err(|error| {
            // With TLS 1.3 a broker that rejects our certificate says so, and closes, only after the
            // handshake.
            let said = if is_closed(&error) { stream.read(&mut [0]).err().map(typed) } else { None };
            said.filter(|said| Refused::reason(said).is_some()).unwrap_or_else(|| typed(error))
        })
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut socket = Until { socket: &self.socket, deadline };
        rustls::Stream::new(&mut self.session, &mut socket).read(buffer).map_err(typed)
    }

    /// Session tickets arrive before the first response, so no bytes of TLS itself are pending between two
    /// calls.
    fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

/// True if the other side closed the connection without giving a reason.
pub fn is_closed(error: &io::Error) -> bool {
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
    let certificates: Vec<_> = read.map_err(|error| unusable(describe_pem_error(&error)))?;
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
            error => describe_pem_error(&error),
        };
        format!("KAFKA_TLS_KEY={}: {why}", path.display())
    })
}

/// Describes a PEM error without the text of the file, which may be a key.
fn describe_pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::MissingSectionEnd { .. } => "one of its sections has no end".into(),
        _ => "it is not PEM".into(),
    }
}

/// Turns an error of rustls by which one side does not trust the other into [`Refused`]. Other errors may go
/// away, and stay as they are.
fn typed(error: io::Error) -> io::Error {
    let refusal = error.get_ref().and_then(|cause| refusal(cause.downcast_ref()?));
    refusal.map_or(error, |why| Refused(why).into())
}

fn refusal(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(why) => Some(untrusted(why)),
        rustls::Error::AlertReceived(alert) => rejected_by(*alert),
        rustls::Error::PeerIncompatible(why) => {
            Some(format!("it supports neither TLS 1.3 nor 1.2 in a way that is considered safe ({why:?})"))
        }
        rustls::Error::InvalidMessage(_) => {
            Some("its response is not TLS; check the port and KAFKA_SECURITY_PROTOCOL".into())
        }
        _ => None,
    }
}

/// Why we do not trust the broker's certificate.
fn untrusted(why: &CertificateError) -> String {
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

/// Why the broker does not accept us; `None` if a retry may help.
fn rejected_by(alert: Alert) -> Option<String> {
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
        let refusal_of = |error: rustls::Error| {
            let error = typed(io::Error::new(io::ErrorKind::InvalidData, error));
            Refused::reason(&error).map(str::to_owned)
        };
        assert_eq!(refusal_of(rustls::Error::AlertReceived(Alert::InternalError)), None);
        assert_eq!(refusal_of(rustls::Error::DecryptError), None);
        assert!(refusal_of(rustls::Error::AlertReceived(Alert::CertificateRequired)).is_some());
        assert!(refusal_of(CertificateError::UnknownIssuer.into()).is_some());
    }
}
