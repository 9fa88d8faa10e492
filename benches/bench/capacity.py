"""Measures the points of the capacity model, checks its predictions, and writes the tables of docs/SCALING.md.

Started by scripts/capacity.sh, which starts the brokers.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

import capacity_model as model
import machine
from kafka import Kafka
from programs import BenchError, Program, cpu_seconds, is_ready, machine_busy_seconds, run

WARMUP_S = 4
MEASURED_S = 10
THREADS = 64
LIMIT = 0.15
# Share of the processors that other processes may use during a measurement. They change what an event costs by less
# than what they take, but not by nothing.
FOREIGN_MAX = 0.25
# Share of the events that the consumer may lag behind at the end of a measurement.
LAG_MAX = 0.1
BEGIN, END = "<!-- begin: scripts/capacity.sh -->", "<!-- end: scripts/capacity.sh -->"


def arguments():
    # scripts/capacity.sh describes and checks them.
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    for name in ("root", "programs", "work", "one", "three"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("port", "one-port", "three-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


class Cluster:
    """Brokers that scripts/kafka.sh started."""

    def __init__(self, directory, port):
        self.kafka = Kafka(port, directory)
        pids = [int(path.read_text()) for path in sorted(Path(directory).glob("broker-*/pid"))]
        self.pids = {f"broker-{number}": pid for number, pid in enumerate(pids, 1)}
        self.addresses = ",".join(f"127.0.0.1:{port + 10 * number}" for number in range(len(pids)))

    def rest(self):
        """Holds the brokers, which use the processors even without clients."""
        self._signal(signal.SIGSTOP)

    def wake(self):
        """Lets the brokers go on. A new topic waits until all of them are in the cluster again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number):
        for pid in self.pids.values():
            os.kill(pid, number)


def scrape(port):
    """The samples of /metrics by name, those of a family with labels added up."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            name = name.partition("{")[0]
            samples[name] = samples.get(name, 0.0) + float(value)
    return samples


def start(options, cluster, topic):
    """A producer and a consumer of `topic`."""
    log = options.work / topic / "events.log"
    env = {
        "KAFKA_BROKERS": cluster.addresses, "KAFKA_TOPIC": topic, "KAFKA_GROUP": topic, "EVENT_ECHO": "off",
        "HTTP_SERVER": "edge", "KAFKA_CLIENT": "wire", "LOG_FILE": str(log), "LOG_ROTATE_BYTES": str(256 << 20),
        "LOG_ROTATE_KEEP": "2", "HTTP_ADDR": f"127.0.0.1:{options.port}", "METRICS_ADDR": f"127.0.0.1:{options.port + 1}",
    }
    names = {"consumer": options.port + 1, "producer": options.port}
    command = {name: [options.programs / name] for name in names}
    consumer = Program("consumer", command["consumer"], options.work, names["consumer"], env, is_ready(names["consumer"]))
    try:
        port = names["producer"]
        return Program("producer", command["producer"], options.work, port, env, is_ready(port)), consumer
    except BenchError:
        consumer.stop()
        raise


def load(options, batch, size, seconds):
    """Runs the simulator as fast as it gets responses, and returns its report."""
    url = f"http://127.0.0.1:{options.port}/register_event"
    command = [options.programs / "simulate", "--url", url, "--threads", THREADS, "--duration", f"{seconds}s"]
    return json.loads(run([*command, "--batch", batch, "--size", size, "--output", "json"]))


def reading(pids, options):
    """Time, CPU seconds by program and of the machine, and counters."""
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    counters = {**scrape(options.port), **scrape(options.port + 1)}
    return time.monotonic(), {name: cpu_seconds(pid) for name, pid in pids.items()}, ours, machine_busy_seconds(), counters


def measure(options, cluster, batch, size):
    """Rate and CPU seconds per event by program, at the highest rate."""
    topic = cluster.kafka.new_topic(f"capacity-{len(cluster.pids)}-{batch}-{size}")
    producer, consumer = start(options, cluster, topic)
    with consumer, producer:
        pids = {"producer": producer.pid, "consumer": consumer.pid, **cluster.pids}
        load(options, batch, size, WARMUP_S)
        before = reading(pids, options)
        report = load(options, batch, size, MEASURED_S)
        after = reading(pids, options)
        events = report["events"]
    if events["acknowledged"] != events["sent"] or not events["sent"]:
        raise BenchError(f"{batch} × {size}: only {events['acknowledged']} of {events['sent']} events were acknowledged")
    return figures(before, after, events["acknowledged"])


def figures(before, after, acknowledged):
    """What the two readings say about one event."""
    seconds = after[0] - before[0]
    cpu = {name: after[1][name] - before[1][name] for name in before[1]}
    own = after[2] - before[2]
    counted = {name: after[4][name] - before[4].get(name, 0.0) for name in after[4]}
    logged = counted["pipeline_log_events_total"]
    if logged < acknowledged * (1 - LAG_MAX):
        raise BenchError(f"the consumer logged only {logged:.0f} of {acknowledged} events, so the rate cannot last")
    foreign = (after[3] - before[3] - own - sum(cpu.values())) / seconds / os.cpu_count()
    return {
        "rate": acknowledged / seconds,
        "producer": cpu["producer"] / acknowledged,
        "broker": sum(used for name, used in cpu.items() if name.startswith("broker")) / acknowledged,
        "consumer": cpu["consumer"] / logged,
        "load": own / acknowledged,
        "used": (sum(cpu.values()) + own) / seconds,
        "foreign": foreign,
        "fsyncs": counted["pipeline_log_fsync_duration_seconds_count"] / seconds,
        "per_fsync": logged / max(counted["pipeline_log_fsync_duration_seconds_count"], 1),
        "per_call": acknowledged / max(counted["pipeline_kafka_batch_events_count"], 1),
    }


def median(samples):
    """The round whose events cost the median: its figures belong together."""
    return sorted(samples, key=model.measured_rate)[len(samples) // 2]


def warm_up(options, cluster):
    """Lets the brokers' machine code be compiled, which happens while they work."""
    for point in model.SIZED:
        measure(options, cluster, *point)


@contextlib.contextmanager
def only(cluster, other):
    """Lets `cluster` go on while `other` is held."""
    other.rest()
    cluster.wake()
    yield
    cluster.rest()
    other.wake()


def measure_all(options):
    """All points with one broker, by turns, and one of each pattern with three copies."""
    one, three = Cluster(options.one, options.one_port), Cluster(options.three, options.three_port)
    three.rest()
    warm_up(options, one)
    with only(three, one):
        warm_up(options, three)
    samples = {}
    for number in range(options.rounds):
        for point in model.FITTED + model.HELD_OUT:
            samples.setdefault((1, *point), []).append(measure(options, one, *point))
        with only(three, one):
            for point in model.SIZED:
                samples.setdefault((model.COPIES, *point), []).append(measure(options, three, *point))
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr, flush=True)
    return {key: median(found) for key, found in samples.items()}


def report(options, measured):
    """The tables as lines, and whether the predictions are good enough."""
    points = {(batch, size): found for (copies, batch, size), found in measured.items() if copies == 1}
    costs = model.fit(points)
    replicated = {
        point[0]: measured[(model.COPIES, *point)]["broker"] / points[point]["broker"] for point in model.SIZED
    }
    factors = " and ".join(f"{factor:.2f} times with {batch} per request" for batch, factor in replicated.items())
    facts = machine.facts(options.root)
    checks, worst = model.check_table(points, costs)
    lines = [
        f"Measured on {facts['date'][:10]} at commit {facts['commit']}: {facts['processor']}, {facts['memory']}, "
        f"{facts['kernel']}; the median of {options.rounds} rounds; {THREADS} connections, server `edge`, client `wire`, "
        "`LOG_FSYNC=batch`.",
        "", *model.cost_table(costs),
        "", f"With three copies, the brokers together need more CPU than one broker: {factors}.",
        "", *checks,
        "", "| events per request × bytes | events per second | cores in use | cores of other processes | events per call to Kafka | events per fsync of the log | fsyncs per second |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(f"| {key[0]} × {key[1]} | {found['rate']:,.0f} | {found['used']:.2f} | {found['foreign'] * os.cpu_count():.2f} "
          f"| {found['per_call']:,.0f} | {found['per_fsync']:,.0f} | {found['fsyncs']:.0f} |" for key, found in points.items()),
        "", f"For events of {model.EVENT_BYTES} bytes, {model.COPIES} copies and processors used to {model.HEADROOM:.0%}:",
        "", *model.sizing_table(costs, replicated),
    ]
    busy = max(found["foreign"] for found in measured.values())
    return lines, worst, busy


def write(page, lines):
    """Replaces what is between the markers."""
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise BenchError(f"{page} does not have each marker once: {BEGIN}, {END}")
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text("\n".join([head + BEGIN, "", *lines, "", END]) + tail)


def main():
    options = arguments()
    lines, worst, busy = report(options, measure_all(options))
    print("\n".join(lines))
    if busy > FOREIGN_MAX:
        sys.exit(f"other processes used {busy:.0%} of the processors during a measurement; run it on a quiet machine")
    if worst > LIMIT:
        sys.exit(f"a prediction deviates by {worst:.1%}, more than {LIMIT:.0%}")
    if options.write:
        write(options.root / "docs/SCALING.md", lines)
        print("wrote docs/SCALING.md", file=sys.stderr)


if __name__ == "__main__":
    main()
