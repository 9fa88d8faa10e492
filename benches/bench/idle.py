"""Measures what thousands of idle keep-alive connections cost: memory, and the rate of active ones beside them."""

import contextlib
import resource
import socket

import candidates
import scenarios
from programs import BenchError, Meter, resident_mib

IDLE = 10_000
ACTIVE = 50
# The default of the `edge` server is 10,000 in total.
ROOM = {"HTTP_MAX_CONNECTIONS": str(IDLE + 1000)}
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def beside_idle(setup, candidate, seconds):
    """Active connections as fast as they get responses, alone or beside idle ones."""
    topic = setup.kafka.new_topic(f"idle-{candidate}")
    with candidates.serve(setup, "edge-wire", topic, ROOM) as server, contextlib.ExitStack() as idle:
        if candidate == "beside-idle":
            connect(server.port, idle)
        scenarios.wrk(setup, server.port, ACTIVE, 1, scenarios.WARMUP_S)
        before = setup.kafka.settled_count(topic)
        with Meter(server.pid, setup.kafka.pid) as meter:
            result = scenarios.wrk(setup, server.port, ACTIVE, 1, seconds)
        memory = resident_mib(server.pid)
        answered = result["requests"] - result["status_errors"]
        stored = scenarios.stored_since(setup.kafka, topic, before, answered, ACTIVE)
    return {
        "rate": answered / result["seconds"],
        "cpu_us": meter.cpu["server"] * 1e6 / answered,
        "p99_ms": result["p99"],
        "memory_mib": memory,
        "answered": answered,
        "stored": stored,
        "refused": result["status_errors"],
        "foreign": meter.foreign,
    }


def connect(port, idle):
    """Opens the idle connections, each of which is answered once; `idle` closes them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for _ in range(IDLE):
        link = idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        link.sendall(REQUEST)
        answer = link.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"an idle connection was answered {answer[:40]!r}")
