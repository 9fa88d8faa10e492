//! Settings of the consumer.

use clap::Parser;

use super::{CommonConfig, Settings};

/// placeholder
#[derive(Parser, Clone, Debug)]
#[command(name = "consumer", version, about, max_term_width = 110)]
pub struct ConsumerConfig {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: CommonConfig,
}

impl Settings for ConsumerConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
