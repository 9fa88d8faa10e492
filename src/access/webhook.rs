//! Checks the signatures of webhooks: Standard Webhooks 1.0, and an HMAC of the body in a header as GitHub sends it.
//!
//! Sources: the specification in standard-webhooks/standard-webhooks (`spec/standard-webhooks.md`), and GitHub's
//! "Validating webhook deliveries". Both sign the body as it was sent, before it is decompressed.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far the time of a message may be from ours, in both directions.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Prefix of a secret of Standard Webhooks, before its base64.
const SECRET_PREFIX: &str = "whsec_";

/// A secret that a sender signs with.
#[derive(Clone)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    /// Reads one line of a secret's file: `whsec_` and base64, or any other text as it is.
    ///
    /// # Errors
    /// A sentence that does not show the secret.
    pub fn parse(line: &str) -> Result<Self, &'static str> {
        let bytes = match line.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| "what follows `whsec_` is not base64")?,
            None => line.as_bytes().to_vec(),
        };
        if bytes.len() < 16 { Err("the secret is shorter than 16 bytes") } else { Ok(Self(bytes)) }
    }

    fn signs(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return false };
        parts.iter().for_each(|part| mac.update(part));
        mac.verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a sender puts its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    Standard,
    /// One header with the HMAC of the body in hexadecimal digits after a prefix.
    Hex {
        /// Name of the header, for example `X-Hub-Signature-256`.
        header: String,
        /// What comes before the digits, for example `sha256=`.
        prefix: String,
    },
}

/// Why a message is not accepted. The sender learns only that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A header is missing or has the wrong form.
    Malformed,
    /// Signed too long ago, or in the future.
    NotNow,
    /// No signature fits one of our secrets.
    Forged,
}

/// Checks a message. `header` returns the value of a header; `now` is the time since the Unix epoch. Returns the
/// message's id, where the scheme has one: it was signed too, and is the same when the message is sent again.
///
/// # Errors
/// See [`Rejection`].
pub fn verify<'h>(
    scheme: &Scheme,
    secrets: &[SigningSecret],
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Duration,
) -> Result<Option<&'h str>, Rejection> {
    match scheme {
        Scheme::Standard => standard(secrets, header, body, now).map(Some),
        Scheme::Hex { header: name, prefix } => {
            let digits = header(name).and_then(|value| value.trim().strip_prefix(prefix.as_str()));
            let signature = digits.and_then(from_hex).ok_or(Rejection::Malformed)?;
            if !secrets.iter().any(|secret| secret.signs(&[body], &signature)) {
                return Err(Rejection::Forged);
            }
            Ok(None)
        }
    }
}

fn standard<'h>(
    secrets: &[SigningSecret],
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Duration,
) -> Result<&'h str, Rejection> {
    let id = header("webhook-id").filter(|id| !id.is_empty()).ok_or(Rejection::Malformed)?;
    let timestamp = header("webhook-timestamp").ok_or(Rejection::Malformed)?;
    let signatures = header("webhook-signature").ok_or(Rejection::Malformed)?;
    let signed_at = timestamp.parse().map(Duration::from_secs).map_err(|_| Rejection::Malformed)?;
    if now.abs_diff(signed_at) > TOLERANCE {
        return Err(Rejection::NotNow);
    }
    // Signatures of other versions (v1a is asymmetric) are skipped.
    let versions = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    let mut decoded = versions.filter_map(|encoded| STANDARD.decode(encoded).ok());
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let is_signed = decoded.any(|signature| secrets.iter().any(|secret| secret.signs(&parts, &signature)));
    if is_signed { Ok(id) } else { Err(Rejection::Forged) }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: &str = "1614265330";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn check(
        secret: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        now: u64,
    ) -> Result<Option<String>, Rejection> {
        let secrets = [SigningSecret::parse("another secret of ours").expect("long"), parse(secret)];
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        verify(&Scheme::Standard, &secrets, header, body, Duration::from_secs(now))
            .map(|id| id.map(str::to_owned))
    }

    fn parse(secret: &str) -> SigningSecret {
        SigningSecret::parse(secret).expect("a secret")
    }

    fn headers<'a>(signature: &'a str, at: &'a str) -> [(&'a str, &'a str); 3] {
        [("webhook-id", ID), ("webhook-timestamp", at), ("webhook-signature", signature)]
    }

    #[test]
    fn the_example_of_the_specification_is_accepted_within_five_minutes() {
        for now in [1_614_265_330, 1_614_265_030, 1_614_265_630] {
            assert_eq!(check(SECRET, &headers(SIGNATURE, AT), BODY, now), Ok(Some(ID.into())));
        }
        for now in [1_614_265_029, 1_614_265_631, 0] {
            assert_eq!(check(SECRET, &headers(SIGNATURE, AT), BODY, now), Err(Rejection::NotNow));
        }
        let several = format!("v1a,AAAA v1,AAAA v1,!! {SIGNATURE}");
        assert_eq!(check(SECRET, &headers(&several, AT), BODY, 1_614_265_330), Ok(Some(ID.into())));
    }

    #[test]
    fn what_was_changed_or_is_missing_is_refused() {
        let now = 1_614_265_330;
        let forged = Err(Rejection::Forged);
        assert_eq!(check(SECRET, &headers(SIGNATURE, AT), b"{}", now), forged);
        assert_eq!(check(SECRET, &headers(SIGNATURE, "1614265331"), BODY, now), forged);
        assert_eq!(
            check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx", &headers(SIGNATURE, AT), BODY, now),
            forged
        );
        assert_eq!(check(SECRET, &headers("v2,AAAA", AT), BODY, now), forged);
        assert_eq!(check(SECRET, &headers(SIGNATURE, "soon"), BODY, now), Err(Rejection::Malformed));
        for missing in 0..3 {
            let mut some = headers(SIGNATURE, AT).to_vec();
            some.remove(missing);
            assert_eq!(check(SECRET, &some, BODY, now), Err(Rejection::Malformed));
        }
    }

    /// The example of GitHub's documentation.
    #[test]
    fn a_signature_as_github_sends_it_is_accepted_and_no_other() {
        let scheme = Scheme::Hex { header: "X-Hub-Signature-256".into(), prefix: "sha256=".into() };
        let secrets = [parse("It's a Secret to Everybody")];
        let signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let check = |signature: Option<&'static str>, body: &[u8]| {
            verify(&scheme, &secrets, |_| signature, body, Duration::ZERO)
        };
        assert_eq!(check(Some(signed), b"Hello, World!"), Ok(None));
        assert_eq!(check(Some(signed), b"Hello, World?"), Err(Rejection::Forged));
        for broken in
            [None, Some("sha256="), Some("sha256=7"), Some("sha256=zz"), Some("757107"), Some("sha256=é7")]
        {
            assert!(check(broken, b"Hello, World!").is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_must_have_some_length() {
        assert_eq!(format!("{:?}", parse(SECRET)), "***");
        assert!(SigningSecret::parse("whsec_???").is_err() && SigningSecret::parse("short").is_err());
    }
}
