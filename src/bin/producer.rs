//! The `producer` program: reads the settings, runs the producer from the library, and sets the exit code.

use std::process::{self, ExitCode};

use event_pipeline::config::{self, ProducerConfig};
use event_pipeline::producer::Producer;
use event_pipeline::shutdown::Shutdown;
use event_pipeline::{broker, linux, logging};

fn main() -> ExitCode {
    linux::ignore_file_size_signal();
    let config: ProducerConfig = match config::load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _last_words = logging::init(config.common.log_level);
    run(&config).unwrap_or_else(|error| {
        log::error!("cannot start: {error}");
        ExitCode::FAILURE
    })
}

fn run(config: &ProducerConfig) -> std::io::Result<ExitCode> {
    let sink = broker::open_sink(&config.kafka, &config.send)?;
    let producer = Producer::start(config, Box::new(sink))?;
    let unsent = producer.unsent();
    let shutdown = Shutdown::on_signals(move || {
        log::error!("second signal: {} events unsent", unsent.events());
        logging::flush();
        process::exit(1);
    })?;
    Ok(ExitCode::from(producer.run(&shutdown)))
}
