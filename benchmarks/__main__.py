"""Run every workload against its contenders, alternating, and print the medians."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import workloads
from benchmarks.contenders import NAIVE, PENSTOCK, PENSTOCK_OS, TOOLKIT, running

Workload = Callable[[str, Path], float]
PLAN: list[tuple[Workload, str, tuple[str, ...]]] = [
    (workloads.upload, "MB/s", (PENSTOCK, PENSTOCK_OS, NAIVE)),
    (workloads.download, "MB/s", (PENSTOCK, NAIVE)),
    (workloads.file_response, "MB/s", (TOOLKIT, NAIVE)),
    (workloads.file_object, "MB/s", (TOOLKIT, NAIVE)),
    (workloads.plain_generator, "/s", (TOOLKIT, NAIVE)),
    (workloads.async_generator, "/s", (TOOLKIT, NAIVE)),
    (workloads.ndjson, "/s", (TOOLKIT, NAIVE)),
    (workloads.appends_by_one, "/s", (PENSTOCK, PENSTOCK_OS)),
    (workloads.appends_by_64, "/s", (PENSTOCK, PENSTOCK_OS)),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    parser.add_argument("--size", type=int, default=512, help="MiB of the file that goes up and down")
    parser.add_argument("--only", nargs="*", metavar="WORKLOAD", help="which workloads; all by default")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the blocks that stop the servers
    plan = [each for each in PLAN if not options.only or each[0].__name__ in options.only]
    if shutil.which("curl") is None:
        raise SystemExit("The benchmarks move files with curl: install it, on Debian with 'apt-get install curl'.")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=Path.cwd()) as folder, ExitStack() as servers:
        file = Path(folder) / "file"
        _write_random(file, options.size)
        names = {name for _, _, contenders in plan for name in contenders}
        urls = {
            name: servers.enter_context(running(name, Path(folder) / name.replace(" ", ""), file)) for name in names
        }
        for workload, unit, contenders in plan:
            _compare(workload, unit, {name: urls[name] for name in contenders}, file, options.rounds)


def _write_random(file: Path, size: int) -> None:
    with file.open("wb") as out:
        for _ in range(size):
            out.write(os.urandom(1024 * 1024))


def _compare(workload: Workload, unit: str, urls: dict[str, str], file: Path, rounds: int) -> None:
    measured: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, url in urls.items():
            rate = workload(url, file)
            if number:  # the first round warms up
                measured[name].append(rate)
    print(f"{workload.__name__}: {workload.__doc__}")
    ours = statistics.median(next(iter(measured.values())))
    for name, rates in measured.items():
        middle = statistics.median(rates)
        print(
            f"  {name:26} {middle:9.0f} {unit:5} ({min(rates):.0f} to {max(rates):.0f})  ours is {ours / middle:.2f}x"
        )


main()
