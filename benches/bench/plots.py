"""Draws line plots as SVG, without a plotting package."""

import math
from html import escape

from candidates import NAMES

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 48, 56
COLORS = {"ours": "#d1495b", "wire": "#8d0801", "wire4": "#5f0f40", "floor": "#30638e", "floor-batch": "#7ba6c9", "axum": "#edae49", "axum5": "#a37b2c", "original": "#777777"}


def draw(results, out):
    """Writes the plots for which `results` has figures; returns the (file name, title) of each."""
    drawn = []
    for name, title, axes, series in [
        ("bench-scaling.svg", "Single events: rate by connections", ("connections", "events/s"),
         by_size(results, "single-", "rate")),
        ("bench-latency.svg", "Single events: 99th percentile by connections", ("connections", "ms"),
         by_size(results, "single-", "p99_ms")),
        ("bench-open.svg", "Open loop, 10,000 requests/s: latency distribution", ("one in N requests is slower", "ms"),
         distributions(results, "open-10000")),
        ("bench-growth.svg", "CPU per event by number of events", ("events", "µs"), growth(results)),
    ]:
        if any(len(points) > 1 for points in series.values()):
            (out / name).write_text(plot(title, axes, series))
            drawn.append((name, title))
    return drawn


def by_size(results, prefix, figure):
    """Points (size, median) of every candidate over the cases whose names start with `prefix`."""
    series = {}
    for name, case in results.items():
        if name.startswith(prefix):
            for candidate, found in case["candidates"].items():
                if found["median"].get(figure):
                    series.setdefault(candidate, []).append((int(name[len(prefix):]), found["median"][figure]))
    return series


def growth(results):
    """CPU time per event of the producer and the consumer."""
    series = {}
    for figure, name in (("cpu_us", "producer"), ("consumer_cpu_us", "consumer")):
        series[name] = by_size(results, "growth-", figure).get("ours", [])
    return series


def distributions(results, case):
    """Latency by rarity, taken from the sample with the median p99."""
    series = {}
    for candidate, found in results.get(case, {}).get("candidates", {}).items():
        samples = sorted(found["samples"], key=lambda sample: sample["p99_ms"])
        points = samples[len(samples) // 2]["distribution"]
        series[candidate] = [(1 / (1 - share), ms) for share, ms in points if 0.4 < share < 0.99999 and ms > 0]
    return series


class Scale:
    """A logarithmic axis from pixel `start` to pixel `end`."""

    def __init__(self, values, start, end):
        self.low = 10 ** math.floor(math.log10(min(values)))
        self.high = 10 ** math.ceil(math.log10(max(values) * 1.0001))
        self.start, self.end = start, end

    def at(self, value):
        share = math.log10(value / self.low) / math.log10(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def plot(title, axes, series):
    """Draws one plot with logarithmic axes, one line per candidate, and the names on the right."""
    points = [point for line in series.values() for point in line]
    across = Scale([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = Scale([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 24, title, size=15),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, axes[0], "middle"),
        text(LEFT, TOP - 8, axes[1], "end"),
    ]
    for tick in across.ticks():
        parts.append(rule(across.at(tick), TOP, across.at(tick), HEIGHT - BOTTOM))
        parts.append(text(across.at(tick), HEIGHT - BOTTOM + 18, number(tick), "middle"))
    for tick in up.ticks():
        parts.append(rule(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick)))
        parts.append(text(LEFT - 8, up.at(tick) + 4, number(tick), "end"))
    palette = iter(["#d1495b", "#30638e", "#edae49", "#00798c"])
    for row, (name, line) in enumerate(series.items()):
        color = COLORS.get(name) or next(palette)
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in sorted(line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(line) < 20:
            parts += [f'<circle cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="3" fill="{color}"/>' for x, y in line]
        y = TOP + 14 + 20 * row
        parts.append(f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        parts.append(text(WIDTH - RIGHT + 30, y, NAMES.get(name, name)))
    return "\n".join([*parts, "</svg>", ""])


def rule(x1, y1, x2, y2):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def text(x, y, content, anchor="start", size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(content)}</text>'


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
