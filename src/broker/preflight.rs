//! Chooses the client for a broker by the requests it supports, before sending it any record. Does no I/O.

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::Versions;
#[cfg(feature = "wire")]
use crate::broker::protocol::{PRODUCE_KEY, REASONS_PRODUCE};
use crate::config::{Compression, KafkaClient};

/// Requests and versions that show whether the broker supports the kafka crate.
///
/// Produce cannot show it: Kafka 4.x lists version 0 for the sake of another client, but closes the
/// connection.
const NEEDS_CRATE: [(&str, i16, i16); 2] = [("Fetch v0", 1, 0), ("OffsetCommit v1", 8, 1)];

/// Requests that our own client uses, in addition to those that both clients need.
#[cfg(feature = "wire")]
const NEEDS_WIRE: [(&str, i16, i16); 3] =
    [("Produce v3", 0, 3), ("Fetch v4", 1, 4), ("InitProducerId v0", 22, 0)];

/// Writing zstd needs it too. Brokers from 2.1 on store zstd, but name the records that they reject only from 2.4 on.
#[cfg(feature = "wire")]
const NEEDS_ZSTD: [(&str, i16, i16); 1] = [("Produce v8", PRODUCE_KEY, REASONS_PRODUCE)];

/// The client that serves a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The `kafka` crate.
    Crate,
    /// Our own.
    #[cfg(feature = "wire")]
    Wire,
}

/// Chooses the client for the broker at `host`, which supports `versions`, to write with `compression`.
///
/// # Errors
/// Fails with [`BrokerError::Unsupported`], which says what to run or set instead.
pub fn choose(
    wanted: KafkaClient,
    compression: Compression,
    host: &str,
    versions: &Versions,
) -> Result<Served> {
    #[cfg(not(feature = "wire"))]
    let _ = compression;
    match (wanted, missing(&NEEDS_CRATE, versions)) {
        (KafkaClient::Auto | KafkaClient::Crate, None) => Ok(Served::Crate),
        (KafkaClient::Crate, Some(missing)) => Err(too_new(host, missing)),
        #[cfg(not(feature = "wire"))]
        (KafkaClient::Auto, Some(missing)) => Err(too_new(host, missing)),
        #[cfg(feature = "wire")]
        (KafkaClient::Auto | KafkaClient::Wire, _) => match self::missing(&NEEDS_WIRE, versions) {
            None => check_zstd(compression, host, versions).map(|()| Served::Wire),
            Some(missing) => Err(BrokerError::Unsupported(format!(
                "broker {host} does not serve {missing}, which KAFKA_CLIENT=wire needs; run Kafka 0.11 or \
                 newer, or set KAFKA_CLIENT=crate"
            ))),
        },
    }
}

#[cfg(feature = "wire")]
fn check_zstd(compression: Compression, host: &str, versions: &Versions) -> Result<()> {
    match missing(&NEEDS_ZSTD, versions).filter(|_| compression == Compression::Zstd) {
        None => Ok(()),
        Some(missing) => Err(BrokerError::Unsupported(format!(
            "broker {host} does not serve {missing}, which KAFKA_COMPRESSION=zstd needs; run Kafka 2.4 or newer, or \
             set KAFKA_COMPRESSION to lz4"
        ))),
    }
}

fn missing(needs: &[(&'static str, i16, i16)], versions: &Versions) -> Option<&'static str> {
    let missing = needs.iter().find(|(_, key, version)| !versions.serves(*key, *version));
    missing.map(|(name, ..)| *name)
}

fn too_new(host: &str, missing: &str) -> BrokerError {
    let way_out =
        if cfg!(feature = "wire") { "set KAFKA_CLIENT=auto" } else { "build with the cargo feature `wire`" };
    BrokerError::Unsupported(format!(
        "broker {host} is Kafka 4.x or newer (it no longer serves {missing}), which the kafka crate does not \
         support; {way_out}, or run Kafka 3.9 (scripts/kafka.sh start) and point KAFKA_BROKERS to it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Compression = Compression::None;

    fn kafka_3_9() -> Versions {
        Versions(vec![(0, 0, 11), (1, 0, 17), (8, 0, 9), (22, 0, 5)])
    }

    fn kafka_4() -> Versions {
        Versions(vec![(0, 0, 13), (1, 4, 18), (8, 2, 10), (22, 0, 6)])
    }

    #[test]
    fn a_forced_crate_is_refused_on_4_x_with_the_ways_out() {
        assert_eq!(choose(KafkaClient::Crate, NONE, "h:1", &kafka_3_9()), Ok(Served::Crate));
        let refused = choose(KafkaClient::Crate, NONE, "h:1", &kafka_4()).expect_err("4.x");
        assert_eq!(refused.kind(), "unsupported");
        for part in ["h:1", "4.x", "Fetch v0", "KAFKA_CLIENT=auto", "scripts/kafka.sh start", "KAFKA_BROKERS"]
        {
            let way_out = cfg!(feature = "wire") || !part.contains("auto");
            assert!(!way_out || refused.to_string().contains(part), "{refused} lacks {part}");
        }
    }

    #[test]
    #[cfg(feature = "wire")]
    fn auto_takes_the_crate_where_it_is_served_and_else_our_own() {
        assert_eq!(choose(KafkaClient::Auto, NONE, "h:1", &kafka_3_9()), Ok(Served::Crate));
        assert_eq!(choose(KafkaClient::Auto, NONE, "h:1", &kafka_4()), Ok(Served::Wire));
        assert_eq!(choose(KafkaClient::Wire, NONE, "h:1", &kafka_3_9()), Ok(Served::Wire));
        let ancient = Versions(vec![(0, 0, 2), (1, 0, 3), (8, 0, 2)]);
        let refused = choose(KafkaClient::Wire, NONE, "h:1", &ancient).expect_err("too old").to_string();
        assert!(refused.contains("Produce v3") && refused.contains("KAFKA_CLIENT=crate"), "{refused}");
    }

    #[test]
    #[cfg(feature = "wire")]
    fn zstd_is_refused_where_the_broker_is_too_old_for_it() {
        let kafka_2_3 = Versions(vec![(0, 0, 7), (1, 0, 11), (8, 0, 7), (22, 0, 1)]);
        let wire = |compression, versions: &Versions| choose(KafkaClient::Wire, compression, "h:1", versions);
        for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4] {
            assert_eq!(wire(compression, &kafka_2_3), Ok(Served::Wire));
        }
        assert_eq!(wire(Compression::Zstd, &kafka_3_9()), Ok(Served::Wire));
        let refused = wire(Compression::Zstd, &kafka_2_3).expect_err("too old").to_string();
        for part in ["h:1", "KAFKA_COMPRESSION=zstd", "Kafka 2.4", "lz4"] {
            assert!(refused.contains(part), "{refused} lacks {part}");
        }
    }
}
