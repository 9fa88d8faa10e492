//! The `consumer` program: reads the settings, runs the consumer from the library, and sets the exit code.

use std::process::{self, ExitCode};

use event_pipeline::config::{self, ConsumerConfig};
use event_pipeline::shutdown::Shutdown;
use event_pipeline::{broker, consumer, linux, logging};

fn main() -> ExitCode {
    linux::ignore_file_size_signal();
    linux::share_heap();
    let config: ConsumerConfig = match config::load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _last_words = logging::init(config.common.log_level);
    let started = Shutdown::on_signals(|| {
        log::error!("second signal: lines after the last checkpoint will be read again at the next start");
        logging::flush();
        process::exit(1);
    })
    .and_then(|shutdown| {
        let source = broker::open_source(&config.kafka)?;
        Ok((shutdown, source.with_fetch_max_bytes(config.reading.fetch_max_bytes as usize)))
    });
    let (shutdown, source) = match started {
        Ok(parts) => parts,
        Err(error) => {
            log::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match consumer::run(&config, &shutdown, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::error!("{failure}");
            ExitCode::from(failure.exit_code)
        }
    }
}
