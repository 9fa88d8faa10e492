//! Collects the body of one request within the room that its owner has reserved.

use super::chunked::{Chunked, Pause};
use super::fields::Length;
use super::refusal::Refusal;

/// A body that is being read.
#[derive(Debug)]
pub struct Body {
    /// Its request.
    pub number: u64,
    data: Vec<u8>,
    /// Most bytes of data for now.
    room: usize,
    framing: Framing,
}

#[derive(Debug)]
enum Framing {
    /// This many bytes in total.
    Known(u64),
    Chunked(Box<Chunked>),
}

impl Body {
    /// Starts a body for which `room` bytes are reserved.
    pub fn new(number: u64, length: Length, room: usize) -> Self {
        let framing = match length {
            Length::Absent => Framing::Known(0),
            Length::Known(bytes) => Framing::Known(bytes),
            Length::Chunked => Framing::Chunked(Box::new(Chunked::new())),
        };
        let expected = match framing {
            Framing::Known(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX).min(room),
            Framing::Chunked(_) => 0,
        };
        Self { number, data: Vec::with_capacity(expected), room, framing }
    }

    /// Takes bytes from `input`, and returns how many, and why no more.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Pause), Refusal> {
        match &mut self.framing {
            Framing::Chunked(decoder) => decoder.decode(input, &mut self.data, self.room),
            Framing::Known(total) => {
                let left = usize::try_from(*total - self.data.len() as u64).unwrap_or(usize::MAX);
                let ready = input.len().min(left);
                let fits = ready.min(self.room.saturating_sub(self.data.len()));
                self.data.extend_from_slice(&input[..fits]);
                let pause = match () {
                    () if fits == left => Pause::Done,
                    () if fits < ready => Pause::Room,
                    () => Pause::Input,
                };
                Ok((fits, pause))
            }
        }
    }

    /// More room has been reserved: `room` bytes in total.
    pub fn extend(&mut self, room: usize) {
        self.room = self.room.max(room);
    }

    /// Bytes of data so far.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Bytes that decide how long the body may take: those announced, or those that have arrived.
    pub fn timed_bytes(&self) -> u64 {
        match self.framing {
            Framing::Known(total) => total,
            Framing::Chunked(_) => self.data.len() as u64,
        }
    }

    /// The data.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Memory held, in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        self.data.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_length_ends_the_body_within_its_room() {
        let mut body = Body::new(3, Length::Known(5), 2);
        assert_eq!(body.feed(b"a"), Ok((1, Pause::Input)));
        assert_eq!(body.feed(b"bcdefg"), Ok((1, Pause::Room)));
        body.extend(4);
        assert_eq!(body.feed(b"cdefg"), Ok((2, Pause::Room)));
        body.extend(10);
        assert_eq!(body.feed(b"efg"), Ok((1, Pause::Done)));
        assert_eq!((body.timed_bytes(), body.len()), (5, 5));
        assert_eq!(body.into_data(), b"abcde");
        assert_eq!(Body::new(0, Length::Known(0), 0).feed(b"x"), Ok((0, Pause::Done)));
    }
}
