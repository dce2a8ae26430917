"""Predictions and images on the report page: their selection, order and limits."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from convkit import report
from convkit.metrics.options import ScoreOptions
from convkit.report import samples, thumbnails
from tests.report import run_directories as directories
from tests.report.html import parse_page, text


def test_wrong_predictions_come_first_with_their_images(run: Path) -> None:
    tree = parse_page(report.write_report(run))
    first, *others = list(tree.iter("li"))
    assert "wrong, score 0" in text(first)
    assert (
        "Prompt Which? Prediction bird Prediction in the first evaluation bird Accepted answers cow Row r5, turn 0"
        in text(first)
    )
    assert len(others) == 5
    worst, *_ = tree.iter("ul")
    assert len(worst.findall("li")) == 1
    assert all("right, score 1" in text(other) for other in others)
    image = next(first.iter("img"))
    assert image.get("alt") == "Image 1 of row r5: 5.png"
    kind, _, content = (image.get("src") or "").partition(",")
    assert kind == "data:image/jpeg;base64"
    with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as jpeg:
        assert (jpeg.format, jpeg.size) == ("JPEG", (192, 144))
    assert (image.get("width"), image.get("height")) == ("192", "144")


def test_the_predictions_with_the_lowest_scores_come_first(run: Path) -> None:
    answer = "abcdefghijklmnopqrst"
    content = [
        {"id": f"{n}", "source": "docs", "conversations": [{"images": [], "user": "?", "assistant": answer}]}
        for n in range(30)
    ]
    texts = [answer[: 20 - n % 10] for n in range(30)]  # every tenth is right, the others miss up to nine letters
    directories.predicted(run / "evaluations/step-00000030", content, texts, ScoreOptions(("anls",), resamples=0))
    cards = [text(item) for item in parse_page(report.write_report(run)).iter("li")]
    scores = [float(re.findall(r"score (\S+)", card)[0]) for card in cards]
    assert scores[:12] == [0.55] * 3 + [0.6] * 3 + [0.65] * 3 + [0.7] * 3
    assert len(scores) == 18
    assert min(scores[12:]) > 0.7


def test_a_missing_or_changed_dataset_is_reported_instead_of_images(run: Path, data: Path) -> None:
    manifest = data / "dataset.json"
    content = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**content, "name": "others"}))
    tree = parse_page(report.write_report(run))
    assert "contains another dataset now." in text(tree)
    assert not list(tree.iter("img"))
    shutil.rmtree(data)
    assert "Prompts and images are not shown: " in text(parse_page(report.write_report(run)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b"no image"), "is not one of"),
        (lambda path: path.write_bytes(b""), "has no bytes"),
        (lambda path: path.unlink(), "is not in images/"),
        (lambda path: (path.unlink(), path.symlink_to("../../secret.png")), "leads out of images/"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
    ],
    ids=["text", "empty", "missing", "link", "folder"],
)
def test_an_unreadable_image_is_replaced_by_a_reason(
    run: Path, data: Path, damage: Callable[[Path], object], reason: str
) -> None:
    (data.parent / "secret.png").write_bytes((data / "images/0.png").read_bytes())
    damage(data / "images/5.png")
    tree = parse_page(report.write_report(run))
    assert f"Image 5.png {reason}" in text(next(tree.iter("li")))
    assert len(list(tree.iter("img"))) == 5


def test_images_and_texts_are_bounded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_THUMBNAILS", 2)
    tree = parse_page(report.write_report(run))
    assert len(list(tree.iter("img"))) == 2
    assert text(tree).count("not shown: the limit of images per page is reached") == 4
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 1)
    assert len(list(parse_page(report.write_report(run)).iter("img"))) == 1
    monkeypatch.setattr(samples, "MAX_IMAGES", 0)
    tree = parse_page(report.write_report(run))
    assert (text(tree).count("and 1 more images"), list(tree.iter("img"))) == (6, [])
    monkeypatch.setattr(samples, "MAX_TEXT", 3)
    assert "Prompt Whi… Prediction bir…" in text(parse_page(report.write_report(run)))
