//! Makes typed columns of fields of the events. Pure.
//!
//! | type | values | anything else, or no such field |
//! | --- | --- | --- |
//! | string | a string | null |
//! | int64 | a number without fraction and exponent, from -2^63 to 2^63-1 | null |
//! | double | any number; the nearest double, unless that is infinite | null |
//! | bool | `true`, `false` | null |
//! | timestamp | a string with a time of RFC 3339; microseconds in UTC | null |

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::Type;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{Column, ColumnKind};
use crate::event::Value;

/// The values of one column in a row group.
#[derive(Debug)]
pub struct Values {
    kind: ColumnKind,
    /// 1 for each row with a value, 0 for null.
    levels: Vec<i16>,
    /// What is not null, by type: integers also hold timestamps.
    integers: Vec<i64>,
    doubles: Vec<f64>,
    bools: Vec<bool>,
    /// Strings after each other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Values {
    /// No values, for a column of this type.
    pub fn new(kind: ColumnKind) -> Self {
        Self {
            kind,
            levels: Vec::new(),
            integers: Vec::new(),
            doubles: Vec::new(),
            bools: Vec::new(),
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds the value of the next row.
    pub fn push(&mut self, value: Option<Value<'_>>) {
        let is_there = value.is_some_and(|value| self.take(value).is_some());
        self.levels.push(i16::from(is_there));
    }

    /// `None` if the value is of another type.
    fn take(&mut self, value: Value<'_>) -> Option<()> {
        match (self.kind, value) {
            (ColumnKind::Text, Value::Text(text)) => {
                self.text.extend_from_slice(&text.decode()?);
                self.ends.push(self.text.len());
            }
            (ColumnKind::Timestamp, Value::Text(text)) => self.integers.push(micros(&text.decode()?)?),
            (ColumnKind::Int64, Value::Plain(plain)) => self.integers.push(parse(plain)?),
            (ColumnKind::Double, Value::Plain(plain)) => {
                let number: f64 = parse(plain)?;
                number.is_finite().then(|| self.doubles.push(number))?;
            }
            (ColumnKind::Bool, Value::Plain(plain)) => self.bools.push(parse(plain)?),
            _ => return None,
        }
        Some(())
    }

    /// Writes all values into their column of a row group, and forgets them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, column: &mut ColumnWriter<'_>) -> Result<()> {
        let levels = Some(&self.levels[..]);
        match column {
            ColumnWriter::Int64ColumnWriter(column) => column.write_batch(&self.integers, levels, None)?,
            ColumnWriter::DoubleColumnWriter(column) => column.write_batch(&self.doubles, levels, None)?,
            ColumnWriter::BoolColumnWriter(column) => column.write_batch(&self.bools, levels, None)?,
            ColumnWriter::ByteArrayColumnWriter(column) => {
                let texts = slices(std::mem::take(&mut self.text), &self.ends);
                column.write_batch(&texts, levels, None)?
            }
            _ => return Err(ParquetError::General("a column has a type that is never declared".into())),
        };
        *self = Self::new(self.kind);
        Ok(())
    }
}

/// The values that follow each other in `text` without a gap, each with the byte after its last one in `ends`.
pub fn slices(text: Vec<u8>, ends: &[usize]) -> Vec<ByteArray> {
    let text = ByteArray::from(text);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| text.slice(start, end - start)).collect()
}

fn parse<T: std::str::FromStr>(plain: &[u8]) -> Option<T> {
    std::str::from_utf8(plain).ok()?.parse().ok()
}

/// Microseconds since the epoch; smaller parts are dropped.
fn micros(text: &[u8]) -> Option<i64> {
    let moment = OffsetDateTime::parse(std::str::from_utf8(text).ok()?, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1000)).ok()
}

/// The column of a file that `column` is.
///
/// # Errors
/// Never, for the types that there are.
pub fn declare(column: &Column) -> Result<Type> {
    let (physical, logical) = match column.kind {
        ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnKind::Int64 => (Physical::INT64, None),
        ColumnKind::Double => (Physical::DOUBLE, None),
        ColumnKind::Bool => (Physical::BOOLEAN, None),
        ColumnKind::Timestamp => (Physical::INT64, Some(utc(TimeUnit::MICROS))),
    };
    Type::primitive_type_builder(&column.name(), physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

/// A point in time in UTC.
pub fn utc(unit: TimeUnit) -> LogicalType {
    LogicalType::timestamp(true, unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::members;

    /// The values of `kind` that the texts in `values` become.
    fn values(kind: ColumnKind, values: &[&str]) -> Values {
        let mut found = Values::new(kind);
        for value in values {
            let event = format!("{{\"a\": {value}}}");
            let mut last = None;
            members(event.as_bytes(), &["a"], |_, value| last = Some(value)).expect("an event");
            found.push(last);
        }
        found.push(None);
        found
    }

    #[test]
    fn a_whole_number_is_an_int64_and_any_number_a_double() {
        let numbers = [
            "0",
            "-0",
            "7",
            "-9223372036854775808",
            "9223372036854775808",
            "1.0",
            "1e3",
            "-2.5E-1",
            "1e999",
            "\"7\"",
            "true",
            "null",
            "[1]",
            "{}",
        ];
        let found = values(ColumnKind::Int64, &numbers);
        assert_eq!(found.integers, [0, 0, 7, i64::MIN]);
        assert_eq!(found.levels, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let found = values(ColumnKind::Double, &numbers);
        assert_eq!(
            found.doubles,
            [0.0, -0.0, 7.0, -9223372036854775808.0, 9223372036854775808.0, 1.0, 1000.0, -0.25]
        );
        assert_eq!(found.levels, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn strings_lose_their_escapes_and_bools_are_words() {
        let found =
            values(ColumnKind::Text, &["\"a\"", "\"\"", "\"\\u00e9\\n\\u0000\"", "1", "null", "true"]);
        assert_eq!((found.text.as_slice(), &found.ends[..]), ("aé\n\0".as_bytes(), &[1, 1, 5][..]));
        let texts = slices(found.text.clone(), &found.ends);
        assert_eq!(
            texts.iter().map(ByteArray::data).collect::<Vec<_>>(),
            [&b"a"[..], b"", "é\n\0".as_bytes()]
        );
        assert_eq!(found.levels, [1, 1, 1, 0, 0, 0, 0]);
        let found = values(ColumnKind::Bool, &["true", "false", "1", "\"true\"", "null"]);
        assert_eq!((&found.bools[..], &found.levels[..]), (&[true, false][..], &[1, 1, 0, 0, 0, 0][..]));
    }

    #[test]
    fn a_timestamp_has_an_offset_and_becomes_utc() {
        let texts = [
            "\"2025-07-08T00:12:01.781Z\"",
            "\"2025-07-08T02:12:01.7819999+02:00\"",
            "\"1969-12-31T23:59:59.9999999Z\"",
            "\"2025-07-08 00:12:01\"",
            "\"2025-07-08T00:12:01\"",
            "\"2025-07-08\"",
            "1751933521781",
            "\"\"",
        ];
        let found = values(ColumnKind::Timestamp, &texts);
        assert_eq!(found.integers, [1_751_933_521_781_000, 1_751_933_521_781_999, -1]);
        assert_eq!(found.levels, [1, 1, 1, 0, 0, 0, 0, 0, 0]);
    }
}
