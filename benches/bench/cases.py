"""The table of what is measured: names, sizes, candidates."""

from collections.abc import Callable
from dataclasses import dataclass

import scenarios
import to_file


GROWTH = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass
class Sizes:
    """How long and how much."""

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
    """One line of the comparison."""

    name: str
    title: str
    candidates: list
    measure: Callable
    # What the ratios of the report are about.
    figure: str = "rate"


def all_cases(sizes):
    """Every case, in the order in which it is measured."""
    return [
        *(single(connections, sizes) for connections in sizes.connections),
        *(ndjson(batch, sizes) for batch in (10, 100, 1000)),
        *(open_loop(rate, sizes) for rate in sizes.open_rates),
        ten_thousand(sizes),
        catch_up(sizes),
        end_to_end(sizes),
        *(growth(events) for events in sizes.growth),
    ]


def single(connections, sizes):
    return Case(
        f"single-{connections}",
        f"one event a request, wrk -t1 -c{connections}",
        ["floor", "floor-batch", "ours", "axum", "axum5", "original"],
        lambda setup, candidate: scenarios.closed_loop(setup, candidate, connections, 1, sizes.seconds),
    )


def ndjson(batch, sizes):
    connections = 8
    return Case(
        f"ndjson-{batch}",
        f"NDJSON, {batch} events a request, wrk -t1 -c{connections}",
        ["bare", "ours", "axum"],
        lambda setup, candidate: scenarios.ndjson(setup, candidate, batch, connections, sizes.seconds),
    )


def open_loop(rate, sizes):
    candidates = ["floor", "ours", "axum", "axum5"] + (["original"] if rate <= 1000 else [])
    return Case(
        f"open-{rate}",
        f"open loop, {rate} requests/s from 200 connections; latency from the intended start",
        candidates,
        lambda setup, candidate: scenarios.open_loop(setup, candidate, rate, max(sizes.seconds, 4)),
        "p99_ms",
    )


def ten_thousand(sizes):
    return Case(
        "original-10k",
        f"{sizes.requests} requests from 200 threads: each side with its own load script",
        ["ours", "original"],
        lambda setup, candidate: scenarios.ten_thousand(setup, candidate, sizes.requests, 200),
        "seconds",
    )


def catch_up(sizes):
    # Filled once: each candidate reads the same topic, and once unmeasured: the broker has not compiled its code yet.
    filled, warm = [], set()

    def measure(setup, candidate):
        if not filled:
            filled.append(to_file.Filled(setup, sizes.catch_up))
        if candidate not in warm:
            warm.add(candidate)
            to_file.catch_up(setup, candidate, filled[0])
        return to_file.catch_up(setup, candidate, filled[0])

    return Case("catch-up", f"topic of {sizes.catch_up:,} events into a file", ["kcat", "ours"], measure)


def end_to_end(sizes):
    return Case(
        "end-to-end",
        "POST to line in the log, 100 events/s over one connection",
        ["ours", "original"],
        lambda setup, candidate: to_file.end_to_end(setup, candidate, 100, max(sizes.seconds, 5)),
        "p50_ms",
    )


def growth(events):
    return Case(
        f"growth-{events}",
        f"{events:,} events in NDJSON of 1000, then all into the log",
        ["ours"],
        lambda setup, _: to_file.growth(setup, events),
        "cpu_us",
    )


def tune_axum(setup, sizes):
    """Tries settings of axum + rdkafka at 200 connections and keeps the fastest for all that follows."""
    print("axum-tuning: settings of axum + rdkafka at 200 connections", flush=True)
    rates = []
    for settings in sizes.axum_settings:
        setup.axum = settings
        # The first run of all also warms the broker up.
        tries = [scenarios.closed_loop(setup, "axum", 200, 1, sizes.seconds)["rate"] for _ in range(2)]
        rates.append({**settings, "rate": max(tries)})
        print(f"  {settings}: {max(tries):.0f}/s", flush=True)
    best = max(rates, key=lambda tried: tried["rate"])
    setup.axum = {name: best[name] for name in ("linger", "threads", "batch")}
    return {"tried": rates, "kept": setup.axum}
