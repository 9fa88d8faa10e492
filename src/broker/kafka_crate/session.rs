//! A client of the crate with one socket, whose calls are bounded in time.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use kafka::Error;
use kafka::client::KafkaClient;
use kafka::error::KafkaCode;

use crate::broker::client::Produced;
use crate::broker::error::{BrokerError, Result};
use crate::broker::kafka_crate::limit::{CallLimit, Target};
use crate::broker::protocol::{Code, PerPartition};

/// A client of the crate, connected to one broker.
pub struct Session {
    pub host: String,
    pub topic: String,
    pub client: KafkaClient,
    pub target: Target,
    pub limit: Arc<CallLimit>,
    /// Set once there are records that only our own client can read, if that may take over.
    pub gives_way: Option<Arc<AtomicBool>>,
    /// Partitions to read by their batch headers, and for how many more fetches.
    pub exact: HashMap<i32, u32>,
    /// How many powers of two less to fetch because of a quota.
    pub size_shift: u32,
    /// Fetches since a quota was last exceeded.
    pub fetches_in_quota: u32,
}

impl Session {
    /// Runs one call of the crate within `deadline`; a panic in it is treated like any other error.
    pub fn bounded<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        call: impl FnOnce(&mut KafkaClient) -> Result<T, Error>,
    ) -> Result<Result<T, Error>> {
        let client = &mut self.client;
        let call = || catch_unwind(AssertUnwindSafe(|| call(client)));
        let started = Instant::now();
        let (outcome, expired) = self.limit.run(self.target.clone(), deadline, call);
        let failed = |why: String| BrokerError::Retryable(format!("broker {}: {what}: {why}", self.host));
        match outcome {
            Err(_) => Err(failed("malformed response: is it a Kafka broker?".into())),
            Ok(Err(_)) if expired => {
                Err(failed(format!("it did not answer within {} ms", started.elapsed().as_millis())))
            }
            Ok(outcome) => Ok(outcome),
        }
    }

    pub fn load_metadata(&mut self, deadline: Instant) -> Result<()> {
        let topic = self.topic.clone();
        self.bounded("metadata", deadline, |client| client.load_metadata(&[topic]))?
            .map_err(|error| self.failed("metadata", &error))
    }

    /// Returns those of `partitions` that this broker leads as far as the crate knows, and a code for the
    /// others, for which the crate would connect elsewhere.
    pub fn led(
        &mut self,
        partitions: impl Iterator<Item = i32> + Clone,
        deadline: Instant,
    ) -> Result<(Vec<i32>, PerPartition<Produced>)> {
        if !partitions.clone().all(|partition| self.leads(partition)) {
            self.load_metadata(deadline)?;
        }
        let (led, others): (Vec<i32>, Vec<i32>) = partitions.partition(|partition| self.leads(*partition));
        Ok((
            led,
            others.into_iter().map(|partition| (partition, Err(Code::NOT_LEADER_OR_FOLLOWER))).collect(),
        ))
    }

    fn leads(&self, partition: i32) -> bool {
        let topics = self.client.topics();
        let leader =
            topics.partitions(&self.topic).and_then(|partitions| partitions.partition(partition)?.leader());
        leader.is_some_and(|broker| broker.host() == self.host)
    }

    pub fn failed(&self, what: &str, error: &Error) -> BrokerError {
        let host = &self.host;
        BrokerError::Retryable(match error {
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("broker {host}: {what}: it closed the connection")
            }
            Error::NoHostReachable => format!("broker {host}: {what}: the connection was lost"),
            error => format!("broker {host}: {what}: {error}"),
        })
    }
}

/// The broker's code, as far as the crate keeps it.
pub fn code_of(code: KafkaCode) -> Code {
    Code(code as i16)
}
