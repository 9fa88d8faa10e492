"""Measurements of access control: what a key costs, and what a noisy client takes from a quiet one."""

import subprocess
import time

import candidates
import scenarios
from programs import BenchError, Meter, run

KEYS = 1000
LIMIT = 1000


def key_file(setup, options):
    """Writes a file with a key for each (client, options), and returns its path and the keys."""
    file, keys = setup.work / f"keys-{time.monotonic_ns()}", []
    lines = []
    for client, option in options:
        # The key, and the line for the file.
        words = run([setup.release / "producer", "--new-key", client]).splitlines()
        key, line = (next(text for text in words if text.startswith(start)) for start in ("ep_", client))
        keys.append(key)
        lines.append(f"{line} {option}".rstrip())
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file, keys


def with_keys(setup, candidate, connections, seconds):
    """One event per request, without a key file and with one of a thousand keys."""
    if candidate == "edge":
        return scenarios.closed_loop(setup, "edge", connections, 1, seconds)
    file, keys = key_file(setup, [(f"client{number}", "") for number in range(KEYS)])
    env = {"AUTH_KEYS_FILE": str(file)}
    return scenarios.closed_loop(setup, "edge", connections, 1, seconds, env, keys[KEYS // 2])


def beside(setup, candidate, seconds):
    """A quiet client on a schedule, alone or beside one that sends twice its limit."""
    options = [("quiet", ""), ("noisy", f"events/s={LIMIT} burst={LIMIT}")]
    file, (quiet, noisy) = key_file(setup, options)
    topic = setup.kafka.new_topic(f"access-{candidate}")
    env = {"AUTH_KEYS_FILE": str(file), "MAX_REQUEST_EVENTS": "1000"}
    with candidates.serve(setup, "edge", topic, env) as server, Meter(server.pid, setup.kafka.pid) as meter:
        load = None
        if candidate == "beside-noisy":
            load = start(setup, server.port, 50, noisy, 2 * LIMIT, seconds)
        report = scenarios.simulate(setup, server.port, 10, ["--key", quiet, "-z", f"{seconds}s", "--rate", 100])
        taken = finish(load)["events"]["acknowledged"] if load else None
    if report["events"]["acknowledged"] != report["events"]["sent"]:
        raise BenchError("the quiet client was refused")
    figures = {
        "p50_ms": report["latencyPercentiles"]["p50"] * 1e3,
        "p99_ms": report["latencyPercentiles"]["p99"] * 1e3,
        "foreign": meter.foreign,
    }
    # Within the limit are its burst, and the rate for the whole time.
    return figures | ({"of_limit": taken / (LIMIT * (seconds + 1))} if load else {})


def start(setup, port, threads, key, rate, seconds):
    """Starts the simulator on a schedule."""
    url = f"http://127.0.0.1:{port}/register_event"
    load = ["--threads", threads, "--key", key, "-z", f"{seconds}s", "--rate", rate]
    command = [setup.release / "simulate", "--url", url, "--output", "json", "--max-error-rate", "1", *load]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finish(load):
    """Its report."""
    return scenarios.report_of(load.communicate(timeout=300)[0].decode())
