#!/usr/bin/env bash
# Measures the capacity model of docs/SCALING.md and checks that it predicts points that it was not fitted to.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"

usage() {
  cat <<'TEXT'
usage: scripts/capacity.sh [--write] [--rounds N]

Measures what an event costs in each program, at three points that the model of docs/SCALING.md is fitted to and at
three that it must predict. Takes ten minutes on two cores, which nothing else should use meanwhile, plus the build.

  --write     put the tables into docs/SCALING.md
  --rounds N  measurements of each point, of which the median counts; default 3

Exit code 0 if every prediction is within 15 % of the measurement, and other processes used at most 25 % of the
processors.

Environment:
  CAPACITY_PORT  first of the 100 ports that are used, default 27000
  PROGRAMS_DIR   use the programs in it instead of a release build
TEXT
}

options=()
while (($# > 0)); do
  case $1 in
    --write) options+=(--write) ;;
    --rounds)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--rounds ${2:-}: expected a number from 1"
      options+=(--rounds "$2")
      shift
      ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
cd "$root"

need kcat kcat
need python3 python3
port=${CAPACITY_PORT:-27000}
[[ $port =~ ^[0-9]+$ && $port -gt 1023 && $port -lt 64000 ]] || die "CAPACITY_PORT=$port: expected a port from 1024 to 63999"
run_dir=$root/target/capacity
mkdir --parents "$run_dir"
unset KAFKA_BROKERS HTTP_ADDR KAFKA_TOPIC LOG_FILE KAFKA_CLIENT
export PYTHONDONTWRITEBYTECODE=1 KAFKA_RUNTIME=jvm KAFKA_OWNER_PID=$$

# The JVM's C2 compiler is enabled, as in any long-running broker.
kafka() { # kafka DIRECTORY PORT COMMAND…
  KAFKA_DIR=$run_dir/$1 KAFKA_PORT=$2 KAFKA_JVM_OPTS=${KAFKA_JVM_OPTS:--Xmx512m} attended scripts/kafka.sh "${@:3}" \
    2>>"$run_dir/kafka.log"
}

wipe() {
  kafka one "$port" wipe || true
  kafka three $((port + 10)) wipe || true
  rm --recursive --force "$run_dir/work"
}

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  wipe
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build_programs
wipe
mkdir --parents "$run_dir/work"
begin "starting Kafka"
kafka one "$port" start 1 || fail "one broker" "$run_dir/kafka.log"
kafka three $((port + 10)) start 3 || fail "three brokers" "$run_dir/kafka.log"
begin "measuring"
attended python3 benches/bench/capacity.py "${options[@]}" --root "$root" --programs "$built" --work "$run_dir/work" \
  --port $((port + 60)) --one "$run_dir/one" --one-port "$port" --three "$run_dir/three" --three-port $((port + 10))
