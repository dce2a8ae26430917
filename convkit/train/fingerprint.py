"""Which checkpoint a run began with, and an adapter belongs to: known by its files, without reading the weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from convkit.errors import ConvkitError

BASE = "base.json"
"""Beside an adapter: the directory and the fingerprint of the checkpoint that it was trained on."""
_DESCRIBING = 64 * 2**20
"""Files of a checkpoint up to this size are known by their content, larger ones, which hold weights, by their size."""


def fingerprint(directory: Path) -> str:
    """Of a checkpoint's files, wherever they lie."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        size = path.stat().st_size
        total.update(f"{path.name}\0{size}\0".encode())
        if size <= _DESCRIBING:
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def write_base(model: Path, adapter: Path) -> None:
    """Leave word of an adapter's base beside it."""
    (adapter / BASE).write_text(json.dumps({"model": str(model), "fingerprint": fingerprint(model)}, indent=2) + "\n")


def require_base(model: Path, adapter: Path) -> None:
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
