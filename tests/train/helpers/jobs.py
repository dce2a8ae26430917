"""Training jobs, forked from a process that has loaded the libraries: loading them takes longer than training.

`python -m tests.train.helpers.jobs` reads lines `{"job": …, "arguments": […], "out": FILE, "err": FILE}`. It runs each
job in a process of its own, and answers with the exit status. The files hold the output; the last line of the first one
is the job's result as JSON.
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

from tests.train.helpers import kills, ranks, scripts

JOBS: dict[str, Callable[..., Any]] = {"kills": kills.job, "ranks": ranks.job, "scripts": scripts.job}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print there
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
    """Run a job, then end the process; a process that the job forks ends here, too."""
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
