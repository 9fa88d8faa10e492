//! Reads a file of keys, one per line: client, kind, public id, SHA-256 of the key, and options.
//!
//! ```text
//! # client  kind    id        sha256 of the key  options
//! shop      secret  A1b2C3d4  6e5f…              events/s=500 burst=20000 until=2027-06-30
//! pages     public  Z9y8X7w6  0c1d…              origins=https://shop.example
//! github    webhook Q5w6E7r8  f00d…              secret-file=github.secret header=X-Hub-Signature-256 prefix=sha256=
//! ```
//!
//! Several lines for one client are several keys, for example while one replaces another. They share its limits.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use time::macros::format_description;
use time::{Date, Time};

use crate::access::key::{KeyHash, is_id};
use crate::access::keys::{Client, Key, Keys, Kind, Limit};
use crate::access::limit::Rate;
use crate::access::webhook::{Scheme, SigningSecret};

/// The largest request, which every limit must let through.
#[derive(Clone, Copy, Debug)]
pub struct LargestRequest {
    /// `MAX_REQUEST_EVENTS`.
    pub events: u64,
    /// Largest body as sent.
    pub bytes: u64,
}

/// What the lines of one client say about its limits.
#[derive(Default)]
struct Rates {
    events: Option<u64>,
    burst: Option<u64>,
    bytes: Option<u64>,
}

/// One line, before its client is known as a whole.
struct Line<'t> {
    client: &'t str,
    id: &'t str,
    hash: KeyHash,
    kind: Kind,
    until: Option<Duration>,
}

/// Options by name.
type Options<'t> = BTreeMap<&'t str, &'t str>;

/// Reads the text of a key file. `read` reads the file of a webhook's secrets. What clients have used of their limits,
/// and when keys were used, is taken from `before`.
///
/// # Errors
/// One sentence that names the line and what to change. It shows no word of the line where a key could be by
/// mistake.
pub fn parse(
    text: &str,
    largest: LargestRequest,
    read: impl Fn(&Path) -> Result<String, String>,
    before: Option<&Keys>,
) -> Result<Keys, String> {
    let fingerprint = RefCell::new(Sha256::new_with_prefix(text));
    let read = |path: &Path| {
        let text = read(path)?;
        fingerprint.borrow_mut().update(&text);
        Ok(text)
    };
    let (mut lines, mut ids, mut rates) = (Vec::new(), HashSet::new(), BTreeMap::<&str, Rates>::new());
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let parsed = one_line(&words, &read, &mut rates).map_err(|why| format!("line {number}: {why}"))?;
        if !ids.insert(parsed.id) {
            return Err(format!("line {number}: the id {} is there twice; every key has its own", parsed.id));
        }
        lines.push(parsed);
    }
    let mut clients = BTreeMap::new();
    for (name, rates) in rates {
        let known = before.and_then(|before| before.clients.get(name));
        let client = client(name, &rates, largest, known).map_err(|why| format!("client {name}: {why}"))?;
        clients.insert(name.to_owned(), Arc::new(client));
    }
    let key = |line: Line<'_>| {
        let known = before.and_then(|before| before.by_id.get(line.id));
        let last_used = known.map_or(0, |known| known.last_used.load(Ordering::Relaxed));
        let key = Arc::new(Key {
            client: clients[line.client].clone(),
            id: line.id.to_owned(),
            hash: line.hash,
            kind: line.kind,
            until: line.until,
            last_used: AtomicU64::new(last_used),
        });
        (line.id.to_owned(), key)
    };
    let by_id: HashMap<String, Arc<Key>> = lines.into_iter().map(key).collect();
    let fingerprint = fingerprint.into_inner().finalize().into();
    Ok(Keys { by_id, clients, fingerprint })
}

fn one_line<'t>(
    words: &[&'t str],
    read: &impl Fn(&Path) -> Result<String, String>,
    rates: &mut BTreeMap<&'t str, Rates>,
) -> Result<Line<'t>, String> {
    let &[client, kind, id, hash, ref options @ ..] = words else {
        return Err("expected client, kind, id, SHA-256 of the key, and options".into());
    };
    if !is_client_name(client) {
        return Err("the first word is not a client's name: at most 64 letters, digits, `.`, `_`, `-`".into());
    }
    if !is_id(id) {
        return Err(
            "the third word is not an id of 8 letters or digits; `producer --new-key CLIENT` makes a line"
                .into(),
        );
    }
    let hash = KeyHash::from_hex(hash)
        .ok_or("the fourth word is not a SHA-256 in 64 hexadecimal digits; never write a key itself here")?;
    let mut options = split(options)?;
    let rates = rates.entry(client).or_default();
    for (name, slot) in
        [("events/s", &mut rates.events), ("burst", &mut rates.burst), ("bytes/s", &mut rates.bytes)]
    {
        limit(name, options.remove(name), slot)?;
    }
    let until = options.remove("until").map(end_of_day).transpose()?;
    let kind = kind_of(kind, &mut options, read)?;
    match options.keys().next() {
        Some(name) => Err(format!("option `{name}` is unknown, or is not for a key of this kind")),
        None => Ok(Line { client, id, hash, kind, until }),
    }
}

fn split<'t>(words: &[&'t str]) -> Result<Options<'t>, String> {
    let mut options = Options::new();
    for word in words {
        let (name, value) =
            word.split_once('=').ok_or("after the fourth word come options, each as name=value")?;
        if value.is_empty() || options.insert(name, value).is_some() {
            return Err(format!("option `{name}`: expected one value"));
        }
    }
    Ok(options)
}

fn limit(name: &str, value: Option<&str>, slot: &mut Option<u64>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let number = value.parse().ok().filter(|number| (1..=1_000_000_000_000).contains(number));
    let number = number.ok_or_else(|| format!("{name}={value}: expected a whole number from 1 to 10^12"))?;
    if slot.is_some_and(|known| known != number) {
        return Err(format!(
            "{name}={value}: another line of this client has another value; they share one limit"
        ));
    }
    *slot = Some(number);
    Ok(())
}

/// The end of a day in UTC, since the Unix epoch.
fn end_of_day(text: &str) -> Result<Duration, String> {
    let wrong = || format!("until={text}: expected the last day on which the key is valid, as YYYY-MM-DD");
    let date = Date::parse(text, format_description!("[year]-[month]-[day]")).map_err(|_| wrong())?;
    let next = date.next_day().ok_or_else(wrong)?.with_time(Time::MIDNIGHT).assume_utc();
    u64::try_from(next.unix_timestamp()).map(Duration::from_secs).map_err(|_| wrong())
}

fn kind_of(
    kind: &str,
    options: &mut Options<'_>,
    read: &impl Fn(&Path) -> Result<String, String>,
) -> Result<Kind, String> {
    match kind {
        "secret" => Ok(Kind::Secret),
        "public" => {
            let origins =
                options.remove("origins").ok_or("a public key needs origins=https://…,https://…")?;
            let origins: Vec<String> = origins.split(',').map(str::to_owned).collect();
            match origins.iter().find(|origin| !is_origin(origin)) {
                Some(wrong) => Err(format!("origins: {wrong:?} is not scheme://host[:port] in lower case")),
                None => Ok(Kind::Public { origins }),
            }
        }
        "webhook" => {
            let file = options.remove("secret-file").ok_or("a webhook's key needs secret-file=PATH")?;
            let text = read(Path::new(file)).map_err(|why| format!("secret-file={file}: {why}"))?;
            let secrets: Result<Vec<_>, _> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .map(SigningSecret::parse)
                .collect();
            let secrets = secrets.map_err(|why| format!("secret-file={file}: {why}"))?;
            if secrets.is_empty() {
                return Err(format!("secret-file={file} is empty; write one secret per line"));
            }
            let scheme = match (options.remove("header"), options.remove("prefix")) {
                (None, None) => Scheme::Standard,
                (None, Some(_)) => return Err("prefix= needs header=NAME".into()),
                (Some(header), prefix) => {
                    Scheme::Hex { header: header.to_owned(), prefix: prefix.unwrap_or_default().to_owned() }
                }
            };
            Ok(Kind::Webhook { scheme, secrets })
        }
        _ => Err("the second word is not a kind: expected secret, public or webhook".into()),
    }
}

/// True if `text` can be the name of a client: it becomes a label of metrics and a value in events.
pub fn is_client_name(text: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_name)
}

/// True if `text` is an origin as browsers send it.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
    matches!(scheme, "http" | "https") && !host.is_empty() && host.bytes().all(is_host)
}

fn client(
    name: &str,
    rates: &Rates,
    largest: LargestRequest,
    known: Option<&Arc<Client>>,
) -> Result<Client, String> {
    if rates.burst.is_some() && rates.events.is_none() {
        return Err("burst= needs events/s=".into());
    }
    if let Some(burst) = rates.burst.filter(|burst| *burst < largest.events) {
        return Err(format!(
            "burst={burst} is smaller than MAX_REQUEST_EVENTS={}, so the largest request could never pass; \
             raise the one or lower the other",
            largest.events
        ));
    }
    let limit = |per_second: u64, burst: u64, known: Option<&Limit>| {
        let rate = Rate { per_second, burst };
        known.map_or_else(|| Limit::new(rate), |known| known.with_rate(rate))
    };
    let events = rates.events.map(|per_second| {
        let burst = rates.burst.unwrap_or(per_second.max(largest.events));
        limit(per_second, burst, known.and_then(|known| known.events.as_ref()))
    });
    let bytes = rates.bytes.map(|per_second| {
        limit(per_second, per_second.max(largest.bytes), known.and_then(|known| known.bytes.as_ref()))
    });
    let share = known.map(|known| known.share.clone()).unwrap_or_default();
    Ok(Client { name: name.to_owned(), events, bytes, share })
}
