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
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$2"; } >&2 ||
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
