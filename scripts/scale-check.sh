#!/usr/bin/env bash
# Kills three brokers, three producers, three consumers and two proxies in turn, and proves that no event is lost or
# duplicated.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"
# shellcheck source=scripts/faults.sh
source "$root/scripts/faults.sh"

usage() {
  cat <<'TEXT'
usage: scripts/scale-check.sh [SECONDS]

Runs three brokers, three producers behind nginx and HAProxy (docs/nginx.conf, docs/haproxy.cfg), three consumers with
a shard each, and a steady load through both proxies. Kills one of each kind in turn with SIGKILL, starts it again a
moment later, and goes on with the next one, for SECONDS (default 60) and until each was killed. The load repeats what
was not answered, with the same event ids. Then audits the three logs.

Exit code 0 if no event was lost, duplicated, torn or out of order, all were acknowledged (except those on their way at
the end), and each program was killed.
Prints the latency while killing, from the intended start of each request.

Environment:
  SCALE_RATE   requests per second with one event each; default 500
  SCALE_PORT   first of the 72 ports that are used; default: a free range below 20000
  SCALE_DIR    logs, records, brokers' data; default: a new directory under target/scale, removed after success
  KAFKA_VERSION, KAFKA_CLIENT   version of the brokers (default 4.3.1), client of the programs (default auto)
  PROGRAMS_DIR  use the programs in it instead of a release build
The other settings of the programs apply too.
TEXT
}

case ${1:-} in
  --help | -h)
    usage
    exit
    ;;
esac
if (($# > 1)) || ! [[ ${1:-60} =~ ^[1-9][0-9]*$ ]]; then usage >&2 && exit 2; fi
duration_s=${1:-60}
rate=${SCALE_RATE:-500} threads=200 event_bytes=300 quick=false
recover_timeout_s=120
load_limit=$((duration_s + 3600))s
# Long enough that the others have to do the work of the one that is gone.
down_s=2

need kcat kcat
need nginx nginx
need haproxy haproxy
cd "$root"
mkdir --parents target/scale
base_dir=$(realpath --canonicalize-missing "${SCALE_DIR:-$(mktemp --directory "$root/target/scale/XXXXXX")}")
run_dir=$base_dir
mkdir --parents "$run_dir/logs" "$run_dir/bin"
bin=$run_dir/bin
port=${SCALE_PORT:-$(free_ports 0 1 10 11 20 21 50 51 52 60 61 62 70 71)}
kafka_port=$port kafka_dir=$base_dir/kafka
export KAFKA_VERSION=${KAFKA_VERSION:-4.3.1} KAFKA_TOPIC=scale KAFKA_GROUP=scale EVENT_ECHO=off HTTP_SERVER=edge LOG_FILE=$run_dir/logs/events.log
export LOG_ROTATE_BYTES=1000000
# Both copies of a repeated event go to the same partition, so to the same consumer, which drops the second one.
export EVENT_ID_FIELD=event_id KAFKA_KEY_FIELD=event_id
proxies=(nginx haproxy)
load_url=http://127.0.0.1:$((port + 70))/register_event,http://127.0.0.1:$((port + 71))/register_event
load_options=(--timeout 20s --retry 1000)
load_pid='' failed=0
declare -A killed=()

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  [[ -z $load_pid ]] || kill -KILL "$load_pid" 2>/dev/null || true
  stop_programs || true
  kafka_script wipe || true
  if ((code == 0)) && [[ -z ${SCALE_DIR:-} ]]; then rm --recursive --force "$base_dir"; else say "all files are in $base_dir"; fi
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- The programs: producer-1 to -3, consumer-1 to -3, nginx, haproxy ---

address_of() { # address_of NAME
  case $1 in
    producer-*) echo "127.0.0.1:$((port + 49 + ${1##*-}))" ;;
    consumer-*) echo "127.0.0.1:$((port + 59 + ${1##*-}))" ;;
    nginx) echo "127.0.0.1:$((port + 70))" ;;
    haproxy) echo "127.0.0.1:$((port + 71))" ;;
  esac
}

log_of() { echo "$run_dir/logs/events-$((${1##*-} - 1)).log"; } # log_of NAME of a consumer

# Each instance is started by its own name. The proxies run as one process each, so that a kill reaches all of it.
make_commands() {
  local number name producers='' servers=''
  for number in 1 2 3; do
    ln --symbolic "$built/producer" "$bin/producer-$number"
    ln --symbolic "$built/consumer" "$bin/consumer-$number"
    name=producer-$number
    producers+="server $(address_of "$name");"$'\n'
    servers+="server $name $(address_of "$name") check inter 1s maxconn 1024"$'\n    '
  done
  ln --symbolic "$built/simulate" "$bin/simulate"
  adapted nginx.conf 'server 127.0.0.1:5000;' "$producers" 'listen 127.0.0.1:8080;' "listen $(address_of nginx);" \
    'http {' "http { access_log off; $(printf "%s_temp_path $run_dir/%s; " client_body client_body proxy proxy fastcgi fastcgi uwsgi uwsgi scgi scgi)"
  adapted haproxy.cfg 'bind 127.0.0.1:8080' "bind $(address_of haproxy)" \
    'server producer-1 127.0.0.1:5000 check inter 1s maxconn 1024' "$servers"
  printf '#!/bin/sh\nexec "%s" -c "%s" -g "daemon off; master_process off; pid %s; error_log stderr;"\n' \
    "$(command -v nginx)" "$run_dir/nginx.conf" "$run_dir/nginx.pid" >"$bin/nginx"
  printf '#!/bin/sh\nexec "%s" -db -f "%s"\n' "$(command -v haproxy)" "$run_dir/haproxy.cfg" >"$bin/haproxy"
  chmod +x "$bin/nginx" "$bin/haproxy"
}

launch() { # launch NAME: with the settings of that instance
  local address
  address=$(address_of "$1")
  case $1 in
    producer-*) HTTP_ADDR=$address launch_program "$1" "$address" ;;
    consumer-*) CONSUMER_SHARD=$((${1##*-} - 1))/3 METRICS_ADDR=$address launch_program "$1" "$address" ;;
    *) launch_program "$1" "$address" ;;
  esac
}

serves() { # serves NAME: a proxy answers 404 for the page, because only the producers have it
  [[ $(http_status "$(address_of "$1")") == 404 ]]
}

up() { # up NAME…: starts them at the same time and waits until all are ready
  local name
  for name; do launch "$name"; done
  for name; do
    case $name in
      nginx | haproxy) wait_until "$name listens" serves "$name" ;;
      *) wait_ready "$name" "$(address_of "$name")" ;;
    esac
  done
}

# --- Progress over the three logs, as faults.sh asks for it for one ---

covered() {
  local number
  for number in 0 1 2; do
    sed --quiet 's/.*"offsets":{\([^}]*\)}.*/\1/p' "$run_dir/logs/events-$number.log.checkpoint" 2>/dev/null
  done | tr ',' '\n' | awk -F : '{ sum += $2 } END { print sum + 0 }'
}

# --- Killing ---

kill_once() { # kill_once NAME: kills it, lets the others do its work, and starts it again
  local number=${1##*-}
  some_time
  if [[ $1 == broker-* ]]; then
    kill_broker "$number"
    sleep "$down_s"
    kafka start-broker "$number"
  else
    kill_program "$1"
    sleep "$down_s"
    up "$1"
  fi
  killed[$1]=$((${killed[$1]:-0} + 1))
  wait_progress
}

kill_in_turn() {
  local end=$((SECONDS + duration_s)) round name
  for ((round = 0; SECONDS < end || round < 3; round++)); do
    for name in "producer-$((round % 3 + 1))" "consumer-$((round % 3 + 1))" "broker-$((round % 3 + 1))" "${proxies[round % 2]}"; do
      ((SECONDS < end || round < 3)) || return 0
      kill_once "$name"
    done
  done
}

# --- The result ---

bad() {
  say "FAILED: $1; see $run_dir"
  failed=1
}

judge() {
  local name
  ((lost == 0)) || bad "$lost acknowledged events are in none of the logs"
  ((duplicated == 0)) || bad "$duplicated events are in the logs more than once"
  # When the kafka crate's own retry wrote an event twice, its receipt is that of the second copy, which was dropped.
  [[ $client == wire ]] || unordered=0
  ((torn + unordered == 0)) || bad "$torn torn lines, $unordered events out of order"
  ((acked > 0 && sent - acked <= threads)) || bad "only $acked of $sent events were acknowledged"
  for name in {producer,consumer,broker}-{1,2,3} "${proxies[@]}"; do
    ((${killed[$name]:-0} > 0)) || bad "the run proves nothing: $name was not killed"
  done
  for name in consumer-{1,2,3}; do
    [[ -s $(log_of "$name") ]] || bad "the run proves nothing: $(log_of "$name") is empty"
  done
}

print_result() {
  local name counts=''
  for name in {producer,consumer,broker}-{1,2,3} "${proxies[@]}"; do counts+="$name ${killed[$name]:-0}, "; done
  echo "killed: ${counts%, }"
  echo "latency while killing, from the intended start: p50 $p50 s, p99 $p99 s, slowest $slowest s; longest time without an acknowledgement $gap s"
  echo "$repeated requests were repeated; the topic has $((end_offset - sent)) more records than events were sent"
  echo "$sent sent, $acked acknowledged, $logged logged, $lost lost, $duplicated duplicated in three logs"
}

# --- The run ---

build_programs
make_commands
start_kafka 3
up consumer-{1,2,3} producer-{1,2,3}
up "${proxies[@]}"
start_load
begin "killing in turn for $duration_s s"
kill_in_turn
begin "ending the load"
end_load
for name in haproxy nginx; do kill_program "$name"; done
for name in producer-{3,2,1}; do end_program "$name"; done
end_offset=$(topic_end)
begin "waiting until the consumers have logged $end_offset records"
wait_until "the checkpoints cover $end_offset records" covers_topic
for name in consumer-{3,2,1}; do end_program "$name"; done
begin "auditing"
logs=()
for name in consumer-{1,2,3}; do logs+=(--verify "$(log_of "$name")"); done
attended "$bin/simulate" --audit "$run_dir/record" "${logs[@]}" --output json >"$run_dir/audit.json" 2>"$run_dir/audit.log" || true
read -r sent acked logged lost duplicated torn unordered < <(figures "$run_dir/audit.json" sent acknowledged logged lost duplicated torn outOfOrder) || true
[[ -n ${unordered:-} ]] || fail "the audit gave no figures" "$run_dir/audit.log"
read -r p50 p99 slowest gap repeated < <(figures "$run_dir/load.json" p50 p99 slowest longestGap repeated)
judge
print_result
((failed == 0))
