//! Applies the keys to requests: who is it, may they, and within their limits. Answers those that may not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use crate::access::credential::credential;
use crate::access::file::LargestRequest;
use crate::access::keys::{Client, Denied, Key, Keys, Kind, Limit, Request};
use crate::access::webhook::{self, Scheme};
use crate::config::read_keys;
use crate::producer::answer::Answer;
use crate::producer::head::Head;
use crate::producer::ids::WEBHOOK_ID;
use crate::producer::metrics::ProducerMetrics;
use crate::producer::status::ErrorTag;

/// The keys in force.
pub struct Gate {
    keys: RwLock<Arc<Keys>>,
    path: PathBuf,
    largest: LargestRequest,
    metrics: Arc<ProducerMetrics>,
}

/// A request with a key.
pub struct Caller {
    key: Arc<Key>,
    /// The headers of a webhook's signature.
    signature: Vec<(String, String)>,
    /// Bytes that were taken from the limit of its client; those of a chunked body follow later.
    charged_bytes: u64,
}

impl Caller {
    /// The client.
    pub fn client(&self) -> &Arc<Client> {
        &self.key.client
    }
}

impl Gate {
    /// Starts with `keys`, which were read from `path`.
    pub fn new(keys: Keys, path: PathBuf, largest: LargestRequest, metrics: Arc<ProducerMetrics>) -> Self {
        metrics.access.name(&keys);
        Self { keys: RwLock::new(Arc::new(keys)), path, largest, metrics }
    }

    /// Reads the file again and puts its keys in force, all at once. A bad file changes nothing. Returns true if
    /// something has changed.
    ///
    /// # Errors
    /// One sentence with the line and what to change.
    pub fn reload(&self) -> Result<bool, String> {
        let before = self.keys();
        let keys = read_keys(&self.path, self.largest, Some(&before))?;
        if keys.fingerprint == before.fingerprint {
            return Ok(false);
        }
        self.metrics.access.name(&keys);
        *self.keys.write() = Arc::new(keys);
        Ok(true)
    }

    /// The keys in force.
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.read().clone()
    }

    /// Decides from its head whether a request may post events, or read a page.
    ///
    /// # Errors
    /// The answer to one that may not.
    pub fn admit(&self, head: &Head<'_>, posts: bool, now: Instant) -> Result<Caller, Answer> {
        let keys = self.keys();
        let credential = credential(head.target, |name| head.others.get(name));
        let request = Request { posts, origin: head.others.get("Origin") };
        let key = match keys.admit(credential.as_ref(), request, since_epoch()) {
            Ok(key) => key.clone(),
            Err(Denied::Unauthorized) => return Err(unauthorized()),
            Err(Denied::Origin(client)) => {
                self.metrics.access.refuse(&client.name, "origin_not_allowed");
                return Err(Answer::error(
                    ErrorTag::OriginNotAllowed,
                    "this key may be used only from the origins of its line; use another key",
                ));
            }
        };
        let signature = match &key.kind {
            Kind::Webhook { scheme, .. } => signature(scheme, head),
            Kind::Secret | Kind::Public { .. } => Vec::new(),
        };
        let bytes = head.content_length.and_then(|text| text.parse().ok()).unwrap_or(0);
        let caller = Caller { key, signature, charged_bytes: bytes };
        if posts {
            self.charge(&caller, "bytes/s", caller.client().bytes.as_ref(), bytes, now)?;
            // How many events there are is known later; none at all would pass now.
            if let Some(events) = caller.client().events.as_ref().filter(|events| events.left(now) == 0) {
                return Err(self.limited(&caller, "events/s", events, Duration::ZERO, now));
            }
        }
        Ok(caller)
    }

    /// Decides about a body as it was sent: it is charged as far as its head had not announced it, and a webhook's
    /// signature must fit. Returns the id of the webhook's message, if it has one.
    ///
    /// # Errors
    /// The answer to a body that is too much now, or is not signed by one of its secrets.
    pub fn check_body<'c>(
        &self,
        caller: &'c Caller,
        body: &[u8],
        now: Instant,
    ) -> Result<Option<&'c str>, Answer> {
        let bytes = (body.len() as u64).saturating_sub(caller.charged_bytes);
        if bytes > 0 {
            self.charge(caller, "bytes/s", caller.client().bytes.as_ref(), bytes, now)?;
        }
        self.verify(caller, body)
    }

    fn verify<'c>(&self, caller: &'c Caller, body: &[u8]) -> Result<Option<&'c str>, Answer> {
        let Kind::Webhook { scheme, secrets } = &caller.key.kind else { return Ok(None) };
        let header = |name: &str| {
            let found = caller.signature.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        webhook::verify(scheme, secrets, header, body, since_epoch()).map_err(|_| {
            self.metrics.access.refuse(&caller.client().name, "bad_signature");
            unauthorized()
        })
    }

    /// Takes the events of a request from the limit of its client.
    ///
    /// # Errors
    /// The answer if they do not fit now.
    pub fn charge_events(&self, caller: &Caller, events: usize, now: Instant) -> Result<(), Answer> {
        self.charge(caller, "events/s", caller.client().events.as_ref(), events as u64, now)
    }

    fn charge(
        &self,
        caller: &Caller,
        name: &'static str,
        limit: Option<&Limit>,
        units: u64,
        now: Instant,
    ) -> Result<(), Answer> {
        let Some(limit) = limit else { return Ok(()) };
        limit.take(units, now).map_err(|wait| self.limited(caller, name, limit, wait, now))
    }

    fn limited(
        &self,
        caller: &Caller,
        name: &'static str,
        limit: &Limit,
        wait: Duration,
        now: Instant,
    ) -> Answer {
        let client = &caller.client().name;
        self.metrics.access.refuse(client, "rate_limited");
        let rate = limit.rate;
        let wait = Duration::from_secs(wait.as_secs() + 1);
        let message = format!(
            "client {client} is limited to {name}={} with a burst of {}; nothing was accepted; send again after {} s",
            rate.per_second,
            rate.burst,
            wait.as_secs()
        );
        let (window, left) = (rate.window_seconds(), limit.left(now));
        Answer::error(ErrorTag::RateLimited, &message)
            .retry_after(wait)
            .with_header("RateLimit-Policy", format!("\"{name}\";q={};w={window}", rate.burst))
            .with_header("RateLimit", format!("\"{name}\";r={left};t={}", wait.as_secs()))
    }
}

/// A missing key and a wrong one get the same answer, so that strangers cannot find out which ids exist.
fn unauthorized() -> Answer {
    let message = "a valid key is needed, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`";
    Answer::error(ErrorTag::Unauthorized, message).with_header("WWW-Authenticate", "Bearer realm=\"events\"")
}

fn signature(scheme: &Scheme, head: &Head<'_>) -> Vec<(String, String)> {
    let names: &[&str] = match scheme {
        Scheme::Standard => &[WEBHOOK_ID, "webhook-timestamp", "webhook-signature"],
        Scheme::Hex { header, .. } => &[header.as_str()],
    };
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), head.others.get(name)?.to_owned())));
    found.collect()
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
