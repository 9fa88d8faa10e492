//! Why a call to the database failed, and what can be done about it. Pure.

use std::fmt;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use crate::consumer::destination::DestinationError;
use crate::tables::named;

/// Longest text of the server in a message, in characters.
const TEXT_MAX: usize = 300;

/// Why a call failed.
#[derive(Debug)]
pub enum PgError {
    /// The connection is gone, or there was none. What was sent last may have been done.
    Lost(String),
    /// The server took too long, so the connection is given up. What was sent last may have been done.
    TimedOut(String),
    /// One side does not accept the other: a setting has to be changed.
    Refused(String),
    /// The server did not do what a statement says.
    Sql(SqlError),
}

/// An error of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlError {
    /// SQLSTATE.
    pub code: String,
    /// The server's text, which does not repeat more than a few words of a row.
    pub message: String,
    /// The table that it is about, with its schema, quoted.
    pub table: Option<String>,
    /// The constraint that a row violates.
    pub constraint: Option<String>,
    /// Number of the row in a COPY, counted from 1.
    pub line: Option<usize>,
    /// The server has ended the connection.
    pub is_fatal: bool,
}

/// What can be done about an error of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The database does not accept a row, or at the moment none at all: another row shows which of the two it is.
    Row,
    /// A row with the same primary key exists, in whichever table the error names.
    Exists,
    /// The statement took too long.
    Timeout,
    /// A setting, a right or a table is missing.
    Settings,
    /// The server has run out of memory or failed in itself. It may pass, unless a row is too large for it.
    Exhausted,
    /// It may pass.
    Passing,
}

impl SqlError {
    /// Reads the fields of an error.
    pub fn read(mut fields: ErrorFields<'_>) -> Self {
        let (mut error, mut schema) = (Self::default(), String::new());
        while let Ok(Some(field)) = fields.next() {
            let text = || printable(&String::from_utf8_lossy(field.value_bytes()));
            match field.type_() {
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                // It comes before the table.
                b's' => schema = text(),
                b't' => error.table = Some(named(&schema, &text())),
                b'n' => error.constraint = Some(text()),
                b'V' => error.is_fatal = matches!(field.value_bytes(), b"FATAL" | b"PANIC"),
                b'W' => error.line = line_in(&String::from_utf8_lossy(field.value_bytes())),
                _ => {}
            }
        }
        error
    }

    /// What can be done about it.
    pub fn kind(&self) -> Kind {
        let class = self.code.get(..2).unwrap_or_default();
        match (class, self.code.as_str()) {
            (_, "57014") => Kind::Timeout,
            (_, "53200" | "XX000") => Kind::Exhausted,
            (_, "23505") if self.constraint.as_deref().is_some_and(|name| name.ends_with("_pkey")) => {
                Kind::Exists
            }
            // A partition is missing: a trigger that raises this error names no table.
            (_, "23514") if self.constraint.is_none() && self.table.is_some() => Kind::Settings,
            ("0A", _) if self.line.is_some() => Kind::Row,
            ("0A" | "28" | "3D" | "3F" | "42", _) => Kind::Settings,
            ("" | "08" | "25" | "40" | "53" | "55" | "57" | "58" | "F0" | "XX", _) => Kind::Passing,
            // What is wrong with a row, and every error that a trigger may raise, codes of its own included.
            _ => Kind::Row,
        }
    }
}

/// The number in `COPY events, line 17, column event: "…"`.
fn line_in(context: &str) -> Option<usize> {
    let copy = context.lines().find(|line| line.starts_with("COPY "))?;
    let (_, rest) = copy.split_once(", line ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Puts a text of the server on one line of bounded length.
fn printable(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(why) | Self::TimedOut(why) | Self::Refused(why) => f.write_str(why),
            Self::Sql(error) => error.fmt(f),
        }
    }
}

impl PgError {
    /// What it means at a start: missing rights and the like end it.
    pub fn at_start(self) -> DestinationError {
        let text = self.to_string();
        match self {
            Self::Lost(_) | Self::TimedOut(_) => DestinationError::Retryable(text),
            Self::Refused(_) => DestinationError::Unusable(text),
            Self::Sql(error) if matches!(error.kind(), Kind::Settings | Kind::Exists) => {
                DestinationError::Unusable(text)
            }
            Self::Sql(_) => DestinationError::Retryable(text),
        }
    }

    /// What it means while events are written: it worked before, so an operator may repair it meanwhile.
    pub fn while_running(self) -> DestinationError {
        DestinationError::Retryable(self.to_string())
    }

    /// True if the connection cannot be used any more.
    pub fn ends_connection(&self) -> bool {
        // A standby that was promoted elsewhere, or a server that has become one, refuses to write.
        !matches!(self, Self::Sql(error) if !error.is_fatal && error.code != "25006")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, constraint: Option<&str>, line: Option<usize>) -> SqlError {
        SqlError { code: code.into(), constraint: constraint.map(str::to_owned), line, ..SqlError::default() }
    }

    #[test]
    fn what_a_row_is_refused_for_is_told_from_what_may_pass() {
        for (code, constraint, line, expected) in [
            ("22P05", None, Some(3), Kind::Row),
            ("22003", None, None, Kind::Row),
            ("23514", Some("positive"), None, Kind::Row),
            ("23514", None, None, Kind::Row),
            ("23502", None, Some(1), Kind::Row),
            ("22P03", None, Some(1), Kind::Row),
            ("23505", Some("events_pkey"), Some(1), Kind::Exists),
            ("23505", Some("events_event_id"), Some(1), Kind::Row),
            ("P0001", None, None, Kind::Row),
            ("38000", None, None, Kind::Row),
            ("ABC01", None, None, Kind::Row),
            ("53200", None, None, Kind::Exhausted),
            ("XX000", None, Some(1), Kind::Exhausted),
            ("54000", None, None, Kind::Row),
            ("0A000", None, Some(1), Kind::Row),
            ("0A000", None, None, Kind::Settings),
            ("57014", None, Some(9), Kind::Timeout),
            ("42P01", None, None, Kind::Settings),
            ("42501", None, None, Kind::Settings),
            ("28P01", None, None, Kind::Settings),
            ("53100", None, Some(4), Kind::Passing),
            ("40P01", None, None, Kind::Passing),
            ("57P01", None, None, Kind::Passing),
            ("XX001", None, None, Kind::Passing),
            ("", None, None, Kind::Passing),
        ] {
            assert_eq!(error(code, constraint, line).kind(), expected, "{code}");
        }
        let no_partition =
            SqlError { table: Some(named("public", "events")), ..error("23514", None, Some(1)) };
        assert_eq!(no_partition.kind(), Kind::Settings);
    }

    #[test]
    fn the_number_of_the_row_is_in_the_context() {
        for (context, line) in [
            ("JSON data, line 1: ...\"\\u0000...\nCOPY events, line 17, column event: \"{}\"", Some(17)),
            ("COPY events, line 3", Some(3)),
            ("SQL statement \"SELECT 1\"", None),
            ("COPY events, line x", None),
        ] {
            assert_eq!(line_in(context), line, "{context}");
        }
    }
}
