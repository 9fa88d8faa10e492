//! Manages a cluster's brokers: finds a working one, tracks leaders, and drops failed connections.
//!
//! Every call is bounded by the deadline that it is given. Longer than most files, because connections,
//! leaders and avoided brokers change together after each failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::client::Client;
use crate::broker::connector::Connector;
use crate::broker::error::{BrokerError, Result};
use crate::broker::member::{Broker, open_broker};
use crate::broker::protocol::{Call, Code, Metadata, metadata, share};
use crate::config::KafkaConfig;
use crate::transport::left;

/// Leaders are looked up again after this time, so that new partitions and moved leaders are found.
const METADATA_MAX_AGE: Duration = Duration::from_secs(30);

/// A broker that held us up for this long is avoided for a while if others can serve.
const SLOW: Duration = Duration::from_millis(300);

/// How long a broker that held us up is avoided.
const REST: Duration = Duration::from_secs(3);

/// How long a broker that failed at once is avoided if another one can serve.
const SHORT_REST: Duration = Duration::from_millis(500);

/// How long the creation of a missing topic may take, within the call's own deadline.
const CREATION: Duration = Duration::from_secs(3);

/// Pause between two checks of a topic that is being created.
const CREATION_POLL: Duration = Duration::from_millis(50);

/// Connections to a cluster for the sake of one topic.
pub struct Cluster {
    config: KafkaConfig,
    pub connector: Connector,
    brokers: HashMap<String, Broker>,
    /// Brokers that failed: until when each is avoided, and whether it held us up.
    avoided: HashMap<String, (Instant, bool)>,
    /// Where the search for a working broker starts; advanced after each failure.
    first_host: usize,
    /// Brokers named in the last metadata.
    known_hosts: Vec<String>,
    metadata: Option<(Arc<Metadata>, Instant)>,
    /// The warning about the missing topic has been logged; reset once the topic exists.
    warned_missing: bool,
    /// Number of clients opened so far.
    sessions: u64,
}

impl Cluster {
    /// Creates a cluster that connects on first use.
    pub fn new(config: KafkaConfig, connector: Connector) -> Self {
        Self {
            config,
            connector,
            brokers: HashMap::new(),
            avoided: HashMap::new(),
            first_host: 0,
            known_hosts: Vec::new(),
            metadata: None,
            warned_missing: false,
            sessions: 0,
        }
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Deadline of a request that starts now.
    pub fn request_deadline(&self) -> Instant {
        Instant::now() + self.config.request_timeout()
    }

    /// Longest wait for a connection to a broker.
    pub fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout()
    }

    /// Returns the topic's leaders, cached for at most 30 s and looked up again after
    /// [`Cluster::forget_leaders`].
    ///
    /// # Errors
    /// Retryable if no broker answers, or if the topic does not exist and is not created. Refused if no
    /// broker serves us and one does not accept us. Unsupported if the Kafka version is wrong.
    pub fn metadata(&mut self, deadline: Instant) -> Result<Arc<Metadata>> {
        if let Some((metadata, loaded)) = &self.metadata
            && loaded.elapsed() < METADATA_MAX_AGE
        {
            return Ok(metadata.clone());
        }
        match (self.load_metadata(deadline), &self.metadata) {
            // Every broker may be throttled at the moment.
            (Err(BrokerError::Throttled(..)), Some((old, _))) => Ok(old.clone()),
            (loaded, _) => {
                let metadata = Arc::new(loaded?);
                self.metadata = Some((metadata.clone(), Instant::now()));
                Ok(metadata)
            }
        }
    }

    /// Makes the next [`Cluster::metadata`] ask the brokers.
    pub fn forget_leaders(&mut self) {
        self.metadata = None;
    }

    /// True while `host` is avoided because it failed and others can serve.
    pub fn is_avoided(&self, host: &str) -> bool {
        self.avoided.get(host).is_some_and(|(until, _)| Instant::now() < *until)
    }

    /// Fails while a quota keeps `host` from reading what we send. Sends nothing and opens no connection,
    /// because a new one would be read at once and evade the quota. The quota of a connection that the broker
    /// has closed is over.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Throttled`].
    pub fn check_quota(&mut self, host: &str, deadline: Instant) -> Result<()> {
        let Some(broker) = self.brokers.get_mut(host) else { return Ok(()) };
        let asked = broker.control.take_quota_answer(deadline);
        let quota = broker.control.check_quota();
        if asked.is_err() || quota.is_err() && !broker.control.is_usable() {
            log::debug!("dropping the connections to broker {host}: {asked:?}");
            self.brokers.remove(host);
            return Ok(());
        }
        quota
    }

    /// Fails at once while `host` is avoided because it held us up, unless no other broker is available.
    ///
    /// # Errors
    /// Fails with [`BrokerError::Retryable`].
    pub fn check_not_avoided(&self, host: &str) -> Result<()> {
        let others = self.known_hosts.iter().any(|other| other != host && !self.is_avoided(other));
        let is_slow = self.avoided.get(host).is_some_and(|(_, slow)| *slow);
        if others && is_slow && self.is_avoided(host) {
            return Err(BrokerError::Retryable(format!(
                "broker {host} did not answer in time; it is retried after {} s",
                REST.as_secs()
            )));
        }
        Ok(())
    }

    /// host:port of a broker that answers, if one is known to.
    ///
    /// # Errors
    /// As for [`Cluster::metadata`].
    pub fn any_broker(&mut self, deadline: Instant) -> Result<String> {
        let metadata = self.metadata(deadline)?;
        let leaders = || metadata.partitions.iter().filter_map(|partition| partition.leader.as_ref());
        let leader = leaders().find(|host| !self.is_avoided(host)).or_else(|| leaders().next());
        leader
            .cloned()
            .ok_or_else(|| BrokerError::Retryable("no broker leads a partition of the topic".into()))
    }

    /// Runs `call` on a control connection to `host`.
    ///
    /// # Errors
    /// The error from `call`; the connections to `host` have then been dropped.
    pub fn on_control<T>(
        &mut self,
        host: &str,
        deadline: Instant,
        call: impl FnOnce(&mut Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let broker = open_broker(&mut self.brokers, &self.connector, &self.config, host, deadline);
        let outcome = broker.and_then(|broker| {
            let Broker { control: connection, versions, .. } = broker;
            call(&mut Call { connection, versions, topic: &self.config.topic, deadline })
        });
        self.settle(host, started, outcome)
    }

    /// Connects to `host` if necessary and returns the session number, which changes when a connection to it
    /// is reopened.
    ///
    /// # Errors
    /// Fails if the connection does; the connections to `host` have then been dropped.
    pub fn session(&mut self, host: &str, deadline: Instant) -> Result<u64> {
        self.on_client(host, deadline, |_, _| Ok(()))?;
        Ok(self.brokers[host].session)
    }

    /// True while the connections to `host` belong to `session`.
    pub fn is_session(&self, host: &str, session: u64) -> bool {
        self.brokers.get(host).is_some_and(|broker| broker.session == session)
    }

    /// True if `host`, which must be connected, supports `version` of request `key`.
    pub fn serves(&self, host: &str, key: i16, version: i16) -> bool {
        self.brokers.get(host).is_some_and(|broker| broker.versions.serves(key, version))
    }

    /// Runs `call` on the client for `host`, which leads partitions of the topic.
    ///
    /// # Errors
    /// The error from `call`; the connections to `host` have then been dropped.
    pub fn on_client<T>(
        &mut self,
        host: &str,
        deadline: Instant,
        call: impl FnOnce(&mut dyn Client, &mut Call<'_>) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = self.client(host, deadline).and_then(|(client, mut on)| call(client, &mut on));
        self.settle(host, started, outcome)
    }

    fn client(&mut self, host: &str, deadline: Instant) -> Result<(&mut dyn Client, Call<'_>)> {
        let broker = open_broker(&mut self.brokers, &self.connector, &self.config, host, deadline)?;
        let Broker { control: connection, versions, client, session } = broker;
        let mut on = Call { connection, versions, topic: &self.config.topic, deadline };
        if client.as_ref().is_none_or(|client| !client.is_usable()) {
            *client = None;
            *client = Some(self.connector.open(&mut on)?);
            self.sessions += 1;
            *session = self.sessions;
        }
        Ok((client.as_deref_mut().expect("opened above"), on))
    }

    /// After an error, drops the connections to `host` and avoids it for a while.
    fn settle<T>(&mut self, host: &str, started: Instant, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => {
                self.avoided.remove(host);
            }
            // The connection is intact, and a new one would evade the quota.
            Err(BrokerError::Throttled(..)) => {}
            Err(error) => {
                log::debug!("dropping the connections to broker {host}: {error}");
                self.brokers.remove(host);
                self.metadata = None;
                let slow = started.elapsed() >= SLOW;
                let rest = if slow { REST } else { SHORT_REST };
                self.avoided.insert(host.to_owned(), (Instant::now() + rest, slow));
            }
        }
        outcome
    }

    /// Asks the hosts in turn, giving each its share of the remaining time.
    fn load_metadata(&mut self, deadline: Instant) -> Result<Metadata> {
        let hosts = self.bootstrap_hosts();
        let (mut failures, mut refused, mut throttled) = (Vec::new(), false, None);
        for (tried, host) in hosts.iter().enumerate() {
            let share = share(deadline, hosts.len() - tried);
            match self.check_quota(host, share).and_then(|()| self.metadata_from(host, share)) {
                Ok(metadata) => {
                    self.warned_missing = false;
                    self.known_hosts.clone_from(&metadata.brokers);
                    // Brokers that have left the cluster must not keep their sockets.
                    self.brokers.retain(|host, _| hosts.contains(host) || metadata.brokers.contains(host));
                    return Ok(metadata);
                }
                Err(unsupported @ BrokerError::Unsupported(_)) => return Err(unsupported),
                Err(error) => {
                    if let BrokerError::Throttled(..) = error {
                        throttled.get_or_insert(error);
                        continue;
                    }
                    refused |= matches!(error, BrokerError::Refused(_));
                    failures.push(error.to_string());
                }
            }
            self.first_host = self.first_host.wrapping_add(1);
        }
        if let Some(error) = throttled {
            return Err(error);
        }
        let all = failures.join("; ");
        Err(if refused { BrokerError::Refused(all) } else { BrokerError::Retryable(all) })
    }

    /// The configured brokers and those named in the last metadata, rotated; avoided ones come last.
    fn bootstrap_hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.config.brokers.clone();
        hosts.extend(self.known_hosts.iter().filter(|host| !self.config.brokers.contains(host)).cloned());
        let first = self.first_host % hosts.len().max(1);
        hosts.rotate_left(first);
        hosts.sort_by_key(|host| self.is_avoided(host));
        hosts
    }

    /// Loads the metadata from `host`. A missing topic is created by the first request and has leaders a
    /// moment later.
    fn metadata_from(&mut self, host: &str, deadline: Instant) -> Result<Metadata> {
        // Leaves time for the response to the last request. If that fails, the state seen before it is
        // reported instead.
        let give_up = (deadline - left(deadline) / 4).min(Instant::now() + CREATION);
        let mut known = None;
        loop {
            let answer = match self.on_control(host, deadline, metadata::load) {
                Err(throttled @ BrokerError::Throttled(..)) => return Err(throttled),
                answer => answer,
            };
            let code = match answer.map_err(|error| known.map_or(error, |code| self.no_topic(host, code)))? {
                Ok(metadata) if metadata.partitions.iter().any(|partition| partition.leader.is_some()) => {
                    return Ok(metadata);
                }
                Ok(_) => Code::LEADER_NOT_AVAILABLE,
                Err(code) => code,
            };
            if code == Code::UNKNOWN_TOPIC_OR_PARTITION && !std::mem::replace(&mut self.warned_missing, true)
            {
                log::warn!("topic {} does not exist; asking broker {host} to create it", self.config.topic);
            }
            let creating = matches!(code, Code::UNKNOWN_TOPIC_OR_PARTITION | Code::LEADER_NOT_AVAILABLE);
            if !creating || left(give_up) < CREATION_POLL {
                return Err(self.no_topic(host, code));
            }
            known = Some(code);
            thread::sleep(CREATION_POLL);
        }
    }

    fn no_topic(&self, host: &str, code: Code) -> BrokerError {
        let topic = &self.config.topic;
        let hint = if code == Code::UNKNOWN_TOPIC_OR_PARTITION {
            ": the broker does not create it; create it manually or set auto.create.topics.enable=true"
        } else {
            ""
        };
        BrokerError::Retryable(format!("broker {host}: topic {topic}: {code}{hint}"))
    }
}
