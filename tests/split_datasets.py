"""Datasets for the tests of `convkit split`, and a function to split them."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.dataset import Dataset
from convkit.schema import Accounting, ConverterInfo, Manifest, Row, SourceInfo, Turn
from convkit.schema import Split as SplitInfo
from convkit.split.converter import Split, SplitOptions
from tests.convert.helpers import rows

THREE = "train=0.8,val=0.1,test=0.1"


@dataclass(frozen=True)
class Sample:
    """A row of a generated dataset; equal image numbers stand for equal bytes."""

    group: str | None
    images: tuple[int, ...]
    answer: str | None
    split: str = "train"


def write(directory: Path, samples: list[Sample], order: list[int] | None = None) -> Path:
    """Write a dataset directory with a row `r<number>` per sample; each row has its own image files.

    Args:
        order: the order of the rows in their files.
    """
    files: dict[str, list[Row]] = defaultdict(list)
    for number in order or range(len(samples)):
        sample = samples[number]
        names = tuple(f"{sample.split}/{number}-{k}.png" for k in range(len(sample.images)))
        for name, content in zip(names, sample.images, strict=True):
            path = directory / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((8, 8, 3), (content // 256, content % 256, 7), np.uint8)
            pixels[0] = 255
            PIL.Image.fromarray(pixels).save(path)
        answer: dict[str, Any] = {} if sample.answer is None else {"assistant": sample.answer}
        group: dict[str, Any] = {} if sample.group is None else {"group": sample.group}
        turn = Turn(images=names, user="What?", **answer)
        files[sample.split].append(Row(id=f"r{number}", source="made", conversations=(turn,), **group))
    write_manifest(directory, files)
    return directory


def write_manifest(directory: Path, files: Mapping[str, list[Row]]) -> None:
    splits = {}
    (directory / "images").mkdir(parents=True, exist_ok=True)
    for name, found in files.items():
        content = b"".join(row.to_line() + b"\n" for row in found)
        (directory / f"made_{name}.jsonl").write_bytes(content)
        turns = [turn for row in found for turn in row.conversations]
        images = sum(len(turn.images) for turn in turns)
        splits[name] = SplitInfo(
            file=f"made_{name}.jsonl",
            rows=len(found),
            turns=len(turns),
            images=images,
            sha256=hashlib.sha256(content).hexdigest(),
        )
    count = sum(map(len, files.values()))
    accounting = Accounting(
        unit="row", read=count, written=count, quarantined=0, excluded={}, notes={}, media_files=0, media_bytes=0
    )
    manifest = Manifest(
        format_version=1,
        name="made",
        splits=splits,
        converter=ConverterInfo(name="made", version=1, options={}),
        source=SourceInfo(name="made", fingerprint="0" * 64),
        accounting=accounting,
    )
    (directory / "dataset.json").write_text(manifest.model_dump_json())


def split(source: Path, out_dir: Path, ratios: str = THREE, workers: int = 0, **options: Any) -> Manifest:
    chosen = SplitOptions.model_validate({"ratios": ratios, **options})
    return convert(Split, str(source), chosen, out_dir, workers=workers, policy=Policy("fail"))


def placed(out_dir: Path) -> dict[str, str]:
    """Return the split of each row id."""
    return {row["id"]: name for name in Dataset.open(out_dir).manifest.splits for row in rows(out_dir, name)}


def plain(count: int, answers: str = "ab") -> list[Sample]:
    return [Sample(None, (number,), answers[number % len(answers)]) for number in range(count)]


SAMPLES = [
    *(Sample(f"g{n // 3}", (n,), "ab"[n // 3 % 2]) for n in range(60)),
    *(Sample(None, (1000 + n // 2,), "c") for n in range(20)),
    Sample("unlabelled", (5000,), None, "test"),
]
