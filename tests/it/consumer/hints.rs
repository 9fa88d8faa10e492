//! What a cluster's settings get wrong is named, and what the group cannot have does not stop the log.

use std::process::{Command, Stdio};

use crate::consumer::{Site, wait_problem, wait_ready};
use crate::support::kafka::{Cluster, shared};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

#[test]
fn an_offsets_topic_that_one_broker_cannot_create_is_named() {
    let cluster = Cluster::with_properties(1, "offsets.topic.replication.factor=3\n");
    let topic = cluster.topic();
    let site = Site::new(&topic);
    let mut consumer = site.start(&[]);
    wait_problem(&mut consumer, "offsets.topic.replication.factor");
}

#[test]
fn members_of_another_program_in_the_group_are_named_and_do_not_stop_the_log() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let group = format!("group-of-{}", topic.name);
    let other = shared().topic();
    let mut member = Command::new("kcat")
        .args(["-b", &topic.brokers(), "-G", &group, &other.name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kcat");
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    // The member may join after the first commits.
    eventually(secs(60), "the member is named", || {
        topic.kcat(&["-P"], format!("{{\"n\": {}}}\n", fastrand::u64(..)).as_bytes());
        let said = consumer.stderr();
        said.contains("another program is a member of this group") && said.contains("KAFKA_GROUP")
    });
    site.wait_caught_up();
    wait_ready(&mut consumer);
    site.audit();
    let _ = member.kill();
    let _ = member.wait();
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn an_address_that_the_cluster_advertised_and_nobody_can_reach_is_said_to_be_that() {
    let cluster = Cluster::start_on(1, |port| {
        let listeners = |outside: u16| format!("PLAINTEXT://127.0.0.1:{port},OUTSIDE://127.0.0.1:{outside}");
        let properties = format!(
            "listeners={},CONTROLLER://127.0.0.1:{}\nadvertised.listeners={}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\n",
            listeners(port + 2),
            port + 1,
            listeners(port + 3),
        );
        let file =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("advertised-{port}.properties"));
        std::fs::write(&file, properties).expect("written");
        vec![("KAFKA_PROPERTIES".into(), file.to_string_lossy().into_owned())]
    });
    let topic = cluster.topic();
    let outside = format!("127.0.0.1:{}", cluster.port(1) + 2);
    let nobody = format!("127.0.0.1:{}", cluster.port(1) + 3);
    let site = Site::new(&topic);
    let mut consumer = site.start(&[("KAFKA_BROKERS", &outside)]);
    wait_problem(&mut consumer, "advertised.listeners");
    wait_problem(&mut consumer, &nobody);
    let mut producer =
        Program::producer().env("KAFKA_BROKERS", &outside).env("KAFKA_TOPIC", &topic.name).start();
    wait_problem(&mut producer, "advertised.listeners");
    wait_problem(&mut producer, &nobody);
}

#[cfg(feature = "tls")]
mod acl {
    use std::path::Path;

    use super::*;
    use event_pipeline::broker::Source;

    use crate::consumer::source_of;
    use crate::support::admin::{self, Body};
    use crate::support::http;
    use crate::support::topic::Topic;

    const USER: &str = "alice";
    const PASSWORD: &str = "Hush-7f3a";

    const DESCRIBE_ACLS: i16 = 29;
    const CREATE_ACLS: i16 = 30;
    const DELETE_ACLS: i16 = 31;
    const READ: i8 = 3;
    const WRITE: i8 = 4;
    const DESCRIBE: i8 = 8;
    const TOPIC: i8 = 2;
    const GROUP: i8 = 3;
    const LITERAL: i8 = 3;
    const ANY: i8 = 1;
    const EVERY_HOST: &str = "*";

    /// A broker with an authorizer: without a password one may do everything, with one only what is allowed.
    fn guarded() -> Cluster {
        Cluster::start_on(1, |port| {
            let listeners = format!("PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{}", port + 2);
            let properties = format!(
                "listeners={listeners},CONTROLLER://127.0.0.1:{}\nadvertised.listeners={listeners}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,\
                 CONTROLLER:PLAINTEXT\n\
                 inter.broker.listener.name=PLAINTEXT\nsasl.enabled.mechanisms=PLAIN\n\
                 listener.name.sasl_plaintext.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:ANONYMOUS\n",
                port + 1
            );
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("acl-{port}.properties"));
            std::fs::write(&file, properties).expect("written");
            vec![("KAFKA_PROPERTIES".into(), file.to_string_lossy().into_owned())]
        })
    }

    fn allow(cluster: &Cluster, resource: i8, name: &str, operations: &[i8]) {
        const ALLOW: i8 = 3;
        let known = permissions(cluster, resource, name);
        let principal = format!("User:{USER}");
        let body = operations.iter().fold(Body::default().i32(operations.len() as i32), |body, operation| {
            body.i8(resource)
                .string(name)
                .i8(LITERAL)
                .string(&principal)
                .string(EVERY_HOST)
                .i8(*operation)
                .i8(ALLOW)
        });
        let mut answer = admin::call(cluster.address(1), CREATE_ACLS, 1, body).expect("answered");
        answer.i32();
        for (code, reason) in answer.array(|a| (a.i16(), a.string())) {
            assert_eq!(code, 0, "{reason}");
        }
        eventually(secs(60), "the broker knows it", || {
            permissions(cluster, resource, name) == known + operations.len()
        });
    }

    /// Adds the filter of all permissions of the user on `name`.
    fn all_on(body: Body, resource: i8, name: &str) -> Body {
        let body = body.i8(resource).string(name).i8(LITERAL).string(&format!("User:{USER}"));
        body.string(EVERY_HOST).i8(ANY).i8(ANY)
    }

    /// How many permissions on `name` the broker itself knows, which hears of them after the controller.
    fn permissions(cluster: &Cluster, resource: i8, name: &str) -> usize {
        let body = all_on(Body::default(), resource, name);
        let mut answer = admin::call(cluster.address(1), DESCRIBE_ACLS, 1, body).expect("answered");
        assert_eq!((answer.i32(), answer.i16(), answer.string().as_str()), (0, 0, ""));
        let found = answer.array(|a| {
            let _type_name_pattern = (a.i8(), a.string(), a.i8());
            a.array(|a| (a.string(), a.string(), a.i8(), a.i8())).len()
        });
        found.into_iter().sum()
    }

    /// Takes all permissions on `name` back.
    fn deny(cluster: &Cluster, resource: i8, name: &str) {
        let body = all_on(Body::default().i32(1), resource, name);
        let mut answer = admin::call(cluster.address(1), DELETE_ACLS, 1, body).expect("answered");
        assert_eq!((answer.i32(), answer.i32(), answer.i16()), (0, 1, 0), "one filter, no error");
        eventually(secs(60), "the broker knows it", || permissions(cluster, resource, name) == 0);
    }

    fn secured(brokers: &str) -> Vec<(&'static str, &str)> {
        vec![
            ("KAFKA_BROKERS", brokers),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("KAFKA_SASL_MECHANISM", "PLAIN"),
            ("KAFKA_SASL_USERNAME", USER),
            ("KAFKA_SASL_PASSWORD", PASSWORD),
            ("KAFKA_METADATA_MAX_AGE_MS", "500"),
        ]
    }

    /// Posts one event through a producer that may do no more than the README's table says.
    fn post(topic: &Topic, brokers: &str) {
        let settings = secured(brokers).into_iter().filter(|(name, _)| *name != "KAFKA_METADATA_MAX_AGE_MS");
        let program = Program::producer().env("KAFKA_TOPIC", &topic.name);
        let mut producer = settings.fold(program, |program, (name, value)| program.env(name, value)).start();
        wait_ready(&mut producer);
        let answer = http::post_event(producer.address(), b"{\"event\": \"login\"}").expect("answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(producer.terminate(secs(60)).success());
    }

    #[test]
    fn both_programs_need_what_the_readme_says_and_the_log_goes_on_without_the_group() {
        let cluster = guarded();
        let topic = cluster.topic();
        let group = format!("group-of-{}", topic.name);
        let brokers = format!("127.0.0.1:{}", cluster.port(1) + 2);
        let site = Site::new(&topic);
        let mut consumer = site.start(&secured(&brokers));
        wait_problem(&mut consumer, "this user lacks a permission (ACL)");
        allow(&cluster, TOPIC, &topic.name, &[WRITE, DESCRIBE]);
        post(&topic, &brokers);
        allow(&cluster, TOPIC, &topic.name, &[READ]);
        site.wait_caught_up();
        wait_ready(&mut consumer);
        let said = consumer.stderr();
        for words in ["GROUP_AUTHORIZATION_FAILED", "Read and Describe on the group", "Continuing without it"]
        {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        assert!(consumer.terminate(secs(60)).success());
        allow(&cluster, GROUP, &group, &[READ, DESCRIBE]);
        for _ in 0..2 {
            let mut consumer = site.start_ready(&secured(&brokers));
            assert!(consumer.terminate(secs(60)).success());
            assert!(!consumer.stderr().contains("AUTHORIZATION"), "{}", consumer.stderr());
        }
        // What is taken away and given back does not make the running consumer believe in another one.
        deny(&cluster, GROUP, &group);
        let mut consumer = site.start_ready(&secured(&brokers));
        consumer.stderr_after("Continuing without it: lag tools");
        allow(&cluster, GROUP, &group, &[READ, DESCRIBE]);
        let mut source = source_of(&topic);
        eventually(secs(60), "it commits again", || {
            assert!(consumer.is_alive(), "{}", consumer.stderr());
            let found = source.committed(&group, &[0]).expect("committed");
            found[0].as_ref().is_some_and(|found| found.note.contains("\"stopped\":false"))
        });
        assert!(consumer.terminate(secs(60)).success(), "{}", consumer.stderr());
        site.audit();
    }
}
