"""predictions.jsonl: what a model answered, one line for each turn of each row, beside what it should have answered.

A line repeats what scoring needs of its row, so that a file can be scored without the data set it was made from.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError

from convkit.dataset import MAX_LINE_BYTES, Line, first_problem, read_lines
from convkit.errors import ConvkitError
from convkit.schema import SCHEMA_ID, NonEmptyTuple, OptionalGroup, Row, absent
from convkit.utils.files import display_path

MAX_TEXT = 100_000
"""Characters of a prediction or an answer: the time to compare two of them grows with the product of their lengths."""


def _never_null(type_: Any) -> GetPydanticSchema:
    """As in the row: absent is None in Python and a missing key in JSON."""
    return GetPydanticSchema(lambda _source, handler: handler(type_))


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Texts = NonEmptyTuple[Text]
Score = Annotated[float, Field(allow_inf_nan=False)]


class Prediction(BaseModel):
    """One turn of one row: what the model answered, and what it should have answered."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        title="convkit prediction",
        json_schema_extra={"$id": f"{SCHEMA_ID}:prediction"},
    )

    id: str = Field(min_length=1, max_length=512, description="The row's id.")
    source: str = Field(min_length=1, description="The data set that the row comes from; decides on the metrics.")
    turn: int = Field(ge=0, description="The turn of the row, from 0.")
    prediction: Text = Field(description="What the model answered.")
    gold: Annotated[str | None, _never_null(Text)] = absent("The row's own answer; absent where there is no label.")
    answers: Annotated[tuple[str, ...] | None, _never_null(Texts)] = absent(
        "Every accepted answer; absent where it is the gold answer alone."
    )
    group: OptionalGroup = absent("The row's group; rows of one group are drawn together for confidence intervals.")
    sentence_id: OptionalGroup = absent(
        "The statement that the row asks about, in NLVR2: it is shown with several pairs of images."
    )
    score: Annotated[float | None, _never_null(Score)] = absent(
        "How probable the model holds the positive answer of two; only the order of scores matters."
    )

    @classmethod
    def from_row(cls, row: Row, turn: int, prediction: str, score: float | None = None) -> Self:
        """What the model answered in a turn of a row.

        Raises:
            ValidationError: a text is longer than 100,000 characters.
        """
        asked = row.conversations[turn]
        sentence_id = (row.metadata or {}).get("sentence_id")
        known: dict[str, Any] = {
            "gold": asked.assistant,
            "answers": asked.answers,
            "group": row.group,
            "sentence_id": sentence_id if sentence_id and isinstance(sentence_id, str) else None,
            "score": score,
        }
        present = {key: value for key, value in known.items() if value is not None}
        return cls(id=row.id, source=row.source, turn=turn, prediction=prediction, **present)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every accepted answer; none where the turn has no label."""
        return self.answers or (() if self.gold is None else (self.gold,))

    @property
    def label(self) -> str:
        """The one answer, where answers are classes; only of a turn that has one."""
        return self.accepted[0] if self.gold is None else self.gold

    @property
    def cluster(self) -> tuple[bool, str]:
        """What is drawn together for confidence intervals: the row's group, or else the row."""
        return (self.group is not None, self.group or self.id)

    def to_line(self) -> bytes:
        """The prediction as one JSON line, without line end; absent keys are left out."""
        return self.model_dump_json(exclude_none=True).encode()


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions file whole; `.jsonl.gz` and `.jsonl.zst` are decompressed.

    Returns:
        The predictions in the order of ids and turns, so that scores do not depend on that of the lines.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: a line is no prediction, or one of a turn that an earlier line has; or there is none.
    """
    shown = display_path(path)
    lines: dict[tuple[str, str, int], int] = {}
    predictions = []
    for number, prediction in _parse(path, shown):
        key = (prediction.source, prediction.id, prediction.turn)
        if (first := lines.setdefault(key, number)) != number:
            raise ConvkitError(
                f"{shown}:{number} predicts turn {prediction.turn} of the row {prediction.id!r} of "
                f"{prediction.source!r} again, as line {first} does. Keep one of the two lines."
            )
        predictions.append(prediction)
    if not predictions:
        raise ConvkitError(f"{shown} holds no predictions. Give a file with a line for each turn of each row.")
    return sorted(predictions, key=lambda prediction: (prediction.id, prediction.turn))


def _parse(path: Path, shown: str) -> Iterator[tuple[int, Prediction]]:
    for line in read_lines(path):
        try:
            yield line.number, Prediction.model_validate_json(line.raw)
        except ValidationError as error:
            raise ConvkitError(
                f"{shown}:{line.number} is not a prediction: {_problem(line, error)}. Fix the line; "
                "`convkit schema prediction` prints the format."
            ) from None


def _problem(line: Line, error: ValidationError) -> str:
    if line.overlong:
        return f"it is longer than {MAX_LINE_BYTES:,} bytes"
    return first_problem(error) if line.raw.strip() else "it is empty"
