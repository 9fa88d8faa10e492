//! The keys that clients show: `ep_<id>_<secret>_<checksum>`, how they are made, and the hash by which they are known.
//!
//! The secret has 256 random bits, so a plain SHA-256 cannot be reversed; a slow hash would only let strangers
//! keep our processors busy. The checksum lets scanners recognise a leaked key without asking us.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "ep";
const ID_LENGTH: usize = 8;
/// 43 of 62 characters are 256 bits.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// No character at which a double click would stop selecting.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// SHA-256 of a whole key.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// A hash that differs from this one.
    pub fn inverted(&self) -> Self {
        Self(self.0.map(|byte| !byte))
    }

    /// Compares in a time that does not depend on the bytes.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Makes a key from the operating system's random source. Returns its id and the key.
///
/// # Errors
/// The random source does not answer.
pub fn generate() -> Result<(String, String), String> {
    let id = random(ID_LENGTH)?;
    let secret = random(SECRET_LENGTH)?;
    let body = format!("{PREFIX}_{id}_{secret}");
    let key = format!("{body}_{}", checksum(&body));
    Ok((id, key))
}

/// The public id of `key`, if it has the form of a key. Says nothing about whether the key is known.
pub fn id_of(key: &str) -> Option<&str> {
    let (body, sum) = key.rsplit_once('_')?;
    let (id, secret) = body.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    let is_whole = is_id(id) && secret.len() == SECRET_LENGTH && sum.len() == CHECKSUM_LENGTH;
    (is_whole && checksum(body) == sum).then_some(id)
}

/// True if `text` can be the public id of a key.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn random(length: usize) -> Result<String, String> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)
            .map_err(|error| format!("the operating system's random source: {error}"))?;
        // Bytes past the last whole multiple of 62 are skipped, so that every character is equally likely.
        let drawn = bytes.iter().filter(|byte| **byte < 248).map(|byte| ALPHABET[usize::from(byte % 62)]);
        text.extend(drawn.take(length - text.len()).map(char::from));
    }
    Ok(text)
}

/// `body` as a whole key.
#[cfg(test)]
pub fn with_checksum(body: &str) -> String {
    format!("{body}_{}", checksum(body))
}

fn checksum(body: &str) -> String {
    let mut left = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(left % 62) as usize];
        left /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_an_id_and_is_recognised_by_its_hash() {
        let (id, key) = generate().expect("random");
        assert_eq!(id_of(&key), Some(id.as_str()));
        assert_eq!(key.len(), "ep__".len() + ID_LENGTH + SECRET_LENGTH + 1 + CHECKSUM_LENGTH, "{key}");
        let hash = KeyHash::from_hex(&KeyHash::of(&key).to_string()).expect("hex");
        assert!(hash.matches(&KeyHash::of(&key)));
        assert!(!hash.matches(&KeyHash::of(&format!("{key}x"))));
        assert_ne!(generate().expect("random").1, key);
        assert_eq!(format!("{hash:?}"), "***");
    }

    #[test]
    fn what_is_not_a_key_has_no_id() {
        let (_, key) = generate().expect("random");
        let mut mistyped = key.clone().into_bytes();
        mistyped[20] = if mistyped[20] == b'a' { b'b' } else { b'a' };
        let mistyped = String::from_utf8(mistyped).expect("ASCII");
        for text in ["", "ep", "ep___", "_", &key[1..], &key[..key.len() - 1], &mistyped, &format!("{key} ")]
        {
            assert_eq!(id_of(text), None, "{text}");
        }
        assert!(KeyHash::from_hex("zz").is_none() && KeyHash::from_hex(&"é".repeat(32)).is_none());
    }
}
