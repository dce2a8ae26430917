"""The validation receipt: when it is written, what it attests, and what makes it stale."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from convkit import __version__, receipt
from convkit.errors import DatasetError
from convkit.rules.registry import codes
from convkit.validate.run import Result, validate
from tests.validate.helpers import copy_of


def run(path: Path, **options: Any) -> Result:
    return validate([path], workers=0, **options)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_receipt_holds_the_digests_of_what_was_read(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    result = run(directory)
    assert (result.receipts, result.notes) == ((directory / "receipt.json",), ())
    found = receipt.read(directory)
    assert found.manifest == sha256((directory / "dataset.json").read_bytes())
    train, val = directory / "pets_train.jsonl", directory / "pets_val.jsonl"
    assert found.rows == {
        train.name: receipt.RowsReceipt(rows=2, sha256=sha256(train.read_bytes())),
        val.name: receipt.RowsReceipt(rows=1, sha256=sha256(val.read_bytes())),
    }
    names = ["a.png", "sub/link.png", "sub/..b.png"]
    contents = [(directory / "images" / name).read_bytes() for name in names]
    text = "".join(f"{name}\0{sha256(content)}\n" for name, content in zip(names, contents, strict=True))
    assert found.media == receipt.MediaReceipt(files=3, bytes=sum(map(len, contents)), digest=sha256(text.encode()))
    assert (found.rules, found.warnings, found.convkit) == (codes(with_model=False), {}, __version__)


def test_equal_datasets_get_equal_receipts(tmp_path: Path) -> None:
    texts = set()
    for place in ("a", "b"):
        directory = copy_of("valid/with_manifest", tmp_path / place)
        for workers in (0, 2):
            validate([directory], workers=workers)
            texts.add((directory / "receipt.json").read_bytes())
        assert [path.name for path in directory.glob("*receipt*")] == ["receipt.json"]
    assert len(texts) == 1
    assert texts.pop().endswith(b"}\n")


def test_warnings_are_counted_in_the_receipt(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK304_foreign_rows", tmp_path)
    assert run(directory).receipts
    assert receipt.read(directory).warnings == {"CK304": 1}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("valid/recipe_output", {}),
        ("valid/with_manifest", {"media": "header"}),
        ("valid/with_manifest", {"media": "none"}),
        ("invalid/CK302_manifest_mismatch", {}),
    ],
)
def test_a_receipt_needs_a_manifest_a_full_decode_and_no_errors(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    directory = copy_of(name, tmp_path)
    assert run(directory, **options).receipts == ()
    assert not (directory / "receipt.json").exists()


def test_single_files_get_no_receipt(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    assert run(directory / "pets_train.jsonl").receipts == ()


@pytest.mark.parametrize("media", ["decode", "header", "none"])
def test_a_stale_receipt_is_removed_with_a_note(tmp_path: Path, media: str) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    run(directory)
    with (directory / "pets_val.jsonl").open("ab") as file:
        file.write(b"\n")
    result = run(directory, media=media)
    path = directory / "receipt.json"
    assert result.notes == (f"receipt removed: {path}: the dataset does not pass any more",)
    assert not path.exists()
    assert run(directory).notes == ()


def test_a_read_only_directory_still_gets_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("convkit.utils.files.os.fsync", refuse)
    result = run(directory)
    assert result.report.summary.rows == 3
    assert result.notes == (f"receipt not written or removed: {directory / 'receipt.json'}: Read-only file system",)
    assert not list(directory.glob("*receipt*"))


def test_an_interrupted_write_leaves_the_old_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    run(directory)
    before = (directory / "receipt.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convkit.utils.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(directory)
    assert (directory / "receipt.json").read_bytes() == before
    assert [path.name for path in directory.glob("*receipt*")] == ["receipt.json"]


def test_missing_and_unknown_receipts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"has no receipt\.json: it was not validated, or did not pass\. Run: convkit validate"
    ):
        receipt.read(tmp_path)
    for content in (b"{", b"{}", b'{"receipt_version": 2}'):
        (tmp_path / "receipt.json").write_bytes(content)
        with pytest.raises(DatasetError, match=r"is damaged or of another version"):
            receipt.read(tmp_path)


def passed(tmp_path: Path) -> Path:
    directory = copy_of("valid/with_manifest", tmp_path)
    run(directory)
    return directory


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def test_an_unchanged_dataset_that_passed_may_be_trained_on(tmp_path: Path) -> None:
    directory = passed(tmp_path)
    assert receipt.require(directory) == receipt.read(directory)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pets_train.jsonl", r"pets_train\.jsonl has changed"),
        ("pets_val.jsonl", r"pets_val\.jsonl has changed"),
        ("images/a.png", "images have changed"),
        ("images/sub/..b.png", "images have changed"),
    ],
)
@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "not remembered"])
def test_any_changed_byte_makes_the_receipt_stale(
    tmp_path: Path, name: str, reason: str, remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if remembered:
        monkeypatch.setattr("convkit.media.cache.MIN_FILE_AGE_NS", 0)
    directory = passed(tmp_path)
    before = (directory / name).stat()
    flip(directory / name)
    os.utime(directory / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        DatasetError, match=f"cannot be used for training or evaluation: {reason}.*Run: convkit validate {directory}"
    ):
        receipt.require(directory)


@pytest.mark.parametrize("name", ["pets_val.jsonl", "images/a.png", "dataset.json", "receipt.json"])
def test_a_missing_file_makes_the_receipt_stale(tmp_path: Path, name: str) -> None:
    directory = passed(tmp_path)
    (directory / name).unlink()
    with pytest.raises(DatasetError):
        receipt.require(directory)


def test_a_changed_manifest_makes_the_receipt_stale(tmp_path: Path) -> None:
    directory = passed(tmp_path)
    manifest = directory / "dataset.json"
    manifest.write_text(manifest.read_text().replace('"pets.zip"', '"cats.zip"'))
    with pytest.raises(DatasetError, match=r"dataset\.json has changed since"):
        receipt.require(directory)


def test_a_link_with_a_new_target_makes_the_receipt_stale(tmp_path: Path) -> None:
    directory = passed(tmp_path)
    link = directory / "images" / "sub" / "link.png"
    link.unlink()
    link.symlink_to(tmp_path / "copy.png")
    (tmp_path / "copy.png").write_bytes((directory / "images" / "a.png").read_bytes())
    with pytest.raises(DatasetError, match="images have changed"):
        receipt.require(directory)


def test_new_rules_make_the_receipt_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = passed(tmp_path)
    monkeypatch.setattr(receipt, "codes", lambda with_model: (*codes(with_model=with_model), "CK999"))
    with pytest.raises(DatasetError, match="with other rules"):
        receipt.require(directory)


def test_a_model_needs_a_receipt_for_its_profile(tmp_path: Path) -> None:
    directory = passed(tmp_path)
    command = f"Run: convkit validate {directory} --model phi35-vision"
    with pytest.raises(DatasetError, match=f"not validated for phi35-vision. {command}"):
        receipt.require(directory, "phi35-vision")
    asked = {"profile": "phi35-vision", "rules": codes(with_model=True)}
    receipt.write(directory, receipt.read(directory).model_copy(update=asked))
    assert receipt.require(directory, "phi35-vision").profile == "phi35-vision"
    with pytest.raises(DatasetError, match="not validated for qwen2-vl, but last for phi35-vision"):
        receipt.require(directory, "qwen2-vl")


@pytest.mark.parametrize("old_new", [('"files": 3', '"files": 4'), ('"media": "decode"', '"media": "none"')])
def test_an_edited_receipt_is_detected_by_its_digest(tmp_path: Path, old_new: tuple[str, str]) -> None:
    directory = passed(tmp_path)
    path = directory / "receipt.json"
    path.write_text(path.read_text().replace(*old_new))
    for ask in (receipt.read, receipt.require):
        with pytest.raises(DatasetError, match=r"was edited: .*Run: convkit validate"):
            ask(directory)
