//! A real broker with a port for each way to get in, and the certificates and passwords for them.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use event_pipeline::broker::{Source, open_source};
use event_pipeline::config::{
    KafkaClient, KafkaConfig, SaslMechanism, Secret, SecurityConfig, SecurityProtocol,
};
use ring::pbkdf2;

use crate::support::admin::{self, Body};
use crate::support::certificates::{Authority, Certificate};
use crate::support::kafka::Cluster;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

pub const USER: &str = "alice";
/// Nothing else in a log, a help text or an error looks like it.
pub const PASSWORD: &str = "Hush-7f3a,=9 x";

/// How long the broker trusts a password on [`Port::SaslPlaintext`].
pub const SESSION_MS: u64 = 2000;

const ALTER_USER_SCRAM_CREDENTIALS: i16 = 51;

/// The ports of the broker, by what they want; the number is their distance from the first port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Plaintext = 0,
    Ssl = 2,
    /// Wants our certificate too.
    Mutual = 3,
    /// Speaks TLS 1.2; the others with TLS speak 1.3.
    SaslSsl = 4,
    /// Wants the password anew every two seconds, and not by SCRAM-SHA-512.
    SaslPlaintext = 5,
    /// Its certificate is for another name.
    OtherName = 6,
    /// Its certificate has expired.
    Expired = 7,
}

pub struct Secured {
    cluster: Cluster,
    port: u16,
    dir: PathBuf,
    pub authority: Authority,
    pub other_authority: Authority,
    pub client: Certificate,
    /// Of the other authority.
    pub stranger: Certificate,
}

/// The broker that all tests of this kind share.
pub fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(Secured::start)
}

impl Secured {
    fn start() -> Self {
        let dir = fresh_dir();
        let authority = Authority::new(&dir, "authority");
        let other_authority = Authority::new(&dir, "other-authority");
        let broker = authority.certify("broker", "IP:127.0.0.1,DNS:localhost", 2);
        let named = authority.certify("named", "DNS:kafka.example.com", 2);
        let expired = authority.certify("expired", "IP:127.0.0.1", 0);
        let stores = [&broker, &named, &expired].map(|certificate| certificate.both.clone());
        let file = dir.join("broker.properties");
        let trusted = authority.file();
        let cluster = Cluster::start_on(1, |port| {
            fs::write(&file, properties(port, &stores, &trusted)).expect("written");
            vec![("KAFKA_PROPERTIES".into(), file.to_string_lossy().into_owned())]
        });
        let port = cluster.port(1);
        let secured = Self {
            cluster,
            port,
            dir: dir.clone(),
            client: authority.certify("client", "DNS:client", 2),
            stranger: other_authority.certify("stranger", "DNS:client", 2),
            authority,
            other_authority,
        };
        secured.set_password(USER, PASSWORD);
        secured
    }

    /// `KAFKA_BROKERS` for a way in.
    pub fn brokers(&self, port: Port) -> String {
        format!("127.0.0.1:{}", self.port + port as u16)
    }

    pub fn topic(&self) -> Topic {
        self.cluster.topic_with(1, &[])
    }

    /// A file for a test, in a directory that the tests of this kind share.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    /// Settings that trust the broker, as `user` with `password`.
    pub fn config(&self, protocol: SecurityProtocol, mechanism: SaslMechanism) -> SecurityConfig {
        let sasl = protocol.has_sasl();
        SecurityConfig {
            protocol,
            mechanism: sasl.then_some(mechanism),
            username: sasl.then(|| USER.into()),
            password: sasl.then(|| Secret::new(PASSWORD)),
            ca: protocol.has_tls().then(|| self.authority.file()),
            ..SecurityConfig::default()
        }
    }

    /// Gives `user` a password for both SCRAM mechanisms; for PLAIN the broker's settings have it. The broker knows it
    /// when this returns.
    pub fn set_password(&self, user: &str, password: &str) {
        const ITERATIONS: u32 = 4096;
        let salt = b"salt of the test";
        for (mechanism, algorithm, length) in
            [(1, pbkdf2::PBKDF2_HMAC_SHA256, 32), (2, pbkdf2::PBKDF2_HMAC_SHA512, 64)]
        {
            let mut salted = vec![0; length];
            let iterations = NonZeroU32::new(ITERATIONS).expect("not zero");
            pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
            // The request is of the kind with compact lengths, whose header ends with a count of tags.
            let body = compact(Body::default().i8(0).i8(1).i8(2), user.as_bytes());
            let body = compact(compact(body.i8(mechanism).i32(ITERATIONS as i32), salt), &salted);
            let answer =
                admin::call(self.cluster.address(1), ALTER_USER_SCRAM_CREDENTIALS, 0, body.i8(0).i8(0));
            let mut answer = answer.expect("answered");
            let (_tags, _throttle, results) = (answer.i8(), answer.i32(), answer.i8());
            assert_eq!(results, 2, "one result");
            for _ in 0..answer.i8() - 1 {
                answer.i8();
            }
            assert_eq!(answer.i16(), 0, "the password of {user} is set");
        }
        self.wait_for_login(user, password);
    }

    /// The controller answers before the broker has read of the change.
    fn wait_for_login(&self, user: &str, password: &str) {
        let topic = self.topic();
        let security = SecurityConfig {
            username: Some(user.into()),
            password: Some(Secret::new(password)),
            // The one that was changed last.
            ..self.config(SecurityProtocol::SaslSsl, SaslMechanism::ScramSha512)
        };
        let config = KafkaConfig {
            brokers: vec![self.brokers(Port::SaslSsl)],
            topic: topic.name.clone(),
            connect_timeout_ms: 10_000,
            request_timeout_ms: 5000,
            client: KafkaClient::Auto,
            security,
        };
        eventually(secs(60), "the broker knows the password", || {
            open_source(&config).expect("a thread").partitions().is_ok()
        });
    }
}

/// A directory of this process; those of earlier ones are removed.
fn fresh_dir() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).expect("the tests' directory").flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("certificates-"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let dir = parent.join(format!("certificates-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

fn compact(body: Body, bytes: &[u8]) -> Body {
    bytes.iter().fold(body.i8(bytes.len() as i8 + 1), |body, byte| body.i8(byte.cast_signed()))
}

fn properties(port: u16, stores: &[PathBuf; 3], trusted: &Path) -> String {
    let listeners = [
        ("PLAINTEXT", "PLAINTEXT", Port::Plaintext),
        ("SSL", "SSL", Port::Ssl),
        ("MUTUAL", "SSL", Port::Mutual),
        ("SASL_SSL", "SASL_SSL", Port::SaslSsl),
        ("SASL_PLAINTEXT", "SASL_PLAINTEXT", Port::SaslPlaintext),
        ("NAMED", "SSL", Port::OtherName),
        ("EXPIRED", "SSL", Port::Expired),
    ];
    let list = |each: &dyn Fn(&(&str, &str, Port)) -> String| {
        listeners.iter().map(each).collect::<Vec<_>>().join(",")
    };
    let addresses = list(&|(name, _, at)| format!("{name}://127.0.0.1:{}", port + *at as u16));
    let protocols = list(&|(name, protocol, _)| format!("{name}:{protocol}"));
    let controller = port + 1;
    let [broker, named, expired] = stores.each_ref().map(|store| store.display());
    let trusted = trusted.display();
    let modules = "org.apache.kafka.common.security";
    let mut text = format!(
        "listeners={addresses},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={addresses}\n\
         listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         ssl.keystore.type=PEM\nssl.keystore.location={broker}\n\
         ssl.truststore.type=PEM\nssl.truststore.location={trusted}\n\
         listener.name.mutual.ssl.client.auth=required\n\
         listener.name.sasl_ssl.ssl.enabled.protocols=TLSv1.2\n\
         listener.name.named.ssl.keystore.location={named}\n\
         listener.name.expired.ssl.keystore.location={expired}\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl_plaintext.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\n"
    );
    for listener in ["sasl_ssl", "sasl_plaintext"] {
        text += &format!(
            "listener.name.{listener}.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required \
             user_{USER}=\"{PASSWORD}\";\n\
             listener.name.{listener}.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n\
             listener.name.{listener}.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n"
        );
    }
    for mechanism in ["plain", "scram-sha-256"] {
        text += &format!("listener.name.sasl_plaintext.{mechanism}.connections.max.reauth.ms={SESSION_MS}\n");
    }
    text
}
