//! The `live` program: reads the settings, serves the live page from the library, and sets the exit code.

use std::process::{self, ExitCode};

use event_pipeline::config::{self, LiveConfig};
use event_pipeline::shutdown::Shutdown;
use event_pipeline::{linux, live, logging};

fn main() -> ExitCode {
    linux::ignore_file_size_signal();
    let config: LiveConfig = match config::load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _last_words = logging::init(config.common.log_level);
    let run = Shutdown::on_signals(|| process::exit(1)).and_then(|shutdown| live::run(&config, &shutdown));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
