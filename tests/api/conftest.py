"""Fixtures for tests of the Python API."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import convkit
from tests.fixtures.builders import png

MakeChats = Callable[..., convkit.Dataset]
RED, BLUE, GREY = png(60, 40, 10), png(48, 48, 90), png(30, 64, 200)
ROWS: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("before", [{"images": [RED], "user": "What is it?", "assistant": "A cup of coffee."}], {"group": "cups"}),
    (
        "marked",
        [{"images": [RED, BLUE], "user": "Is <image> true, or <image>?", "assistant": "False.", "answers": ["False."]}],
        {"system": "It is true."},
    ),
    (
        "turns",
        [
            {"images": [BLUE], "user": "<image>What is it?", "assistant": "A logo."},
            {"user": "What is the total amount?", "assistant": "True."},
            {"images": [GREY], "user": "Is it a logo?", "assistant": "It is."},
        ],
        {"metadata": {"page": 3, "título": None}},
    ),
    ("text", [{"user": "Is the statement true?", "assistant": "True."}], {}),
    ("val", [{"images": [png(70, 30, 50)], "user": "Is it a cup?", "assistant": "It is."}], {"split": "val"}),
]
"""Ids, turns, and the other arguments of `DatasetWriter.add`."""


@pytest.fixture(scope="session")
def make_chats(tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> "MakeChats":
    """Return a function that writes a dataset of conversations, with a receipt for a family if one is named."""
    root = tmp_path_factory.mktemp("chats")

    @cache
    def make(family: str | None = None) -> convkit.Dataset:
        with convkit.DatasetWriter(root / str(family), name="chats") as writer:
            for id, turns, more in ROWS:
                assert writer.add(id, turns, **more) is None
        if family:
            assert convkit.validate(writer.dataset, model=str(tiny_checkpoint(family)), workers=0).receipts
        return writer.dataset

    return make
