"""Files that follow from something else: written by `python -m MODULE`, compared by `python -m MODULE --check`."""

import sys
from collections.abc import Mapping
from pathlib import Path


def stale(files: Mapping[Path, str]) -> list[Path]:
    """Those that are missing or have another text."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def write(files: Mapping[Path, str]) -> None:
    """Write all of them."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(module: str, arguments: list[str], files: Mapping[Path, str], extra: list[Path]) -> int:
    """Write the files and remove extra ones, or with --check say which are stale; exit code 1 if any is."""
    if arguments not in ([], ["--check"]):
        print(f"usage: python -m {module} [--check]", file=sys.stderr)
        return 2
    if not arguments:
        write(files)
        for path in extra:
            path.unlink()
        return 0
    for path in (paths := [*stale(files), *extra]):
        print(f"{path} is stale. Run: python -m {module}", file=sys.stderr)
    return 1 if paths else 0
