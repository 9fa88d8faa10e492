#!/usr/bin/env bash
# Proves that the images and both compose files work: health, stop, kill, restart, limits, and an audit of every event.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
# shellcheck source=scripts/programs.sh
source "$root/scripts/programs.sh"
# shellcheck source=scripts/docker-engine.sh
source "$root/scripts/docker-engine.sh"
# shellcheck source=scripts/docker-faults.sh
source "$root/scripts/docker-faults.sh"

usage() {
  cat <<'TEXT'
usage: scripts/docker-check.sh [--required] [--from-source]

Builds the images, runs docker-compose.yml (with scripts/run_all.sh) and docker-compose.full.yml, stops, kills and
restarts the containers under load, and compares the log in the volume with every receipt.

Uses the docker engine of this machine. Where none responds, root starts one for the run, after installing it with
apt-get. Where that is not possible, it says so and ends with exit code 0. Images that cannot be pulled are replaced by
stand-ins made from the files of this machine (scripts/stand-ins.sh).

  --required     exit code 1 if there is no engine
  --from-source  compile inside the Rust image as a user does; otherwise the images get what scripts/static.sh builds here

Environment:
  CHECK_PORT    first of the 20 ports that are used, default 29300
  PROGRAMS_DIR  the images get the static programs in it, whatever their size is
  RUN_DIR       all logs, default a new directory under target/docker-check, removed after success
TEXT
}

required=false rust=stand-in-rust given=${PROGRAMS_DIR:+$(realpath "$PROGRAMS_DIR")}
while (($# > 0)); do
  case $1 in
    --required) required=true ;;
    --from-source) rust='' ;;
    --help | -h)
      usage
      exit
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift
done

cd "$root"
mkdir --parents target/docker-check
run_dir=$(realpath --canonicalize-missing "${RUN_DIR:-$(mktemp --directory target/docker-check/XXXXXX)}")
mkdir --parents "$run_dir/bin" "$run_dir/built"
programs=(producer consumer live simulate)
image_max_bytes=15000000
port=${CHECK_PORT:-29300}
project=event-pipeline-check
full=docker-compose.full.yml
tool=() reason=''
# Ports of docker-compose.full.yml on this machine.
export HTTP_PORT=$((port + 11)) METRICS_PORT=$((port + 12)) LIVE_PORT=$((port + 13))
export PROMETHEUS_PORT=$((port + 14)) GRAFANA_PORT=$((port + 15))
# So that nothing comes from the user's own .env.
export LIVE_TOKEN=only-for-this-machine EVENT_ID_FIELD=event_id
wait_limit_s=120

on_exit() {
  local code=$?
  trap - EXIT
  end_attended
  end_load
  if [[ -n ${tool[*]} ]] && engine_responds; then
    [[ -z $bad ]] || docker rm --force "$bad" >/dev/null 2>&1 || true
    ((code == 0)) || compose logs --no-color || true
    compose down --volumes --timeout 5 || code=1
    kafka wipe || code=1
    remove_stand_ins
  fi
  end_engine || code=1
  if ((code == 0)) && [[ -z ${RUN_DIR:-} ]]; then rm --recursive --force "$run_dir"; else say "all logs are in $run_dir"; fi
  exit "$code"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Images ---

build_images() {
  local program arguments=()
  [[ -z $rust ]] || arguments=(--build-arg "RUST_IMAGE=$rust")
  for program in "${programs[@]}"; do
    attended docker build "${arguments[@]}" --target "$program" --tag "event-pipeline-$program" . >>"$run_dir/build.log" 2>&1 ||
      fail "docker build --target $program" "$run_dir/build.log"
  done
}

files_of() { # files_of IMAGE: prints every file in it, apart from those that docker mounts
  local container
  container=$(docker create "$1" true)
  docker export "$container" | tar --list | grep --invert-match --extended-regexp '/$|^(\.dockerenv|dev/|etc/(hostname|hosts|mtab|resolv\.conf)$)'
  docker rm "$container" >/dev/null
}

check_image() { # check_image PROGRAM
  local image=event-pipeline-$1 bytes stated files
  bytes=$(docker image inspect --format '{{.Size}}' "$image")
  ((bytes <= image_max_bytes)) || [[ -n $given ]] || fail "$image has $bytes bytes; at most $image_max_bytes"
  stated=$(docker image inspect --format '{{.Config.User}} {{.Config.StopSignal}} {{with .Config.Healthcheck}}{{.Test}}{{end}}' "$image")
  [[ $stated == "65532:65532 SIGTERM $([[ $1 == simulate ]] || echo "[CMD $1 --health]")" ]] || fail "$image: $stated"
  files=$(files_of "$image" | sort | paste --serial --delimiters=' ')
  [[ $files == "etc/ssl/certs/ca-certificates.crt usr/local/bin/$1" ]] || fail "$image has $files"
  # Finds the certificates, and has the features.
  [[ $1 == simulate ]] || docker run --rm --read-only --cap-drop ALL --env KAFKA_SECURITY_PROTOCOL=SSL --env LIVE_TOKEN=0123456789abcdef \
    "$image" --check-config >"$run_dir/$1.log" 2>&1 || fail "$image --check-config" "$run_dir/$1.log"
  happened "$(printf '%-24s %5.1f MB, user 65532, one program and the certificates' "$image" "$(bytes_in_mb "$bytes")")"
}

bytes_in_mb() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1000000 }'; }

# --- docker-compose.yml ---

kafka() { # kafka COMMAND…: scripts/kafka.sh with docker-compose.yml
  env --unset=KAFKA_BROKERS --unset=KAFKA_MODE --unset=KAFKA_VERSION KAFKA_RUNTIME=docker KAFKA_PORT="$port" \
    KAFKA_DIR="$run_dir/kafka" KAFKA_OWNER_PID=$$ scripts/kafka.sh "$@" >>"$run_dir/kafka.log" 2>&1
}

# state PROJECT SERVICE FORMAT: what docker says of the container
state() {
  local container
  container=$(docker ps --all --quiet --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$2")
  [[ -n $container ]] && docker inspect --format "$3" "$container"
}

healthy() { # healthy PROJECT SERVICE…
  local project=$1 service
  shift
  for service; do [[ $(state "$project" "$service" '{{.State.Health.Status}}') == healthy ]] || return 1; done
}

check_first_file() {
  local volumes summary
  volumes=$(docker volume ls --quiet | sort)
  begin "starting docker-compose.yml"
  kafka start || fail "scripts/kafka.sh start" "$run_dir/kafka.log"
  wait_until "ZooKeeper and Kafka are healthy" healthy "event-pipeline-$port" zookeeper kafka
  happened "docker-compose.yml: ZooKeeper and Kafka are healthy"
  begin "running scripts/run_all.sh with KAFKA_RUNTIME=docker"
  # With the programs of the images instead of another build.
  ln --symbolic --no-dereference --force "$static_dir" "$run_dir/built/release"
  printf '#!/bin/sh\n' >"$run_dir/bin/cargo" && chmod +x "$run_dir/bin/cargo"
  attended env --unset=KAFKA_BROKERS --unset=KAFKA_MODE --unset=KAFKA_VERSION PATH="$run_dir/bin:$PATH" \
    CARGO_TARGET_DIR="$run_dir/built" KAFKA_RUNTIME=docker KAFKA_PORT="$port" KAFKA_DIR="$run_dir/kafka" \
    HTTP_ADDR="127.0.0.1:$((port + 5))" METRICS_ADDR="127.0.0.1:$((port + 6))" LOG_FILE="$run_dir/logs/events.log" \
    RUN_DIR="$run_dir/run_all" scripts/run_all.sh >"$run_dir/run_all.log" 2>&1 || fail "scripts/run_all.sh" "$run_dir/run_all.log"
  summary=$(tail --lines=1 "$run_dir/run_all.log")
  happened "scripts/run_all.sh: $summary"
  kafka wipe || fail "scripts/kafka.sh wipe" "$run_dir/kafka.log"
  [[ $(docker volume ls --quiet | sort) == "$volumes" ]] || fail "volumes are left: $(docker volume ls --quiet)"
  happened "scripts/kafka.sh wipe: no container and no volume is left"
}

# --- docker-compose.full.yml ---

compose() { # compose ARGUMENT…
  KAFKA_PORT=$((port + 10)) attended "${tool[@]}" --project-name "$project" --file "$full" "$@" >>"$run_dir/compose.log" 2>&1
}

get() { curl --silent --show-error --fail --max-time 5 "$@" 2>>"$run_dir/curl.log"; }

start_full() { # start_full ARGUMENT…: and waits until everything is healthy
  compose "$@" up --detach || fail "docker compose --file $full up" "$run_dir/compose.log"
  wait_until "all services are healthy" healthy "$project" kafka producer consumer live prometheus grafana
}

log_in_volume() { docker cp "$(state "$project" consumer '{{.Id}}'):/var/log/event-pipeline/events.log" - | tar --extract --to-stdout; }

logged() { grep --quiet --fixed-strings "$1" < <(log_in_volume 2>/dev/null); }

both_are_scraped() {
  [[ $(get "http://127.0.0.1:$GRAFANA_PORT/api/datasources/proxy/1/api/v1/query?query=sum(up)" | jq --raw-output '.data.result[0].value[1]') == 2 ]]
}

check_full_file() {
  local receipt dashboard=http://127.0.0.1:$GRAFANA_PORT/d/event-pipeline rules
  begin "starting $full"
  start_full
  happened "$full: Kafka 4, producer, consumer, live page, Prometheus and Grafana are healthy"
  receipt=$(get --data '{"event": "login", "user_id": 42}' --header 'Content-Type: application/json' "http://127.0.0.1:$HTTP_PORT/register_event")
  [[ $(jq --raw-output .status <<<"$receipt") == ok ]] || fail "the answer to one event: $receipt"
  happened "curl: $receipt"
  wait_until "the event is in the volume's log" logged '"event": "login", "user_id": 42'
  happened "the volume's log: $(log_in_volume | tail --lines=1)"
  rules=$(get "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/rules" | jq '[.data.groups[].rules[] | select(.health != "err")] | length')
  ((rules >= 13)) || fail "Prometheus has $rules rules"
  wait_until "Prometheus reaches both programs" both_are_scraped
  [[ $(get "http://127.0.0.1:$GRAFANA_PORT/api/dashboards/uid/event-pipeline" | jq --raw-output .meta.provisioned) == true ]] ||
    fail "the dashboard is not provisioned"
  get --location "$dashboard" >/dev/null || fail "$dashboard does not answer"
  get "http://127.0.0.1:$LIVE_PORT/?token=$LIVE_TOKEN" >/dev/null || fail "the live page does not answer"
  happened "the dashboard: $dashboard; the live page: http://127.0.0.1:$LIVE_PORT/?token=$LIVE_TOKEN"
}

# --- The run ---

need curl curl
need jq jq
begin "looking for a docker engine"
if ! find_engine; then
  $required && fail "$reason"
  say "skipped: $reason"
  exit
fi
happened "docker $(docker version --format '{{.Server.Version}}'), ${tool[*]}"
static_dir=$given
if [[ -z $static_dir ]]; then
  begin "building the static programs"
  attended scripts/static.sh >"$run_dir/paths" 2>"$run_dir/static.log" || fail "scripts/static.sh" "$run_dir/static.log"
  static_dir=$(dirname "$(head --lines=1 "$run_dir/paths")")
fi
export PROGRAMS_DIR=$static_dir
begin "bringing images"
mapfile -t images < <(sed --quiet 's/^ *image: *//p' docker-compose.yml "$full" | grep --invert-match ^event-pipeline | sort --unique)
bring_images "${images[@]}" ${rust:+"$rust"}
begin "building the images"
build_images
for program in "${programs[@]}"; do check_image "$program"; done
check_first_file
check_full_file
check_faults
begin "stopping"
