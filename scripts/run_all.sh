#!/usr/bin/env bash
# Runs the whole pipeline once: Kafka, consumer, producer, load, audit.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"
# shellcheck source=scripts/postgres.sh
source "$root/scripts/postgres.sh"

usage() {
  cat <<'TEXT'
usage: scripts/run_all.sh [--keep] [--lake | --postgres]

Starts Kafka, the consumer and the producer, sends 10000 events from 200 threads, waits until they are in the log,
compares, and stops everything it started, also after Ctrl-C or SIGTERM. Exit code 0 if no event was lost or
duplicated.

  --keep        also start the live page, leave everything running, and print how to stop it
  --lake        let closed logs become Parquet files, and compare these instead of the log
  --postgres    write into PostgreSQL instead of the log, and compare there by SQL; starts one unless DESTINATION_URL is
                set (POSTGRES_PORT, default 5433)

Environment (must differ between runs at the same time):
  KAFKA_PORT, KAFKA_BROKERS, KAFKA_RUNTIME, KAFKA_VERSION, KAFKA_DIR …   see scripts/kafka.sh --help
  KAFKA_TOPIC     default events
  HTTP_ADDR       producer, default 127.0.0.1:5000
  METRICS_ADDR    consumer, default 127.0.0.1:5001
  LIVE_ADDR       live page, default 127.0.0.1:5002
  LOG_FILE        default logs/events.log
  LAKE_DIR        with --lake: default logs/lake; LOG_ROTATE_SECS is 5 then, unless it is set
  REQUESTS        default 10000
  THREADS         default 200
  RUN_DIR         logs of the programs, default a new directory under target/run_all
All other settings of the programs apply too (`cargo run --bin producer -- --help`), also from `.env`; those above are
read only from the environment.
TEXT
}

keep=false lake=false postgres=false features=()
for argument; do
  case $argument in
    --keep) keep=true ;;
    --lake) lake=true features=(--features lake) ;;
    --postgres) postgres=true features=(--features postgres) ;;
    --help | -h)
      usage
      exit
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done

caller_dir=$PWD
cd "$root"
absolute() { realpath --canonicalize-missing --strip "$1"; }

export KAFKA_BROKERS=${KAFKA_BROKERS:-127.0.0.1:${KAFKA_PORT:-9092}}
export HTTP_ADDR=${HTTP_ADDR:-127.0.0.1:5000}
export METRICS_ADDR=${METRICS_ADDR:-127.0.0.1:5001}
export LIVE_ADDR=${LIVE_ADDR:-127.0.0.1:5002} LIVE_PRODUCERS=$HTTP_ADDR LIVE_CONSUMERS=$METRICS_ADDR
if [[ -n ${LOG_FILE:-} ]]; then LOG_FILE=$(cd "$caller_dir" && absolute "$LOG_FILE"); fi
export LOG_FILE=${LOG_FILE:-$root/logs/events.log}
verified=$LOG_FILE
if $lake; then
  if [[ -n ${LAKE_DIR:-} ]]; then LAKE_DIR=$(cd "$caller_dir" && absolute "$LAKE_DIR"); fi
  export LAKE_DIR=${LAKE_DIR:-$root/logs/lake} LOG_ROTATE_SECS=${LOG_ROTATE_SECS:-5}
  mkdir --parents "$LAKE_DIR"
  verified=$LAKE_DIR
fi
requests=${REQUESTS:-10000}
threads=${THREADS:-200}
mkdir --parents target/run_all
run_dir=$(absolute "${RUN_DIR:-$(mktemp --directory target/run_all/XXXXXX)}")
mkdir --parents "$run_dir"
bin=${CARGO_TARGET_DIR:-target}/release
started_kafka=false

# --- Stopping ---

# The producer is stopped first, so that everything it acknowledged is in Kafka before the consumer stops.
stop_all() {
  local failed=0
  stop_programs || failed=1
  stop_postgres
  if $started_kafka; then
    started_kafka=false
    scripts/kafka.sh stop 2>"$run_dir/kafka-stop.log" || { failed=1 && cat "$run_dir/kafka-stop.log" >&2; }
  fi
  return "$failed"
}

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  stop_all || true
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

log_bytes() { stat --format=%s "$LOG_FILE" 2>/dev/null || echo 0; }

# --- The run ---

begin "starting Kafka"
if ! scripts/kafka.sh status >/dev/null; then
  started_kafka=true
fi
attended scripts/kafka.sh start 2>"$run_dir/kafka.log" || fail "scripts/kafka.sh start" "$run_dir/kafka.log"
cat "$run_dir/kafka.log" >&2

begin "building"
attended cargo build --locked --release --bins --quiet "${features[@]}" 2>"$run_dir/build.log" || fail "cargo build" "$run_dir/build.log"

verify=(--verify "$verified")
if $postgres; then
  start_postgres
  export CREATE_TABLES=run
  verify=()
else
  export DESTINATION_URL=
fi
before=$(log_bytes)
rm --force "$run_dir/record"
start_program consumer "$METRICS_ADDR"
start_program producer "$HTTP_ADDR"
if $keep; then
  start_program live "$LIVE_ADDR"
  say "watch it at http://$LIVE_ADDR/"
fi

begin "sending $requests events from $threads threads"
code=0
exec 4> >(exec tee "$run_dir/report.txt")
report_pid=$!
attended "$bin/simulate" --requests "$requests" --threads "$threads" --url "http://$HTTP_ADDR/register_event" \
  --record "$run_dir/record" "${verify[@]}" 2>"$run_dir/simulate.log" >&4 4>&- || code=$?
exec 4>&-
wait "$report_pid" || true
((code == 0)) || {
  tail --lines=5 "$run_dir/producer.log" "$run_dir/consumer.log" >&2
  fail "the simulator exited with code $code; all logs are in $run_dir" "$run_dir/simulate.log"
}

if $postgres; then
  begin "comparing with the table"
  in_table=$(audit_postgres "$run_dir/record")
fi
# With a lake, the log was closed and has gone there; the simulator has read it.
begin "checking the lines"
pattern='^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2},[0-9]{3} - \{.*\}$'
malformed=0
$postgres || malformed=$(tail --bytes=+$((before + 1)) "$LOG_FILE" | LC_ALL=C grep --count --invert-match --extended-regexp "$pattern" || true)
((malformed == 0)) || fail "$malformed lines of $LOG_FILE are not 'TIME - {EVENT}'"

if $keep; then
  trap - EXIT
  say "left running: live page http://$LIVE_ADDR/, producer http://$HTTP_ADDR, consumer http://$METRICS_ADDR, $(if $postgres; then echo "database $DESTINATION_URL"; else echo "log $verified"; fi), Kafka $KAFKA_BROKERS"
  say "stop with: kill ${pids[*]} $postgres_pid$(if $started_kafka; then echo "; $root/scripts/kafka.sh stop"; fi)"
else
  begin "stopping"
  stop_all || fail "not everything stopped cleanly; all logs are in $run_dir"
fi
report=$run_dir/report.txt
! $postgres || report=$run_dir/audit.txt
summary=$(grep --extended-regexp '^[0-9]+ sent, ' "$report" | tail --lines=1 || true)
[[ -n $summary ]] || fail "the simulator printed no summary" "$report"
if ! $keep && [[ -z ${RUN_DIR:-} ]]; then rm --recursive --force "$run_dir"; fi
echo "$summary"
if $postgres; then echo "$in_table"; fi
