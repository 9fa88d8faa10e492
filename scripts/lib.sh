# Functions that all scripts share; sourced, not run. Expects $root, the project's directory.
# shellcheck shell=bash
set -euo pipefail

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# need COMMAND PACKAGE [HINT]: installs the Debian package if COMMAND is missing, or says how to install it.
need() {
  command -v "$1" >/dev/null && return
  if ((EUID == 0)) && command -v apt-get >/dev/null; then
    say "$1 is missing: installing $2 with apt-get"
    # Another of our scripts may be installing right now, and apt-get does not wait.
    {
      flock 7 && apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"
    } >&2 7>/tmp/event-pipeline-apt-get.lock ||
      die "apt-get could not install $2, which provides $1"
  else
    die "$1 is missing; install it (Debian, Ubuntu: sudo apt-get install $2)${3:+, $3}"
  fi
}

# Sets $tool to the command that runs a compose file; fails if there is none.
# shellcheck disable=SC2034 # for the caller
find_compose() {
  if docker compose version >/dev/null 2>&1; then
    tool=(docker compose)
  elif docker-compose version >/dev/null 2>&1; then
    tool=(docker-compose)
  else
    return 1
  fi
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_ports OFFSET…: prints a number below 20000, so that it and each OFFSET make a free port.
free_ports() {
  local base offset
  for ((base = 10000 + RANDOM % 48 * 200; ; base = 10000 + RANDOM % 48 * 200)); do
    for offset; do
      port_is_free $((base + offset)) || continue 2
    done
    echo "$base"
    return
  done
}

machine() {
  local processor memory
  processor=$(sed --quiet 's/^model name\s*: //p' /proc/cpuinfo | head --lines=1)
  memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
  echo "$(nproc) × ${processor:-$(uname --machine)}, $memory, Linux $(uname --kernel-release)"
}

commit() { # prints the commit of this clone, and whether files differ from it
  local commit
  commit=$(git -C "${root:?}" rev-parse --short HEAD 2>/dev/null || echo unknown)
  [[ -z $(git -C "$root" status --porcelain --untracked-files=no 2>/dev/null) ]] || commit+=" with changes"
  echo "$commit"
}

figures() { # figures FILE NAME…: prints numbers from a JSON file with one member per line
  local file=$1 name
  shift
  for name in "$@"; do
    sed --quiet "s/^ *\"$name\": \([0-9.]*\),\?$/\1/p" "$file" | head --lines=1
  done | paste --serial --delimiters=' '
}

acknowledged_in() { # acknowledged_in RECORD: prints how many events of a load were, 0 without a record
  local count
  count=$(grep --count ' ack ' "$1" 2>/dev/null || true)
  echo "${count:-0}"
}
