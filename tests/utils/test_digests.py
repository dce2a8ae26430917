"""Columns and sets of digests work in memory and on disk alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.utils import digests
from convkit.utils.digests import Column, DigestSet
from tests.fixtures.builders import lines, row
from tests.validate.helpers import report_of, write_rows


def numbers(*values: int) -> Any:
    return np.array(values, np.uint64)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=30), max_size=8), st.booleans())
def test_digests_are_the_same_in_memory_and_on_disk(parts: list[list[int]], spill: bool) -> None:
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


def test_different_ids_with_equal_digests_are_not_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "xxh3_64_intdigest", lambda content, key: len(content))
    path = write_rows(tmp_path, lines(row("a1"), row("b1"), row("long"), row("a1")))
    assert [(f.code, f.line) for f in report_of(path, media="none").findings] == [("CK301", 4)]
