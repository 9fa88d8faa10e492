"""Starts and stops processes, waits until they are ready, and measures their CPU time and memory."""

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 60
STOP_LIMIT_S = 30


class BenchError(Exception):
    """A program failed, or its figures cannot be trusted; the message says why."""


def wait_until(what, limit_s, check, step_s=0.02):
    """Calls `check` until its result is true and returns that result; fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not (found := check()):
        if time.monotonic() > deadline:
            raise BenchError(f"timed out after {limit_s} s, waiting until {what}")
        time.sleep(step_s)
    return found


def cpu_seconds(pid):
    """CPU time that all threads of the process have used, user and system, with nanosecond resolution."""
    # The clock id that clock_getcpuclockid(3) returns; /proc/PID/stat only has steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


def resident_mib(pid, field="VmHWM"):
    """Peak resident memory in MiB; with `VmRSS`, the current one."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def machine_busy_seconds():
    """CPU time used on the whole machine, including the time stolen by a hypervisor."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def is_ready(port):
    """A check whether the program there is ready."""
    def check():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).status == 200
        except OSError:
            return False
    return check


class Program:
    """A server or consumer that runs until it is stopped."""

    def __init__(self, name, command, log_dir, port=None, env=None, ready=None, policy=None):
        self.name = name
        self.log = Path(log_dir) / f"{name}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                preexec_fn=policy and (lambda: os.sched_setscheduler(0, policy, os.sched_param(0))),
            )
        self.port = port
        self._await(ready or (port and self._listens))

    def _listens(self):
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _await(self, ready):
        def check():
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} exited during startup:\n{self.tail()}")
            return ready()

        if ready:
            try:
                wait_until(f"{self.name} is ready", START_LIMIT_S, check)
            except BenchError:
                self.stop(forced=True)
                raise

    @property
    def pid(self):
        return self.process.pid

    def tail(self):
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def stop(self, forced=False):
        """Stops it with SIGTERM, or SIGKILL if that does not help; returns the exit code."""
        if self.process.poll() is None:
            self.process.kill() if forced else self.process.terminate()
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def run(command, env=None, limit_s=900):
    """Runs a program and returns its output; if it fails, the error contains the end of the output."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=limit_s,
        env={**os.environ, **(env or {})},
    )
    if done.returncode != 0:
        raise BenchError(f"{command[0]} exited with code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


class Meter:
    """Measures the CPU time of the server, of the broker and of other processes while a `with` block runs."""

    def __init__(self, server_pid, broker_pid):
        self.pids = {"server": server_pid, "broker": broker_pid}

    def _read(self):
        children = os.times()
        ours = children.user + children.system + children.children_user + children.children_system
        costs = {name: cpu_seconds(pid) for name, pid in self.pids.items() if pid}
        return time.monotonic(), machine_busy_seconds(), ours, costs

    def __enter__(self):
        self.began = self._read()
        return self

    def __exit__(self, *_):
        began, ended = self.began, self._read()
        self.seconds = ended[0] - began[0]
        self.cpu = {name: ended[3][name] - began[3][name] for name in began[3]}
        self.load_cpu = ended[2] - began[2]
        foreign = ended[1] - began[1] - self.load_cpu - sum(self.cpu.values())
        # Share of the machine's CPU that other processes used; a high share makes a figure unreliable.
        self.foreign = max(0.0, foreign / (self.seconds * (os.cpu_count() or 1)))
