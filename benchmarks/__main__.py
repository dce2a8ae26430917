"""Run all benchmarks, or those named: `python -m benchmarks [convert memory parquet startup validate]`."""

import argparse
import sys
from importlib import import_module

from benchmarks import report

NAMES = ("convert", "memory", "parquet", "startup", "validate")
MAX_IDLE_LOAD = 0.5


def main() -> None:
    """Run the benchmarks, print a table per benchmark, and write `benchmarks/results/<name>.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(NAMES)} (default: all)")
    names = parser.parse_args().names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    load = report.load()
    if load > MAX_IDLE_LOAD:
        print(f"the machine is not idle (load {load}): the results will be unreliable", file=sys.stderr)
    for name in names:
        result = import_module(f"benchmarks.{name}").run()
        print(report.table(result), flush=True)
        report.write(result, load)


if __name__ == "__main__":
    main()
