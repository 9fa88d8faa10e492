//! Reads one response frame from a stream, within a limit of its size and a deadline.

use std::io;
use std::time::Instant;

use crate::broker::protocol::deadline::transfer_time;
use crate::transport::{Refused, Transport};

/// Size limit of a response.
#[derive(Clone, Copy)]
pub struct AnswerLimit {
    pub bytes: usize,
    /// How much to read of a longer response; `None` rejects it.
    pub head: Option<usize>,
}

/// Bytes that are read at first. Most responses are shorter, so one system call reads them.
const FIRST_READ_BYTES: usize = 512;

/// Returns the response, or the beginning of one that is too long and `true`. Nothing may follow it, because each
/// request waits for its response.
///
/// # Errors
/// As for [`Transport::receive`]; also if the response is longer than the limit and no beginning is wanted, or if
/// something follows it.
pub fn receive(
    stream: &mut dyn Transport,
    limit: AnswerLimit,
    deadline: Instant,
) -> io::Result<(Vec<u8>, bool)> {
    let mut first = [0; FIRST_READ_BYTES];
    let mut count = 0;
    let (length, arrived) = loop {
        count += receive_some(stream, &mut first[count..], deadline)?;
        if let Some((length, arrived)) = first[..count].split_first_chunk() {
            break (*length, arrived);
        }
    };
    if is_tls_alert(length) {
        let why = "it speaks TLS on this port; set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL, or use its port \
                   without TLS";
        return Err(Refused(why.into()).into());
    }
    let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let is_cut = length > limit.bytes;
    let length = match limit.head {
        _ if !is_cut => length,
        Some(head) if length <= i32::MAX as usize => head,
        _ => {
            let why = format!("a response of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    if arrived.len() > length {
        let why = format!("{} bytes follow the response", arrived.len() - length);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // Grown as bytes arrive, so that a false length costs no memory.
    let mut answer = arrived.to_vec();
    while answer.len() < length {
        let start = answer.len();
        let end = (start + (64 << 10)).min(length);
        if end > answer.capacity() {
            answer.reserve_exact((2 * start).clamp(end, length) - start);
        }
        answer.resize(end, 0);
        // A broker that has already sent a lot may take longer for the rest.
        fill(stream, &mut answer[start..], deadline + transfer_time(start))?;
    }
    Ok((answer, is_cut))
}

fn fill(stream: &mut dyn Transport, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = receive_some(stream, buffer, deadline)?;
        buffer = &mut buffer[count..];
    }
    Ok(())
}

fn receive_some(stream: &mut dyn Transport, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    match stream.receive(buffer, deadline)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// True for a TLS alert, which says why the other side gives up; as a length it would be 352 MB.
fn is_tls_alert([kind, major, minor, _]: [u8; 4]) -> bool {
    kind == 0x15 && major == 3 && minor <= 4
}
