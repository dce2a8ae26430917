"""Compare `convkit --help` with a Python that does nothing: the start-up time of every command.

Both are fresh processes, run in turn. The limit is in seconds, not a ratio. It is met if half of the runs stay within
it, which means that the median does.
"""

from benchmarks.processes import seconds
from benchmarks.report import Result, figure

ROUNDS = 15
LIMIT_SECONDS = 0.25


def run() -> Result:
    """Measure both in turn. The first run of each fills the caches and is not counted."""
    pairs = [(seconds("-m", "convkit", "--help"), seconds("-c", "pass")) for _ in range(ROUNDS + 1)][1:]
    within = sum(ours <= LIMIT_SECONDS for ours, _ in pairs) / len(pairs)
    return Result(
        "startup",
        {"rounds": ROUNDS, "limit_seconds": LIMIT_SECONDS},
        [
            figure("time of convkit --help", "python -c pass", [ours / nothing for ours, nothing in pairs]),
            figure(f"runs within {LIMIT_SECONDS} s", "", [within], unit="of all", at_least=0.5),
        ],
    )
