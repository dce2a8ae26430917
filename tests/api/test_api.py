"""The Python API: the functions and types that `import convkit` offers."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import convkit
from tests.fixtures.make_clips import make


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 4), ("val", 2)):
        for number, colour in enumerate(("red", "green")):
            for index in range(count):
                path = folder / split / colour / f"{split}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                size = (40 + 9 * index + (5 if split == "val" else 0), 30 + 7 * number)
                image = Image.new("RGB", size, colour)
                image.paste((250, 240, 30 * index), (3, 3, 9 + 4 * index, 20))
                image.save(path)
    return folder


@pytest.fixture(scope="module")
def dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> convkit.Dataset:
    return convkit.convert("image-folder", tmp_path_factory.mktemp("data") / "photos", source=photos, name="photos")


def test_a_conversion_returns_the_dataset(dataset: convkit.Dataset) -> None:
    assert dataset.name == "photos"
    assert (len(dataset), len(dataset["train"]), len(dataset["val"])) == (12, 8, 4)
    assert [row.id for row in dataset] == [row.id for split in dataset.splits.values() for row in split]
    first = next(iter(dataset["train"]))
    assert isinstance(first, convkit.Row) and first.conversations[0].assistant in ("green", "red")
    assert repr(dataset).startswith("<convkit.Dataset 'photos' in ") and "train: 8 rows" in repr(dataset)


def test_paths_are_strings_or_path_objects(dataset: convkit.Dataset) -> None:
    assert len(convkit.load_dataset(str(dataset.directory))) == len(convkit.load_dataset(dataset.directory)) == 12


def test_an_unknown_split_is_an_error_that_lists_the_known_ones(dataset: convkit.Dataset) -> None:
    with pytest.raises(convkit.DatasetError, match=r"has no split 'test'. Choose one of: train, val"):
        dataset["test"]


def test_validation_returns_findings_and_writes_the_receipt(dataset: convkit.Dataset) -> None:
    report = convkit.validate(dataset, model="phi-3.5-vision", max_length=4096)
    assert report.ok and report.summary.rows == 12
    assert report.receipts == (dataset.directory / "receipt.json",)
    assert json.loads(report.to("json"))["summary"]["errors"] == 0


def test_validation_reports_errors(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"id": "a", "source": "s", "conversations": [{"images": ["x.png"], "user": "?", "assistant": "."}]}\n'
    )
    report = convkit.validate(path)
    assert not report.ok and "CK201" in {finding.code for finding in report.findings}
    assert "missing-image" in report.to("text")
    assert all(finding.severity in (convkit.Severity.ERROR, convkit.Severity.WARNING) for finding in report.findings)
    assert convkit.validate(path, ignore=["CK"]).findings == []


UNKNOWN: Any = "unknown"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: convkit.validate(), "Pass at least one dataset directory or row file"),
        (
            lambda folder: convkit.validate(folder, media=UNKNOWN),
            "media must be one of decode, header, none, not 'unknown'",
        ),
        (lambda folder: convkit.stats(folder / "missing"), "missing cannot be read"),
        (
            lambda folder: convkit.convert("image-folder", folder / "out", source=folder, on_error=UNKNOWN),
            "on_error must be quarantine or fail, not 'unknown'",
        ),
    ],
)
def test_invalid_arguments_are_errors(tmp_path: Path, call: Any, message: str) -> None:
    with pytest.raises(convkit.ConvkitError, match=message):
        call(tmp_path)


def test_statistics_count_answers(dataset: convkit.Dataset) -> None:
    found = convkit.stats(dataset, model="qwen2.5-vl")
    assert [split.rows for split in found.splits] == [8, 4]


def test_a_split_keeps_every_row(dataset: convkit.Dataset, tmp_path: Path) -> None:
    divided = convkit.split(dataset, tmp_path / "split", {"train": 0.5, "val": 0.5}, seed=3)
    assert sorted(row.id for row in divided) == sorted(row.id for row in dataset)


@pytest.mark.parametrize("options", [{"nmae": "x"}, {"name": 3}])
def test_a_wrong_converter_option_is_an_error(photos: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(convkit.ConvkitError, match=next(iter(options))):
        convkit.convert("image-folder", tmp_path / "out", source=photos, **options)


def test_quarantine_is_not_an_exception_unless_it_exceeds_max_errors(photos: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/train/red/broken.png").write_bytes(b"no image")
    found = convkit.convert("image-folder", tmp_path / "out", source=tmp_path / "photos", name="x")
    assert found.manifest.accounting.quarantined == 1
    with pytest.raises(convkit.ConvkitError, match="max_errors"):
        convkit.convert("image-folder", tmp_path / "none", source=tmp_path / "photos", name="x", max_errors=0)


def test_clips_become_frames(tmp_path: Path) -> None:
    make(tmp_path / "clips", 1)
    found = convkit.convert("video-folder", tmp_path / "out", source=tmp_path / "clips", name="clips", num_frames=2)
    assert {len(turn.images) for row in found for turn in row.conversations} == {2}


@pytest.mark.parametrize("name", ["convert", "split", "stats", "train", "validate"])
def test_packages_are_callable_and_keep_their_modules(name: str) -> None:
    function = getattr(convkit, name)
    signature = inspect.signature(function)
    assert signature == inspect.signature(getattr(__import__("convkit.api").api, name))
    assert len(signature.parameters) > 2


def test_all_public_names_exist() -> None:
    assert {name for name in convkit.__all__ if not hasattr(convkit, name)} == set()
    assert set(convkit.__all__) <= set(dir(convkit))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = convkit.nonsense
