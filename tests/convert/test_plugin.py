"""Converters of installed packages: they are found by entry point and have options of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.convert.toy import write_lines
from tests.wheels import install, make_wheel

PAGE = (ROOT / "docs/converters.md").read_text(encoding="utf-8")
EXAMPLE = PAGE[PAGE.index("## Write a converter") :]
(CAPTIONS,) = re.findall(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
MODULE = '''
from pathlib import Path

from pydantic import Field

from convkit.converters.base import Converter, Item, Options, Record
from convkit.schema import Row, Turn


class WordsOptions(Options):
    repeat: int = Field(1, ge=1, description="How often each word is repeated.")
    backwards: bool = Field(False, description="Say it backwards.")


class Words(Converter[Item]):
    """Words of a text file."""

    name, unit, version = "other-words", "word", 3
    Options = WordsOptions

    def items(self):
        for number, _ in enumerate((self.root / "lines.txt").read_text().split(), 1):
            yield Item(f"lines.txt:{number}")

    def convert(self, item):
        number = int(item.address.split(":")[1])
        word = (self.root / "lines.txt").read_text().split()[number - 1]
        word = word[::-1] if self.options.backwards else word
        turn = Turn(images=(), user=f"Say word {number}.", assistant=" ".join([word] * self.options.repeat))
        return Record("train", (Row(id=str(number), source=self.name, conversations=(turn,)),))
'''


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install two valid packages, a broken one, and one that reuses a name of convkit's; return their folder."""
    folder = tmp_path_factory.mktemp("packages")
    group = "[convkit.converters]\n"
    wheels = [
        make_wheel(folder, "other_words", f"{group}other-words = other_words:Words\n", {"other_words.py": MODULE}),
        make_wheel(folder, "my_package", f"{group}captions = my_package:Captions\n", {"my_package.py": CAPTIONS}),
        make_wheel(folder, "broken", f"{group}broken = a_module_that_is_missing:Broken\n", {"broken.py": ""}),
        make_wheel(folder, "usurper", f"{group}ucf101 = other_words:Words\n", {"usurper.py": ""}),
    ]
    return install(folder / "site", wheels)


def _convkit(packages: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "convkit", "convert", *arguments],
        env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_listed_with_its_package(packages: Path) -> None:
    result = _convkit(packages, "--list")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^other-words +from the package other_words$", result.stdout, re.M)
    assert re.search(r"^broken +from the package broken$", result.stdout, re.M)
    assert re.search(r"^ucf101 +UCF-101 ", result.stdout, re.M), "convkit's own names cannot be taken"


def test_help_of_all_survives_a_broken_package(packages: Path) -> None:
    result = _convkit(packages, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "other-words" in result.stdout


def test_its_options_are_in_its_help(packages: Path) -> None:
    result = _convkit(packages, "other-words", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    output = " ".join(result.stdout.split())
    assert re.search(
        r"--repeat \S+ How often each word is repeated\. Default: 1\. --backwards Say it backwards\.", output
    )
    assert "--out_dir" in output


@pytest.mark.parametrize("workers", ["0", "2"])
def test_it_converts(packages: Path, workers: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "abc def")
    options = ["--repeat", "2", "--backwards", "--workers", workers]
    result = _convkit(packages, "other-words", "--source", str(source), "--out_dir", str(tmp_path / "out"), *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert "other-words: 2 words read = 2 written + 0 quarantined" in result.stdout
    lines = (tmp_path / "out/other-words_train.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["conversations"][0]["assistant"] for line in lines] == ["cba cba", "fed fed"]
    made_by = json.loads((tmp_path / "out/dataset.json").read_bytes())["converter"]
    assert made_by == {"name": "other-words", "version": 3, "options": {"repeat": 2, "backwards": True}}


def test_its_options_are_checked(packages: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "abc")
    arguments = ["--source", str(source), "--out_dir", str(tmp_path / "out"), "--repeat", "0"]
    result = _convkit(packages, "other-words", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "repeat" in result.stderr


def test_a_broken_package_is_named(packages: Path, tmp_path: Path) -> None:
    result = _convkit(packages, "broken", "--source", str(tmp_path), "--out_dir", str(tmp_path / "out"))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    message = " ".join(result.stderr.split())
    assert "the converter 'broken' (a_module_that_is_missing:Broken, from the package broken) does not load" in message
    assert "No module named 'a_module_that_is_missing'. Reinstall or remove the package" in message


def test_an_unknown_converter_is_refused(packages: Path, tmp_path: Path) -> None:
    result = _convkit(packages, "ufc101", "--out_dir", str(tmp_path / "out"))
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert "ufc101" in result.stderr


def test_the_documented_example_converts_as_shown(packages: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red").save(photos / f"{name}.jpg")
    (photos / "a.txt").write_text("A red square.\n")
    result = _convkit(packages, "captions", "--source", str(photos), "--out_dir", str(tmp_path / "data/captions"))
    assert (result.returncode, result.stderr) == (1, "")
    (output,) = re.findall(r"\$ convkit convert captions [^\n]*\n(.*?)```", EXAMPLE, re.DOTALL)
    assert result.stdout.startswith(output)
    (row,) = map(json.loads, (tmp_path / "data/captions/captions_train.jsonl").read_bytes().splitlines())
    assert row["conversations"] == [
        {"images": ["train/a.jpg"], "user": "Describe the image.", "assistant": "A red square."}
    ]
    quarantined = json.loads((tmp_path / "data/captions/quarantine.jsonl").read_bytes())
    assert (quarantined["address"], quarantined["rule"]) == ("b.jpg", "missing-caption")
