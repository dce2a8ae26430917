"""The names inside a dataset directory, and of what is kept outside it. No other module spells them."""

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
"""What may follow `ROWS_SUFFIX` where there is no manifest."""
STDIN = "-"

WORK = ".partial"
"""Everything of an unfinished conversion that is not yet part of the product; gone once it is complete."""


def split_file(name: str, split: str) -> str:
    """The file name of a split's rows."""
    return f"{name}_{split}{ROWS_SUFFIX}"


def row_files(directory: Path) -> list[Path]:
    """The row files of a directory without a manifest, such as the recipe's own output, sorted by name.

    Of a file that lies there both plain and compressed, only the plain one counts.
    """
    files = sorted(p for p in directory.iterdir() if is_row_file(p) and p.name != QUARANTINE and p.is_file())
    return [p for p in files if p.suffix not in COMPRESSED or p.with_suffix("") not in files]


def is_row_file(path: Path) -> bool:
    """Whether a name is that of a row file, compressed or not."""
    name = path.with_suffix("") if path.suffix in COMPRESSED else path
    return name.suffix == ROWS_SUFFIX


def split_names(files: Sequence[Path]) -> list[str]:
    """The splits of row files that no manifest names, by what differs in the names: `<name>_<split>.jsonl`.

    Shards of one split, `<name>_train-00000-of-00004.jsonl`, have one name.
    """
    stems = [re.sub(r"(-\d+)(-of-\d+)?$", "", file.name.partition(ROWS_SUFFIX)[0]) for file in files]
    words = [stem.split("_") for stem in stems]
    # The last word is never common: a single file has a split, too. Nor is the one that says that all are trained on.
    columns = zip(*(w[:-1] for w in words), strict=False)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1 and not is_training(column[0]), columns))
    return ["_".join(parts[common:]) for parts in words]


def is_training(split: str) -> bool:
    """Whether a split is trained on, by its name."""
    return split.lower().startswith("train")


def media_cache(images: Path) -> Path:
    """Where is kept what was seen of the files of an images/ folder.

    In the user's cache directory (CONVKIT_CACHE, or convkit/ in XDG_CACHE_HOME), not in the data set: it is of this
    machine alone, data sets may be read-only, and what comes with somebody else's data set must not be believed.
    """
    home = os.environ.get("CONVKIT_CACHE")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convkit"
    return base / f"media-{hashlib.sha256(os.fsencode(images.resolve())).hexdigest()[:32]}.sqlite"
