"""The contents of a report page: runs, evaluations, classes, and unfinished runs."""

import json
import re
import shutil
from pathlib import Path

import pytest

from convkit import report
from convkit.errors import ConvkitError
from tests.report import run_directories as directories
from tests.report.html import parse_page, tables, text


def test_the_report_of_a_run_shows_options_data_scores_and_curves(run: Path) -> None:
    tree = parse_page(report.write_report(run))
    found = tables(tree)
    assert "Training. Finished after step 30 of 30." in text(tree)
    assert ["weight_decay", "0.01"] in found["Options"]
    assert ["eval_steps", "-"] in found["Options"]
    assert ["torch", "2.11.0"] in found["Versions and hardware"]
    assert ["device", "cpu"] in found["Versions and hardware"]
    assert ["val", "6", "6", "6"] in found["Splits"]
    training = {row[0]: row[1] for row in found["Training"][1:]}
    assert training["rows of the split"] == "7"
    assert training["dropped because they are too long"] == "1"
    assert (training["micro-batches planned"], training["rows trained on"], training["tokens"]) == ("40", "30", "9,000")
    scores = found["pets, with 95% bootstrap intervals"]
    assert scores[0] == ["Metric", "before training", "after step 30", "Items"]
    assert re.fullmatch(r"0\.1667 \(0\.\d{4} to 0\.\d{4}\)", scores[1][1])
    assert scores[1][2].startswith("0.8333 (")
    titles = [text(title) for title in tree.iter("title")][1:]
    assert titles == [
        *("Loss", "Learning rate", "Gradient norm, before clipping", "Images per second", "Peak memory, GiB"),
        "Scores on pets",
    ]
    assert "from 3 to 0.1, lowest 0.1, highest 3" in text(next(tree.iter("figure")))


def test_classes_are_shown_with_their_confusion_matrix(run: Path) -> None:
    found = tables(parse_page(report.write_report(run)))
    matrix = found["Confusion matrix: gold answers down, predictions across"]
    assert matrix[0] == ["gold \\ predicted", "cat", "cow", "dog", "(no class)"]
    assert matrix[2] == ["cow", "0", "1", "0", "1"]
    assert ["cow", "2", "1", "1", "0.5", "0.6667"] in found["Classes of pets, after step 30"]


def test_many_classes_are_shown_by_their_most_frequent_confusions(run: Path) -> None:
    content = [
        {"id": f"{n}", "source": "pets", "conversations": [{"images": [], "user": "?", "assistant": f"class {n}"}]}
        for n in range(30)
    ]
    directories.evaluated(run / "evaluations/step-00000030", content, 25, wrong="class 1")
    found = tables(parse_page(report.write_report(run)))
    assert not any("Confusion matrix" in caption for caption in found)
    assert found["The most frequent confusions"][1] == ["class 25", "class 1", "1"]
    assert len(found["The most frequent confusions"]) == 6


def test_the_report_is_reproducible(run: Path, tmp_path: Path) -> None:
    first = report.write_report(run).read_bytes()
    assert report.write_report(run, tmp_path / "again.html").read_bytes() == first
    assert report.write_report(run).read_bytes() == first


def test_an_unfinished_run_is_reported_as_such(tmp_path: Path, data: Path) -> None:
    run = directories.training(tmp_path / "run", data, directories.rows(), steps=12)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "los')
    (run / "evaluations/step-00000012").mkdir()
    tree = parse_page(report.write_report(run))
    assert "Not finished: results up to step 12 of 30." in text(tree)
    assert "Unfinished evaluations: step-00000012." in text(tree)
    assert tables(tree)["pets, with 95% bootstrap intervals"][0][2] == "after step 10"


def test_a_run_without_any_step_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": "m"}')
    tree = parse_page(report.write_report(tmp_path))
    assert "Not finished: results up to step 0." in text(tree)
    assert not list(tree.iter("figure"))


def test_the_report_of_an_evaluation(tmp_path: Path, data: Path) -> None:
    folder = directories.evaluation(tmp_path / "scores", data, directories.rows(), 4)
    tree = parse_page(report.write_report(folder))
    assert "Evaluation. Finished." in text(tree)
    assert tables(tree)["pets, with 95% bootstrap intervals"][0] == ["Metric", "scores", "Items"]
    assert len(list(tree.iter("img"))) == 6
    (folder / "predictions.jsonl").rename(folder / "predictions.part.jsonl")
    (folder / "scores.json").unlink()
    assert "Evaluation. Not finished. Run the same command to resume." in text(parse_page(report.write_report(folder)))


def test_separate_evaluations_are_included(run: Path, tmp_path: Path, data: Path) -> None:
    shutil.rmtree(run / "evaluations")
    config = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps({**config, "eval_split": None}))
    folders = [directories.evaluation(tmp_path / name, data, directories.rows(), n) for name, n in (("a", 2), ("b", 6))]
    tree = parse_page(report.write_report(run, evaluations=folders))
    scores = tables(tree)["pets, with 95% bootstrap intervals"]
    assert scores[0] == ["Metric", "a", "b", "Items"]
    assert (scores[1][1][:6], scores[1][2][:6]) == ("0.3333", "1.0000")
    assert len(list(tree.iter("img"))) == 6  # from the evaluated split, not from the training split
    with pytest.raises(ConvkitError, match=r"nowhere has no scores\.json"):
        report.write_report(run, evaluations=[tmp_path / "nowhere"])
