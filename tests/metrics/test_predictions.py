"""The predictions file: contents of a line, and errors."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from convkit.errors import ConvkitError
from convkit.metrics.predictions import MAX_TEXT, Prediction, read_predictions
from convkit.schema import Row
from tests.test_schemas import validator

SCHEMA = validator("prediction.json")
LINE = {"id": "a", "source": "pets", "turn": 0, "prediction": "cat"}

BAD: list[tuple[Any, str]] = [
    ({**LINE, "turn": -1}, "turn: "),
    ({**LINE, "turn": "0"}, "turn: "),
    ({**LINE, "id": ""}, "id: "),
    ({**LINE, "prediction": None}, "prediction: "),
    ({**LINE, "gold": None}, "gold: "),
    ({**LINE, "answers": []}, "answers: "),
    ({**LINE, "answers": "cat"}, "answers: "),
    ({**LINE, "group": ""}, "group: "),
    ({**LINE, "label": "cat"}, "label: "),
    ({**LINE, "prediction": "x" * (MAX_TEXT + 1)}, "prediction: "),
    ({**LINE, "answers": ["x" * (MAX_TEXT + 1)]}, "answers.0: "),
    ({"id": "a", "source": "pets", "turn": 0}, "prediction: Field required"),
    ([], "Input should be an object"),
]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("line", "problem"), BAD, ids=range(len(BAD)))
def test_an_invalid_line_is_reported_with_its_number(tmp_path: Path, line: object, problem: str) -> None:
    assert not SCHEMA.is_valid(line)
    path = write(tmp_path / "p.jsonl", LINE, line)
    with pytest.raises(ConvkitError, match=r"p\.jsonl:2 is not a prediction: ") as error:
        read_predictions(path)
    assert problem in str(error.value)
    assert "`convkit schema prediction`" in str(error.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("\n", "it is empty"),
        ('{"id": "b"', "EOF"),
        ('{"id": "b", "source": "s", "turn": 0, "prediction": "x", "score": NaN}\n', "score: "),
        ('{"id": "b", "source": "s", "turn": 0, "prediction": "x", "score": 1e999}\n', "score: "),
        ('{"id": "\\ud800"}\n', "Invalid JSON"),
        ("\ufeff{}\n", "Invalid JSON"),
        (" " * (16 * 2**20 + 1), "longer than 16,777,216 bytes"),
    ],
    ids=["empty", "cut", "nan", "infinite", "surrogate", "bom", "overlong"],
)
def test_a_line_that_is_not_json_is_reported(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ConvkitError, match=r"p\.jsonl:2 is not a prediction: ") as error:
        read_predictions(write(tmp_path / "p.jsonl", LINE, line))
    assert problem in str(error.value)


def test_a_repeated_turn_is_an_error(tmp_path: Path) -> None:
    other = {**LINE, "source": "birds"}
    path = write(tmp_path / "p.jsonl", LINE, other, {**LINE, "turn": 1}, {**LINE, "prediction": "dog"})
    with pytest.raises(ConvkitError, match=r"p\.jsonl:4 repeats turn 0 of the row 'a' of 'pets' from line 1"):
        read_predictions(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="contains no predictions"):
        read_predictions(write(tmp_path / "p.jsonl"))


def test_predictions_are_sorted_for_any_order_of_lines(tmp_path: Path) -> None:
    full = Prediction(
        id="\u00e9",
        source="docvqa",
        turn=1,
        prediction="",
        gold="",
        answers=("", "b"),
        group="g",
        sentence_id="s",
        score=0,
    )
    bare = Prediction(id="b", source="docvqa", turn=0, prediction="x\n")
    assert json.loads(bare.to_line()) == {"id": "b", "source": "docvqa", "turn": 0, "prediction": "x\n"}
    SCHEMA.validate(json.loads(full.to_line()))
    path = tmp_path / "p.jsonl.gz"
    for lines in ([full, bare], [bare, full]):
        path.write_bytes(gzip.compress(b"\n".join(line.to_line() for line in lines)))
        assert read_predictions(path) == [bare, full]


def test_a_prediction_copies_the_fields_of_its_row() -> None:
    turns = [
        {"images": [], "user": "one?", "assistant": "1", "answers": ["1", "one"]},
        {"images": [], "user": "two?"},
    ]
    row = Row.model_validate_json(
        json.dumps({"id": "r", "source": "s", "group": "g", "metadata": {"sentence_id": "t"}, "conversations": turns})
    )
    first, last = (Prediction.from_row(row, turn, "x", score=0.0) for turn in (0, 1))
    assert (first.gold, first.answers, first.accepted, first.label) == ("1", ("1", "one"), ("1", "one"), "1")
    assert (first.group, first.sentence_id, first.score, first.cluster) == ("g", "t", 0.0, (True, "g"))
    assert (last.turn, last.gold, last.answers, last.accepted) == (1, None, None, ())
    odd = row.model_copy(update={"group": None, "metadata": {"sentence_id": ["t"]}})
    assert Prediction.from_row(odd, 0, "x").sentence_id is None
    assert Prediction.from_row(odd, 0, "x").cluster == (False, "r")


def test_null_values_are_an_error() -> None:
    with pytest.raises(ValidationError):
        Prediction(id="a", source="s", turn=0, prediction="x", gold=None)
