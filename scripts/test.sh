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

# tests_of FILTER…: most of their time is waiting, so more of them run at a time than there are cores.
tests_of() {
  cargo test --locked --all-features --test it -- --test-threads 4 "$@"
}

# What runs beside the steps, its process group and its output.
beside_pid='' beside_log=target/test.log

# end_beside: when the script ends early, what runs beside it does too.
end_beside() { [[ -z $beside_pid ]] || kill -TERM -- "-$beside_pid" 2>/dev/null || true; }
trap end_beside EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The tests that repeat what meets the broker, and chaos: they wait for brokers most of the time.
run_beside() {
  # What always runs on our own client is part of the other tests.
  KAFKA_CLIENT_FOR_TESTS=wire step "tests of our own client" \
    tests_of broker:: --skip ::bombs:: --skip ::cluster:: --skip ::java:: --skip ::mangled:: --skip ::once:: --skip ::security::
  # What is the same with every broker is not repeated there.
  KAFKA_CLIENT_FOR_TESTS=wire KAFKA_VERSION_FOR_TESTS=4.3.1 KAFKA_BROKERS_FOR_TESTS='' \
    step "tests with a broker on Kafka 4.3.1" tests_of broker:: consumer:: \
    producer::basics producer::drain producer::faults producer::moved producer::quiet producer::quotas producer::verdicts \
    --skip ::bombs:: --skip ::hostile:: --skip ::limits:: --skip ::mangled:: --skip ::rotation::
  step "chaos" scripts/chaos.sh --quick
}

command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
# Other programs than ours that the tests read Kafka with, attack the producer with, and check metrics with.
need kcat kcat
need promtool prometheus
need slowhttptest slowhttptest
need nginx nginx
need openssl openssl
need logrotate logrotate
need shellcheck shellcheck
need javac default-jdk-headless
# Fails early, and once, where the tests would fail one by one. The tests' Java client needs it in any case.
step "Kafka for the tests" scripts/kafka.sh fetch

step "scripts" shellcheck --external-sources scripts/*.sh .ci/run
step "format" cargo fmt --check
lint() {
  step "lints" cargo clippy --locked --all-targets --all-features --quiet -- --deny warnings
  step "lints without TLS" cargo clippy --locked --all-targets --quiet -- --deny warnings
  step "lints without our own client" cargo clippy --locked --no-default-features --quiet -- --deny warnings
  step "docs" env RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps --document-private-items --quiet
}

if (($# > 0)); then
  lint
  step "tests" cargo test --locked --all-features "$@"
else
  step "building the tests" cargo test --locked --all-features --no-run --quiet
  say "tests of our own client, of Kafka 4.3.1, and chaos begin beside these steps; their output: $beside_log"
  # In a process group of its own, so that all of it can be ended.
  set -m
  run_beside >"$beside_log" 2>&1 </dev/null &
  beside_pid=$!
  set +m
  lint
  step "tests of the settings without TLS" cargo test --locked --lib --quiet config::
  step "tests" cargo test --locked --all-features -- --test-threads 4
  say "waiting for what runs beside ($SECONDS s)"
  code=0
  wait "$beside_pid" || code=$?
  beside_pid=
  ((code == 0)) || { cat "$beside_log" >&2 && die "failed beside the steps; its output is above, and in $beside_log"; }
  grep --extended-regexp '^(test result|[a-z]+\.sh: )' "$beside_log" >&2
fi
say "all good ($SECONDS s)"
