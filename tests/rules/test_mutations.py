"""Every way to break a clean data set that is listed is noticed, or known not to be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import DatasetError
from convkit.receipt import require
from convkit.validate.run import validate
from tests.rules.mutations import MUTATIONS, NOT_THERE, PAGE, Mutation, clean, flip_jpeg, page, swap_files
from tests.validate.helpers import codes, report_of

BY_NAME = [pytest.param(mutation, id=mutation.what.replace(" ", "-")) for mutation in MUTATIONS]


@pytest.mark.parametrize("described", [True, False], ids=["described", "bare"])
def test_the_set_is_clean(tmp_path: Path, described: bool) -> None:
    assert report_of(clean(tmp_path / "pets", described=described)).findings == []


@pytest.mark.parametrize("mutation", BY_NAME)
def test_with_a_manifest(tmp_path: Path, mutation: Mutation) -> None:
    check(clean(tmp_path / "pets", described=True), mutation, mutation.described)


@pytest.mark.parametrize("mutation", BY_NAME)
def test_row_files_and_images_alone(tmp_path: Path, mutation: Mutation) -> None:
    if mutation.bare != NOT_THERE:
        check(clean(tmp_path / "pets", described=False), mutation, mutation.bare)


def check(directory: Path, mutation: Mutation, expected: str) -> None:
    mutation.apply(directory)
    found = codes(report_of(directory))
    assert set(expected.split()) <= set(found)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("change", [swap_files, flip_jpeg])
def test_other_images_are_refused_by_the_gate_and_told_of(tmp_path: Path, change: Callable[[Path], None]) -> None:
    directory = clean(tmp_path / "pets", described=True)
    assert validate([directory], workers=0).notes == validate([directory], workers=0).notes == ()
    require(directory)
    change(directory)
    with pytest.raises(DatasetError, match="images have changed since it was validated"):
        require(directory)
    assert validate([directory], workers=0).notes == (
        f"other images than at the last validation, in the same rows: {directory}/images",
    )
    require(directory)


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
