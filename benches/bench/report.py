"""Turns samples into medians, ratios, verdicts and tables for docs/BENCHMARKS.md. Pure except for `write`."""

from statistics import median

from candidates import NAMES
from programs import BenchError

BEGIN = "<!-- figures: written by scripts/bench.sh -->"
END = "<!-- end of figures -->"
COLUMNS = {
    "rate": ("events/s", "{:,.0f}"),
    "seconds": ("seconds", "{:.2f}"),
    "p50_ms": ("p50 ms", "{:.2f}"),
    "p99_ms": ("p99 ms", "{:.2f}"),
    "p999_ms": ("p99.9 ms", "{:.2f}"),
    "cpu_us": ("CPU µs/event", "{:.2f}"),
    "broker_cpu_us": ("broker CPU µs/event", "{:.2f}"),
    "load_cores": ("cores used by wrk", "{:.2f}"),
    "memory_mib": ("memory MiB", "{:.0f}"),
    "live_memory_mib": ("memory of the live page MiB", "{:.0f}"),
    "of_limit": ("taken of the limit", "{:.3f}"),
    "event_bytes": ("bytes/event", "{:.1f}"),
    "topic_bytes": ("bytes/event in the topic", "{:.1f}"),
    "consumer_rate": ("consumer events/s", "{:,.0f}"),
    "consumer_cpu_us": ("consumer CPU µs/event", "{:.2f}"),
    "consumer_memory_mib": ("consumer memory MiB", "{:.0f}"),
    "refused": ("refused", "{:,.0f}"),
    "socket_errors": ("socket errors", "{:,.0f}"),
    "foreign": ("CPU used by others", "{:.0%}"),
}


def in_short(sample):
    """Formats a sample as one line of progress output."""
    parts = [f"{COLUMNS[key][1].format(sample[key])} {COLUMNS[key][0]}" for key in COLUMNS if sample.get(key)]
    return ", ".join(part for part in parts if not part.endswith("CPU used by others"))


def summary(case, samples):
    """Medians of every figure, with the samples."""
    candidates = {}
    for candidate, taken in samples.items():
        if taken:
            keys = [key for key in COLUMNS if key in taken[0]]
            medians = {key: median(sample[key] for sample in taken) for key in keys}
            candidates[candidate] = {"median": medians, "samples": taken}
    return {"title": case.title, "figure": case.figure, "candidates": candidates}


def ratio(results, case, figure, one, other):
    """Median of the ratios within each round, or None if a figure is missing."""
    candidates = results.get(case, {}).get("candidates", {})
    if one not in candidates or other not in candidates:
        return None
    pairs = zip(candidates[one]["samples"], candidates[other]["samples"])
    return median(a[figure] / b[figure] for a, b in pairs)


def targets(results):
    """The project's targets with the figures that were reached."""
    largest = max((int(name.partition("-")[2]) for name in results if name.startswith("growth-")), default=0)
    wanted = [
        ("single events, 200 connections: rate relative to the floor",
         ("single-200", "rate", "ours", "floor"), ">=", 0.75),
        ("the same: rate relative to axum + rdkafka, linger 5 ms",
         ("single-200", "rate", "ours", "axum5"), ">=", 1.5),
        ("the same: rate relative to axum + rdkafka, best setting",
         ("single-200", "rate", "ours", "axum"), ">=", 1.5),
        ("the same: CPU per event relative to the floor's CPU per request",
         ("single-200", "cpu_us", "ours", "floor"), "<=", 1.4),
        *(edge(connections, limit) for connections, limit in ((10, 4), (50, 2), (200, 1.4), (1000, 1.4))),
        ("the same at 200: CPU per event", ("single-200", "cpu_us", "edge-wire", "axum"), "<=", 0.65),
        ("10,000 requests/s from 200 connections, edge beside axum + rdkafka, best setting: CPU per event",
         ("open-10000", "cpu_us", "edge-wire", "axum"), "<=", 1),
        ("the same: CPU of the broker", ("open-10000", "broker_cpu_us", "edge-wire", "axum"), "<=", 1.5),
        ("the same: p99", ("open-10000", "p99_ms", "edge-wire", "axum"), "<=", 1),
        ("50 connections beside 10,000 idle ones: rate relative to alone",
         ("idle", "rate", "beside-idle", "undisturbed"), ">=", 0.9),
        ("the same beside 64 viewers of the live page",
         ("live", "rate", "beside-viewers", "undisturbed"), ">=", 0.95),
        ("NDJSON of 1000: rate relative to the kafka crate alone",
         ("ndjson-1000", "rate", "ours", "bare"), ">=", 0.7),
        ("catching up: rate relative to kcat", ("catch-up", "rate", "ours", "kcat"), ">=", 0.8),
        ("the same with the wire client", ("catch-up", "rate", "wire", "kcat"), ">=", 0.8),
        ("catching up and dropping repeated events: rate relative to without",
         ("catch-up", "rate", "ids", "ours"), ">=", 0.85),
        ("the same with the wire client", ("catch-up", "rate", "wire-ids", "wire"), ">=", 0.85),
        ("a key file of 1,000 keys: rate relative to without", ("keys", "rate", "edge-keys", "edge"), ">=", 0.95),
        ("a quiet client beside one at twice its limit: p99 relative to alone",
         ("noisy", "p99_ms", "beside-noisy", "alone"), "<=", 2),
        ("into PostgreSQL: rate relative to psql's copy of the same rows",
         ("postgres", "rate", "postgres", "psql-copy"), ">=", 0.8),
        ("fetching batches of 1000: wire client relative to the kafka crate",
         ("fetch-1000", "rate", "room-wire", "bare"), ">=", 3),
        ("fetching batches of 1: the same", ("fetch-1", "rate", "room-wire", "bare"), ">=", 1),
        ("producing batches of 1000: the same", ("produce-1000", "rate", "room-wire", "bare"), ">=", 1.5),
        ("10,000 requests from 200 threads: speedup over the original",
         ("original-10k", "seconds", "original", "ours"), ">=", 20),
    ]
    judged = [judge(text, ratio(results, *what), sign, limit) for text, what, sign, limit in wanted]
    memory = _median(results, "single-200", "memory_mib")
    judged.append(judge("memory at 200 connections, MiB", memory, "<", 64))
    idle = results.get("idle", {}).get("candidates", {}).get("beside-idle")
    judged.append(judge("memory with 10,000 idle connections, MiB", idle and idle["median"]["memory_mib"], "<=", 64))
    live = results.get("live", {}).get("candidates", {}).get("beside-viewers")
    judged.append(judge("memory of the live page with 64 viewers, MiB", live and live["median"]["live_memory_mib"], "<=", 32))
    lake = results.get("lake", {}).get("candidates", {}).get("lake")
    judged.append(judge("memory of a consumer with a lake, MiB", lake and lake["median"]["memory_mib"], "<=", 128))
    noisy = results.get("noisy", {}).get("candidates", {}).get("beside-noisy")
    taken = noisy and noisy["median"]["of_limit"]
    judged += [judge("what a client at twice its limit gets, of the limit", taken, *limit) for limit in ((">=", 0.98), ("<=", 1.02))]
    refusal = _median(results, "overload", "p99_ms")
    judged.append(judge("overloaded queue: p99 of all responses including refusals, ms", refusal, "<", 100))
    for figure in ("cpu_us", "consumer_cpu_us"):
        small, large = (_median(results, f"growth-{events}", figure) for events in (100_000, largest))
        grown = large / small if small and large and largest > 100_000 else None
        judged.append(judge(f"{figure} at {largest:,} events relative to 100,000", grown, "<=", 1.15))
    return [verdict for verdict in judged if verdict["reached"] is not None]


def edge(connections, limit):
    """A target of the HTTP server for strangers."""
    text = f"one event per request, {connections} connections, edge beside axum + rdkafka, best setting: rate"
    return text, (f"single-{connections}", "rate", "edge-wire", "axum"), ">=", limit


def _median(results, case, figure):
    candidate = results.get(case, {}).get("candidates", {}).get("ours")
    return candidate["median"].get(figure) if candidate else None


def judge(text, reached, sign, limit):
    """Compares a figure with its target."""
    good = reached is not None and {">=": reached >= limit, "<=": reached <= limit, "<": reached < limit}[sign]
    return {"target": text, "wanted": f"{sign} {limit}", "reached": reached, "met": good}


def write(document, plots, path):
    """Replaces the figures in the page; the rest of the page is written by hand and stays unchanged."""
    page = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{figures(document, plots)}\n{END}{after}")


def write_table(name, document, path):
    """Replaces the table of one case in a page that is written by hand around it."""
    begin, end = f"<!-- table: {name}, written by scripts/bench.sh -->", "<!-- end of table -->"
    before, found, rest = path.read_text().partition(begin)
    if not found:
        raise BenchError(f"{path} has no {begin}")
    machine, case = document["machine"], document["cases"][name]
    source = f"{machine['date']}, commit {machine['commit']}, {machine['processor']}, Kafka {document['kafka']}"
    lines = [begin, "", f"{case['title']}; medians of {document['rounds']} rounds; {source}:", "", *table(case), "", ""]
    path.write_text(before + "\n".join(lines) + end + rest.partition(end)[2])


def figures(document, plots):
    """The part of the page that a run generates."""
    lines = ["", f"`{document['command'].strip()}`: {document['rounds']} alternating rounds, {document['minutes']} minutes.",
             "Figures are medians over the rounds; ratios are medians of the ratios within each round.", ""]
    lines += ["| | |", "| --- | --- |"] + [f"| {name} | {value} |" for name, value in document["machine"].items()]
    lines += ["", "## Targets", "", "| target | wanted | reached | |", "| --- | --- | --- | --- |"]
    for verdict in document["targets"]:
        met = "met" if verdict["met"] else "**missed**"
        lines.append(f"| {verdict['target']} | {verdict['wanted']} | {verdict['reached']:.2f} | {met} |")
    if document["errors"]:
        lines += ["", "## Errors", ""] + [f"- {error}" for error in document["errors"]]
    for plot, title in plots:
        lines += ["", f"![{title}]({plot})"]
    for name, case in document["cases"].items():
        lines += ["", f"## {name}: {case['title']}", ""] + table(case)
    if document["axum_tuning"]:
        lines += ["", "## Settings tried for axum + rdkafka", "", "| linger ms | threads | batch | events/s |",
                  "| --- | --- | --- | --- |"]
        lines += [f"| {tried['linger']} | {tried['threads']} | {tried['batch']} | {tried['rate']:,.0f} |"
                  for tried in document["axum_tuning"]["tried"]]
    return "\n".join(lines)


def table(case):
    """Formats one case as a table."""
    medians = {name: candidate["median"] for name, candidate in case["candidates"].items()}
    keys = [key for key in COLUMNS if any(values.get(key) is not None for values in medians.values())]
    heads = [COLUMNS[key][0] for key in keys]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(keys)]
    for name, values in medians.items():
        cells = [COLUMNS[key][1].format(values[key]) if key in values else "" for key in keys]
        lines.append(f"| {NAMES[name]} | " + " | ".join(cells) + " |")
    return lines or ["nothing was measured"]
