//! The `producer` program: reads the settings, runs the producer from the library, and sets the exit code.

use std::process::{self, ExitCode};

use event_pipeline::access::key::{self, KeyHash};
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
    if let Some(client) = &config.access.new_key {
        return new_key(client);
    }
    let _last_words = logging::init(config.common.log_level);
    run(&config).unwrap_or_else(|error| {
        log::error!("cannot start: {error}");
        ExitCode::FAILURE
    })
}

/// Prints a new key, which is nowhere else, and its line for the file of keys.
#[expect(clippy::print_stdout, reason = "the output of --new-key")]
fn new_key(client: &str) -> ExitCode {
    match key::generate() {
        Ok((id, key)) => {
            println!("{key}\n{client} secret {id} {}", KeyHash::of(&key));
            logging::say(
                "the first line is the key and is shown only here; add the second to AUTH_KEYS_FILE\n".into(),
            );
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(reason) => {
            logging::say(format!("error: {reason}\n"));
            logging::flush();
            ExitCode::FAILURE
        }
    }
}

fn run(config: &ProducerConfig) -> std::io::Result<ExitCode> {
    let sink = broker::open_sink(&config.kafka)?;
    let producer = Producer::start(config, Box::new(sink))?;
    let unsent = producer.unsent();
    let shutdown = Shutdown::on_signals(move || {
        log::error!("second signal: {} events unsent", unsent.events());
        logging::flush();
        process::exit(1);
    })?;
    Ok(ExitCode::from(producer.run(&shutdown)))
}
