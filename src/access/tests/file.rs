//! Files of keys as people write them, and what their keys may do.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::access::credential::Credential;
use crate::access::file::{LargestRequest, parse};
use crate::access::key::{KeyHash, generate, with_checksum};
use crate::access::keys::{Denied, Keys, Request};
use crate::access::limit::Rate;

const LARGEST: LargestRequest = LargestRequest { events: 1000, bytes: 1 << 20 };
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn read(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some("there") => Ok("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nan older secret of theirs\n".into()),
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
    for (until, expected) in [("2027-01-15", Ok("shop".into())), ("2027-01-14", Err("Unauthorized".into()))] {
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

/// Whatever a wrong key shares with a known one, it is refused after the same time.
#[test]
fn the_time_of_a_refusal_says_nothing_about_how_close_a_key_is() {
    let (right, line) = line("shop", "secret", "");
    let keys = keys(&line).expect("keys");
    // The checksum fits, so that the form alone does not give a wrong key away.
    let wrong = |shared: usize| {
        let body = &right[..right.len() - 7];
        let rest: String = body[shared..]
            .chars()
            .map(|c| {
                if c == '_' {
                    c
                } else if c == 'x' {
                    'y'
                } else {
                    'x'
                }
            })
            .collect();
        with_checksum(&format!("{}{rest}", &body[..shared]))
    };
    let shared = [3, 12, 20, 30, 40, 54];
    let candidates = shared.map(wrong);
    let mut times = shared.map(|_| Vec::new());
    for _ in 0..100_000 / shared.len() {
        for (key, times) in candidates.iter().zip(&mut times) {
            let began = Instant::now();
            let refused = admitted(&keys, key, false, POST).is_err();
            times.push(began.elapsed());
            assert!(refused);
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let (least, most) = (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
    assert!(*most < *least * 3 / 2, "{shared:?} shared characters: {medians:?}");
}
