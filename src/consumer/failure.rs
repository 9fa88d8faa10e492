//! Why the consumer ends other than by a signal, with its exit code.

use std::fmt;

use crate::config::EXIT_BAD_CONFIG;
use crate::consumer::destination::DestinationError;

/// Exit code when only a human can decide how to go on: started again, it would end the same way.
pub const EXIT_UNDECIDED: u8 = 65;

/// Why the consumer ended other than by a signal.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the program: 1 (failed while running), 2 (bad configuration) or [`EXIT_UNDECIDED`].
    pub exit_code: u8,
    /// What happened and what can be done about it.
    pub reason: String,
}

impl Failure {
    /// It failed while running.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { exit_code: 1, reason: reason.into() }
    }

    /// Only a human can decide how to go on.
    pub fn undecided(reason: impl Into<String>) -> Self {
        Self { exit_code: EXIT_UNDECIDED, reason: reason.into() }
    }

    /// The configuration is bad.
    pub fn bad_config(reason: impl Into<String>) -> Self {
        Self { exit_code: EXIT_BAD_CONFIG, reason: reason.into() }
    }
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        match error {
            DestinationError::Retryable(reason) | DestinationError::Restart(reason) => Self::failed(reason),
            DestinationError::Refused(reason) => Self::undecided(reason),
            DestinationError::Unusable(reason) => Self::bad_config(reason),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}
