"""Run every workload against its contenders, alternating, and print the medians. Nothing is installed."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import results
from benchmarks.contenders import Running, running
from benchmarks.native import MissingError
from benchmarks.results import Comparison
from benchmarks.workloads import Sizes, Workload, all_workloads, disk

MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help="which ones; all by default")
    parser.add_argument("--quick", action="store_true", help="a short form, beside the recorded ratios")
    parser.add_argument(
        "--document", nargs="+", type=Path, help="write the page of the documentation from these results"
    )
    parser.add_argument("--record", action="store_true", help="record the ratios as the baseline")
    parser.add_argument("--rounds", type=int, help="measured rounds, after one to warm up")
    parser.add_argument("--size", type=int, help="MiB of the file that goes up and down")
    parser.add_argument("--seconds", type=float, help="of what has no end by itself")
    options = parser.parse_args()
    if options.document:
        results.write_document(options.document)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the blocks that stop the servers
    if shutil.which("curl") is None:
        raise SystemExit("The benchmarks move files with curl: install it, on Debian with 'apt-get install curl'.")
    size = (options.size or (128 if options.quick else 2048)) * MIB
    known = all_workloads(size)
    unknown = set(options.workloads) - {workload.name for workload in known}
    if unknown:
        raise SystemExit(f"There are {', '.join(workload.name for workload in known)}.")
    chosen = [
        workload
        for workload in known
        if workload.name in options.workloads or (not options.workloads and (workload.quick or not options.quick))
    ]
    rounds = options.rounds or (2 if options.quick else 5)
    results.FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=results.FOLDER) as folder:
        Path(folder).chmod(0o755)  # other users' servers have folders in it
        sizes = Sizes(
            file=Path(folder) / "file",
            seconds=options.seconds or (2 if options.quick else 5),
            readers=1000,
            idle=1000 if options.quick else 10_000,
            many=1000 if options.quick else 10_000,
        )
        _write_random(sizes.file, size)
        limits = {"writing and syncing a file, MB/s": disk(sizes.file)}
        comparisons = []
        for workload in chosen:
            comparison = _compare(workload, sizes, rounds, Path(folder))
            comparisons.append(comparison)
            print("\n".join(comparison.lines()), flush=True)
    print(*(f"{what}: {value:.0f}" for what, value in limits.items()), sep="\n")
    if options.quick:
        print("\n".join(results.beside_baseline(comparisons)))
    if options.record:
        results.record(comparisons)
    print(f"The results are in {results.save(comparisons, limits).with_suffix('.*')}")


def _write_random(file: Path, size: int) -> None:
    with file.open("wb") as out:
        for _ in range(size // MIB):
            out.write(os.urandom(MIB))


def _compare(workload: Workload, sizes: Sizes, rounds: int, folder: Path) -> Comparison:
    comparison = Comparison(workload.name, workload.title, workload.unit, workload.lower)
    with ExitStack() as servers:
        there: list[Running] = []
        for number, contender in enumerate(workload.contenders):
            try:
                contender.needs()
                there.append(
                    servers.enter_context(running(contender, folder / f"{workload.name}-{number}", sizes.file))
                )
            except MissingError as missing:
                comparison.missing[contender.name] = str(missing)
        for number in range(rounds + 1):
            for server in there:
                before = server.processor()
                try:
                    done = workload.measure(server, sizes)
                except MissingError as missing:
                    comparison.missing[server.name] = str(missing)
                    continue
                spent = server.processor() - before
                cost = {"CPU s/GB": spent / (sizes.file.stat().st_size / 1e9)} if workload.whole else {"CPU s": spent}
                done = {**done, **cost, "MiB": server.resident() / MIB}
                if number:  # the first round warms up
                    comparison.rounds.setdefault(server.name, []).append(done)
    for path in folder.glob(f"{workload.name}-*"):
        shutil.rmtree(path)
    return comparison


main()
