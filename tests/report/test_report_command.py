"""The command `convkit report`: output files and errors."""

import sys
from pathlib import Path

import pytest

from convkit.cli import main


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["convkit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b"{"),
        ("run.json", b"{}"),
        ("metrics.jsonl", b'{"step": 1}\n'),
        ("metrics.jsonl", b'{"step": 1, "loss": NaN}\n'),
        ("evaluations/step-00000000/scores.json", b'{"scores_version": 2}'),
        ("evaluations/step-00000030/predictions.jsonl", b"\xff\n"),
        ("evaluations/step-x/scores.json", b"{}"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(
    run: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    assert run_command(monkeypatch, "report", str(run)) == 2
    message = capsys.readouterr().err
    assert message.startswith("convkit: error: ")
    assert (name.split("/")[1] if "step-x" in name else name) in message
    assert not (run / "run.html").exists()


def test_the_report_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "report", str(run)) == 0
    assert capsys.readouterr().out == f"report: {run / 'run.html'}\n"
    assert run_command(monkeypatch, "report", str(run), "--out", str(tmp_path / "o.html")) == 0
    for suffix in (".html", ".png"):
        assert (tmp_path / f"o{suffix}").read_bytes() == (run / f"run{suffix}").read_bytes()
    for target, reason in ((tmp_path, "is a directory"), (tmp_path / "nowhere/o.html", "There is no folder")):
        assert run_command(monkeypatch, "report", str(run), "--out", str(target)) == 2
        assert reason in capsys.readouterr().err
    assert run_command(monkeypatch, "report", str(tmp_path)) == 2
    assert "is not a run directory" in capsys.readouterr().err
