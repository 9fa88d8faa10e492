//! TLS 1.2 and 1.3 with rustls: trusted authorities, our own certificate, the handshake, and why it failed.
//!
//! All files are read at each handshake, so certificates can be renewed while the program runs. Each
//! handshake is a full one, so a certificate counts only as long as it is valid.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::transport::anyone::Anyone;
use crate::transport::stream::{Refused, Transport, Until, write_parts};

/// What the settings and the other side are called in messages.
#[derive(Debug)]
pub struct Names {
    /// The other side, for example `broker`.
    pub server: &'static str,
    /// The setting with the authorities.
    pub ca: &'static str,
    /// The setting with our own certificate.
    pub cert: &'static str,
    /// The setting with its key.
    pub key: &'static str,
    /// Where the names of hosts are set.
    pub hosts: &'static str,
    /// The setting that chooses TLS.
    pub mode: &'static str,
}

/// Whom we trust and who we are.
pub struct Settings<'a> {
    /// What they are called.
    pub names: &'static Names,
    /// Who must have signed the server's certificate; `None` accepts any server, which only hides the traffic from
    /// those who listen.
    pub authorities: Option<Authorities>,
    /// Our own certificate and its key.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// A file with certificates of authorities.
pub struct Authorities {
    /// The setting that it comes from.
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
    /// It is not the system's, so every certificate in it must be usable.
    pub is_chosen: bool,
}

/// An encrypted connection.
pub struct TlsStream {
    session: ClientConnection,
    socket: TcpStream,
    names: &'static Names,
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
    settings: &Settings<'_>,
    socket: TcpStream,
    host: &str,
    deadline: Instant,
) -> Result<TlsStream, Failure> {
    let names = settings.names;
    let client = client_config(settings).map_err(Failure::Files)?;
    let name = server_name(names.server, host).map_err(Failure::Files)?;
    let session = ClientConnection::new(client, name).map_err(|error| Failure::Files(error.to_string()))?;
    let mut stream = TlsStream { session, socket, names };
    stream.handshake(deadline).map_err(|error| Failure::Handshake(typed(names, error)))?;
    Ok(stream)
}

impl TlsStream {
    /// The server's certificate (DER).
    #[cfg(feature = "postgres")]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.session.peer_certificates()?.first().map(AsRef::as_ref)
    }

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
            let typed = |error| typed(self.names, error);
            let said = if is_closed(&error) { stream.read(&mut [0]).err().map(typed) } else { None };
            said.filter(|said| Refused::reason(said).is_some()).unwrap_or_else(|| typed(error))
        })
    }

    fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let mut socket = Until { socket: &self.socket, deadline };
        rustls::Stream::new(&mut self.session, &mut socket)
            .read(buffer)
            .map_err(|error| typed(self.names, error))
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

/// The name that the certificate must match: the host that we connect to.
fn server_name(server: &str, host: &str) -> Result<ServerName<'static>, String> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{server} {host}: {name} is not a host name, so no certificate can match it"))
}

fn client_config(settings: &Settings<'_>) -> Result<Arc<ClientConfig>, String> {
    let Settings { names, authorities, identity } = settings;
    let provider = cryptography();
    let anyone = Anyone(provider.signature_verification_algorithms);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of both versions");
    let builder = match authorities {
        Some(authorities) => builder.with_root_certificates(trusted(authorities)?),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(anyone)),
    };
    let mut client = match identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(names.cert, cert)?, private_key(names.key, key)?)
            .map_err(|error| {
                let (cert, key) = (cert.display(), key.display());
                format!("{}={key} does not match {}={cert}: {error}", names.key, names.cert)
            })?,
        None => builder.with_no_client_auth(),
    };
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// The cryptography of all connections.
pub fn cryptography() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusted(Authorities { name, path, is_chosen }: &Authorities) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // A system's list may hold a certificate that is out of use; in the user's own file every one must be
    // usable.
    let (_, unusable) = roots.add_parsable_certificates(certificates(name, path)?);
    if roots.is_empty() || *is_chosen && unusable > 0 {
        return Err(format!("{name}={}: {unusable} certificates in it cannot be used", path.display()));
    }
    Ok(roots)
}

/// Reads the certificates in a file, of which there must be at least one.
///
/// # Errors
/// One sentence that names the setting and the file.
pub fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unusable = |why: String| format!("{name}={}: {why}", path.display());
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| unusable(describe_pem_error(&error)))?;
    if certificates.is_empty() {
        return Err(unusable("no certificate in it; it must be PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certificates)
}

fn private_key(name: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let why = match error {
            pem::Error::NoItemsFound => "no unencrypted PEM private key in it; \
                 `openssl pkey -in FILE -out FILE.plain` decrypts one"
                .to_owned(),
            error => describe_pem_error(&error),
        };
        format!("{name}={}: {why}", path.display())
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
fn typed(names: &Names, error: io::Error) -> io::Error {
    let refusal = error.get_ref().and_then(|cause| refusal(names, cause.downcast_ref()?));
    refusal.map_or(error, |why| Refused(why).into())
}

fn refusal(names: &Names, error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(why) => Some(untrusted(names, why)),
        rustls::Error::AlertReceived(alert) => rejected_by(names, *alert),
        rustls::Error::PeerIncompatible(why) => {
            Some(format!("it supports neither TLS 1.3 nor 1.2 in a way that is considered safe ({why:?})"))
        }
        rustls::Error::InvalidMessage(_) => {
            Some(format!("its response is not TLS; check the port and {}", names.mode))
        }
        _ => None,
    }
}

/// Why we do not trust the server's certificate.
fn untrusted(names: &Names, why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => format!(
            "its certificate is from an authority that we do not trust; put that authority's certificate \
             into the file of {}",
            names.ca
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {} but for {}; use one of those names in {}, or give the {} another \
             certificate",
            expected.to_str(),
            presented.join(", "),
            names.hosts,
            names.server
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

/// Why the server does not accept us; `None` if a retry may help.
fn rejected_by(names: &Names, alert: Alert) -> Option<String> {
    match alert {
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::CertificateRequired
        | Alert::UnknownCA
        | Alert::AccessDenied => Some(format!(
            "it requires another client certificate ({alert:?}); check {} and {}",
            names.cert, names.key
        )),
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => Some(format!(
            "it has nothing in common with us ({alert:?}): use TLS 1.2 or 1.3 with a modern cipher, and a \
             client certificate ({}) if the {} asks for one",
            names.cert, names.server
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: Names =
        Names { server: "server", ca: "CA", cert: "CERT", key: "KEY", hosts: "HOSTS", mode: "MODE" };

    #[test]
    fn the_name_is_the_host_without_its_port_and_may_be_an_address() {
        let name = |host| server_name("broker", host).map(|name| name.to_str().into_owned());
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
        let reason = private_key("KAFKA_TLS_KEY", &file("key", encrypted)).expect_err("encrypted");
        assert!(reason.contains("openssl pkey") && !reason.contains("aHVz"), "{reason}");
    }

    #[test]
    fn what_may_pass_is_no_refusal() {
        let refusal_of = |error: rustls::Error| {
            let error = typed(&NAMES, io::Error::new(io::ErrorKind::InvalidData, error));
            Refused::reason(&error).map(str::to_owned)
        };
        assert_eq!(refusal_of(rustls::Error::AlertReceived(Alert::InternalError)), None);
        assert_eq!(refusal_of(rustls::Error::DecryptError), None);
        assert!(refusal_of(rustls::Error::AlertReceived(Alert::CertificateRequired)).is_some());
        assert!(refusal_of(CertificateError::UnknownIssuer.into()).is_some());
    }
}
