#!/usr/bin/env python3
"""Measures one build of anyworker, or compares two in alternating runs.

  bench/compare.py target/release/anyworker
  bench/compare.py OLD NEW --rounds 5 --scenarios echo1,connect,idle

Every run starts a fresh server with a private Redis in a temporary directory, loads it with rtbench over loopback,
and stops it again. Server and Redis are pinned to one core and rtbench to another. Figures are medians of all rounds;
the order of two builds changes with every round, because the speed of a shared machine drifts.

Reading it: CPU per op (supervisor and workers; Redis apart) is the server's. Ops per second and latency are rtbench's
when its CPU comes near 100 %. "bad" counts what must not happen: errors, and deliveries that were lost, duplicated,
out of order or in the wrong room. An op is an ack (echo), a delivery (fanout, rooms, reload, kill) or a session.
"""

import argparse
import json
import os
import pathlib
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS = {
    "echo1": "echo -c 100 -i 1 -p 64",
    "echo16": "echo -c 100 -i 16 -p 64",
    "fanout": "fanout -c 200 -r 1 -P 1",
    "rooms": "fanout -c 1000 -r 50 -P 1 -i 8",
    "connect": "connect -i 32",
    "polling": "polling -c 20",
    "upgrade": "polling -c 20 --upgrade",
    "idle": "idle -c 5000",
    "reload": "chaos -c 500 -r 50 -P 4 --rate 200 --every 2",
    "kill": "chaos -c 500 -r 50 -P 4 --rate 200 --every 2",
}
USUAL = "echo1,echo16,fanout,rooms,connect,polling,idle"
# Seconds for a server to serve or to end, and for rtbench beyond its measured time.
PATIENCE = 30
SLACK = 120
# What must not happen, in rtbench's report. A killed worker takes connections with it; their clients resume.
BAD = ["lost", "messages_lost", "duplicated", "out_of_order", "misrouted", "sessions_failed", "sessions_lost"]


class Server:
    """A running anyworker; a context manager."""

    def __init__(self, binary, workers, core):
        self.binary, self.workers, self.core = pathlib.Path(binary).resolve(), workers, core

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="anyworker-bench-")
        directory = pathlib.Path(self.directory.name)
        self.config = directory / "supervisor.toml"
        self.config.write_text(
            f'[listen]\naddress = "127.0.0.1:0"\n[workers]\ncount = {self.workers}\ngrace_ms = 2000\n'
            f'[runtime]\ndirectory = "{directory / "run"}"\n[logging]\nformat = "json"\n'
        )
        # The caller's settings must not change what is measured.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ANYWORKER_", "REDIS_"))}
        self.log = directory / "log"
        command = pinned([str(self.binary), "run", "--config", str(self.config)], self.core)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=directory, env=env, stdout=log, stderr=log)
        try:
            self.url = self.wait_until_serving()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.directory.cleanup()

    def wait_until_serving(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if '"message":"serving"' in line and line.endswith("}"):
                    return json.loads(line)["urls"].split()[0].rstrip("/")
            time.sleep(0.05)
        sys.exit(f"{self.binary} does not serve:\n{self.log.read_text()[-4000:]}")

    def pids(self):
        """The supervisor with its workers, and Redis."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        is_redis = lambda pid: any(name in pathlib.Path(f"/proc/{pid}/comm").read_text() for name in ("redis", "valkey"))
        return [pid for pid in children if not is_redis(pid)], [pid for pid in children if is_redis(pid)]

    def fault(self, scenario):
        """The shell command of a chaos scenario."""
        if scenario == "reload":
            return shlex.join([str(self.binary), "reload", "--wait", "--config", str(self.config)])
        return shlex.join([str(HERE / "peers/kill-worker.sh"), "KILL", str(self.process.pid), " worker --slot "])


def pinned(command, core):
    return command if core is None else ["taskset", "-c", str(core), *command]


def run(binary, scenario, args):
    """rtbench's report of one run."""
    with Server(binary, args.workers, args.server_core) as server:
        command = [args.rtbench, *SCENARIOS[scenario].split(), "--url", server.url, "-d", str(args.seconds), "--json"]
        workers, redis = server.pids()
        if scenario in ("reload", "kill"):
            # Workers come and go: the supervisor's tree is counted, and Redis in it.
            command += ["--server-pid", str(server.process.pid), "--fault-cmd", server.fault(scenario)]
        else:
            for pid in workers:
                command += ["--server-pid", pid]
            for pid in redis:
                command += ["--redis-pid", pid]
        done = subprocess.run(
            pinned(command, args.tool_core), capture_output=True, text=True, timeout=args.seconds + SLACK, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{scenario}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def bad(report, scenario):
    expected = ["duplicated", "out_of_order"] if scenario == "kill" else []
    counted = sum(report.get(name, 0) for name in BAD if name not in expected)
    return counted + sum(report["errors"].values()) + len(report.get("faults_failed", []))


def median(reports, *path):
    def value(report):
        for name in path:
            report = report.get(name) if isinstance(report, dict) else None
        return report

    values = [value(report) for report in reports if value(report) is not None]
    return statistics.median(values) if values else None


def main_figure(scenario):
    """What two builds are compared by, and its unit."""
    return ("pss_kib_per_conn", "KiB/conn") if scenario == "idle" else ("server_cpu_us_per_op", "us/op")


def show(number, digits=1):
    return "-" if number is None else f"{number:.{digits}f}"


def print_one(scenario, reports):
    name, unit = main_figure(scenario)
    milliseconds = lambda quantile: (median(reports, "latency_us", quantile) or 0) / 1000
    print(
        f"{scenario:10}{show(median(reports, 'ops_per_s'), 0):>10}{milliseconds('p50'):>10.2f}{milliseconds('p99'):>10.2f}"
        f"{show(median(reports, name), 2):>10} {unit:9}{show(median(reports, 'redis_cpu_us_per_op'), 2):>8}"
        f"{show(median(reports, 'tool_cpu_pct'), 0):>8}{sum(bad(report, scenario) for report in reports):>6}",
        flush=True,
    )


def print_two(scenario, old, new):
    name, unit = main_figure(scenario)
    before, after = median(old, name), median(new, name)
    ratio = after / before if before and after is not None else None
    wrong = sum(bad(report, scenario) for report in old + new)
    print(
        f"{scenario:10}{show(before, 2):>10}{show(after, 2):>10} {unit:9}{show(ratio, 3):>7}"
        f"{show(median(old, 'redis_cpu_us_per_op'), 2):>10}{show(median(new, 'redis_cpu_us_per_op'), 2):>10}{wrong:>6}",
        flush=True,
    )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", metavar="BINARY", help="one or two builds of anyworker")
    parser.add_argument("--rounds", type=int, help="runs of each scenario and build (1; with two builds 5)")
    parser.add_argument("--seconds", type=float, default=3, help="measured time of a run")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--scenarios", default=USUAL, help=f"some of: {', '.join(SCENARIOS)}")
    parser.add_argument("--rtbench", default=str(HERE.parent / "target/quick/rtbench"))
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--tool-core", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="let the kernel choose the cores")
    args = parser.parse_args()
    unknown = set(args.scenarios.split(",")) - set(SCENARIOS)
    if unknown:
        parser.error(f"unknown scenario {', '.join(sorted(unknown))}")
    if len(args.builds) > 2:
        parser.error("one or two builds")
    if args.no_pin or len(os.sched_getaffinity(0)) < 2:
        args.server_core = args.tool_core = None
    args.rounds = args.rounds or (1 if len(args.builds) == 1 else 5)
    return args


def main():
    args = parse()
    single = len(args.builds) == 1
    if single:
        print(f"{'':10}{'ops/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'server':>10}{'':10}{'redis':>8}{'tool %':>8}{'bad':>6}")
    else:
        print(f"{'':10}{'A':>10}{'B':>10}{'':10}{'B/A':>7}{'redis A':>10}{'redis B':>10}{'bad':>6}")
    wrong = 0
    for scenario in args.scenarios.split(","):
        reports = [[] for _ in args.builds]
        for turn in range(args.rounds):
            order = range(len(args.builds)) if turn % 2 == 0 else reversed(range(len(args.builds)))
            for build in order:
                reports[build].append(run(args.builds[build], scenario, args))
        print_one(scenario, *reports) if single else print_two(scenario, *reports)
        wrong += sum(bad(report, scenario) for build in reports for report in build)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
