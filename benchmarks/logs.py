"""The log of a run that may be writing it."""

import json
from pathlib import Path
from typing import Any


def steps(run: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl; none before it is there."""
    file = run / "metrics.jsonl"
    found = file.read_bytes() if file.exists() else b""
    return [json.loads(line) for line in found.splitlines(keepends=True) if line.endswith(b"\n")]
