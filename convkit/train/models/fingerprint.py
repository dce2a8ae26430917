"""What a checkpoint is known by; and which one an adapter belongs to."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from convkit.errors import ConvkitError

BASE = "base.json"
"""Beside an adapter: the directory and the fingerprint of the checkpoint that it was trained on."""


def fingerprint(directory: Path) -> str:
    """A digest of the names and bytes of all files of a directory, weights included.

    Not of folders in it. It tells checkpoints apart that were mistaken for one another, not forged ones.
    """
    total = xxh3_128()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        stat = path.stat()
        total.update(f"{path.name}\0{_digest(path.absolute(), stat.st_size, stat.st_mtime_ns)}\0".encode())
    return total.hexdigest()


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Kept: each of a run's checkpoints names its base, whose weights are gigabytes to read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def write_base_model(model: Path, adapter: Path) -> None:
    """Leave word of an adapter's base beside it."""
    (adapter / BASE).write_text(json.dumps({"model": str(model), "fingerprint": fingerprint(model)}, indent=2) + "\n")


def check_base_model(model: Path, adapter: Path) -> None:
    """Refuse a checkpoint that an adapter was not trained on; of an adapter made elsewhere nothing is known.

    Raises:
        ConvkitError: it is another one, or what stands beside the adapter cannot be read.
    """
    path = adapter / BASE
    if not path.exists():
        return
    try:
        base: dict[str, Any] = json.loads(path.read_bytes())
        name, wanted = str(base["model"]), base["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConvkitError(f"{path} cannot be read: {error!r}. Take the adapter from its run again.") from None
    if fingerprint(model) != wanted:
        raise ConvkitError(
            f"{adapter} was trained on {name}, and {model} is another checkpoint, or was changed since. Name the one "
            f"that it was trained on with --model; if you know better, remove {path}."
        )
