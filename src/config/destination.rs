//! Settings of a database that events are written to instead of the log.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::Secret;
use super::postgres_url::PostgresUrl;
use super::values::number;

/// Environment variable of the database's password.
pub const DESTINATION_PASSWORD_ENV: &str = "DESTINATION_PASSWORD";
const PASSWORD_FILE_ENV: &str = "DESTINATION_PASSWORD_FILE";

/// Where events are written if not to the log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Destination")]
pub struct DestinationConfig {
    /// Database that events are written to instead of the log, for example
    /// `postgres://writer@db1,db2:5433/app?sslmode=verify-full`; needs a build with --features postgres. The password
    /// comes from DESTINATION_PASSWORD (environment or .env, there is no flag) or DESTINATION_PASSWORD_FILE
    #[arg(
        id = "destination_url",
        long = "destination-url",
        visible_alias = "to",
        env = "DESTINATION_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    url: Option<String>,

    /// Password from the environment.
    #[arg(skip = Secret::from_environment(DESTINATION_PASSWORD_ENV))]
    password: Option<Secret>,

    /// File with the database's password; read for each connection, so it can be replaced while the consumer runs
    #[arg(
        id = "destination_password_file",
        long = "destination-password-file",
        env = "DESTINATION_PASSWORD_FILE",
        value_name = "PATH"
    )]
    password_file: Option<PathBuf>,

    /// Schema with the tables `events`, `event_offsets` and `event_rejects`
    #[arg(id = "destination_schema", long = "destination-schema", env = "DESTINATION_SCHEMA", default_value = "public",
          value_parser = schema_name, value_name = "NAME")]
    pub schema: String,

    /// Whether missing tables are created: `run` creates them at the start, `print` prints the statements and exits
    #[arg(long, env = "CREATE_TABLES", default_value = "off", value_enum, num_args = 0..=1,
          default_missing_value = "print")]
    pub create_tables: CreateTables,

    /// Create the table `events` with one partition per month of its `logged_at`
    #[arg(long, env = "MONTHLY_PARTITIONS", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", value_name = "BOOL")]
    pub monthly_partitions: bool,

    /// Longest time that events wait for others, to be committed in the same transaction, in milliseconds
    #[arg(id = "destination_commit_ms", long = "destination-commit-ms", env = "DESTINATION_COMMIT_MS", default_value_t = 100,
          value_parser = number::<u64>(0..=60_000), value_name = "MS")]
    commit_ms: u64,

    /// Longest time for one statement, in milliseconds; a shorter `statement_timeout` of the database's user holds too
    #[arg(id = "destination_timeout_ms", long = "destination-timeout-ms", env = "DESTINATION_TIMEOUT_MS", default_value_t = 30_000,
          value_parser = number::<u64>(100..=3_600_000), value_name = "MS")]
    timeout_ms: u64,

    /// Longest time to connect to one host of the database, TLS and password included, in milliseconds
    #[arg(id = "destination_connect_timeout_ms", long = "destination-connect-timeout-ms",
          env = "DESTINATION_CONNECT_TIMEOUT_MS", default_value_t = 5000,
          value_parser = number::<u64>(100..=60_000), value_name = "MS")]
    connect_timeout_ms: u64,
}

/// What happens to tables that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CreateTables {
    /// The start fails and says how to create them.
    Off,
    /// The statements are printed.
    Print,
    /// They are created at the start.
    Run,
}

impl DestinationConfig {
    /// The database, if there is one.
    ///
    /// # Errors
    /// The URL cannot be used; one sentence that does not repeat it.
    pub fn database(&self) -> Result<Option<PostgresUrl>, String> {
        self.given().map(|url| url.parse().map_err(|why| format!("DESTINATION_URL: {why}"))).transpose()
    }

    /// True if events go to a database.
    pub fn is_set(&self) -> bool {
        self.given().is_some()
    }

    /// The password: from the environment, or from the file; `None` if neither is set.
    ///
    /// # Errors
    /// The file cannot be read or is empty. The text is one sentence.
    pub fn password(&self) -> Result<Option<Secret>, String> {
        match (&self.password, &self.password_file) {
            (None, Some(file)) => Secret::from_file(PASSWORD_FILE_ENV, file).map(Some),
            (password, _) => Ok(password.clone()),
        }
    }

    /// The password from the environment, with the name of its variable.
    pub fn given_password(&self) -> Option<(&'static str, &Secret)> {
        Some((DESTINATION_PASSWORD_ENV, self.password.as_ref()?))
    }

    /// Longest time that events wait to be committed.
    pub fn commit_wait(&self) -> Duration {
        Duration::from_millis(self.commit_ms)
    }

    /// Longest time for one statement.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Longest time to connect to one host.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Checks relations between these settings.
    ///
    /// # Errors
    /// One sentence with the settings and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if self.given().is_none() {
            return self.refuse_useless();
        }
        if !cfg!(feature = "postgres") {
            return Err("DESTINATION_URL: this program was built without PostgreSQL; build it with `cargo build --release \
                        --features postgres` (or postgres,tls)"
                .into());
        }
        if let Some(url) = self.database()? {
            url.validate().map_err(|why| format!("DESTINATION_URL: {why}"))?;
        }
        let given = (DESTINATION_PASSWORD_ENV, self.password.as_ref());
        Secret::check_given(given, (PASSWORD_FILE_ENV, self.password_file.as_deref())).map(drop)
    }

    /// An empty variable stands for none: a compose file cannot pass less.
    fn given(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }

    fn refuse_useless(&self) -> Result<(), String> {
        let settings = [
            (DESTINATION_PASSWORD_ENV, self.password.is_some()),
            (PASSWORD_FILE_ENV, self.password_file.is_some()),
            ("CREATE_TABLES=run", self.create_tables == CreateTables::Run),
        ];
        match settings.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => {
                Err(format!("{name} has no effect without DESTINATION_URL; set that, or unset {name}"))
            }
            None => Ok(()),
        }
    }
}

fn schema_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') || name.trim() != name {
        return Err("expected the name of a schema, 1 to 63 bytes without white space around it".into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Args {
        #[command(flatten)]
        config: DestinationConfig,
    }

    fn config(args: &[&str]) -> DestinationConfig {
        Args::try_parse_from([&["x"], args].concat()).expect("parses").config
    }

    #[test]
    fn nothing_is_needed_for_the_log_and_an_empty_url_is_none() {
        assert_eq!(config(&[]).validate(), Ok(()));
        assert_eq!(config(&["--to", ""]).database(), Ok(None));
        let reason = config(&["--create-tables", "run"]).validate().unwrap_err();
        assert!(reason.contains("CREATE_TABLES=run has no effect without DESTINATION_URL"), "{reason}");
        assert_eq!(config(&["--create-tables"]).create_tables, CreateTables::Print);
    }

    #[test]
    fn a_build_without_postgres_says_how_to_get_it() {
        let validated = config(&["--to", "postgres://me@127.0.0.1/app"]).validate();
        if cfg!(feature = "postgres") {
            assert_eq!(validated, Ok(()));
        } else {
            assert!(validated.unwrap_err().contains("--features postgres"));
        }
    }
}
