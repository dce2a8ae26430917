"""Rows of every Parquet layout are parsed from Python objects, without files."""

import sys
from pathlib import Path
from typing import Any

import pytest

from convkit.converters.chats import LAYOUTS, ChatTurn, parse_example
from convkit.converters.parquet import RowGroup, list_files, resolve_image, row_groups
from convkit.errors import ItemError, MissingExtra, SourceError

IMAGE = {"type": "image", "text": None}


def group(layout: str) -> RowGroup:
    return RowGroup("a.parquet#0", "a.parquet", 1, 0, 0, 1, layout, "images", (), False)


def chat(images: int, *contents: Any, system: Any = None) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[k % 2], "content": content} for k, content in enumerate(contents)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"images": [{}] * images, "messages": messages}


def text(value: str | None) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (chat(0, "Q", "A"), [ChatTurn(0, "Q", "A")]),
        (chat(2, "Q", "A", "R", "B"), [ChatTurn(2, "Q", "A"), ChatTurn(0, "R", "B")]),
        (chat(2, "Q", "A", "<image>R<image>", "B"), [ChatTurn(0, "Q", "A"), ChatTurn(2, "<image>R<image>", "B")]),
        (chat(2, "<image>Q", "A", "<image>R", "B"), [ChatTurn(1, "<image>Q", "A"), ChatTurn(1, "<image>R", "B")]),
        (chat(2, [IMAGE, IMAGE, text("Q")], "A"), [ChatTurn(2, "Q", "A")]),
        (chat(1, [text(""), IMAGE, text("Q")], "A"), [ChatTurn(1, "Q", "A")]),
        (chat(1, [text("Q"), IMAGE], [text("A"), text("B")]), [ChatTurn(1, "Q<image>", "AB")]),
        (chat(2, [IMAGE, text("Q"), IMAGE], "A"), [ChatTurn(2, "<image>Q<image>", "A")]),
        (chat(1, [text("Q")], "A"), [ChatTurn(1, "Q", "A")]),
    ],
)
def test_chats_are_parsed_into_turns(row: dict[str, Any], turns: list[ChatTurn]) -> None:
    parsed = parse_example(group("messages"), row)
    assert parsed.turns == turns
    assert parsed.system is None


def test_a_system_message_is_parsed() -> None:
    assert parse_example(group("messages"), chat(0, "Q", "A", system="S")).system == "S"
    assert parse_example(group("messages"), chat(0, "Q", "A", system=[text("S")])).system == "S"


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (chat(2, "<image>Q", "A"), "image-count"),
        (chat(0, [IMAGE], "A"), "image-count"),
        (chat(0, "Q"), "malformed-row"),
        (chat(0), "malformed-row"),
        (chat(0, system="S"), "malformed-row"),
        (chat(0, "Q", None), "malformed-row"),
        (chat(0, [text(None)], "A"), "malformed-row"),
        (chat(0, ["Q"], "A"), "malformed-row"),
        (chat(1, "Q", [IMAGE]), "malformed-row"),
        (chat(0, [{"type": "video"}], "A"), "malformed-row"),
        ({"images": [], "messages": [{"role": "assistant", "content": "A"}]}, "malformed-row"),
        ({"images": [], "messages": [None]}, "malformed-row"),
        ({"images": [], "messages": "Q"}, "malformed-row"),
        ({"images": [], "messages": None}, "malformed-row"),
    ],
)
def test_malformed_chats_are_refused_with_their_rule(row: dict[str, Any], rule: str) -> None:
    with pytest.raises(ItemError) as caught:
        parse_example(group("messages"), row)
    assert caught.value.rule == rule


def test_different_sources_within_a_row_are_all_listed() -> None:
    texts = [{"user": "Q", "assistant": "A", "source": source} for source in ("a", "b", "a", None)]
    assert parse_example(group("texts"), {"images": None, "texts": texts}).metadata == {"source": ["a", "b"]}


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "..", "a\\b", "a\0b"])
def test_image_paths_that_leave_the_source_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ItemError) as caught:
        resolve_image(tmp_path, 0, {"bytes": None, "path": path})
    assert caught.value.rule == "unsafe-path"


@pytest.mark.parametrize("value", [None, {}, "a.png", {"bytes": None, "path": ""}, {"bytes": None, "path": 3}])
def test_values_without_bytes_and_path_are_missing_images(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ItemError) as caught:
        resolve_image(tmp_path, 0, value)
    assert caught.value.rule == "missing-image"


def test_bytes_take_precedence_over_the_path(tmp_path: Path) -> None:
    assert resolve_image(tmp_path, 0, {"bytes": b"x", "path": "/etc/passwd"}) == b"x"


def test_a_loop_of_links_is_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(ItemError):
        resolve_image(tmp_path, 0, {"bytes": None, "path": "a.png"})


def test_missing_pyarrow_is_reported_with_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'convkit-vlm\[parquet\]'"):
        row_groups(tmp_path, "a.parquet", LAYOUTS)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    import os

    (tmp_path / os.fsdecode(b"caf\xe9.parquet")).write_bytes(b"")
    with pytest.raises(SourceError, match=r"caf\\xe9\.parquet in .* is not UTF-8"):
        list_files(tmp_path)
