"""The name registry gives each name out once, in constant memory."""

from pathlib import Path

import pytest

from convkit.convert import names as names_module
from convkit.convert.journal import Outcome, Written
from convkit.convert.names import NameRegistry, NameSet
from convkit.convert.worker import StagedOutcome
from convkit.converters.base import Reject


def test_a_set_of_more_names_than_fit_in_memory_finds_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "RECENT", 10)
    names = NameSet()
    assert not names
    for number in range(0, 100, 2):
        names.prefetch([str(number)])
        assert names.taken([str(number)]) == []
        names.add([str(number)])
    assert names
    every = [str(number) for number in range(100)]
    names.prefetch(every)
    assert names.taken(every) == every[::2]


def test_a_name_is_reserved_once_within_an_item_and_across_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "RECENT", 2)
    registry = NameRegistry(tmp_path)

    def outcomes(*ids: str) -> list[Outcome]:
        return [Written("train", ("{}",), (row_id,), 1, 0, (), (), 1) for row_id in ids]

    for outcome in outcomes(*"abcdefg"):
        registry.restore(outcome)
    found = registry.reserve([StagedOutcome(outcome) for outcome in outcomes(*"hcijkh")], "item")
    assert [isinstance(outcome, Reject) for outcome in found] == [False, True, False, False, False, True]
    assert registry.has_rows


def _reserve(registry: NameRegistry, scratch: Path, row_id: str, content: bytes) -> Outcome:
    staged = scratch / row_id
    staged.write_bytes(content)
    outcome = Written("train", ("{}",), (row_id,), 1, 1, (("a.png", len(content)),), (), 1)
    (reserved,) = registry.reserve([StagedOutcome(outcome, (str(staged),))], row_id)
    assert not staged.exists()
    return reserved


def test_an_image_with_a_known_name_is_compared_and_not_stored_again(tmp_path: Path) -> None:
    images = tmp_path / "images"
    registry = NameRegistry(images)
    contents = {"1": b"a", "2": b"a", "3": b"b"}
    first, equal, other = (_reserve(registry, tmp_path, name, content) for name, content in contents.items())
    assert isinstance(first, Written)
    assert first.media == (("a.png", 1),)
    assert isinstance(equal, Written)
    assert equal.media == ()
    assert isinstance(other, Reject)
    assert other.rule == "media-conflict"
    assert (images / "a.png").read_bytes() == b"a"
