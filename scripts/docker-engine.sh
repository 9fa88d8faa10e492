# Finds or starts a docker engine for scripts/docker-check.sh, and brings the images that it needs; sourced, not run.
# Expects lib.sh, programs.sh and $run_dir.
# shellcheck shell=bash disable=SC2034,SC2154 # set and read by docker-check.sh
set -euo pipefail

engine_timeout_s=60
pull_timeout_s=600
# Process and data of an engine that was started here.
engine_pid='' engine_dir=''
# Marks what scripts/stand-ins.sh has made.
stand_in_label=event-pipeline.stand-in

engine_responds() { timeout --foreground "$engine_timeout_s" docker info >/dev/null 2>&1; }

# find_engine: uses the engine of this machine, or starts one, and sets $tool; otherwise says why not in $reason.
find_engine() {
  local log=$run_dir/apt.log
  if ! engine_responds; then
    # Debian's mount points and control groups need root; an engine for one user needs more than a package.
    ((EUID == 0)) || { reason="no docker engine responds, and only root can start one" && return 1; }
    (need dockerd docker.io) 2>"$log" || { reason="no docker engine responds, and none can be installed" && return 1; }
    # The package may have started one.
    engine_responds || start_engine || { reason="dockerd cannot start here: $(grep level=fatal "$run_dir/dockerd.log" || tail --lines=1 "$run_dir/dockerd.log")" && return 1; }
  fi
  find_compose || { (need docker-compose docker-compose) 2>>"$log" && find_compose; } ||
    { reason="neither 'docker compose' nor 'docker-compose' is installed" && return 1; }
}

# An engine of our own, whose images and volumes go with it.
start_engine() {
  local deadline=$((SECONDS + engine_timeout_s))
  # Not below the project: a socket's path has at most 107 characters.
  engine_dir=$(mktemp --directory)
  setsid dockerd --data-root "$engine_dir/data" --exec-root "$engine_dir/exec" --pidfile "$engine_dir/pid" \
    --host "unix://$engine_dir/socket" >"$run_dir/dockerd.log" 2>&1 </dev/null &
  engine_pid=$!
  export DOCKER_HOST=unix://$engine_dir/socket
  until engine_responds; do
    running "$engine_pid" && ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

end_engine() {
  local deadline=$((SECONDS + engine_timeout_s))
  if [[ -n $engine_pid ]]; then
    kill -TERM "$engine_pid" 2>/dev/null || true
    while running "$engine_pid" && ((SECONDS < deadline)); do sleep 0.1; done
    running "$engine_pid" && say "dockerd (pid $engine_pid) does not end; its data is in $engine_dir" && return 1
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=
  fi
  [[ -z $engine_dir ]] || rm --recursive --force "$engine_dir"
}

# bring_images IMAGE…: pulls them; once that fails, stand-ins take the place of those that are missing.
bring_images() {
  local image missing=()
  for image; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    if [[ $image == stand-in-* ]] || ((${#missing[@]})) || ! attended timeout "$pull_timeout_s" docker pull --quiet "$image" >"$run_dir/pull.log" 2>&1; then
      missing+=("$image")
    fi
  done
  ((${#missing[@]})) || return 0
  [[ ${missing[*]} == stand-in-rust ]] || say "no registry can be asked; using stand-ins for ${missing[*]}"
  attended "$root/scripts/stand-ins.sh" "${missing[@]}" 2>"$run_dir/stand-ins.log" ||
    fail "scripts/stand-ins.sh ${missing[*]}" "$run_dir/stand-ins.log"
}

# So that they do not pass for the official images later.
remove_stand_ins() {
  docker image prune --all --force --filter "label=$stand_in_label" >/dev/null 2>&1 || say "stand-ins are left: docker image ls"
}
