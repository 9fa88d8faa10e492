"""Measurements over HTTP: each function measures one candidate once and checks that no event was lost."""

import json
import math
import time
from pathlib import Path

import candidates
from programs import BenchError, Meter, resident_mib, run

EVENT = '{"event": "purchase", "user_id": 203}'
HERE = Path(__file__).parent
WARMUP_S = 2
NO_KAFKA = ("floor", "floor-batch")


def closed_loop(setup, candidate, connections, batch, seconds, env=None, key=None):
    """Runs wrk with one thread, as fast as it gets responses: events per second, latency, cost per event."""
    kafka = setup.kafka_of(candidate)
    topic = None if candidate in NO_KAFKA else kafka.new_topic(f"{candidate}-c{connections}-b{batch}")
    with candidates.serve(setup, candidate, topic, env) as server:
        wrk(setup, server.port, connections, batch, WARMUP_S, key)
        before = kafka.settled_count(topic) if topic else 0
        with Meter(server.pid, kafka.pid) as meter:
            result = wrk(setup, server.port, connections, batch, seconds, key)
        memory = resident_mib(server.pid)
        answered = (result["requests"] - result["status_errors"]) * batch
        stored = stored_since(kafka, topic, before, answered, connections * batch)
        if answered == 0:
            raise BenchError(f"{candidate}: no request succeeded\n{server.tail()}")
    return {
        "rate": answered / result["seconds"],
        "cpu_us": meter.cpu["server"] * 1e6 / answered,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / answered,
        "load_cores": meter.load_cpu / meter.seconds,
        "p50_ms": result["p50"],
        "p99_ms": result["p99"],
        "memory_mib": memory,
        "answered": answered,
        "stored": stored,
        "refused": result["status_errors"],
        "socket_errors": result["socket_errors"] + result["timeouts"],
        "foreign": meter.foreign,
    }


def wrk(setup, port, connections, batch, seconds, key=None):
    """Runs wrk and returns the results that post.lua prints."""
    body = setup.work / f"body-{batch}"
    if not body.exists():
        body.write_text(EVENT if batch == 1 else f"{EVENT}\n" * batch)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s", "--latency"]
    kind = "application/json" if batch == 1 else "application/x-ndjson"
    output = run(
        [*command, "-s", HERE / "post.lua", f"http://127.0.0.1:{port}/register_event"],
        env={"BENCH_BODY": str(body), "BENCH_CONTENT_TYPE": kind, **({"BENCH_KEY": key} if key else {})},
        limit_s=seconds + 60,
    )
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise BenchError(f"wrk printed no results: {output[-500:]}")
    return json.loads(lines[0])


def stored_since(kafka, topic, before, answered, on_their_way):
    """Number of records added to the topic; an error if an acknowledged one is missing or duplicated."""
    if not topic:
        return None
    stored = kafka.settled_count(topic, before + answered) - before
    if stored > answered + on_their_way:
        raise BenchError(f"DUPLICATES: {topic} has {stored} records, but only {answered} were acknowledged")
    return stored


def produce_alone(setup, candidate, batch, seconds):
    """A client without HTTP sends batches one after the other."""
    kafka = setup.kafka_of(candidate)
    topic = kafka.new_topic(f"{candidate}-b{batch}")
    candidates.alone(setup, candidate, topic, "produce", batch, WARMUP_S)
    before = kafka.settled_count(topic)
    with Meter(None, kafka.pid) as meter:
        result = candidates.alone(setup, candidate, topic, "produce", batch, seconds)
    stored = stored_since(kafka, topic, before, result["events"], 0)
    return alone_figures(meter, result, stored)


def fetch_alone(setup, candidate, topic, events):
    """A client reads a whole topic and discards the records."""
    with Meter(None, setup.kafka_of(candidate).pid) as meter:
        result = candidates.alone(setup, candidate, topic, "fetch", events)
    if result["events"] != events:
        raise BenchError(f"LOSS: {candidate} read {result['events']} of {events} records")
    return alone_figures(meter, result, result["events"])


def alone_figures(meter, result, stored):
    """Figures of a client that has exited."""
    return {
        "rate": result["events"] / result["seconds"],
        "cpu_us": meter.load_cpu * 1e6 / result["events"],
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / result["events"],
        "answered": result["events"],
        "stored": stored,
        "foreign": meter.foreign,
    }


def ndjson(setup, candidate, batch, connections, seconds):
    """Batches over HTTP, or with the crate alone."""
    if candidate == "bare":
        return produce_alone(setup, candidate, batch, seconds)
    return closed_loop(setup, candidate, connections, batch, seconds)


def open_loop(setup, candidate, rate, seconds, batch=1, event_bytes=0, env=None):
    """The simulator on a fixed schedule; latency is measured from the intended start of each request."""
    kafka = setup.kafka_of(candidate)
    topic = None if candidate in NO_KAFKA else kafka.new_topic(f"{candidate}-open-{rate}")
    distribution = setup.work / f"{candidate}-{rate}-{time.monotonic_ns()}.hgrm"
    schedule = ["--rate", rate, "--batch", batch, *(["--size", event_bytes] if event_bytes else [])]
    with candidates.serve(setup, candidate, topic, env) as server:
        simulate(setup, server.port, 200, ["-z", f"{WARMUP_S}s", *schedule])
        before = kafka.settled_count(topic) if topic else 0
        with Meter(server.pid, kafka.pid) as meter:
            load = ["-z", f"{seconds}s", *schedule, "--histogram", distribution]
            report = simulate(setup, server.port, 200, load)
        answered = report["events"]["acknowledged"]
        stored = stored_since(kafka, topic, before, answered, 200 * batch)
        memory = resident_mib(server.pid)
    latency = report["latencyPercentiles"]
    return {
        "rate": report["summary"]["requestsPerSec"] * batch,
        "cpu_us": meter.cpu["server"] * 1e6 / max(answered, 1),
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / max(answered, 1),
        "p50_ms": latency["p50"] * 1e3,
        "p99_ms": latency["p99"] * 1e3,
        "p999_ms": latency["p99.9"] * 1e3,
        "memory_mib": memory,
        "answered": answered,
        "stored": stored,
        "refused": report["events"]["sent"] - answered,
        "kept_schedule": report["schedule"]["kept"],
        "distribution": curve(distribution),
        "foreign": meter.foreign,
    }


def simulate(setup, port, threads, load):
    """Runs our simulator and returns its report. Failed events are a figure here, not an error."""
    url = f"http://127.0.0.1:{port}/register_event"
    command = [setup.release / "simulate", "--url", url, "--threads", threads, "--output", "json"]
    return report_of(run([*command, "--max-error-rate", "1", *load], limit_s=600))


def report_of(output):
    """The report in the output of the simulator."""
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def curve(distribution):
    """Reads (percentile, milliseconds) points from a HdrHistogram text file."""
    points = []
    for line in distribution.read_text().splitlines():
        columns = line.split()
        try:
            points.append((float(columns[1]), float(columns[0])))
        except (IndexError, ValueError):
            continue
    return points


def ten_thousand(setup, candidate, requests, threads):
    """10,000 requests from 200 threads, as in the original; each side uses its own load script."""
    topic = setup.kafka.new_topic(f"{candidate}-10k")
    server_of = "original" if candidate == "original" else "ours"
    with candidates.serve(setup, server_of, topic) as server:
        with Meter(server.pid, setup.kafka.pid) as meter:
            if candidate == "ours":
                seconds = simulate(setup, server.port, threads, ["--requests", requests])["summary"]["total"]
            else:
                url = f"http://127.0.0.1:{server.port}/register_event"
                script = setup.root / "benches/peers/original/simulate_requests.py"
                output = run([candidates.python(setup), script, url, requests, threads])
                seconds = float(output.split("Finished in ")[1].split()[0])
        stored = stored_since(setup.kafka, topic, 0, requests, 0)
        memory = resident_mib(server.pid)
    return {
        "seconds": seconds,
        "rate": requests / seconds,
        "cpu_us": meter.cpu["server"] * 1e6 / requests,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / requests,
        "memory_mib": memory,
        "answered": requests,
        "stored": stored,
        "foreign": meter.foreign,
    }
