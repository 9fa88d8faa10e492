//! Sending: partitions chosen, batches dispatched to their leaders, one at a time in each partition.

pub mod dispatch;
pub mod doubt;
pub mod partition;
pub mod sink;
