"""Run the Python example of docs/howto/convert-your-own.md, and that of the API reference."""

import json
from pathlib import Path

import pytest
from PIL import Image

from convkit import Dataset
from tests.docs.pages import ROOT, blocks

LABELS = "id,image,label,split,patient\n1,a.png,yes,train,p1\n2,b.png,no,val,p2\n3,missing.png,no,val,p3\n"


def _example(page: str) -> str:
    (found,) = (block.text for block in blocks(ROOT / page) if block.language == "python")
    return found


def test_the_loop_writes_rows_and_quarantines_a_missing_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text(LABELS)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 48), colour).save(name)
    exec(_example("docs/howto/convert-your-own.md"), {})
    dataset = Dataset.open(Path("data/scans"))
    rows = {split: [row for _, row in dataset.rows(split)] for split in ("train", "val")}
    assert [row.group for row in rows["train"]] == ["p1"]
    assert [row.conversations[0].assistant for row in rows["val"]] == ["no"]
    quarantined = [json.loads(line) for line in Path("data/scans/quarantine.jsonl").read_text().splitlines()]
    assert len(quarantined) == 1 and set(quarantined[0]) == {"address", "rule", "reason", "units"}


def test_the_api_example_converts_and_validates_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, name, size in (("train", "apple", 64), ("train", "leaf", 96), ("val", "apple", 80), ("val", "leaf", 72)):
        folder = Path("photos") / split / name
        folder.mkdir(parents=True)
        image = Image.effect_noise((size, size), 90 if name == "leaf" else 40).convert("RGB")
        image.save(folder / f"{size}.png")
    exec(_example("docs/reference/api.md"), {})
    assert capsys.readouterr().out.startswith("True ")
    assert Path("data/receipt.json").exists()
