"""DatasetWriter: a dataset directory from a Python loop, with the guarantees of a conversion."""

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from convkit import ConvkitError, Dataset, DatasetError, DatasetWriter, SourceError, validate
from tests.convert.helpers import tree


def picture(number: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    colour = (10 * number % 256, 90, 200 - number)
    PIL.Image.new("RGB", (20 + number, 16), colour).save(buffer, format)
    return buffer.getvalue()


def write(out: Path, rows: int = 12, before: Callable[[int], None] = lambda number: None) -> Dataset:
    with DatasetWriter(out, name="made") as writer:
        for number in range(rows):
            before(number)
            turns = [{"images": [picture(number)], "user": "How wide?", "assistant": f"{20 + number} pixels"}]
            writer.add(f"r{number}", turns, split="val" if number % 4 == 3 else "train", group=f"g{number}")
    return writer.dataset


def test_rows_come_back_and_the_dataset_validates(tmp_path: Path) -> None:
    dataset = write(tmp_path / "out")
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {"train": 9, "val": 3}
    row = next(iter(dataset["train"]))
    assert (row.id, row.source, row.group) == ("r0", "made", "g0")
    assert row.conversations[0].images == ("train/r0.0.png",)
    assert (dataset.images / "train/r0.0.png").read_bytes() == picture(0)
    accounting = dataset.manifest.accounting
    assert (accounting.read, accounting.written, accounting.quarantined) == (12, 12, 0)
    assert validate(dataset).ok


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "bytearray", "PIL", "array"])
def test_an_image_is_stored_from_any_supported_type(tmp_path: Path, kind: str) -> None:
    data = picture(3)
    (tmp_path / "a.png").write_bytes(data)
    decoded = PIL.Image.open(io.BytesIO(data))
    image = {
        "path": tmp_path / "a.png",
        "string": str(tmp_path / "a.png"),
        "bytes": data,
        "bytearray": bytearray(data),
        "PIL": decoded,
        "array": np.asarray(decoded),
    }[kind]
    with DatasetWriter(tmp_path / "out", name="made") as writer:
        assert writer.add("a/b c", [{"images": [image], "user": "?", "assistant": "!"}]) is None
    (path,) = next(iter(writer.dataset)).conversations[0].images
    stored = PIL.Image.open(writer.dataset.images / path)
    assert np.array_equal(np.asarray(stored), np.asarray(decoded))
    assert "b c" not in path


def test_a_row_that_cannot_be_written_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "out", name="made") as writer:
        good = {"images": [picture(1)], "user": "?", "assistant": "!"}
        assert writer.add("a", [good]) is None
        rejects = [
            writer.add("a", [good]),
            writer.add("b", [{**good, "images": [b"no image"]}]),
            writer.add("c", [{**good, "images": [tmp_path / "missing.png"]}]),
            writer.add("d", [{**good, "user": "<image><image>"}]),
            writer.add("e", []),
            writer.add("f", [good], split="../up"),
            writer.add("", [good]),
            writer.add("g", [{**good, "colour": "red"}]),
            writer.add("h", [good], metadata={"score": float("nan")}),
        ]
    assert [reject and reject.address for reject in rejects] == [f"row {number}" for number in range(2, 11)]
    accounting = writer.dataset.manifest.accounting
    assert (accounting.read, accounting.written, accounting.quarantined) == (10, 1, 9)
    lines = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["rule"] for line in lines][:3] == ["duplicate-id", "undecodable-image", "missing-image"]


def test_an_unsupported_image_type_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not int"), DatasetWriter(tmp_path / "out", name="made") as writer:
        writer.add("a", [{"images": [3], "user": "?", "assistant": "!"}])


def test_too_many_rejects_stop_the_loop(tmp_path: Path) -> None:
    bad = [{"images": [b""], "user": "?", "assistant": "!"}]
    with (
        pytest.raises(ConvkitError, match="2 of 2 rows could not be written"),
        DatasetWriter(tmp_path / "out", name="made", max_errors=1) as writer,
    ):
        for number in range(9):
            writer.add(str(number), bad)
    with (
        pytest.raises(SourceError, match="row 1"),
        DatasetWriter(tmp_path / "fail", name="made", on_error="fail") as writer,
    ):
        writer.add("a", bad)


def test_no_row_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="got no row"), DatasetWriter(tmp_path / "out", name="made"):
        pass
    assert not (tmp_path / "out").exists()


def test_an_exception_in_the_loop_leaves_work_that_is_resumed(tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 7:
            raise ValueError("my own bug")

    with pytest.raises(ValueError, match="my own bug"):
        write(tmp_path / "out", before=fail)
    assert not (tmp_path / "out/dataset.json").exists()
    write(tmp_path / "out")
    write(tmp_path / "undisturbed")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


@pytest.mark.parametrize("killed", [0, 1, 5, 11])
def test_a_killed_loop_resumes_to_the_same_bytes(tmp_path: Path, killed: int) -> None:
    if (child := os.fork()) == 0:

        def kill(number: int) -> None:
            if number == killed:
                os.kill(os.getpid(), signal.SIGKILL)

        write(tmp_path / "out", before=kill)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    write(tmp_path / "out")
    write(tmp_path / "undisturbed")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_another_loop_does_not_resume_an_interrupted_one(tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", before=fail)
    with (
        pytest.raises(DatasetError, match="gave another row 1"),
        DatasetWriter(tmp_path / "out", name="made") as writer,
    ):
        writer.add("other", [{"images": [], "user": "?", "assistant": "!"}])
    with pytest.raises(DatasetError, match="gave more rows"):
        write(tmp_path / "out", rows=3)
    assert len(write(tmp_path / "out")) == 12


def test_a_complete_dataset_is_kept_if_the_loop_gives_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "out")
    before = tree(tmp_path / "out")
    assert len(write(tmp_path / "out")) == 12
    with pytest.raises(DatasetError, match="complete dataset of other rows"):
        write(tmp_path / "out", rows=11)
    assert tree(tmp_path / "out") == before


def test_two_writers_do_not_share_a_directory(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "out", name="made") as writer:
        writer.add("a", [{"images": [], "user": "?", "assistant": "!"}])
        with (
            pytest.raises(DatasetError, match="another conversion is writing"),
            DatasetWriter(tmp_path / "out", name="made"),
        ):
            pass
    assert len(writer.dataset) == 1


def truncated_picture() -> PIL.Image.Image:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return PIL.Image.open(io.BytesIO(buffer.getvalue()[:2000]))


def test_images_in_memory_that_cannot_be_encoded_are_quarantined(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "out", name="made") as writer:
        turn = {"user": "?", "assistant": "!"}
        assert writer.add("cmyk", [{**turn, "images": [PIL.Image.new("CMYK", (9, 9), (0, 255, 255, 0))]}]) is None
        for image in (truncated_picture(), np.zeros((9, 9), np.float32), PIL.Image.new("RGB", (0, 3))):
            reject = writer.add("a", [{**turn, "images": [image]}])
            assert reject and reject.rule == "undecodable-image" and "cannot be encoded" in reject.reason
    (path,) = next(iter(writer.dataset)).conversations[0].images
    with PIL.Image.open(writer.dataset.images / path) as stored:
        assert (stored.mode, stored.getpixel((4, 4))) == ("RGB", (255, 0, 0))
    assert validate(writer.dataset).ok


def test_texts_that_are_not_unicode_are_quarantined(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "out", name="made") as writer:
        turn = {"images": [picture(1)], "user": "?", "assistant": "!"}
        rejects = [writer.add("\ud800", [turn]), writer.add("a", [{**turn, "user": "\udcff"}]), writer.add("a", [turn])]
    assert [reject and reject.rule for reject in rejects] == ["invalid-row", "invalid-row", None]


def test_values_that_json_does_not_have_do_not_keep_a_loop_from_resuming(tmp_path: Path) -> None:
    for _ in range(2):
        with DatasetWriter(tmp_path / "out", name="made") as writer:
            writer.add("a", [{"images": [], "user": "?", "assistant": "!"}])
            writer.add("b", [{"images": [], "user": "?", "assistant": "!"}], metadata={"score": object()})
    assert len(writer.dataset) == 1


@pytest.mark.parametrize("images", ["a.png", None, picture(1)])
def test_images_must_be_a_list(tmp_path: Path, images: object) -> None:
    with (
        pytest.raises(TypeError, match="images is a list"),
        DatasetWriter(tmp_path / "out", name="made") as writer,
    ):
        writer.add("a", [{"images": images, "user": "?", "assistant": "!"}])


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="name: "):
        DatasetWriter(tmp_path / "out", name="a/b")
    with pytest.raises(ConvkitError, match="on_error must be quarantine or fail, not 'ignore'"):
        DatasetWriter(tmp_path / "out", name="a", on_error="ignore")  # type: ignore[arg-type]


def test_rows_are_only_added_in_the_block(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "out", name="made")
    turns = [{"images": [], "user": "?", "assistant": "!"}]
    with pytest.raises(ConvkitError, match="in the `with` block"):
        writer.add("a", turns)
    with writer:
        writer.add("a", turns)
    with pytest.raises(ConvkitError, match="in the `with` block"):
        writer.add("b", turns)
    assert len(writer.dataset) == 1


def test_a_refused_writer_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", before=fail)
    refused = DatasetWriter(tmp_path / "out", name="other")
    with pytest.raises(DatasetError, match="unfinished conversion of another kind") as error:
        refused.__enter__()
    assert len(write(tmp_path / "out")) == 12, error
