//! Refuses a broker that cannot serve this client before any record is entrusted to it. Pure.

use super::BrokerError;
use super::control::Versions;

const FETCH: (i16, i16) = (1, 0);
const OFFSET_COMMIT: (i16, i16) = (8, 1);

/// Whether the broker at `host` serves the version 0 requests of the kafka crate.
///
/// Produce is no sign: Kafka 4.x lists its version 0 for the sake of another client, and closes the connection.
///
/// # Errors
/// Unsupported, with what to run instead.
pub(super) fn serves_the_crate(host: &str, versions: &Versions) -> Result<(), BrokerError> {
    let missing = [("Fetch v0", FETCH), ("OffsetCommit v1", OFFSET_COMMIT)]
        .into_iter()
        .find(|(_, (key, version))| !versions.serves(*key, *version));
    let Some((missing, _)) = missing else { return Ok(()) };
    Err(BrokerError::Unsupported(format!(
        "broker {host} is Kafka 4.x or newer (it no longer serves {missing}), which this client cannot speak to; \
         run Kafka 3.9 (scripts/kafka.sh start) and point KAFKA_BROKERS to it"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_3_9_is_served_and_4_x_is_refused_with_the_way_out() {
        let old = Versions(vec![(0, 0, 11), (1, 0, 17), (8, 0, 9)]);
        assert_eq!(serves_the_crate("h:1", &old), Ok(()));
        let new = Versions(vec![(0, 0, 13), (1, 4, 18), (8, 2, 10)]);
        let refused = serves_the_crate("h:1", &new).expect_err("4.x");
        assert_eq!(refused.kind(), "unsupported");
        for part in ["h:1", "4.x", "Fetch v0", "scripts/kafka.sh start", "KAFKA_BROKERS"] {
            assert!(refused.to_string().contains(part), "{refused} lacks {part}");
        }
    }
}
