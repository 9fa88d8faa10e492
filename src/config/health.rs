//! The flag with which a program asks the one that runs with the same settings whether it is ready.

use std::net::SocketAddr;

use clap::Args;

/// Whether to ask for health instead of running.
#[derive(Args, Clone, Debug)]
pub struct HealthConfig {
    /// Ask the program that runs on this machine with the same settings whether it is ready, and exit: code 0 if its
    /// /readyz is 200 within 2 seconds, else 1 with the reason on stderr
    #[arg(help_heading = "General", long)]
    health: bool,
}

impl HealthConfig {
    /// The setting `name` with the address of `/readyz`, if health is asked for.
    ///
    /// # Errors
    /// One sentence if the setting is `off`.
    pub fn asked(
        &self,
        name: &'static str,
        address: Option<SocketAddr>,
    ) -> Result<Option<(&'static str, SocketAddr)>, String> {
        if !self.health {
            return Ok(None);
        }
        let address =
            address.ok_or_else(|| format!("{name}=off: there is no /readyz to ask; set an address"))?;
        Ok(Some((name, address)))
    }
}
