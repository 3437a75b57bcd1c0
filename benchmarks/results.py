"""What a run came to: medians and ratios, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
BASELINE = Path(__file__).parent / "baseline.json"
DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"

_ABOUT = """\
# Benchmarks

What `python -m benchmarks` printed, on a virtual machine with {machine}.

The medians of some rounds. Contenders took turns in each, after one to warm up, with their clients on the same machine;
how many times better penstock is was told round by round. Rates of virtual machines vary by a factor of two from one
hour to the next: compare within a line only, and run it on yours. The limits are small programs in C that move the same
bytes and do nothing else.
"""


@dataclass(slots=True)
class Comparison:
    """What the contenders of a workload did.

    Attributes:
        name, title, unit, lower: the workload's.
        rounds: what each contender did in each round, ours first.
        missing: what was not measured, and how to install it.
    """

    name: str
    title: str
    unit: str
    lower: bool
    rounds: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, contender: str, unit: str | None = None) -> float:
        return statistics.median(done[unit or self.unit] for done in self.rounds[contender])

    def ratio(self, contender: str) -> float:
        """How many times better we are: in each round by itself, so that what slows all of them does not count."""
        ours = next(iter(self.rounds.values()))
        pairs = [(a[self.unit], b[self.unit]) for a, b in zip(ours, self.rounds[contender], strict=False)]
        return statistics.median((b / a if self.lower else a / b) if a and b else 0.0 for a, b in pairs)

    def lines(self) -> list[str]:
        """Return a table for a terminal."""
        lines = [f"{self.title} ({self.unit})"]
        for contender, rounds in self.rounds.items():
            values = [done[self.unit] for done in rounds]
            others = ", ".join(f"{self.median(contender, unit):.4g} {unit}" for unit in rounds[0] if unit != self.unit)
            lines.append(
                f"  {contender:38} {_number(self.median(contender)):>10}  ({_number(min(values))} to"
                f" {_number(max(values))})  ours is {self.ratio(contender):.2f}x{'  ' + others if others else ''}"
            )
        lines += [f"  not measured: {contender}; to install {how}" for contender, how in self.missing.items()]
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "unit": self.unit,
            "lower_is_better": self.lower,
            "contenders": {
                contender: {
                    "median": self.median(contender),
                    "ours_is_times_better": round(self.ratio(contender), 3),
                    "rounds": rounds,
                }
                for contender, rounds in self.rounds.items()
            },
            "not_measured": self.missing,
        }


def save(comparisons: Sequence[Comparison], limits: Mapping[str, float]) -> Path:
    """Write a run's results as JSON, as a Markdown table and as a picture; return the first's path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / time.strftime("%Y-%m-%dT%H%M%S.json")
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    results = {comparison.name: comparison.to_json() for comparison in comparisons}
    path.write_text(json.dumps({"machine": machine, "limits": dict(limits), "workloads": results}, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(table(comparisons)) + "\n")
    path.with_suffix(".svg").write_text(_plot(comparisons))
    return path


def table(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the table of a README."""
    lines = ["| workload | penstock | others, and how many times better penstock is |", "|---|---|---|"]
    for comparison in comparisons:
        if comparison.rounds:
            ours, *others = comparison.rounds
            told = "; ".join(
                f"{name} {_number(comparison.median(name))} ({_number(comparison.ratio(name))}x)" for name in others
            )
            value = f"{_number(comparison.median(ours))} {comparison.unit}"
            lines.append(f"| {comparison.title} | {value} | {told} |")
    return lines


def load(paths: Sequence[Path]) -> list[Comparison]:
    """Return what runs came to that were saved; of a workload that several have, the last one's."""
    found: dict[str, Comparison] = {}
    for path in paths:
        for name, told in json.loads(path.read_text())["workloads"].items():
            rounds = {contender: each["rounds"] for contender, each in told["contenders"].items()}
            found[name] = Comparison(
                name, told["title"], told["unit"], told["lower_is_better"], rounds, told["not_measured"]
            )
    return list(found.values())


def write_document(paths: Sequence[Path]) -> None:
    """Write the page of the documentation with the results of some runs."""
    machine = json.loads(paths[-1].read_text())["machine"]
    known = f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    DOCUMENT.write_text("\n".join([_ABOUT.format(machine=known), *table(load(paths))]) + "\n")


def beside_baseline(comparisons: Sequence[Comparison]) -> list[str]:
    """Return this run's ratios beside those that were recorded. They are reported; machines are too noisy to judge."""
    known: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    lines = []
    for comparison in comparisons:
        for contender in list(comparison.rounds)[1:]:
            before = known.get(comparison.name, {}).get(contender)
            recorded = "not recorded" if before is None else f"recorded {before:.2f}x"
            lines.append(f"{comparison.name:16} {contender:38} {comparison.ratio(contender):6.2f}x  {recorded}")
    return lines


def record(comparisons: Sequence[Comparison]) -> None:
    """Keep this run's ratios as the baseline."""
    known: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    for comparison in comparisons:
        known[comparison.name] = {name: round(comparison.ratio(name), 3) for name in list(comparison.rounds)[1:]}
    BASELINE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plot(comparisons: Sequence[Comparison]) -> str:
    """Return bars: each contender's part of the best one, by workload."""
    parts: list[str] = []
    y = 10
    for comparison in comparisons:
        if not comparison.rounds:
            continue
        parts.append(
            f'<text x="10" y="{y + 12}" class="t">{escape(comparison.title)} ({escape(comparison.unit)})</text>'
        )
        y += 20
        medians = {name: comparison.median(name) for name in comparison.rounds}
        most = max(medians.values()) or 1.0
        for index, (name, value) in enumerate(medians.items()):
            width = max(1, round(420 * value / most))
            kind = "o" if index == 0 else "l" if name.startswith("limit") else "p"
            parts.append(f'<text x="270" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="280" y="{y}" width="{width}" height="13" class="{kind}"/>')
            parts.append(f'<text x="{286 + width}" y="{y + 11}">{_number(value)}</text>')
            y += 17
        y += 12
    style = "text{font:12px sans-serif}.t{font-weight:bold}.o{fill:#0a7}.p{fill:#89a}.l{fill:#ccc}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{y}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
