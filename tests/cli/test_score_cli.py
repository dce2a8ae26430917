"""The command `convkit score`: text and JSON output, exit codes and errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convkit.cli import app
from tests.conftest import ROOT
from tests.test_schemas import validator

LINES = [
    {"id": "q1", "source": "docvqa", "turn": 0, "prediction": "1998", "gold": "1999", "answers": ["1999", "'99"]},
    {"id": "q2", "source": "docvqa", "turn": 0, "prediction": "PARIS.", "gold": "Paris"},
    {"id": "v1", "source": "easy-vqa", "turn": 0, "prediction": "red", "gold": "red"},
    {"id": "v1", "source": "easy-vqa", "turn": 1, "prediction": "blue", "gold": "red"},
    {"id": "v2", "source": "easy-vqa", "turn": 0, "prediction": "\x1b[31mgreen", "gold": "green"},
]
TEXT = """\
docvqa: 2 rows, 2 turns

  metric     value   95% interval  of
  --------  ------  -------------  --
  anls      0.7917  0.7500-0.8333   2
  accuracy  0.5000  0.0000-1.0000   2

easy-vqa: 2 rows, 3 turns

  metric     value   95% interval  of
  --------  ------  -------------  --
  accuracy  0.3333  0.0000-0.5000   3

  class  gold  predicted  precision  recall      F1
  -----  ----  ---------  ---------  ------  ------
  green     1          0          -  0.0000  0.0000
  red       2          1     1.0000  0.5000  0.6667

  gold \\ predicted  green  red  (no class)
  ----------------  -----  ---  ----------
  green                 0    0           1
  red                   0    1           1

"""


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_scores_are_printed_as_text(tmp_path: Path) -> None:
    for order in (LINES, LINES[::-1]):
        result = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.jsonl", *order))])
        assert (result.exit_code, result.output) == (0, TEXT)


def test_scores_are_printed_as_json(tmp_path: Path) -> None:
    arguments = ["score", str(write(tmp_path / "p.jsonl", *LINES)), "--format", "json", "--metrics", "anls, classes"]
    result = CliRunner().invoke(app, [*arguments, "--resamples", "0", "--seed", "5"])
    assert result.exit_code == 0
    scores = json.loads(result.output)
    validator("scores.json").validate(scores)
    assert (scores["resamples"], scores["seed"], scores["complete"]) == (0, 5, True)
    assert [metric["value"] for source in scores["sources"] for metric in source["metrics"]] == [
        pytest.approx((0.75 + 5 / 6) / 2),
        pytest.approx(1 / 3),
    ]
    assert scores["sources"][1]["classes"][1]["predicted_as"] == {"red": 1}


def test_turns_that_are_not_scored_are_listed(tmp_path: Path) -> None:
    unlabelled = [{"id": f"u{i}", "source": "pets", "turn": 1, "prediction": "x"} for i in range(10, 22)]
    result = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.jsonl", *unlabelled))])
    assert result.exit_code == 1
    assert "not scored, because they have no gold answer: 12 (u10 (turn 1), u11 (turn 1)" in result.output
    assert "u19 (turn 1) and 2 more)" in result.output
    assert "rows with a missing turn before their last one: 12 (u10, " in result.output
    assert "accuracy: no turn has a gold answer" in result.output


def test_the_most_frequent_confusions_of_many_classes_are_listed(tmp_path: Path) -> None:
    names = [f"class{i:03}" for i in range(201)]
    lines = [
        {"id": f"{i}", "source": "ucf101", "turn": 0, "prediction": name, "gold": name} for i, name in enumerate(names)
    ]
    lines += [
        {"id": f"x{i}", "source": "ucf101", "turn": 0, "prediction": "class002" if i else "?", "gold": "class001"}
        for i in range(4)
    ]
    output = CliRunner().invoke(app, ["score", str(write(tmp_path / "p.jsonl", *lines))]).output
    assert "... and 1 more classes; use --format json for all of them" in output
    table = output[output.rindex("  gold ") :].splitlines()
    assert [line.split() for line in table[2:4]] == [["class001", "class002", "3"], ["class001", "(no", "class)", "1"]]


def test_positive_answers_can_be_set(tmp_path: Path) -> None:
    lines = [
        {"id": name, "source": "hateful-memes", "turn": 0, "prediction": "mean", "gold": gold, "score": score}
        for name, gold, score in [("a", "mean", 0.9), ("b", "kind", 0.1)]
    ]
    arguments = ["score", str(write(tmp_path / "p.jsonl", *lines)), "--metrics", "auroc"]
    unnamed = CliRunner().invoke(app, arguments)
    assert unnamed.exit_code == 1
    assert "auroc: set --positive to the positive gold answer, 'kind' or 'mean'" in unnamed.output
    named = CliRunner().invoke(app, [*arguments, "--positive", "mean"])
    assert named.exit_code == 0
    assert "auroc   1.0000" in named.output


COMMAND = """
import sys
from convkit.cli import main
try:
    main()
finally:
    print(sorted({"torch", "cv2", "PIL"} & set(sys.modules)), file=sys.stderr)
"""


def convkit(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_errors_are_a_paragraph_without_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *LINES, {"id": "q3"})
    done = convkit("score", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"convkit: error: {path}:6 is not a prediction: source: Field required. Fix the line;" in done.stderr
    done = convkit("score", write(path, *LINES), "--metrics", "f1")
    assert done.returncode == 2
    assert "There is no metric 'f1'. Choose from: accuracy, majority, anls," in done.stderr
    assert convkit("score", tmp_path / "nothing.jsonl").returncode == 2


def test_scoring_imports_no_model_libraries(tmp_path: Path) -> None:
    done = convkit("score", write(tmp_path / "p.jsonl", *LINES))
    assert (done.returncode, done.stdout) == (0, TEXT)
    assert done.stderr.splitlines()[-1] == "[]"


def test_two_files_are_compared_for_any_order_of_lines(tmp_path: Path) -> None:
    baseline = write(tmp_path / "a.jsonl", *LINES[2:])
    better = [*LINES[2:4], {**LINES[4], "prediction": "green"}]
    for order in (better, better[::-1]):
        command = ["score", str(write(tmp_path / "b.jsonl", *order)), "--compare", str(baseline)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert result.output.startswith("easy-vqa: 2 rows, 3 turns in both files\n")
        assert "accuracy won: v2 (turn 0)\n" in result.output
        result = CliRunner().invoke(app, [*command, "--format", "json"])
        found = json.loads(result.output)
        validator("comparison.json").validate(found)
        assert found["sources"][0]["metrics"][0]["lost"] == []


def test_evaluate_compares_like_score(tmp_path: Path) -> None:
    first = str(write(tmp_path / "a.jsonl", *LINES[2:]))
    second = str(write(tmp_path / "b.jsonl", *LINES[2:4], {**LINES[4], "prediction": "green"}))
    results = [
        CliRunner().invoke(app, command)
        for command in (["score", second, "--compare", first], ["evaluate", "--compare", first, second])
    ]
    assert [each.exit_code for each in results] == [0, 0]
    assert results[0].output == results[1].output != ""
    assert CliRunner().invoke(app, ["evaluate", "--compare", first, str(tmp_path / "c.jsonl")]).exit_code == 2
