"""Defines the benchmark cases: names, sizes, candidates."""

from collections.abc import Callable
from dataclasses import dataclass

import access
import bystanders
import compression
import destinations
import scenarios
import to_file


GROWTH = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass
class Sizes:
    """Durations and amounts of a run."""

    rounds: int
    seconds: float
    connections: tuple
    open_rates: tuple
    catch_up: int
    growth: tuple
    requests: int
    axum_settings: list

    @staticmethod
    def quick():
        settings = [{"linger": linger, "threads": 2, "batch": 10000} for linger in (0, 1, 5)]
        return Sizes(2, 2, (10, 50, 200, 1000), (1000, 10_000), 1_000_000, GROWTH, 10_000, settings)

    @staticmethod
    def whole():
        settings = [
            {"linger": linger, "threads": threads, "batch": batch}
            for linger in (0, 1, 5)
            for threads in (1, 2)
            for batch in (10000, 200)
        ]
        return Sizes(5, 5, (10, 50, 200, 1000), (1000, 10_000), 2_000_000, GROWTH, 10_000, settings)


@dataclass
class Case:
    """One benchmark case."""

    name: str
    title: str
    candidates: list
    measure: Callable
    # The main figure of the case, recorded in benchmarks.json.
    figure: str = "rate"
    # The page below the root that a run without --quick writes the table of this case into.
    page: str | None = None

    @property
    def needs_features(self):
        """True if the consumer has to be built with features that are off by default."""
        return self.name in ("lake", "postgres")


def all_cases(sizes):
    """All cases, in the order in which they are measured."""
    return [
        *(single(connections, sizes) for connections in sizes.connections),
        *(ndjson(batch, sizes) for batch in (10, 100, 1000)),
        *(compressed(batch, threads, sizes) for batch, threads in ((1, 200), (1000, 8))),
        *(open_loop(rate, sizes) for rate in sizes.open_rates),
        overload(sizes),
        beside_idle(sizes),
        beside_viewers(sizes),
        keys(sizes),
        beside(30),
        ten_thousand(sizes),
        catch_up(sizes),
        ids(GROWTH[-1]),
        closed_logs(GROWTH[-1]),
        to_postgres(sizes.catch_up),
        *(produce_alone(batch, sizes) for batch in (1, 20, 1000)),
        *(fetch_alone(batch, sizes) for batch in (1, 20, 1000)),
        end_to_end(sizes),
        *(growth(events) for events in sizes.growth),
    ]


def single(connections, sizes):
    is_main = connections == 200
    wire, original = (["wire", "wire4"], ["original"]) if is_main else ([], [])
    return Case(
        f"single-{connections}",
        f"one event per request, wrk -t1 -c{connections}",
        ["floor", "floor-batch", "ours", *wire, "edge", "edge-wire", "axum", "axum5", *original],
        lambda setup, candidate: scenarios.closed_loop(setup, candidate, connections, 1, sizes.seconds),
    )


def ndjson(batch, sizes):
    connections = 8
    return Case(
        f"ndjson-{batch}",
        f"NDJSON, {batch} events per request, wrk -t1 -c{connections}",
        ["bare", "ours", *(["wire", "wire4"] if batch == 1000 else []), "axum"],
        lambda setup, candidate: scenarios.ndjson(setup, candidate, batch, connections, sizes.seconds),
    )


def compressed(batch, threads, sizes):
    unit = "one event per request" if batch == 1 else f"NDJSON, {batch} events per request"
    return Case(
        f"compression-{batch}",
        f"{unit}, from {threads} connections to HTTP_SERVER=edge, compressed to Kafka, and read by the wire client",
        [f"compress-{codec}" for codec in compression.CODECS],
        lambda setup, candidate: compression.compressed(setup, candidate, batch, threads, sizes.seconds),
        "topic_bytes",
        "docs/KAFKA.md",
    )


def open_loop(rate, sizes):
    candidates = ["floor", "ours", "edge", "edge-wire", "axum", "axum5"] + (["original"] if rate <= 1000 else [])
    return Case(
        f"open-{rate}",
        f"open loop, {rate} requests/s from 200 connections; latency from the intended start",
        candidates,
        lambda setup, candidate: scenarios.open_loop(setup, candidate, rate, max(sizes.seconds, 4)),
        "p99_ms",
    )


def overload(sizes):
    """Most requests are refused: the queue holds one at a time. Tests check that refusals are not delayed."""
    room = {"QUEUE_MAX_EVENTS": "10", "MAX_REQUEST_EVENTS": "10"}
    return Case(
        "overload",
        "5000 requests/s of 10 events of 1 kB each from 200 connections, queue of 10 events: responses and refusals",
        ["ours"],
        lambda setup, candidate: scenarios.open_loop(setup, candidate, 5000, max(sizes.seconds, 4), 10, 1000, room),
        "p99_ms",
    )


def beside_idle(sizes):
    return beside_others("idle", "beside-idle", f"{bystanders.IDLE:,} idle connections", sizes)


def beside_viewers(sizes):
    return beside_others("live", "beside-viewers", f"the live page with {bystanders.VIEWERS} viewers", sizes)


def beside_others(name, candidate, others, sizes):
    return Case(
        name,
        f"one event per request, HTTP_SERVER=edge, wrk -t1 -c{bystanders.ACTIVE}, alone and beside {others}",
        ["undisturbed", candidate],
        lambda setup, candidate: bystanders.beside(setup, candidate, sizes.seconds),
    )


def keys(sizes):
    return Case(
        "keys",
        f"one event per request, wrk -t1 -c50, without a key file and with {access.KEYS} keys in it",
        ["edge", "edge-keys"],
        lambda setup, candidate: access.with_keys(setup, candidate, 50, sizes.seconds),
    )


def beside(seconds):
    return Case(
        "noisy",
        f"100 requests/s of a quiet client for {seconds} s, alone and beside one that sends twice its {access.LIMIT} events/s",
        ["alone", "beside-noisy"],
        lambda setup, candidate: access.beside(setup, candidate, seconds),
        "p99_ms",
    )


def ten_thousand(sizes):
    return Case(
        "original-10k",
        f"{sizes.requests} requests from 200 threads, each side with its own load script",
        ["ours", "original"],
        lambda setup, candidate: scenarios.ten_thousand(setup, candidate, sizes.requests, 200),
        "seconds",
    )


class Topics:
    """Fills one topic per broker, which all candidates read, first once unmeasured to warm up the broker."""

    def __init__(self, events, batch, read):
        self.events, self.batch, self.read = events, batch, read
        self.filled, self.warm = {}, set()

    def measure(self, setup, candidate):
        broker = setup.kafka_of(candidate).address
        if broker not in self.filled:
            self.filled[broker] = to_file.Filled(setup, candidate, self.events, self.batch)
        if candidate not in self.warm:
            self.warm.add(candidate)
            self.read(setup, candidate, self.filled[broker])
        return self.read(setup, candidate, self.filled[broker])


def catch_up(sizes):
    topics = Topics(sizes.catch_up, 1000, to_file.catch_up)
    title = f"topic of {sizes.catch_up:,} events into a file"
    return Case("catch-up", title, ["kcat", "ours", "ids", "wire", "wire-ids", "wire4"], topics.measure)


def ids(events):
    topics = Topics(events, 1000, to_file.catch_up)
    title = f"topic of {events:,} events into a file, without and with their ids in memory"
    return Case("ids", title, ["wire", "wire-ids"], topics.measure)


def closed_logs(events):
    topics = Topics(events, 1000, destinations.closed_logs)
    title = f"topic of {events:,} events into logs of 128 MiB, and what becomes of them"
    return Case("lake", title, list(destinations.CLOSED), topics.measure, "cpu_us")


def to_postgres(events):
    topics = Topics(events, 1000, destinations.to_postgres)
    title = f"topic of {events:,} events into PostgreSQL 15, and the same rows by psql"
    return Case("postgres", title, ["psql-copy", "postgres"], topics.measure)


def produce_alone(batch, sizes):
    return Case(
        f"produce-{batch}",
        f"batches of {batch} into a topic, one call at a time, no HTTP",
        ["bare", "room", "room-wire", "room-wire4"],
        lambda setup, candidate: scenarios.produce_alone(setup, candidate, batch, sizes.seconds),
    )


def fetch_alone(batch, sizes):
    events = min(sizes.catch_up, 100_000 * batch)
    read = lambda setup, candidate, filled: scenarios.fetch_alone(setup, candidate, filled.topic, filled.events)
    return Case(
        f"fetch-{batch}",
        f"{events:,} events in batches of {batch} read from a topic, no file",
        ["bare", "room", "room-wire", "room-wire4"],
        Topics(events, batch, read).measure,
    )


def end_to_end(sizes):
    return Case(
        "end-to-end",
        "from POST to line in the log, 100 events/s over one connection",
        ["ours", "original"],
        lambda setup, candidate: to_file.end_to_end(setup, candidate, 100, max(sizes.seconds, 5)),
        "p50_ms",
    )


def growth(events):
    return Case(
        f"growth-{events}",
        f"{events:,} events in NDJSON requests of 1000, then all into the log",
        ["ours"],
        lambda setup, _: to_file.growth(setup, events),
        "cpu_us",
    )


def tune_axum(setup, sizes):
    """Tries settings of axum + rdkafka at 200 connections and keeps the fastest for all cases."""
    print("axum-tuning: trying settings of axum + rdkafka at 200 connections", flush=True)
    rates = []
    for settings in sizes.axum_settings:
        setup.axum = settings
        # The very first run also warms up the broker.
        tries = [scenarios.closed_loop(setup, "axum", 200, 1, sizes.seconds)["rate"] for _ in range(2)]
        rates.append({**settings, "rate": max(tries)})
        print(f"  {settings}: {max(tries):.0f}/s", flush=True)
    best = max(rates, key=lambda tried: tried["rate"])
    setup.axum = {name: best[name] for name in ("linger", "threads", "batch")}
    return {"tried": rates, "kept": setup.axum}
