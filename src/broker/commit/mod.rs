//! The consumer group's committed offsets, kept by its coordinator.

pub mod coordinator;
mod refusal;
