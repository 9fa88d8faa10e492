# Injects faults into the running pipeline and waits until it has recovered; sourced by chaos.sh.
# Expects programs.sh and the settings of chaos.sh (ports, directories, load).
# shellcheck shell=bash disable=SC2034,SC2154 # set and read by chaos.sh
set -euo pipefail

# --- Waiting ---

wait_until() { # wait_until CONDITION COMMAND…: CONDITION is a description for the error message
  local what=$1 deadline=$((SECONDS + recover_timeout_s))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "timed out after $recover_timeout_s s, waiting until $what" "$run_dir/consumer.log"
    sleep 0.05
  done
}

# --- Kafka ---

kafka() { kafka_script "$@" || fail "scripts/kafka.sh $*" "$base_dir/kafka.log"; }

kafka_script() {
  env --unset=KAFKA_BROKERS --unset=KAFKA_MODE KAFKA_RUNTIME=jvm KAFKA_PORT="$kafka_port" \
    KAFKA_DIR="$kafka_dir" KAFKA_OWNER_PID=$$ scripts/kafka.sh "$@" >>"$base_dir/kafka.log" 2>&1
}

start_kafka() { # start_kafka COUNT
  local id
  KAFKA_BROKERS=127.0.0.1:$kafka_port
  for ((id = 2; id <= $1; id++)); do KAFKA_BROKERS+=,127.0.0.1:$((kafka_port + 10 * (id - 1))); done
  export KAFKA_BROKERS
  begin "starting $1 broker(s)"
  echo message.max.bytes=50000000 >"$base_dir/kafka.properties"
  # A killed broker can register again only when its session has expired, and nothing is tested until then.
  ! $quick ||
    printf '%s\n' broker.heartbeat.interval.ms=300 broker.session.timeout.ms=1500 >>"$base_dir/kafka.properties"
  export KAFKA_PROPERTIES=$base_dir/kafka.properties
  kafka start "$1"
  kafka_version=$(sed --quiet 's/.*: Kafka \([0-9.]*\) is ready.*/\1/p' "$base_dir/kafka.log" | tail --lines=1)
  # The client that the programs choose for this version with KAFKA_CLIENT=auto.
  client=${KAFKA_CLIENT:-auto}
  [[ $client != auto ]] || case $kafka_version in [0123].*) client=crate ;; *) client=wire ;; esac
}

broker_pid() { cat "$kafka_dir/broker-$1/pid"; }

kill_broker() {
  kill -KILL "$(broker_pid "$1")" || fail "broker $1 had exited before it was killed" "$base_dir/kafka.log"
  # The sockets are closed only when the last thread has exited.
  wait_until "the port of the killed broker is free" port_is_free $((kafka_port + 10 * ($1 - 1)))
}

pause_broker() {
  kill -STOP "$(broker_pid "$1")"
  wait_until "every thread of the broker has stopped" all_threads_stopped "$(broker_pid "$1")"
}

all_threads_stopped() { ! cat "/proc/$1"/task/*/stat | grep --quiet --invert-match ') T '; }

resume_broker() { kill -CONT "$(broker_pid "$1" 2>/dev/null)" 2>/dev/null || true; }

# set_quotas BYTES: limits how many bytes per second our programs may write and read. BYTES is a double as
# eight escaped bytes, or none to remove the quotas.
# AlterClientQuotas version 0: size, key, version, id, no client, one entry for client-id event-pipeline.
set_quotas() {
  local quota remove='\0' value=$1 answer
  [[ $value != none ]] || value='\0\0\0\0\0\0\0\0' remove='\1'
  for quota in producer_byte_rate consumer_byte_rate; do
    exec 3<>"/dev/tcp/127.0.0.1/$kafka_port"
    # shellcheck disable=SC2059 # the format is the request
    printf "\0\0\0\x4f\0\x31\0\0\0\0\0\1\xff\xff\0\0\0\1\0\0\0\1\0\x09client-id\0\x0eevent-pipeline\0\0\0\1\0\x12$quota$value$remove\0" >&3
    # The response: size, id, throttle time, one entry with its error.
    answer=$(head --bytes=18 <&3 | tail --bytes=2 | od --address-radix=n --format=u1)
    exec 3>&-
    [[ $answer =~ ^\ +0\ +0$ ]] || fail "the broker rejected the quota with error$answer" "$base_dir/kafka.log"
  done
}

leader() { # prints the node id of the leader of partition 0
  kcat -L -b "$KAFKA_BROKERS" -t "$KAFKA_TOPIC" -m 10 | sed --quiet 's/^ *partition 0, leader \([0-9]*\),.*/\1/p'
}

topic_end() { # prints the sum of the end offsets of all partitions
  local ends deadline=$((SECONDS + recover_timeout_s))
  # A broker that has just started may not lead its partitions yet.
  until ends=$(kcat -Q -b "$KAFKA_BROKERS" -t "$KAFKA_TOPIC:0:-1" -t "$KAFKA_TOPIC:1:-1" -t "$KAFKA_TOPIC:2:-1" 2>"$base_dir/kcat.log"); do
    ((SECONDS < deadline)) || fail "no end offsets of $KAFKA_TOPIC within $recover_timeout_s s" "$base_dir/kcat.log"
    sleep 0.2
  done
  awk '{ sum += $NF } END { print sum + 0 }' <<<"$ends"
}

# --- Load, progress, log ---

start_load() {
  "$bin/simulate" --url "${load_url:-http://$HTTP_ADDR/register_event}" --threads "$threads" --rate "$rate" \
    --duration "$load_limit" --size "$event_bytes" "${load_options[@]}" --max-error-rate 1 --output json \
    --record "$run_dir/record" >"$run_dir/load.json" 2>"$run_dir/load.log" &
  load_pid=$!
  wait_progress
}

acknowledged() { acknowledged_in "$run_dir/record"; }

# Prints the sum of the offsets in the consumer's checkpoint over all partitions.
covered() {
  sed --quiet 's/.*"offsets":{\([^}]*\)}.*/\1/p' "$LOG_FILE.checkpoint" 2>/dev/null |
    tr ',' '\n' | awk -F : '{ sum += $2 } END { print sum + 0 }'
}

is_above() { (($("$1") > $2)); }
covers_topic() { (($(covered) == end_offset)); }

# Waits until more events have been acknowledged, and then until more have been logged.
wait_progress() {
  wait_until "events are acknowledged" is_above acknowledged "$(acknowledged)"
  wait_until "events are logged" is_above covered "$(covered)"
}

keep_going() {
  wait_progress
  sleep "$steady_s"
  wait_progress
}

end_load() {
  running "$load_pid" || fail "the load ended too early" "$run_dir/load.log"
  # The signal ends the schedule; requests that have been sent are still completed.
  kill -TERM "$load_pid"
  wait "$load_pid" || true
  load_pid=
  local failures
  failures=$(sed --quiet '/"failures": \[/,/\]/p' "$run_dir/load.json" | grep --extended-regexp --invert-match 'failures|\]' || true)
  [[ $failures =~ ^[[:space:]]*\"interrupted\ by\ a\ signal\"$ ]] || fail "the load reports: $failures" "$run_dir/load.log"
}

mount_log() {
  mkdir --parents "$run_dir/logs"
  # shellcheck disable=SC2015 # both may fail
  ((EUID == 0)) && mount --types tmpfs --options "size=$disk" tmpfs "$run_dir/logs" 2>>"$run_dir/mount.log" || return 1
  mounted=$run_dir/logs
}

unmount_log() {
  [[ -z ${mounted:-} ]] || umount --lazy "$mounted" || true
  mounted=
}

# --- The faults: when a function returns, its fault is over and the programs run again ---

programs_up() { # programs_up NAME…: starts the programs at the same time and waits until all are ready
  local name
  for name in "$@"; do launch_program "$name" "$(address_of "$name")"; done
  for name in "$@"; do wait_ready "$name" "$(address_of "$name")"; done
}

address_of() { if [[ $1 == producer ]]; then echo "$HTTP_ADDR"; else echo "$METRICS_ADDR"; fi; }

some_time() { sleep "0.$((RANDOM % 9))"; }

kill_and_restart() { # kill_and_restart producer|consumer|broker
  some_time
  if [[ $1 == broker ]]; then
    kill_broker 1
    kafka start-broker 1
  else
    kill_program "$1"
    programs_up "$1"
  fi
}

harm_in_turn() { # harm_in_turn NAME…
  local round name
  for ((round = 0; round < kills; round++)); do
    for name in "$@"; do
      kill_and_restart "$name"
      wait_progress
    done
  done
}

harm_at_once() {
  some_time
  kill_program consumer
  kill_program producer
  kill_broker 1
  kafka start-broker 1
  programs_up consumer producer
}

harm_by_pause() {
  pause_broker 1
  sleep "$pause_s"
  resume_broker 1
}

harm_by_quota() {
  # 2^15 or 2^17 bytes per second, a third of what the load writes.
  if $quick; then set_quotas '\x40\xe0\0\0\0\0\0\0'; else set_quotas '\x41\0\0\0\0\0\0\0'; fi
  sleep "$pause_s"
  set_quotas none
}

harm_leader() {
  local id
  id=$(leader)
  kill_broker "$id"
  wait_progress
  kafka start-broker "$id"
}

harm_disk() {
  wait_until "the disk is full" says_disk_is_full
  sleep "$steady_s"
  mount --options remount,size=1g "$mounted"
  wait_until "the consumer is ready again" is_ready "$METRICS_ADDR"
}

harm_by_logrotate() {
  local round settings=$run_dir/logrotate.conf
  printf '%s {\n  rotate 99\n  compress\n  postrotate\n    kill -HUP %s\n  endscript\n}\n' \
    "$LOG_FILE" "$(pid_of consumer)" >"$settings"
  for ((round = 0; round < 4 * kills; round++)); do
    some_time
    logrotate --force --state "$run_dir/logrotate.state" "$settings" 2>>"$run_dir/logrotate.log" ||
      fail "logrotate" "$run_dir/logrotate.log"
    wait_progress
  done
}

says_disk_is_full() { [[ $(http_status "$METRICS_ADDR") == 503 ]] && grep --quiet 'No space left' "$run_dir/consumer.log"; }
is_ready() { [[ $(http_status "$1") == 200 ]]; }

# The copy is made while the broker is stopped, so later epochs and offsets are reused for other records.
harm_by_restore() {
  local data=$kafka_dir/broker-1/data before
  kafka stop-broker 1
  cp --archive "$data" "$run_dir/copy"
  kafka start-broker 1
  keep_going
  # Wait until everything is logged: losing records that the consumer has not read would be Kafka's fault.
  end_program producer
  end_offset=$(topic_end)
  wait_until "the checkpoint covers $end_offset records" covers_topic
  before=$end_offset
  kafka stop-broker 1
  rm --recursive "$data"
  mv "$run_dir/copy" "$data"
  kafka start-broker 1
  gone=$((before - $(topic_end)))
  ((gone > 0)) || fail "the restored topic has lost no records" "$base_dir/kafka.log"
  programs_up producer
  wait_until "the consumer has exited, to go back at its next start" has_ended consumer
  KAFKA_AUTO_OFFSET_RESET=divergence programs_up consumer
}

has_ended() { # has_ended NAME: succeeds if the program has exited by itself, and forgets it
  local index
  index=$(index_of "$1")
  running "${pids[index]}" && return 1
  wait "${pids[index]}" 2>/dev/null || true
  forget "$index"
}

start_proxy() { # start_proxy tcp|kafka ADDRESSES: starts the proxy and sets $proxy_address
  coproc PROXY { exec "$bin/examples/fault-proxy" "$@" 2>"$run_dir/proxy.log"; }
  read -r proxy_address <&"${PROXY[0]}" || fail "the proxy did not start" "$run_dir/proxy.log"
}

order() { # order WORD…: sends a command to the proxy and sets $reply
  echo "$*" >&"${PROXY[1]}"
  read -r reply <&"${PROXY[0]}" || fail "the proxy exited" "$run_dir/proxy.log"
}

end_proxy() {
  local input=${PROXY[1]} pid=$PROXY_PID
  exec {input}>&-
  wait "$pid" 2>/dev/null || true
}

harm_by_cuts() { # harm_by_cuts tcp|kafka
  local round before
  order accepted
  before=$reply
  for ((round = 0; round <= kills; round++)); do
    order cut
    some_time
    order cut-request $((RANDOM % 5000))
    some_time
    order cut-reply $((RANDOM % 5000))
    if [[ $1 == kafka ]]; then order lose-replies 0 1; fi
    some_time
  done
  order accepted
  ((reply > before)) || fail "no connection was cut: $before accepted before, $reply afterwards"
}

harm_by_size() {
  { printf '{"foreign":"' && head --bytes=41943040 /dev/zero | tr '\0' x && printf '"}'; } >"$run_dir/large"
  kcat -P -b "$KAFKA_BROKERS" -t "$KAFKA_TOPIC" -p 0 -X message.max.bytes=50000000 "$run_dir/large" ||
    fail "kcat could not send a record of 40 MiB" "$base_dir/kafka.log"
}
