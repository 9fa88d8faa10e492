"""Describes the machine and the versions that the figures were measured with."""

import os
import platform
import subprocess
from datetime import datetime, timezone


def facts(root):
    """Processor, kernel, versions, commit and date, as texts by name."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(root),
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "rustc": _first_line(["rustc", "--version"]),
        "java": _first_line(["java", "--version"]),
        "wrk": _first_line(["wrk", "--version"]).split("Copyright")[0].strip(),
        "kcat": _first_line(["kcat", "-V"], 1),
        "python": platform.python_version(),
        "load average at the end": f"{os.getloadavg()[0]:.1f}",
    }


def _processor():
    with open("/proc/cpuinfo") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit(root):
    commit = _first_line(["git", "-C", str(root), "rev-parse", "--short", "HEAD"])
    changed = _first_line(["git", "-C", str(root), "status", "--porcelain", "--", "src", "benches", "Cargo.lock"])
    return commit + (" with uncommitted changes" if changed else "")


def _first_line(command, line=0):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.strip().splitlines()
    return lines[min(line, len(lines) - 1)] if lines else ""
