"""Every listed mutation of a clean dataset is found, or is known to leave a valid dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import DatasetError
from convkit.receipt import require
from convkit.validate.run import validate
from tests.rules.mutations import MUTATIONS, NOT_THERE, Mutation, clean, flip_jpeg, swap_files
from tests.validate.helpers import codes, report_of

BY_NAME = [pytest.param(mutation, id=mutation.what.replace(" ", "-")) for mutation in MUTATIONS]


@pytest.mark.parametrize("described", [True, False], ids=["described", "bare"])
def test_the_dataset_is_clean_before_the_mutation(tmp_path: Path, described: bool) -> None:
    assert report_of(clean(tmp_path / "pets", described=described)).findings == []


@pytest.mark.parametrize("mutation", BY_NAME)
def test_a_mutation_is_found_with_a_manifest(tmp_path: Path, mutation: Mutation) -> None:
    check(clean(tmp_path / "pets", described=True), mutation, mutation.described)


@pytest.mark.parametrize("mutation", BY_NAME)
def test_a_mutation_is_found_without_a_manifest(tmp_path: Path, mutation: Mutation) -> None:
    if mutation.bare != NOT_THERE:
        check(clean(tmp_path / "pets", described=False), mutation, mutation.bare)


def check(directory: Path, mutation: Mutation, expected: str) -> None:
    mutation.apply(directory)
    found = codes(report_of(directory))
    assert set(expected.split()) <= set(found)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("change", [swap_files, flip_jpeg])
def test_changed_images_invalidate_the_receipt_and_are_noted(tmp_path: Path, change: Callable[[Path], None]) -> None:
    directory = clean(tmp_path / "pets", described=True)
    assert validate([directory], workers=0).notes == validate([directory], workers=0).notes == ()
    require(directory)
    change(directory)
    with pytest.raises(DatasetError, match="images have changed since it was validated"):
        require(directory)
    assert validate([directory], workers=0).notes == (
        f"images changed since the last validation, in the same rows: {directory}/images",
    )
    require(directory)
