"""`convkit --help` against a Python that does nothing: what a user waits for before anything happens.

Both are fresh processes, taken in turn. The limit is one of feeling, not of ratio, so it is judged by the share of
runs that stay within it: half of them do when the median does.
"""

from benchmarks.processes import seconds
from benchmarks.report import Result, figure

ROUNDS = 15
LIMIT_SECONDS = 0.25


def run() -> Result:
    """Measure both, after one run of each that fills the caches."""
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
