#!/usr/bin/env bash
# Injects every fault that the pipeline promises to survive, and counts lost and duplicated events.
# With --retry, clients repeat what was not answered, and the log must still have each event exactly once.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"
# shellcheck source=scripts/faults.sh
source "$root/scripts/faults.sh"
# shellcheck source=scripts/repeats.sh
source "$root/scripts/repeats.sh"

usage() {
  cat <<'TEXT'
usage: scripts/chaos.sh [--quick] [FAULT…]
       scripts/chaos.sh [--quick] --retry [FAULT…]
       scripts/chaos.sh --rounds N

Runs the pipeline under steady load, injects a fault, waits until it has recovered, and audits the log. Each fault
gives one row: sent, acknowledged, logged, lost, duplicated, longest time without an acknowledgement. Exit code 0 if
no event was lost and none was duplicated. With the kafka crate, duplicates are allowed if the fault affects a
producer or a broker; with our own client, never.

Without arguments, it uses a release build, runs all faults, and writes the table to docs/CHAOS.md, or with our own
client to docs/CHAOS-WIRE.md (about five minutes).
  --quick      debug build, less load, shorter faults; only prints the table (about a minute)
  FAULT…       run only these faults; only prints the table
  --retry      the load repeats each request that was not answered, with the same event ids, and the programs run
               with EVENT_ID_FIELD=event_id; only prints the table: sent, repeated, events that are in the topic more
               than once (counted by kcat), in the log more than once, lost. Exit code 0 if the topic had duplicates
               and the log has none, and nothing was lost. Faults: RETRIED
  --rounds N   kill the consumer at N random moments under load: alone, with rotation, with the broker killed
               in between, and with both (the tests of tests/it/consumer/kills.rs, with N rounds)

Faults: FAULTS

Environment:
  CHAOS_PORT   first of the 200 ports that are used; default: a free range below 20000
  CHAOS_DIR    logs, records, brokers' data; default: a new directory under target/chaos, removed after success
  CHAOS_RATE   requests per second; default 1000, with --quick 300
  KAFKA_VERSION, KAFKA_CLIENT  version of the brokers (default 3.9.2), client of the programs (default auto)
  HTTP_SERVER  server of the producer (default auto)
  PROGRAMS_DIR use the programs in it, and do not build
The other settings of the programs apply too (`cargo run --bin consumer -- --help`), for example LOG_FSYNC.
TEXT
}

# The order matters: the last one needs its own cluster.
all_faults=(nothing consumer producer broker in-turn at-once pause quota disk logrotate cut-client cut-producer cut-consumer large restored leader)
# Faults after which a client does not know whether its event was accepted.
retried_faults=(producer broker cut-producer cut-client at-once)
invocation="scripts/chaos.sh${*:+ $*}"
quick=false retry=false
declare -a faults=()
while (($# > 0)); do
  case $1 in
    --quick) quick=true ;;
    --retry) retry=true ;;
    --rounds)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--rounds ${2:-}: expected a number of rounds"
      cd "$root"
      CONSUMER_KILL_ROUNDS=$2 exec cargo test --locked --test it consumer::kills
      ;;
    --help | -h)
      usage | sed "s/FAULTS$/${all_faults[*]}/; s/RETRIED$/${retried_faults[*]}/"
      exit
      ;;
    *) faults+=("$1") ;;
  esac
  shift
done
if $retry; then all_faults=("${retried_faults[@]}"); fi
for fault in "${faults[@]}"; do
  [[ " ${all_faults[*]} " == *" $fault "* ]] || die "$fault: expected one of ${all_faults[*]}, see --help"
done
writes_table=false
if ! $quick && ! $retry && ((${#faults[@]} == 0)); then writes_table=true; fi
if ((${#faults[@]} == 0)); then
  faults=("${all_faults[@]}")
  # Skip at-once: in-turn kills the same parts, and each start of a broker takes seconds.
  if $quick && ! $retry; then mapfile -t faults < <(printf '%s\n' "${all_faults[@]}" | grep --invert-match at-once); fi
fi

if $quick; then
  profile=debug steady_s=1 kills=1 pause_s=5 rate=${CHAOS_RATE:-300} disk=300k
  export LOG_ROTATE_BYTES=100000
else
  profile=release steady_s=4 kills=3 pause_s=20 rate=${CHAOS_RATE:-1000} disk=3m
  export LOG_ROTATE_BYTES=1000000
fi
threads=50
event_bytes=300
recover_timeout_s=60
load_limit=600s
declare -a load_options=(--timeout 15s)
if $retry; then repeat_requests; fi

need kcat kcat
need logrotate logrotate
if [[ -n ${CHAOS_DIR:-} ]]; then CHAOS_DIR=$(realpath --canonicalize-missing "$CHAOS_DIR"); fi
cd "$root"
mkdir --parents target/chaos
base_dir=${CHAOS_DIR:-$(mktemp --directory "$root/target/chaos/XXXXXX")}
mkdir --parents "$base_dir"
run_dir=$base_dir
bin=${PROGRAMS_DIR:-${CARGO_TARGET_DIR:-target}/$profile}

port=${CHAOS_PORT:-$(free_ports 0 1 50 51 100 101 110 111 120 121)}
kafka_port=$port kafka_dir=$base_dir/kafka
# Keep the programs' logs free of per-event lines.
export EVENT_ECHO=off
export HTTP_ADDR=127.0.0.1:$((port + 50)) METRICS_ADDR=127.0.0.1:$((port + 51))

# --- Stopping ---

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  [[ -z ${load_pid:-} ]] || kill -KILL "$load_pid" 2>/dev/null || true
  resume_broker 1
  stop_programs || true
  unmount_log
  kafka_script wipe || true
  if ((code == 0)) && [[ -z ${CHAOS_DIR:-} ]]; then
    rm --recursive --force "$base_dir"
  else
    say "all logs are in $base_dir"
  fi
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- One row ---

declare -a rows=()
failed=0 skipped=0
mounted='' load_pid='' load_url='' gone=0

row() { # row KEY NAME HARMED COMMAND…: runs COMMAND under load and adds the row NAME to the table
  local key=$1 name=$2 harmed=$3
  shift 3
  [[ " ${faults[*]} " == *" $key "* ]] || return 0
  run_dir=$base_dir/$key gone=0
  mkdir --parents "$run_dir/logs"
  export KAFKA_TOPIC=chaos-$key KAFKA_GROUP=chaos-$key LOG_FILE=$run_dir/logs/events.log
  if [[ $key == disk ]] && ! mount_log; then
    say "SKIPPED $name: a small tmpfs cannot be mounted; run this as root"
    rows+=("| $name | $harmed | skipped: no tmpfs could be mounted | | | | | |")
    skipped=$((skipped + 1))
    return
  fi
  say "== $name"
  start_pipeline "$key"
  start_load
  # In the disk fault, the load itself fills the disk.
  [[ $key == disk ]] || keep_going
  "$@"
  keep_going
  finish_row "$name" "$harmed"
}

start_pipeline() { # start_pipeline KEY: starts the programs with the proxy or the settings that the fault needs
  load_url=
  case $1 in
    cut-client)
      start_proxy tcp "$HTTP_ADDR"
      load_url=http://$proxy_address/register_event
      programs_up consumer producer
      ;;
    cut-consumer | cut-producer)
      start_proxy kafka "$KAFKA_BROKERS"
      local name
      for name in consumer producer; do
        if [[ $1 == "cut-$name" ]]; then KAFKA_BROKERS=$proxy_address programs_up "$name"; else programs_up "$name"; fi
      done
      ;;
    logrotate) LOG_FSYNC=interval:500 LOG_ROTATE_BYTES=0 programs_up consumer producer ;;
    restored) KAFKA_AUTO_OFFSET_RESET=divergence programs_up consumer producer ;;
    *) programs_up consumer producer ;;
  esac
}

finish_row() { # finish_row NAME HARMED
  local lines sent acked logged lost duplicated gap audit="$run_dir/audit.json"
  begin "ending the load"
  end_load
  begin "stopping the producer"
  end_program producer
  end_offset=$(topic_end)
  begin "waiting until the consumer has logged $end_offset records"
  wait_until "the checkpoint covers $end_offset records" covers_topic
  end_program consumer
  if [[ -n ${PROXY_PID:-} ]]; then end_proxy; fi
  begin "auditing"
  attended "$bin/simulate" --audit "$run_dir/record" --verify "$LOG_FILE" --output json >"$audit" 2>"$run_dir/audit.log" || true
  read -r sent acked logged lost duplicated < <(figures "$audit" sent acknowledged logged lost duplicated) || true
  [[ -n ${duplicated:-} ]] || fail "the audit gave no figures" "$run_dir/audit.log"
  gap=$(printf '%.2f' "$(figures "$run_dir/load.json" longestGap)")
  if $retry; then
    finish_repeats "$1"
  else
    rows+=("| $1 | $2 | $sent | $acked | $logged | $lost | $duplicated | $gap s |")
    say "$sent sent, $acked acknowledged, $logged logged, $lost lost, $duplicated duplicated, longest gap $gap s"
    judge "$2"
  fi
  unmount_log
}

judge() { # judge HARMED: checks the figures of finish_row
  judge_lines
  # When our own client retries a batch, it keeps the sequence number, so the broker recognizes the batch.
  [[ $1 != nothing && $client != wire ]] || ((duplicated == 0)) ||
    bad "$duplicated duplicated (harmed: $1; client: $client)"
  # Every record in Kafka is logged exactly once, even if the topic contains an event twice.
  ((lines == end_offset + gone)) || bad "$lines lines for $end_offset records of the topic and $gone that it lost"
}

# Checks what must hold in every row and mode, and counts the lines of the log.
judge_lines() {
  local torn unordered refused closed
  read -r torn unordered refused < <(figures "$audit" torn outOfOrder rejectedLogged)
  lines=$(log_lines | wc --lines)
  closed=$(find "$run_dir/logs" \( -name 'events-*.log' -o -name 'events.log.*.gz' \) | wc --lines)
  ((lost == 0)) || bad "$lost acknowledged events are not in the log"
  # After a restore, offsets are reused. When the kafka crate's own retry wrote an event twice, its receipt is that of
  # the second copy, but a consumer that drops repeats logs the first one.
  if ((gone > 0)) || { $retry && [[ $client != wire ]]; }; then unordered=0; fi
  ((torn + unordered + refused == 0)) || bad "$torn torn lines, $unordered out of order, $refused rejected but logged"
  ((acked > 0 && closed > 0)) || bad "the run proves nothing: $acked acknowledged, $closed closed logs"
}

# Prints the lines of the log and of its closed files.
log_lines() {
  find "$run_dir/logs" \( -name 'events*.log' -o -name 'events.log.*.gz' \) -exec zcat --force {} +
}

bad() {
  say "FAILED: $1; see $run_dir"
  failed=1
}

# --- The table ---

print_table() {
  echo "| fault | harmed | sent | acknowledged | logged | lost | duplicated | longest gap |"
  echo "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
  printf '%s\n' "${rows[@]}"
}

write_page() {
  local page=docs/CHAOS.md doubles="0 if the fault affects neither a producer nor a broker. Otherwise a
  response from the broker may get lost, and the producer then writes the event again (docs/CONTRACT.md)."
  if [[ $client == wire ]]; then
    page=docs/CHAOS-WIRE.md doubles="0 in every row: when this client
  retries a batch, it keeps the sequence number, so the broker recognizes the batch (docs/CONTRACT.md)."
  fi
  mkdir --parents docs
  cat >"$page" <<PAGE
# Chaos run, client \`$client\`

How many events are lost or duplicated when parts of the pipeline fail under load.
This page was written by \`${KAFKA_VERSION:+KAFKA_VERSION=$KAFKA_VERSION }${KAFKA_CLIENT:+KAFKA_CLIENT=$KAFKA_CLIENT }$invocation\`; do not edit it.

- Date: $(date --utc '+%Y-%m-%d %H:%M UTC')
- Commit: $(commit)
- Machine: $(machine); all programs and brokers run on it
- Load: $rate requests per second on a fixed schedule, $threads threads, one event of $event_bytes bytes each, no retries
- Broker: Kafka $kafka_version, one broker, three for the last row; client: $client

$(print_table)

How to read it:

- **sent**: events that the load sent. **acknowledged**: events that were answered 200. The others were answered 503, or
  not at all while a part was down; the load does not send them again.
- **logged**: sent events that are in the log. An event without a response may still have been written, so this can be
  more than acknowledged.
- **lost**: events that were acknowledged but are not in the log. This must be 0 in every row. Before the broker's data
  are restored, all acknowledged events are logged; records that Kafka itself then loses stay in the log.
- **duplicated**: events that are in the log more than once. This must be $doubles
- **longest gap**: the longest time without an acknowledgement, including the time that a killed part needs to restart.
  A killed broker can register again, or is replaced as a leader, only when Kafka's session of 6 seconds has expired.

A row also fails if a line is torn, if events of a partition are out of order, if the log has more or fewer lines than
the topic has records, if the log was never closed and renamed, or if a program does not exit with code 0 on SIGTERM.

\`scripts/chaos.sh --rounds 100\` kills only the consumer, but far more often.

\`scripts/chaos.sh --retry\` lets the load repeat each request that was not answered, with the same event ids, and runs
the programs with \`EVENT_ID_FIELD=event_id\`. It prints how many events the topic then has more than once. In the log,
each must be exactly once. [OPERATION.md](OPERATION.md#auditing-the-log) has a command that checks a log without our tools.
PAGE
  say "wrote $page"
}

# --- The run ---

if [[ -z ${PROGRAMS_DIR:-} ]]; then
  begin "building"
  build=(cargo build --locked --quiet)
  # The same as in the tests, which may be running these very files.
  if [[ $profile == debug ]]; then build+=(--all-features); else build+=(--release); fi
  { attended "${build[@]}" --bins && attended "${build[@]}" --example fault-proxy; } 2>"$base_dir/build.log" ||
    fail "cargo build" "$base_dir/build.log"
fi

if [[ ${faults[*]} != leader ]]; then start_kafka 1; fi
row nothing "none; the log is rotated every $LOG_ROTATE_BYTES bytes, here and below" nothing true
row consumer "consumer killed (SIGKILL) × $kills" nothing harm_in_turn consumer
row producer "producer killed × $kills" producer harm_in_turn producer
row broker "broker killed × $kills" broker harm_in_turn broker
row in-turn "consumer, producer, broker killed in turn × $kills" "producer, broker" harm_in_turn consumer producer broker
row at-once "all three killed at the same time" "producer, broker" harm_at_once
row pause "broker stopped (SIGSTOP) for $pause_s s" broker harm_by_pause
row quota "quotas of producer and consumer exceeded for $pause_s s" nothing harm_by_quota
row disk "disk of the log full, then larger" nothing harm_disk
row logrotate "log renamed and compressed by logrotate × $((4 * kills)), LOG_FSYNC=interval" nothing harm_by_logrotate
row cut-client "connections client–producer cut" nothing harm_by_cuts tcp
row cut-producer "connections producer–Kafka cut, responses lost" "producer's connection" harm_by_cuts kafka
row cut-consumer "connections Kafka–consumer cut" nothing harm_by_cuts kafka
row large "a record of 40 MiB from another producer" nothing harm_by_size
row restored "broker's data restored from an older copy, \`KAFKA_AUTO_OFFSET_RESET=divergence\`" "broker's data" harm_by_restore
if [[ " ${faults[*]} " == *" leader "* ]]; then
  kafka wipe
  kafka_port=$((port + 100)) kafka_dir=$base_dir/cluster
  start_kafka 3
  row leader "leader of a partition killed, 3 brokers" broker harm_leader
fi

if $retry; then print_repeats; else print_table; fi
$writes_table && write_page
((failed == 0)) || die "at least one row failed; see the lines that start with FAILED"
$quick || ((skipped == 0)) || die "$skipped faults were skipped; the full run needs all of them"
say "nothing was lost ($SECONDS s)"
