"""Measures what those cost who send no events: idle keep-alive connections, and viewers of the live page."""

import contextlib
import resource
import selectors
import socket
import threading

import candidates
import scenarios
from programs import BenchError, Meter, Program, resident_mib

IDLE = 10_000
ACTIVE = 50
# The default of the `edge` server is 10,000 in total.
ROOM = {"HTTP_MAX_CONNECTIONS": str(IDLE + 1000)}
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
VIEWERS = 64


def beside(setup, candidate, seconds):
    """Active connections as fast as they get responses, alone or beside others."""
    topic = setup.kafka.new_topic(f"bystanders-{candidate}")
    with candidates.serve(setup, "edge-wire", topic, ROOM) as server, contextlib.ExitStack() as others:
        live = None
        if candidate == "beside-idle":
            connect(server.port, others)
        if candidate == "beside-viewers":
            live = others.enter_context(watched(setup, server, topic))
        scenarios.wrk(setup, server.port, ACTIVE, 1, scenarios.WARMUP_S)
        before = setup.kafka.settled_count(topic)
        with Meter(server.pid, setup.kafka.pid) as meter:
            result = scenarios.wrk(setup, server.port, ACTIVE, 1, seconds)
        memory = resident_mib(server.pid)
        live_memory = live and resident_mib(live.pid)
        answered = result["requests"] - result["status_errors"]
        stored = scenarios.stored_since(setup.kafka, topic, before, answered, ACTIVE)
    return {
        "rate": answered / result["seconds"],
        "cpu_us": meter.cpu["server"] * 1e6 / answered,
        "p99_ms": result["p99"],
        "memory_mib": memory,
        **({"live_memory_mib": live_memory} if live else {}),
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


@contextlib.contextmanager
def watched(setup, server, topic):
    """The live page with as many viewers as it serves, who read what they get."""
    port = setup.free_port()
    env = candidates.kafka_settings(setup, "edge-wire", topic)
    env |= {"LIVE_ADDR": f"127.0.0.1:{port}", "LIVE_PRODUCERS": f"127.0.0.1:{server.port}", "LIVE_EVENTS": "on"}
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with (
        Program("live", [setup.release / "live"], setup.work, port, env) as live,
        contextlib.ExitStack() as viewers,
        selectors.DefaultSelector() as selector,
    ):
        for _ in range(VIEWERS):
            link = viewers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            link.sendall(head.encode())
            if not (answer := link.recv(4096)).startswith(b"HTTP/1.1 101"):
                raise BenchError(f"a viewer was answered {answer[:40]!r}")
            selector.register(link, selectors.EVENT_READ)
        over, gone = threading.Event(), []

        def read():
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    if not key.fileobj.recv(1 << 20):
                        selector.unregister(key.fileobj)
                        gone.append(key)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield live
        finally:
            over.set()
            reader.join()
        if gone:
            raise BenchError(f"the live page ended {len(gone)} viewers")
