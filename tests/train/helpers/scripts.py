"""Python scripts run by two ranks, in processes forked from one that has loaded the libraries."""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.train.helpers.kills import fork
from tests.train.helpers.processes import join_variables

RANKS = 2
TIMEOUT_S = 120
"""Seconds after which a rank counts as hanging."""


def job(script: str, scratch: str) -> list[dict[str, Any]]:
    """Run a script on all ranks; return the exit code and the output of each, standard error last."""
    variables = join_variables(RANKS)
    ranks = [_start(script, rank, variables, Path(scratch)) for rank in range(RANKS)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]
    return [{"code": code, "output": _output(Path(scratch), rank)} for rank, code in enumerate(codes)]


def _start(script: str, rank: int, variables: dict[str, str], scratch: Path) -> int:
    child = fork()
    if child:
        return child
    signal.alarm(TIMEOUT_S)
    os.environ |= {**variables, "RANK": str(rank)}
    for descriptor in (1, 2):
        with (scratch / f"{rank}.{descriptor}").open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    code = 0
    try:
        exec(compile(script, "script", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _output(scratch: Path, rank: int) -> str:
    return "".join((scratch / f"{rank}.{descriptor}").read_text() for descriptor in (1, 2))
