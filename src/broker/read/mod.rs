//! Reading: pages fetched from the leaders, and proof that each log still contains what was read from it.

pub mod follow;
pub mod leader_log;
pub mod source;
