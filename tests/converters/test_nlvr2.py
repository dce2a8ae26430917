"""NLVR2 is converted from the official dev.json, with images generated for some of its pairs."""

import json
import shutil
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from convkit.convert.error_budget import Budget, Policy
from convkit.convert.run import convert
from convkit.converters.base import Reject
from convkit.converters.nlvr2 import NLVR2, NLVR2Options
from convkit.errors import ConvkitError, SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree

EXPECTED_BAD = Policy(budget=Budget(share=1.0))
SENTENCE = "Both images show {true} dogs."
QUESTION = f'Given the left and right images, does the statement "{SENTENCE}" hold true? Answer True or False.'


def run(source: Path, out: Path, workers: int = 0, **options: Any) -> Manifest:
    return convert(NLVR2, str(source), NLVR2.Options(**options), out, workers=workers, policy=EXPECTED_BAD)


def annotation(identifier: str, **other: Any) -> dict[str, Any]:
    return {"identifier": identifier, "sentence": SENTENCE, "label": "True", "synset": "dog", "writer": "1", **other}


def write_lines(path: Path, *lines: dict[str, Any] | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def draw(path: Path, shade: int, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (20, 10), (shade, 0, 0))
    picture.putpixel((0, 0), (255, 255, 255))
    picture.save(path, kind)


def draw_pair(folder: Path, pair: str, shade: int = 0, kind: str = "PNG") -> None:
    for side in (0, 1):
        draw(folder / f"{pair}-img{side}.png", shade + side, kind)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write all four splits; one pair has two sentences, one lacks its right image, and files have many names."""
    root = tmp_path / "source"
    write_lines(root / "data/train.json", annotation("train-10-0-0", directory=7))
    write_lines(
        root / "data/dev.json",
        annotation("dev-1-0-0"),
        annotation("dev-1-1-0", label="False"),
        annotation("dev-1-0-1", sentence="None is <b>."),
    )
    write_lines(root / "data/test1.json", annotation("test1-1-0-0", synset=None))
    unlabelled = annotation("test2-1-0-0")
    del unlabelled["label"], unlabelled["synset"]
    write_lines(root / "data/test2.json", unlabelled)
    draw_pair(root / "images/train/8", "train-10-0", 100)
    draw_pair(root / "images/train/7", "train-10-0", 10)
    draw_pair(root / "dev", "dev-1-0", 20, "JPEG")
    draw(root / "dev/dev-1-1-img0.png", 30)
    draw_pair(root / "test1", "test1-1-0", 40)
    draw_pair(root / "deep/er/test2", "test2-1-0", 50)
    return root


def row(identifier: str, split: str, suffix: str, sentence: str, **turn: str) -> dict[str, Any]:
    official, image_set, pair, number = identifier.split("-")
    stem = f"{split}/{official}-{image_set}-{pair}"
    user = f'Given the left and right images, does the statement "{sentence}" hold true? Answer True or False.'
    return {
        "id": identifier,
        "source": "nlvr2",
        "conversations": [{"images": [f"{stem}-img0{suffix}", f"{stem}-img1{suffix}"], "user": user, **turn}],
        "group": f"{official}-{image_set}",
        "metadata": {"identifier": identifier, "sentence_id": f"{official}-{image_set}-{number}", "synset": "dog"},
    }


def test_sentences_become_rows_with_both_images(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out")
    test1 = row("test1-1-0-0", "test1", ".png", SENTENCE, assistant="True")
    test2 = row("test2-1-0-0", "test2", ".png", SENTENCE)
    del test1["metadata"]["synset"], test2["metadata"]["synset"]
    assert rows(tmp_path / "out") == [
        row("train-10-0-0", "train", ".png", SENTENCE, assistant="True"),
        row("dev-1-0-0", "val", ".jpg", SENTENCE, assistant="True"),
        row("dev-1-0-1", "val", ".jpg", "None is <b>.", assistant="True"),
        test1,
        test2,
    ]
    assert quarantined(tmp_path / "out") == {
        "data/dev.json:2": ("missing-image", "not in the source: dev/dev-1-1-img1.png")
    }
    images = tmp_path / "out/images"
    assert (images / "train/train-10-0-img0.png").read_bytes() == (
        source / "images/train/7/train-10-0-img0.png"
    ).read_bytes()
    assert (images / "val/dev-1-0-img1.jpg").read_bytes() == (source / "dev/dev-1-0-img1.png").read_bytes()
    assert list(manifest.splits) == ["train", "val", "test1", "test2"]
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.quarantined, done.media_files) == ("pair", 6, 5, 1, 8)
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_the_official_dev_split_is_converted(shared_data: Path, tmp_path: Path) -> None:
    annotations = shared_data / "data/nlvr2/dev.json"
    root = tmp_path / "source"
    root.mkdir()
    shutil.copy(annotations, root / "dev.json")
    identifiers = [json.loads(line)["identifier"] for line in annotations.read_bytes().splitlines()]
    pairs = list(dict.fromkeys(identifier.rpartition("-")[0] for identifier in identifiers))
    there = pairs[::40]
    for number, pair in enumerate(there):
        draw_pair(root / f"images/{number % 3}", pair, number % 200, "JPEG" if number % 2 else "PNG")
    (root / f"images/0/{there[0]}-img1.png").unlink()
    wanted = [i for i in identifiers if i.rpartition("-")[0] in there[1:]]

    manifest = run(root, tmp_path / "out")
    run(root, tmp_path / "out2", workers=2)
    assert tree(tmp_path / "out2") == tree(tmp_path / "out")
    done = manifest.accounting
    assert (done.read, done.written, done.quarantined) == (6982, len(wanted), 6982 - len(wanted))
    assert done.media_files == 2 * len(there[1:])
    assert sorted(r["id"] for r in rows(tmp_path / "out", "val")) == sorted(wanted)
    refused = quarantined(tmp_path / "out")
    assert Counter(rule for rule, _ in refused.values()) == {"missing-image": 6982 - len(wanted)}
    assert {f"dev.json:{n}" for n, i in enumerate(identifiers, 1) if i not in set(wanted)} == refused.keys()
    first = next(n for n, i in enumerate(identifiers, 1) if i.startswith(f"{there[0]}-"))
    assert refused[f"dev.json:{first}"][1] == f"not in the source: dev/{there[0]}-img1.png"
    assert validate([tmp_path / "out"], workers=0).report.findings == []


@pytest.mark.parametrize(("there", "ends_well"), [(18, True), (17, False)])
def test_up_to_ten_percent_missing_pairs_do_not_stop_the_run(
    there: int, ends_well: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.convert.error_budget.DEFAULT_COUNT", 0)
    sound = [annotation(f"dev-1-0-{number}") for number in range(there)]
    write_lines(tmp_path / "source/dev.json", *sound, *(annotation(f"dev-2-0-{number}") for number in range(2)))
    draw_pair(tmp_path / "source/dev", "dev-1-0", 20)
    with nullcontext() if ends_well else pytest.raises(ConvkitError, match="2 of 19 pairs could not be converted"):
        convert(NLVR2, str(tmp_path / "source"), NLVR2Options.model_validate({}), tmp_path / "out", workers=0)


def test_bad_lines_are_quarantined_with_their_reasons(tmp_path: Path) -> None:
    root = tmp_path / "source"
    missing = annotation("dev-2-0-0")
    del missing["sentence"]
    write_lines(
        root / "dev.json",
        "\ufeff" + json.dumps(annotation("dev-1-0-0")),
        "{not json",
        "",
        missing,
        annotation("dev-1-0"),
        annotation("test1-1-0-0"),
        annotation("dev-1-0-1", label="true"),
        annotation("dev-1-0-0", sentence="Again."),
        annotation("dev-1-0-2", sentence="An <image>."),
        annotation("dev-1-0-3", sentence="Still there."),
        "[1]",
    )
    draw_pair(root, "dev-1-0")
    manifest = run(root, tmp_path / "out")
    assert [r["id"] for r in rows(tmp_path / "out")] == ["dev-1-0-0", "dev-1-0-3"]
    refused = quarantined(tmp_path / "out")
    assert {address: rule for address, (rule, _) in refused.items()} == {
        "dev.json:2": "bad-annotation",
        "dev.json:4": "bad-annotation",
        "dev.json:5": "bad-annotation",
        "dev.json:6": "bad-annotation",
        "dev.json:7": "bad-annotation",
        "dev.json:8": "duplicate-id",
        "dev.json:9": "invalid-row",
        "dev.json:11": "bad-annotation",
    }
    assert refused["dev.json:2"][1].startswith("Invalid JSON: ")
    assert refused["dev.json:4"][1] == "sentence: Field required"
    assert refused["dev.json:5"][1].startswith("identifier: String should match pattern")
    assert refused["dev.json:6"][1] == "identifier: test1-1-0-0 does not belong to dev"
    assert refused["dev.json:8"][1] == "dev.json:1 has the id dev-1-0-0 already"
    assert (manifest.accounting.read, manifest.accounting.media_files) == (10, 2)
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_an_undecodable_image_quarantines_each_of_its_rows(source: Path, tmp_path: Path) -> None:
    (source / "dev/dev-1-0-img1.png").write_bytes(b"no image")
    run(source, tmp_path / "out")
    refused = quarantined(tmp_path / "out")
    assert list(refused) == ["data/dev.json:1", "data/dev.json:3", "data/dev.json:2"]
    for address in ("data/dev.json:1", "data/dev.json:3"):
        assert refused[address][0] == "undecodable-image"
        assert refused[address][1].startswith("dev-1-0-img1.png: the image is not one of")


def test_options_change_prompt_and_answer_words(source: Path, tmp_path: Path) -> None:
    (source / "dev").rename(tmp_path / "elsewhere")
    options: dict[str, Any] = {"prompt": "{sentence} {true}/{false}?", "answer_words": "ja, nein", "limit": 1}
    manifest = run(source, tmp_path / "out", images=tmp_path / "elsewhere", **options)
    (only,) = rows(tmp_path / "out")
    assert only["conversations"][0]["user"] == f"{SENTENCE} ja/nein?"
    assert only["conversations"][0]["assistant"] == "ja"
    assert manifest.accounting.excluded == {"beyond --limit": 2}
    assert "images" not in manifest.converter.options
    assert manifest.accounting.read == 6


def test_answer_words_must_be_two_different_words() -> None:
    assert NLVR2.Options.model_validate({"answer_words": ""}) == NLVR2.Options.model_validate({})
    with pytest.raises(ValidationError, match="two different words"):
        NLVR2.Options.model_validate({"answer_words": "yes"})
    with pytest.raises(ValidationError):
        NLVR2.Options.model_validate({"prompt": "without the statement"})


def test_output_is_identical_for_any_workers_and_from_an_archive(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "0")
    run(source, tmp_path / "2", workers=2)
    assert tree(tmp_path / "2") == tree(tmp_path / "0")
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", source))
    run(archive, tmp_path / "zip")
    assert rows(tmp_path / "zip") == rows(tmp_path / "0")


def test_output_is_identical_after_resuming(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source, tmp_path / "whole")

    def interrupted(self: NLVR2, item: Any) -> Any:
        if item.split == "test1":
            raise KeyboardInterrupt
        return original(self, item)

    original = NLVR2.convert
    with monkeypatch.context() as patch:
        patch.setattr(NLVR2, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out")
    assert (tmp_path / "out/.partial").is_dir()
    run(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_items_contain_the_file_sizes(source: Path) -> None:
    items = list(NLVR2(source, NLVR2.Options.model_validate({})).items())
    size = (source / "dev/dev-1-0-img0.png").stat().st_size
    assert sum(isinstance(item, Reject) for item in items) == 1
    assert any(f"Located(path='dev/dev-1-0-img0.png', size={size}, " in repr(item) for item in items)


def test_sources_without_annotations_or_images_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw(source / "x.png", 1)
    with pytest.raises(SourceError, match=r"contains no annotations. Looked for .*train.json, dev.json"):
        run(source, tmp_path / "out")
    write_lines(source / "dev.json", annotation("dev-1-0-0"))
    (source / "x.png").unlink()
    with pytest.raises(SourceError, match=r"contains no images, .* --images"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
