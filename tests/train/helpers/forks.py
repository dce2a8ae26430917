"""Run training jobs in processes forked from one that has loaded the libraries; see `tests.train.helpers.jobs`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.train.helpers.processes import ENVIRONMENT


class Forks:
    """Context manager of the process that jobs are forked from."""

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
        """Run a job and return its result; its output goes into a folder, and from there to stderr."""
        out, err = folder / "job.out", folder / "job.err"
        assert self._process.stdin and self._process.stdout
        wanted = {"job": job, "arguments": arguments, "out": out, "err": err}
        self._process.stdin.write(json.dumps(wanted, default=str) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        output = err.read_text()
        assert status == "0\n", f"{wanted}: {output}"
        sys.stderr.write(output)  # pytest shows it where a test fails
        return json.loads(out.read_text().splitlines()[-1])
