"""The page of a run: what stands on it, that it loads nothing, and that data cannot become markup.

It is read by html5lib, which parses as browsers do and, in strict mode, refuses what the standard calls an error.
"""

import base64
import hashlib
import io
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import html5lib
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit import report
from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.metrics.options import ScoreOptions
from convkit.report import page, pictures, samples
from tests.report import run_directories as directories

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "div", "p", "h1", "h2"),
    *(
        "h3",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "strong",
        "ul",
        "li",
        "img",
    ),
    *("dl", "dt", "dd", "svg", "desc", "line", "text", "polyline", "circle"),
}


def parsed(path: Path) -> ET.Element:
    """The tree, without namespaces."""
    tree: ET.Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(path.read_text("utf-8"))
    for element in tree.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return tree


def text(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def tables(tree: ET.Element) -> dict[str, list[list[str]]]:
    found = {}
    for table in tree.iter("table"):
        cells = [[text(cell) for cell in row if cell.tag in ("th", "td")] for row in table.iter("tr")]
        found[text(next(table.iter("caption")))] = cells
    return found


def elements(tree: ET.Element) -> Iterator[ET.Element]:
    return (element for element in tree.iter() if isinstance(element.tag, str))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return directories.dataset(tmp_path / "data", directories.rows())


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return directories.training(tmp_path / "run", data, directories.rows())


def test_what_stands_on_the_page_of_a_run(run: Path) -> None:
    tree = parsed(report.write_report(run))
    found = tables(tree)
    assert "Training. Finished after step 30 of 30." in text(tree)
    assert ["weight_decay", "0.01"] in found["Options"]
    assert ["eval_steps", "-"] in found["Options"]
    assert ["torch", "2.11.0"] in found["Versions and hardware"]
    assert ["device", "cpu"] in found["Versions and hardware"]
    assert ["val", "6", "6", "6"] in found["Splits"]
    training = {row[0]: row[1] for row in found["Training"][1:]}
    assert training["rows of the split"] == "7"
    assert training["dropped, for they are too long"] == "1"
    assert (training["packs planned"], training["rows trained on"], training["tokens"]) == ("40", "30", "9,000")
    scores = found["pets, with 95% bootstrap intervals"]
    assert scores[0] == ["Metric", "before training", "after step 30", "Of"]
    assert re.fullmatch(r"0\.1667 \(0\.\d{4} to 0\.\d{4}\)", scores[1][1])
    assert scores[1][2].startswith("0.8333 (")
    titles = [text(title) for title in tree.iter("title")][1:]
    assert titles == [
        *("Loss", "Learning rate", "Gradient norm, before clipping", "Images a second", "Memory at most, GiB"),
        "Scores on pets",
    ]
    assert "from 3 to 0.1, lowest 0.1, highest 3" in text(next(tree.iter("figure")))


def test_classes(run: Path) -> None:
    found = tables(parsed(report.write_report(run)))
    matrix = found["Confusion matrix: gold answers down, predictions across"]
    assert matrix[0] == ["gold \\ predicted", "cat", "cow", "dog", "(no class)"]
    assert matrix[2] == ["cow", "0", "1", "0", "1"]
    assert ["cow", "2", "1", "1", "0.5", "0.6667"] in found["Classes of pets, after step 30"]


def test_many_classes_are_listed_by_their_confusions(run: Path) -> None:
    content = [
        {"id": f"{n}", "source": "pets", "conversations": [{"images": [], "user": "?", "assistant": f"class {n}"}]}
        for n in range(30)
    ]
    directories.evaluated(run / "evaluations/step-00000030", content, 25, wrong="class 1")
    found = tables(parsed(report.write_report(run)))
    assert not any("Confusion matrix" in caption for caption in found)
    assert found["The most frequent confusions"][1] == ["class 25", "class 1", "1"]
    assert len(found["The most frequent confusions"]) == 6


def test_the_worst_stand_first_with_their_images(run: Path) -> None:
    tree = parsed(report.write_report(run))
    first, *others = list(tree.iter("li"))
    assert "wrong, score 0" in text(first)
    assert "Asked Which? Answered bird Answered in the first evaluation bird Accepted cow Row r5, turn 0" in text(first)
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


def test_the_lowest_scores_are_chosen_and_stand_first(run: Path) -> None:
    answer = "abcdefghijklmnopqrst"
    content = [
        {"id": f"{n}", "source": "docs", "conversations": [{"images": [], "user": "?", "assistant": answer}]}
        for n in range(30)
    ]
    texts = [answer[: 20 - n % 10] for n in range(30)]  # each tenth is right, others lack up to nine letters
    directories.predicted(run / "evaluations/step-00000030", content, texts, ScoreOptions(("anls",), resamples=0))
    cards = [text(item) for item in parsed(report.write_report(run)).iter("li")]
    scores = [float(re.findall(r"score (\S+)", card)[0]) for card in cards]
    assert scores[:12] == [0.55] * 3 + [0.6] * 3 + [0.65] * 3 + [0.7] * 3
    assert len(scores) == 18
    assert min(scores[12:]) > 0.7


def test_nothing_is_loaded_and_nothing_may_run(run: Path) -> None:
    tree = parsed(report.write_report(run))
    assert {element.tag for element in elements(tree)} <= TAGS
    for element in elements(tree):
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("href", "style", "action", "srcset", "background", "xlink:href")
            assert name != "src" or value.startswith("data:image/jpeg;base64,")
    (style,) = tree.iter("style")
    assert "url(" not in (style.text or "")
    assert "@import" not in (style.text or "")
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"
    )


def test_it_can_be_used_without_seeing_it(run: Path) -> None:
    tree = parsed(report.write_report(run))
    levels = [int(element.tag[1]) for element in elements(tree) if re.fullmatch(r"h\d", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tree.get("lang") == "en"
    ids = {element.get("id") for element in elements(tree) if element.get("id")}
    for element in elements(tree):
        assert set((element.get("aria-labelledby") or "").split()) <= ids
        if element.tag == "th":
            assert element.get("scope") in ("row", "col")
        if element.tag == "img":
            assert element.get("alt")
        if element.tag == "svg" and not element.get("aria-hidden"):
            assert element.get("role") == "img"
            assert text(next(element.iter("desc")))
    content = tree.find("head/meta[@name='viewport']")
    assert content is not None
    assert "prefers-color-scheme: dark" in (next(tree.iter("style")).text or "")


def test_hostile_data_stays_text(tmp_path: Path) -> None:
    hostile = directories.HOSTILE
    content = directories.rows(hostile)
    data = directories.dataset(tmp_path / "data", content)
    run = directories.training(tmp_path / hostile.replace("/", ""), data, content, hostile=hostile)
    tree = parsed(report.write_report(run))
    assert {element.tag for element in elements(tree)} <= TAGS
    assert not [name for element in elements(tree) for name in element.attrib if name.startswith("on")]
    cards = [text(item) for item in tree.iter("li")]
    assert any(f"Asked Which? {hostile} Answered bird{hostile} " in card for card in cards)
    assert any(f"Row r5{hostile}, turn 0" in card for card in cards)
    alts = [image.get("alt") or "" for image in tree.iter("img")]
    assert any(alt.endswith(f"5{hostile.replace('/', '')}.png") for alt in alts)
    assert f"cow{hostile}" in [row[0] for row in tables(tree)[f"Classes of pets{hostile}, after step 30"]]
    assert ["model", f"models/{hostile}"] in tables(tree)["Options"]
    assert hostile.replace("/", "") in text(next(tree.iter("h1")))


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_comes_through_a_template_as_text(value: str) -> None:
    template = page._environment().from_string(
        '<!doctype html><html><head><title>t</title></head><body><p title="{{ value }}">{{ value }}</p></body></html>'
    )
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(template.render(value=value))
    (paragraph,) = tree.iter("p")
    assert (paragraph.text or "", len(paragraph)) == (page.visible(value), 0)
    assert paragraph.get("title") == page.visible(value)
    assert value.replace("\n", "") != "".join(filter(str.isprintable, value)) or page.visible(value) == value


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = report.write_report(run).read_bytes()
    assert report.write_report(run, tmp_path / "again.html").read_bytes() == first
    assert report.write_report(run).read_bytes() == first


def test_a_run_that_was_cut_off_says_so(tmp_path: Path, data: Path) -> None:
    run = directories.training(tmp_path / "run", data, directories.rows(), steps=12)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "los')
    (run / "evaluations/step-00000012").mkdir()
    tree = parsed(report.write_report(run))
    assert "Not finished: this is what there is after step 12 of 30." in text(tree)
    assert "Begun and not finished: step-00000012." in text(tree)
    assert tables(tree)["pets, with 95% bootstrap intervals"][0][2] == "after step 10"


def test_a_run_that_was_cut_off_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": "m"}')
    tree = parsed(report.write_report(tmp_path))
    assert "Not finished: this is what there is after step 0." in text(tree)
    assert not list(tree.iter("figure"))


def test_an_evaluation(tmp_path: Path, data: Path) -> None:
    folder = directories.evaluation(tmp_path / "scores", data, directories.rows(), 4)
    tree = parsed(report.write_report(folder))
    assert "Evaluation. Finished." in text(tree)
    assert tables(tree)["pets, with 95% bootstrap intervals"][0] == ["Metric", "scores", "Of"]
    assert len(list(tree.iter("img"))) == 6
    (folder / "predictions.jsonl").rename(folder / "predictions.part.jsonl")
    (folder / "scores.json").unlink()
    assert "Evaluation. Not finished: the same command goes on with it." in text(parsed(report.write_report(folder)))


def test_evaluations_of_elsewhere_are_shown_as_well(run: Path, tmp_path: Path, data: Path) -> None:
    shutil.rmtree(run / "evaluations")
    config = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps({**config, "eval_split": None}))
    folders = [directories.evaluation(tmp_path / name, data, directories.rows(), n) for name, n in (("a", 2), ("b", 6))]
    tree = parsed(report.write_report(run, evaluations=folders))
    scores = tables(tree)["pets, with 95% bootstrap intervals"]
    assert scores[0] == ["Metric", "a", "b", "Of"]
    assert (scores[1][1][:6], scores[1][2][:6]) == ("0.3333", "1.0000")
    assert len(list(tree.iter("img"))) == 6  # of the split that was asked, not of the one that was trained on
    with pytest.raises(ConvkitError, match=r"nowhere has no scores\.json"):
        report.write_report(run, evaluations=[tmp_path / "nowhere"])


def test_without_the_data_set_the_page_says_what_it_lacks(run: Path, data: Path) -> None:
    manifest = data / "dataset.json"
    content = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**content, "name": "others"}))
    tree = parsed(report.write_report(run))
    assert "holds another data set by now, so prompts and images are not shown" in text(tree)
    assert not list(tree.iter("img"))
    shutil.rmtree(data)
    assert "Prompts and images are not shown: " in text(parsed(report.write_report(run)))


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
def test_an_image_that_cannot_be_shown_is_said(
    run: Path, data: Path, damage: Callable[[Path], object], reason: str
) -> None:
    (data.parent / "secret.png").write_bytes((data / "images/0.png").read_bytes())
    damage(data / "images/5.png")
    tree = parsed(report.write_report(run))
    assert f"Image 5.png {reason}" in text(next(tree.iter("li")))
    assert len(list(tree.iter("img"))) == 5


def test_pictures_and_texts_are_bounded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURES", 2)
    tree = parsed(report.write_report(run))
    assert len(list(tree.iter("img"))) == 2
    assert text(tree).count("not shown: the page has enough pictures") == 4
    monkeypatch.setattr(pictures, "MAX_BYTES", 1)
    assert len(list(parsed(report.write_report(run)).iter("img"))) == 1
    monkeypatch.setattr(samples, "MAX_IMAGES", 0)
    tree = parsed(report.write_report(run))
    assert (text(tree).count("and 1 more images"), list(tree.iter("img"))) == (6, [])
    monkeypatch.setattr(samples, "MAX_TEXT", 3)
    assert "Asked Whi… Answered bir…" in text(parsed(report.write_report(run)))


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
def test_a_damaged_file_is_named(
    run: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    assert command(monkeypatch, "report", str(run)) == 2
    said = capsys.readouterr().err
    assert said.startswith("convkit: error: ")
    assert (name.split("/")[1] if "step-x" in name else name) in said
    assert not (run / "run.html").exists()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["convkit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_the_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "report", str(run)) == 0
    assert capsys.readouterr().out == f"report: {run / 'run.html'}\n"
    assert command(monkeypatch, "report", str(run), "--out", str(tmp_path / "o.html")) == 0
    for suffix in (".html", ".png"):
        assert (tmp_path / f"o{suffix}").read_bytes() == (run / f"run{suffix}").read_bytes()
    for place, why in ((tmp_path, "is a directory"), (tmp_path / "nowhere/o.html", "There is no folder")):
        assert command(monkeypatch, "report", str(run), "--out", str(place)) == 2
        assert why in capsys.readouterr().err
    assert command(monkeypatch, "report", str(tmp_path)) == 2
    assert "is no run directory" in capsys.readouterr().err
