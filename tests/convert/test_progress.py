"""Progress bars report the reading before the first item, and the conversion."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convkit.convert.run import convert
from convkit.converters import load_converter
from convkit.converters.base import Converter
from convkit.split.converter import Split
from convkit.utils.progress import Note, Progress
from tests.convert.helpers import clip_tree, run
from tests.convert.picture_trees import cauldron_table, docvqa_tables, image_tree

Reported = dict[str, tuple[str, list[tuple[int, int | None]]]]
"""The unit and the reported progress of each bar, by its description."""


def _reported(converter: type[Converter[Any]], source: Path, out_dir: Path, **options: object) -> Reported:
    reported: Reported = {}

    @contextmanager
    def bars(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
        seen: list[tuple[int, int | None]] = []
        yield lambda done, total: seen.append((done, total))
        reported[description] = (unit, seen.copy())

    convert(converter, str(source), converter.Options.model_validate(options), out_dir, workers=0, progress_bars=bars)
    return reported


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
    reported = _reported(load_converter(name), tmp_path / "source", tmp_path / "out")
    assert list(reported) == ["unpacking", "reading", "converting"]
    assert reported["reading"] == (unit, read)
    done, total = reported["converting"][1][-1]
    assert done == total


def test_a_split_reports_how_many_rows_are_read(tmp_path: Path) -> None:
    image_tree(tmp_path / "source")
    manifest = run("image-folder", tmp_path / "source", tmp_path / "made")
    reported = _reported(Split, tmp_path / "made", tmp_path / "out", ratios="train=0.5,val=0.5")
    rows = manifest.accounting.written
    assert reported["reading"] == ("rows", [(k, rows) for k in range(1, rows + 1)])
