"""Read the log of a training run that may still be writing it."""

import json
from pathlib import Path
from typing import Any


def logged_steps(run: Path) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl, or none if the file does not exist yet."""
    file = run / "metrics.jsonl"
    found = file.read_bytes() if file.exists() else b""
    return [json.loads(line) for line in found.splitlines(keepends=True) if line.endswith(b"\n")]
