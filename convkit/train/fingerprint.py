"""What a checkpoint is known by."""

import hashlib
from pathlib import Path

from xxhash import xxh3_128


def fingerprint(directory: Path) -> str:
    """A digest of the names and bytes of all files of a directory, weights included.

    Not of folders in it. It tells checkpoints apart that were mistaken for one another, not forged ones.
    """
    total = xxh3_128()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, xxh3_128).hexdigest()}\0".encode())
    return total.hexdigest()
