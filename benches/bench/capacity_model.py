"""The capacity model: fits costs per request, event and byte to measured points, and predicts others. Pure."""

import math

PROGRAMS = ("producer", "broker", "consumer", "load")
# Share of the processors that is used when a machine counts as full.
HEADROOM = 0.6
# A consumer has one writing thread: most of one core, with the headroom.
CORES_PER_CONSUMER = 1.0
CORES_PER_PRODUCER = 4.0
CORES_PER_MACHINE = 16
COPIES = 3
# Bytes that the producer adds to an event, its timestamp, and that Kafka adds to a record.
STAMP_BYTES = 43
RECORD_BYTES = 10
TARGETS = (10**5, 10**6, 10**7)
PATTERNS = (1, 100)
EVENT_BYTES = 300
# Events per request and bytes per event of the loads that are sized.
SIZED = tuple((batch, EVENT_BYTES) for batch in PATTERNS)


class Costs:
    """Seconds of CPU of one program: per request, per event, per byte of an event."""

    def __init__(self, points, program):
        """`points` maps (events per request, bytes per event) to seconds per event, by program."""
        single, many, wide = (points[key][program] for key in FITTED)
        self.per_byte = (wide - many) / (FITTED[2][1] - FITTED[1][1])
        self.per_request = (single - many) / (1 / FITTED[0][0] - 1 / FITTED[1][0])
        self.per_event = single - self.per_request / FITTED[0][0] - self.per_byte * FITTED[0][1]

    def of(self, batch, size):
        """Seconds per event, in requests of `batch` events of `size` bytes."""
        return self.per_request / batch + self.per_event + self.per_byte * size


# Events per request and bytes per event of the points that the model is fitted to, and of those that it must predict.
FITTED = ((1, 300), (100, 300), (100, 1200))
HELD_OUT = ((5, 300), (1, 900), (20, 600))


def fit(points):
    """Costs by program."""
    return {program: Costs(points, program) for program in PROGRAMS}


def predicted_rate(costs, batch, size):
    """Events per second for each core that all programs together use."""
    return 1 / sum(cost.of(batch, size) for cost in costs.values())


def measured_rate(point):
    """The same, as it was measured."""
    return 1 / sum(point[program] for program in PROGRAMS)


def cost_table(costs):
    """One row per program: microseconds, and nanoseconds per byte."""
    rows = ["| program | per request | per event | per byte |", "| --- | ---: | ---: | ---: |"]
    for program, cost in costs.items():
        parts = [f"{seconds * 1e6:.2f} µs" for seconds in (cost.per_request, cost.per_event)]
        rows.append(f"| {program} | {' | '.join(parts)} | {cost.per_byte * 1e9:.2f} ns |")
    return rows


def check_table(measured, costs):
    """Rows for all points, and the largest deviation of a held-out one."""
    rows = ["| events per request × bytes | used for | predicted per core | measured per core | deviation |",
            "| --- | --- | ---: | ---: | ---: |"]
    worst = 0.0
    for key in FITTED + HELD_OUT:
        rate, real = predicted_rate(costs, *key), measured_rate(measured[key])
        deviation = rate / real - 1
        if key in HELD_OUT:
            worst = max(worst, abs(deviation))
        role = "the check" if key in HELD_OUT else "the fit"
        rows.append(f"| {key[0]} × {key[1]} | {role} | {rate:,.0f}/s | {real:,.0f}/s | {deviation:+.1%} |")
    return rows, worst


def sizing_table(costs, replicated):
    """What each target needs. `replicated` is what brokers need for three copies relative to one, by pattern."""
    rows = ["| events per second, per request | producers | brokers | consumers | partitions | 16-core machines | from producers | into brokers, and out of them | disk of the topic per day | CPU hours per 10⁹ events |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for target in TARGETS:
        for batch in PATTERNS:
            need = sizing(costs, replicated[batch], target, batch)
            rows.append(
                f"| 10{exponent(target)}, {batch} | {need['producers']} ({count(need['producer_cores'], 'core')}) "
                f"| {count(need['broker_cores'], 'core')} | {need['consumers']} | {need['partitions']} | {need['machines']} "
                f"| {bits(need['in'])} | {bits(need['out'])} | {need['disk'] / 1e12:.1f} TB | {need['cpu_hours']:.1f} |"
            )
    return rows


def sizing(costs, replicated, target, batch):
    """Machines, partitions, network and disk for `target` events per second in requests of `batch` events."""
    cores = {name: target * costs[name].of(batch, EVENT_BYTES) / HEADROOM for name in ("producer", "broker", "consumer")}
    cores["broker"] *= replicated
    consumers = math.ceil(cores["consumer"] / CORES_PER_CONSUMER)
    stored = EVENT_BYTES + STAMP_BYTES + RECORD_BYTES
    return {
        "producers": max(2, math.ceil(cores["producer"] / CORES_PER_PRODUCER)),
        "producer_cores": max(1, cores["producer"]),
        "broker_cores": max(COPIES, cores["broker"]),
        "consumers": consumers,
        # Twice as many as consumers, so that there can be more of them without new partitions.
        "partitions": max(COPIES, 2 * consumers),
        "machines": max(3, math.ceil(sum(cores.values()) / CORES_PER_MACHINE)),
        "in": target * stored,
        "out": target * stored * COPIES,
        "disk": target * stored * COPIES * 86400,
        "cpu_hours": sum(cores.values()) * HEADROOM / target * 1e9 / 3600,
    }


def count(number, noun):
    """`1 core`, `4 cores`."""
    return f"{number:.0f} {noun}{'' if round(number) == 1 else 's'}"


def exponent(number):
    """10**5 as ⁵."""
    return "⁰¹²³⁴⁵⁶⁷⁸⁹"[round(math.log10(number))]


def bits(bytes_per_second):
    """Network use in Gbit/s."""
    return f"{bytes_per_second * 8 / 1e9:.2f} Gbit/s"
