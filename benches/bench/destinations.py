"""Measurements of where events go after the log: a lake of Parquet files, and PostgreSQL beside psql's \\copy."""

import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import candidates
from programs import BenchError, Meter, Program, resident_mib, run, wait_until

LIMIT_S = 900
POSTGRES = Path("/usr/lib/postgresql/15/bin")
LOG_BYTES = 128 << 20
# What becomes of closed logs.
CLOSED = {
    "log": {},
    "log-gzip": {"LOG_ROTATE_GZIP": "true"},
    "lake": {"LAKE_COLUMNS": "user_id:int64"},
}


def metric(port, name):
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return 0.0


def consumer(setup, filled, env):
    """Starts a consumer of the whole topic that has all features; returns it once its status page answers, and its port."""
    port = setup.free_port()
    settings = {
        **candidates.kafka_settings(setup, "wire", filled.topic),
        "KAFKA_GROUP": f"bench-{time.monotonic_ns()}",
        "METRICS_ADDR": f"127.0.0.1:{port}",
    }
    program = setup.work.parent / "features/release/consumer"
    return Program("consumer", [program], setup.work, port, {**settings, **env}), port


def closed_logs(setup, candidate, filled):
    """Logs a whole topic in files of 128 MiB, and measures what becomes of these: left alone, gzip, or a lake."""
    work = setup.work / f"{candidate}-{time.monotonic_ns()}"
    log = work / "logs/events.log"
    log.parent.mkdir(parents=True)
    lake = work / "lake"
    env = {"LOG_FILE": str(log), "LOG_ROTATE_BYTES": str(LOG_BYTES), "LOG_ROTATE_SECS": "60", **CLOSED[candidate]}
    if candidate == "lake":
        env["LAKE_DIR"] = str(lake)
    program, port = consumer(setup, filled, env)
    with program, Meter(program.pid, setup.kafka.pid) as meter:
        # The last log is closed at the next full minute.
        wait_until("all logs are closed", LIMIT_S, lambda: is_done(candidate, log, lake, port, filled.events), 0.2)
        memory = resident_mib(program.pid)
    stored = sum(file.stat().st_size for file in (lake if candidate == "lake" else log.parent).rglob("events-*"))
    if candidate == "lake":
        check(setup, lake, filled.events)
    shutil.rmtree(work)
    return {
        "cpu_us": meter.cpu["server"] * 1e6 / filled.events,
        "memory_mib": memory,
        "event_bytes": stored / filled.events,
        "answered": filled.events,
        "stored": filled.events,
        "foreign": meter.foreign,
    }


def is_done(candidate, log, lake, port, events):
    """True once all events are in closed logs, and these have become what they are to become."""
    if metric(port, "pipeline_log_events_total") < events or not log.exists() or log.stat().st_size > 0:
        return False
    plain = [file for file in log.parent.glob("events-seq*") if file.suffix == ".log"]
    match candidate:
        case "log":
            return True
        case "log-gzip":
            return not plain and not list(log.parent.glob("*.part"))
        case _:
            return not plain and metric(port, "pipeline_lake_rows_total") == events


def check(setup, lake, events):
    """DuckDB must find every event once."""
    query = (
        "import duckdb, sys; duckdb.sql('SET enable_progress_bar = false'); "
        "print(*duckdb.sql(f\"SELECT count(*), count(DISTINCT event->>'user_id'), count(DISTINCT user_id) "
        "FROM '{sys.argv[1]}/dt=*/hour=*/*.parquet'\").fetchall()[0])"
    )
    counts = run([candidates.python(setup), "-c", query, lake]).split()
    if counts != [str(events)] * 3:
        raise BenchError(f"LOSS: DuckDB counts {counts}, not {events} events with different ids")


def to_postgres(setup, candidate, filled):
    """Writes a whole topic into a table, by our consumer, or the same rows by psql's \\copy from a file."""
    with database(setup) as (server, url):
        program, port = consumer(setup, filled, {"DESTINATION_URL": url, "CREATE_TABLES": "run"})
        with program, Meter(program.pid, server) as meter:
            sql = "SELECT coalesce(sum(next_offset), 0) FROM event_offsets"
            wait_until("the tables are there", 60, lambda: psql(url, "SELECT to_regclass('event_offsets')"))
            began = time.monotonic()
            wait_until("all events are in the table", LIMIT_S, lambda: int(psql(url, sql)) == filled.events, 0.05)
            seconds = time.monotonic() - began
            memory = resident_mib(program.pid)
        if candidate == "psql-copy":
            file = setup.work / "rows"
            psql(url, f"\\copy events TO '{file}'")
            psql(url, "TRUNCATE events")
            psql(url, "CHECKPOINT")
            with Meter(None, server) as meter:
                began = time.monotonic()
                psql(url, f"\\copy events FROM '{file}'")
                seconds = time.monotonic() - began
            file.unlink()
        count = int(psql(url, "SELECT count(DISTINCT event->>'user_id') FROM events"))
        if count != filled.events:
            raise BenchError(f"LOSS: {count} of {filled.events} events are in the table")
    figures = {"rate": filled.events / seconds, "answered": filled.events, "stored": count, "foreign": meter.foreign}
    if candidate == "psql-copy":
        return figures | {"cpu_us": meter.load_cpu * 1e6 / filled.events}
    return figures | {"cpu_us": meter.cpu["server"] * 1e6 / filled.events, "memory_mib": memory}


@contextmanager
def database(setup):
    """A new PostgreSQL with its default settings; yields its process and the URL of a database."""
    root, port = setup.work / f"postgres-{time.monotonic_ns()}", setup.free_port()
    root.mkdir()
    user = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        shutil.chown(root, "postgres", "postgres")
        for above in root.parents:
            above.chmod(above.stat().st_mode | 0o111) if above.owner() == "root" and above != Path("/") else None
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    run([*user, POSTGRES / "initdb", "--username", "postgres", "--auth", "trust", "--pgdata", root / "data"])
    sockets = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    server = Program("postgres", [*user, POSTGRES / "postgres", "-D", root / "data", "-p", port, *sockets], setup.work)
    url = f"postgres://postgres@127.0.0.1:{port}/postgres"
    try:
        wait_until("PostgreSQL answers", 60, lambda: answers(url))
        yield server.pid, url
    finally:
        server.process.send_signal(2)
        server.process.wait(60)
        shutil.rmtree(root)


def answers(url):
    """True once statements are run."""
    try:
        return psql(url, "SELECT 1") == "1"
    except (BenchError, subprocess.SubprocessError):
        return False


def psql(url, command):
    """Runs one command, and returns its output."""
    flags = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"]
    return run(["psql", url, *flags, "--command", command]).strip()
