"""Names are given out once, however many there are."""

from pathlib import Path

import pytest

from convkit.convert import names as registry
from convkit.convert.batch import Converted, Share
from convkit.convert.journal import Outcome, Written
from convkit.convert.names import Claims, Names
from convkit.converters.base import Reject


def test_names_are_told_from_others_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RECENT", 10)
    names = Names()
    assert not names
    for number in range(0, 100, 2):
        names.recall([str(number)])
        assert names.taken([str(number)]) == []
        names.add([str(number)])
    assert names
    every = [str(number) for number in range(100)]
    names.recall(every)
    assert names.taken(every) == every[::2]


def test_names_are_forgotten_neither_within_an_item_nor_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RECENT", 2)
    to = Claims(tmp_path)

    def outcomes(*ids: str) -> list[Outcome]:
        return [Written("train", ("{}",), (row_id,), 1, 0, (), (), 1) for row_id in ids]

    for outcome in outcomes(*"abcdefg"):
        to.take(outcome)
    parts = [
        Converted(outcome, shares=(Share(number, 1, 1, 0, 0, 0, 1),))
        for number, outcome in enumerate(outcomes(*"hcijkh"))
    ]
    found = to.settle(parts, "item")
    assert [isinstance(outcome, Reject) for outcome in found] == [False, True, False, False, False, True]
    assert to.rows


def _settle(to: Claims, scratch: Path, row_id: str, content: bytes) -> Outcome:
    staged = scratch / row_id
    staged.write_bytes(content)
    outcome = Written("train", ("{}",), (row_id,), 1, 1, (("a.png", len(content)),), (), 1)
    (settled,) = to.settle([Converted(outcome, (str(staged),), (Share(0, 1, 1, 1, 1, 0, 1),))], row_id)
    assert not staged.exists()
    return settled


def test_an_image_that_is_there_is_compared_and_not_brought_again(tmp_path: Path) -> None:
    images = tmp_path / "images"
    to = Claims(images)
    first, equal, other = (_settle(to, tmp_path, name, data) for name, data in (("1", b"a"), ("2", b"a"), ("3", b"b")))
    assert isinstance(first, Written)
    assert first.media == (("a.png", 1),)
    assert isinstance(equal, Written)
    assert equal.media == ()
    assert isinstance(other, Reject)
    assert other.rule == "media-conflict"
    assert (images / "a.png").read_bytes() == b"a"
