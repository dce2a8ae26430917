"""`convkit validate` as a command: exit codes, standard output and standard error."""

import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from convkit.rules.registry import RULES
from tests.conftest import ROOT
from tests.fixtures.builders import lines, row
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import copy_of


def convkit(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "convkit", "validate", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dataset_without_errors_gets_a_receipt(tmp_path: Path) -> None:
    copy_of("valid/with_manifest", tmp_path)
    done = convkit("with_manifest", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Checked 3 rows. Found 0 errors, 0 warnings.\n")
    assert done.stderr == f"receipt written: {Path('with_manifest/receipt.json')}\n"


def test_errors_give_exit_code_1(tmp_path: Path) -> None:
    copy_of("invalid/CK201_missing_image", tmp_path)
    copy_of("invalid/CK303_orphan_image", tmp_path)
    done = convkit("CK201_missing_image", "CK303_orphan_image", "--format", "json", "--workers", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["summary"] == {"rows": 3, "errors": 3, "warnings": 2}


def test_warnings_give_exit_code_0(tmp_path: Path) -> None:
    copy_of("invalid/CK303_orphan_image", tmp_path)
    done = convkit("CK303_orphan_image", "--workers", "0", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "convkit: error: nowhere does not exist."),
        (
            [DIRECTORY / "valid" / "crlf", "--format", "xml"],
            "Choose one of: text, json, jsonl, github, sarif, junit, markdown.",
        ),
        ([DIRECTORY / "valid" / "crlf", "--workers", "9999"], "9,999 workers are more than"),
        ([DIRECTORY / "valid" / "crlf", "--media", "some"], "'decode', 'header', 'none'"),
        ([], "PATH"),
    ],
)
def test_wrong_arguments_give_exit_code_2(tmp_path: Path, arguments: list[str | Path], message: str) -> None:
    done = convkit(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a row file with two blank lines and a missing image."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n" + lines(row("1", ["no.png"])) + b"\n")
    return path


def test_rules_are_selected_and_severities_changed(data: Path) -> None:
    run = partial(convkit, data.name, "--workers", "0", cwd=data.parent)
    assert run("--ignore", "CK0,missing-image").stdout == "Checked 1 row. Found 0 errors, 0 warnings.\n"
    done = run("--select", "CK004", "--warn", "CK004")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "Checked 1 row. Found 0 errors, 2 warnings. 2 fixable with --fix.",
    )
    (data.parent / "convkit.toml").write_text('select = ["CK201"]\nseverity = {CK201 = "warning"}\n')
    assert (run().returncode, run("--error", "CK201").returncode, run("--select", "CK").returncode) == (0, 1, 1)
    for arguments, message in [(("--ignore", "CK7"), "'CK7' is neither"), (("--config", "no"), "no cannot be read")]:
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "") and message in done.stderr and "Traceback" not in done.stderr


def test_a_baseline_is_written_applied_and_reported_as_stale(data: Path) -> None:
    run = partial(convkit, data.name, "--workers", "0", "--baseline", "known.json", cwd=data.parent)
    assert run().returncode == 2
    done = run("--write_baseline")
    assert (done.returncode, done.stderr) == (0, "baseline written: known.json: 3 findings accepted\n")
    done = run()
    accepted = "3 findings are accepted by known.json; some are errors, so no receipt is written\n"
    assert (done.returncode, done.stderr) == (0, accepted)
    data.write_bytes(data.read_bytes() + b"{\n")
    done = run("--format", "json")
    assert done.returncode == 1 and [f["code"] for f in json.loads(done.stdout)["findings"]] == ["CK002"]
    data.write_bytes(lines(row("1", ["no.png"])))
    done = run()
    assert done.returncode == 0 and "stale in known.json: CK004 x.jsonl: 2 not found any more\n" in done.stderr
    assert "stale" not in run("--select", "CK2").stderr + run("--media", "none").stderr
    done = convkit(data.name, "--write_baseline", cwd=data.parent)
    assert done.returncode == 2 and "Add --baseline FILE" in done.stderr


def test_fix_lists_its_changes_and_validates_again(data: Path) -> None:
    done = convkit(data.name, "--fix", "--workers", "0", cwd=data.parent)
    assert done.returncode == 1 and done.stdout.endswith("Checked 1 row. Found 1 error, 0 warnings.\n")
    assert done.stderr.splitlines() == [
        "x.jsonl:1: CK004 blank-line: line removed",
        "x.jsonl:3: CK004 blank-line: line removed",
        "2 lines fixed",
    ]
    assert data.read_bytes() == lines(row("1", ["no.png"]))
    assert convkit(data.name, "--fix", "--workers", "0", cwd=data.parent).stderr == ""


def test_standard_input_cannot_be_fixed(data: Path) -> None:
    done = convkit("-", "--fix", cwd=data.parent)
    assert (done.returncode, done.stdout) == (2, "") and "--fix cannot fix standard input" in done.stderr


def test_a_report_is_written_to_a_file(data: Path) -> None:
    done = convkit(data.name, "--format", "sarif", "--output", "out.sarif", "--workers", "0", cwd=data.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads((data.parent / "out.sarif").read_text())["version"] == "2.1.0"


@pytest.mark.parametrize("output", ["no/such/x", "."])
def test_an_unwritable_report_file_is_refused_before_validation(tmp_path: Path, output: str) -> None:
    copy_of("valid/with_manifest", tmp_path)
    done = convkit("with_manifest", "--output", output, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"convkit: error: --output {output} is a directory, or its parent directory does not exist."
    )
    assert not (tmp_path / "with_manifest" / "receipt.json").exists()


def test_closed_standard_input_is_an_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m convkit validate - <&-"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("convkit: error: Standard input is closed.")


def test_convkit_rule_prints_the_page_of_a_rule(tmp_path: Path) -> None:
    run = partial(subprocess.run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    command = [sys.executable, "-m", "convkit", "rule"]
    listed = run(command, text=True).stdout.splitlines()
    assert [text.split()[:2] for text in listed] == [[rule.code, rule.slug] for rule in RULES.values()]
    by_code, by_slug = run([*command, "CK102"], text=True), run([*command, "marker-count"], text=True)
    assert by_code.stdout == by_slug.stdout
    assert (
        by_code.stdout.startswith("# CK102 marker-count\n")
        and "Checks for turns with more or fewer `<image>` markers" in by_code.stdout
    )
    assert run([*command, "ck102"], text=True).stdout == by_code.stdout
    near = run([*command, "CK20"], text=True)
    assert near.returncode == 2 and "CK201 missing-image" in near.stderr and "CK211" not in near.stderr
    unknown = run([*command, "nothing"], text=True)
    assert unknown.returncode == 2 and "CK405 nothing-to-train-on?" in unknown.stderr


@pytest.mark.parametrize("no_colour", [False, True])
def test_a_terminal_has_colors_unless_no_color_is_set(data: Path, no_colour: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"PYTHONPATH": str(ROOT)}
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "convkit", "validate", data.name, "--media", "none"],
        cwd=data.parent,
        env={**environment, **({"NO_COLOR": "1"} if no_colour else {})},
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    os.close(theirs)
    assert (b"\x1b[" in os.read(ours, 4096)) != no_colour
    os.close(ours)
