"""Benchmarks the project against its floor and its peers. Started by scripts/bench.sh, which builds them."""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import plots
import report
from candidates import Setup
from cases import Sizes, all_cases, tune_axum
from kafka import Kafka
from programs import BenchError, run


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only cases whose names start with this (see --list)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: takes minutes, for a first look")
    parser.add_argument("--rounds", type=int, help="number of measurements of every candidate")
    parser.add_argument("--out", type=Path, help="directory for BENCHMARKS.md, benchmarks.json and plots "
                        "(default: docs for a full run, else target/bench/out)")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    for name in ("root", "release", "kafka-dir"):
        parser.add_argument(f"--{name}", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kafka", help=argparse.SUPPRESS)
    parser.add_argument("--newest", help=argparse.SUPPRESS)
    return parser.parse_args()


def start_newest(options):
    """Returns a function that starts a broker of the newest Kafka on its first call and returns it."""
    port, directory = options.port + 50, options.kafka_dir.parent / "kafka-newest"
    env = {"KAFKA_VERSION": options.newest, "KAFKA_PORT": str(port), "KAFKA_DIR": str(directory)}

    @functools.cache
    def newest():
        for command in ("wipe", "start"):
            run([options.root / "scripts/kafka.sh", command], env=env)
        return Kafka(port, directory)

    return newest


def measure(case, setup, rounds):
    """Measures the candidates alternately (A B C A B C …), so that a slow phase of the machine hits all."""
    samples, errors = {candidate: [] for candidate in case.candidates}, []
    for number in range(rounds):
        for candidate in case.candidates:
            try:
                sample = case.measure(setup, candidate)
            except (BenchError, subprocess.SubprocessError, OSError, KeyError, ValueError) as error:
                errors.append(f"{case.name}, {candidate}: {type(error).__name__}: {error}")
                print(f"  {candidate}: {errors[-1]}", flush=True)
                continue
            samples[candidate].append(sample)
            beside = f", {sample['foreign']:.0%} of the CPU used by others" if sample["foreign"] > 0.1 else ""
            print(f"  {number + 1}/{rounds} {candidate}: {report.in_short(sample)}{beside}", flush=True)
    return samples, errors


def main():
    options = arguments()
    sizes = Sizes.quick() if options.quick else Sizes.whole()
    sizes.rounds = options.rounds or sizes.rounds
    cases = [case for case in all_cases(sizes) if not options.cases or case.name.startswith(tuple(options.cases))]
    if options.list:
        print("\n".join(f"{case.name:<16}{case.title}" for case in cases))
        return 0
    if not cases:
        sys.exit(f"no case starts with {' or '.join(options.cases)}; see --list")
    whole = not options.quick and not options.cases
    out = options.out or options.root / ("docs" if whole else "target/bench/out")
    if any(case.needs_features for case in cases):
        features = ["--features", "lake,postgres", "--target-dir", options.root / "target/bench/features"]
        run(["cargo", "build", "--locked", "--release", "--quiet", "--bin", "consumer", *features], limit_s=3600)
    began, results, errors = time.time(), {}, []
    with tempfile.TemporaryDirectory(dir=options.root / "target/bench") as work:
        kafka = Kafka(options.port, options.kafka_dir)
        setup = Setup(options.root, options.release, Path(work), kafka, options.port, start_newest(options))
        tuning = None
        if any("axum" in case.candidates for case in cases):
            tuning = tune_axum(setup, sizes)
        for case in cases:
            print(f"{case.name}: {case.title}", flush=True)
            samples, failed = measure(case, setup, sizes.rounds)
            results[case.name] = report.summary(case, samples)
            errors += failed
    document = {
        "machine": {**machine.facts(options.root), "Kafka": f"{options.kafka}; {options.newest} where noted"},
        "kafka": options.kafka,
        "command": "scripts/bench.sh " + " ".join(sys.argv[1 : sys.argv.index("--root")]),
        "minutes": round((time.time() - began) / 60, 1),
        "rounds": sizes.rounds,
        "seconds": sizes.seconds,
        "axum_tuning": tuning,
        "cases": results,
        "targets": report.targets(results),
        "errors": errors,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(json.dumps(document, indent=1) + "\n")
    drawn = plots.draw(results, out)
    report.write(document, drawn, out / "BENCHMARKS.md")
    print(f"wrote {out}/BENCHMARKS.md")
    for case in cases:
        if case.page and not options.quick:
            report.write_table(case.name, document, options.root / case.page)
            print(f"wrote the table of {case.name} into {case.page}")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench.sh: {error}")
