//! Reading: pages fetched from the leaders, and proof that each log still contains what was read from it.

mod fetch;
mod follow;
mod leader_log;
pub mod source;
mod terms;
mod turns;
