//! Tests at the outer boundary: real binaries, real sockets, a real Kafka (`scripts/kafka.sh` starts it).

mod broker;
mod consumer;
mod docs;
mod harness;
mod health;
mod judges;
#[cfg(feature = "live")]
mod live;
#[cfg(feature = "postgres")]
mod postgres;
mod producer;
mod scripts;
mod settings;
mod simulate;
mod structure;
mod support;
mod tidy;
mod unread;
mod watch;

#[global_allocator]
static ALLOCATOR: support::memory::Counting = support::memory::Counting;
