//! Peer as one would write it today, with axum and librdkafka. Like the producer, it answers 200 once the
//! broker has acknowledged with acks=all. It adds no timestamps and has no limits of its own, which is in its
//! favour. Usage: `axum-rdkafka ADDRESS BROKER TOPIC LINGER_MS THREADS BATCH_MESSAGES`.

use std::env;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::de::IgnoredAny;

struct App {
    producer: FutureProducer,
    topic: String,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [addr, broker, topic, linger_ms, threads, batch] = &arguments[..] else {
        panic!("usage: axum-rdkafka ADDRESS BROKER TOPIC LINGER_MS THREADS BATCH_MESSAGES");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.parse().expect("THREADS is a number"))
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker)
            .set("acks", "all")
            .set("linger.ms", linger_ms)
            .set("batch.num.messages", batch)
            .set("queue.buffering.max.messages", "1000000")
            .set("message.timeout.ms", "10000")
            .create()
            .expect("a producer");
        let app = Arc::new(App { producer, topic: topic.clone() });
        let router = Router::new().route("/register_event", post(register)).with_state(app);
        let listener = tokio::net::TcpListener::bind(addr).await.expect("the address can be bound");
        axum::serve(listener, router).await.expect("serves");
    });
}

async fn register(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if kind == b"application/x-ndjson" { many(&app, &body).await } else { one(&app, &body).await }
}

async fn one(app: &App, body: &[u8]) -> Response {
    if !is_event(body) {
        return (StatusCode::BAD_REQUEST, "not a JSON object").into_response();
    }
    match send(app, body).await {
        Some((partition, offset)) => json(format!(
            r#"{{"status":"ok","topic":"{}","partition":{partition},"offset":{offset}}}"#,
            app.topic
        )),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn many(app: &App, body: &[u8]) -> Response {
    let events: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|line| is_event(line)).collect();
    let receipts = join_all(events.iter().map(|event| send(app, event))).await;
    let accepted = receipts.iter().flatten().count();
    if accepted < events.len() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    json(format!(r#"{{"status":"ok","topic":"{}","accepted":{accepted}}}"#, app.topic))
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn is_event(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// Sends an event and returns its partition and offset once the broker has acknowledged it.
async fn send(app: &App, event: &[u8]) -> Option<(i32, i64)> {
    let record = FutureRecord::<(), [u8]>::to(&app.topic).payload(event);
    let delivery = app.producer.send_result(record).ok()?.await.ok()?.ok()?;
    Some((delivery.partition, delivery.offset))
}
