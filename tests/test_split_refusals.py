"""Options and sources that cannot be split are refused with the reason, and leave no directory."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from convkit.errors import SourceError
from convkit.split.converter import Split, SplitOptions
from convkit.utils.progress import Progress
from tests.split_datasets import SAMPLES, Sample, split, write


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "source", SAMPLES)


EXAMPLE = "train=0.8,val=0.1,test=0.1"


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ("train=0.8,val=0.1", "the shares add up to 0.9, and must add up to 1"),
        ("train=0.8,val=0.3", "add up to 1.1"),
        ("train=0.8,train=0.2", "train has two shares"),
        ("train", "write NAME=SHARE for each split"),
        ("", "add up to 0"),
        ("train=1,val=0", "greater than 0"),
        ("train=nan", f"write a number for each share: {EXAMPLE} "),
        ("train=much", f"write a number for each share: {EXAMPLE} "),
        ("train=8,val=2", rf"the shares add up to 10, and must add up to 1 \(or 100\), as in {EXAMPLE} "),
        ("train=80,val=30", "the shares add up to 110, and must add up to 1"),
        ("train=1.5,val=-0.5", "greater than 0"),
        ("train=101,val=-1", "greater than 0"),
        ("80,20", "write NAME=SHARE for each split, with commas between: train=0.8,val=0.2 "),
        ("0.8/0.2", "with commas between: train=0.8,val=0.2 "),
        ("80%/10%/10%", "with commas between: train=0.8,val=0.1,test=0.1 "),
        ("0.7 0.2 0.1", "with commas between: train=0.7,val=0.2,test=0.1 "),
        ("a:0.5,b:0.5", "with commas between: a=0.5,b=0.5 "),
        ("a=80 b=20", "with commas between: a=0.8,b=0.2 "),
        ("a=0.8;b=0.2", "with commas between: a=0.8,b=0.2 "),
        ("train,val", f"with commas between: {EXAMPLE} "),
        ("25,25,25,25", f"with commas between: {EXAMPLE} "),
        ("../train=1", "match pattern"),
    ],
)
def test_invalid_ratios_are_refused(ratios: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SplitOptions.model_validate({"ratios": ratios})


@pytest.mark.parametrize(
    "text", ["train=80,val=12.5,test=7.5", "train=80%,val=12.5%,test=7.5%", "train=.8, val=0.125,test=0.075"]
)
def test_percentages_with_names_are_understood(text: str) -> None:
    assert SplitOptions.model_validate({"ratios": text}).ratios == {"train": 0.8, "val": 0.125, "test": 0.075}


def test_an_empty_split_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = write(tmp_path / "source", [Sample("one", (n,), "a") for n in range(9)])
    reason = r"test would be empty: its share is 0.2 of 9 rows, which are 1 groups .* the largest of 9 rows"
    with pytest.raises(SourceError, match=reason):
        split(source, tmp_path / "out", "train=0.8,test=0.2")
    assert not (tmp_path / "out").exists()


def broken(directory: Path) -> Iterator[tuple[str, str]]:
    """Damage a copy of a dataset in several ways, and yield each damage with its message."""
    file = directory / "made_train.jsonl"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"What?", b"Who??", 1))
    yield "changed", "is not the file that the manifest describes"
    file.write_bytes(content + b"{}\n")
    yield "unsound", "is not a valid row"
    file.unlink()
    yield "missing", "cannot be read"
    file.write_bytes(content)
    image = directory / "images/train/7-0.png"
    image.rename(directory / "moved.png")
    yield "no image", r"the image 'train/7-0.png' of .* cannot be read: No such file"
    image.symlink_to(directory / "moved.png")
    yield "outside", "is outside of it"
    (directory / "dataset.json").unlink()
    yield "no manifest", "has no dataset.json"
    (directory / ".partial").mkdir()
    yield "unfinished", "is not finished"


def test_an_incomplete_source_is_refused(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    for what, message in broken(copy):
        with pytest.raises(SourceError, match=message):
            split(copy, tmp_path / "out")
        assert not (tmp_path / "out").exists(), what


def test_a_split_that_does_not_exist_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no split dev\. Its splits: train, test"):
        split(source, tmp_path / "out", splits="train,dev")


@pytest.mark.parametrize(("link", "change"), [(False, "image"), (True, "row")])
def test_a_source_that_changes_during_the_split_ends_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool, change: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    listed = Split.iter_with_progress

    def changed(self: Split, progress: Progress) -> Iterator[Any]:
        found = list(listed(self, progress))
        path = copy / ("images/train/0-0.png" if change == "image" else "made_train.jsonl")
        path.write_bytes(path.read_bytes().replace(b"What?", b"Who??") + b"!")
        yield from found

    monkeypatch.setattr(Split, "iter_with_progress", changed)
    with pytest.raises(SourceError, match=f"changed-{change}"):
        split(copy, tmp_path / "out", link=link)
