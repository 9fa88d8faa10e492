//! The `simulate` program: reads the settings, runs the simulator from the library, and sets the exit code.

use std::io;
use std::process::{self, ExitCode};

use event_pipeline::config::{self, EXIT_BAD_CONFIG, Settings, SimulateConfig};
use event_pipeline::shutdown::Shutdown;
use event_pipeline::simulate::{self, SimulateError};
use event_pipeline::{linux, logging};

fn main() -> ExitCode {
    linux::ignore_file_size_signal();
    let config = match config::load::<SimulateConfig>() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _last_words = logging::init(config.common().log_level);
    let shutdown = match Shutdown::on_signals(|| process::exit(1)) {
        Ok(shutdown) => shutdown,
        Err(error) => return fail(1, &format!("signals: {error}")),
    };
    match simulate::run(&config, &shutdown, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(SimulateError::Setting(reason)) => fail(EXIT_BAD_CONFIG, &reason),
        Err(SimulateError::Failed(reason)) => fail(1, &reason),
    }
}

/// Prints the reason for the exit code whatever the log level is.
fn fail(code: u8, reason: &str) -> ExitCode {
    logging::say(format!("error: {reason}\n"));
    ExitCode::from(code)
}
