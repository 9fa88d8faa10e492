"""The broker of a run: creates topics and counts their records with kcat, an independent program."""

import socket
import struct
from pathlib import Path

from programs import BenchError, run, wait_until

SETTLE_LIMIT_S = 30


class Kafka:
    """A broker started by scripts/kafka.sh."""

    def __init__(self, port, directory):
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.data = Path(directory) / "broker-1" / "data"
        self.pid = int((Path(directory) / "broker-1" / "pid").read_text())
        self.created = 0

    def new_topic(self, name):
        """Creates a topic with the broker's default number of partitions and returns its full name."""
        self.created += 1
        topic = f"{name}-{self.created}"
        wait_until(f"topic {topic} has leaders", SETTLE_LIMIT_S, lambda: self._has_leaders(topic))
        return topic

    def new_topic_as_sent(self, name):
        """The same, but the broker stores batches as they are sent; by default ours stores them uncompressed."""
        self.created += 1
        topic = f"{name}-{self.created}"
        # A CreateTopics request (version 2): 3 partitions, 1 replica, no assignments, one setting.
        setting = _text("compression.type") + _text("producer")
        body = struct.pack(">i", 1) + _text(topic) + struct.pack(">ihii", 3, 1, 0, 1) + setting
        answer = self._ask(struct.pack(">hhih", 19, 2, 1, -1) + body + struct.pack(">ib", 30_000, 0))
        # The response: correlation id, throttle time, number of topics, name, error.
        error = struct.unpack_from(">h", answer, 14 + len(topic))[0]
        if error != 0:
            raise BenchError(f"{topic} was not created: error {error}")
        wait_until(f"topic {topic} has leaders", SETTLE_LIMIT_S, lambda: self._is_led(topic))
        return topic

    def _is_led(self, topic):
        # A leader may be known before it has taken the role itself.
        try:
            return self._has_leaders(topic) and self.count(topic) == 0
        except BenchError:
            return False

    def _ask(self, request):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(struct.pack(">i", len(request)) + request)
            return _read(link, struct.unpack(">i", _read(link, 4))[0])

    def _has_leaders(self, topic):
        # A Metadata request (version 0) for one topic creates it.
        answer = self._ask(struct.pack(">hhihi", 3, 0, 1, -1, 1) + _text(topic))
        # The response: correlation id, brokers (id, host, port), one topic (error, name, partitions).
        at = 8
        for _ in range(struct.unpack_from(">i", answer, 4)[0]):
            at += 4 + 2 + struct.unpack_from(">h", answer, at + 4)[0] + 4
        at += 4
        error, name_length = struct.unpack_from(">hh", answer, at)
        partitions = struct.unpack_from(">i", answer, at + 4 + name_length)[0]
        return error == 0 and partitions > 0

    def count(self, topic):
        """Number of records in the topic: the sum of the end offsets, since records are never deleted."""
        queries = [part for partition in range(3) for part in ("-t", f"{topic}:{partition}:-1")]
        lines = run(["kcat", "-Q", "-b", self.address, *queries]).splitlines()
        offsets = [int(line.rpartition("offset ")[2]) for line in lines if "offset " in line]
        if len(offsets) != 3:
            raise BenchError(f"kcat returned no offsets of {topic}: {lines}")
        return sum(offsets)

    def stored_bytes(self, topic):
        """Bytes of all partitions of the topic, as they are in the broker's log."""
        return sum(segment.stat().st_size for segment in self.data.glob(f"{topic}-[0-9]/*.log"))

    def settled_count(self, topic, at_least=0):
        """Waits until the number of records is at least `at_least` and no longer grows, and returns it."""
        last = [-1]

        def same():
            before, last[0] = last[0], self.count(topic)
            return before == last[0] >= at_least

        try:
            wait_until(f"{topic} has {at_least} records", SETTLE_LIMIT_S, same, step_s=0.1)
        except BenchError as error:
            raise BenchError(f"LOSS: {error}, only {last[0]}") from error
        return last[0]


def _text(text):
    """A string as requests have it."""
    return struct.pack(">h", len(text)) + text.encode()


def _read(link, count):
    data = b""
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            raise BenchError("the broker closed the connection")
        data += piece
    return data
