"""What makes validation fast must not change what it finds: pieces, digests, the plain schema, the cache."""

import errno
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convkit import layout
from convkit.errors import ConvkitError, MissingExtra
from convkit.media import images
from convkit.media.cache import MediaCache
from convkit.profiles import TargetModel
from convkit.rules import file as file_rules
from convkit.rules.base import RowFile
from convkit.schema import IMAGE_MARKER, Row
from convkit.utils import digests
from convkit.utils.digests import Column, DigestSet
from convkit.validate.chunks import RowChunk, read_chunks
from convkit.validate.fast_schema import count_keys, read_row
from convkit.validate.run import validate
from tests.fixtures.builders import line, lines, png, row, turn
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import codes, copy_of, report_of, write_rows
from tests.validate.test_hostile import documents

INVALID = sorted(path.name for path in (DIRECTORY / "invalid").iterdir())


def small_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in ("convkit.validate.chunks", "convkit.validate.run"):
        monkeypatch.setattr(f"{module}.CHUNK_BYTES", size)


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("name", INVALID)
def test_pieces_of_any_size_have_the_same_findings(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(f"invalid/{name}", tmp_path)
    monkeypatch.setattr("convkit.validate.run.MAX_LINE_BYTES", 4096)
    whole = report_of(directory)
    small_pieces(monkeypatch, size)
    assert report_of(directory) == whole


def test_any_number_of_processes_has_the_same_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(
        b"{" * (k % 7 == 0) + line(row(str(k % 90), [f"{k % 50}.png"], system=" " * (k % 11))) + b"\n"
        for k in range(300)
    )
    path = write_rows(tmp_path, content)
    small_pieces(monkeypatch, 4096)
    reports = [validate([path], workers=workers).report for workers in (0, 1, 2)]
    assert reports[0].findings and reports[0] == reports[1] == reports[2]


@given(st.binary(max_size=60).map(lambda raw: raw.replace(b"\x00", b"\n")), st.integers(1, 20), st.integers(0, 10))
@example(b"12345678\n1\n12", 3, 4)
def test_pieces_are_whole_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int, max_line: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_pieces(monkeypatch, size)
        seen: list[int] = []
        pieces = list(read_chunks(RowFile(path), max_line, seen.append))
    raws = content.split(b"\n")
    raws = raws if raws[-1] else raws[:-1]
    found: dict[int, bytes | None] = {}
    for piece in pieces:
        assert not piece.overlong or piece.read() == b""
        parts = [None] if piece.overlong else piece.read().removesuffix(b"\n").split(b"\n")
        found.update(enumerate(parts, piece.first_line))
    assert list(found) == list(range(1, len(raws) + 1))
    for number, raw in enumerate(raws, 1):
        assert found[number] == raw or (found[number] is None and len(raw) > max_line)
    assert sum(seen) == len(content)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path, lines(row()))

    def meddle(_: int) -> None:
        os.truncate(path, 3)

    with pytest.raises(ConvkitError, match=r"x_train\.jsonl changed while it was read"):
        list(read_chunks(RowFile(path), 100, meddle))


def is_sound(raw: bytes) -> bool:
    try:
        Row.model_validate_json(raw)
    except ValidationError:
        return False
    return True


@settings(max_examples=300)
@given(documents)
@example(row("x" * 513))
@example(row("a", group=""))
@example(row("a", metadata={"x": float("nan")}))
@example(row("a", conversations=[]))
@example(row("a", conversations=[turn(answers=[])]))
@example(row("a", conversations=[turn(), turn()]))
@example(row("a", ["../a"], group="g", system="s", metadata={"a": [{}]}))
def test_the_plain_schema_is_the_schema_of_rows(document: Any) -> None:
    raw = json.dumps(document).encode()
    try:
        plain = read_row(raw)
    except ValidationError:
        assert not is_sound(raw)
        return
    turns = plain["conversations"]
    markers = [turn["user"].count(IMAGE_MARKER) for turn in turns]
    sound = all(count in (0, len(turn["images"])) for count, turn in zip(markers, turns, strict=True)) and all(
        "assistant" in turn for turn in turns[:-1]
    )
    assert is_sound(raw) == sound
    if sound:
        assert json.loads(Row.model_validate_json(raw).to_line()) == json.loads(raw)


def test_the_plain_schema_has_the_count_keys_the_model() -> None:
    from convkit.schema import Turn
    from convkit.validate.fast_schema import PlainRow, PlainTurn

    for plain, model in ((PlainRow, Row), (PlainTurn, Turn)):
        assert list(plain.__annotations__) == list(model.model_fields)
        assert plain.__required_keys__ == {name for name, field in model.model_fields.items() if field.is_required()}


json_values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a": \t\\', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a": \\', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(alphabet='a": ', max_size=3), json_values, max_size=3), st.booleans())
def test_no_key_is_missed_by_the_count(metadata: Any, spaced: bool) -> None:
    content = row("1", metadata=metadata)
    raw = json.dumps(content, separators=(",", " \t:") if spaced else None).encode()
    assert file_rules.most_keys(raw) >= count_keys(read_row(raw))
    assert file_rules.duplicate_key(raw, 1) is None


def numbers(*values: int) -> Any:
    return np.array(values, np.uint64)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=30), max_size=8), st.booleans())
def test_digests_in_memory_and_on_disk(parts: list[list[int]], spill: bool) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(digests, "SPILL_BYTES", 64 if spill else 2**20)
        column, known, python = Column(), DigestSet(), set[int]()
        everything = [value for part in parts for value in part]
        for part in parts:
            column.append(numbers(*part))
            new = known.add(numbers(*part)).tolist()
            for value, is_new in zip(part, new, strict=True):
                assert is_new == (value not in python)
                python.add(value)
        assert [value for block in column.blocks() for value in block.tolist()] == everything
        assert column.repeated().tolist() == sorted({value for value in everything if everything.count(value) > 1})
        assert (len(known), len(column)) == (len(python), len(everything))
        assert known.contains(numbers(*everything, 6)).tolist() == [True] * len(everything) + [6 in python]


def test_equal_digests_of_different_ids_are_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "xxh3_64_intdigest", lambda content, key: len(content))
    path = write_rows(tmp_path, lines(row("a1"), row("b1"), row("long"), row("a1")))
    assert [(f.code, f.line) for f in report_of(path, media="none").findings] == [("CK301", 4)]


def pictures(tmp_path: Path, count: int = 5) -> Path:
    (tmp_path / "images").mkdir()
    names = [f"{index}.png" for index in range(count)]
    for name in names:
        (tmp_path / "images" / name).write_bytes(png())
    return write_rows(tmp_path, lines(*(row(name, [name]) for name in names)))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are opened, in an empty cache that takes files as they are."""
    monkeypatch.setattr("convkit.media.cache.MIN_FILE_AGE_NS", 0)
    looked: list[str] = []
    inspect_file = images.inspect_file

    def watch(path: str, decode: bool = True, name: str | None = None) -> Any:
        looked.append(Path(path).name)
        return inspect_file(path, decode, name)

    monkeypatch.setattr(images, "inspect_file", watch)
    return looked


def test_what_did_not_change_is_not_opened_again(tmp_path: Path, opened: list[str]) -> None:
    path = pictures(tmp_path)
    first = report_of(path)
    assert len(opened) == 5
    assert report_of(path) == first and report_of(path, media="header") == first
    assert len(opened) == 5


@pytest.mark.parametrize("media", ["decode", "header"])
def test_a_model_needs_no_second_look_at_images(tmp_path: Path, opened: list[str], media: str) -> None:
    path = pictures(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    target = TargetModel.from_options("qwen2-vl", max_length=3)
    found = [f for f in report_of(path, media=media, target=target).findings if f.code in ("CK204", "CK401")]
    assert [(f.code, f.line) for f in found] == [(("CK204" if line == 4 else "CK401"), line) for line in range(1, 6)]
    assert sorted(opened) == [f"{number}.png" for number in range(5)]


def test_a_header_is_not_taken_for_a_decoded_image(tmp_path: Path, opened: list[str]) -> None:
    path = pictures(tmp_path, 1)
    (tmp_path / "images" / "0.png").write_bytes(png(20, 20)[:200])
    assert codes(report_of(path, media="header")) == []
    assert codes(report_of(path)) == ["CK204"]


def test_a_changed_byte_is_seen_even_where_the_time_is_set_back(tmp_path: Path, opened: list[str]) -> None:
    path = pictures(tmp_path)
    report_of(path)
    image = tmp_path / "images" / "2.png"
    before = image.stat()
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    opened.clear()
    assert codes(report_of(path)) == ["CK204"]
    assert opened == ["2.png"]


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, opened: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("convkit.media.cache.MIN_FILE_AGE_NS", 3600 * 10**9)
    path = pictures(tmp_path)
    report_of(path), report_of(path)
    assert len(opened) == 10


def test_a_folder_that_now_leads_out_is_seen(tmp_path: Path, opened: list[str]) -> None:
    path = pictures(tmp_path)
    inside = tmp_path / "images" / "sub"
    inside.mkdir()
    (inside / "a.png").write_bytes(png())
    path.write_bytes(lines(row("1", ["sub/a.png"])))
    assert codes(report_of(path)) == []
    shutil.move(inside, tmp_path / "sub")
    inside.symlink_to("../sub")
    assert codes(report_of(path)) == ["CK203"]


def garbage(path: Path) -> None:
    path.write_bytes(b"no database")


def torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def strange(path: Path) -> None:
    """Values of other kinds, as a stranger may write them."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE image SET seen = '[1, {}, null]' WHERE path < '2'")
        database.execute("UPDATE image SET seen = x'ff', size = 'x' WHERE path >= '2'")
    database.close()


def other_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE image; CREATE TABLE image (x)")
    database.close()


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tag SET tag = 'other'")
    database.close()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [garbage, torn, strange, other_table, other_version, a_folder])
def test_a_spoilt_cache_is_ignored(tmp_path: Path, opened: list[str], spoil: Callable[[Path], None]) -> None:
    path = pictures(tmp_path)
    report = report_of(path)
    cache = layout.media_cache(tmp_path / "images")
    spoil(cache)
    assert report_of(path) == report
    assert len(opened) == 10


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert codes(report_of(pictures(tmp_path))) == []


def test_a_worker_that_looks_at_images_loads_little() -> None:
    """Its start is most of what the headers of some thousand images cost."""
    modules = "sys, convkit.utils.pool, convkit.media.images"
    code = f"import {modules}; print({{'pydantic', 'numpy', 'PIL'}} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    assert images.inspect_image.__module__ == "convkit.media.images"


def test_many_known_images_behind_one_that_is_not(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.validate.image_pass._MAX_PENDING", 3)
    path = pictures(tmp_path, 40)
    first = report_of(path)
    (tmp_path / "images" / "0.png").write_bytes(png(17, 17))
    seen: list[int | None] = []
    monkeypatch.setattr("convkit.receipt.MediaDigest.add", lambda self, path, size, sha: seen.append(int(path[:-4])))
    assert validate([path], workers=1).report == first
    assert seen == list(range(40))


def compressed(path: Path, content: bytes) -> Path:
    import zstandard

    packed = gzip.compress(content) if path.suffix == ".gz" else zstandard.ZstdCompressor().compress(content)
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_rows(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 64)
    content = lines(row("1"), row("2"), row("1")) + b"{"
    path = compressed(tmp_path / f"x.jsonl{suffix}", content[:-1])
    with path.open("ab") as file:  # a second frame goes on where the first ends
        file.write(compressed(tmp_path / f"y.jsonl{suffix}", b"{").read_bytes())
    report = report_of(path)
    assert [(f.code, f.line) for f in report.findings] == [("CK301", 3), ("CK009", 4)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no archive", lambda raw: raw[:-9] + b"x" * 9]
)
def test_damaged_compression(tmp_path: Path, suffix: str, spoil: Callable[[bytes], bytes]) -> None:
    path = compressed(tmp_path / f"x.jsonl{suffix}", b"".join(lines(row(str(k))) for k in range(50)))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ConvkitError, match=r"x\.jsonl\.(gz|zst) cannot be decompressed: .*Copy the file again"):
        report_of(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_refused(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.dataset.MAX_EXPANSION", 10)
    path = compressed(tmp_path / f"x.jsonl{suffix}", b" " * 2**20)
    with pytest.raises(ConvkitError, match="more than 10 times its size"):
        report_of(path)


def test_without_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path / "x.jsonl.zst", b"{}\n")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'convkit-vlm\[zstd\]'"):
        report_of(path)


def test_rows_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    content = lines(row("1", ["0.png"]), row("2", ["none.png"]), row("1", ["0.png"]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    report = validate([Path("-")], workers=0).report
    assert [(f.code, f.file, f.line) for f in report.findings] == [("CK201", "<stdin>", 2), ("CK301", "<stdin>", 3)]


def test_standard_input_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.validate.inputs.MAX_STDIN_BYTES", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n" * 11)))
    with pytest.raises(ConvkitError, match=r"more than 10 bytes\. Write the rows to a file"):
        validate([Path("-")], workers=0)


def test_standard_input_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Full()))
    with pytest.raises(ConvkitError, match=r"\(No space left on device\)\. Write the rows"):
        validate([Path("-")], workers=0)


@given(st.lists(st.integers(0, 20), max_size=8), st.lists(st.integers(0, 20), max_size=8))
def test_blocks_do_not_depend_on_how_digests_were_added(one: list[int], other: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(digests, "SPILL_BYTES", 128)
        columns = []
        for parts in (one, other):
            column = Column()
            for size in [*parts, sum(one + other) - sum(parts)]:
                column.append(numbers(*range(size)))
            columns.append([len(block) for block in column.blocks()])
        assert columns[0] == columns[1]


def test_a_worker_that_dies_over_rows_ends_the_run(tmp_path: Path) -> None:
    from convkit.validate.run import _raise_crash

    with pytest.raises(ConvkitError, match=r"x\.jsonl from line 7 on died"):
        _raise_crash(RowChunk("x.jsonl", 0, 0, 7, b"", 0))


def test_a_full_cache_object_survives_closing_twice(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path / "c.sqlite")
    cache.close()
    cache.close()
    assert cache.get(["a"]) == {}
