#!/usr/bin/env bash
# Runs the pipeline for hours under steady load while logs rotate, keys change and brokers restart, and proves that
# nothing is lost, nothing is duplicated, and memory, descriptors and threads stay flat.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"
# shellcheck source=scripts/faults.sh
source "$root/scripts/faults.sh"
# shellcheck source=scripts/trend.sh
source "$root/scripts/trend.sh"

usage() {
  cat <<'TEXT'
usage: scripts/soak.sh [--write] [HOURS]
       scripts/soak.sh --judge SAMPLES

Runs a broker, the producer, the consumer and a steady load of requests that are repeated with the same event ids
until they are acknowledged. Every minute the log is closed and compressed and the file of keys is replaced, and every
three minutes the broker is restarted, in turn by SIGTERM and by SIGKILL (in runs of less than an hour more often). A
sample of the memory, the descriptors and the threads of both programs is taken all the time.

Exit code 0 if no event was lost or duplicated, no request with a valid key was refused, and nothing grew. The growth
is the Theil-Sen slope of the samples after the first fifth of the run, multiplied by the length of that period. The
run fails if memory grows by more than 2 MiB or 5 % of its median, whichever is more, or if descriptors or threads grow
by more than 2.

HOURS may be a fraction, for example 0.02; default 1. A run of an hour or more replaces docs/SOAK.md, also if it fails.
  --write      write the result of a shorter run too
  --judge      only judge the samples of an earlier run (DIR/samples)

Environment:
  SOAK_RATE    requests per second with one event each; default 500
  SOAK_PORT    first of the 52 ports that are used; default: a free range below 20000
  SOAK_DIR     logs, records, brokers' data; default: a new directory under target/soak, removed after success
  KAFKA_VERSION, HTTP_SERVER   default 4.3.1 and edge
  PROGRAMS_DIR  use the programs in it instead of a release build
The other settings of the programs apply too (`cargo run --bin consumer -- --help`).
TEXT
}

invocation="scripts/soak.sh${*:+ $*}"
hours='' writes=false
while (($# > 0)); do
  case $1 in
    --write) writes=true ;;
    --judge)
      [[ -s ${2:-} ]] || die "--judge ${2:-}: expected a file of samples"
      last=$(awk 'END { print $1 }' "$2")
      judge_samples "$2" "$((last / 5))" producer consumer
      exit
      ;;
    --help | -h)
      usage
      exit
      ;;
    *)
      [[ -z $hours && $1 =~ ^[0-9]*\.?[0-9]+$ ]] || { usage >&2 && exit 2; }
      hours=$1
      ;;
  esac
  shift
done
hours=${hours:-1}
duration_s=$(awk -v hours="$hours" 'BEGIN { printf "%d", hours * 3600 }')
((duration_s >= 60)) || die "$hours hours: expected at least 0.017, which is a minute"
if ((duration_s >= 3600)); then writes=true; fi

within() { if (($1 < $2)); then echo "$2"; elif (($1 > $3)); then echo "$3"; else echo "$1"; fi; }
restart_every_s=$(within $((duration_s / 20)) 25 180)
swap_every_s=$((restart_every_s / 3)) rotate_every_s=$((restart_every_s / 3))
sample_every_s=$(within $((duration_s / 720)) 1 60)
rate=${SOAK_RATE:-500} threads=20 event_bytes=300 quick=false
recover_timeout_s=120
load_limit=$((duration_s + 3600))s

need kcat kcat
need curl curl
cd "$root"
mkdir --parents target/soak
base_dir=$(realpath --canonicalize-missing "${SOAK_DIR:-$(mktemp --directory "$root/target/soak/XXXXXX")}")
run_dir=$base_dir samples=$base_dir/samples
mkdir --parents "$run_dir/logs"
port=${SOAK_PORT:-$(free_ports 0 1 50 51)}
kafka_port=$port kafka_dir=$base_dir/kafka
export KAFKA_VERSION=${KAFKA_VERSION:-4.3.1} HTTP_SERVER=${HTTP_SERVER:-edge} EVENT_ECHO=off
export HTTP_ADDR=127.0.0.1:$((port + 50)) METRICS_ADDR=127.0.0.1:$((port + 51))
export KAFKA_TOPIC=soak KAFKA_GROUP=soak LOG_FILE=$run_dir/logs/events.log AUTH_KEYS_FILE=$run_dir/keys
export LOG_ROTATE_SECS=$rotate_every_s LOG_ROTATE_GZIP=true
# Longer than a restart of the broker, so that repeats are recognised; and so few ids that the index is full, and memory
# flat, when the measurement begins.
export EVENT_ID_FIELD=event_id DEDUP_MAX_IDS=$((rate * $(within $((duration_s / 40)) 20 120)))
# Shorter than a restart, so that requests which the producer still holds are repeated.
load_options=(--timeout 5s --retry 1000 --key-file "$run_dir/load.keys")
load_pid='' sampler_pid='' restarts=0 swaps=0 problems=()

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  [[ -z $load_pid ]] || kill -KILL "$load_pid" 2>/dev/null || true
  end_sampler
  stop_programs || true
  kafka_script wipe || true
  if ((code == 0)) && [[ -z ${SOAK_DIR:-} ]]; then rm --recursive --force "$base_dir"; else say "all files are in $base_dir"; fi
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Samples ---

take_sample() { # take_sample PROGRAM PID: prints a line, or nothing if the program has exited
  local memory count
  # What was swapped out is still in use.
  memory=$(awk '/^(RssAnon|VmSwap):/ { kib += $2 } /^Threads:/ { threads = $2 } END { print kib, threads }' "/proc/$2/status") || return 0
  count=$(find "/proc/$2/fd" -mindepth 1 -maxdepth 1 2>/dev/null | wc --lines)
  echo "$((SECONDS - begun_s)) $1 ${memory% *} $count ${memory#* }"
}

sample() { # takes samples until it is ended
  local program
  while true; do
    for program in producer consumer; do take_sample "$program" "$(pid_of "$program")"; done >>"$samples"
    sleep "$sample_every_s"
  done
}

end_sampler() {
  [[ -z $sampler_pid ]] || kill "$sampler_pid" 2>/dev/null || true
  sampler_pid=
}

# --- What happens meanwhile ---

new_key() { # new_key CLIENT: sets $key, and $line for the file of keys
  { read -r key && read -r line; } < <(env --unset=AUTH_KEYS_FILE "$bin/producer" --new-key "$1" 2>>"$run_dir/new-key.log")
  [[ -n ${line:-} ]] || fail "producer --new-key" "$run_dir/new-key.log"
}

# Makes the keys of the load, which stay valid for the whole run.
make_keys() {
  for _ in 1 2; do
    new_key load
    echo "$key" >>"$run_dir/load.keys"
    echo "$line" >>"$run_dir/lines"
  done
  cp "$run_dir/lines" "$AUTH_KEYS_FILE"
  other_key=$key
}

# The status of a request that is not an event: 401 shows that the key is refused, 400 that it is not.
status_with() {
  curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5 --header "Authorization: Bearer $1" \
    --data 'no event' "http://$HTTP_ADDR/register_event"
}
is_answered() { [[ $(status_with "$1") == "$2" ]]; }

# Replaces the file: another client gets a new key and a new limit, and its old key ends.
swap_keys() {
  local before=$other_key first=$((swaps == 0))
  new_key other
  other_key=$key
  { cat "$run_dir/lines" && echo "$line events/s=$((1000 + swaps))"; } >"$AUTH_KEYS_FILE.new"
  mv "$AUTH_KEYS_FILE.new" "$AUTH_KEYS_FILE"
  wait_until "the new key is accepted" is_answered "$other_key" 400
  ((first)) || wait_until "the old key is refused" is_answered "$before" 401
  swaps=$((swaps + 1))
}

restart_broker() {
  if ((restarts % 2)); then kill_broker 1; else kafka stop-broker 1; fi
  kafka start-broker 1
  restarts=$((restarts + 1))
  wait_progress
}

all_run() {
  local program
  for program in producer consumer; do
    running "$(pid_of "$program")" || fail "the $program has exited" "$run_dir/$program.log"
  done
  running "$load_pid" || fail "the load ended too early" "$run_dir/load.log"
  running "$sampler_pid" || fail "no more samples are taken"
}

soak() {
  local end=$((begun_s + duration_s)) next_restart=$((begun_s + restart_every_s)) next_swap=$((begun_s + swap_every_s))
  while ((SECONDS < end)); do
    if ((SECONDS >= next_swap)); then swap_keys && next_swap=$((SECONDS + swap_every_s)); fi
    if ((SECONDS >= next_restart)); then restart_broker && next_restart=$((SECONDS + restart_every_s)); fi
    all_run
    sleep 1
  done
}

# --- The result ---

bad() {
  say "FAILED: $1"
  problems+=("$1")
}

check() {
  ((lost == 0)) || bad "$lost acknowledged events are not in the log"
  ((duplicated == 0)) || bad "$duplicated events are in the log more than once"
  # When the kafka crate's own retry wrote an event twice, its receipt is that of the second copy, which was dropped.
  [[ $client == wire ]] || unordered=0
  ((torn + unordered == 0)) || bad "$torn torn lines, $unordered events out of order"
  ((rejected == 0)) || bad "$rejected events were refused"
  ((sent - acked <= threads)) || bad "only $acked of $sent events were acknowledged"
  ((sent > duration_s * rate * 9 / 10)) || bad "only $sent events were sent"
  ((restarts > 0 && swaps > 1 && closed > 1)) ||
    bad "the run proves nothing: $restarts restarts, $swaps changes of keys, $closed closed logs"
}

report() {
  cat <<TEXT
| what | figure |
| --- | ---: |
| duration | $duration_s s |
| events sent | $sent |
| acknowledged | $acked |
| logged | $logged |
| **lost** | $lost |
| **duplicated** | $duplicated |
| requests that were repeated | $repeated |
| restarts of the broker, half of them by SIGKILL | $restarts |
| changes of the file of keys | $swaps |
| closed and compressed logs | $closed |
| latency p50, from the intended start | $p50 s |
| latency p99, which contains the restarts | $p99 s |
| longest time without an acknowledgement | $gap s |

$trend
TEXT
}

write_page() {
  cat >docs/SOAK.md <<PAGE
# Soak run

Whether the pipeline loses or duplicates events, or grows, when it runs for long.
This page was written by \`$invocation\`; do not edit it.

- Date: $(date --utc '+%Y-%m-%d %H:%M UTC')
- Commit: $(commit)${PROGRAMS_DIR:+; the programs had been built before}
- Machine: $(machine); all programs and the broker run on it
- Load: $rate requests per second on a fixed schedule, $threads threads, one event of $event_bytes bytes each, repeated until acknowledged
- Broker: Kafka $kafka_version, client $client, HTTP server $HTTP_SERVER, \`EVENT_ID_FIELD=event_id\`
- Result: $(if ((${#problems[@]})); then printf '**failed**: %s' "$(printf '%s; ' "${problems[@]}")"; else echo passed; fi)

$(report)

How to read it:

- **lost**: acknowledged events that are not in the log. **duplicated**: events that are in the log more than once. Both must be 0.
- **growth**: the median of the slopes between all pairs of samples (Theil-Sen), times the time, for the samples after the first fifth of the run.
- **limit**: the run fails above it. For memory (\`RssAnon\` and \`VmSwap\`) it is 2 MiB or 5 % of the median, whichever is more; for descriptors and threads it is 2.

The run also fails if a line is torn, if events of a partition are out of order, if a request with a valid key is refused, if the old key still works after a change, or if a program does not exit with code 0 on SIGTERM.
PAGE
  say "wrote docs/SOAK.md"
}

# --- The run ---

build_programs
bin=$built
make_keys
start_kafka 1
programs_up consumer producer
start_load
begin "soaking for $duration_s s: the broker restarts every $restart_every_s s, keys change and logs are closed every $swap_every_s s"
begun_s=$SECONDS
sample &
sampler_pid=$!
soak
end_sampler
begin "ending the load"
end_load
end_program producer
end_offset=$(topic_end)
begin "waiting until the consumer has logged $end_offset records"
wait_until "the checkpoint covers $end_offset records" covers_topic
end_program consumer
begin "auditing"
attended "$bin/simulate" --audit "$run_dir/record" --verify "$LOG_FILE" --output json >"$run_dir/audit.json" 2>"$run_dir/audit.log" || true
read -r sent acked logged lost duplicated torn unordered < <(figures "$run_dir/audit.json" sent acknowledged logged lost duplicated torn outOfOrder) || true
[[ -n ${unordered:-} ]] || fail "the audit gave no figures" "$run_dir/audit.log"
read -r p50 p99 gap repeated rejected < <(figures "$run_dir/load.json" p50 p99 longestGap repeated rejected)
closed=$(find "$run_dir/logs" -name 'events-*.log.gz' | wc --lines)
check
trend=$(judge_samples "$samples" "$((duration_s / 5))" producer consumer) || bad "memory, descriptors or threads grew"
report
if $writes; then write_page; fi
((${#problems[@]} == 0))
