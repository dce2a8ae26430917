"""A bug in a converter costs only the affected items, and each of them is accounted for."""

import json
from pathlib import Path

import pytest

from tests.convert.helpers import quarantined, rows, run_lines, tree
from tests.convert.toy import write_lines


def test_converter_that_raises(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "raise", "ok")
    assert run_lines(source, tmp_path / "out").accounting.written == 2
    ((rule, reason),) = quarantined(tmp_path / "out").values()
    assert rule == "converter-error"
    assert reason.startswith("RuntimeError: the line says so (toy.py:")


def test_converter_with_media_that_no_row_names(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "orphan")
    run_lines(source, tmp_path / "out")
    reason = "the converter gives media that no row names: orphan.txt"
    assert quarantined(tmp_path / "out") == {"lines.txt:2": ("converter-error", reason)}
    assert tree(tmp_path / "out/images").keys() == {"0.txt"}


def test_converter_that_gives_an_id_twice(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "first id", "one id twice", "ok")
    assert run_lines(source, tmp_path / "out").accounting.written == 2
    found = quarantined(tmp_path / "out")
    assert {address: rule for address, (rule, _) in found.items()} == {
        "lines.txt:2": "duplicate-id",
        "lines.txt:3": "duplicate-id",
    }
    assert "row id line-0" in found["lines.txt:2"][1]
    assert tree(tmp_path / "out/images").keys() == {"0.txt", "3.txt"}


@pytest.mark.parametrize("workers", [0, 2])
def test_no_image_is_replaced_by_another_items(tmp_path: Path, workers: int) -> None:
    source = write_lines(tmp_path / "source", "ok", "first image", "ok")
    manifest = run_lines(source, tmp_path / "out", workers=workers)
    reason = "an earlier item has another image of the name 0.txt"
    assert quarantined(tmp_path / "out") == {"lines.txt:2": ("media-conflict", reason)}
    assert (tmp_path / "out/images/0.txt").read_bytes().startswith(b"0 ok")
    assert manifest.accounting.media_files == len(tree(tmp_path / "out/images")) == 2


def test_item_that_kills_its_worker(tmp_path: Path) -> None:
    lines = ["ok"] * 12
    lines[4] = lines[9] = "die"
    source = write_lines(tmp_path / "source", *lines)
    manifest = run_lines(source, tmp_path / "out", workers=2)
    assert manifest.accounting.written == 10
    assert quarantined(tmp_path / "out") == {
        f"lines.txt:{number}": ("crash", "the process that decoded it died (a crash in a decoder, or out of memory)")
        for number in (5, 10)
    }
    assert [row["id"] for row in rows(tmp_path / "out", "train")] == [f"line-{n}" for n in (0, 1, 3, 6, 7, 10)]
    assert [row["id"] for row in rows(tmp_path / "out", "val")] == [f"line-{n}" for n in (2, 5, 8, 11)]


def _batch(tmp_path: Path, text: str, workers: int = 0) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """Convert a batch between two ordinary lines, and return the row ids and the quarantine of the batch."""
    source = write_lines(tmp_path / "source", "ok", f"batch {text}", "ok")
    manifest = run_lines(source, tmp_path / "out", workers)
    ids = sorted(row["id"] for row in rows(tmp_path / "out"))
    assert {"line-0", "line-2"} <= set(ids)
    assert manifest.accounting.read == 2 + len(text.split())
    named = {image for row in rows(tmp_path / "out") for turn in row["conversations"] for image in turn["images"]}
    assert tree(tmp_path / "out/images").keys() == named
    return [i for i in ids if i not in ("line-0", "line-2")], quarantined(tmp_path / "out")


def test_parts_of_a_batch_are_rejected_one_by_one(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok reject ok reject ok")
    assert ids == ["line-100", "line-102", "line-104"]
    reason = ("refused", "the word says so")
    assert found == {"lines.txt:2:2": reason, "lines.txt:2:4": reason}


def test_a_batch_that_raises_keeps_its_earlier_parts(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok raise ok ok")
    assert ids == ["line-100", "line-101"]
    assert found.keys() == {"lines.txt:2"}
    (entry,) = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_bytes().splitlines()]
    assert (entry["rule"], entry["units"]) == ("converter-error", 3)


def test_a_batch_with_too_few_units_is_detected(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok nothing ok nothing")
    assert ids == ["line-100", "line-102"]
    assert found == {"lines.txt:2": ("converter-error", "2 units are unaccounted for")}


def test_a_batch_with_too_many_units_is_detected(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok two")
    assert ids == ["line-100", "line-101"]
    assert found["lines.txt:2"][0] == "converter-error"


def test_a_batch_with_an_invalid_part_is_detected(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok exclude ok")
    assert ids == ["line-100"]
    assert found == {"lines.txt:2": ("converter-error", "Exclude is neither a record nor a reject")}


def test_a_batch_that_kills_its_worker_leaves_no_media(tmp_path: Path) -> None:
    ids, found = _batch(tmp_path, "ok ok die ok", workers=1)
    assert ids == []
    assert found["lines.txt:2"][0] == "crash"


def test_a_batch_with_a_duplicate_id_loses_only_that_part(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "batch ok ok ok", "ok")  # parts 0, 1, 2; then line 1
    assert run_lines(source, tmp_path / "out").accounting.written == 3
    assert list(quarantined(tmp_path / "out")) == ["lines.txt:2"]
    assert [row["id"] for row in rows(tmp_path / "out")] == ["line-0", "line-1", "line-2"]


def test_parts_are_quarantined_in_order_for_any_reason(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", f"batch {'ok ' * 102}", "batch reject ok reject ok")
    assert run_lines(source, tmp_path / "out").accounting.quarantined == 3
    assert list(quarantined(tmp_path / "out")) == ["lines.txt:2:1", "lines.txt:2", "lines.txt:2:3"]  # its part is 101
