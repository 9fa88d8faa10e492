//! The keys of a file, and which of them a request may use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::credential::Credential;
use crate::access::key::{KeyHash, id_of};
use crate::access::limit::{Meter, Rate};
use crate::access::share::Share;
use crate::access::webhook::{Scheme, SigningSecret};

/// What a key may do.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Everything that needs a key.
    Secret,
    /// Posting, from these origins. Everybody can read it in a page.
    Public {
        /// Origins as a browser sends them, for example `https://shop.example`.
        origins: Vec<String>,
    },
    /// Posting bodies with a signature.
    Webhook {
        /// How bodies are signed.
        scheme: Scheme,
        /// Secrets of which one must fit.
        secrets: Vec<SigningSecret>,
    },
}

/// A rate and what has been used of it.
#[derive(Debug)]
pub struct Limit {
    /// The rate.
    pub rate: Rate,
    meter: Mutex<Meter>,
}

impl Limit {
    /// Nothing has been used yet.
    pub fn new(rate: Rate) -> Self {
        Self { rate, meter: Mutex::default() }
    }

    /// See [`Meter::take`].
    pub fn take(&self, units: u64, now: Instant) -> Result<(), Duration> {
        self.meter.lock().take(self.rate, units, now)
    }

    /// How many units would pass now.
    pub fn left(&self, now: Instant) -> u64 {
        self.meter.lock().left(self.rate, now)
    }

    /// The same use under `rate`.
    pub fn with_rate(&self, rate: Rate) -> Self {
        Self { rate, meter: Mutex::new(*self.meter.lock()) }
    }
}

/// A client: all of its keys share its limits.
#[derive(Debug)]
pub struct Client {
    /// Its name in the file, the metrics and the events.
    pub name: String,
    /// Limit in events.
    pub events: Option<Limit>,
    /// Limit in bytes of bodies as sent.
    pub bytes: Option<Limit>,
    /// What it holds of the queue.
    pub share: Arc<Share>,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The client that it belongs to.
    pub client: Arc<Client>,
    /// Its public id.
    pub id: String,
    /// SHA-256 of the whole key.
    pub hash: KeyHash,
    /// What it may do.
    pub kind: Kind,
    /// Since the Unix epoch; from then on the key is unknown.
    pub until: Option<Duration>,
    /// When it was used last, in seconds since the Unix epoch; 0 if never.
    pub last_used: AtomicU64,
}

/// All keys of a file.
#[derive(Debug)]
pub struct Keys {
    /// By their public ids.
    pub by_id: HashMap<String, Arc<Key>>,
    /// By their names.
    pub clients: BTreeMap<String, Arc<Client>>,
    /// SHA-256 of the file and of the files that it names, to find a change.
    pub fingerprint: [u8; 32],
}

/// Why a request may not do what it asks for.
#[derive(Clone, Debug)]
pub enum Denied {
    /// There is no key, or it is unknown, has expired, or may not be used like that.
    Unauthorized,
    /// The key is public and belongs to other origins than that of the page.
    Origin(Arc<Client>),
}

/// What a request wants, as far as keys decide about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'h> {
    /// It posts events, as opposed to reading a page.
    pub posts: bool,
    /// `Origin`.
    pub origin: Option<&'h str>,
}

impl Keys {
    /// The key of a request that may do what the request wants. `now` is the time since the Unix epoch.
    ///
    /// An unknown id costs the same work as a known one, so that the time does not say which ids exist.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn admit(
        &self,
        credential: Option<&Credential<'_>>,
        request: Request<'_>,
        now: Duration,
    ) -> Result<&Arc<Key>, Denied> {
        let Credential { key: shown, is_in_query } = credential.ok_or(Denied::Unauthorized)?;
        let hash = KeyHash::of(shown);
        let known = id_of(shown).and_then(|id| self.by_id.get(id));
        // Compared with itself turned over if the id is unknown.
        let matches = known.map_or(hash.inverted(), |key| key.hash).matches(&hash);
        let key = known.filter(|key| matches && key.until.is_none_or(|until| now < until));
        let key = key.ok_or(Denied::Unauthorized)?;
        match &key.kind {
            Kind::Secret if *is_in_query => return Err(Denied::Unauthorized),
            Kind::Public { .. } | Kind::Webhook { .. } if !request.posts => return Err(Denied::Unauthorized),
            Kind::Public { origins }
                if !request.origin.is_some_and(|from| origins.iter().any(|o| o == from)) =>
            {
                return Err(Denied::Origin(key.client.clone()));
            }
            _ => {}
        }
        key.last_used.store(now.as_secs(), Ordering::Relaxed);
        Ok(key)
    }
}
