"""New splits of Parquet files keep rows with equal images together."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from convkit.converters.cauldron import Cauldron
from convkit.converters.parquet import split_name
from tests.convert.helpers import rows
from tests.converters.cauldron_files import cauldron_rows, options, png, run, write

datasets: Any = pytest.importorskip("datasets")
pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def test_rows_with_equal_images_stay_in_one_split(textvqa_dataset: Path) -> None:
    splits: dict[str, set[str]] = {}
    group_of: dict[bytes, str] = {}
    for split in ("train", "val"):
        for row in rows(textvqa_dataset, split):
            for path in row["conversations"][0]["images"][:1]:
                image = (textvqa_dataset / "images" / path).read_bytes()
                assert group_of.setdefault(image, row["group"]) == row["group"]
            splits.setdefault(row["group"], set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(set(group_of.values())) == len(group_of)
    assert any(group.startswith("text-") for group in splits)


def linked_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Make rows of 0 to 3 images from a small pool, so that most rows share an image that is not their first."""
    draw = random.Random(seed)
    text = {"user": "Which?", "assistant": "This.", "source": "NLVR2"}
    made = []
    for number in range(count):
        shades = draw.sample(range(3 * count), draw.choice([0, 1, 2, 2, 3]))
        images = [{"bytes": png(shade), "path": None} for shade in shades]
        made.append({"images": images, "texts": [{**text, "user": f"Which, {number}?"}]})
    return made


@pytest.mark.parametrize("seed", range(4))
def test_rows_linked_by_any_image_stay_in_one_split(tmp_path: Path, seed: int) -> None:
    made = linked_rows(60, seed)
    write(tmp_path / "source/train-00000-of-00002.parquet", made[:30], batch=7)
    write(tmp_path / "source/train-00001-of-00002.parquet", made[30:], batch=7)
    run(tmp_path / "source", tmp_path / "out", val_fraction=0.3, test_fraction=0.2, seed=seed)
    groups: dict[bytes, set[str]] = {}
    splits: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for row in rows(tmp_path / "out", split):
            splits.setdefault(row["group"], set()).add(split)
            for path in row["conversations"][0]["images"]:
                groups.setdefault((tmp_path / "out/images" / path).read_bytes(), set()).add(row["group"])
    assert [group for group, found in splits.items() if len(found) > 1] == []
    assert all(len(found) == 1 for found in groups.values())
    assert len(splits) > 10, "all is one group: nothing was tried"


def test_images_are_hashed_while_listing_only_if_a_row_has_several(
    textvqa_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = [row for row in cauldron_rows(30) if len(row["images"]) < 2]
    write(tmp_path / "single/train.parquet", single)
    read: list[Any] = []

    def digests(self: Cauldron, group: Any) -> Any:
        read.append(group)
        return iter(())

    monkeypatch.setattr(Cauldron, "_digests", digests)
    assert sum(item.units for item in Cauldron(tmp_path / "single", options()).items()) == len(single)
    assert read == []
    list(Cauldron(textvqa_source, options()).items())
    assert len(read) == 6


def test_split_fractions_are_approximate_and_rows_are_random(textvqa_source: Path, tmp_path: Path) -> None:
    run(textvqa_source, tmp_path / "a", val_fraction=0.3, test_fraction=0.3)
    counts = {split: len(rows(tmp_path / "a", split)) for split in ("train", "val", "test")}
    assert all(8 <= count <= 36 for count in counts.values()), counts
    numbers = [int(row["id"].rsplit("-", 1)[1]) for row in rows(tmp_path / "a", "val")]
    assert numbers[:5] != [0, 1, 2, 3, 4]
    run(textvqa_source, tmp_path / "b", val_fraction=0.3, test_fraction=0.3, seed=1)
    assert row_ids(tmp_path / "a", "val") != row_ids(tmp_path / "b", "val")


def row_ids(out_dir: Path, split: str) -> set[str]:
    return {row["id"] for row in rows(out_dir, split)}


def test_fractions_that_leave_no_train_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing for train"):
        options(val_fraction=0.5, test_fraction=0.5)


def test_splits_of_the_source_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    for k, name in enumerate(("train-00000-of-00001", "test-00000-of-00001", "validation-00000-of-00001")):
        write(folder / f"{name}.parquet", cauldron_rows(20, 20 * k))
    run(folder, tmp_path / "out", val_fraction=0.5, test_fraction=0.4)
    assert Counter(row["id"].split("-")[0] for row in rows(tmp_path / "out")) == {"train": 20, "test": 20, "val": 20}


def test_only_missing_splits_are_split_off_from_train(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    write(folder / "train.parquet", cauldron_rows(40))
    write(folder / "test.parquet", cauldron_rows(10, 40))
    run(folder, tmp_path / "out", val_fraction=0.4, test_fraction=0.4)
    assert {row["id"].split("-")[1] for row in rows(tmp_path / "out", "test")} == {"test"}
    assert len(rows(tmp_path / "out", "test")) == 10
    assert rows(tmp_path / "out", "val")


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("train-00000-of-00002-0c3df4a1.parquet", "train"),
        ("deep/validation-00000-of-00001.parquet", "val"),
        ("test_seen-00000-of-00001.parquet", "test_seen"),
        ("dev.parquet", "val"),
        ("train_data.parquet", "train"),
        ("training-00000-of-00001.parquet", "train"),
        ("docvqa-00000-of-00001.parquet", "train"),
        ("0000.parquet", "train"),
    ],
)
def test_the_file_name_gives_the_split(file: str, split: str) -> None:
    assert split_name(file) == split
