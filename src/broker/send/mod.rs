//! Sending: partitions chosen, batches dispatched to their leaders, one at a time in each partition.

mod dispatch;
mod doubt;
mod partition;
mod probe;
pub mod sink;
