"""Helpers of the conversion tests: generated sources, and directories compared by digest."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from convkit.convert.error_budget import Policy
from convkit.convert.run import convert
from convkit.converters import load_converter
from convkit.converters.base import Converter
from convkit.errors import SourceError
from convkit.schema import Manifest
from tests.convert.toy import Lines
from tests.fixtures.make_clips import CLASSES, make, write_clip

SOUND_CLIP = "train/Run/sound.avi"
"""The clip of the fixture `source`."""

__all__ = [
    "SOUND_CLIP",
    "assert_quarantined",
    "assert_refused",
    "clip_tree",
    "easy_vqa_tree",
    "official_tree",
    "quarantined",
    "rows",
    "run",
    "run_lines",
    "tree",
    "write_clip",
]


def run(name: str, source: Path | str | None, out_dir: Path, workers: int = 0, **options: Any) -> Manifest:
    """Convert a source with the named converter."""
    converter = load_converter(name)
    address = None if source is None else str(source)
    return convert(converter, address, converter.Options(**options), out_dir, workers=workers)


def run_lines(source: Path, out_dir: Path, workers: int = 0, policy: Policy | None = None) -> Manifest:
    """Convert a source with `Lines`, which does what each line says."""
    converter: type[Converter[Any]] = Lines
    return convert(converter, str(source), Lines.Options(), out_dir, workers=workers, policy=policy or Policy())


def tree(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by relative path."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def rows(out_dir: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of one split or of all splits as plain JSON."""
    manifest = Manifest.model_validate_json((out_dir / "dataset.json").read_bytes())
    files = [s.file for name, s in manifest.splits.items() if split in (None, name)]
    return [json.loads(line) for file in files for line in (out_dir / file).read_bytes().splitlines()]


def quarantined(out_dir: Path) -> dict[str, tuple[str, str]]:
    """Return rule and reason of each quarantined entry, by address."""
    path = out_dir / "quarantine.jsonl"
    found = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return {entry["address"]: (entry["rule"], entry["reason"]) for entry in found}


def assert_refused(source: Path, message: str, **options: Any) -> None:
    """Check that ucf101 refuses the source as a whole, and leaves no directory."""
    out_dir = source.parent / "out"
    with pytest.raises(SourceError, match=message):
        run("ucf101", source, out_dir, **options)
    assert not out_dir.exists()


def assert_quarantined(source: Path, expected: dict[str, tuple[str, str]]) -> None:
    """Check that everything but the sound clip is quarantined: address -> (rule, part of the reason)."""
    manifest = run("ucf101", source, source.parent / "out")
    found = quarantined(source.parent / "out")
    assert found.keys() == expected.keys()
    for address, (rule, reason) in expected.items():
        assert (found[address][0], reason in found[address][1]) == (rule, True), found[address]
    assert [row["conversations"][0]["assistant"] for row in rows(source.parent / "out")] == ["Run"]
    assert manifest.accounting.written == 1


def clip_tree(folder: Path) -> None:
    """Write clips by split and class, with one invalid video and one file of another type."""
    make(folder, 1)
    (folder / "train/MoveUp/v_MoveUp_g09_c01.avi").write_bytes(b"this is no video")
    (folder / "train/MoveUp/notes.txt").write_text("not a clip")


def official_tree(folder: Path) -> None:
    """Write the layout of the official release: classes without splits, and lists with CRLF; group 4 is in no list."""
    clip_tree(folder / "made")
    for path in sorted((folder / "made").glob("*/*/*.avi")):
        target = folder / "UCF-101" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    shutil.rmtree(folder / "made")
    write_official_lists(folder / "ucfTrainTestlist", folder / "UCF-101")


def write_official_lists(lists: Path, clips: Path) -> None:
    """Write the lists of three folds: in fold n, group n is test, group 4 in no list, and all others are train."""
    lists.mkdir(parents=True)
    numbers = {label: number for number, label in enumerate(CLASSES, 1)}
    names = sorted(f"{path.parent.name}/{path.name}" for path in clips.glob("*/*.avi"))
    for fold in (1, 2, 3):
        test = [name for name in names if f"_g0{fold}_" in name]
        train = [name for name in names if name not in test and "_g04_" not in name]
        labelled = [f"{name} {numbers[name.split('/')[0]]}" for name in train]
        (lists / f"trainlist0{fold}.txt").write_bytes("".join(f"{line}\r\n" for line in labelled).encode())
        (lists / f"testlist0{fold}.txt").write_bytes("".join(f"{line}\r\n" for line in test).encode())


def easy_vqa_tree(folder: Path) -> None:
    """Write the layout of easy-VQA: 12 + 4 images, of which the first two are equal, and questions on a missing one."""
    for split, count in (("train", 12), ("test", 4)):
        (folder / split / "images").mkdir(parents=True)
        questions = []
        for number in range(count):
            shade = (0 if split == "train" and number == 1 else number) * 10 + (5 if split == "test" else 0)
            picture = Image.frombytes("L", (64, 64), Random(shade).randbytes(64 * 64)).convert("RGB")
            picture.save(folder / split / f"images/{number}.png")
            questions += [[f"Question {k}?", "yes", number] for k in range(3)]
        questions.append(["Where is it?", "nowhere", count])
        (folder / split / "questions.json").write_text(json.dumps(questions))


def mtimes(directory: Path) -> dict[str, int]:
    """Return the modification time of each file and folder in nanoseconds."""
    return {str(path): os.stat(path).st_mtime_ns for path in [directory, *directory.rglob("*")]}
