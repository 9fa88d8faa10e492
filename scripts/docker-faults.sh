# What scripts/docker-check.sh does to the containers of docker-compose.full.yml, under load; sourced, not run.
# Expects programs.sh, and the settings and functions of docker-check.sh.
# shellcheck shell=bash disable=SC2154 # set by docker-check.sh
set -euo pipefail

# Requests of the load per second, and how many; long enough for all of the faults.
load_rate=1000
load_requests=20000
limited_memory=128m
load_pid=
# A container that cannot start.
bad=

# --- Load and audit ---

start_load() { # start_load NAME ARGUMENT…: sends events in the background, and keeps the record NAME
  "$static_dir/simulate" --url "http://127.0.0.1:$HTTP_PORT/register_event" --record "$run_dir/$1.record" --output json \
    --threads 50 "${@:2}" >"$run_dir/$1.json" 2>"$run_dir/$1.log" &
  load_pid=$!
}

finish_load() { # finish_load NAME: waits for it; everything must have been acknowledged
  wait "$load_pid" || fail "the load" "$run_dir/$1.log"
  load_pid=
}

end_load() { [[ -z $load_pid ]] || kill -KILL "$load_pid" 2>/dev/null || true; }

load_runs() { running "$load_pid" || fail "the load ended too early" "$run_dir/faults.log"; }

acknowledged_more_than() { (($(acknowledged_in "$run_dir/faults.record") > $1)); }

# progress: the load runs, and is acknowledged again.
progress() {
  local before
  load_runs
  before=$(acknowledged_in "$run_dir/faults.record")
  wait_until "events are acknowledged" acknowledged_more_than "$before"
}

# is_clean NAME: every event of this record that was acknowledged is in the volume's log, and none is twice.
is_clean() {
  rm --recursive --force "$run_dir/volume"
  docker cp "$(state "$project" consumer '{{.Id}}'):/var/log/event-pipeline" "$run_dir/volume" >/dev/null || return 1
  "$static_dir/simulate" --audit "$run_dir/$1.record" --verify "$run_dir/volume/events.log" --verify-timeout 1s \
    >"$run_dir/$1.audit" 2>"$run_dir/$1.audit.log"
}

audit() { # audit NAME
  wait_until "the log has what was acknowledged ($run_dir/$1.audit)" is_clean "$1"
  happened "audit of the volume's log: $(grep ' sent, ' "$run_dir/$1.audit")"
}

# --- Faults ---

# stop_service SERVICE: must drain and exit 0.
stop_service() {
  local started=${EPOCHREALTIME/./} code
  attended docker stop -t 40 "$(state "$project" "$1" '{{.Id}}')" >>"$run_dir/faults.log" 2>&1 || fail "docker stop $1" "$run_dir/faults.log"
  code=$(state "$project" "$1" '{{.State.ExitCode}}')
  ((code == 0)) || fail "docker stop $1: exit code $code"
  happened "docker stop $1 under load: exit code 0 after $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
}

start_service() { docker start "$(state "$project" "$1" '{{.Id}}')" >>"$run_dir/faults.log" 2>&1 || fail "docker start $1" "$run_dir/faults.log"; }

kill_service() {
  docker kill "$(state "$project" "$1" '{{.Id}}')" >>"$run_dir/faults.log" 2>&1 || fail "docker kill $1" "$run_dir/faults.log"
  happened "docker kill $1 under load"
}

stop_and_kill() {
  local service
  begin "stopping and killing containers under load"
  start_load faults --requests "$load_requests" --rate "$load_rate" --retry 1000 --timeout 5s
  for service in producer consumer; do
    progress
    stop_service "$service"
    start_service "$service"
    progress
    kill_service "$service"
    start_service "$service"
  done
  progress
  finish_load faults
  audit faults
}

# What the containers of a service may do: memory, root file system, capabilities.
limits_of() { state "$project" "$1" '{{.HostConfig.Memory}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.State.OOMKilled}}'; }

# Removes the containers, and starts new ones with less memory on the same volumes.
restart_with_limits() {
  local service bytes=$((${limited_memory%m} << 20))
  begin "starting again with $limited_memory"
  compose down || fail "docker compose down" "$run_dir/compose.log"
  {
    echo services:
    for service in producer consumer live; do printf '  %s: {mem_limit: %s}\n' "$service" "$limited_memory"; done
  } >"$run_dir/limits.yml"
  start_full --file "$run_dir/limits.yml"
  start_load limits --requests 20000
  finish_load limits
  audit limits
  is_clean faults || fail "the log has lost what was in the volume" "$run_dir/faults.audit"
  for service in producer consumer live; do
    [[ $(limits_of "$service") == "$bytes true [ALL] false" ]] || fail "$service: $(limits_of "$service")"
  done
  happened "new containers on the same volume, read-only, without capabilities, with $limited_memory: nothing is lost"
}

health_of() { docker exec "$(state "$project" "$1" '{{.Id}}')" "$1" --health 2>"$run_dir/health.log"; }

unhealthy() { ! health_of "$1" && grep --quiet 'is not ready: 503' "$run_dir/health.log"; }

# A program without Kafka is unhealthy and not restarted; one with a bad setting ends after its attempts.
check_health() {
  local service policy
  begin "stopping Kafka"
  policy=$(state "$project" consumer '{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}')
  bad=$(docker run --detach --restart "$policy" --env LOG_FSYNC=sometimes event-pipeline-consumer)
  attended docker stop "$(state "$project" kafka '{{.Id}}')" >>"$run_dir/faults.log" 2>&1 || fail "docker stop kafka" "$run_dir/faults.log"
  for service in producer consumer; do
    wait_until "the $service is unhealthy" unhealthy "$service"
    happened "$service --health without Kafka: $(<"$run_dir/health.log")"
  done
  start_service kafka
  for service in producer consumer; do
    wait_until "the $service is healthy again" health_of "$service"
    [[ $(state "$project" "$service" '{{.RestartCount}}') == 0 ]] || fail "the $service was restarted"
  done
  happened "both are healthy with Kafka again, in the same processes"
  wait_until "the consumer with a bad setting is given up" given_up
  happened "restart: $policy gives up a consumer with a bad setting (exit code 2)"
}

given_up() { [[ $(docker inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' "$bad") == "exited 2 5" ]]; }

check_faults() {
  stop_and_kill
  restart_with_limits
  check_health
}
