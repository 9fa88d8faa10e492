//! Says why the producer stops, and with which exit code.

use std::io;

use crate::broker::BrokerError;
use crate::config::EXIT_BAD_CONFIG;

/// Exit code when too many connection threads are lost and the process has to be replaced.
pub const EXIT_LEAK_BUDGET: u8 = 70;

/// Why the producer stops.
#[derive(Debug)]
pub enum Stop {
    /// Shutdown was requested.
    Requested,
    /// The HTTP front lost this many threads, which is too many.
    LeakBudget(usize),
    /// The publisher ended on its own.
    PublisherEnded(BrokerError),
    /// The listener can no longer be used.
    ListenerLost(io::Error),
}

impl Stop {
    /// Logs the reason, before the drain.
    pub fn log(&self) {
        match self {
            Self::Requested => log::info!("draining"),
            Self::LeakBudget(lost) => log::error!(
                "{lost} connection threads are lost, more than HTTP_LEAK_BUDGET allows; draining, then \
                 exiting; restart the producer"
            ),
            Self::PublisherEnded(error) => log::error!("cannot publish: {error}"),
            Self::ListenerLost(error) => log::error!("cannot listen any more: {error}; restart the producer"),
        }
    }

    /// The exit code after a drain that left `unsent` accepted events without an acknowledgement.
    pub fn exit_code(&self, unsent: usize) -> u8 {
        match self {
            Self::PublisherEnded(BrokerError::Unsupported(_) | BrokerError::Refused(_)) => EXIT_BAD_CONFIG,
            Self::LeakBudget(_) if unsent == 0 => EXIT_LEAK_BUDGET,
            Self::Requested if unsent == 0 => 0,
            _ => 1,
        }
    }
}
