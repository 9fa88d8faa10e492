# Runs docker-compose.yml for scripts/kafka.sh; sourced, not run.
# Expects lib.sh, $root, $dir, $port, $start_timeout_s, sees_brokers and watch_owner.
# shellcheck shell=bash
set -euo pipefail

engine_timeout_s=20
pull_timeout_s=600
compose_timeout_s=300
# Exists from a successful start until the data is wiped. Contains the port, from which the project's name is
# derived.
marker=${dir:?}/docker
compose_log=$dir/docker.log

project() {
  local of=${port:?}
  [[ ! -s $marker ]] || read -r of <"$marker"
  echo "event-pipeline-$of"
}

# Runs docker compose with its output in $compose_log, which says why it failed.
compose() {
  local tool=()
  find_compose || { echo "neither 'docker compose' nor 'docker-compose' is installed" >>"$compose_log" && return 1; }
  KAFKA_PORT=$port timeout --foreground --kill-after=10 "$compose_timeout_s" "${tool[@]}" \
    --project-name "$(project)" --file "${root:?}/docker-compose.yml" "$@" >>"$compose_log" 2>&1 </dev/null
}

compose_error() {
  echo "$(grep --ignore-case error "$compose_log" | head --lines=1 || true) (see $compose_log)"
}

# Pulls the images that docker-compose.yml needs; if it cannot run here, prints the reason and fails.
prepare_docker() {
  local images image output
  timeout --foreground "$engine_timeout_s" docker info >/dev/null 2>&1 ||
    { echo "no docker engine responds" && return 1; }
  find_compose || { echo "neither 'docker compose' nor 'docker-compose' is installed" && return 1; }
  [[ $(project) == "event-pipeline-$port" ]] ||
    { echo "$dir contains data of docker project $(project); run 'scripts/kafka.sh wipe' first" && return 1; }
  mapfile -t images < <(sed --quiet 's/^ *image: *//p' "$root/docker-compose.yml")
  for image in "${images[@]}"; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    output=$(timeout --foreground "$pull_timeout_s" docker pull "$image" 2>&1 </dev/null) ||
      { echo "image $image is not here and cannot be pulled: ${output##*$'\n'}" && return 1; }
  done
}

# Run this in a subshell. If it fails, it prints the reason and leaves nothing running.
start_docker() {
  local deadline
  prepare_docker || return
  watch_owner
  say "starting ZooKeeper and Kafka with docker compose"
  rm --force "$compose_log"
  # Clean up, also after a signal, but not containers or data of an earlier start.
  [[ -f $marker ]] || trap 'compose down --volumes || say "docker project $(project) may be left: $(compose_error)"' EXIT
  compose up --detach || { echo "docker compose failed: $(compose_error)" && return 1; }
  deadline=$((SECONDS + ${start_timeout_s:?} * 2))
  until sees_brokers "$port" 1; do
    ((SECONDS < deadline)) || { echo "its Kafka does not respond at 127.0.0.1:$port" && return 1; }
    sleep 0.2
  done
  echo "$port" >"$marker"
  trap - EXIT
  say "Kafka is ready at 127.0.0.1:$port (docker, ZooKeeper)"
}

# Prints the ids of the project's containers and volumes, or unknown if docker cannot list them.
docker_leftovers() {
  local what
  for what in "ps --all" "volume ls"; do
    # shellcheck disable=SC2086 # two words
    timeout --foreground "$engine_timeout_s" docker $what --quiet --filter "label=com.docker.compose.project=$(project)" \
      2>/dev/null || echo unknown
  done
}

stop_docker() { # stop_docker [--volumes]
  [[ -f $marker && -n $(docker_leftovers) ]] || return 0
  compose down "$@" || { say "docker project $(project) could not be stopped: $(compose_error)" && return 1; }
  say "stopped ZooKeeper and Kafka of docker project $(project)"
}
