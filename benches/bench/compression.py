"""Measures what compressed batches in Kafka save and cost: bytes in the topic, processor time, and rate."""

import candidates
import scenarios
from programs import BenchError, Meter, resident_mib

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def compressed(setup, candidate, batch, threads, seconds):
    """Events of the simulator, which all differ, into a topic of their own, which a consumer then reads."""
    topic = setup.kafka.new_topic_as_sent(f"{candidate}-{batch}")
    env = {"KAFKA_COMPRESSION": candidate.partition("-")[2]}
    load = ["--batch", batch]
    with candidates.serve(setup, "edge-wire", topic, env) as server:
        scenarios.simulate(setup, server.port, threads, ["-z", f"{scenarios.WARMUP_S}s", *load])
        before, bytes_before = setup.kafka.settled_count(topic), setup.kafka.stored_bytes(topic)
        with Meter(server.pid, setup.kafka.pid) as meter:
            report = scenarios.simulate(setup, server.port, threads, ["-z", f"{seconds}s", *load])
        memory = resident_mib(server.pid)
        answered = report["events"]["acknowledged"]
        stored = scenarios.stored_since(setup.kafka, topic, before, answered, threads * batch)
    if answered == 0:
        raise BenchError(f"{candidate}: no request succeeded\n{server.tail()}")
    read = scenarios.fetch_alone(setup, "room-wire", topic, before + stored)
    return {
        "rate": report["summary"]["eventsPerSec"],
        "cpu_us": meter.cpu["server"] * 1e6 / answered,
        "broker_cpu_us": meter.cpu["broker"] * 1e6 / answered,
        "p99_ms": report["latencyPercentiles"]["p99"] * 1e3,
        "memory_mib": memory,
        "topic_bytes": (setup.kafka.stored_bytes(topic) - bytes_before) / stored,
        "consumer_rate": read["rate"],
        "consumer_cpu_us": read["cpu_us"],
        "answered": answered,
        "stored": stored,
        "foreign": meter.foreign,
    }
