"""Jobs of training, forked from a process that has loaded the libraries: loading them takes longer than training.

`python -m tests.train.jobs` reads lines `{"job": …, "arguments": […], "out": FILE, "err": FILE}`. It does the job, of
`tests.train.kills` or `tests.train.ranks`, in a process of its own, and answers with its exit status; the files hold
what was said, and at the end of the first one what came of it.
"""

import importlib.util
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch

from tests.train.helpers import kills, ranks

JOBS: dict[str, Callable[..., Any]] = {"kills": kills.job, "ranks": ranks.job}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries say things there as well
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("deepspeed", "peft"):
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    for line in sys.stdin:
        child = kills.fork()
        if not child:
            _do(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _do(job: str, arguments: list[Any], out: str, err: str) -> None:
    """Ends the process, and any that it forks and that comes back here."""
    for name, descriptor in ((out, 1), (err, 2)):
        with open(name, "ab") as file:
            os.dup2(file.fileno(), descriptor)
    try:
        print(json.dumps(JOBS[job](*arguments)), flush=True)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
