"""The command line as a user sees it: output, exit codes, and never a traceback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pydantic import field_validator

from convkit.cli import app
from convkit.cli.convert import _options
from convkit.converters import load_converter
from convkit.errors import ConvkitError
from tests.conftest import ROOT
from tests.fixtures.make_clips import write_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source of two classes with one clip each, and one invalid clip."""
    folder = tmp_path_factory.mktemp("clips")
    for label in ("Jump", "Run"):
        write_clip(folder / "train" / label / f"v_{label}_g01_c01.avi", 10)
    (folder / "train/Run/v_Run_g02_c01.avi").write_bytes(b"no video")
    return folder


def convkit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "convkit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_version_and_help() -> None:
    assert convkit("--version").stdout.startswith("convkit 0.")
    assert convkit("-V").stdout == convkit("--version").stdout
    for arguments in ([], ["convert"], ["validate"], ["convert", "ucf101"]):
        done = convkit(*arguments, "--help")
        assert done.returncode == 0
        assert "Usage:" in done.stdout


def test_every_command_is_listed_with_a_whole_sentence_on_one_line() -> None:
    lines = convkit("--help").stdout.splitlines()
    listed = {line.split()[0]: line[12:] for line in lines[lines.index("Data:") :] if line.startswith("  ")}
    data, model = "convert split validate rule schema stats", "train evaluate score report inspect merge init-vlm"
    assert list(listed) == [*data.split(), *model.split(), "bench"]
    assert set(listed) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for summary in listed.values():
        assert re.fullmatch(r"[A-Z][a-z-]+ .*[a-z]\.", summary), summary


def test_schemas_are_listed_and_printed_as_the_repository_has_them() -> None:
    listed = [line.split()[0] for line in convkit("schema").stdout.splitlines()]
    assert sorted(f"{name}.json" for name in listed) == sorted(path.name for path in (ROOT / "schemas").iterdir())
    assert convkit("schema", "row").stdout == (ROOT / "schemas/row.json").read_text(encoding="utf-8")
    unknown = convkit("schema", "rows")
    assert unknown.returncode == 2
    assert "There is no schema 'rows'. Choose one of: row, manifest," in unknown.stderr


def test_converters_are_listed_with_what_they_read() -> None:
    listed = convkit("convert", "--list").stdout
    for name in ("ucf101", "video-folder", "easy-vqa"):
        assert f"\n{name} " in f"\n{listed}"
        assert f"  {name} " in convkit("convert", "--help").stdout


def test_converting_accounts_for_every_unit_and_sets_the_exit_code(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = convkit("convert", "ucf101", "--source", clips, "--out_dir", out, "--num_frames", "2", "--val_fraction", "0")
    assert done.returncode == 1  # something was quarantined
    assert "3 clips read = 2 written + 1 quarantined" in done.stdout
    assert f"all quarantined entries, with reasons: {out / 'quarantine.jsonl'}" in done.stdout
    assert convkit("validate", out).returncode == 0


@pytest.fixture
def empty_class(tmp_path: Path) -> Path:
    """Return a source with a class folder that holds no item, so that no unit is lost."""
    write_clip(tmp_path / "source/train/Run/v_Run_g01_c01.avi", 3)
    (tmp_path / "source/train/Bad\nName").mkdir()
    return tmp_path / "source"


def test_exit_code_1_is_explained_even_if_no_unit_was_quarantined(empty_class: Path, tmp_path: Path) -> None:
    arguments = ("convert", "video-folder", "--source", empty_class, "--out_dir", tmp_path / "out")
    done = convkit(*arguments)
    assert done.returncode == 1
    assert "1 clips read = 1 written + 0 quarantined" in done.stdout
    rejected = r"1 x empty-class (first: train/Bad\nName/: the class folder holds no video)."
    assert f"quarantined: {rejected}" in done.stdout
    reason = "exit code 1, because 1 entry of the source could not be converted. To accept this, pass --max_errors 0."
    assert reason in done.stdout
    assert (convkit(*arguments).returncode, convkit(*arguments).stdout) == (1, done.stdout)
    accepted = convkit(*arguments, "--max_errors", "0")
    assert accepted.returncode == 0
    assert rejected in accepted.stdout
    assert "exit code" not in accepted.stdout


def test_a_conversion_without_rejects_ends_with_exit_code_0(tmp_path: Path) -> None:
    write_clip(tmp_path / "source/train/Run/v_Run_g01_c01.avi", 3)
    done = convkit("convert", "video-folder", "--source", tmp_path / "source", "--out_dir", tmp_path / "out")
    assert done.returncode == 0
    assert "quarantined:" not in done.stdout
    assert "exit code" not in done.stdout


def test_options_are_accepted_with_dashes_and_max_errors_accepts_errors(clips: Path, tmp_path: Path) -> None:
    done = convkit("convert", "ucf101", "--source", clips, "--out-dir", tmp_path / "out", "--max-errors", "50%")
    assert done.returncode == 0
    assert "1 quarantined" in done.stdout


def test_a_complete_dataset_is_not_changed(clips: Path, tmp_path: Path) -> None:
    arguments = ("convert", "ucf101", "--source", clips, "--out_dir", tmp_path / "out", "--max_errors", "1")
    first, again = convkit(*arguments), convkit(*arguments)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "already complete" in again.stderr
    other = convkit(*arguments, "--num_frames", "3")
    assert other.returncode == 2
    assert "num_frames 8 there, 3 here" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["convert", "ucf102", "--out_dir", "x"],
            "unknown converter 'ucf102'. Did you mean ucf101? Known: ",
        ),
        (["convert", "video-folder", "--out_dir", "x"], "the source is missing. Pass a folder or an archive"),
        (["convert", "ucf101", "--out_dir", "x", "--source", "/nowhere"], "The source /nowhere does not exist"),
        (["convert", "ucf101", "--out_dir", "x", "--source", "https://a.b/c"], "--source https://a.b/c is a URL"),
        (["convert", "ucf101", "--out_dir", "x", "--num_frames", "0"], "--num_frames 0: Input should be greater"),
        (["convert", "ucf101", "--out_dir", "x", "--max_errors", "some"], "--max_errors some is neither a number"),
        (["convert", "ucf101", "--out_dir", "x", "--on_error", "ignore"], "ignore"),
        (["stats", __file__], "test_cli.py is not a row file"),
        (["validate", "/nowhere"], "/nowhere does not exist"),
        (["validate"], "Missing argument"),
    ],
)
def test_an_error_is_one_message_with_exit_code_2(arguments: list[str], message: str) -> None:
    done = convkit(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not Path("x").exists()


def test_a_default_of_zero_is_shown() -> None:
    found = " ".join(convkit("convert", "ucf101", "--help").stdout.split())
    assert "Random seed for selecting the groups of val. Default: 0." in found
    assert "Default: False" not in found


def test_the_message_of_an_option_validator_is_printed() -> None:
    converter = load_converter("ucf101")

    class Choosy(converter.Options):  # type: ignore[name-defined, misc]
        @field_validator("prompt")
        @classmethod
        def _known(cls, value: str) -> str:
            raise ValueError("choose among the known ones")

    with pytest.raises(ConvkitError, match=r"^--prompt \{classes\}: choose among the known ones\. See: convkit"):
        _options(type("Other", (converter,), {"Options": Choosy}), {"prompt": "{classes}"})


def test_findings_come_as_text_or_json(tmp_path: Path) -> None:
    rows = tmp_path / "data.jsonl"
    rows.write_text('{"id": "a", "source": "s", "conversations": [{"images": ["x.png"], "user": "?"}]}\n{\n')
    text = convkit("validate", rows)
    assert text.returncode == 1
    assert f"{rows}:1: CK201 missing-image" in text.stdout
    assert "Checked 2 rows. Found 2 errors, 0 warnings." in text.stdout
    report = json.loads(convkit("validate", rows, "--format", "json").stdout)
    assert report["summary"] == {"rows": 2, "errors": 2, "warnings": 0}
    assert [(f["code"], f["line"]) for f in report["findings"]] == [("CK201", 1), ("CK002", 2)]
