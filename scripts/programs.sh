# Starts, stops and kills the project's programs; sourced by scripts that run the pipeline.
# Expects lib.sh, $bin (directory of the programs) and $run_dir (directory for their output).
# shellcheck shell=bash
set -euo pipefail

ready_timeout_s=60
stop_timeout_s=30
# Names and pids of the programs we started, in this order.
declare -a names=() pids=()
attended_pid=
built=

step=preparing
begin() {
  step=$1
  say "$step"
}

fail() { # fail REASON [LOG]: prints the end of LOG too
  say "failed while $step: $1"
  if [[ -n ${2:-} ]]; then
    say "the end of $2:"
    tail --lines=20 "$2" >&2
  fi
  exit 1
}

started_ms=$(date +%s%3N)
happened() { # happened TEXT: prints it with the seconds since the start
  local ms=$(($(date +%s%3N) - started_ms))
  printf '%5d.%d s  %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$1"
}

wait_limit_s=60
wait_until() { # wait_until WHAT COMMAND…: until COMMAND succeeds
  local deadline=$((SECONDS + wait_limit_s)) what=$1
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "$what: not within $wait_limit_s s; all logs are in ${run_dir:?}"
    sleep 0.2
  done
}

# attended COMMAND…: waits for COMMAND. Traps run immediately; bash would delay them for a foreground command.
# The command gets its own process group, so that end_attended reaches all of its processes.
attended() {
  local code=0
  setsid "$@" </dev/null &
  attended_pid=$!
  wait "$attended_pid" || code=$?
  attended_pid=
  return "$code"
}

# Ends the attended command after a signal to this script.
end_attended() {
  local deadline=$((SECONDS + stop_timeout_s)) signal=TERM
  [[ -n $attended_pid ]] || return 0
  # The process group does not exist before setsid has run.
  while kill "-$signal" -- "-$attended_pid" 2>/dev/null || kill "-$signal" "$attended_pid" 2>/dev/null; do
    if ((SECONDS >= deadline)); then signal=KILL; else signal=0; fi
    sleep 0.05
  done
  attended_pid=
}

# Builds the programs and sets $built to their directory, unless PROGRAMS_DIR has some.
build_programs() {
  built=${PROGRAMS_DIR:-${CARGO_TARGET_DIR:-target}/release}
  if [[ -z ${PROGRAMS_DIR:-} ]]; then
    begin "building"
    attended cargo build --locked --release --bins --quiet 2>"${run_dir:?}/build.log" || fail "cargo build" "$run_dir/build.log"
  fi
  built=$(realpath "$built")
}

# adapted FILE FROM TO…: copies docs/FILE into the run's directory and replaces each FROM, which it must have.
adapted() {
  local name=$1 text
  text=$(<"${root:?}/docs/$name")
  shift
  while (($# > 0)); do
    [[ $text == *"$1"* ]] || fail "docs/$name does not have '$1'"
    text=${text//"$1"/"$2"}
    shift 2
  done
  printf '%s\n' "$text" >"${run_dir:?}/${name##*/}"
}

running() { kill -0 "$1" 2>/dev/null; }

http_status() { # http_status HOST:PORT: prints the status of GET /readyz, or none
  # shellcheck disable=SC2016 # expanded by the inner shell
  timeout 2 bash -c '
    host=${1%:*} host=${host#[}
    exec 3<>"/dev/tcp/${host%]}/${1##*:}" || exit 1
    printf "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3
    read -r _ status _ <&3 && echo "$status"' _ "$1" 2>/dev/null || echo none
}

start_program() { # start_program NAME ADDRESS: returns when it is ready
  launch_program "$@"
  wait_ready "$@"
}

launch_program() { # launch_program NAME ADDRESS: returns at once
  begin "starting the $1"
  [[ $(http_status "$2") == none ]] || fail "$2, the address of the $1, is taken by another program"
  # In its own session, so that Ctrl-C reaches it only through this script: a second signal would cut the drain.
  setsid "${bin:?}/$1" >>"${run_dir:?}/$1.log" 2>&1 </dev/null &
  names+=("$1") pids+=("$!")
}

wait_ready() { # wait_ready NAME ADDRESS
  local deadline=$((SECONDS + ready_timeout_s))
  until [[ $(http_status "$2") == 200 ]]; do
    running "$(pid_of "$1")" || fail "the $1 exited" "$run_dir/$1.log"
    ((SECONDS < deadline)) || fail "http://$2/readyz is not 200 after $ready_timeout_s s" "$run_dir/$1.log"
    sleep 0.05
  done
}

index_of() { # index_of NAME: its index in $names
  local index
  for index in "${!names[@]}"; do
    if [[ ${names[index]} == "$1" ]]; then
      echo "$index"
      return
    fi
  done
  return 1
}

pid_of() { echo "${pids[$(index_of "$1")]}"; }

kill_program() { # kill_program NAME: SIGKILL
  local index
  index=$(index_of "$1")
  kill -KILL "${pids[index]}" || fail "the $1 had exited before it was killed" "$run_dir/$1.log"
  wait "${pids[index]}" 2>/dev/null || true
  forget "$index"
}

forget() { # forget INDEX
  names=("${names[@]:0:$1}" "${names[@]:$1+1}")
  pids=("${pids[@]:0:$1}" "${pids[@]:$1+1}")
}

end_program() { # end_program NAME: stops it; the script fails if its exit code is not 0
  local index
  index=$(index_of "$1")
  stop_program "$1" "${pids[index]}" || fail "the $1 did not exit cleanly" "$run_dir/$1.log"
  forget "$index"
}

stop_program() { # stop_program NAME PID: fails if its exit code is not 0, also if it had already exited
  local deadline=$((SECONDS + stop_timeout_s)) code=0
  kill -TERM "$2" 2>/dev/null || true
  while running "$2"; do
    if ((SECONDS >= deadline)); then
      say "$1 did not stop within $stop_timeout_s s: killing it; see $run_dir/$1.log"
      kill -KILL "$2" 2>/dev/null || true
      break
    fi
    sleep 0.05
  done
  wait "$2" 2>/dev/null || code=$?
  ((code == 0)) || say "$1 exited with code $code; see $run_dir/$1.log"
  return "$code"
}

# Stops all programs, the last one started first.
stop_programs() {
  local index failed=0
  for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
    stop_program "${names[index]}" "${pids[index]}" || failed=1
  done
  names=() pids=()
  return "$failed"
}
