"""CK305 and CK306: duplicate rows and conflicting answers."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.builders import lines, png, row, turn
from tests.rules.helpers import write_dataset
from tests.validate.helpers import codes, report_of


def asked(number: int | str, assistant: str, answers: list[str] | None = None) -> dict[str, Any]:
    more = {"answers": answers} if answers else {}
    return row(str(number), conversations=[turn("How much?", assistant=assistant, **more)])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("1", ["1", "2"]), ("2", ["1", "2"])], []),
        ([("1", ["1", "2"]), ("2", ["2", "1", "3"])], []),
        ([("1", ["1", "2"]), ("2", None)], ["CK306"]),
        ([("1", ["1", "2"]), ("3", ["1", "2"])], ["CK112", "CK306"]),
        ([("1", ["1", "2"]), ("2", ["1", "2"]), ("3", ["1", "2"])], ["CK112", "CK306"]),
        ([("1", ["1", "2"]), ("2", ["1", "2", "3"]), ("9", None)], ["CK306"]),
        ([("1", None), ("1", ["1", "2"])], ["CK305"]),
    ],
)
def test_accepted_answers_do_not_conflict(tmp_path: Path, rows: list[Any], expected: list[str]) -> None:
    write_dataset(tmp_path, {}, train=[asked(number, *said) for number, said in enumerate(rows)])
    assert codes(report_of(tmp_path)) == expected


def test_accepted_answers_beyond_the_limit_are_not_counted_as_conflicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lookup", "duplicates"):
        monkeypatch.setattr(f"convkit.rules.{module}.MAX_LISTED", 3)
    rows = []
    for number in range(5):
        for answer in ("1", "2"):
            said = turn(f"How much is {number}?", assistant=answer, answers=["1", "2"])
            rows.append(row(f"{number}-{answer}", conversations=[said]))
    write_dataset(tmp_path, {}, train=rows)
    assert codes(report_of(tmp_path)) == []


def test_a_duplicate_in_a_file_with_invalid_rows_is_found(tmp_path: Path) -> None:
    """Reading rows a second time skips the invalid ones."""
    write_dataset(tmp_path, {"a.png": png(), "b.png": png()}, train=[row("1", ["a.png"])])
    path = tmp_path / "pets_train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"{\n" + lines({**row("1", ["b.png"]), "id": "2"}))
    assert codes(report_of(tmp_path)) == ["CK006", "CK002", "CK305"]
