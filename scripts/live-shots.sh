#!/usr/bin/env bash
# Takes screenshots of the live page under load, for a laptop and a phone, light and dark.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"

usage() {
  cat <<'TEXT'
usage: scripts/live-shots.sh [DIRECTORY]

Starts Kafka if there is none, the producer, the consumer and the live page, and changing load, waits SECONDS_OF_LOAD (default
300, which is what the charts show), and writes laptop-light.png, laptop-dark.png, phone-light.png and phone-dark.png into DIRECTORY (default
target/live-shots). docs/live.png is laptop-light.png.

Environment: KAFKA_PORT, KAFKA_BROKERS … (scripts/kafka.sh --help), HTTP_ADDR, METRICS_ADDR, LIVE_ADDR, SECONDS_OF_LOAD
TEXT
}

case ${1:-} in
  --help | -h)
    usage
    exit
    ;;
  -*)
    usage >&2
    exit 2
    ;;
esac

need node nodejs
need chromium chromium
shots=$(realpath --canonicalize-missing "${1:-$root/target/live-shots}")
cd "$root"
mkdir --parents "$shots" target/run_all
run_dir=$(realpath "$(mktemp --directory target/run_all/XXXXXX)")
bin=${CARGO_TARGET_DIR:-target}/release
export KAFKA_BROKERS=${KAFKA_BROKERS:-127.0.0.1:${KAFKA_PORT:-9092}}
export HTTP_ADDR=${HTTP_ADDR:-127.0.0.1:5000} METRICS_ADDR=${METRICS_ADDR:-127.0.0.1:5001}
export LIVE_ADDR=${LIVE_ADDR:-127.0.0.1:5002} LIVE_PRODUCERS=$HTTP_ADDR LIVE_CONSUMERS=$METRICS_ADDR
# Its own client knows when a record was written, which the page shows as the time to the log.
export KAFKA_CLIENT=${KAFKA_CLIENT:-wire} EVENT_ID_FIELD=event_id LOG_FILE=$run_dir/events.log EVENT_ECHO=off
load=${SECONDS_OF_LOAD:-300}
started_kafka=false load_pid=

end_load() {
  [[ -z $load_pid ]] || kill -TERM -- "-$load_pid" 2>/dev/null || true
  wait "$load_pid" 2>/dev/null || true
  load_pid=
}

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  end_load
  stop_programs || true
  ! $started_kafka || scripts/kafka.sh stop 2>>"$run_dir/kafka.log" || true
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

begin "building"
attended cargo build --locked --release --bins --quiet 2>"$run_dir/build.log" || fail "cargo build" "$run_dir/build.log"
begin "starting Kafka"
scripts/kafka.sh status >/dev/null || started_kafka=true
attended scripts/kafka.sh start 2>"$run_dir/kafka.log" || fail "scripts/kafka.sh start" "$run_dir/kafka.log"
for program in consumer:$METRICS_ADDR producer:$HTTP_ADDR live:$LIVE_ADDR; do
  start_program "${program%%:*}" "${program#*:}"
done

simulate() { # simulate EVENTS_PER_SECOND SECONDS
  "$bin/simulate" --rate "$1" --duration "$2s" --threads 20 --url "http://$HTTP_ADDR/register_event" >/dev/null 2>&1 || true
}

# Load that rises and falls above a steady one, with some repeated and some refused events among it.
send_load() {
  local rate id=0
  simulate 700 3600 &
  while true; do
    for rate in 300 600 1100 1600 1300 800 400; do
      simulate "$rate" 5
      id=$((id + 1))
      for event in "{\"event\": \"refund\", \"event_id\": \"order-$id\"}" "{\"event\": \"refund\", \"event_id\": \"order-$id\"}" "{\"event\": "; do
        curl --silent --output /dev/null --request POST --header 'Content-Type: application/json' --data "$event" \
          "http://$HTTP_ADDR/register_event" || true
      done
    done
  done
}

begin "sending load for $load s"
# In its own process group, so that all of it can be ended.
set -m
send_load &
load_pid=$!
set +m
sleep "$load"

begin "taking the screenshots"
# Two seconds after the first snapshot.
is_shown="new Promise(shown => { const look = setInterval(() => { if (document.getElementById('age').textContent === 'live') { clearInterval(look); setTimeout(() => shown(true), 2000); } }, 100); })"
{
  for screen in "laptop 1440 900" "phone 390 844 mobile"; do
    read -r name size <<<"$screen"
    for scheme in light dark; do
      printf 'size %s\n%s\nopen http://%s/\n%s\n' "$size" "$scheme" "$LIVE_ADDR" "$is_shown"
      printf 'shot %s/%s-%s.png\n' "$shots" "$name" "$scheme"
    done
  done
} | timeout 120 node scripts/browser.js >"$run_dir/browser.log" || fail "scripts/browser.js" "$run_dir/browser.log"
! grep --quiet '"error"' "$run_dir/browser.log" || fail "the page has errors" "$run_dir/browser.log"
end_load
for shot in "$shots"/{laptop,phone}-{light,dark}.png; do
  say "$shot: $(stat --format=%s "$shot") bytes"
done
