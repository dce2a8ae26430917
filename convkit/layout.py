"""File names inside a dataset directory, and the path of its media cache; no other module spells them."""

import hashlib
import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

MANIFEST = "dataset.json"
RECEIPT = "receipt.json"
QUARANTINE = "quarantine.jsonl"
IMAGES = "images"
ROWS_SUFFIX = ".jsonl"
COMPRESSED = (".gz", ".zst")
"""Suffixes that may follow `ROWS_SUFFIX` in a directory without a manifest."""
STDIN = "-"

WORK = ".partial"
"""The work directory of an unfinished conversion; removed when the dataset is complete."""


def split_file(name: str, split: str) -> str:
    """Return the file name of a split's rows."""
    return f"{name}_{split}{ROWS_SUFFIX}"


def row_files(directory: Path) -> list[Path]:
    """Return the row files of a directory without a manifest, such as the recipe's own output, sorted by name.

    If a file exists both plain and compressed, only the plain one counts.
    """
    files = sorted(p for p in directory.iterdir() if is_row_file(p) and p.name != QUARANTINE and p.is_file())
    return [p for p in files if p.suffix not in COMPRESSED or p.with_suffix("") not in files]


def is_row_file(path: Path) -> bool:
    """Return whether a path has the suffix of a row file, compressed or not."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return name.suffix == ROWS_SUFFIX


def split_names(files: Sequence[Path]) -> list[str]:
    """Return the splits of row files without a manifest: the part of the name that differs, `<name>_<split>.jsonl`.

    Shards of one split, such as `<name>_train-00000-of-00004.jsonl`, have the same split.
    """
    stems = [re.sub(r"(-\d+)(-of-\d+)?$", "", file.name.partition(ROWS_SUFFIX)[0]) for file in files]
    words = [stem.split("_") for stem in stems]
    # The last word is never common, since a single file has a split, too. Neither is a word for training data.
    columns = zip(*(w[:-1] for w in words), strict=False)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1 and not is_training(column[0]), columns))
    return ["_".join(parts[common:]) for parts in words]


def is_training(split: str) -> bool:
    """Return whether a split holds training data, by its name."""
    return split.lower().startswith("train")


def media_cache(images: Path) -> Path:
    """Return the path of the media cache of an images/ folder.

    It is in the user's cache directory (CONVKIT_CACHE, or convkit/ in XDG_CACHE_HOME) and not in the dataset. It holds
    for this machine only, datasets may be read-only, and a cache from somebody else cannot be trusted.
    """
    home = os.environ.get("CONVKIT_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convkit"
    return base / f"media-{hashlib.sha256(os.fsencode(images.resolve())).hexdigest()[:32]}.sqlite"
