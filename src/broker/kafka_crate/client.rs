//! Opens clients of the crate, produces with them, and finds out why a broker rejects records.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka::client::{KafkaClient, ProduceConfirm, ProduceMessage, RequiredAcks};

use crate::broker::client::{Batch, Client, Produced, Verdict};
use crate::broker::error::{BrokerError, Result};
use crate::broker::kafka_crate::limit::{CallLimit, Target};
use crate::broker::kafka_crate::session::{Session, code_of};
use crate::broker::protocol::{
    Api, CLIENT_ID, Call, Code, FetchLimits, PRODUCE_KEY, PerPartition, Writer, control,
};
use crate::broker::record::{Fetched, Position};
use crate::linux;
use crate::transport::left;

/// The last version that may be sent without records; its response says whether a quota is exceeded.
const PRODUCE: Api = Api { name: "Produce", key: PRODUCE_KEY, version: 2 };

/// Opens clients based on the crate.
pub struct CrateConnector {
    limit: Arc<CallLimit>,
    gives_way: Option<Arc<AtomicBool>>,
}

impl CrateConnector {
    /// Creates a connector for the clients of one thread. With `can_give_way`, our own client is used once there are
    /// records that the crate cannot read.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn new(can_give_way: bool) -> io::Result<Self> {
        Ok(Self { limit: Arc::new(CallLimit::start()?), gives_way: can_give_way.then(Arc::default) })
    }

    /// True once a client has met records that only our own client can read.
    #[cfg(feature = "wire")]
    pub fn has_given_way(&self) -> bool {
        self.gives_way.as_ref().is_some_and(|has| has.load(Ordering::Acquire))
    }

    /// Connects to the broker of `on`, which leads partitions of the topic.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn open(&self, on: &mut Call<'_>) -> Result<Box<dyn Client>> {
        let host = on.connection.host().to_owned();
        let mut client = KafkaClient::new(vec![host.clone()]);
        client.set_client_id(CLIENT_ID.to_owned());
        // The crate would reconnect by itself, without our time limit; we check whether the socket is alive
        // instead.
        client.set_connection_idle_timeout(Duration::from_secs(u32::MAX.into()));
        client.set_fetch_min_bytes(1);
        // The broker computes these checksums while it down-converts, so they protect no better than TCP. The
        // crate rebuilds its table for each message, which takes half of the time of a catch-up.
        client.set_fetch_crc_validation(false);
        let target = Target::opening(on.connection.peer()?);
        let mut opened = Session {
            host,
            topic: on.topic.to_owned(),
            client,
            target: target.clone(),
            limit: self.limit.clone(),
            gives_way: self.gives_way.clone(),
            exact: HashMap::new(),
            size_shift: 0,
            fetches_in_quota: 0,
        };
        opened.load_metadata(on.deadline)?;
        let Some(socket) = target.socket() else {
            return Err(BrokerError::Retryable(format!(
                "broker {}: the connection was lost at once",
                opened.host
            )));
        };
        let _ = socket.set_nodelay(true);
        opened.target = Target::Socket(socket);
        Ok(Box::new(opened))
    }
}

impl Client for Session {
    fn is_usable(&self) -> bool {
        let has_given_way = self.gives_way.as_ref().is_some_and(|has| has.load(Ordering::Acquire));
        !has_given_way && matches!(&self.target, Target::Socket(socket) if linux::is_quiet(socket))
    }

    fn produce(
        &mut self,
        on: &mut Call<'_>,
        batches: &[Batch<'_>],
        ack_timeout: Duration,
    ) -> Result<PerPartition<Produced>> {
        let (led, mut outcomes) = self.led(batches.iter().map(|batch| batch.partition), on.deadline)?;
        if led.is_empty() {
            return Ok(outcomes);
        }
        let topic = on.topic;
        let messages = batches.iter().filter(|batch| led.contains(&batch.partition)).flat_map(|batch| {
            let partition = batch.partition;
            batch.records.iter().map(move |r| ProduceMessage::new(topic, partition, r.key, Some(r.value)))
        });
        let confirms = self
            .bounded("produce", on.deadline, |client| {
                client.produce_messages(RequiredAcks::All, ack_timeout, messages)
            })?
            .map_err(|error| self.failed("produce", &error))?;
        outcomes.extend(self.matched(&led, confirms)?);
        self.explain(on, batches, &mut outcomes, ack_timeout);
        self.ask_quota(on);
        Ok(outcomes)
    }

    /// Sends an empty message set: the broker checks leader and replicas before it looks for records.
    fn would_acknowledge(&mut self, on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<()>> {
        let (topic, ack_timeout) = (on.topic, left(on.deadline).as_millis() * 3 / 4);
        let ack_timeout = i32::try_from(ack_timeout).unwrap_or(i32::MAX);
        let body = Writer::default().i16(-1).i32(ack_timeout).array(&[topic], |w, topic| {
            w.str(topic).array(partitions, |w, partition| w.i32(*partition).i32(0))
        });
        on.ask(PRODUCE, body, |r| {
            let outcomes = control::per_partition(r, topic, |r| {
                let (partition, code, _offset_and_time) = (r.i32()?, Code(r.i16()?), (r.i64()?, r.i64()?));
                Ok((partition, code.check()))
            })?;
            r.throttle()?;
            Ok(outcomes)
        })
    }

    fn fetch(
        &mut self,
        on: &mut Call<'_>,
        positions: &[Position],
        limits: FetchLimits,
    ) -> Result<Vec<Fetched>> {
        self.read_on(on, positions, limits)
    }
}

impl Session {
    /// For each rejection that the crate cannot tell from others (it maps all codes above 35 to one), finds
    /// out whether the records are at fault. It resends them once if the broker then names the faulty ones.
    fn explain(
        &mut self,
        on: &mut Call<'_>,
        batches: &[Batch<'_>],
        outcomes: &mut PerPartition<Produced>,
        ack_timeout: Duration,
    ) {
        let is_unclear = |code: Code| code == Code::UNKNOWN || code.is_of_record();
        let unclear: Vec<(i32, Code)> = outcomes
            .iter()
            .filter_map(|(partition, outcome)| Some((*partition, *outcome.as_ref().err()?)))
            .filter(|(_, code)| is_unclear(*code))
            .collect();
        if unclear.is_empty() {
            return;
        }
        match self.explained(on, batches, &unclear, ack_timeout) {
            Ok(explained) => {
                outcomes.retain(|(partition, _)| !unclear.iter().any(|(id, _)| id == partition));
                outcomes.extend(explained);
            }
            // The receipts of the other partitions are still valid.
            Err(error) => log::debug!("could not find out why records were rejected: {error}"),
        }
    }

    fn explained(
        &mut self,
        on: &mut Call<'_>,
        batches: &[Batch<'_>],
        unclear: &[(i32, Code)],
        ack_timeout: Duration,
    ) -> Result<PerPartition<Produced>> {
        #[cfg(feature = "wire")]
        if on.gives_reasons() {
            let again = |batch: &&Batch<'_>| unclear.iter().any(|(id, _)| *id == batch.partition);
            let again = batches.iter().filter(again);
            let again: Vec<Batch<'_>> = again
                .map(|batch| Batch { partition: batch.partition, records: batch.records.clone() })
                .collect();
            return crate::broker::wire::produce_plainly(on, &again, ack_timeout);
        }
        let _ = (batches, ack_timeout);
        // An empty request reports a problem of the partition itself; if there is none, its records are at
        // fault.
        let partitions: Vec<i32> = unclear.iter().map(|(partition, _)| *partition).collect();
        let states = self.would_acknowledge(on, &partitions)?.into_iter();
        Ok(states
            .map(|(partition, state)| {
                let code = unclear.iter().find(|(id, _)| *id == partition);
                let code = code.map_or(Code::UNKNOWN, |(_, code)| *code);
                (partition, state.map(|()| Produced::Rejected(Verdict::of(code))))
            })
            .collect())
    }

    /// The responses to the crate's requests say nothing about quotas, and anything sent on a muted
    /// connection is read much later, after we have given up on it and sent it again. So after each request,
    /// our own connection asks with an empty request, because the quota applies to the client id. The
    /// response is read before the next records are sent, so they never reach a muted connection.
    ///
    /// No question can be saved, although each costs a round trip: any single request may exceed a quota that
    /// was just set, for a time without a limit, and only a question after its response finds out. A call
    /// that is already on a muted connection could be neither cut, which writes its records twice, nor waited
    /// for, which holds up all others.
    fn ask_quota(&self, on: &mut Call<'_>) {
        if on.mutes() {
            let nothing = Writer::default().i16(-1).i32(0).i32(0);
            if let Err(error) = on.connection.ask_quota(PRODUCE, nothing, on.deadline) {
                log::debug!("could not query the quota: {error}");
            }
        }
    }

    /// Requires exactly one confirmation for each partition sent and no others. If not, the response does not
    /// belong to our request.
    fn matched(&self, sent: &[i32], confirms: Vec<ProduceConfirm>) -> Result<PerPartition<Produced>> {
        let foreign = confirms.iter().any(|confirm| confirm.topic != self.topic);
        let outcomes: PerPartition<i64> = confirms
            .into_iter()
            .flat_map(|confirm| confirm.partition_confirms)
            .map(|confirm| (confirm.partition, confirm.offset.map_err(code_of)))
            .collect();
        let all = control::answers_exactly(sent, &outcomes);
        let absurd = outcomes.iter().any(|(_, outcome)| outcome.is_ok_and(|offset| offset < 0));
        if foreign || absurd || !all {
            let host = &self.host;
            return Err(BrokerError::Retryable(format!(
                "broker {host}: produce: response to another request"
            )));
        }
        Ok(outcomes.into_iter().map(|(partition, outcome)| (partition, outcome.map(Produced::At))).collect())
    }
}
