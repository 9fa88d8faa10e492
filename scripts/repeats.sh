# The mode --retry of chaos.sh: the load repeats requests, and each event must be in the log exactly once.
# Sourced by chaos.sh; expects faults.sh and the settings of chaos.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # set and read by chaos.sh
set -euo pipefail

# Events that were in the topic more than once, over all rows.
repeats=0

repeat_requests() {
  export EVENT_ID_FIELD=event_id
  # The load repeats requests that the producer still holds, and writes when a killed broker has returned.
  export DELIVERY_TIMEOUT_MS=${DELIVERY_TIMEOUT_MS:-60000}
  load_options=(--timeout 1s --retry 1000)
}

ids() { grep --only-matching '"event_id": "[^"]*"' | sort; } # prints the event ids in the input, sorted

# finish_repeats NAME: adds the row NAME to the table. Reads and checks the figures of finish_row.
finish_repeats() {
  local repeated records distinct twice topic="$run_dir/topic.ids"
  begin "counting the event ids in the topic"
  repeated=$(figures "$run_dir/load.json" repeated)
  attended kcat -C -b "$KAFKA_BROKERS" -t "$KAFKA_TOPIC" -o beginning -e -q >"$run_dir/topic" 2>"$run_dir/kcat.log" ||
    fail "kcat could not read the topic" "$run_dir/kcat.log"
  ids <"$run_dir/topic" >"$topic"
  records=$(wc --lines <"$topic") distinct=$(uniq "$topic" | wc --lines) twice=$(uniq --repeated "$topic" | wc --lines)
  repeats=$((repeats + twice))
  rows+=("| $1 | $sent | $repeated | $twice | $duplicated | $lost | $gap s |")
  say "$sent sent, $repeated repeated, $twice in the topic more than once, $duplicated in the log more than once, $lost lost"
  judge_lines
  ((records == end_offset)) || bad "kcat read $records event ids, but the topic has $end_offset records"
  ((duplicated == 0)) || bad "$duplicated events are in the log more than once"
  ((lines == distinct)) || bad "$lines lines for $distinct different event ids in the topic"
  # The same count without our tools.
  [[ -z $(log_lines | ids | uniq --repeated) ]] || bad "event ids are in the log more than once"
}

print_repeats() { # prints the table, and checks that there was something to drop
  echo "| fault | sent | repeated | in the topic more than once | in the log more than once | lost | longest gap |"
  echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
  printf '%s\n' "${rows[@]}"
  ((repeats > 0)) || bad "the run proves nothing: no event was in the topic more than once"
}
