//! The hash of a server's certificate that binds SCRAM to the TLS connection (RFC 5929, `tls-server-end-point`). Pure.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// How an algorithm of signatures hashes, by its object identifier (DER).
#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// RSA (PKCS #1) and ECDSA. MD5 and SHA-1 count as SHA-256, says the RFC.
const ALGORITHMS: [(&[u8], Hash); 8] = [
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", Hash::Sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", Hash::Sha512),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", Hash::Sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", Hash::Sha512),
];

/// Hashes `certificate` (DER); `None` if its signature is made in a way for which no hash is defined.
pub fn hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (whole, _) = element(certificate)?;
    let (_, after) = element(whole)?;
    let (algorithm, _) = element(after)?;
    let (identifier, _) = element(algorithm)?;
    let (_, hash) = ALGORITHMS.iter().find(|(known, _)| *known == identifier)?;
    Some(match hash {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// The content of the first element of `der`, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(*length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with nothing in it but the identifier of an algorithm.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let sequence = |content: Vec<u8>| [&[0x30, 0x81, content.len() as u8][..], &content].concat();
        let identifier = [&[0x06, identifier.len() as u8][..], identifier].concat();
        sequence([sequence(vec![0x02, 0x01, 0x07]), sequence(identifier)].concat())
    }

    #[test]
    fn the_signature_of_a_certificate_chooses_the_hash() {
        for (identifier, length) in [(ALGORITHMS[2].0, 32), (ALGORITHMS[6].0, 48), (ALGORITHMS[4].0, 64)] {
            assert_eq!(hash(&certificate(identifier)).map(|hash| hash.len()), Some(length));
        }
        assert_eq!(hash(&certificate(b"\x2b\x65\x70")), None, "Ed25519");
        let whole = certificate(ALGORITHMS[2].0);
        for end in 0..whole.len() {
            assert_eq!(hash(&whole[..end]), None, "{end}");
        }
    }
}
