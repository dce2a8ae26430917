"""Every listed mutation of a clean dataset is found, or is known to leave a valid dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import DatasetError
from convkit.receipt import require
from convkit.validate.run import validate
from tests.rules.mutations import MUTATIONS, NOT_APPLICABLE, Mutation, clean, flip_jpeg, swap_files
from tests.validate.helpers import codes, report_of

BY_NAME = [pytest.param(mutation, id=mutation.change.replace(" ", "-")) for mutation in MUTATIONS]


@pytest.mark.parametrize("with_manifest", [True, False], ids=["with_manifest", "without_manifest"])
def test_the_dataset_is_clean_before_the_mutation(tmp_path: Path, with_manifest: bool) -> None:
    assert report_of(clean(tmp_path / "pets", with_manifest=with_manifest)).findings == []


@pytest.mark.parametrize("mutation", BY_NAME)
def test_a_mutation_is_found_with_a_manifest(tmp_path: Path, mutation: Mutation) -> None:
    check(clean(tmp_path / "pets", with_manifest=True), mutation, mutation.with_manifest)


@pytest.mark.parametrize("mutation", BY_NAME)
def test_a_mutation_is_found_without_a_manifest(tmp_path: Path, mutation: Mutation) -> None:
    if mutation.without_manifest != NOT_APPLICABLE:
        check(clean(tmp_path / "pets", with_manifest=False), mutation, mutation.without_manifest)


def check(directory: Path, mutation: Mutation, expected: str) -> None:
    mutation.apply(directory)
    found = codes(report_of(directory))
    assert set(expected.split()) <= set(found)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("change", [swap_files, flip_jpeg])
def test_changed_images_invalidate_the_receipt_and_are_noted(tmp_path: Path, change: Callable[[Path], None]) -> None:
    directory = clean(tmp_path / "pets", with_manifest=True)
    assert validate([directory], workers=0).notes == validate([directory], workers=0).notes == ()
    require(directory)
    change(directory)
    with pytest.raises(DatasetError, match="images have changed since it was validated"):
        require(directory)
    assert validate([directory], workers=0).notes == (
        f"images changed since the last validation, in the same rows: {directory}/images",
    )
    require(directory)
