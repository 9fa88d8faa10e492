"""Defines the programs that are compared and starts them."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from programs import Program, is_ready, run


# axum + rdkafka as one would write it: a linger of 5 ms, and the defaults of both on two cores.
AS_WRITTEN = {"linger": 5, "threads": 2, "batch": 10000}


@dataclass
class Setup:
    """Directories, brokers, ports and settings of this run."""

    root: Path
    release: Path
    work: Path
    kafka: object
    port: int
    # Returns the broker of the newest Kafka, which is started on first use.
    newest: object = None
    axum: dict = field(default_factory=AS_WRITTEN.copy)
    next_port: int = 0

    def free_port(self):
        """Returns a different port each time, so that connections of earlier programs do not interfere."""
        self.next_port = (self.next_port + 1) % 700
        return self.port + 100 + self.next_port

    def kafka_of(self, candidate):
        """The broker that the candidate uses."""
        return self.newest() if candidate in ON_NEWEST else self.kafka


NAMES = {
    "ours": "this project",
    "wire": "this project, KAFKA_CLIENT=wire",
    "wire4": "the same on Kafka 4",
    "ids": "this project, dropping repeated events",
    "wire-ids": "the same with the wire client",
    "edge": "this project, HTTP_SERVER=edge",
    "edge-wire": "the same with the wire client",
    "edge-keys": "the same with a key file",
    "undisturbed": "50 active connections alone",
    "beside-idle": "beside 10,000 idle ones",
    "beside-viewers": "beside 64 viewers of the live page",
    "alone": "the quiet client alone",
    "beside-noisy": "beside the noisy one",
    "compress-none": "KAFKA_COMPRESSION=none",
    "compress-gzip": "gzip",
    "compress-snappy": "snappy",
    "compress-lz4": "lz4",
    "compress-zstd": "zstd",
    "log": "this project, logs only",
    "log-gzip": "this project, closed logs compressed",
    "lake": "this project, closed logs to a lake",
    "postgres": "this project, into PostgreSQL",
    "psql-copy": "psql, \\copy from a file",
    "floor": "floor: tiny_http alone, no Kafka",
    "floor-batch": "the same with the producer's scheduling policy",
    "axum": "axum + rdkafka, best setting",
    "axum5": "axum + rdkafka, linger 5 ms",
    "original": "original: Flask + kafka-python",
    "bare": "kafka crate alone",
    "room": "the crate as this project uses it",
    "room-wire": "the wire client",
    "room-wire4": "the wire client, on Kafka 4",
    "kcat": "kcat",
}
ON_NEWEST = ("wire4", "room-wire4")


def serve(setup, candidate, topic, env=None):
    """Starts the HTTP server of `candidate`, which writes to `topic`."""
    port = setup.free_port()
    broker = setup.kafka_of(candidate).address
    address = f"127.0.0.1:{port}"
    axum = AS_WRITTEN if candidate == "axum5" else setup.axum
    commands = {
        "floor": [setup.release / "floor", address],
        "floor-batch": [setup.release / "floor", address],
        "ours": [setup.release / "producer"],
        "wire": [setup.release / "producer"],
        "wire4": [setup.release / "producer"],
        "edge": [setup.release / "producer"],
        "edge-wire": [setup.release / "producer"],
        "axum": _axum(setup, address, topic, axum),
        "axum5": _axum(setup, address, topic, axum),
        "original": [python(setup), setup.root / "benches/peers/original/app.py", port, broker, topic],
    }
    settings = {"HTTP_ADDR": address, **kafka_settings(setup, candidate, topic or "events"), "PYTHONUNBUFFERED": "1"}
    if candidate.startswith("edge"):
        settings["HTTP_SERVER"] = "edge"
    policy = os.SCHED_BATCH if candidate == "floor-batch" else None
    # Until the producer has reached Kafka, it refuses events.
    ready = is_ready(port) if commands[candidate] == [setup.release / "producer"] else None
    return Program(candidate, commands[candidate], setup.work, port, {**settings, **(env or {})}, ready, policy)


def kafka_settings(setup, candidate, topic):
    """Environment variables for the broker, the topic and the client."""
    client = "wire" if "wire" in candidate else "crate"
    return {"KAFKA_BROKERS": setup.kafka_of(candidate).address, "KAFKA_TOPIC": topic, "KAFKA_CLIENT": client}


def _axum(setup, address, topic, settings):
    return [
        setup.release / "axum-rdkafka",
        address,
        setup.kafka.address,
        topic,
        settings["linger"],
        settings["threads"],
        settings["batch"],
    ]


def consume(setup, candidate, topic, file):
    """Starts the program of `candidate` that writes the whole `topic` to `file`."""
    broker = setup.kafka_of(candidate).address
    if candidate == "kcat":
        # By default, librdkafka waits for more records at the end, and for a second each time its queue of
        # 100,000 messages is full. With these settings it does neither and is four times as fast.
        fast = "-X fetch.wait.max.ms=10 -X queued.min.messages=1000000"
        command = f"exec kcat -C -e -q -o beginning -b {broker} -t {topic} {fast} > {file}"
        return Program("kcat", ["sh", "-c", command], setup.work)
    if candidate == "original":
        script = setup.root / "benches/peers/original/consumer.py"
        return Program("original-consumer", [python(setup), script, broker, topic, file], setup.work)
    settings = {
        **kafka_settings(setup, candidate, topic),
        "KAFKA_GROUP": f"bench-{Path(file).parent.name}",
        "LOG_FILE": str(file),
        "METRICS_ADDR": f"127.0.0.1:{setup.free_port()}",
    }
    if candidate.endswith("ids"):
        # Each user id of a filled topic is in one event, and all of them are remembered.
        settings |= {"EVENT_ID_FIELD": "user_id", "DEDUP_MAX_IDS": "10000000"}
    return Program("consumer", [setup.release / "consumer"], setup.work, env=settings)


def python(setup):
    """Path of the Python interpreter that has the original's packages."""
    return setup.root / "target/bench/venv/bin/python"


def alone(setup, candidate, topic, *work):
    """Runs the kafka crate or our `broker` module without HTTP and files and returns its figures."""
    if candidate == "bare":
        return json.loads(run([setup.release / "kafka-bare", setup.kafka.address, topic, *work]))
    settings = kafka_settings(setup, candidate, topic)
    return json.loads(run([setup.release / "examples/clients", *work], env=settings))
