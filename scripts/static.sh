#!/usr/bin/env bash
# Builds the programs as they are shipped: static release binaries with every feature that users choose by a setting.
# Features: the default ones (wire, edge, live), and tls, lake, s3 and postgres.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat <<'TEXT'
usage: scripts/static.sh [--debug] [PROGRAM…]

Builds producer, consumer, live and simulate, or only the PROGRAMs, as static binaries in target/static/TRIPLE/release,
and prints their paths. They need no library of the machine that they run on, only a Linux kernel.

  --debug  for a check: into target/static/debug, without optimization; the next cargo build links target/debug again

Environment:
  CARGO_TARGET_DIR  instead of target
  RUSTFLAGS         further flags for the compiler
TEXT
}

features=tls,lake,s3,postgres
programs=()
debug=false
for argument; do
  case $argument in
    producer | consumer | live | simulate) programs+=("$argument") ;;
    --debug) debug=true ;;
    --help | -h)
      usage
      exit
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done
((${#programs[@]})) || programs=(producer consumer live simulate)

command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
# ring compiles C and assembly.
need cc build-essential
# A directory of its own, so that scripts/test.sh can build here while cargo runs the tests.
out=${CARGO_TARGET_DIR:-target}/static
crt_static='-C target-feature=+crt-static'

check_static() { # check_static PROGRAM…: and prints their full paths
  local program
  for program; do
    # ldd fails for what is not dynamic at all, and names no library for a static program that can be placed anywhere.
    if [[ $(ldd "$program" 2>/dev/null) == *'=>'* ]]; then die "$program is not static"; fi
    realpath "$program"
  done
}

# Only the programs themselves are linked differently, so this takes seconds where the tests have been built.
if $debug; then
  mkdir --parents "$out/debug"
  for program in "${programs[@]}"; do
    # shellcheck disable=SC2086 # two words
    cargo rustc --locked --quiet --all-features --bin "$program" -- $crt_static -C strip=symbols >&2
    mv "${CARGO_TARGET_DIR:-target}/debug/$program" "$out/debug/"
  done
  check_static "${programs[@]/#/$out/debug/}"
  exit
fi
triple=$(rustc -vV | sed --quiet 's/^host: //p')
options=()
for program in "${programs[@]}"; do options+=(--bin "$program"); done
# With --target, the flag does not reach procedural macros, which cannot be static. The names of functions stay, for
# backtraces; the lines would double the size.
RUSTFLAGS="${RUSTFLAGS:-} $crt_static" \
  CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo \
  cargo build --locked --release --quiet --target-dir "$out" --target "$triple" --features "$features" "${options[@]}" >&2
check_static "${programs[@]/#/$out/$triple/release/}"
