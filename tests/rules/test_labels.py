"""CK311 and CK312: splits whose answers are not classes."""

from pathlib import Path
from typing import Any

from tests.fixtures.builders import labelled, turn
from tests.rules.helpers import write_dataset
from tests.validate.helpers import codes, report_of


def test_multi_turn_rows_have_no_classes(tmp_path: Path) -> None:
    def twice(number: int, answer: str) -> dict[str, Any]:
        said = turn(f"And {number}?", assistant=answer)
        return {**labelled(number, answer), "conversations": [turn("Hm?", assistant="Hm."), said]}

    train = [twice(number, "no") for number in range(200)]
    write_dataset(tmp_path, {}, train=train, val=[twice(1000, "yes"), twice(1001, "no")])
    assert codes(report_of(tmp_path)) == []


def test_free_form_answers_are_not_classes(tmp_path: Path) -> None:
    train = [labelled(number, f"It is {number}.") for number in range(50)] + [labelled(60 + k, "yes") for k in range(9)]
    write_dataset(tmp_path, {}, train=train, val=[labelled(100, "Something else.")])
    assert codes(report_of(tmp_path)) == []
