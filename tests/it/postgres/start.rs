//! A start that cannot work ends with exit code 2 and says what to do; one that may work later waits and says why.

use std::fs;

use crate::consumer::{wait_problem, wait_ready};
use crate::postgres::{IDS, Tables};
use crate::support::kafka::shared;
use crate::support::postgres::{self, Postgres};
use crate::support::process::Program;
use crate::support::topic::Topic;
use crate::support::wait::{self, secs};

const PASSWORD: &str = "Hush-7f3a,=9 x";

#[test]
fn missing_tables_rights_and_databases_end_the_start_with_the_way_out() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let mut tables = Tables::new(&topic, &database);
    let (code, said) = tables.fails(&[("CREATE_TABLES", "off")]);
    assert!(code == Some(2) && said.contains("CREATE_TABLES=run"), "{code:?} {said}");
    tables.url = database.url().replace(&database.name, "nothing");
    let (code, said) = tables.fails(&[]);
    assert!(code == Some(2) && said.contains("CREATE DATABASE nothing"), "{code:?} {said}");
    database.sql("CREATE ROLE reader LOGIN");
    tables.url = database.url().replace(postgres::OWNER, "reader").replacen("reader://", "postgres://", 1);
    let (code, said) = tables.fails(&[]);
    assert!(code == Some(2) && said.contains("permission denied"), "{code:?} {said}");
    let printed = Program::consumer().args(&["--create-tables", "print"]).run(secs(60)).stdout;
    database.sql(&printed);
    let (code, said) = tables.fails(&[("CREATE_TABLES", "off")]);
    assert!(code == Some(2) && said.contains("GRANT SELECT, INSERT ON"), "{code:?} {said}");
    let grants = said.rsplit_once(": ").expect("the way out").1.trim().to_owned();
    database.sql(&grants);
    topic.kcat(&["-P"], b"{}\n");
    let mut consumer = tables.start_ready(&[("CREATE_TABLES", "off")]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    database.sql("REASSIGN OWNED BY reader TO postgres; DROP OWNED BY reader; DROP ROLE reader");
}

#[test]
fn a_table_of_another_shape_ends_the_start() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    database.sql("CREATE TABLE events (topic_id text, partition int, \"offset\" text, logged_at timestamptz, event jsonb, event_id text)");
    let (code, said) = tables.fails(&[]);
    assert!(
        code == Some(2) && said.contains("\"offset\"") && said.contains("is text, but must be bigint"),
        "{said}"
    );
}

#[test]
fn bad_settings_end_the_start_and_show_no_password() {
    for (settings, word) in [
        (&[("DESTINATION_URL", "postgres://me:Hush-7f3a@db/app")][..], "DESTINATION_PASSWORD_FILE"),
        (&[("DESTINATION_URL", "postgres://me@db/app?password=Hush-7f3a")], "not supported"),
        (&[("DESTINATION_PASSWORD", "Hush-7f3a")], "no effect without DESTINATION_URL"),
        (&[("CREATE_TABLES", "run")], "no effect without DESTINATION_URL"),
    ] {
        let mut program = Program::consumer();
        for (name, value) in settings {
            program = program.env(name, value);
        }
        let finished = program.run(secs(60));
        assert_eq!(finished.status.code(), Some(2), "{settings:?}");
        assert!(finished.stderr.contains(word) && !finished.stderr.contains("Hush"), "{}", finished.stderr);
    }
}

#[test]
fn a_server_that_is_away_at_the_start_is_waited_for() {
    let topic = shared().topic();
    let mut server = Postgres::start(&[]);
    let name = server.database().name;
    server.stop();
    let url = format!("postgres://{}@{}/{name}", postgres::OWNER, server.address());
    let mut consumer = Program::consumer()
        .env("KAFKA_BROKERS", topic.brokers())
        .env("KAFKA_TOPIC", &topic.name)
        .env("DESTINATION_URL", url)
        .env("CREATE_TABLES", "run")
        .start();
    wait_problem(&mut consumer, "Connection refused");
    topic.kcat(&["-P"], b"{}\n");
    server.run();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
}

/// Passwords: a wrong one ends the start; a new one is read from its file with the next connection.
#[test]
fn a_password_can_be_changed_while_the_consumer_runs() {
    let topic = shared().topic();
    let mut server = Postgres::start(&[]);
    let name = server.database().name;
    let sql =
        |server: &Postgres, sql: &str| server.try_sql(&name, sql).unwrap_or_else(|error| panic!("{error}"));
    sql(
        &server,
        &format!("CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON SCHEMA public TO writer"),
    );
    let url = format!("postgres://writer@{}/{name}", server.address());
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("password");
    let program = |topic: &Topic| {
        Program::consumer()
            .env("KAFKA_BROKERS", topic.brokers())
            .env("KAFKA_TOPIC", &topic.name)
            .env("DESTINATION_URL", &url)
            .env("CREATE_TABLES", "run")
    };
    let finished = program(&topic).run(secs(120));
    assert!(
        finished.status.code() == Some(2) && finished.stderr.contains("needs a password"),
        "{}",
        finished.stderr
    );
    let finished = program(&topic).env("DESTINATION_PASSWORD", "wrong").run(secs(120));
    assert!(finished.status.code() == Some(2) && finished.stderr.contains("28P01"), "{}", finished.stderr);
    fs::write(&file, format!("{PASSWORD}\n")).expect("written");
    let mut consumer = program(&topic).env("DESTINATION_PASSWORD_FILE", &file).start();
    wait_ready(&mut consumer);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    // The next connection needs the new password.
    sql(&server, "ALTER ROLE writer PASSWORD 'another'");
    server.stop();
    wait_problem(&mut consumer, "Connection refused");
    server.run();
    wait_problem(&mut consumer, "28P01");
    topic.kcat(&["-P"], b"{\"a\": 2}\n");
    fs::write(&file, "another\n").expect("written");
    wait_ready(&mut consumer);
    wait::eventually(secs(120), "both are there", || sql(&server, "SELECT count(*) FROM events") == "2");
    assert!(consumer.terminate(secs(60)).success());
    assert!(
        !consumer.stderr().contains(PASSWORD) && !consumer.stderr().contains("another"),
        "{}",
        consumer.stderr()
    );
}

#[test]
fn md5_is_refused_without_a_verified_certificate() {
    let topic = shared().topic();
    let server = Postgres::start(&["password_encryption=md5"]);
    let database = server.database();
    database.sql(&format!("CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'"));
    fs::write(server.data().join("pg_hba.conf"), "host all writer all md5\nhost all all all trust\n")
        .expect("written");
    database.sql("SELECT pg_reload_conf()");
    let mut tables = Tables::new(&topic, &database);
    tables.url = database.url().replace("postgres@", "writer@");
    let (code, said) = tables.fails(&[("DESTINATION_PASSWORD", PASSWORD)]);
    assert!(code == Some(2) && said.contains("scram-sha-256") && !said.contains(PASSWORD), "{code:?} {said}");
}

/// A server that accepts everyone may be an impostor that confirms events and drops them.
#[test]
fn a_server_that_does_not_ask_for_the_password_is_refused() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let (code, said) = tables.fails(&[("DESTINATION_PASSWORD", PASSWORD)]);
    assert!(code == Some(2) && said.contains("does not ask for the password"), "{code:?} {said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn a_host_that_refuses_us_does_not_hide_the_next_one() {
    let topic = shared().topic();
    let first = Postgres::start(&[]);
    fs::write(first.data().join("pg_hba.conf"), "host all postgres all reject\n").expect("written");
    first.try_sql(postgres::OWNER, "SELECT pg_reload_conf()").expect("reloaded");
    wait::eventually(secs(60), "it refuses", || first.try_sql(postgres::OWNER, "SELECT 1").is_err());
    let database = postgres::shared().database();
    let address = database.server.address();
    let mut tables = Tables::through(&topic, &database, &format!("{},{address}", first.address()));
    topic.kcat(&["-P"], b"{}\n");
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    assert!(
        consumer.stderr().contains("pg_hba.conf") && consumer.stderr().contains(&format!("using {address}"))
    );
    assert!(consumer.terminate(secs(60)).success());
    tables.url = database.url_at(&first.address());
    let (code, said) = tables.fails(&[]);
    assert!(code == Some(2) && said.contains("pg_hba.conf"), "{code:?} {said}");
}

/// Events with ids go through a temporary table.
#[test]
fn ids_need_the_right_to_make_temporary_tables() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let mut tables = Tables::new(&topic, &database);
    database.sql(&format!(
        "CREATE ROLE plain LOGIN; GRANT CREATE ON SCHEMA public TO plain; REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC",
        database.name
    ));
    tables.url = database.url().replacen(postgres::OWNER, "plain", 2).replacen("plain://", "postgres://", 1);
    let (code, said) = tables.fails(&[IDS]);
    assert!(code == Some(2) && said.contains("GRANT TEMPORARY ON DATABASE"), "{code:?} {said}");
    database.sql(said.rsplit_once(": ").expect("the way out").1.trim());
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n");
    let mut consumer = tables.start_ready(&[IDS]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    database.sql(&format!(
        "REVOKE TEMPORARY ON DATABASE {} FROM plain; DROP OWNED BY plain; DROP ROLE plain",
        database.name
    ));
}
