"""Helpers of the rule tests."""

from pathlib import Path
from typing import Any

from tests.fixtures.builders import lines


def write_dataset(directory: Path, images: dict[str, bytes], **splits: list[Any]) -> Path:
    """Write images and one row file per split."""
    (directory / "images").mkdir()
    for name, content in images.items():
        (directory / "images" / name).write_bytes(content)
    for split, rows in splits.items():
        (directory / f"pets_{split}.jsonl").write_bytes(lines(*rows))
    return directory
