//! Reads the settings of each program from flags, the environment and `.env`.
//!
//! One clap struct per program defines its settings, the help and the error messages. A flag takes precedence
//! over the environment, and the environment over `.env`. A bad value leads to exit code 2.

mod access;
mod consumer;
mod destination;
mod health;
mod http;
mod ids;
mod kafka;
mod lake;
mod live;
mod postgres_url;
mod producer;
mod s3;
mod secret;
mod security;
mod send;
mod shard;
mod simulate;
mod values;

pub use access::{AccessConfig, read_keys};
pub use consumer::{ConsumerConfig, Fsync, LogConfig, OffsetReset, ReadingConfig};
pub use destination::{CreateTables, DESTINATION_PASSWORD_ENV, DestinationConfig};
pub use health::HealthConfig;
pub use http::{HttpConfig, HttpServer};
pub use ids::IdsConfig;
pub use kafka::{KafkaClient, KafkaConfig};
pub use lake::{Column, ColumnKind, LakeConfig};
pub use live::{LIVE_KEY_ENV, LIVE_TOKEN_ENV, LiveConfig};
pub use postgres_url::{PostgresUrl, TlsMode};
pub use producer::{EventEcho, ProducerConfig};
pub use s3::{S3Config, S3Keys, S3Url};
pub use secret::{PASSWORD_ENV, Secret};
pub use security::{SaslMechanism, SecurityConfig, SecurityProtocol, system_authorities};
pub use send::{Compression, RecordHeader, SendConfig};
pub use shard::Shard;
pub use simulate::{AuditConfig, BatchFormat, LoadConfig, Output, ReportConfig, SimulateConfig};

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use simplelog::LevelFilter;

use crate::{health_check, logging};

/// Exit code for a bad setting.
pub const EXIT_BAD_CONFIG: u8 = 2;

/// Names that users of other tools expect, and the names used here.
const ENV_ALIASES: [(&str, &str); 3] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    ("KAFKA_GROUP_ID", "KAFKA_GROUP"),
    ("RUST_LOG", "LOG_LEVEL"),
];

/// Settings that every program has.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "General")]
pub struct CommonConfig {
    /// Lowest level that is logged to stderr: off, error, warn, info or debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_level, value_name = "LEVEL")]
    pub log_level: LevelFilter,

    /// Check the settings and exit
    #[arg(long)]
    pub check_config: bool,

    /// Print the settings in force and where each value came from, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// Settings of one program.
pub trait Settings: CommandFactory + FromArgMatches {
    /// The settings that every program has.
    fn common(&self) -> &CommonConfig;

    /// Checks relations between settings.
    ///
    /// # Errors
    /// One sentence with the settings, their values and what is allowed.
    fn validate(&self) -> Result<(), String>;

    /// Normalized values for `--print-config`, with the environment names of the settings.
    fn in_force(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Name and value of the setting with the address of `/readyz`, if `--health` asks for it.
    ///
    /// # Errors
    /// One sentence that says why there is no such address.
    fn asked_for_health(&self) -> Result<Option<(&'static str, SocketAddr)>, String> {
        Ok(None)
    }

    /// Text to print instead of running, if a flag asks for that.
    ///
    /// # Errors
    /// One sentence for the user.
    fn output(&self) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// The passwords that are set in the environment, by the names of their variables. They are not clap arguments.
    fn passwords(&self) -> Vec<(&'static str, &Secret)> {
        Vec::new()
    }
}

/// Loads the settings of this process from flags, the environment and `.env`.
///
/// # Errors
/// The exit code for this process, which must end. The reason, or the output of `--help`, `--print-config` or
/// `--check-config`, has already been printed.
pub fn load<T: Settings>() -> Result<T, ExitCode> {
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        return Err(refuse(&format!(".env: {}; correct or remove the file", what_of_env_file(&error))));
    }
    let command = with_aliases(T::command(), |name| std::env::var_os(name).is_some());
    let matches = command.clone().try_get_matches().map_err(|error| {
        if error.use_stderr() {
            return refuse(&named(&error, &command));
        }
        print(&error.render().to_string());
        ExitCode::SUCCESS
    })?;
    let settings = T::from_arg_matches(&matches).map_err(|error| refuse(&error.to_string()))?;
    // Before files of the settings are read: that one of them is being replaced does not make the program unhealthy.
    if let Some(outcome) = check_health(&settings) {
        return Err(outcome);
    }
    settings.validate().map_err(|reason| refuse(&reason))?;
    if settings.common().print_config {
        print(&table(&command, &matches, &settings));
        return Err(ExitCode::SUCCESS);
    }
    if let Some(text) = settings.output().map_err(|reason| refuse(&reason))? {
        print(&text);
        return Err(ExitCode::SUCCESS);
    }
    if settings.common().check_config {
        print("configuration ok\n");
        return Err(ExitCode::SUCCESS);
    }
    Ok(settings)
}

/// The exit code of `--health`, if it was asked for.
fn check_health(settings: &impl Settings) -> Option<ExitCode> {
    let outcome = match settings.asked_for_health() {
        Ok(None) => return None,
        Ok(Some((name, listening))) => health_check::ask(name, listening),
        Err(reason) => Err(reason),
    };
    Some(outcome.map_or_else(|reason| end_with(1, &reason), |()| ExitCode::SUCCESS))
}

/// Describes an error without the offending line, which may contain a password.
fn what_of_env_file(error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(..) => {
            "a line cannot be parsed; put 'single quotes' around values with spaces or special signs".into()
        }
        error => error.to_string(),
    }
}

/// Makes the command read an alias if only the alias is set.
fn with_aliases(command: Command, is_set: impl Fn(&str) -> bool) -> Command {
    ENV_ALIASES.iter().filter(|(alias, name)| is_set(alias) && !is_set(name)).fold(
        command,
        |command, (alias, name)| {
            command.mut_args(|arg| {
                if arg.get_env().is_some_and(|env| env == *name) { arg.env(*alias) } else { arg }
            })
        },
    )
}

/// Formats one line per setting: `NAME=value  # source`.
fn table(command: &Command, matches: &ArgMatches, settings: &impl Settings) -> String {
    let in_force = settings.in_force();
    let mut text = String::new();
    for arg in command.get_arguments().filter(|arg| !matches!(arg.get_action(), ArgAction::SetTrue)) {
        let Ok(Some(values)) = matches.try_get_raw(arg.get_id().as_str()) else { continue };
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        let name = arg
            .get_env()
            .map_or_else(|| format!("--{}", arg.get_id()), |env| env.to_string_lossy().into_owned());
        let source = matches.value_source(arg.get_id().as_str());
        if arg.is_hide_set() && source == Some(ValueSource::DefaultValue) {
            continue;
        }
        let source = match source {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment or .env",
            _ => "default",
        };
        let value = in_force
            .iter()
            .find(|(env, _)| *env == proper_name(&name))
            .map_or_else(|| values.join(","), |(_, v)| v.clone());
        text.push_str(&format!("{name}={value}  # {source}\n"));
    }
    for (name, password) in settings.passwords() {
        text.push_str(&format!("{name}={password:?}  # environment or .env\n"));
    }
    text
}

fn proper_name(name: &str) -> &str {
    ENV_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, proper)| proper)
}

/// Renders a clap error with the setting's environment name added to its flag.
fn named(error: &clap::Error, command: &Command) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return text };
    let is_meant =
        |long: &str| flag.strip_prefix("--").is_some_and(|name| name.split(' ').next() == Some(long));
    let env = command
        .get_arguments()
        .find(|arg| arg.get_long().is_some_and(is_meant))
        .and_then(|arg| arg.get_env())
        .map(|env| env.to_string_lossy());
    env.map_or_else(|| text.clone(), |env| text.replace(&format!("'{flag}'"), &format!("{env} ({flag})")))
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    text.trim().parse().map_err(|_| "expected off, error, warn, info or debug".into())
}

#[expect(clippy::print_stdout, reason = "the output of --help, --print-config and --check-config")]
fn print(text: &str) {
    print!("{text}");
}

fn refuse(reason: &str) -> ExitCode {
    end_with(EXIT_BAD_CONFIG, reason)
}

fn end_with(code: u8, reason: &str) -> ExitCode {
    logging::say(format!("error: {reason}\n"));
    logging::flush();
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_counts_only_without_the_proper_name() {
        let env_of_brokers = |set: &[&str]| {
            let command = with_aliases(ProducerConfig::command(), |name| set.contains(&name));
            let arg = command.get_arguments().find(|arg| arg.get_id() == "brokers").expect("brokers").clone();
            arg.get_env().expect("env").to_string_lossy().into_owned()
        };
        assert_eq!(env_of_brokers(&[]), "KAFKA_BROKERS");
        assert_eq!(env_of_brokers(&["KAFKA_BOOTSTRAP_SERVERS"]), "KAFKA_BOOTSTRAP_SERVERS");
        assert_eq!(env_of_brokers(&["KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"]), "KAFKA_BROKERS");
    }

    #[test]
    fn a_broken_env_file_is_told_without_its_values() {
        for line in ["KAFKA_SASL_PASSWORD=hush hush", "hush hush"] {
            let error = dotenvy::from_read_iter(line.as_bytes()).find_map(Result::err).expect("unreadable");
            let text = what_of_env_file(&error);
            assert!(text.contains("single quotes") && !text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn the_tables_of_all_programs_are_sound() {
        ProducerConfig::command().debug_assert();
        ConsumerConfig::command().debug_assert();
        SimulateConfig::command().debug_assert();
        LiveConfig::command().debug_assert();
    }
}
