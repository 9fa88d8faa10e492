#!/usr/bin/env bash
# Benchmarks the project against its floor and its peers on a fresh Kafka, in alternating runs; see
# docs/BENCHMARKS.md.
#   scripts/bench.sh [--quick] [--rounds N] [--out DIR] [--list] [CASE…]
# CASE is a prefix of a name that --list shows. A full run takes an hour or more and writes to docs/; with
# --quick or a CASE it writes to target/bench/out/. Without --quick, `compression` also writes its tables into
# docs/KAFKA.md. BENCH_PORT (default 26000) is the first of the 800 ports that are used.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

for argument in "$@"; do
  case $argument in
    --list | --help | -h) exec python3 benches/bench "$@" --root "$root" ;;
  esac
done

need wrk wrk
need kcat kcat
need python3 python3
python3 -m venv --help >/dev/null 2>&1 || die "python3 has no venv; install it (Debian, Ubuntu: sudo apt-get install python3-venv)"
# The axum peer builds librdkafka from source.
need cc build-essential
need make make
need /usr/lib/postgresql/15/bin/initdb postgresql-15
need psql postgresql-client

port=${BENCH_PORT:-26000}
[[ $port =~ ^[0-9]+$ && $port -gt 1023 && $port -lt 64000 ]] || die "BENCH_PORT=$port: expected a port from 1024 to 63999"
export PYTHONDONTWRITEBYTECODE=1
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
work=$root/target/bench
venv=$work/venv
mkdir --parents "$work"

say "building the project and its peers"
cargo build --locked --release --bins --example clients --quiet
for peer in floor kafka-bare axum-rdkafka; do
  cargo build --locked --release --quiet --manifest-path "benches/peers/$peer/Cargo.toml"
done
requirements=$(cat benches/requirements.txt benches/peers/original/requirements.txt)
if [[ $requirements != "$(cat "$venv/installed.txt" 2>/dev/null)" ]]; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --requirement benches/requirements.txt
  echo "$requirements" >"$venv/installed.txt"
fi

# Unlike in the tests, the JVM's C2 compiler is enabled, as in any long-running broker.
export KAFKA_PORT=$port KAFKA_DIR=$work/kafka KAFKA_JVM_OPTS="${KAFKA_JVM_OPTS:--Xmx512m}" KAFKA_RUNTIME=jvm
export KAFKA_OWNER_PID=$$
unset KAFKA_BROKERS HTTP_ADDR KAFKA_TOPIC LOG_FILE KAFKA_CLIENT
export KAFKA_VERSION=3.9.2
newest=4.3.1
wipe() {
  scripts/kafka.sh wipe 2>/dev/null
  KAFKA_VERSION=$newest KAFKA_PORT=$((port + 50)) KAFKA_DIR=$work/kafka-newest scripts/kafka.sh wipe 2>/dev/null
}
wipe
trap wipe EXIT
scripts/kafka.sh start

python3 benches/bench "$@" --root "$root" --release "$CARGO_TARGET_DIR/release" --port "$port" \
  --kafka-dir "$KAFKA_DIR" --kafka "$KAFKA_VERSION" --newest "$newest"
