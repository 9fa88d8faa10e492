#!/usr/bin/env bash
# Proves that an alert arrives: stops Kafka under a real Prometheus and Alertmanager, and finds the alert in the log.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"

usage() {
  cat <<'TEXT'
usage: scripts/alert-check.sh

Starts a Kafka of its own, the consumer, the producer, Alertmanager and Prometheus, with the files of docs/prometheus/.
Stops Kafka, waits until PipelineKafkaUnavailable fires and Alertmanager has tried to post it to /register_event of the
producer, starts Kafka again, waits until the alert is a line of the log, and stops everything. Exit code 0 if it is.
The files are used as they are, apart from addresses and times: intervals of a second instead of 15, an alert after 3
seconds instead of a minute.

Environment:
  CHECK_PORT  first of the nine ports that are used, default 19400
  RUN_DIR     logs of the programs, default a new directory under target/alert-check, removed after success
TEXT
}

case ${1:-} in
  '') ;;
  --help | -h)
    usage
    exit
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac

need prometheus prometheus
need prometheus-alertmanager prometheus-alertmanager
need curl curl
need jq jq
cd "$root"
mkdir --parents target/alert-check
run_dir=$(realpath --canonicalize-missing "${RUN_DIR:-$(mktemp --directory target/alert-check/XXXXXX)}")
mkdir --parents "$run_dir/logs"
bin=${CARGO_TARGET_DIR:-target}/release
port=${CHECK_PORT:-19400}
export KAFKA_BROKERS=127.0.0.1:$port KAFKA_TOPIC=events LOG_FILE=$run_dir/logs/events.log EVENT_ECHO=off
export HTTP_ADDR=127.0.0.1:$((port + 5)) METRICS_ADDR=127.0.0.1:$((port + 6))
alertmanager=127.0.0.1:$((port + 7)) prometheus=127.0.0.1:$((port + 8))
alert=PipelineKafkaUnavailable
wait_limit_s=180

kafka() {
  attended env --unset=KAFKA_BROKERS --unset=KAFKA_MODE KAFKA_RUNTIME=jvm KAFKA_PORT="$port" KAFKA_DIR="$run_dir/kafka" \
    KAFKA_OWNER_PID=$$ scripts/kafka.sh "$@" >>"$run_dir/kafka.log" 2>&1 || fail "scripts/kafka.sh $*" "$run_dir/kafka.log"
}

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  stop_programs || code=1
  env KAFKA_PORT="$port" KAFKA_DIR="$run_dir/kafka" KAFKA_BROKERS='' scripts/kafka.sh wipe >>"$run_dir/kafka.log" 2>&1 || code=1
  if ((code == 0)) && [[ -z ${RUN_DIR:-} ]]; then rm --recursive --force "$run_dir"; else say "all logs are in $run_dir"; fi
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Helpers ---

get() { curl --silent --show-error --fail --max-time 5 "http://$1" 2>>"$run_dir/curl.log"; }

monitor() { # monitor NAME ADDRESS COMMAND…: starts it and waits until it is ready
  local name=$1 address=$2
  shift 2
  begin "starting $name"
  setsid "$@" >"$run_dir/$name.log" 2>&1 </dev/null &
  names+=("$name") pids+=("$!")
  wait_until "$name is ready" get "$address/-/ready" >>"$run_dir/curl.log"
}

both_are_reached() { [[ $(get "$prometheus/api/v1/query?query=sum(up)" | jq --raw-output '.data.result[0].value[1]') == 2 ]]; }

firing_jobs() {
  get "$prometheus/api/v1/alerts" | jq --raw-output --arg alert "$alert" \
    '[.data.alerts[] | select(.state == "firing" and .labels.alertname == $alert) | .labels.job] | unique | join(" and ")'
}

both_fire() { [[ $(firing_jobs) == "event-consumer and event-producer" ]]; }

refused() { get "$HTTP_ADDR/metrics" | grep --quiet '^pipeline_http_requests_total{code="503",route="/register_event"} [1-9]'; }

# Alertmanager sends one message for each value of the labels in `group_by`.
logged() { grep --quiet --fixed-strings "\"groupLabels\":{\"alertname\":\"$alert\",\"job\":\"$1\"}" "$LOG_FILE"; }

both_are_logged() { logged event-producer && logged event-consumer; }

# --- The run ---

begin "building"
attended cargo build --locked --release --bins --quiet 2>"$run_dir/build.log" || fail "cargo build" "$run_dir/build.log"
begin "starting Kafka"
kafka start
start_program consumer "$METRICS_ADDR"
start_program producer "$HTTP_ADDR"

adapted prometheus/alertmanager.yml 127.0.0.1:5000 "$HTTP_ADDR" 'group_wait: 10s' 'group_wait: 1s'
adapted prometheus/rules.yml
adapted prometheus/alerts.yml 'for: 1m' 'for: 3s'
adapted prometheus/prometheus.yml 127.0.0.1:5000 "$HTTP_ADDR" 127.0.0.1:5001 "$METRICS_ADDR" 127.0.0.1:9093 "$alertmanager" \
  '_interval: 15s' '_interval: 1s'
monitor alertmanager "$alertmanager" prometheus-alertmanager --config.file="$run_dir/alertmanager.yml" \
  --storage.path="$run_dir/alertmanager" --web.listen-address="$alertmanager" --cluster.listen-address=
monitor prometheus "$prometheus" prometheus --config.file="$run_dir/prometheus.yml" \
  --storage.tsdb.path="$run_dir/prometheus" --web.listen-address="$prometheus"
wait_until "Prometheus reaches both programs" both_are_reached
[[ -z $(firing_jobs) ]] || fail "$alert fires although Kafka runs"
started_ms=$(date +%s%3N)
happened "Prometheus reaches the producer and the consumer, and no alert fires"

begin "stopping Kafka"
kafka stop
happened "Kafka is stopped"
begin "waiting for the alert"
wait_until "$alert fires" both_fire
happened "$alert fires for $(firing_jobs)"
wait_until "Alertmanager posts it" refused
happened "Alertmanager has posted it; the producer has answered 503, so Alertmanager tries again"

begin "starting Kafka"
kafka start
happened "Kafka is started"
begin "waiting for the alert in the log"
wait_until "the alert is in the log" both_are_logged
happened "the alert is in logs/events.log; of each line, the most important members:"
grep --fixed-strings "\"alertname\":\"$alert\"" "$LOG_FILE" | while IFS= read -r line; do
  printf '%s - %s\n' "${line%% - *}" "$(jq --compact-output \
    '{status, groupLabels, summary: .alerts[0].annotations.summary, startsAt: .alerts[0].startsAt, timestamp}' <<<"${line#* - }")"
done
begin "stopping"
