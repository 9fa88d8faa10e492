//! Formats a point in time as the `timestamp` of an event.

use std::fmt;
use time::{Duration, OffsetDateTime};

/// What a stamp is written into: the whole member.
const MEMBER: &[u8; 39] = b"\"timestamp\": \"0000-00-00T00:00:00.000Z\"";

/// Where in it the time is.
const TIME: std::ops::Range<usize> = 14..38;

/// Years 0000 to 9999; outside this range the text would have a different length.
const UNIX_MILLIS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// A UTC time with milliseconds as text: `2025-07-08T00:12:01.781Z`.
///
/// Creating one takes some tens of nanoseconds; callers may reuse it until the millisecond ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    member: [u8; MEMBER.len()],
}

impl Stamp {
    /// Converts milliseconds since 1970-01-01T00:00:00Z. A time before year 0 or after year 9999 becomes the
    /// nearest one in that range.
    pub fn from_unix_millis(unix_millis: i64) -> Self {
        let unix_millis = unix_millis.clamp(*UNIX_MILLIS.start(), *UNIX_MILLIS.end());
        let moment = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(unix_millis);
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second, milli) = moment.to_hms_milli();
        let mut member = *MEMBER;
        let text = &mut member[TIME];
        put(&mut text[0..4], year.unsigned_abs());
        put(&mut text[5..7], u8::from(month).into());
        put(&mut text[8..10], day.into());
        put(&mut text[11..13], hour.into());
        put(&mut text[14..16], minute.into());
        put(&mut text[17..19], second.into());
        put(&mut text[20..23], milli.into());
        Self { member }
    }

    /// The member of an event: `"timestamp": "…"`.
    pub fn member(&self) -> &[u8] {
        &self.member
    }

    /// The 24 ASCII bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.member[TIME]
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a stamp consists of ASCII digits and punctuation")
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes `number` in decimal into all of `digits`, with leading zeros.
fn put(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    #[test]
    fn moments_that_others_computed() {
        // Expected values from `date -u -d @S +%FT%TZ`, and the edges of the range.
        for (unix_millis, text) in [
            (1_751_933_521_781, "2025-07-08T00:12:01.781Z"),
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            let stamp = Stamp::from_unix_millis(unix_millis);
            assert_eq!(stamp.as_str(), text);
            assert_eq!(stamp.member(), format!("\"{}\": \"{text}\"", crate::event::TIMESTAMP).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_millisecond(unix_millis in UNIX_MILLIS) {
            let stamp = Stamp::from_unix_millis(unix_millis);
            let back = OffsetDateTime::parse(stamp.as_str(), &Rfc3339).expect("RFC 3339");
            prop_assert_eq!(back.unix_timestamp_nanos(), i128::from(unix_millis) * 1_000_000);
        }
    }
}
