"""Write the results of a benchmark: ratios and their spread, as a table and as JSON, with the hardware."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("pydantic", "opencv-python-headless", "av", "pillow")


@dataclass(frozen=True)
class Figure:
    """One result: the median over rounds, with the lowest and the highest value."""

    what: str
    against: str
    median: float
    low: float
    high: float
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """True if the median meets the target, None if there is no target."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.median >= self.at_least) and (
            self.at_most is None or self.median <= self.at_most
        )

    @property
    def target(self) -> str:
        """The target and whether it is met, or an empty string if there is no target."""
        if self.met is None:
            return ""
        bounds = [f">= {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"<= {self.at_most:g}"] if self.at_most is not None else []
        return f"{' and '.join(bounds)}: {'met' if self.met else 'MISSED'}"


@dataclass(frozen=True)
class Result:
    """All results of one benchmark."""

    name: str
    setting: dict[str, Any]
    """The measured sizes, rounds and data."""
    figures: list[Figure] = field(default_factory=list)


def figure(
    what: str,
    against: str,
    values: Sequence[float],
    *,
    unit: str = "x",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Summarize the values of all rounds."""
    middle, low, high = (float(f"{value:.3g}") for value in (median(values), min(values), max(values)))
    return Figure(what, against, middle, low, high, unit, at_least, at_most)


def hardware() -> dict[str, Any]:
    """Return the CPU's name and the number of cores available to this process."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": models[0] if models else platform.processor() or platform.machine(), "cores": cores}


def load() -> float:
    """Return the load average of the last minute. Other processes distort a benchmark."""
    return round(os.getloadavg()[0], 2)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            print(f"{package} is not installed", file=sys.stderr)
    return found


def table(result: Result) -> str:
    """Return the results as a table, under a line with the hardware."""
    rows = [("figure", "against", "median", "lowest to highest", "target")]
    for f in result.figures:
        rows.append((f.what, f.against, f"{f.median:g} {f.unit}", f"{f.low:g} to {f.high:g}", f.target))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    machine = hardware()
    return "\n".join([f"{result.name}: {machine['cpu']}, {machine['cores']} cores; {result.setting}", *lines, ""])


def write(result: Result, load_before: float) -> None:
    """Write the result to `benchmarks/results/`, the source of the figures in the documentation."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        "benchmark": result.name,
        "hardware": hardware(),
        "load_before": load_before,
        "versions": _versions(),
        "setting": result.setting,
        "figures": [{**asdict(f), "met": f.met} for f in result.figures],
    }
    (RESULTS / f"{result.name}.json").write_text(json.dumps(content, indent=2) + "\n")
