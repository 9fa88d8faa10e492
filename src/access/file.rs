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
use std::collections::{BTreeMap, HashMap};
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
    let (mut lines, mut rates) = (Vec::new(), BTreeMap::<&str, Rates>::new());
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let parsed = one_line(&words, &read, &mut rates).map_err(|why| format!("line {number}: {why}"))?;
        if lines.iter().any(|(_, other): &(usize, Line<'_>)| other.id == parsed.id) {
            return Err(format!("line {number}: the id {} is there twice; every key has its own", parsed.id));
        }
        lines.push((number, parsed));
    }
    let mut clients = BTreeMap::new();
    for (name, rates) in rates {
        let known = before.and_then(|before| before.clients.get(name));
        let client = client(name, &rates, largest, known).map_err(|why| format!("client {name}: {why}"))?;
        clients.insert(name.to_owned(), Arc::new(client));
    }
    let key = |(_, line): (usize, Line<'_>)| {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::access::credential::Credential;
    use crate::access::key::generate;
    use crate::access::keys::{Denied, Request};

    const LARGEST: LargestRequest = LargestRequest { events: 1000, bytes: 1 << 20 };
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn read(path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("there") => {
                Ok("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nan older secret of theirs\n".into())
            }
            Some("empty") => Ok("\n".into()),
            _ => Err("No such file or directory".into()),
        }
    }

    fn keys(text: &str) -> Result<Keys, String> {
        parse(text, LARGEST, read, None)
    }

    /// A key and its line.
    fn line(client: &str, kind: &str, options: &str) -> (String, String) {
        let (id, key) = generate().expect("random");
        let line = format!("{client} {kind} {id} {} {options}\n", KeyHash::of(&key));
        (key, line)
    }

    fn admitted(keys: &Keys, key: &str, is_in_query: bool, request: Request<'_>) -> Result<String, String> {
        let credential = Credential { key: key.into(), is_in_query };
        keys.admit(Some(&credential), request, NOW).map(|key| key.client.name.clone()).map_err(|denied| {
            match denied {
                Denied::Unauthorized => "Unauthorized".into(),
                Denied::Origin(_) => "Origin".into(),
            }
        })
    }

    const POST: Request<'_> = Request { posts: true, origin: None };
    const GET: Request<'_> = Request { posts: false, origin: None };

    #[test]
    fn each_kind_of_key_may_do_what_it_is_for() {
        let (secret, first) = line("shop", "secret", "events/s=5");
        let (public, second) = line("pages", "public", "origins=https://a.example,http://b.example:8080");
        let (webhook, third) = line("hook", "webhook", "secret-file=there");
        let keys = keys(&format!("# keys\n\n{first}{second}{third}")).expect("keys");
        assert_eq!(admitted(&keys, &secret, false, POST), Ok("shop".into()));
        assert_eq!(admitted(&keys, &secret, false, GET), Ok("shop".into()));
        assert_eq!(admitted(&keys, &secret, true, POST), Err("Unauthorized".into()), "a query is logged");
        let from = |origin| Request { origin: Some(origin), ..POST };
        assert_eq!(admitted(&keys, &public, true, from("https://a.example")), Ok("pages".into()));
        assert_eq!(admitted(&keys, &public, false, from("http://b.example:8080")), Ok("pages".into()));
        for request in [from("https://a.example.evil"), from("null"), POST] {
            assert_eq!(admitted(&keys, &public, true, request), Err("Origin".into()));
        }
        assert_eq!(admitted(&keys, &public, false, GET), Err("Unauthorized".into()));
        assert_eq!(admitted(&keys, &webhook, true, POST), Ok("hook".into()));
        assert_eq!(admitted(&keys, &webhook, true, GET), Err("Unauthorized".into()));
        assert_eq!(admitted(&keys, "", false, POST), Err("Unauthorized".into()));
        let (unknown, _) = line("shop", "secret", "");
        assert_eq!(admitted(&keys, &unknown, false, POST), Err("Unauthorized".into()));
        assert!(!format!("{keys:?}").contains(&KeyHash::of(&secret).to_string()), "no hash is shown");
    }

    #[test]
    fn a_key_is_valid_to_the_end_of_its_last_day() {
        for (until, expected) in
            [("2027-01-15", Ok("shop".into())), ("2027-01-14", Err("Unauthorized".into()))]
        {
            // NOW is 2027-01-15T08:00:00Z.
            let (key, line) = line("shop", "secret", &format!("until={until}"));
            assert_eq!(admitted(&keys(&line).expect("keys"), &key, false, POST), expected);
        }
    }

    #[test]
    fn the_keys_of_a_client_share_its_limits_and_a_new_file_keeps_what_was_used() {
        let (first, one) = line("shop", "secret", "events/s=10 burst=2000");
        let (_, two) = line("shop", "secret", "bytes/s=50");
        let before = keys(&format!("{one}{two}")).expect("keys");
        let now = Instant::now();
        let shop = &before.clients["shop"];
        assert_eq!(shop.events.as_ref().expect("limit").take(2000, now), Ok(()));
        assert_eq!(shop.bytes.as_ref().expect("limit").rate, Rate { per_second: 50, burst: 1 << 20 });
        assert_eq!(admitted(&before, &first, false, POST), Ok("shop".into()));
        let after = parse(&one.replace("s=10", "s=20"), LARGEST, read, Some(&before)).expect("keys");
        let limit = after.clients["shop"].events.as_ref().expect("limit");
        assert_eq!(limit.rate, Rate { per_second: 20, burst: 2000 });
        assert!(limit.left(now) < 2000, "a new file is no new burst");
        let id = first.split('_').nth(1).expect("id");
        assert_eq!(after.by_id[id].last_used.load(Ordering::Relaxed), NOW.as_secs());
        assert!(after.clients["shop"].bytes.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let hash = "0".repeat(64);
        let cases = [
            ("shop".into(), "expected client"),
            (format!("sh/op secret A1b2C3d4 {hash}"), "at most 64 letters"),
            (format!("shop admin A1b2C3d4 {hash}"), "expected secret, public or webhook"),
            (format!("shop secret short {hash}"), "8 letters or digits"),
            ("shop secret A1b2C3d4 ep_A1b2C3d4_x_y".into(), "never write a key itself"),
            (format!("shop secret A1b2C3d4 {hash} fast"), "as name=value"),
            (format!("shop secret A1b2C3d4 {hash} events/s=0"), "whole number"),
            (format!("shop secret A1b2C3d4 {hash} events/s=1 events/s=1"), "expected one value"),
            (format!("shop secret A1b2C3d4 {hash} origins=https://a.example"), "not for a key of this kind"),
            (format!("shop secret A1b2C3d4 {hash} until=tomorrow"), "YYYY-MM-DD"),
            (format!("shop public A1b2C3d4 {hash}"), "needs origins"),
            (format!("shop public A1b2C3d4 {hash} origins=*"), "scheme://host"),
            (format!("shop public A1b2C3d4 {hash} origins=https://a.example/"), "scheme://host"),
            (format!("shop webhook A1b2C3d4 {hash}"), "needs secret-file"),
            (format!("shop webhook A1b2C3d4 {hash} secret-file=gone"), "No such file"),
            (format!("shop webhook A1b2C3d4 {hash} secret-file=empty"), "is empty"),
            (format!("shop webhook A1b2C3d4 {hash} secret-file=there prefix=a="), "needs header"),
            (format!("a secret A1b2C3d4 {hash}\n\n b secret A1b2C3d4 {hash}"), "line 4: the id A1b2C3d4"),
            (
                format!("a secret A1b2C3d4 {hash} events/s=1\na secret A1b2C3d5 {hash} events/s=2"),
                "line 3: events/s=2: another line",
            ),
        ];
        for (text, words) in cases {
            let said = keys(&format!("#\n{text}\n")).expect_err(&text);
            assert!(said.starts_with("line ") && said.contains(words), "{text}: {said}");
            assert!(!said.contains(&hash), "{said}");
        }
        for (options, words) in
            [("events/s=1 burst=999", "MAX_REQUEST_EVENTS=1000"), ("burst=2000", "needs events/s")]
        {
            let said = keys(&format!("shop secret A1b2C3d4 {hash} {options}")).expect_err(options);
            assert!(said.starts_with("client shop: ") && said.contains(words), "{said}");
        }
    }
}
