//! Decompresses bodies, and says why one cannot be.

use crate::decompress::{self, Failure};
use crate::producer::answer::Answer;
use crate::producer::intake::Refusal;
use crate::producer::media::Coding;
use crate::producer::status::ErrorTag;

/// Decompresses a body into at most `limit` bytes. `grow` is called before memory grows to the given size, and may
/// refuse that.
///
/// # Errors
/// The body is damaged, is larger than the limit once decompressed, or there is no room for it.
pub fn decompress(
    coding: Coding,
    compressed: &[u8],
    limit: usize,
    grow: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, Refusal> {
    let (tag, body) = match coding {
        Coding::Gzip => (ErrorTag::NotGzip, decompress::gzip(compressed, limit, grow)),
        Coding::Zstd => (ErrorTag::NotZstd, decompress::zstd(compressed, limit, grow)),
    };
    body.map_err(|failure| match failure {
        Failure::NoRoom => Refusal::NoRoom,
        Failure::TooLarge => {
            Refusal::TooMuch("max_body_bytes", Answer::too_large("decompressed body", limit as u64))
        }
        Failure::Corrupt(why) => {
            let name = coding.name();
            let message =
                format!("Content-Encoding says {name}, but the body is not complete {name} data ({why})");
            Refusal::Unusable(Answer::error(tag, &message))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_at_the_room() {
        for (coding, tag) in [(Coding::Gzip, "not_gzip"), (Coding::Zstd, "not_zstd")] {
            let compress = |bytes: &[u8]| {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                match coding {
                    Coding::Gzip => encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory"),
                    Coding::Zstd => compress_to_vec(bytes, CompressionLevel::Fastest),
                }
            };
            let whole = compress(b"{}");
            let fits = |body: &[u8]| decompress(coding, body, 1000, |_| true);
            let is_bomb = |body: &[u8]| matches!(fits(body), Err(Refusal::TooMuch("max_body_bytes", _)));
            assert!(matches!(fits(&compress(&[b' '; 1000])), Ok(body) if body.len() == 1000));
            assert!(matches!(fits(&whole.repeat(2)), Ok(body) if body == b"{}{}"), "members, frames");
            assert!(is_bomb(&compress(&[b' '; 1001])));
            assert!(is_bomb(&compress(&[b' '; 501]).repeat(2)));
            assert!(is_bomb(&compress(&vec![b' '; 10 << 20])));
            let room = decompress(coding, &whole, 1000, |_| false);
            assert!(matches!(room, Err(Refusal::NoRoom)));
            for broken in [&b"nonsense"[..], b"{}", &whole[..whole.len() - 3]] {
                let Err(Refusal::Unusable(answer)) = fits(broken) else { panic!("{coding:?}") };
                assert!(String::from_utf8_lossy(&answer.body).contains(tag), "{answer:?}");
            }
        }
    }
}
