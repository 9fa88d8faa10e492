"""Measurements up to the log file: catching up, latency from POST to log line, cost as the topic grows."""

import http.client
import json
import threading
import time
from pathlib import Path

import candidates
import scenarios
from programs import BenchError, Meter, Program, cpu_seconds, resident_mib, wait_until

# `2025-07-08 00:12:01,782 - ` before each event of a log line.
LINE_PREFIX = 26
# kcat writes its last block only when it exits.
STDIO_BLOCK = 8192
CATCH_UP_LIMIT_S = 300


class Filled:
    """A topic with `events` distinct records in batches of `batch`, and what a file of them must contain."""

    def __init__(self, setup, candidate, events, batch=1000):
        kafka = setup.kafka_of(candidate)
        self.topic = kafka.new_topic(f"fill-{batch}-{events}")
        self.events = events
        candidates.alone(setup, "room-wire4" if kafka is not setup.kafka else "room-wire", self.topic, "fill", batch, events)
        stored = kafka.settled_count(self.topic, events)
        if stored != events:
            raise BenchError(f"{self.topic} contains {stored} records, not {events}")
        # `clients` pads the number of an event to at least three characters.
        self.value_bytes = sum(len(f"{n:>3}") for n in range(events)) + events * len(
            '{"event": "purchase", "user_id": , "timestamp": "2025-07-08T00:12:01.781Z"}'
        )
        self.contents = None


def catch_up(setup, candidate, filled):
    """Measures the time from program start until the whole topic is in the file, then compares the lines."""
    file = setup.work / f"{candidate}-{time.monotonic_ns()}" / "events.log"
    file.parent.mkdir()
    expected = filled.value_bytes + filled.events * (1 if candidate == "kcat" else LINE_PREFIX + 1)
    began = time.monotonic()
    with candidates.consume(setup, candidate, filled.topic, file) as program:
        with Meter(program.pid, setup.kafka_of(candidate).pid) as meter:
            enough = expected - (STDIO_BLOCK if candidate == "kcat" else 0)
            memory = 0.0

            def complete():
                nonlocal memory
                # kcat may have exited before its file is seen to be complete.
                memory = resident_mib(program.pid) or memory
                return size(file) >= enough

            wait_until("the file is complete", CATCH_UP_LIMIT_S, complete, step_s=0.002)
            seconds = time.monotonic() - began
        if candidate == "kcat":
            program.process.wait(30)
    compare(filled, candidate, file)
    file.unlink()
    return {
        "seconds": seconds,
        "rate": filled.events / seconds,
        "cpu_us": meter.cpu["server"] * 1e6 / filled.events,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / filled.events,
        "memory_mib": memory,
        "answered": filled.events,
        "stored": filled.events,
        "foreign": meter.foreign,
    }


def size(file):
    """Size of the file in bytes; 0 if it does not exist."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def compare(filled, candidate, file):
    """Compares the lines with those of earlier files in any order, by number and sum of their hashes."""
    cut = 0 if candidate == "kcat" else LINE_PREFIX
    lines = total = 0
    with file.open("rb") as text:
        for line in text:
            lines += 1
            total = (total + hash(line[cut:])) & 0xFFFF_FFFF_FFFF_FFFF
    if lines != filled.events or filled.contents not in (None, total):
        raise BenchError(f"LOSS: {candidate} wrote {lines} of {filled.events} lines, or different ones than before")
    filled.contents = total


def end_to_end(setup, candidate, rate, seconds):
    """Posts single events on a schedule and measures the time from the start of a POST to its log line."""
    topic = setup.kafka.new_topic(f"{candidate}-e2e")
    file = setup.work / f"e2e-{candidate}-{time.monotonic_ns()}" / "events.log"
    file.parent.mkdir()
    count = int(rate * seconds)
    with candidates.serve(setup, candidate, topic) as server:
        post(server.port, [0], time.monotonic(), 1)
        with candidates.consume(setup, candidate, topic, file) as consumer:
            wait_until("the first line is in the file", 60, lambda: size(file) > 0)
            seen = {}
            watcher = threading.Thread(target=watch, args=(file, count, seen))
            watcher.start()
            with Meter(server.pid, setup.kafka.pid) as meter:
                consumer_cpu = cpu_seconds(consumer.pid)
                sent = post(server.port, range(1, count + 1), time.monotonic() + 0.2, rate)
                watcher.join()
                consumer_cpu = cpu_seconds(consumer.pid) - consumer_cpu
            memory = resident_mib(server.pid) + resident_mib(consumer.pid)
    missing = [number for number in sent if number not in seen]
    if missing:
        raise BenchError(f"LOSS: {candidate}: {len(missing)} of {count} events are not in {file}")
    latency = sorted((seen[number] - at) * 1e3 for number, at in sent.items())
    return {
        "rate": rate,
        "p50_ms": latency[len(latency) // 2],
        "p99_ms": latency[int(len(latency) * 0.99)],
        "cpu_us": (meter.cpu["server"] + consumer_cpu) * 1e6 / count,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / count,
        "memory_mib": memory,
        "answered": count,
        "stored": len(seen),
        "foreign": meter.foreign,
    }


def post(port, numbers, start, rate):
    """Posts events on a schedule over one connection and returns the start time of each."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {}
    for position, number in enumerate(numbers):
        time.sleep(max(0.0, start + position / rate - time.monotonic()))
        sent[number] = time.monotonic()
        body = json.dumps({"event": "login", "user_id": number})
        link.request("POST", "/register_event", body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        answer.read()
        if answer.status != 200:
            raise BenchError(f"event {number} was answered {answer.status}")
    link.close()
    return sent


def watch(file, count, seen):
    """Records when the line of each event appears, until all have appeared or none does for 20 seconds."""
    rest, last = b"", time.monotonic()
    with file.open("rb") as log:
        while len(seen) < count and time.monotonic() - last < 20:
            piece = log.read()
            now = time.monotonic()
            if not piece:
                time.sleep(0.0005)
                continue
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                number = json.loads(line[LINE_PREFIX:])["user_id"]
                if number:
                    seen[number] = last = now


def growth(setup, events):
    """Cost per event of both programs: sends `events` events in batches over HTTP, then logs them all."""
    batch, connections = 1000, 4
    topic = setup.kafka.new_topic(f"growth-{events}")
    with candidates.serve(setup, "ours", topic) as server:
        with Meter(server.pid, setup.kafka.pid) as meter:
            load = ["--requests", events // batch, "--batch", batch]
            report = scenarios.simulate(setup, server.port, connections, load)
        memory = resident_mib(server.pid)
        answered = report["events"]["acknowledged"]
        stored = scenarios.stored_since(setup.kafka, topic, 0, answered, 0)
        if answered != events:
            raise BenchError(f"{answered} of {events} events were acknowledged")
    file = setup.work / f"growth-{events}" / "events.log"
    file.parent.mkdir(exist_ok=True)
    with candidates.consume(setup, "ours", topic, file) as consumer:
        consumer_cpu, consumer_memory, seconds = follow(consumer, file)
    lines = count_lines(file)
    for left in file.parent.iterdir():
        left.unlink()
    if lines != events:
        raise BenchError(f"LOSS: {lines} lines for {events} events")
    return {
        "rate": report["summary"]["eventsPerSec"],
        "cpu_us": meter.cpu["server"] * 1e6 / events,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / events,
        "memory_mib": memory,
        "consumer_cpu_us": consumer_cpu * 1e6 / events,
        "consumer_memory_mib": consumer_memory,
        "consumer_rate": events / seconds,
        "answered": answered,
        "stored": stored,
        "foreign": meter.foreign,
    }


def follow(consumer: Program, file: Path):
    """Waits until the file stops growing; returns CPU seconds, MiB, and the seconds until it last grew."""
    began = time.monotonic()
    last, last_size = began, 0
    while last_size == 0 or time.monotonic() - last < 1.5:
        if time.monotonic() - began > CATCH_UP_LIMIT_S or consumer.process.poll() is not None:
            raise BenchError(f"the consumer did not catch up, or exited:\n{consumer.tail()}")
        now_size = size(file)
        if now_size != last_size:
            last, last_size = time.monotonic(), now_size
        time.sleep(0.01)
    return cpu_seconds(consumer.pid), resident_mib(consumer.pid), last - began


def count_lines(file):
    """Number of lines in the file."""
    with file.open("rb") as data:
        return sum(block.count(b"\n") for block in iter(lambda: data.read(1 << 20), b""))
