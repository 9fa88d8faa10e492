//! SCRAM (RFC 5802, RFC 7677) as Kafka uses it: turns the broker's messages into ours. Does no I/O.
//!
//! The caller supplies the nonce. The broker learns that we know the password, but not the password itself,
//! and proves that it knows the key derived from it. Names and passwords are used as they are, without
//! SASLprep, because Kafka stores them that way.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// Iterations of hashing that a broker may ask for. Kafka's own limits are 4,096 and 16,384. With fewer, an
/// impostor could guess the password from our proof; more would cost us seconds.
const ITERATIONS: (u32, u32) = (4096, 65_536);

/// The header for "no channel binding".
const GS2_HEADER: &str = "n,,";
/// The same in base64, as the last message repeats it.
const GS2_HEADER_BASE64: &str = "biws";

/// The hash function.
#[derive(Clone, Copy, Debug)]
pub enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }
}

/// One authentication, before the broker's first message.
pub struct Scram<'a> {
    hash: Hash,
    password: &'a [u8],
    nonce: String,
    /// The first message without its header; the proof covers this form.
    bare: String,
}

/// Verifies the broker's last message.
pub struct Expected {
    server_key: hmac::Key,
    covered: String,
}

impl<'a> Scram<'a> {
    /// `nonce` must be printable, contain no commas, and never have been used before.
    pub fn new(hash: Hash, username: &str, password: &'a [u8], nonce: String) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={username},r={nonce}");
        Self { hash, password, nonce, bare }
    }

    /// Our first message.
    pub fn first(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// Our response to the broker's first message.
    ///
    /// # Errors
    /// The message is not acceptable; the text says why.
    pub fn answer(&self, server_first: &[u8]) -> Result<(String, Expected), String> {
        let server_first = text(server_first)?;
        let [nonce, salt, iterations] = attributes(server_first, ["r", "s", "i"])?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its nonce is not ours followed by its own".into());
        }
        let salt = STANDARD.decode(salt).map_err(|_| "its salt is not base64".to_owned())?;
        let iterations =
            iterations.parse().ok().filter(|rounds| (ITERATIONS.0..=ITERATIONS.1).contains(rounds));
        let Some(iterations) = iterations.and_then(NonZeroU32::new) else {
            let (min, max) = ITERATIONS;
            return Err(format!("it asks for fewer than {min} or more than {max} iterations"));
        };
        let without_proof = format!("c={GS2_HEADER_BASE64},r={nonce}");
        let covered = format!("{},{server_first},{without_proof}", self.bare);
        let (proof, server_key) = self.prove(&salt, iterations, &covered);
        Ok((format!("{without_proof},p={}", STANDARD.encode(proof)), Expected { server_key, covered }))
    }

    fn prove(&self, salt: &[u8], iterations: NonZeroU32, covered: &str) -> (Vec<u8>, hmac::Key) {
        let key = |bytes: &[u8]| hmac::Key::new(self.hash.hmac(), bytes);
        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), iterations, salt, self.password, &mut salted);
        let salted = key(&salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = hmac::sign(&key(stored_key.as_ref()), covered.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        (proof, key(hmac::sign(&salted, b"Server Key").as_ref()))
    }
}

impl Expected {
    /// Checks that the broker's last message proves that it knows our password's key.
    ///
    /// # Errors
    /// The message does not prove it; the text says why.
    pub fn check(&self, server_final: &[u8]) -> Result<(), String> {
        let server_final = text(server_final)?;
        if let Some(error) = server_final.strip_prefix("e=") {
            return Err(error.to_owned());
        }
        let [signature] = attributes(server_final, ["v"])?;
        let signature = STANDARD.decode(signature).map_err(|_| "its proof is not base64".to_owned())?;
        hmac::verify(&self.server_key, self.covered.as_bytes(), &signature).map_err(|_| {
            "it does not prove that it knows the password: it is not the broker that it claims to be"
                .to_owned()
        })
    }
}

fn text(message: &[u8]) -> Result<&str, String> {
    str::from_utf8(message).map_err(|_| "its message is not UTF-8".to_owned())
}

/// The values of `names`, which the message must begin with, in this order; anything after them may be
/// ignored.
fn attributes<'m, const N: usize>(message: &'m str, names: [&str; N]) -> Result<[&'m str; N], String> {
    let mut parts = message.split(',');
    let mut values = [""; N];
    for (value, name) in values.iter_mut().zip(names) {
        let part = parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('='));
        *value = part.ok_or_else(|| format!("its message lacks `{name}=`"))?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 3 of RFC 7677.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn scram(hash: Hash) -> Scram<'static> {
        Scram::new(hash, "user", b"pencil", NONCE.into())
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_byte_by_byte() {
        let scram = scram(Hash::Sha256);
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (answer, expected) = scram.answer(SERVER_FIRST.as_bytes()).expect("answers");
        assert_eq!(answer, CLIENT_FINAL);
        assert_eq!(expected.check(SERVER_FINAL.as_bytes()), Ok(()));
    }

    /// The RFCs have no example for SHA-512, so this is the same exchange computed with Python's hashlib and
    /// hmac.
    #[test]
    fn sha_512_gives_what_another_implementation_gives() {
        let (answer, expected) = scram(Hash::Sha512).answer(SERVER_FIRST.as_bytes()).expect("answers");
        assert!(
            answer.ends_with(concat!(
                "p=",
                "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw",
                "+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ=="
            )),
            "{answer}"
        );
        let server_final = concat!(
            "v=",
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0v",
            "SVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw=="
        );
        assert_eq!(expected.check(server_final.as_bytes()), Ok(()));
    }

    #[test]
    fn signs_with_a_meaning_are_escaped_in_a_name() {
        let scram = Scram::new(Hash::Sha256, "a=b,c=2C", b"x", "n".into());
        assert_eq!(scram.first(), "n,,n=a=3Db=2Cc=3D2C,r=n");
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_found() {
        let (_, expected) = scram(Hash::Sha256).answer(SERVER_FIRST.as_bytes()).expect("answers");
        for wrong in [
            "",
            "v=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=",
            "v=AAAA",
            "v=!",
            "x=1",
            "e=unknown-user",
        ] {
            assert!(expected.check(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(expected.check(&[0xff]).is_err());
    }

    #[test]
    fn a_first_message_that_is_not_to_be_trusted_is_refused() {
        for (wrong, word) in [
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
            ("r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096", "base64"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1", "iterations"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4000000000", "iterations"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=x", "iterations"),
            ("m=mandatory,r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096", "lacks"),
            ("", "lacks"),
        ] {
            let reason = scram(Hash::Sha256).answer(wrong.as_bytes()).err().expect(wrong);
            assert!(reason.contains(word), "{wrong}: {reason}");
        }
    }
}
