//! Headers of records: read by the Java client and `kcat`, passed over by our consumers, and kept when a batch is resent.

use event_pipeline::broker::{Headers, Receipt, Record, Sink, open_sink};
use event_pipeline::config::{Compression, KafkaClient, KafkaConfig, RecordHeader, SendConfig};

use super::compressed::{hex, read_by};
use super::once::behind_proxy;
use super::{assert_all_retryable, config};
use crate::support::admin::PRODUCE;
use crate::support::java::Java;
use crate::support::kafka::{clients, shared};
use crate::support::topic::Topic;
use crate::support::wait::secs;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    pairs.iter().for_each(|(name, value)| headers.push(name, value.as_bytes()));
    headers
}

fn record<'a>(value: &'a str, headers: &'a Headers) -> Record<'a> {
    Record { headers: headers.as_bytes(), ..Record::new(Some(b"key"), value.as_bytes()) }
}

/// The headers of each record of partition 0, as `kcat` shows them.
fn by_kcat(topic: &Topic) -> Vec<String> {
    let printed = topic.kcat(&["-C", "-o", "beginning", "-e", "-q", "-f", "%h\\n"], b"");
    String::from_utf8(printed).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn java_and_kcat_read_them_and_our_consumers_read_past_them() {
    let topic = shared().topic_with(1, &[("compression.type", "producer")]);
    let sets: [&[(&str, &str)]; 4] = [
        &[],
        &[("traceparent", "00-1"), ("client", "événement")],
        &[("x-request-id", "")],
        &[("a", "1"), ("a", "2")],
    ];
    let mut written = Vec::new();
    for compression in [Compression::None, Compression::Zstd] {
        // The default client must choose our own by itself.
        let auto = KafkaConfig { client: KafkaClient::Auto, ..config(&topic.brokers(), &topic.name) };
        let send = SendConfig { compression, headers: vec![RecordHeader::Client] };
        let mut sink = open_sink(&auto, &send).expect("a thread");
        let encoded = sets.map(headers);
        let values: Vec<String> = (0..100).map(|n| format!("{compression} {n}")).collect();
        let records: Vec<Record<'_>> = values
            .iter()
            .zip(encoded.iter().cycle())
            .map(|(value, headers)| record(value, headers))
            .collect();
        let outcomes = sink.send(&records, secs(60));
        let first = written.len() as i64;
        for (offset, outcome) in (first..).zip(outcomes) {
            assert_eq!(outcome, Ok(Receipt { partition: 0, offset }));
        }
        written.extend(values);
    }
    assert_eq!(topic.codecs(0), [0, 4]);
    let as_text = |set: &[(&str, &str)], value: fn(&str) -> String| {
        set.iter().map(|(name, text)| format!("{name}={}", value(text))).collect::<Vec<_>>().join(",")
    };
    let lines = Java::start(&["read", &topic.brokers(), &topic.name, &written.len().to_string()]).finish();
    let by_kcat = by_kcat(&topic);
    assert_eq!((lines.len(), by_kcat.len()), (written.len(), written.len()));
    for (index, line) in lines.iter().enumerate() {
        let (words, set) = (line.split(' ').collect::<Vec<_>>(), sets[index % 100 % sets.len()]);
        assert_eq!((words[4], words[5]), (&*hex(b"key"), &*hex(written[index].as_bytes())));
        let expected = as_text(set, |text| hex(text.as_bytes()));
        assert_eq!(words[6], if set.is_empty() { "none" } else { &expected }, "{index}");
        assert_eq!(by_kcat[index], as_text(set, str::to_owned), "{index}");
    }
    let all = [KafkaClient::Crate, KafkaClient::Auto, KafkaClient::Wire];
    // Of both batches; the crate reads no zstd, so it only reads the first.
    for client in
        all.into_iter().filter(|client| *client != KafkaClient::Crate || clients().contains(&"crate"))
    {
        let end = if client == KafkaClient::Crate { 100 } else { 200 };
        let read = read_by(client, &topic, end);
        let expected: Vec<&[u8]> = written[..end as usize].iter().map(String::as_bytes).collect();
        assert!(read == expected, "{client:?}");
    }
}

#[test]
fn a_batch_that_is_sent_again_has_the_headers_of_each_record() {
    let (topic, proxy, mut sink) = behind_proxy(2);
    let sets = [headers(&[("client", "a")]), headers(&[("client", "b")]), Headers::default()];
    // Equal but for their headers.
    let records: Vec<Record<'_>> = sets.iter().map(|headers| record("same", headers)).collect();
    proxy.lose_replies(PRODUCE, 1);
    assert_all_retryable(&sink.send(&records, secs(5)));
    assert_eq!(proxy.replies_to_lose(), 0, "it was written");
    let (newer, turned) = (record("newer", &sets[1]), [records[2], records[0], records[1]]);
    let outcomes = sink.send(&[&turned[..], &[newer]].concat(), secs(60));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(topic.count(), 4, "each once");
    let receipts: Vec<Receipt> = outcomes.into_iter().map(|outcome| outcome.expect("stored")).collect();
    let stored = topic.kcat(&["-C", "-o", "beginning", "-e", "-q", "-f", "%p/%o %s %h\\n"], b"");
    let stored = String::from_utf8(stored).expect("UTF-8");
    for (receipt, expected) in
        receipts.iter().zip(["same ", "same client=a", "same client=b", "newer client=b"])
    {
        let line = format!("{}/{} {expected}", receipt.partition, receipt.offset);
        assert!(stored.lines().any(|stored| stored == line), "{line} is not in {stored}");
    }
}
