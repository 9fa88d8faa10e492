//! TLS to the database: who is trusted, what is refused, and that SCRAM is bound to the connection.

use std::fs;

use crate::postgres::Tables;
use crate::support::certificates::Authority;
use crate::support::kafka::shared;
use crate::support::postgres::{self, Postgres};
use crate::support::wait::secs;

const PASSWORD: &str = "Hush-7f3a,=9 x";

#[test]
fn a_server_is_trusted_by_its_certificate_or_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Authority::new(dir.path(), "authority");
    let other = Authority::new(dir.path(), "other");
    let certificate = authority.certify("db", "IP:127.0.0.1", 2);
    let data = dir.path().join("data");
    let mut server =
        Postgres::create(&data, &["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"]);
    for (from, name) in [(&certificate.certificate, "server.crt"), (&certificate.key, "server.key")] {
        let to = server.data().join(name);
        fs::copy(from, &to).expect("copied");
        postgres::give(&to);
    }
    fs::write(
        server.data().join("pg_hba.conf"),
        "hostssl all writer all scram-sha-256\nhost all postgres all trust\n",
    )
    .expect("written");
    server.run();
    let topic = shared().topic();
    let database = server.database();
    database.sql(&format!(
        "CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON SCHEMA public TO writer"
    ));
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
