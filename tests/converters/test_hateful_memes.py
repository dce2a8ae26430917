"""Hateful Memes is converted in both layouts, with generated memes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convkit.convert.run import convert
from convkit.converters.hateful_memes import HatefulMemes
from convkit.errors import SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree


def run(source: Path, out: Path, workers: int = 0, **options: Any) -> Manifest:
    return convert(HatefulMemes, str(source), HatefulMemes.Options(**options), out, workers=workers)


def meme(number: int | str, label: int | None = 0, **other: Any) -> dict[str, Any]:
    found = {"id": number, "img": f"img/{int(number):05d}.png", "label": label, "text": f"text {int(number)}", **other}
    return {key: value for key, value in found.items() if value is not None}


def write(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))


def draw(root: Path, *numbers: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = Image.new("RGB", (8, 8), (number, 0, 0))
        picture.putpixel((0, 0), (255, 255, 255))
        picture.save(root / f"{number:05d}.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write the older layout; the image of meme 3 is missing."""
    root = tmp_path / "source"
    write(root / "data/train.jsonl", meme(1, 1), meme("00002", 0), meme(3, 1))
    write(root / "data/dev.jsonl", meme("4", 1))
    write(root / "data/test.jsonl", meme(5, None))
    draw(root / "data/img", 1, 2, 4, 5)
    return root


def row(split: str, number: int, label: int | None) -> dict[str, Any]:
    turn = {"images": [f"{split}/{number:05d}.png"], "user": "Is this meme hateful? Answer Yes or No."}
    metadata: dict[str, Any] = {"text": f"text {number}"}
    if label is not None:
        turn["assistant"] = "Yes" if label else "No"
        metadata["label"] = label
    return {
        "id": f"{split}-{number:05d}",
        "source": "hateful-memes",
        "conversations": [turn],
        "group": f"{number:05d}",
        "metadata": metadata,
    }


def test_memes_become_rows_with_label_and_text(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out")
    assert rows(tmp_path / "out") == [row("train", 1, 1), row("train", 2, 0), row("val", 4, 1), row("test", 5, None)]
    assert quarantined(tmp_path / "out") == {
        "data/train.jsonl:3": ("missing-image", "not in the source: img/00003.png")
    }
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.quarantined, done.media_files) == ("meme", 5, 4, 1, 4)
    assert (tmp_path / "out/images/val/00004.png").read_bytes() == (source / "data/img/00004.png").read_bytes()
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_seen_and_unseen_files_become_splits_of_their_names(tmp_path: Path) -> None:
    root = tmp_path / "source"
    for number, split in enumerate(("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"), 1):
        write(root / f"{split}.jsonl", meme(number, 1))
    draw(root / "flat", 1, 2, 3, 4, 5)
    manifest = run(root, tmp_path / "out")
    assert list(manifest.splits) == ["train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"]
    assert rows(tmp_path / "out", "dev_unseen") == [row("dev_unseen", 3, 1)]
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_options_change_prompt_and_answer_words(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", text_in_prompt=True, answer_words="hateful,fine", limit=1)
    turns = [r["conversations"][0] for r in rows(tmp_path / "out")]
    assert turns[0]["user"] == 'The text on the meme is: "text 1"\nIs this meme hateful? Answer hateful or fine.'
    assert [turn.get("assistant") for turn in turns] == ["hateful", "hateful", None]
    assert manifest.accounting.excluded == {"beyond --limit": 2}
    run(source, tmp_path / "prompt", prompt="{text}: {yes}|{no}")
    assert rows(tmp_path / "prompt")[0]["conversations"][0]["user"] == "text 1: Yes|No"


def test_bad_lines_are_quarantined_with_their_reasons(tmp_path: Path) -> None:
    root = tmp_path / "source"
    draw(root / "img", 1)
    draw(root / "other", 1)
    lines = [
        meme(1),
        meme("01"),
        meme(1, id=2, img="other/00001.png"),
        meme(1, id=3, label=2),
        meme(1, id=True),
        "{",
        meme(1, id=-1),
        meme(1, id="abc"),
        meme(1, id=4, text=None),
    ]
    write(root / "train.jsonl", *lines)
    run(root, tmp_path / "out")
    assert [r["id"] for r in rows(tmp_path / "out")] == ["train-00001", "train-abc"]
    refused = quarantined(tmp_path / "out")
    assert [(address, rule) for address, (rule, _) in refused.items()] == [
        ("train.jsonl:2", "duplicate-id"),
        ("train.jsonl:3", "duplicate-name"),
        ("train.jsonl:4", "bad-annotation"),
        ("train.jsonl:5", "bad-annotation"),
        ("train.jsonl:6", "bad-annotation"),
        ("train.jsonl:7", "bad-annotation"),
        ("train.jsonl:9", "bad-annotation"),
    ]
    assert refused["train.jsonl:2"][1] == "train.jsonl:1 has the id 00001 already"
    assert refused["train.jsonl:3"][1] == "other/00001.png would be stored under the name of img/00001.png"
    # The remaining two are one meme with two ids.
    assert [finding.code for finding in validate([tmp_path / "out"], workers=0).report.findings] == ["CK305"]


def test_changes_to_images_are_noted_once(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write(root / "train.jsonl", meme(1), meme(2, img="img/00001.png"))
    (root / "img").mkdir()
    Image.new("L", (8, 8)).save(root / "img/00001.png")
    manifest = run(root, tmp_path / "out")
    assert manifest.accounting.notes == {"L converted to RGB": 1}
    assert (manifest.accounting.written, manifest.accounting.media_files) == (2, 1)


def test_output_is_identical_for_any_workers_and_after_resuming(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "0")
    run(source, tmp_path / "2", workers=2)
    assert tree(tmp_path / "2") == tree(tmp_path / "0")
    original = HatefulMemes.convert

    def interrupted(self: HatefulMemes, item: Any) -> Any:
        if item.split == "test":
            raise KeyboardInterrupt
        return original(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(HatefulMemes, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out")
    run(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "0")


def test_a_source_without_annotations_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "source", 1)
    with pytest.raises(SourceError, match=r"Looked for train.jsonl, dev.jsonl, dev_seen"):
        run(tmp_path / "source", tmp_path / "out")
