"""The command `convkit split`: output, exit codes and error messages."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.split_datasets import plain, write


def convkit(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "convkit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "source", plain(40))


def test_a_dataset_is_split_and_valid(source: Path, tmp_path: Path) -> None:
    arguments = ("split", source, "--out_dir", tmp_path / "out", "--ratios", "train=0.75,test=0.25", "--no-stratify")
    done = convkit(*arguments)
    assert done.returncode == 0, done.stderr
    assert "made: 40 rows read = 40 written + 0 quarantined" in done.stdout
    options = json.loads((tmp_path / "out/dataset.json").read_bytes())["converter"]["options"]
    assert options == {"ratios": {"train": 0.75, "test": 0.25}, "seed": 0, "stratify": False, "splits": []}
    assert convkit("validate", tmp_path / "out").returncode == 0
    again = convkit(*arguments)
    assert (again.returncode, again.stdout) == (0, done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratios", "train=0.5"], "--ratios train=0.5: the shares add up to 0.5, and must add up to 1"),
        (["--ratios", "train"], "write NAME=SHARE for each split"),
        (["--ratios", "a=1", "--splits", "dev"], "has no split dev. Its splits: train."),
        (["--ratios", "a=0.999,b=0.001"], "the split b would be empty"),
        ([], "Missing option '--ratios'"),
    ],
)
def test_wrong_options_are_refused(source: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = convkit("split", source, "--out_dir", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_source_is_refused_as_output(source: Path) -> None:
    before = sorted(source.rglob("*"))
    done = convkit("split", source, "--out_dir", source, "--ratios", "a=1")
    assert done.returncode == 2
    assert f"{source} is the source itself. Choose another folder for --out_dir." in done.stderr
    assert sorted(source.rglob("*")) == before


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file.txt").touch()
    done = convkit("split", tmp_path / "folder", "--out_dir", tmp_path / "out", "--ratios", "a=1")
    assert done.returncode == 2
    assert "has no dataset.json. Pass a dataset directory that convkit convert wrote." in done.stderr
    missing = convkit("split", tmp_path / "nothing", "--out_dir", tmp_path / "out", "--ratios", "a=1")
    assert (missing.returncode, "does not exist" in missing.stderr) == (2, True)
