//! Settings of the simulate.

use clap::Parser;

use super::{CommonConfig, Settings};

/// placeholder
#[derive(Parser, Clone, Debug)]
#[command(name = "simulate", version, about, max_term_width = 110)]
pub struct SimulateConfig {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonConfig,
}

impl Settings for SimulateConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
