"""What progress bars are told: of the reading before the first item, and of the conversion."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convkit.convert.run import convert
from convkit.converters import load_converter
from convkit.converters.base import Converter
from convkit.split import Split
from convkit.utils.progress import Note, Progress
from tests.convert.helpers import clip_tree, run
from tests.convert.picture_trees import cauldron_table, docvqa_tables, image_tree

Told = dict[str, tuple[str, list[tuple[int, int | None]]]]
"""By a bar's description: the unit, and what it was told before it was closed."""


def _told(converter: type[Converter[Any]], source: Path, out_dir: Path, **options: object) -> Told:
    told: Told = {}

    @contextmanager
    def bars(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
        seen: list[tuple[int, int | None]] = []
        yield lambda done, total: seen.append((done, total))
        told[description] = (unit, seen.copy())

    convert(converter, str(source), converter.Options.model_validate(options), out_dir, workers=0, progress_bars=bars)
    return told


@pytest.mark.parametrize(
    ("name", "make", "unit", "read"),
    [
        ("cauldron", cauldron_table, "rows", [(10, 40), (20, 40), (30, 40), (40, 40)]),
        ("docvqa", docvqa_tables, "questions", [(k, 11) for k in range(1, 12)]),
        ("image-folder", image_tree, "images", [(k, None) for k in range(1, 14)]),
        ("video-folder", clip_tree, "clips", []),
    ],
)
def test_reading_before_the_first_item_is_reported(
    name: str, make: Callable[[Path], None], unit: str, read: list[tuple[int, int | None]], tmp_path: Path
) -> None:
    make(tmp_path / "source")
    told = _told(load_converter(name), tmp_path / "source", tmp_path / "out")
    assert list(told) == ["unpacking", "reading", "converting"]
    assert told["reading"] == (unit, read)
    done, total = told["converting"][1][-1]
    assert done == total


def test_a_split_reports_how_many_rows_are_read(tmp_path: Path) -> None:
    image_tree(tmp_path / "source")
    manifest = run("image-folder", tmp_path / "source", tmp_path / "made")
    told = _told(Split, tmp_path / "made", tmp_path / "out", ratios="train=0.5,val=0.5")
    rows = manifest.accounting.written
    assert told["reading"] == ("rows", [(k, rows) for k in range(1, rows + 1)])
