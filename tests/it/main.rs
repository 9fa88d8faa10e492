//! Tests at the outer boundary: real binaries, real sockets, a real Kafka (`scripts/kafka.sh` starts it).

mod broker;
mod harness;
mod producer;
mod support;
mod tidy;
