"""What is measured down to the log file: catching up, latency from POST to line, cost as the topic grows."""

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
# kcat's last block reaches the file only as it ends.
STDIO_BLOCK = 8192
CATCH_UP_LIMIT_S = 300


class Filled:
    """A topic with `events` records that all differ, in batches of `batch`, and what a file of them must hold."""

    def __init__(self, setup, candidate, events, batch=1000):
        kafka = setup.kafka_of(candidate)
        self.topic = kafka.new_topic(f"fill-{batch}-{events}")
        self.events = events
        candidates.alone(setup, "room-wire4" if kafka is not setup.kafka else "room-wire", self.topic, "fill", batch, events)
        stored = kafka.settled_count(self.topic, events)
        if stored != events:
            raise BenchError(f"{self.topic} holds {stored} records, not {events}")
        # As `clients` writes them: the number of an event has at least three digits.
        self.value_bytes = sum(len(f"{n:>3}") for n in range(events)) + events * len(
            '{"event": "purchase", "user_id": , "timestamp": "2025-07-08T00:12:01.781Z"}'
        )
        self.contents = None


def catch_up(setup, candidate, filled):
    """From the start of the program until all of the topic stands in the file; then the contents are compared."""
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
                # kcat may have ended by the time that its file is complete.
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
    """Bytes of the file; 0 while it does not exist."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def compare(filled, candidate, file):
    """The same lines, in any order of the partitions: their number and the sum of their hashes are equal."""
    cut = 0 if candidate == "kcat" else LINE_PREFIX
    lines = total = 0
    with file.open("rb") as text:
        for line in text:
            lines += 1
            total = (total + hash(line[cut:])) & 0xFFFF_FFFF_FFFF_FFFF
    if lines != filled.events or filled.contents not in (None, total):
        raise BenchError(f"LOSS: {candidate} wrote {lines} lines of {filled.events}, or other ones than before")
    filled.contents = total


def end_to_end(setup, candidate, rate, seconds):
    """One event at a time on a schedule: milliseconds from the start of its POST until its line is in the file."""
    topic = setup.kafka.new_topic(f"{candidate}-e2e")
    file = setup.work / f"e2e-{candidate}-{time.monotonic_ns()}" / "events.log"
    file.parent.mkdir()
    count = int(rate * seconds)
    with candidates.serve(setup, candidate, topic) as server:
        post(server.port, [0], time.monotonic(), 1)
        with candidates.consume(setup, candidate, topic, file) as consumer:
            wait_until("the first line", 60, lambda: size(file) > 0)
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
    """Posts events on schedule over one connection; when each was begun."""
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
    """Notes when the line of each event appears, until all have or nothing more comes."""
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
    """Cost an event of both programs, from 10^4 to 10^7 events: batches in over HTTP, then all into the file."""
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
        raise BenchError(f"LOSS: {lines} lines of {events} events")
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
    """Until the file has not grown for a while: processor time and memory by then, and when it last grew."""
    began = time.monotonic()
    last, last_size = began, 0
    while last_size == 0 or time.monotonic() - last < 1.5:
        if time.monotonic() - began > CATCH_UP_LIMIT_S or consumer.process.poll() is not None:
            raise BenchError(f"the consumer does not come to an end:\n{consumer.tail()}")
        now_size = size(file)
        if now_size != last_size:
            last, last_size = time.monotonic(), now_size
        time.sleep(0.01)
    return cpu_seconds(consumer.pid), resident_mib(consumer.pid), last - began


def count_lines(file):
    """Line ends in the file."""
    with file.open("rb") as data:
        return sum(block.count(b"\n") for block in iter(lambda: data.read(1 << 20), b""))
