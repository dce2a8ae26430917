"""Identify a checkpoint by its files, and record which checkpoint a LoRA adapter was trained on."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from convkit.errors import ConvkitError

BASE = "base.json"
"""The file next to an adapter with the directory and fingerprint of its base model."""


def fingerprint(directory: Path) -> str:
    """Return a digest of the names and bytes of all files in a directory, weights included.

    Subdirectories are left out. The digest detects mistaken checkpoints, not forged ones.
    """
    total = xxh3_128()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        stat = path.stat()
        total.update(f"{path.name}\0{_digest(path.absolute(), stat.st_size, stat.st_mtime_ns)}\0".encode())
    return total.hexdigest()


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Return a file's digest. It is cached because each checkpoint of a run records its base, gigabytes of weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def write_base_model(model: Path, adapter: Path) -> None:
    """Record an adapter's base model in a file next to it."""
    (adapter / BASE).write_text(json.dumps({"model": str(model), "fingerprint": fingerprint(model)}, indent=2) + "\n")


def check_base_model(model: Path, adapter: Path) -> None:
    """Check that an adapter was trained on this model; adapters without a record, made elsewhere, pass.

    Raises:
        ConvkitError: the adapter was trained on another model, or its record cannot be read.
    """
    path = adapter / BASE
    if not path.exists():
        return
    try:
        base: dict[str, Any] = json.loads(path.read_bytes())
        name, expected = str(base["model"]), base["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConvkitError(f"{path} cannot be read: {error!r}. Copy the adapter from its run again.") from None
    if fingerprint(model) != expected:
        raise ConvkitError(
            f"{adapter} was trained on {name}, but {model} is a different checkpoint or has changed since. Pass the "
            f"original one with --model; to skip this check, remove {path}."
        )
