#!/usr/bin/env bash
# Everything that must hold, in one command: format, lints, docs, scripts, and all tests against a real Kafka.
# The tests start Kafka themselves (scripts/kafka.sh), or use the one that KAFKA_BROKERS_FOR_TESTS names.
# Arguments go to `cargo test`, which is then the last step, for example: scripts/test.sh --test it kcat
# All tests on our own client, there or on Kafka 4:
#   KAFKA_CLIENT_FOR_TESTS=wire [KAFKA_VERSION_FOR_TESTS=4.3.1] scripts/test.sh --test it
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

step() {
  say "$1 ($SECONDS s)"
  shift
  "$@" || die "failed: $*"
}

# tests_of FILTER…: most of their time is waiting, so more of them run at a time.
tests_of() {
  cargo test --locked --all-features --test it -- --test-threads 4 "$@"
}

command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
# Other programs than ours that the tests read Kafka with, attack the producer with, and check metrics with.
need kcat kcat
need promtool prometheus
need slowhttptest slowhttptest
need nginx nginx
need openssl openssl
need shellcheck shellcheck
need javac default-jdk-headless
# Fails early, and once, where the tests would fail one by one. The tests' Java client needs it in any case.
step "Kafka for the tests" scripts/kafka.sh fetch

step "scripts" shellcheck --external-sources scripts/*.sh .ci/run
step "format" cargo fmt --check
step "lints" cargo clippy --locked --all-targets --all-features --quiet -- --deny warnings
step "lints without TLS" cargo clippy --locked --all-targets --quiet -- --deny warnings
step "lints without our own client" cargo clippy --locked --no-default-features --quiet -- --deny warnings
step "docs" env RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps --document-private-items --quiet
step "tests" cargo test --locked --all-features "$@"
if (($# == 0)); then
  step "tests of the settings without TLS" cargo test --locked --lib --quiet config::
  # What always runs on our own client was part of the tests above.
  KAFKA_CLIENT_FOR_TESTS=wire step "tests of our own client" \
    tests_of broker:: --skip ::bombs:: --skip ::cluster:: --skip ::java:: --skip ::mangled:: --skip ::once:: --skip ::security::
  # What is the same with every broker is not repeated there.
  KAFKA_CLIENT_FOR_TESTS=wire KAFKA_VERSION_FOR_TESTS=4.3.1 KAFKA_BROKERS_FOR_TESTS='' \
    step "tests with a broker on Kafka 4.3.1" tests_of broker:: consumer:: \
    producer::basics producer::drain producer::faults producer::moved producer::quiet producer::verdicts \
    --skip ::bombs:: --skip ::hostile:: --skip ::limits:: --skip ::mangled:: --skip ::rotation::
  step "chaos" scripts/chaos.sh --quick
fi
say "all good ($SECONDS s)"
