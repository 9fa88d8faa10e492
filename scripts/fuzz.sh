#!/usr/bin/env bash
# Fuzzes the response decoders of our own client (`answers`) and the HTTP state machine (`requests`), or one of
# them, with libFuzzer (coverage-guided) for SECONDS each (default 60). Usage: scripts/fuzz.sh [SECONDS [TARGET]]
# Fails at the first input that panics, needs over 512 MiB, or takes over 10 s. Requires a C++ compiler.
# Works with stable Rust: the flags are those of cargo-fuzz without the address sanitizer.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root/fuzz"

seconds=${1:-60}
[[ $seconds =~ ^[0-9]+$ ]] || die "usage: scripts/fuzz.sh [SECONDS [answers|requests]]"
need c++ g++

host=$(rustc --version --verbose | sed --quiet 's/^host: //p')
out=${CARGO_TARGET_DIR:-$root/target}/fuzz
export CARGO_TARGET_DIR=$out
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
say "building"
# With an explicit --target, cargo does not apply these flags to build scripts.
cargo build --locked --quiet --release --target "$host"

for target in ${2:-answers requests}; do
  say "fuzzing $target"
  corpus=$out/corpus/$target
  mkdir --parents "$corpus" "$out/found"
  "$out/$host/release/$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=512 -timeout=10 \
    -print_final_stats=1 -artifact_prefix="$out/found/" "$corpus" "$root/fuzz/seeds/$target"
done
