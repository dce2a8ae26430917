"""Jobs of training in processes that are forked from one which has loaded the libraries: see `tests.train.jobs`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.train.helpers.processes import ENVIRONMENT


class Forks:
    """The process that jobs are forked from, for the time of a `with`."""

    def __enter__(self) -> "Forks":
        environment = {**os.environ, **ENVIRONMENT}
        command = [sys.executable, "-m", "tests.train.helpers.jobs"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, job: str, *arguments: Any, folder: Path) -> Any:
        """Do a job; returns what came of it. What it said goes to a folder, and from there to stderr."""
        out, err = folder / "job.out", folder / "job.err"
        assert self._process.stdin and self._process.stdout
        wanted = {"job": job, "arguments": arguments, "out": out, "err": err}
        self._process.stdin.write(json.dumps(wanted, default=str) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        said = err.read_text()
        assert status == "0\n", f"{wanted}: {said}"
        sys.stderr.write(said)  # pytest shows it where a test fails
        return json.loads(out.read_text().splitlines()[-1])
