//! TLS to the database: who is trusted, what is refused, our own certificate, and that SCRAM is bound to the connection.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::postgres::Tables;
use crate::support::certificates::{Authority, Certificate};
use crate::support::kafka::shared;
use crate::support::postgres::{self, Database, Postgres};
use crate::support::wait::secs;

const PASSWORD: &str = "Hush-7f3a,=9 x";

/// A server with a certificate for its address. `writer` needs a password, and `machine` a certificate of `authority`.
fn server(dir: &Path, authority: &Authority) -> Postgres {
    let certificate = authority.certify("db", "IP:127.0.0.1", 2);
    let settings = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=ca.crt"];
    let mut server = Postgres::create(&dir.join("data"), &settings);
    let files = [
        (certificate.certificate, "server.crt"),
        (certificate.key, "server.key"),
        (authority.file(), "ca.crt"),
    ];
    for (from, name) in files {
        let to = server.data().join(name);
        fs::copy(from, &to).expect("copied");
        postgres::give(&to);
    }
    fs::write(
        server.data().join("pg_hba.conf"),
        "hostssl all writer all scram-sha-256\nhostssl all machine all cert\nhost all postgres all trust\n",
    )
    .expect("written");
    server.run();
    server
}

/// A database on it that both may use.
fn database(server: &Postgres) -> Database<'_> {
    let database = server.database();
    database.sql(&format!(
        "CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON SCHEMA public TO writer; CREATE ROLE machine LOGIN \
         IN ROLE writer"
    ));
    database
}

#[test]
fn a_server_is_trusted_by_its_certificate_or_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Authority::new(dir.path(), "authority");
    let other = Authority::new(dir.path(), "other");
    let server = server(dir.path(), &authority);
    let topic = shared().topic();
    let database = database(&server);
    let mut tables = Tables::new(&topic, &database);
    let base = database.url().replace("postgres@", "writer@");
    let password = [("DESTINATION_PASSWORD", PASSWORD)];
    for (query, word) in [
        (format!("sslmode=verify-full&sslrootcert={}", other.file().display()), "sslrootcert"),
        ("sslmode=disable".to_owned(), "pg_hba.conf"),
    ] {
        tables.url = format!("{base}?{query}");
        let (code, said) = tables.fails(&password);
        assert!(
            code == Some(2) && said.contains(word) && !said.contains(PASSWORD),
            "{query}: {code:?} {said}"
        );
    }
    tables.url = format!("{base}?sslmode=verify-full&sslrootcert={}", authority.file().display());
    tables.url = tables.url.replace("127.0.0.1", "localhost");
    let (code, said) = tables.fails(&password);
    assert!(code == Some(2) && said.contains("not for localhost"), "{code:?} {said}");
    for query in
        [format!("sslmode=verify-full&sslrootcert={}", authority.file().display()), "sslmode=require".into()]
    {
        tables.url = format!("{base}?{query}");
        topic.kcat(&["-P"], b"{\"a\": 1}\n");
        let mut consumer = tables.start_ready(&password);
        tables.wait_caught_up();
        let state = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE usename = 'writer'";
        assert_eq!(database.sql(state), "t");
        assert!(consumer.terminate(secs(60)).success());
    }
    tables.audit();
}

#[test]
fn a_server_without_tls_is_refused_by_name() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let mut tables = Tables::new(&topic, &database);
    tables.url = format!("{}?sslmode=require", database.url());
    let (code, said) = tables.fails(&[]);
    assert!(code == Some(2) && said.contains("does not support TLS"), "{code:?} {said}");
}

#[test]
fn our_own_certificate_takes_the_place_of_a_password() {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Authority::new(dir.path(), "authority");
    let server = server(dir.path(), &authority);
    let topic = shared().topic();
    let database = database(&server);
    let mut tables = Tables::new(&topic, &database);
    let base = database.url().replace("postgres@", "machine@");
    let base = format!("{base}?sslmode=verify-full&sslrootcert={}", authority.file().display());
    tables.url.clone_from(&base);
    let (code, said) = tables.fails(&[]);
    assert!(code == Some(2) && said.contains("requires a valid client certificate"), "{code:?} {said}");
    let Certificate { certificate, key, .. } = authority.certify("machine", "DNS:machine", 2);
    tables.url = format!("{base}&sslcert={}&sslkey={}", certificate.display(), key.display());
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    let name =
        "SELECT client_dn FROM pg_stat_ssl JOIN pg_stat_activity a USING (pid) WHERE usename = 'machine'";
    assert_eq!(database.sql(name), "/CN=machine");
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// With `sslmode=require` somebody in between can show any certificate, but the proof of the password is for that one.
#[test]
fn a_proof_of_the_password_is_of_no_use_on_another_connection() {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Authority::new(dir.path(), "authority");
    let other = Authority::new(dir.path(), "other");
    let server = server(dir.path(), &authority);
    let (topic, database) = (shared().topic(), database(&server));
    let between = stand_between(&other.certify("between", "IP:127.0.0.1", 2), &authority, server.address());
    let mut tables = Tables::new(&topic, &database);
    tables.url = format!("postgres://writer@{between}/{}?sslmode=require", database.name);
    let (code, said) = tables.fails(&[("DESTINATION_PASSWORD", PASSWORD)]);
    assert!(code == Some(2) && said.contains("channel binding"), "{code:?} {said}");
}

/// Takes TLS connections with `certificate`, and passes on what both sides say by turns, which is enough for a login.
fn stand_between(certificate: &Certificate, authority: &Authority, upstream: String) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let shown = CertificateDer::from_pem_file(&certificate.certificate).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("PEM");
    let near = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![shown], key)
        .expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).expect("PEM")).expect("an authority");
    let far = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = (Arc::new(near), Arc::new(far));
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            // It ends with an error when a side closes.
            let _ = relay(client, &upstream, &near, &far);
        }
    });
    address
}

fn relay(
    mut near: TcpStream,
    upstream: &str,
    as_server: &Arc<ServerConfig>,
    as_client: &Arc<ClientConfig>,
) -> io::Result<()> {
    let mut far = TcpStream::connect(upstream)?;
    // The request for TLS, and its answer.
    let (mut request, mut answer) = ([0; 8], [0; 1]);
    near.read_exact(&mut request)?;
    far.write_all(&request)?;
    far.read_exact(&mut answer)?;
    near.write_all(&answer)?;
    let server = ServerConnection::new(as_server.clone()).map_err(io::Error::other)?;
    let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
    let client = ClientConnection::new(as_client.clone(), name).map_err(io::Error::other)?;
    let (mut near, mut far) = (StreamOwned::new(server, near), StreamOwned::new(client, far));
    let mut buffer = [0; 16 << 10];
    loop {
        let length = near.read(&mut buffer)?;
        far.write_all(&buffer[..length])?;
        let length = far.read(&mut buffer)?;
        near.write_all(&buffer[..length])?;
        if length == 0 {
            return Ok(());
        }
    }
}
