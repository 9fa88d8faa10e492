# Starts a PostgreSQL for one run, and compares the events in it with the simulator's record; sourced by run_all.sh.
# Expects lib.sh and programs.sh, $bin and $run_dir.
# shellcheck shell=bash
set -euo pipefail

postgres_bin=/usr/lib/postgresql/15/bin
postgres_pid='' postgres_dir=''

# start_postgres: sets DESTINATION_URL to a new database on a free port, unless it is set already.
start_postgres() {
  need psql postgresql-client
  [[ -z ${DESTINATION_URL:-} ]] || return 0
  need "$postgres_bin/initdb" postgresql-15
  local as=() deadline=$((SECONDS + ${ready_timeout_s:?}))
  postgres_dir=$(mktemp --directory)
  # PostgreSQL refuses to run as root.
  if ((EUID == 0)); then
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
    chown postgres:postgres "$postgres_dir"
  fi
  begin "starting PostgreSQL"
  (cd / && "${as[@]}" "$postgres_bin/initdb" --username postgres --auth trust --no-sync --pgdata "$postgres_dir/data") \
    >"${run_dir:?}/postgres.log" 2>&1 || fail "initdb" "$run_dir/postgres.log"
  local port=${POSTGRES_PORT:-5433}
  (cd / && exec setsid "${as[@]}" "$postgres_bin/postgres" -D "$postgres_dir/data" -p "$port" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories=) >>"$run_dir/postgres.log" 2>&1 </dev/null &
  postgres_pid=$!
  export DESTINATION_URL=postgres://postgres@127.0.0.1:$port/postgres
  until sql 'SELECT 1' >/dev/null 2>&1; do
    running "$postgres_pid" || fail "PostgreSQL exited" "$run_dir/postgres.log"
    ((SECONDS < deadline)) || fail "PostgreSQL does not answer" "$run_dir/postgres.log"
    sleep 0.1
  done
}

stop_postgres() {
  if [[ -n $postgres_pid ]]; then
    kill -INT "$postgres_pid" 2>/dev/null || true
    wait "$postgres_pid" 2>/dev/null || true
    postgres_pid=
  fi
  if [[ -n $postgres_dir ]]; then rm --recursive --force "$postgres_dir"; fi
}

sql() { # sql STATEMENTS: prints the rows
  PGOPTIONS="-c client_min_messages=warning" psql "$DESTINATION_URL" --no-psqlrc --quiet --no-align --tuples-only \
    --set ON_ERROR_STOP=1 --command "$1"
}

# audit_postgres RECORD: every acknowledged event must be in the table once, at the place of its receipt. Prints a summary.
audit_postgres() {
  local run waiting lost duplicated acknowledged deadline=$((SECONDS + ready_timeout_s))
  run=$(sed --quiet '1s/.* run=//p' "$1")
  [[ -n $run ]] || fail "$1 is not a record of the simulator"
  sql 'DROP TABLE IF EXISTS run_all_sent; CREATE UNLOGGED TABLE run_all_sent (seq bigint, partition int, "offset" bigint)'
  # One row for each event: consecutive ones have consecutive offsets.
  awk '$3 == "ack" && $4 != "-" { for (i = 0; i < $2; i++) printf "%d\t%d\t%d\n", $1 + i, $4, $5 + i }' "$1" |
    psql "$DESTINATION_URL" --no-psqlrc --quiet --command '\copy run_all_sent FROM STDIN'
  acknowledged=$(sql 'SELECT count(*) FROM run_all_sent')
  local table="events e WHERE e.event->>'run' = '$run'"
  local missing="SELECT count(*) FROM run_all_sent s WHERE NOT EXISTS (SELECT FROM $table AND e.partition = s.partition
    AND e.\"offset\" = s.\"offset\" AND (e.event->>'seq')::bigint = s.seq)"
  until waiting=$(sql "$missing") && ((waiting == 0)); do
    ((SECONDS < deadline)) || break
    sleep 0.2
  done
  lost=$waiting
  duplicated=$(sql "SELECT count(*) - count(DISTINCT e.event->>'seq') FROM $table")
  sql 'DROP TABLE run_all_sent'
  # The same by the simulator's own audit, from the table in the form of the log.
  psql "$DESTINATION_URL" --no-psqlrc --quiet --no-align --tuples-only --output "$run_dir/events.log" --command \
    "SELECT to_char(e.logged_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS,MS') || ' - ' || e.event FROM $table ORDER BY e.partition, e.\"offset\""
  attended "${bin:?}/simulate" --audit "$1" --verify "$run_dir/events.log" >"$run_dir/audit.txt" 2>&1 ||
    fail "the audit of the table" "$run_dir/audit.txt"
  ((lost == 0 && duplicated == 0)) || fail "PostgreSQL: $acknowledged acknowledged, $lost lost, $duplicated duplicated"
  echo "PostgreSQL: $acknowledged acknowledged, $lost lost, $duplicated duplicated"
}
