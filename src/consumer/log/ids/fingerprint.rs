//! Reduces an event id to 128 bits. Pure.
//!
//! Two of 10^7 remembered ids and 10^12 new ones have the same fingerprint with a probability of 3 in 10^20, so no
//! event is dropped for that. The key is random, so no client can choose an id that collides with another one.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::event::uuid;
use crate::hex;

/// What is remembered of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Hash for Fingerprint {
    /// Half of its bits, which no client can choose.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (half, _) = self.0.split_at(8);
        state.write_u64(half.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)));
    }
}

/// The hash of a table of fingerprints: their own bits.
#[derive(Default)]
pub struct Uniform(u64);

impl Hasher for Uniform {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a fingerprint is written as a number");
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A random key; different logs have different fingerprints for the same id.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key([u8; 16]);

impl Key {
    /// A new key from the operating system's random source.
    ///
    /// # Errors
    /// The random source does not answer.
    pub fn random() -> Result<Self, String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| format!("the operating system's random source: {error}"))?;
        Ok(Self(bytes))
    }

    /// The fingerprint of `id`. The letters of a UUID may be of any case.
    pub fn fingerprint(&self, id: &[u8]) -> Fingerprint {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        match uuid(id) {
            Some(uuid) => hasher.write(&uuid),
            None => hasher.write(id),
        }
        Fingerprint(hasher.finish128().as_bytes())
    }
}

impl From<[u8; 16]> for Key {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        hex::encode(&key.0)
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() != 32 {
            return Err("the key of the event ids does not have 32 digits");
        }
        hex::decode(text.as_bytes())
            .map(Self)
            .ok_or("the key of the event ids has signs that are not hexadecimal digits")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_by_each_byte_and_by_the_key() {
        let (one, other) = (Key::from([1; 16]), Key::from([2; 16]));
        assert_eq!(one.fingerprint(b"a"), one.fingerprint(b"a"));
        assert_ne!(one.fingerprint(b"a"), one.fingerprint(b"b"));
        assert_ne!(one.fingerprint(b"a"), other.fingerprint(b"a"));
        assert_ne!(Key::random().expect("random"), Key::random().expect("random"));
    }

    #[test]
    fn a_uuid_may_be_of_any_case_and_what_only_looks_like_one_is_another_id() {
        let fingerprint = |id: &str| Key::from([7; 16]).fingerprint(id.as_bytes());
        let uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(fingerprint(&uuid.to_uppercase()), fingerprint(uuid));
        assert_ne!(fingerprint("f81d4fae-7dec-11d0-a765-00a0c91e6bf7"), fingerprint(uuid));
        for other in [
            "F81d4fae-7dec-11d0-a765-00a0c91e6bg6",
            "F81d4fae-7dec-11d0-a76500a0c91e-6bf6",
            "F81d4fae-7dec-11d0-a765-00a0c91e6bf",
            "F81d4fae-7dec-11d0-a765-00a0c91e-bf6",
            "+F1d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "F81d4fae7dec11d0a76500a0c91e6bf60000",
        ] {
            assert_ne!(fingerprint(other), fingerprint(&other.to_lowercase()), "{other}");
        }
    }

    /// Files hold them, so a new version of the library must not change them.
    #[test]
    fn fingerprints_stay_the_same() {
        let fingerprint = Key::from([0; 16]).fingerprint(b"order-7");
        assert_eq!(fingerprint.0, [92, 61, 240, 171, 226, 110, 7, 232, 145, 72, 202, 1, 227, 235, 41, 101]);
    }

    #[test]
    fn a_key_is_written_as_hexadecimal_digits_and_never_shown() {
        let key = Key::from([0x0f; 16]);
        assert_eq!(format!("{key:?}"), "***");
        let text = serde_json::to_string(&key).expect("text");
        assert_eq!(text, format!("\"{}\"", "0f".repeat(16)));
        assert_eq!(serde_json::from_str::<Key>(&text).expect("a key"), key);
        for bad in ["\"\"", "\"0f\"", &format!("\"{}\"", "0g".repeat(16)), "7"] {
            assert!(serde_json::from_str::<Key>(bad).is_err(), "{bad}");
        }
    }
}
