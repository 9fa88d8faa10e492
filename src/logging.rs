//! Operator logs: `log` through simplelog to stderr. Not the event log, which is `consumer::event_log`.

use simplelog::{ConfigBuilder, LevelFilter, WriteLogger, format_description};

/// Sends the log of this process to stderr, one line a record: `2026-11-24T08:15:46.032Z [INFO] event_pipeline::producer: …`.
///
/// The kafka crate's own messages come in through `tracing`; its TRACE level would print payloads, so it
/// stays at most at DEBUG. A second call in one process changes nothing.
pub fn init(level: LevelFilter) {
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_max_level(LevelFilter::Error)
        .set_target_level(LevelFilter::Error)
        .set_thread_level(LevelFilter::Debug)
        .set_location_level(LevelFilter::Off)
        // Its one message, an accept error, is told again, with what is done about it, by `producer`.
        .add_filter_ignore_str("tiny_http")
        .build();
    let _ = WriteLogger::init(level.min(LevelFilter::Debug), config, std::io::stderr());
}
