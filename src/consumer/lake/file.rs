//! Writes one Parquet file. The same events give the same bytes: nothing here depends on the time or on chance.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, GzipLevel, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use crate::config::{Column, ColumnKind};
use crate::consumer::lake::columns::{Values, declare, slices, utc};
use crate::event::{Value, members};

/// Most rows in a row group, which is the unit that readers share out among their threads. DuckDB's own number.
const GROUP_MAX_ROWS: usize = 122_880;

/// Most bytes of events in a row group, which is what is held in memory; a larger event has one of its own.
const GROUP_MAX_BYTES: usize = 8 << 20;

/// Names of the columns that each file has.
const LOGGED_AT: &str = "logged_at";
const EVENT: &str = "event";

/// Keys in the footer that name the log of a file.
const LOG_KEY: &str = "event_pipeline.log";
const SHA256_KEY: &str = "event_pipeline.log_sha256";

/// The log that a file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Name of the log.
    pub log: &'a str,
    /// SHA-256 of its lines.
    pub sha256: &'a str,
}

impl Origin<'_> {
    /// True if a footer with these keys and values says that its file is made of this log.
    pub fn is_in(&self, pairs: Option<&Vec<KeyValue>>) -> bool {
        let value = |key: &str| pairs?.iter().find(|pair| pair.key == key)?.value.as_deref();
        value(LOG_KEY) == Some(self.log) && value(SHA256_KEY) == Some(self.sha256)
    }
}

/// What all files of a lake have in common.
pub struct Layout {
    schema: TypePtr,
    /// The fields that become columns, and the types of these.
    fields: Vec<String>,
    kinds: Vec<ColumnKind>,
}

impl Layout {
    /// A column for the time, one for the event, and one for each of `columns`.
    ///
    /// # Errors
    /// A name cannot be that of a column.
    pub fn new(columns: &[Column]) -> Result<Self> {
        let required = |name: &str, physical, logical| {
            let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
            column.with_logical_type(Some(logical)).build().map(Arc::new)
        };
        let mut all = vec![
            required(LOGGED_AT, Physical::INT64, utc(TimeUnit::MILLIS))?,
            required(EVENT, Physical::BYTE_ARRAY, LogicalType::String)?,
        ];
        for column in columns {
            all.push(Arc::new(declare(column)?));
        }
        let schema = Arc::new(Type::group_type_builder("event").with_fields(all).build()?);
        let fields = columns.iter().map(|column| column.field.clone()).collect();
        Ok(Self { schema, fields, kinds: columns.iter().map(|column| column.kind).collect() })
    }

    /// Events are compressed with gzip, which is the smallest of the codecs without C code, and every reader has it.
    fn properties(&self, origin: Origin<'_>) -> Result<WriterPropertiesBuilder> {
        let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
        let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        Ok(WriterProperties::builder()
            .set_created_by(concat!("event-pipeline version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![pair(LOG_KEY, origin.log), pair(SHA256_KEY, origin.sha256)]))
            .set_compression(Compression::GZIP(GzipLevel::try_new(1)?))
            // Times that rise, in a byte or so each.
            .set_column_dictionary_enabled(path(LOGGED_AT), false)
            .set_column_encoding(path(LOGGED_AT), Encoding::DELTA_BINARY_PACKED)
            // No two events are equal, and no query asks for the least one.
            .set_column_dictionary_enabled(path(EVENT), false)
            .set_column_statistics_enabled(path(EVENT), EnabledStatistics::None))
    }
}

/// A file that is being written.
pub struct EventFile<'a, W: Write + Send> {
    writer: SerializedFileWriter<W>,
    layout: &'a Layout,
    times: Vec<i64>,
    /// Events after each other, and where each ends.
    events: Vec<u8>,
    ends: Vec<usize>,
    values: Vec<Values>,
}

impl<'a, W: Write + Send> EventFile<'a, W> {
    /// Begins a file of `origin` in `sink`.
    ///
    /// # Errors
    /// It cannot be written. The same applies to all other methods.
    pub fn new(sink: W, layout: &'a Layout, origin: Origin<'_>) -> Result<Self> {
        let properties = Arc::new(layout.properties(origin)?.build());
        let writer = SerializedFileWriter::new(sink, layout.schema.clone(), properties)?;
        let values = layout.kinds.iter().copied().map(Values::new).collect();
        Ok(Self { writer, layout, times: Vec::new(), events: new_block(), ends: Vec::new(), values })
    }

    /// Adds a row, unless `event` is not a valid event.
    pub fn add(&mut self, millis: i64, event: &[u8]) -> Result<()> {
        let fields = &self.layout.fields;
        let mut found: Vec<Option<Value<'_>>> = vec![None; fields.len()];
        if members(event, fields, |place, value| found[place] = Some(value)).is_err() {
            return Ok(());
        }
        let is_full = self.times.len() == GROUP_MAX_ROWS || self.events.len() + event.len() > GROUP_MAX_BYTES;
        if is_full && !self.times.is_empty() {
            self.write_group()?;
        }
        self.values.iter_mut().zip(found).for_each(|(values, value)| values.push(value));
        self.times.push(millis);
        self.events.extend_from_slice(event);
        self.ends.push(self.events.len());
        Ok(())
    }

    /// Writes the rest and the footer.
    pub fn finish(mut self) -> Result<W> {
        if !self.times.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<()> {
        let mut group = self.writer.next_row_group()?;
        let times = std::mem::take(&mut self.times);
        next_column(&mut group, |column| match column {
            ColumnWriter::Int64ColumnWriter(column) => column.write_batch(&times, None, None).map(drop),
            _ => Err(ParquetError::General("logged_at is an int64".into())),
        })?;
        let events =
            slices(std::mem::replace(&mut self.events, new_block()), &std::mem::take(&mut self.ends));
        next_column(&mut group, |column| match column {
            ColumnWriter::ByteArrayColumnWriter(column) => column.write_batch(&events, None, None).map(drop),
            _ => Err(ParquetError::General("event is a byte array".into())),
        })?;
        drop(events);
        for values in &mut self.values {
            next_column(&mut group, |column| values.write(column))?;
        }
        group.close().map(drop)
    }
}

/// Memory for the events of a row group, at once: a vector that grows has its content twice for a moment.
fn new_block() -> Vec<u8> {
    Vec::with_capacity(GROUP_MAX_BYTES)
}

/// Writes the next column of a row group.
fn next_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    write: impl FnOnce(&mut ColumnWriter<'_>) -> Result<()>,
) -> Result<()> {
    let missing = || ParquetError::General("a row group has fewer columns than its schema".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    write(column.untyped())?;
    column.close()
}
