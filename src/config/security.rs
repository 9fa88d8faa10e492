//! TLS and SASL settings for Kafka, shared by the producer and the consumer.
//!
//! The password has no flag, since every user can read the command line of a process. It does not pass
//! through clap either, whose error messages repeat values.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::secret::{PASSWORD_ENV, Secret};
use super::values;

const PASSWORD_FILE_ENV: &str = "KAFKA_SASL_PASSWORD_FILE";

/// Where Linux distributions keep the certificate authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How connections to the brokers are encrypted and authenticated.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kafka security")]
pub struct SecurityConfig {
    /// Security protocol of the brokers in KAFKA_BROKERS; all except PLAINTEXT require a build with
    /// --features tls
    #[arg(
        long = "kafka-security-protocol",
        env = "KAFKA_SECURITY_PROTOCOL",
        default_value = "PLAINTEXT",
        value_enum,
        ignore_case = true
    )]
    pub protocol: SecurityProtocol,

    /// SASL mechanism
    #[arg(long = "kafka-sasl-mechanism", env = "KAFKA_SASL_MECHANISM", value_enum, ignore_case = true)]
    pub mechanism: Option<SaslMechanism>,

    /// SASL user name; the password comes from KAFKA_SASL_PASSWORD (environment or .env, there is no flag) or
    /// KAFKA_SASL_PASSWORD_FILE
    #[arg(
        long = "kafka-sasl-username",
        env = "KAFKA_SASL_USERNAME",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub username: Option<String>,

    /// Password from the environment.
    #[arg(skip = Secret::from_environment(PASSWORD_ENV))]
    pub password: Option<Secret>,

    /// File with the SASL password; read for each connection, so it can be replaced while the program runs
    #[arg(long = "kafka-sasl-password-file", env = "KAFKA_SASL_PASSWORD_FILE", value_name = "PATH")]
    pub password_file: Option<PathBuf>,

    /// Certificate authorities that must have signed the brokers' certificates (PEM); if unset, SSL_CERT_FILE
    /// or else the system's. TLS files are read for each connection, so they can be replaced while the
    /// program runs
    #[arg(long = "kafka-tls-ca", env = "KAFKA_TLS_CA", value_name = "PATH")]
    pub ca: Option<PathBuf>,

    /// Client certificate with its intermediate certificates (PEM), for brokers that require one
    #[arg(long = "kafka-tls-cert", env = "KAFKA_TLS_CERT", value_name = "PATH")]
    pub cert: Option<PathBuf>,

    /// Private key of KAFKA_TLS_CERT (PEM, not encrypted)
    #[arg(long = "kafka-tls-key", env = "KAFKA_TLS_KEY", value_name = "PATH")]
    pub key: Option<PathBuf>,
}

/// Security protocol of a broker's port, by Kafka's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SecurityProtocol {
    /// Neither TLS nor SASL.
    #[default]
    #[value(name = "PLAINTEXT")]
    Plaintext,
    /// TLS without SASL.
    #[value(name = "SSL")]
    Ssl,
    /// SASL without TLS; with `PLAIN`, the password can be read on the network.
    #[value(name = "SASL_PLAINTEXT")]
    SaslPlaintext,
    /// SASL over TLS.
    #[value(name = "SASL_SSL")]
    SaslSsl,
}

impl SecurityProtocol {
    /// True if connections are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// True if clients authenticate with SASL.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SaslMechanism {
    /// Sends the password itself.
    #[value(name = "PLAIN")]
    Plain,
    /// Sends a proof of the password (RFC 7677); the broker proves that it knows the password too.
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// Like SCRAM-SHA-256, with a longer hash.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl fmt::Display for SecurityProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

impl fmt::Display for SaslMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl SecurityConfig {
    /// The password, from the environment or from the file.
    ///
    /// # Errors
    /// No password is set, or its file cannot be read or is empty. The text is one sentence.
    pub fn password(&self) -> Result<Secret, String> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(password.clone()),
            (None, Some(file)) => Secret::from_file(PASSWORD_FILE_ENV, file),
            (None, None) => Err(format!("neither {PASSWORD_ENV} nor KAFKA_SASL_PASSWORD_FILE is set")),
        }
    }

    /// The password from the environment, with the name of its variable.
    pub fn given_password(&self) -> Option<(&'static str, &Secret)> {
        Some((PASSWORD_ENV, self.password.as_ref()?))
    }

    /// The file with the certificate authorities to trust, and the setting it comes from.
    pub fn authorities(&self) -> (&'static str, PathBuf) {
        self.ca.as_ref().map_or_else(system_authorities, |ca| ("KAFKA_TLS_CA", ca.clone()))
    }

    /// Checks relations between these settings, and that the files can be read.
    ///
    /// # Errors
    /// One sentence with the settings and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let protocol = self.protocol;
        if protocol != SecurityProtocol::Plaintext && !cfg!(feature = "tls") {
            return Err(format!(
                "KAFKA_SECURITY_PROTOCOL={protocol}: this program was built without TLS and SASL; build it \
                 with `cargo build --release --features tls`"
            ));
        }
        if protocol.has_sasl() {
            self.validate_sasl()?
        } else {
            self.refuse_useless(&self.sasl_settings(), "SASL_SSL")?
        }
        if protocol.has_tls() {
            self.validate_tls()
        } else {
            self.refuse_useless(&self.tls_settings(), "SSL or SASL_SSL")
        }
    }

    fn sasl_settings(&self) -> [(&'static str, bool); 4] {
        [
            ("KAFKA_SASL_MECHANISM", self.mechanism.is_some()),
            ("KAFKA_SASL_USERNAME", self.username.is_some()),
            (PASSWORD_ENV, self.password.is_some()),
            ("KAFKA_SASL_PASSWORD_FILE", self.password_file.is_some()),
        ]
    }

    fn tls_settings(&self) -> [(&'static str, bool); 3] {
        [
            ("KAFKA_TLS_CA", self.ca.is_some()),
            ("KAFKA_TLS_CERT", self.cert.is_some()),
            ("KAFKA_TLS_KEY", self.key.is_some()),
        ]
    }

    /// Rejects settings without effect: a user who sets a password or an authority expects it to be used.
    fn refuse_useless(&self, settings: &[(&str, bool)], needed: &str) -> Result<(), String> {
        match settings.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(format!(
                "{name} has no effect with KAFKA_SECURITY_PROTOCOL={}; set that to {needed}, or unset {name}",
                self.protocol
            )),
            None => Ok(()),
        }
    }

    fn validate_sasl(&self) -> Result<(), String> {
        let protocol = self.protocol;
        if self.mechanism.is_none() {
            return Err(format!(
                "KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_MECHANISM: PLAIN, SCRAM-SHA-256 or \
                 SCRAM-SHA-512"
            ));
        }
        if self.username.as_ref().is_none_or(|name| name.is_empty() || name.contains('\0')) {
            return Err(format!("KAFKA_SECURITY_PROTOCOL={protocol} needs a non-empty KAFKA_SASL_USERNAME"));
        }
        let given = (PASSWORD_ENV, self.password.as_ref());
        match Secret::check_given(given, (PASSWORD_FILE_ENV, self.password_file.as_deref()))? {
            true => Ok(()),
            false => Err(format!(
                "KAFKA_SECURITY_PROTOCOL={protocol} needs {PASSWORD_ENV} (environment or .env) or \
                 KAFKA_SASL_PASSWORD_FILE"
            )),
        }
    }

    fn validate_tls(&self) -> Result<(), String> {
        let (cert, key) = ("KAFKA_TLS_CERT", "KAFKA_TLS_KEY");
        if self.cert.is_some() != self.key.is_some() {
            let (given, missing) = if self.cert.is_some() { (cert, key) } else { (key, cert) };
            return Err(format!("{given} is set without {missing}; set both, or neither"));
        }
        for (name, file) in [("KAFKA_TLS_CA", &self.ca), (cert, &self.cert), (key, &self.key)] {
            if let Some(file) = file {
                // Opening a pipe would block until another process writes to it.
                values::file(name, file)?;
                File::open(file).map_err(|error| format!("{name}={}: {error}", file.display()))?;
            }
        }
        Ok(())
    }
}

/// The file with the authorities that this machine trusts, and the setting it comes from.
pub fn system_authorities() -> (&'static str, PathBuf) {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        return ("SSL_CERT_FILE", file.into());
    }
    let there = SYSTEM_AUTHORITIES.iter().find(|path| Path::new(path).exists());
    ("the system's authorities", there.unwrap_or(&SYSTEM_AUTHORITIES[0]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_effect_is_refused_by_name() {
        let refused = |config: SecurityConfig| config.validate().expect_err("refused");
        let username = SecurityConfig { username: Some("me".into()), ..SecurityConfig::default() };
        assert!(refused(username).contains("KAFKA_SASL_USERNAME"));
        let ca = SecurityConfig { ca: Some("/ca.pem".into()), ..SecurityConfig::default() };
        assert!(refused(ca).contains("KAFKA_TLS_CA"));
        assert_eq!(SecurityConfig::default().validate(), Ok(()));
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn a_build_without_it_says_how_to_get_it() {
        let config = SecurityConfig { protocol: SecurityProtocol::SaslSsl, ..SecurityConfig::default() };
        let reason = config.validate().expect_err("refused");
        assert!(
            reason.contains("SASL_SSL") && reason.contains("cargo build --release --features tls"),
            "{reason}"
        );
    }

    #[test]
    #[cfg(feature = "tls")]
    fn what_is_missing_is_named() {
        let sasl = SecurityConfig {
            protocol: SecurityProtocol::SaslSsl,
            mechanism: Some(SaslMechanism::ScramSha512),
            username: Some("me".into()),
            password: Some(Secret::new("hush")),
            ..SecurityConfig::default()
        };
        assert_eq!(sasl.validate(), Ok(()));
        let cases = [
            ("KAFKA_SASL_MECHANISM", SecurityConfig { mechanism: None, ..sasl.clone() }),
            ("KAFKA_SASL_USERNAME", SecurityConfig { username: None, ..sasl.clone() }),
            ("KAFKA_SASL_USERNAME", SecurityConfig { username: Some(String::new()), ..sasl.clone() }),
            (PASSWORD_ENV, SecurityConfig { password: None, ..sasl.clone() }),
            (PASSWORD_ENV, SecurityConfig { password: Some(Secret::new("")), ..sasl.clone() }),
            ("both set", SecurityConfig { password_file: Some("/dev/null".into()), ..sasl.clone() }),
            (
                "/nowhere",
                SecurityConfig { password: None, password_file: Some("/nowhere".into()), ..sasl.clone() },
            ),
            ("KAFKA_TLS_CA=/nowhere", SecurityConfig { ca: Some("/nowhere".into()), ..sasl.clone() }),
            ("without KAFKA_TLS_KEY", SecurityConfig { cert: Some("/dev/null".into()), ..sasl.clone() }),
            ("KAFKA_TLS_CERT", SecurityConfig { key: Some("/dev/null".into()), ..sasl.clone() }),
        ];
        for (named, config) in cases {
            let reason = config.validate().expect_err(named);
            assert!(reason.contains(named) && !reason.contains("hush"), "{named}: {reason}");
        }
    }
}
